//! Replays a recorded trace through a judge, in honest time: a fact is told when it became known, never before.

use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;

use crate::names::Mono;

use super::court::{Judge, Stage};
use super::fold::CheckpointError;
use super::later::{Later, Queue};
use super::policy::Policy;
use super::trace::{Line, nanos};
use super::verdict::{Lack, Missing, Verdict};

/// Ticks in a stage, as often as a live judge's; before the first stage there is nothing to decide.
const TICK_NS: u64 = 250_000_000;
const IDLE_TICK_NS: u64 = 1_000_000_000;

/// Why a trace could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace could not be read, or the verdicts not written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is no trace line.
    #[error("line {number}: {fault}")]
    Line {
        /// Counted from 1.
        number: u64,
        /// What is wrong.
        fault: String,
    },
}

/// One line of output.
#[derive(serde::Serialize)]
struct Said<'a> {
    ts: f64,
    verdict: &'a str,
    rule: Option<&'a str>,
    reason: &'a str,
    canary_requests: u64,
}

struct Run<'a, W> {
    policy: Arc<Policy>,
    judge: Judge,
    writer: W,
    /// Hears every verdict, with its tick.
    ear: &'a mut dyn FnMut(Mono, &Verdict),
    later: Queue,
    /// Known, but told only after a later mark.
    late: Vec<Later>,
    next_tick: u64,
    /// The trace marks its own ticks.
    marked: bool,
    /// Nanoseconds on the judge's clock: of the line with `ts` 0, and of the first such line.
    origin: u64,
    first_origin: u64,
    /// A judge took its seat in the trace: it is one that serin wrote, and a rollback is not its end.
    begun: bool,
    /// Control lines since then.
    marks: u64,
    speaker: Speaker,
}

/// Which verdicts are said: a rollback, a step back, a pass, a change of what is missing.
#[derive(Debug, Default)]
pub(crate) struct Speaker {
    in_stage: bool,
    passed: bool,
    stepped_back: bool,
    rolled_back: bool,
    /// What was missing when that was last said.
    missing: Option<Vec<Missing>>,
    spoken: bool,
}

impl Speaker {
    /// A stage was entered.
    pub(crate) fn stage(&mut self) {
        *self = Self { in_stage: true, spoken: self.spoken, ..Self::default() };
    }

    /// The line to say, if any.
    pub(crate) fn line(&mut self, ts: f64, verdict: &Verdict, canary_requests: u64) -> Option<Vec<u8>> {
        if !self.in_stage || self.rolled_back {
            return None;
        }
        let (word, rule, reason) = match verdict {
            Verdict::Rollback { rule, reason } => {
                self.rolled_back = true;
                ("rollback", Some(rule.as_str()), reason)
            }
            // After these the live machine would have gone on to the next stage, or back to the one before.
            _ if self.stepped_back => return None,
            Verdict::StepBack { rule, reason } => {
                self.stepped_back = true;
                ("step-back", Some(rule.as_str()), reason)
            }
            _ if self.passed => return None,
            Verdict::Advance { reason } => {
                self.passed = true;
                ("pass", None, reason)
            }
            Verdict::Hold { missing, reason } => {
                if self.missing.as_ref().is_some_and(|said| same(said, missing)) {
                    return None;
                }
                self.missing = Some(missing.clone());
                ("hold", missing.iter().find_map(|item| item.rule.as_deref()), reason)
            }
        };
        self.spoken = true;
        serde_json::to_vec(&Said { ts, verdict: word, rule, reason, canary_requests }).ok()
    }
}

/// Reads a trace (plain or gzip), and writes a line for each rollback, step back, pass, or change of what is missing. Only a
/// rollback ends it.
///
/// # Errors
/// A reader or writer that fails, or a line that is no trace line.
pub fn replay(policy: Policy, reader: impl BufRead, writer: impl Write) -> Result<(), ReplayError> {
    replay_heard(policy, reader, writer, &mut |_, _| ())
}

/// The same; `ear` hears the verdict of every tick.
///
/// # Errors
/// As [`replay`].
pub fn replay_heard(
    policy: Policy,
    mut reader: impl BufRead,
    writer: impl Write,
    ear: &mut dyn FnMut(Mono, &Verdict),
) -> Result<(), ReplayError> {
    let policy = Arc::new(policy);
    let mut run = Run {
        judge: Judge::new(Arc::clone(&policy), Mono(0)),
        policy,
        writer,
        ear,
        later: Queue::default(),
        late: Vec::new(),
        next_tick: IDLE_TICK_NS,
        marked: false,
        origin: 0,
        first_origin: 0,
        begun: false,
        marks: 0,
        speaker: Speaker::default(),
    };
    let gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    if gzip { run.read(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))) } else { run.read(reader) }?;
    run.writer.flush()?;
    Ok(())
}

impl<W: Write> Run<'_, W> {
    fn read(&mut self, mut reader: impl BufRead) -> Result<(), ReplayError> {
        let mut text = Vec::with_capacity(4_096);
        let (mut number, mut last) = (0, 0);
        loop {
            text.clear();
            if reader.read_until(b'\n', &mut text)? == 0 {
                return self.finish(last); // cut short: what is known stands
            }
            number += 1;
            let trimmed = text.trim_ascii();
            if trimmed.is_empty() {
                continue;
            }
            let fault = |fault: String| ReplayError::Line { number, fault };
            let line: Line = serde_json::from_slice(trimmed).map_err(|error| fault(error.to_string()))?;
            if line.event.as_ref().is_some_and(|event| event.0 == "begin") {
                self.begin(&line).map_err(fault)?;
                last = self.origin;
                continue;
            }
            let at = self.origin.saturating_add(nanos(line.ts));
            if at < last {
                return Err(fault(format!("ts {} is before the line above; lines are sorted by ts", line.ts)));
            }
            last = at;
            let ended = match &line.event {
                None => {
                    self.advance(at, false)?;
                    let (later, judge, marks) = (&mut self.later, &mut self.judge, self.marks);
                    line.facts_from(self.origin, number, |fact| {
                        let after = line.after(&fact);
                        // What is known at its line's time is told before any tick that may use it: arrivals mostly.
                        if fact.known().0 <= at && after <= marks {
                            judge.observe(&fact);
                        } else {
                            later.push(Later { after, fact });
                        }
                    })
                    .map_err(|what| fault(what.to_owned()))?;
                    false
                }
                Some(event) => self.control(&event.0, &line, at).map_err(|error| match error {
                    Refused::Io(error) => ReplayError::Io(error),
                    Refused::Event(what) => fault(what),
                })?,
            };
            // What serin wrote may go on: with the next release, or with what its next process wrote.
            if (self.speaker.rolled_back || ended) && !self.begun {
                return Ok(());
            }
        }
    }

    /// A judge takes its seat: a new one, or one with the evidence that it had there.
    fn begin(&mut self, line: &Line) -> Result<(), String> {
        let origin = line.mono.ok_or("mono is missing")?;
        let judge = match &line.evidence {
            None => Some(Judge::new(Arc::clone(&self.policy), Mono(origin))),
            Some(text) => {
                let bytes = unhex(&text.0).ok_or("evidence is not hexadecimal")?;
                match Judge::restore(Arc::clone(&self.policy), &bytes) {
                    Ok(judge) => Some(judge),
                    // Judged by other gates: this judge's own evidence goes on.
                    Err(CheckpointError::OtherPolicy) if self.begun => None,
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        if !self.begun {
            self.first_origin = origin;
        }
        (self.begun, self.marked, self.origin, self.marks) = (true, true, origin, 1);
        if let Some(judge) = judge {
            self.speaker.in_stage |= judge.state.stage.is_some();
            self.judge = judge;
            // It knows what was told before, and of what it was not told the trace says so again.
            self.later.clear();
            self.late.clear();
        } else {
            self.late.iter_mut().for_each(|later| later.after = 0);
        }
        Ok(())
    }

    /// Runs the ticks before `until`, or also the one at it.
    fn advance(&mut self, until: u64, at_it_too: bool) -> io::Result<()> {
        while !self.marked
            && !self.speaker.rolled_back
            && (self.next_tick < until || (at_it_too && self.next_tick == until))
        {
            self.tick(self.next_tick)?;
            self.next_tick += if self.speaker.in_stage { TICK_NS } else { IDLE_TICK_NS };
        }
        Ok(())
    }

    fn tell(&mut self, now: u64) {
        let (judge, marks) = (&mut self.judge, self.marks);
        self.late.retain(|later| {
            let told = later.after <= marks;
            if told {
                judge.observe(&later.fact);
            }
            !told
        });
        while let Some(later) = self.later.pop(now) {
            if later.after <= marks {
                judge.observe(&later.fact);
            } else {
                self.late.push(later);
            }
        }
    }

    fn tick(&mut self, now: u64) -> io::Result<()> {
        self.tell(now);
        let verdict = self.judge.tick(Mono(now));
        (self.ear)(Mono(now), &verdict);
        let line = self.speaker.line(self.ts(now), &verdict, self.judge.canary_requests());
        line.map_or(Ok(()), |line| self.write(line))
    }

    fn ts(&self, at: u64) -> f64 {
        at.saturating_sub(self.first_origin) as f64 / 1e9
    }

    fn write(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.writer.write_all(&line)
    }

    fn control(&mut self, event: &str, line: &Line, at: u64) -> Result<bool, Refused> {
        self.advance(at, true)?;
        if self.speaker.rolled_back && !self.begun {
            return Ok(true);
        }
        if let Some(fact) = line.fact(event, self.origin).map_err(|what| Refused::Event(what.to_owned()))? {
            self.later.push(Later { after: line.after(&fact), fact });
            return Ok(false);
        }
        let ended = self.mark(event, line, at)?;
        self.marks += 1;
        Ok(ended)
    }

    fn mark(&mut self, event: &str, line: &Line, at: u64) -> Result<bool, Refused> {
        match event {
            "stage" | "weight" => {
                let weight = line.weight.filter(|weight| (0.0..=1.0).contains(weight));
                let weight = weight.ok_or_else(|| Refused::Event("weight is no share from 0 to 1".to_owned()))?;
                self.tell(at);
                if event == "weight" {
                    self.judge.weight_changed(weight, Mono(at));
                    return Ok(false);
                }
                let residence = match line.residence_s {
                    None => self.policy.min_stage,
                    Some(seconds) => Duration::try_from_secs_f64(seconds)
                        .map_err(|_| Refused::Event("residence_s is no length of time".to_owned()))?,
                };
                let samples = line.samples.unwrap_or(self.policy.min_requests);
                self.judge.enter_stage(Stage { weight, residence, samples }, Mono(at));
                self.speaker.stage();
                self.next_tick = at + TICK_NS;
            }
            "restart" => {
                let bytes = self.judge.checkpoint();
                self.judge = Judge::restore(Arc::clone(&self.policy), &bytes)
                    .map_err(|error| Refused::Event(error.to_string()))?;
            }
            "tick" => {
                self.marked = true;
                self.tick(at)?;
            }
            "dropped" => self.judge.records_dropped(Mono(at)),
            "end" => {
                self.finish_at(at)?;
                return Ok(true);
            }
            other => return Err(Refused::Event(format!("{other:?} is no event"))),
        }
        Ok(self.speaker.rolled_back)
    }

    fn finish(&mut self, last: u64) -> Result<(), ReplayError> {
        self.advance(last, true)?;
        if !self.speaker.rolled_back {
            self.finish_at(last)?;
        }
        Ok(())
    }

    /// The last word, if nothing else was said.
    fn finish_at(&mut self, at: u64) -> io::Result<()> {
        if std::mem::replace(&mut self.speaker.spoken, true) {
            return Ok(());
        }
        let reason = Missing { rule: None, lack: Lack::Stage }.to_string();
        let canary_requests = self.judge.canary_requests();
        let said = Said { ts: self.ts(at), verdict: "hold", rule: None, reason: &reason, canary_requests };
        self.write(serde_json::to_vec(&said)?)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Why a control line is refused.
enum Refused {
    Io(io::Error),
    Event(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Io(error)
    }
}

/// Whether the same things are missing, whatever their numbers.
fn same(a: &[Missing], b: &[Missing]) -> bool {
    let alike = |(a, b): (&Missing, &Missing)| {
        a.rule == b.rule && std::mem::discriminant(&a.lack) == std::mem::discriminant(&b.lack)
    };
    a.len() == b.len() && a.iter().zip(b).all(alike)
}
