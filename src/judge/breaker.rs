//! The breaker: failures in a row by arrival, with what is in flight counted as not failed (evaluator.md section 3).

use std::sync::Arc;

use crate::names::Mono;

use super::facts::Fact;
use super::policy::Policy;

/// Watches one rollout for a canary that simply broke. Small and alone: it also runs in the guard thread, without the judge.
#[derive(Clone, Debug)]
pub struct Breaker {
    _policy: Arc<Policy>,
}

/// Why the breaker opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tripped {
    /// The numbers, as a sentence.
    pub reason: String,
}

impl Breaker {
    /// A breaker that has seen nothing.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { _policy: policy }
    }

    /// Takes in one fact.
    pub fn observe(&mut self, _fact: &Fact) {}

    /// A new stage began: the canary gets `weight` (a share, 0 to 1) of the units. At 1 there is no stable to compare with.
    pub fn stage_entered(&mut self, _weight: f64, _at: Mono) {}

    /// Whether the run of failures is long enough, as known at `now`. (The first form lands with the method; until then never.)
    #[must_use]
    pub fn tick(&mut self, _now: Mono) -> Option<Tripped> {
        None
    }
}
