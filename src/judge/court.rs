//! The judge of one rollout: facts and ticks in, verdicts and reports out.

use std::sync::Arc;
use std::time::Duration;

use crate::names::Mono;

use super::facts::Fact;
use super::gate::GateReport;
use super::policy::Policy;
use super::verdict::{Lack, Missing, Verdict};

/// What a stage asks of the judge.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stage {
    /// The canary's share of units, 0 to 1 (a `Weight` divided by its full; the judge knows no buckets).
    pub weight: f64,
    /// The least time in it.
    pub residence: Duration,
    /// The least canary requests in it.
    pub samples: u64,
}

/// Judges one rollout. Not thread-safe and in no need of it: one owner, one clock.
#[derive(Clone, Debug)]
pub struct Judge {
    policy: Arc<Policy>,
}

/// Why a checkpoint cannot be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is cut, or not of this version.
    #[error("the checkpoint cannot be read: it is cut or of another version of serin")]
    Unreadable,
    /// It was made under another policy.
    #[error("the checkpoint was made under another policy")]
    OtherPolicy,
}

impl Judge {
    /// A judge that has seen nothing; `at` is when its history begins.
    #[must_use]
    pub fn new(policy: Arc<Policy>, _at: Mono) -> Self {
        Self { policy }
    }

    /// The policy it judges by.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Takes in one fact. Order within a tick does not matter.
    pub fn observe(&mut self, _fact: &Fact) {}

    /// Enters a stage: fresh evidence, a fresh budget of alpha, users' offsets frozen from stable's history.
    pub fn enter_stage(&mut self, _stage: Stage, _at: Mono) {}

    /// The canary's share changed inside a stage, by hand: the evidence is kept, what is in flight is left out.
    pub fn weight_changed(&mut self, _weight: f64, _at: Mono) {}

    /// Closes a tick and says what is known. Call it at least four times a second.
    pub fn tick(&mut self, _now: Mono) -> Verdict {
        Verdict::Hold { missing: vec![Missing { rule: None, lack: Lack::Stage }], reason: Lack::Stage.to_string() }
    }

    /// Every gate in full, for people.
    #[must_use]
    pub fn report(&self, _now: Mono) -> Vec<GateReport> {
        Vec::new()
    }

    /// Everything it knows, as bytes; restoring them changes no later verdict.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes up where a checkpoint left off.
    ///
    /// # Errors
    /// Bytes that are no checkpoint of this version and policy.
    pub fn restore(_policy: Arc<Policy>, _bytes: &[u8]) -> Result<Self, CheckpointError> {
        Err(CheckpointError::Unreadable)
    }
}
