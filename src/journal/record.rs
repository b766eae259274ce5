//! What one frame of the journal says: a rollout's record, a checkpoint of all rollouts at a segment's start, or a
//! signature over everything before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::journal::sign::Signature;
use crate::names::{RolloutName, Wall};
use crate::rollout::{Record, State};

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
}

impl Entry {
    /// When it was made.
    #[must_use]
    pub fn at(&self) -> Wall {
        match &self.body {
            Body::Record(record) => record.at,
            Body::Checkpoint(checkpoint) => checkpoint.at,
            Body::Signature(signature) => signature.at,
        }
    }

    /// Takes what it says into the states.
    pub(crate) fn replay(&self, states: &mut BTreeMap<RolloutName, State>) {
        match &self.body {
            Body::Record(record) => {
                states.insert(record.rollout.clone(), record.state.clone());
            }
            Body::Checkpoint(checkpoint) => states.clone_from(&checkpoint.states),
            Body::Signature(_) => {}
        }
    }
}
