//! What a step leaves in the journal: what was decided, by whom, why, on which proof, and the state after it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{RolloutName, VersionName, Wall};
use crate::rollout::numbers::Numbers;
use crate::rollout::register::Registration;
use crate::rollout::state::{Phase, State};
use crate::split::weight::Weight;

/// One decision. Carries the whole state after it, so that the last record of a rollout restores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, by the wall clock.
    pub at: Wall,
    /// Which rollout.
    pub rollout: RolloutName,
    /// The stable version then.
    pub stable: VersionName,
    /// The version under release.
    pub version: Option<VersionName>,
    /// What was decided.
    pub decision: Decision,
    /// Who decided: a token's name, `judge`, `breaker`, `plan` or `config`.
    pub actor: String,
    /// Why: a person's words, or the verdict with its numbers.
    pub reason: String,
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// The stage before.
    pub stage_before: Option<usize>,
    /// The stage after.
    pub stage: Option<usize>,
    /// The weight before.
    pub weight_before: Weight,
    /// The weight after.
    pub weight: Weight,
    /// Whether a rise rests on fresh proof and the signatures asked for. `false` on a rise is `promote` or
    /// `set weight`, or the entry into a first stage.
    pub proven: bool,
    /// Who had signed.
    pub approvals: Vec<String>,
    /// The hash of the gates in force.
    pub gates: String,
    /// The rollout's generation after it.
    pub generation: u64,
    /// The state after it.
    pub state: State,
    /// The version's entry in the register, beside what freezes or changes it: start, gates, register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register: Option<Arc<Registration>>,
    /// The numbers of that moment; the evaluator, which has them, puts them in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Box<Numbers>>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The rollout began.
    Start,
    /// The next stage, on proof.
    Advance,
    /// The stage is proven, or promoted; signatures are wanted.
    Await,
    /// A signature was given.
    Approve,
    /// A gate no longer passes: signatures are void.
    Void,
    /// By hand past residence and gates.
    Promote,
    /// Stands.
    Pause,
    /// Stands, because a deadline passed.
    Deadline,
    /// Goes on.
    Resume,
    /// Back one stage.
    StepBack,
    /// Watch longer.
    Extend,
    /// A weight by hand.
    SetWeight,
    /// Rolled back by a gate or the breaker.
    Rollback,
    /// Rolled back by a person, or by the configuration.
    Abort,
    /// The latch was lifted; the reason is the root cause.
    Clear,
    /// The soak ended.
    Complete,
    /// The configuration made the canary the stable version.
    Swap,
    /// Another version is under release.
    Adopt,
    /// Another version waits.
    Queue,
    /// The configuration names no canary any more.
    Remove,
    /// Changed gates were taken in by an owner.
    Gates,
    /// The version's entry in the register was written.
    Register,
    /// The heartbeat was lost: nothing rises.
    Freeze,
    /// The heartbeat is back.
    Thaw,
    /// A drill ended.
    Drill,
    /// The exposure budget is spent, or has room again.
    Exposure,
}

impl Decision {
    /// The word in the journal and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Decision::Start => "start",
            Decision::Advance => "advance",
            Decision::Await => "await",
            Decision::Approve => "approve",
            Decision::Void => "void",
            Decision::Promote => "promote",
            Decision::Pause => "pause",
            Decision::Deadline => "deadline",
            Decision::Resume => "resume",
            Decision::StepBack => "step_back",
            Decision::Extend => "extend",
            Decision::SetWeight => "set_weight",
            Decision::Rollback => "rollback",
            Decision::Abort => "abort",
            Decision::Clear => "clear",
            Decision::Complete => "complete",
            Decision::Swap => "swap",
            Decision::Adopt => "adopt",
            Decision::Queue => "queue",
            Decision::Remove => "remove",
            Decision::Gates => "gates",
            Decision::Register => "register",
            Decision::Freeze => "freeze",
            Decision::Thaw => "thaw",
            Decision::Drill => "drill",
            Decision::Exposure => "exposure",
        }
    }

    /// Whether the numbers of the moment belong beside it: it is about evidence, or about who has seen the canary.
    #[must_use]
    pub const fn wants_numbers(self) -> bool {
        !matches!(
            self,
            Decision::Freeze
                | Decision::Thaw
                | Decision::Drill
                | Decision::Queue
                | Decision::Clear
                | Decision::Adopt
                | Decision::Register
        )
    }
}
