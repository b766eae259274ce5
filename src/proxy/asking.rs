//! What a request asks, read off its body as it passes: the shape that its answer is to have, and whether it asks for an
//! earlier answer again. Nothing of it is there where no gate wants to know.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::Method;

use super::body::UpBody;
use super::worker::{Routed, Worker};
use crate::measure::gauges::Limit;
use crate::names::{Arm, Mono};
use crate::split::UnitKey;
use crate::wire::history::{self, Asked, Turn};
use crate::wire::schema::Schema;

/// A request body, as far as it has passed.
pub enum Asking {
    /// It is held anyway.
    Held(Bytes),
    /// It is copied as it passes.
    Passing(Rc<Copy>),
}

/// A copy of a body on its way up, given up beyond a bound.
#[derive(Debug)]
pub struct Copy {
    most: usize,
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    passed: usize,
    whole: bool,
}

impl Copy {
    fn new(most: usize) -> Self {
        Self { most, kept: RefCell::default() }
    }

    /// These bytes have passed.
    pub fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.borrow_mut();
        kept.passed = kept.passed.saturating_add(bytes.len());
        if kept.passed <= self.most {
            kept.bytes.extend_from_slice(bytes);
        } else {
            kept.bytes = Vec::new();
        }
    }

    /// All has passed.
    pub fn end(&self) {
        self.kept.borrow_mut().whole = true;
    }
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The shape that the answer is to have.
    pub schema: Option<Schema>,
    /// Where the request stands in its conversation.
    pub turn: Option<Turn>,
    /// It asks for an earlier answer of the same version again.
    pub again: bool,
}

impl Asking {
    /// Listens to a body that is about to go up; `None` where no gate wants to know of it.
    #[must_use]
    pub fn of(routed: &Routed, method: &Method, body: &mut UpBody) -> Option<Self> {
        if !routed.rollout().fixed.asks.of_requests() || *method != Method::POST {
            return None;
        }
        match body {
            UpBody::Empty => None,
            UpBody::Whole(held) => Some(Self::Held(held.original())),
            UpBody::Streamed(streamed) => {
                let copy = Rc::new(Copy::new(routed.config().limits.peek_bytes));
                streamed.copy_to(Rc::clone(&copy));
                Some(Self::Passing(copy))
            }
        }
    }

    /// The answer's head has come: what was asked for? A body that has not passed whole, or is too long, says nothing.
    #[must_use]
    pub fn read(self, worker: &Worker, routed: &Routed, path: &str, unit: UnitKey, arm: Arm, now: Mono) -> Wanted {
        let body = match self {
            Self::Held(bytes) => bytes,
            Self::Passing(copy) => {
                let kept = std::mem::take(&mut *copy.kept.borrow_mut());
                if kept.passed > copy.most {
                    worker.gauges.hit(Limit::PeekBytes);
                }
                if !kept.whole || kept.passed > copy.most {
                    return Wanted::default();
                }
                Bytes::from(kept.bytes)
            }
        };
        let fixed = &routed.rollout().fixed;
        let schema = if fixed.asks.schema { Schema::of_request(&body) } else { None };
        let mut wanted = Wanted { schema, ..Wanted::default() };
        // Of a unit that is not known nobody can say that it asks again.
        if let Some(turns) = fixed.asks.turns.as_ref().filter(|_| unit.0 != 0)
            && history::holds_turns(fixed.config.protocol, path)
        {
            wanted.turn = Turn::of_request(fixed.asks.turn_seed, unit.0, &body);
            let asked = wanted.turn.map(|turn| turns.asked(turn, version(arm), seconds(now)));
            wanted.again = asked == Some(Asked::Again);
            if asked == Some(Asked::FirstForAnother) {
                worker.gauges.hit(Limit::Turns);
            }
        }
        wanted
    }
}

/// The answer to a turn came, or so much of it that its user could judge it.
pub fn answered(routed: &Routed, turn: Turn, now: Mono) {
    if let Some(turns) = &routed.rollout().fixed.asks.turns {
        turns.answered(turn, seconds(now));
    }
}

/// Stable and its baseline slice are one version.
fn version(arm: Arm) -> usize {
    usize::from(arm == Arm::Canary)
}

fn seconds(now: Mono) -> u32 {
    (now.0 / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_beyond_the_bound_is_given_up_and_holds_no_memory() {
        let copy = Copy::new(8);
        copy.push(b"12345678");
        assert_eq!(copy.kept.borrow().bytes, b"12345678");
        copy.push(b"9");
        copy.push(b"0");
        copy.end();
        let kept = copy.kept.borrow();
        assert_eq!((kept.bytes.capacity(), kept.passed, kept.whole), (0, 10, true));
    }
}
