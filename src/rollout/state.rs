//! Where a rollout stands: everything that must survive a restart, as values without absolute monotonic time.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judge::Policy;
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::rollout::confirm::{Confirm, ConfirmGate};
use crate::rollout::effect::Cohorts;
use crate::rollout::plan::{Approval, Plan, Start, UNSAID_DEADLINE};
use crate::rollout::register::Registration;
use crate::split::weight::Weight;

/// What the configuration says about a rollout; the machine's read-only side.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Which rollout.
    pub rollout: RolloutName,
    /// The stable version of the file.
    pub stable: VersionName,
    /// The canary version of the file.
    pub canary: Option<VersionName>,
    /// The plan of the file; the one in force while a rollout runs is frozen in the state.
    pub plan: Option<Arc<Plan>>,
    /// The weight of a plain split.
    pub weight: Option<Weight>,
    /// A hash of the file's gates, for the record.
    pub gates: String,
    /// The file's gates themselves, to be frozen at the start.
    pub policy: Option<Arc<Policy>>,
    /// How often a rollback is to be rehearsed: nothing rises after a drill that failed, or when one is overdue.
    pub drill_every: Option<Duration>,
    /// The file's entry of its canary in the register, to be frozen at the start.
    pub register: Option<Arc<Registration>>,
    /// Whom to ask before a rise.
    pub confirm: Arc<[ConfirmGate]>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not started, or cleared; weight 0.
    #[default]
    Idle,
    /// In a stage, or a plain split.
    Running,
    /// The stage is proven (or promoted) and wants a person.
    Awaiting,
    /// Stands at its weight.
    Paused,
    /// At 100 less the holdback, gates armed.
    Soaking,
    /// All on the canary, waiting for the config edit.
    Completed,
    /// 0 and latched.
    RolledBack,
}

impl Phase {
    /// All phases.
    pub const ALL: [Phase; 7] = [
        Phase::Idle,
        Phase::Running,
        Phase::Awaiting,
        Phase::Paused,
        Phase::Soaking,
        Phase::Completed,
        Phase::RolledBack,
    ];

    /// The word in API, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Running => "running",
            Phase::Awaiting => "awaiting",
            Phase::Paused => "paused",
            Phase::Soaking => "soaking",
            Phase::Completed => "completed",
            Phase::RolledBack => "rolled_back",
        }
    }
}

/// Everything about a rollout that must survive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// The version under release.
    pub version: Option<VersionName>,
    /// The desired weight.
    pub weight: Weight,
    /// The plan in force since the start; `None` when idle, and for a plain split.
    pub plan: Option<Arc<Plan>>,
    /// The stage, from 0; `None` when idle, and for a plain split.
    pub stage: Option<usize>,
    /// The stages that were lawfully entered, rising.
    pub entered: Vec<usize>,
    /// When the stage was entered, by the wall clock.
    pub entered_at: Option<Wall>,
    /// Time in the stage that counts as residence: not in a pause, not with a stale heartbeat.
    pub resided: Duration,
    /// What was added to the stage's residence by `extend`.
    pub extended: Duration,
    /// Time waited in running or soaking, against the deadline.
    pub waited: Duration,
    /// Time waited for a person, against the deadline; in completed, since the last reminder.
    pub asked: Duration,
    /// How often a gate that no longer passed has voided the wait for a person in this entry of the stage.
    pub voided: u32,
    /// The judge's standing word that the stage is proven.
    pub proof: Option<Proof>,
    /// What the judge last missed; `None` when nothing, or not asked yet.
    #[serde(skip)]
    pub lacking: Option<Lacking>,
    /// Where an awaiting rollout goes, and by whom it was promoted past the gates.
    pub target: Option<Target>,
    /// Who has signed, in order.
    pub approvals: Vec<String>,
    /// Who started it.
    pub started_by: Option<String>,
    /// Why it stands.
    pub paused: Option<Paused>,
    /// Set exactly while rolled back.
    pub latch: Option<Latch>,
    /// The newest version that waits until idle.
    pub next_version: Option<VersionName>,
    /// Whether the next tick starts it: a new version, or a plain split of the file.
    pub auto_start: bool,
    /// Whether the judge's heartbeat is stale.
    pub heartbeat_lost: bool,
    /// How often each version was rolled back; the 64 latest versions.
    pub rollbacks: Vec<(VersionName, u32)>,
    /// The bound of the exposure budget that was found spent; `None` while there is room.
    #[serde(default)]
    pub spent: Option<String>,
    /// The hash of the gates in force.
    pub gates: String,
    /// The gates in force since the start, frozen as the plan is; `None` when idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<Policy>>,
    /// The version's entry in the register, frozen as the gates are; `None` when idle, or where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register: Option<Arc<Registration>>,
    /// The last rehearsal of a rollback.
    #[serde(default)]
    pub drill: Option<Drill>,
    /// What the confirm gates are asked and have answered.
    #[serde(skip)]
    pub confirm: Confirm,
    /// Ready to move, and waiting for the others of its group; found anew at every tick, so it is not stored.
    #[serde(skip)]
    pub at_barrier: bool,
    /// Rises by one with every accepted change.
    pub generation: u64,
    /// When time was last counted; not stored: time in which serin did not run counts for nothing.
    #[serde(skip)]
    pub last: Option<Mono>,
}

/// The judge's word that a stage is proven, and how old it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The numbers.
    pub reason: String,
    /// For how long it has been said without a break.
    pub held: Duration,
    /// How long ago it was last said.
    pub age: Duration,
}

/// A rehearsal of a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// When it ended.
    pub at: Wall,
    /// From the latch to zero on every worker.
    pub took: Duration,
    /// What failed, when it did.
    pub failed: Option<String>,
}

/// What the judge misses, in the words of `waits_for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// Requests, users or scores.
    Samples,
    /// Proof of a gate.
    Gates,
}

/// Where an awaiting rollout goes when it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The stage to enter.
    pub stage: usize,
    /// The signatures needed.
    pub approval: Approval,
    /// Who promoted it past residence and gates; `None` when the stage is proven.
    pub promoted_by: Option<String>,
}

/// Why a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The phase to go back to.
    pub from: Phase,
    /// Who or what paused it.
    pub by: String,
    /// Why.
    pub why: String,
    /// When, by the wall clock.
    pub at: Wall,
    /// Whether a weight was set by hand, so that resuming enters a stage again.
    pub by_hand: bool,
    /// Whether a deadline did it, so that resuming gives a new one.
    pub by_deadline: bool,
    /// Time since it stands, or since the last reminder.
    pub waited: Duration,
}

/// Why the weight stays 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// When.
    pub at: Wall,
    /// Who or what set it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl State {
    /// A rollout that never ran, under these terms. Its first tick starts it when the file says so.
    #[must_use]
    pub fn initial(terms: &Terms) -> Self {
        Self {
            phase: Phase::Idle,
            version: terms.canary.clone(),
            weight: Weight::ZERO,
            plan: None,
            stage: None,
            entered: Vec::new(),
            entered_at: None,
            resided: Duration::ZERO,
            extended: Duration::ZERO,
            waited: Duration::ZERO,
            asked: Duration::ZERO,
            voided: 0,
            proof: None,
            lacking: None,
            target: None,
            approvals: Vec::new(),
            started_by: None,
            paused: None,
            latch: None,
            next_version: None,
            auto_start: starts_itself(terms),
            heartbeat_lost: false,
            rollbacks: Vec::new(),
            spent: None,
            gates: String::new(),
            policy: None,
            register: None,
            drill: None,
            confirm: Confirm::default(),
            at_barrier: false,
            generation: 0,
            last: None,
        }
    }

    /// A state read from the journal, taken up again now: the proof must be given again, and time that serin did not
    /// run counts neither as residence nor against a deadline.
    #[must_use]
    pub fn resume(mut self, now: Mono) -> Self {
        self.last = Some(now);
        self.proof = None;
        self.heartbeat_lost = false;
        self
    }

    /// Takes the elapsed times of a later checkpoint of the same entry of the same stage; `false` when it is another.
    pub fn catch_up(&mut self, later: &State) -> bool {
        let same = self.generation == later.generation
            && self.phase == later.phase
            && self.stage == later.stage
            && self.version == later.version;
        if same {
            self.resided = later.resided;
            self.waited = later.waited;
            self.asked = later.asked;
            if let (Some(mine), Some(other)) = (self.paused.as_mut(), later.paused.as_ref()) {
                mine.waited = other.waited;
            }
        }
        same
    }

    /// How many buckets go to the canary, and which cohorts: what is published for this state.
    #[must_use]
    pub fn cohorts(&self) -> Cohorts {
        let open_to = match self.phase {
            Phase::Idle | Phase::RolledBack => return Cohorts::Closed,
            Phase::Completed => None,
            _ if self.paused.as_ref().is_some_and(|p| p.by_hand) => {
                if self.weight == Weight::ZERO {
                    return Cohorts::Closed;
                }
                self.plan.as_ref().map(|plan| self.reachable(plan, self.weight).map_or(0, |i| i + 1))
            }
            _ => self.stage.map(|i| i + 1),
        };
        let Some((plan, open_to)) = self.plan.as_ref().zip(open_to) else { return Cohorts::AllBut(Vec::new()) };
        let opened: Vec<&String> = plan.stages.iter().take(open_to).flat_map(|s| &s.cohorts).collect();
        let later = plan.stages.iter().skip(open_to).flat_map(|s| &s.cohorts);
        Cohorts::AllBut(later.filter(|c| !opened.contains(c)).cloned().collect())
    }

    /// The highest lawfully entered stage whose weight is not above `weight`.
    pub(crate) fn reachable(&self, plan: &Plan, weight: Weight) -> Option<usize> {
        self.entered.iter().rev().copied().find(|i| plan.weight_of(*i) <= weight)
    }

    /// The highest stage that was lawfully entered.
    #[must_use]
    pub fn highest(&self) -> Option<usize> {
        self.entered.last().copied()
    }

    /// The least time in the present stage, with what was added.
    #[must_use]
    pub fn residence(&self) -> Duration {
        let Some((plan, stage)) = self.plan.as_ref().zip(self.stage) else { return Duration::ZERO };
        plan.residence_of(stage).saturating_add(self.extended)
    }

    /// What of the residence is left.
    #[must_use]
    pub fn residence_left(&self) -> Duration {
        self.residence().saturating_sub(self.resided)
    }

    /// How long the present wait may last before somebody is told; `None` where nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let of_stage = self
            .plan
            .as_ref()
            .zip(self.stage)
            .map(|(plan, stage)| plan.deadline_of(stage).saturating_add(self.extended));
        match self.phase {
            Phase::Idle | Phase::RolledBack => None,
            Phase::Running | Phase::Awaiting | Phase::Soaking => of_stage,
            Phase::Paused => Some(of_stage.unwrap_or(UNSAID_DEADLINE)),
            Phase::Completed => Some(UNSAID_DEADLINE),
        }
    }

    /// What of the deadline is left; `None` where there is none.
    #[must_use]
    pub fn deadline_left(&self) -> Option<Duration> {
        let waited = match self.phase {
            Phase::Awaiting | Phase::Completed => self.asked,
            Phase::Paused => self.paused.as_ref().map_or(Duration::ZERO, |p| p.waited),
            _ => self.waited,
        };
        self.deadline().map(|d| d.saturating_sub(waited))
    }

    /// How often this version was rolled back.
    #[must_use]
    pub fn rollbacks_of(&self, version: &VersionName) -> u32 {
        self.rollbacks.iter().find(|(v, _)| v == version).map_or(0, |(_, n)| *n)
    }

    /// Whether any unit may be sent to the canary.
    #[must_use]
    pub fn has_canary_traffic(&self) -> bool {
        self.weight > Weight::ZERO || self.cohorts() != Cohorts::Closed
    }
}

/// Whether the file starts a version by itself: a plan that says so, or a plain split with a weight.
pub(crate) fn starts_itself(terms: &Terms) -> bool {
    terms.canary.is_some()
        && match &terms.plan {
            Some(plan) => plan.start == Start::OnNewVersion,
            None => terms.weight.is_some_and(|w| w > Weight::ZERO),
        }
}
