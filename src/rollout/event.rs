//! What can happen to a rollout: commands of people, verdicts, ticks, and changes of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judge::Verdict;
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::split::weight::Weight;

/// The two clocks at the moment of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For durations.
    pub mono: Mono,
    /// For people, records, and the calendar.
    pub wall: Wall,
}

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A person (or a program with a token) asks for something.
    Command {
        /// What.
        verb: Verb,
        /// Who.
        actor: Actor,
        /// Why; may be empty, except where a verb requires it.
        reason: String,
    },
    /// The judge has spoken.
    Judged(Verdict),
    /// The breaker opened, in the guard thread or in the judge.
    Tripped {
        /// The numbers.
        reason: String,
    },
    /// Time has passed.
    Tick,
    /// The judge's heartbeat is stale: nothing rises.
    HeartbeatLost,
    /// The judge's heartbeat is back.
    HeartbeatFound,
    /// The exposure budget: spent, or (`None`) with room again.
    Exposure {
        /// The bound that is reached and a sentence with the numbers.
        spent: Option<(String, String)>,
        /// Whether the canary goes to 0 then; else it only rises no further.
        stops: bool,
    },
    /// The configuration names a new canary version. `step` is given the terms of the new file.
    NewVersion(VersionName),
    /// The configuration names no canary any more.
    CanaryRemoved,
    /// The configuration makes the version under release the stable one. `step` is given the terms of the new file.
    PromotedInConfig,
    /// A drill has been carried out.
    Drilled {
        /// From the latch to zero on every worker.
        took: Duration,
        /// What failed, when it did.
        failed: Option<String>,
    },
    /// A confirm gate, or a rollback hook, has answered.
    Confirmed {
        /// Which.
        gate: String,
        /// About which version.
        version: VersionName,
        /// About which generation.
        generation: u64,
        /// Yes, or why not.
        answer: Result<(), String>,
    },
    /// Every rollout of the group is ready: the barrier is open for this one step.
    Barrier,
    /// A rollout of the same group was rolled back or aborted.
    GroupFell {
        /// Which.
        which: RolloutName,
        /// Why.
        reason: String,
    },
}

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Enter the first stage.
    Start,
    /// Sign that the stage may be left.
    Approve,
    /// Skip this stage's residence and gates; never an approval.
    Promote {
        /// To the last stage.
        full: bool,
    },
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Back to the stage before.
    StepBack,
    /// Watch longer.
    Extend {
        /// At least so much longer from now.
        by: Duration,
    },
    /// 0 now, latched.
    Abort,
    /// Lift the latch after a review.
    Clear,
    /// Rehearse a rollback without touching users.
    Drill,
    /// A weight by hand.
    SetWeight(Weight),
    /// Take the file's changed gates into a running rollout.
    Gates,
    /// Write the file's entry of this version into the register.
    Register,
}

/// What a request carries beside the verb's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerbArgs {
    /// `promote`'s `full`.
    pub full: bool,
    /// `extend`'s `by`.
    pub by: Option<Duration>,
    /// `set weight`'s weight.
    pub weight: Option<Weight>,
}

impl Verb {
    /// The names of all verbs, as the phase table of the interface writes them.
    pub const NAMES: [&'static str; 12] = [
        "start",
        "approve",
        "promote",
        "pause",
        "resume",
        "set weight",
        "step-back",
        "extend",
        "abort",
        "clear",
        "drill",
        "gates",
    ];

    /// The verb of that name with its arguments.
    ///
    /// # Errors
    /// A sentence: no such verb, or an argument that the verb needs is missing.
    pub fn parse(name: &str, args: VerbArgs) -> Result<Self, String> {
        Ok(match name {
            "start" => Verb::Start,
            "approve" => Verb::Approve,
            "promote" => Verb::Promote { full: args.full },
            "pause" => Verb::Pause,
            "resume" => Verb::Resume,
            "step-back" => Verb::StepBack,
            "extend" => Verb::Extend { by: args.by.ok_or("extend needs \"by\", for example \"24h\"")? },
            "abort" => Verb::Abort,
            "clear" => Verb::Clear,
            "drill" => Verb::Drill,
            "set weight" => Verb::SetWeight(args.weight.ok_or("set weight needs \"weight\", a percentage")?),
            "gates" => Verb::Gates,
            _ => return Err(format!("{name:?} is no verb; there are: {}", Self::NAMES.join(", "))),
        })
    }

    /// The word in the phase table, the API's path and the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Approve => "approve",
            Verb::Promote { .. } => "promote",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::StepBack => "step-back",
            Verb::Extend { .. } => "extend",
            Verb::Abort => "abort",
            Verb::Clear => "clear",
            Verb::Drill => "drill",
            Verb::SetWeight(_) => "set weight",
            Verb::Gates => "gates",
            Verb::Register => "register",
        }
    }

    /// The roles of which one is needed. An owner may do everything; the machine itself asks for an owner in two more
    /// places: a weight by hand above what was lawfully entered, and clearing a third rollback of one version.
    #[must_use]
    pub const fn roles(self) -> &'static [Role] {
        match self {
            Verb::Start
            | Verb::Promote { full: false }
            | Verb::Pause
            | Verb::Resume
            | Verb::StepBack
            | Verb::Extend { .. }
            | Verb::Drill
            | Verb::SetWeight(_)
            | Verb::Register => &[Role::Operator, Role::Owner],
            Verb::Abort => &[Role::Operator, Role::Approver, Role::Owner],
            Verb::Approve | Verb::Clear => &[Role::Approver, Role::Owner],
            Verb::Promote { full: true } | Verb::Gates => &[Role::Owner],
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The identity written to the journal.
    pub name: String,
    /// What he may do.
    pub roles: Vec<Role>,
}

impl Actor {
    /// Somebody with those roles.
    #[must_use]
    pub fn new(name: impl Into<String>, roles: &[Role]) -> Self {
        Self { name: name.into(), roles: roles.to_vec() }
    }

    /// Whether he holds the role, or is an owner.
    #[must_use]
    pub fn is(&self, role: Role) -> bool {
        self.roles.iter().any(|r| *r == role || *r == Role::Owner)
    }

    /// Whether he may use the verb at all.
    #[must_use]
    pub fn may(&self, verb: Verb) -> bool {
        verb.roles().iter().any(|role| self.roles.contains(role))
    }
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// All reads.
    Viewer,
    /// Feedback only.
    Reporter,
    /// Reads, and the daily verbs.
    Operator,
    /// Reads, approve, abort, clear.
    Approver,
    /// Everything.
    Owner,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 5] = [Role::Viewer, Role::Reporter, Role::Operator, Role::Approver, Role::Owner];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Reporter => "reporter",
            Role::Operator => "operator",
            Role::Approver => "approver",
            Role::Owner => "owner",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_may_use_exactly_the_verbs_of_the_table() {
        let all = |name: &str| {
            let args = VerbArgs { by: Some(Duration::from_secs(1)), weight: Some(Weight::ZERO), full: false };
            Verb::parse(name, args).unwrap()
        };
        let operator = ["start", "promote", "pause", "resume", "set weight", "step-back", "extend", "abort", "drill"];
        let approver = ["approve", "abort", "clear"];
        for name in Verb::NAMES {
            assert_eq!(all(name).name(), name);
            for role in Role::ALL {
                let expect = match role {
                    Role::Viewer | Role::Reporter => false,
                    Role::Operator => operator.contains(&name),
                    Role::Approver => approver.contains(&name),
                    Role::Owner => true,
                };
                assert_eq!(Actor::new("x", &[role]).may(all(name)), expect, "{role:?} {name}");
            }
        }
        for role in Role::ALL {
            let full = Verb::Promote { full: true };
            assert_eq!(Actor::new("x", &[role]).may(full), role == Role::Owner);
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }

    #[test]
    fn a_verb_without_what_it_needs_is_refused_in_words() {
        assert!(Verb::parse("extend", VerbArgs::default()).unwrap_err().contains("24h"));
        assert!(Verb::parse("set weight", VerbArgs::default()).unwrap_err().contains("percentage"));
        assert!(Verb::parse("explode", VerbArgs::default()).unwrap_err().contains("step-back"));
    }
}
