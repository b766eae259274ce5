//! The records of a rollout's releases as values: initiation, promotions, incident, completion, exposure, timeline.

use serde::Serialize;

use super::clauses::Clause;
use super::told::Told;
use crate::names::Wall;
use crate::rollout::{Decision, Exposed, GateNumbers, Phase, Plan, Registration};

/// Everything that a journal says of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Which.
    pub rollout: String,
    /// When this was rendered.
    pub made_at: Moment,
    /// What it rests on.
    pub journal: Source,
    /// The newest first.
    pub releases: Vec<Release>,
    /// Whether the outbox of notices could be read: else nothing is said of who was told.
    pub told_known: bool,
    /// Rehearsals, the newest first.
    pub drills: Vec<Drill>,
    /// Which record serves which clause.
    pub clauses: &'static [Clause],
}

/// The journal that a report rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its first entry; above 1 where older segments were dropped.
    pub first: u64,
    /// Its last entry.
    pub last: u64,
    /// The last entry's hash; empty for a journal in memory.
    pub hash: String,
    /// The oldest records of this rollout that found no room in the report.
    pub omitted: u64,
}

/// A point in time; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Wall);

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.rfc3339())
    }
}

impl Moment {
    /// Seconds from `earlier` to this one, by the wall clock.
    #[must_use]
    pub fn since(self, earlier: Moment) -> f64 {
        (self.0.0.saturating_sub(earlier.0.0)) as f64 / 1e3
    }
}

/// How a release ended, or that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes on.
    Underway,
    /// All is on the version.
    Completed,
    /// A gate or the breaker took it to 0.
    RolledBack,
    /// A person or the configuration took it to 0.
    Aborted,
    /// Another version took its place, or it was taken out while nothing ran.
    Replaced,
}

impl Outcome {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Outcome::Underway => "under way",
            Outcome::Completed => "completed",
            Outcome::RolledBack => "rolled back",
            Outcome::Aborted => "aborted",
            Outcome::Replaced => "replaced",
        }
    }
}

/// One version's way from its start to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Release {
    /// The version under release.
    pub version: String,
    /// The version that it was compared with.
    pub stable: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, or the first that the journal still knows of it.
    pub began_at: Moment,
    /// When it ended.
    pub ended_at: Option<Moment>,
    /// How it was begun; absent where the journal no longer has it.
    pub initiation: Option<Initiation>,
    /// Each rise to a higher stage.
    pub promotions: Vec<Promotion>,
    /// How it was taken to 0.
    pub incident: Option<Incident>,
    /// How it was brought to everybody.
    pub completion: Option<Completion>,
    /// Who has seen it, stage by stage.
    pub exposure: Vec<Exposure>,
    /// What people decided against, or without, proof.
    pub overrides: Vec<Line>,
    /// Everything, in order.
    pub timeline: Vec<Line>,
    /// Who was told of it, and when, as far as the outbox still has receipts.
    pub told: Vec<Told>,
}

/// How a release was begun.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Initiation {
    /// The journal's entry.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// SHA-256 of the gates, frozen from then on.
    pub gates: String,
    /// The version's entry in the register, frozen too; absent where there was none.
    pub register: Option<Registration>,
    /// The plan, frozen too; absent for a plain split.
    pub plan: Option<PlanShown>,
}

/// A plan as it was frozen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanShown {
    /// The preset it came from.
    pub preset: Option<String>,
    /// Its stages; the last is the soak.
    pub stages: Vec<StageShown>,
    /// How long it watches at the end, seconds.
    pub soak_s: f64,
    /// What stays on stable until then, %.
    pub holdback: f64,
    /// The group that advances together.
    pub lockstep: Option<String>,
}

/// A stage of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageShown {
    /// %.
    pub weight: f64,
    /// The least time in it, seconds.
    pub residence_s: f64,
    /// The least canary observations.
    pub samples: u64,
    /// none, one or two.
    pub approval: &'static str,
    /// Cohorts that open with it.
    pub cohorts: Vec<String>,
}

impl PlanShown {
    /// What is shown of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let stages = plan.stages.iter().enumerate().map(|(index, stage)| StageShown {
            weight: plan.weight_of(index).percent(),
            residence_s: plan.residence_of(index).as_secs_f64(),
            samples: stage.samples,
            approval: stage.approval.as_str(),
            cohorts: stage.cohorts.clone(),
        });
        Self {
            preset: plan.preset.clone(),
            stages: stages.collect(),
            soak_s: plan.soak.as_secs_f64(),
            holdback: plan.holdback.percent(),
            lockstep: plan.lockstep.clone(),
        }
    }
}

/// A rise to a higher stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Promotion {
    /// The journal's entry.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// From this stage, from 0.
    pub from_stage: Option<usize>,
    /// Into this one.
    pub to_stage: Option<usize>,
    /// %.
    pub weight_before: f64,
    /// %.
    pub weight: f64,
    /// Whether it rests on fresh proof; `false`: a person promoted it past the gates.
    pub proven: bool,
    /// Who, or what, decided.
    pub by: String,
    /// Who signed.
    pub approvals: Vec<String>,
    /// On what grounds.
    pub reason: String,
    /// Every gate as it was then.
    pub gates: Vec<GateNumbers>,
}

/// How a release was taken to 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Always P2: the release was contained by design, and a person must review it before it may go on.
    pub severity: &'static str,
    /// The journal's entry.
    pub n: u64,
    /// When the latch was set.
    pub at: Moment,
    /// judge, breaker, a person, or config.
    pub by: String,
    /// The gate that fell, where one did.
    pub gate: Option<String>,
    /// The numbers in a sentence.
    pub reason: String,
    /// The weight it had, %.
    pub weight_before: f64,
    /// The stage it was in, from 0.
    pub stage: Option<usize>,
    /// How long it had been at that weight, seconds; absent where the journal no longer knows.
    pub at_weight_s: Option<f64>,
    /// Who had seen it.
    pub exposed: Exposed,
    /// Every gate as it was then.
    pub gates: Vec<GateNumbers>,
    /// How often this version has been rolled back, this time included.
    pub rollbacks: u32,
    /// The review that lifted the latch.
    pub review: Option<Review>,
}

/// A person's review after an incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Review {
    /// The journal's entry.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// Who.
    pub by: String,
    /// The root cause, in his words.
    pub root_cause: String,
}

/// How a release was brought to everybody.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completion {
    /// The journal's entry.
    pub n: u64,
    /// When the soak ended.
    pub at: Moment,
    /// Who, or what, ended it.
    pub by: String,
    /// Whether the soak ended on fresh proof.
    pub proven: bool,
    /// The numbers in a sentence.
    pub reason: String,
    /// How long the whole release took, seconds.
    pub took_s: f64,
    /// Everybody who signed on the way, in order, once each.
    pub approvals: Vec<String>,
    /// Rises on the way that rested on a person's word alone.
    pub unproven: usize,
    /// Who had seen it.
    pub exposed: Exposed,
    /// Every gate as it was at the end.
    pub gates: Vec<GateNumbers>,
    /// When the configuration made it the stable version.
    pub made_stable_at: Option<Moment>,
}

/// One stay at a weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exposure {
    /// The stage, from 0; absent for a plain split.
    pub stage: Option<usize>,
    /// %.
    pub weight: f64,
    /// From.
    pub from: Moment,
    /// To; absent while it lasts.
    pub to: Option<Moment>,
    /// People who saw the canary for the first time here.
    pub new_users: u64,
    /// Requests that the canary served here.
    pub requests: u64,
    /// What they cost, billionths of a dollar.
    pub cost_nano: u64,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The journal's entry.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// What.
    pub decision: Decision,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The phase after it.
    pub phase: Phase,
    /// The stage after it, from 0.
    pub stage: Option<usize>,
    /// %.
    pub weight_before: f64,
    /// %.
    pub weight: f64,
    /// Whether a rise rested on fresh proof.
    pub proven: bool,
    /// Who had signed.
    pub approvals: Vec<String>,
    /// The rollout's generation after it.
    pub generation: u64,
}

/// A rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drill {
    /// The journal's entry.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// Its outcome.
    pub result: String,
}

/// How a decision is called for readers.
#[must_use]
pub const fn title(decision: Decision) -> &'static str {
    match decision {
        Decision::Start => "started",
        Decision::Advance => "advanced",
        Decision::Await => "awaits approval",
        Decision::Approve => "approved",
        Decision::Void => "approvals void",
        Decision::Promote => "promoted by hand",
        Decision::Pause => "paused",
        Decision::Deadline => "deadline passed",
        Decision::Resume => "resumed",
        Decision::StepBack => "stepped back",
        Decision::Extend => "extended",
        Decision::SetWeight => "weight set by hand",
        Decision::Rollback => "rolled back",
        Decision::Abort => "aborted",
        Decision::Clear => "cleared",
        Decision::Complete => "completed",
        Decision::Swap => "made stable",
        Decision::Adopt => "version taken up",
        Decision::Queue => "version queue changed",
        Decision::Remove => "taken out",
        Decision::Gates => "gates changed",
        Decision::Register => "registered",
        Decision::Freeze => "frozen",
        Decision::Thaw => "thawed",
        Decision::Drill => "drill",
        Decision::Exposure => "exposure budget",
    }
}
