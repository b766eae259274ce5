//! Replays a recorded trace through a judge, in honest time: a fact is told when it became known, never before.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;

use crate::names::Mono;

use super::court::{Judge, Stage};
use super::facts::Fact;
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

/// A fact that is not known yet.
struct Later {
    known: u64,
    sequence: u64,
    fact: Fact,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.known, self.sequence).cmp(&(other.known, other.sequence))
    }
}

struct Run<W> {
    policy: Arc<Policy>,
    judge: Judge,
    writer: W,
    later: BinaryHeap<Reverse<Later>>,
    sequence: u64,
    next_tick: u64,
    in_stage: bool,
    /// The trace marks its own ticks.
    marked: bool,
    passed: bool,
    rolled_back: bool,
    /// What was missing when that was last said.
    missing: Option<Vec<Missing>>,
    spoken: bool,
}

/// Reads a trace (plain or gzip), and writes a line for each rollback, pass, or change of what is missing.
///
/// # Errors
/// A reader or writer that fails, or a line that is no trace line.
pub fn replay(policy: Policy, mut reader: impl BufRead, writer: impl Write) -> Result<(), ReplayError> {
    let policy = Arc::new(policy);
    let mut run = Run {
        judge: Judge::new(Arc::clone(&policy), Mono(0)),
        policy,
        writer,
        later: BinaryHeap::new(),
        sequence: 0,
        next_tick: IDLE_TICK_NS,
        in_stage: false,
        marked: false,
        passed: false,
        rolled_back: false,
        missing: None,
        spoken: false,
    };
    let gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    if gzip { run.read(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))) } else { run.read(reader) }?;
    run.writer.flush()?;
    Ok(())
}

impl<W: Write> Run<W> {
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
            let at = nanos(line.ts);
            if at < last {
                return Err(fault(format!("ts {} is before the line above; lines are sorted by ts", line.ts)));
            }
            last = at;
            let ended = match &line.event {
                None => {
                    self.advance(at, false)?;
                    let (later, sequence) = (&mut self.later, &mut self.sequence);
                    line.facts(number, |fact| {
                        *sequence += 1;
                        later.push(Reverse(Later { known: fact.known().0, sequence: *sequence, fact }));
                    })
                    .map_err(|what| fault(what.to_owned()))?;
                    false
                }
                Some(event) => self.control(&event.0, &line, at).map_err(|error| match error {
                    Refused::Io(error) => ReplayError::Io(error),
                    Refused::Event(what) => fault(what),
                })?,
            };
            if self.rolled_back || ended {
                return Ok(());
            }
        }
    }

    /// Runs the ticks before `until`, or also the one at it.
    fn advance(&mut self, until: u64, at_it_too: bool) -> io::Result<()> {
        while !self.marked && !self.rolled_back && (self.next_tick < until || (at_it_too && self.next_tick == until)) {
            self.tick(self.next_tick)?;
            self.next_tick += if self.in_stage { TICK_NS } else { IDLE_TICK_NS };
        }
        Ok(())
    }

    fn tell(&mut self, now: u64) {
        while self.later.peek().is_some_and(|Reverse(later)| later.known <= now) {
            if let Some(Reverse(later)) = self.later.pop() {
                self.judge.observe(&later.fact);
            }
        }
    }

    fn tick(&mut self, now: u64) -> io::Result<()> {
        self.tell(now);
        let verdict = self.judge.tick(Mono(now));
        if !self.in_stage {
            return Ok(());
        }
        match verdict {
            Verdict::Rollback { rule, reason } => {
                self.rolled_back = true;
                self.say(now, "rollback", Some(&rule), &reason)
            }
            Verdict::Advance { reason } if !self.passed => {
                self.passed = true;
                self.say(now, "pass", None, &reason)
            }
            Verdict::Hold { missing, reason } if !self.passed => {
                if self.missing.as_ref().is_some_and(|said| same(said, &missing)) {
                    return Ok(());
                }
                let rule = missing.iter().find_map(|item| item.rule.clone());
                self.missing = Some(missing);
                self.say(now, "hold", rule.as_deref(), &reason)
            }
            // After a pass the live machine would have gone on to the next stage.
            Verdict::Advance { .. } | Verdict::Hold { .. } => Ok(()),
        }
    }

    fn control(&mut self, event: &str, line: &Line, at: u64) -> Result<bool, Refused> {
        self.advance(at, true)?;
        if self.rolled_back {
            return Ok(true);
        }
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
                self.in_stage = true;
                self.passed = false;
                self.missing = None;
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
        Ok(self.rolled_back)
    }

    fn finish(&mut self, last: u64) -> Result<(), ReplayError> {
        self.advance(last, true)?;
        if !self.rolled_back {
            self.finish_at(last)?;
        }
        Ok(())
    }

    /// The last word, if nothing else was said.
    fn finish_at(&mut self, at: u64) -> io::Result<()> {
        if self.spoken {
            return Ok(());
        }
        self.say(at, "hold", None, &Missing { rule: None, lack: Lack::Stage }.to_string())
    }

    fn say(&mut self, now: u64, verdict: &str, rule: Option<&str>, reason: &str) -> io::Result<()> {
        self.spoken = true;
        let said = Said { ts: now as f64 / 1e9, verdict, rule, reason, canary_requests: self.judge.canary_requests() };
        serde_json::to_writer(&mut self.writer, &said)?;
        self.writer.write_all(b"\n")
    }
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
