//! What one frame of the journal says: a rollout's record, a latch that was set past the judge, a checkpoint of all
//! rollouts at a segment's start, or a signature over everything before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::journal::sign::Signature;
use crate::names::{RolloutName, Wall};
use crate::rollout::{Decision, Latch, Phase, Record, State};

/// One numbered entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub n: u64,
    /// What it says.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A decision.
    Record(Box<Record>),
    /// A rollout was taken to 0 by the guard or by a person's abort, without the judge; its record follows when the judge
    /// has taken the latch up.
    Latch(Box<Latched>),
    /// Where every rollout stood when a segment began, so that older segments can be dropped.
    Checkpoint(Box<Checkpoint>),
    /// That whoever holds the key wrote everything up to here.
    Signature(Box<Signature>),
}

/// Where every rollout stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When the record before it was made.
    pub at: Wall,
    /// Every rollout's state.
    pub states: BTreeMap<RolloutName, State>,
    /// Latches that no record had taken up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latches: BTreeMap<RolloutName, Latch>,
}

/// A latch that was set past the judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latched {
    /// Whose.
    pub rollout: RolloutName,
    /// Since when, by whom, why.
    #[serde(flatten)]
    pub latch: Latch,
}

/// Where every rollout stands behind some entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// The state after each one's last record.
    pub states: BTreeMap<RolloutName, State>,
    /// Latches that no record has taken up yet.
    pub latches: BTreeMap<RolloutName, Latch>,
}

impl Standing {
    /// The judge's record takes a latch up, and so does a record of a rollout that was idle: what the judge finds idle, it
    /// has no latch for. Any other record was on its way when the latch was set.
    fn record(&mut self, record: &Record) {
        let idle = record.from == Phase::Idle || record.decision == Decision::Clear;
        if idle || record.state.latch.is_some() {
            self.latches.remove(&record.rollout);
        }
        self.states.insert(record.rollout.clone(), record.state.clone());
    }

    /// The first one stands; behind the record that took it up it says nothing new.
    fn latch(&mut self, latched: &Latched) {
        if self.states.get(&latched.rollout).is_none_or(|state| state.latch.is_none()) {
            self.latches.entry(latched.rollout.clone()).or_insert_with(|| latched.latch.clone());
        }
    }
}

impl Body {
    /// When it was said.
    #[must_use]
    pub fn at(&self) -> Wall {
        match self {
            Body::Record(record) => record.at,
            Body::Latch(latched) => latched.latch.at,
            Body::Checkpoint(checkpoint) => checkpoint.at,
            Body::Signature(signature) => signature.at,
        }
    }
}

impl Entry {
    /// When it was made.
    #[must_use]
    pub fn at(&self) -> Wall {
        self.body.at()
    }

    /// Takes what it says into account.
    pub(crate) fn replay(&self, standing: &mut Standing) {
        match &self.body {
            Body::Record(record) => standing.record(record),
            Body::Latch(latched) => standing.latch(latched),
            Body::Checkpoint(checkpoint) => {
                standing.states.clone_from(&checkpoint.states);
                standing.latches.clone_from(&checkpoint.latches);
            }
            Body::Signature(_) => {}
        }
    }
}
