//! One exchange from its choice to its end, counted exactly once: at end, error or drop.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::access;
use super::asking::{self, Asking};
use super::sampling::Sampling;
use super::worker::{Routed, Worker};
use crate::measure::{Answer, End, Fact, Flags, Mark, Observation, Outcome, Recorder, cost};
use crate::names::{Arm, Mono, TOOL_CLASSES, Wall};
use crate::split::{Choice, UnitKey};
use crate::wire::history::Turn;
use crate::wire::schema::Schema;
use crate::wire::{Ending, Facts, Reader};

/// A request that has been given an arm. Dropped without an end, it was cancelled by the caller.
pub struct Exchange {
    worker: Rc<Worker>,
    routed: Routed,
    /// The arm that is charged or credited: that of the choice, also when stable answers in its place.
    charged: Arm,
    started: Mono,
    /// The unit, and whether chance placed it.
    unit: (UnitKey, bool),
    /// Named on the ring; 0 when the judge is not told of it.
    id: u64,
    head_at: Option<Mono>,
    status: Option<StatusCode>,
    /// Stable answered for the canary: the canary's failure stands, whatever stable does.
    failed_over: Option<Outcome>,
    reader: Reader,
    told_first_byte: bool,
    /// A header or trailer of the answer says that it broke a safety rule.
    violated: bool,
    /// Where it is a sample.
    pub sampling: Option<Box<Sampling>>,
    /// Where a gate wants to know what the request asks; read when the answer's head comes.
    pub asking: Option<Asking>,
    /// Where it stands in its conversation, and whether it asks again.
    turn: Option<(Turn, bool)>,
    ended: bool,
}

impl Exchange {
    /// Begins: counted in flight, and the judge is told of the arrival.
    #[must_use]
    pub fn begin(
        worker: &Rc<Worker>,
        routed: &Routed,
        choice: Choice,
        unit: UnitKey,
        request_id: &[u8],
        started: Mono,
    ) -> Self {
        let rollout = routed.rollout();
        let target = rollout.target(choice.arm);
        target.recorder.start(worker.index);
        let id = if rollout.fixed.config.evaluator.enabled && rollout.fixed.config.canary.is_some() {
            let id = worker.next_exchange();
            worker.tell_start(
                rollout.fixed.slot,
                rollout.fixed.marks.request(request_id),
                Fact::Start { id, at: started, arm: choice.arm, user: unit.0, drawn: choice.drawn },
            );
            id
        } else {
            0
        };
        Self {
            worker: Rc::clone(worker),
            routed: routed.clone(),
            charged: choice.arm,
            started,
            unit: (unit, choice.drawn),
            id,
            head_at: None,
            status: None,
            failed_over: None,
            reader: Reader::default(),
            told_first_byte: false,
            violated: false,
            sampling: None,
            asking: None,
            turn: None,
            ended: false,
        }
    }

    /// The worker it runs on.
    #[must_use]
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// When the request arrived.
    #[must_use]
    pub const fn started(&self) -> Mono {
        self.started
    }

    /// What feedback must know of it: the arm that is charged or credited, also when stable answered in its place.
    #[must_use]
    pub fn mark(&self, now: Mono) -> Mark {
        let ago = i64::try_from(now.since(self.started).as_millis()).unwrap_or(0);
        Mark {
            release: self.routed.rollout().fixed.marks.release,
            arm: self.charged,
            drawn: self.unit.1,
            user: self.unit.0.0,
            at: Wall(self.worker.clock.wall().0.saturating_sub(ago)),
        }
    }

    /// The canary could not; stable answers in its place and the canary's failure is what counts.
    pub fn fail_over(&mut self, outcome: Outcome) {
        self.failed_over = Some(outcome);
    }

    /// The rollout was latched between the choice and the head: nothing went to the canary, stable answers. The judge
    /// is told that this canary exchange is nobody's failure.
    pub fn leave_canary(&mut self, now: Mono) {
        if self.id != 0 {
            let end = End::plain(Outcome::Cancelled, 0);
            self.worker.tell(self.routed.rollout().fixed.slot, Fact::End { id: self.id, at: now, end });
            self.id = 0;
        }
        let rollout = self.routed.rollout();
        rollout.target(self.charged).recorder.end(self.worker.index);
        self.charged = Arm::Stable;
        rollout.target(Arm::Stable).recorder.start(self.worker.index);
    }

    /// What the request asks, as far as its body has passed; the shape that the answer is to have.
    pub fn asked(&mut self, path: &str, now: Mono) -> Option<Schema> {
        let asking = self.asking.take()?;
        let wanted = asking.read(&self.worker, &self.routed, path, self.unit.0, self.charged, now);
        self.turn = wanted.turn.map(|turn| (turn, wanted.again));
        wanted.schema
    }

    /// A turn counts as answered when its user has seen an answer that he may not like, of the version that is charged.
    fn note_answer(&self, outcome: Outcome, now: Mono) {
        let Some((turn, _)) = self.turn else { return };
        let stopped =
            outcome == Outcome::Cancelled && self.told_first_byte && self.status.is_some_and(|s| s.is_success());
        if self.failed_over.is_none() && (outcome == Outcome::Success || stopped) {
            asking::answered(&self.routed, turn, now);
        }
    }

    /// The response head came.
    pub fn head(&mut self, status: StatusCode, now: Mono, reader: Reader) {
        self.status = Some(status);
        self.head_at = Some(now);
        self.reader = reader;
    }

    /// Fields of the answer, at its head or behind it: one of them may say that it broke a safety rule.
    pub fn look_at(&mut self, fields: &HeaderMap) {
        if let Some(name) = &self.routed.rollout().fixed.config.safety.header {
            self.violated |= fields.get_all(name).iter().any(says_yes);
        }
    }

    /// Bytes of the body pass. `last` says that the end follows at once.
    pub fn chunk(&mut self, bytes: &[u8], now: Mono, last: bool) {
        self.reader.chunk(bytes, now);
        if !self.told_first_byte && !last && self.id != 0 && self.reader.begun_at().is_some() {
            self.told_first_byte = true;
            self.worker.tell(self.routed.rollout().fixed.slot, Fact::FirstByte { id: self.id, at: now });
        }
    }

    /// The answer came to its end.
    pub fn end(&mut self, ending: Ending, now: Mono) {
        if self.ended {
            return;
        }
        let facts = self.reader.finish(ending);
        let outcome = self.failed_over.unwrap_or_else(|| classify(self.status, ending, &facts));
        self.settle(outcome, &facts, now);
    }

    /// No answer of a version came: an error of ours or towards it.
    pub fn fail(&mut self, outcome: Outcome, status: StatusCode, now: Mono) {
        if self.ended {
            return;
        }
        self.status = Some(status);
        let outcome = self.failed_over.unwrap_or(outcome);
        self.settle(outcome, &Facts::default(), now);
    }

    fn line(&self, seen: &Observation, facts: &Facts) -> access::Line {
        let rollout = self.routed.rollout();
        access::Line {
            at: self.worker.clock.wall().rfc3339(),
            rollout: rollout.fixed.config.name.to_string(),
            version: rollout.target(self.charged).version.to_string(),
            arm: self.charged.as_str(),
            outcome: seen.outcome.as_str(),
            status: seen.status,
            bytes: facts.bytes,
            ttfb_us: seen.ttfb_us,
            ttft_us: seen.ttft_us,
            total_us: seen.total_us,
            tokens_out: facts.tokens_out,
        }
    }

    fn settle(&mut self, outcome: Outcome, facts: &Facts, now: Mono) {
        self.ended = true;
        let us = |at: Mono| u64::try_from(at.since(self.started).as_micros()).unwrap_or(u64::MAX);
        let rollout = self.routed.rollout();
        let target = rollout.target(self.charged);
        // Where stable answered in the canary's place, the canary is charged with its failure, and with nothing of what stable said.
        let own = self.failed_over.is_none();
        let answered = if own { target } else { rollout.target(Arm::Stable) };
        let cost_nano = cost::cost_nano(answered.prices.as_ref(), facts);
        let ttft_us = facts.first_token_at.filter(|_| own).map(us);
        let tpot_us = facts.tpot_ns().filter(|_| own).map(|ns| ns / 1_000);
        let answer = Answer::of(facts, cost_nano);
        let observation = Observation {
            outcome,
            status: self.status.map(|s| s.as_u16()),
            total_us: us(now),
            ttfb_us: self.head_at.map(us),
            ttft_us,
            tpot_us,
            answer: if own { answer } else { Answer::default() },
        };
        let recorder: &Recorder = &target.recorder;
        recorder.observe(self.worker.index, &observation);
        recorder.end(self.worker.index);
        if !own {
            answered.recorder.answered(self.worker.index, &answer);
        }
        self.note_answer(outcome, now);
        if let Some(sampling) = self.sampling.take() {
            sampling.finish(&self.worker, &self.routed, &self.mark(now), &observation);
        }
        if let Some(access) = &self.worker.access {
            access.log(self.line(&observation, facts));
        }
        if self.id != 0 {
            let end = if own {
                self.judged(outcome, facts, [ttft_us, tpot_us, cost_nano])
            } else {
                End::plain(outcome, observation.status.unwrap_or(0))
            };
            self.worker.tell(self.routed.rollout().fixed.slot, Fact::End { id: self.id, at: now, end });
        }
    }

    /// What the judge is told of an answer of the arm that is charged.
    fn judged(&self, outcome: Outcome, facts: &Facts, [ttft_us, tpot_us, cost_nano]: [Option<u64>; 3]) -> End {
        let success = outcome == Outcome::Success;
        End {
            outcome,
            status: self.status.map_or(0, |s| s.as_u16()),
            ttft_us,
            tpot_us,
            tokens_out: facts.tokens_out,
            cost_nano,
            flags: Flags {
                cut: facts.cut,
                in_band_error: facts.in_band_error && self.status.is_some_and(|s| s.is_success()),
                empty: facts.empty && success,
                truncated: facts.truncated,
                refusal: facts.refusal,
                tool_called: facts.tool_calls > 0,
                tool_error: facts.tool_errors > 0,
                safety: self.violated
                    || facts.rule_broken
                    || facts.filtered && self.routed.rollout().fixed.config.safety.content_filter,
                regeneration: self.turn.is_some_and(|(_, again)| again),
                schema_checked: success && facts.schema_valid.is_some(),
                schema_invalid: success && facts.schema_valid == Some(false),
            },
            script: facts.script,
            tool: facts.tool.map(|name| tool_class(name, self.routed.rollout().fixed.asks.turn_seed)),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended {
            let now = self.worker.clock.now();
            let facts = self.reader.finish(Ending::Cancelled);
            let outcome = self.failed_over.unwrap_or_else(|| classify(self.status, Ending::Cancelled, &facts));
            self.settle(outcome, &facts, now);
        }
    }
}

/// The class of a tool by the fingerprint of its name and the rollout's secret (Fibonacci hashing, the top bits).
const fn tool_class(name: u64, seed: u64) -> u8 {
    let mixed = (name ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - TOOL_CLASSES.ilog2())) as u8
}

/// Whether the value of a safety field says that a rule was broken: anything but one of the words for no.
fn says_yes(value: &HeaderValue) -> bool {
    let text = value.as_bytes().trim_ascii();
    let no = ["", "0", "false", "no", "none", "ok", "safe"];
    !no.iter().any(|no| text.eq_ignore_ascii_case(no.as_bytes()))
}

/// One outcome for an exchange. The status judges at the head; the end of the stream has the final word: a cut stream, an
/// error inside a 200 and a document that is no JSON are the version's errors. A stream whose answer was seen to its last
/// word is whole, though its caller leaves or its connection breaks before HTTP has said so.
fn classify(status: Option<StatusCode>, ending: Ending, facts: &Facts) -> Outcome {
    let ending = if facts.done { Ending::Clean } else { ending };
    if ending == Ending::Cancelled {
        return Outcome::Cancelled;
    }
    let status = status.map_or(0, |s| s.as_u16());
    match status {
        429 => Outcome::Throttled,
        504 => Outcome::Timeout,
        500.. => Outcome::UpstreamError,
        400..=499 => Outcome::ClientError,
        _ if ending == Ending::Broken || facts.cut || facts.in_band_error || facts.malformed => Outcome::UpstreamError,
        _ => Outcome::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_judges_at_the_head_and_the_stream_has_the_final_word() {
        let good = Facts::default();
        let cut = Facts { cut: true, ..Facts::default() };
        let done = Facts { done: true, ..Facts::default() };
        let malformed = Facts { malformed: true, ..Facts::default() };
        let in_band = Facts { in_band_error: true, ..Facts::default() };
        for (status, ending, facts, expect) in [
            (200, Ending::Clean, &good, Outcome::Success),
            (304, Ending::Clean, &good, Outcome::Success),
            (200, Ending::Clean, &cut, Outcome::UpstreamError),
            (200, Ending::Broken, &good, Outcome::UpstreamError),
            (200, Ending::Clean, &in_band, Outcome::UpstreamError),
            (200, Ending::Cancelled, &cut, Outcome::Cancelled),
            (200, Ending::Cancelled, &done, Outcome::Success),
            (200, Ending::Broken, &done, Outcome::Success),
            (200, Ending::Clean, &malformed, Outcome::UpstreamError),
            (429, Ending::Clean, &in_band, Outcome::Throttled),
            (404, Ending::Clean, &in_band, Outcome::ClientError),
            (503, Ending::Clean, &good, Outcome::UpstreamError),
            (504, Ending::Clean, &good, Outcome::Timeout),
        ] {
            assert_eq!(classify(StatusCode::from_u16(status).ok(), ending, facts), expect, "{status} {ending:?}");
        }
    }
}
