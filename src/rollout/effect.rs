//! What a step asks the shell to do, in order, and how it refuses.

use serde::{Deserialize, Serialize};

use crate::names::{RolloutName, VersionName, Wall};
use crate::rollout::plan::Stage;
use crate::rollout::record::Record;
use crate::split::weight::Weight;

/// One thing to do. A list of them is carried out from first to last; a failure of `Record` before a `Weight` that
/// rises means that the rise does not happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish: latched, weight 0, all cohorts to stable, in one update.
    Latch,
    /// Publish: the latch is off; the weight stays 0.
    Unlatch,
    /// Publish weight and cohorts in one update; tell the judge that the weight changed.
    Weight {
        /// The desired weight.
        weight: Weight,
        /// Which cohorts may go to the canary.
        cohorts: Cohorts,
    },
    /// The judge gets a fresh budget and starts new evidence for this stage. `stage.weight` is the published weight
    /// and `stage.residence` of the last stage is the soak.
    EnterStage {
        /// Position in the plan, from 0.
        index: usize,
        /// What the judge must see.
        stage: Stage,
    },
    /// The canary is another version from now on: publish the newest file's tables for this rollout, at weight 0.
    Adopt(VersionName),
    /// The version under release is the stable one from now on: publish the new file's tables, at weight 0, unlatched,
    /// in one update.
    Swap,
    /// Take the file's changed gates into the judge.
    TakeGates,
    /// Rehearse a rollback on a phantom; answer with `Event::Drilled`.
    Drill,
    /// Append to the journal. In front of a rise it must be durable before the next effect.
    Record(Box<Record>),
    /// Tell people.
    Notify(Notice),
}

/// Which cohorts may send their members to the canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cohorts {
    /// None: idle, latched, or 0 by hand.
    Closed,
    /// All but those that a later stage of the plan opens.
    AllBut(Vec<String>),
}

impl Cohorts {
    /// Whether members of this cohort may go to the canary.
    #[must_use]
    pub fn open(&self, cohort: &str) -> bool {
        match self {
            Cohorts::Closed => false,
            Cohorts::AllBut(closed) => !closed.iter().any(|c| c == cohort),
        }
    }
}

/// A message for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// When.
    pub at: Wall,
    /// Which rollout.
    pub rollout: RolloutName,
    /// The version under release.
    pub version: Option<VersionName>,
    /// What kind of news.
    pub tidings: Tidings,
    /// One sentence that stands alone.
    pub text: String,
    /// Who or what caused it.
    pub actor: String,
    /// The weight after it.
    pub weight: Weight,
    /// The generation after it. A reminder has the generation of the state that it reminds of.
    pub generation: u64,
}

/// What kind of news a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tidings {
    /// A rollout (or a plain split) began.
    Started,
    /// A stage was entered.
    Stage,
    /// A person's signature is wanted.
    Awaiting,
    /// It stands, or fell back a stage.
    Paused,
    /// It goes on.
    Resumed,
    /// A weight was set by hand.
    ByHand,
    /// A deadline passed.
    Deadline,
    /// A wait goes on for long.
    Reminder,
    /// The last stage was entered.
    Soaking,
    /// All is on the canary.
    Completed,
    /// Rolled back by a gate or the breaker.
    RolledBack,
    /// Rolled back by a person, or by the configuration.
    Aborted,
    /// The latch was lifted.
    Cleared,
    /// Another version took its place, or waits for it.
    Version,
    /// The judge's heartbeat is stale, or back.
    Heartbeat,
    /// A drill ended.
    Drill,
    /// An owner took changed gates into a running rollout.
    Gates,
    /// The exposure budget is spent, or has room again.
    Exposure,
    /// The version's entry in the register was written.
    Register,
}

/// Why a step was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// One sentence with the remedy.
    pub why: String,
    /// The verbs that the phase allows now.
    pub allowed: Vec<&'static str>,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The role does not suffice: 403.
    Forbidden,
    /// The phase, the plan or the calendar forbids it: 409.
    Conflict,
    /// The request itself is wrong: 422.
    Invalid,
    /// The judge's heartbeat is stale and this would raise a weight: 503.
    Stale,
}
