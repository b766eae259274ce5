//! A rollout as people see it: the object of the admin API, built by the evaluator after every change and tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::judge::GateReport;
use crate::rollout::Registration;

/// One rollout, whole. Fields as in the admin API; more may come.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutView {
    /// Its name.
    pub name: String,
    /// The phase's word.
    pub phase: &'static str,
    /// Where it stands and what it waits for, in a sentence.
    pub why: String,
    /// advance, hold, step-back or rollback.
    pub verdict: &'static str,
    /// The judge's sentence.
    pub verdict_reason: String,
    /// The rollout's own generation, for `If-Match`.
    pub generation: u64,
    /// The desired weight, %.
    pub weight: f64,
    /// The canary's share of drawn requests since the last change of weight, %; null without traffic.
    pub weight_actual: Option<f64>,
    /// Weights of the plan, %.
    pub stages: Vec<f64>,
    /// The stage; null without a plan.
    pub stage: Option<StageView>,
    /// Who started it.
    pub started_by: Option<String>,
    /// Set while paused.
    pub paused: Option<PausedView>,
    /// When the soak ends, RFC 3339.
    pub soak_ends_at: Option<String>,
    /// A version that waits.
    pub next_version: Option<String>,
    /// Set while rolled back.
    pub latch: Option<LatchView>,
    /// What each arm did.
    pub arms: Arms,
    /// Each gate's state.
    pub gates: Vec<GateReport>,
    /// What the canary has been seen by.
    pub exposed: Exposed,
    /// The last rehearsal of a rollback.
    pub drill: Option<DrillView>,
    /// What somebody outside is asked before it may rise; null where nothing is.
    pub confirm: Option<ConfirmView>,
    /// The version's entry in the register.
    pub register: Option<RegisterView>,
    /// Seconds since the evaluator last finished a turn.
    pub heartbeat_age_s: f64,
    /// Verbs that the phase allows.
    pub allowed: Vec<&'static str>,
}

/// The last rehearsal of a rollback.
#[derive(Clone, Debug, Serialize)]
pub struct DrillView {
    /// When it ended, RFC 3339.
    pub at: String,
    /// From the latch to zero on every worker, milliseconds.
    pub took_ms: f64,
    /// What failed, when it did.
    pub failed: Option<String>,
}

/// What is asked before a rise.
#[derive(Clone, Debug, Serialize)]
pub struct ConfirmView {
    /// The hook, by Flagger's name.
    pub hook: &'static str,
    /// Since when its answer is waited for, RFC 3339.
    pub since: String,
    /// The gates that hold; empty once all have opened.
    pub holds: Vec<HeldView>,
}

/// A gate that holds.
#[derive(Clone, Debug, Serialize)]
pub struct HeldView {
    /// Its name.
    pub gate: String,
    /// Why.
    pub why: String,
}

/// A version's entry in the register.
#[derive(Clone, Debug, Serialize)]
pub struct RegisterView {
    /// What it says.
    #[serde(flatten)]
    pub entry: Arc<Registration>,
    /// Whether it is the one that was frozen at the start; else it is the file's, of a rollout that has not started.
    pub frozen: bool,
    /// Why nothing rises: the file has another digest than was frozen.
    pub changed: Option<String>,
}

/// The stage a rollout is in.
#[derive(Clone, Debug, Serialize)]
pub struct StageView {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// Its weight, %.
    pub weight: f64,
    /// RFC 3339.
    pub entered_at: Option<String>,
    /// Seconds of residence left.
    pub residence_left_s: f64,
    /// When it will be paused for want of an answer, RFC 3339.
    pub deadline_at: Option<String>,
    /// residence, samples, gates, approval, drill, hours, group or null.
    pub waits_for: Option<&'static str>,
    /// Signatures.
    pub approvals: Approvals,
}

/// Signatures of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct Approvals {
    /// How many are needed.
    pub needed: usize,
    /// Who has given one.
    pub given: Vec<String>,
}

/// Why it stands.
#[derive(Clone, Debug, Serialize)]
pub struct PausedView {
    /// The phase to go back to.
    pub from: &'static str,
    /// Who or what.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Why the weight stays 0.
#[derive(Clone, Debug, Serialize)]
pub struct LatchView {
    /// RFC 3339.
    pub at: String,
    /// Who or what.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// All three arms.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Arms {
    /// The version everybody had before.
    pub stable: ArmView,
    /// The control slice.
    pub baseline: ArmView,
    /// The version under release.
    pub canary: ArmView,
}

/// What one arm did since the process started (requests, cost) or the stage was entered (users).
#[derive(Clone, Debug, Default, Serialize)]
pub struct ArmView {
    /// Its version; null where there is none.
    pub version: Option<String>,
    /// Distinct units, estimated from 8,192 slots.
    pub users: u64,
    /// Requests ended.
    pub requests: u64,
    /// Shares of the rollout's whole, %.
    pub share: Share,
    /// Endpoints in use and in all.
    pub endpoints: EndpointsView,
    /// Ended by outcome.
    pub outcomes: std::collections::BTreeMap<&'static str, u64>,
    /// Cost so far, US dollars.
    pub cost_usd: f64,
}

/// An arm's part of the whole, %; null where the whole is nothing.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Share {
    /// Of users.
    pub users: Option<f64>,
    /// Of requests.
    pub requests: Option<f64>,
    /// Of cost.
    pub cost: Option<f64>,
}

/// Endpoints.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EndpointsView {
    /// Not held out.
    pub healthy: usize,
    /// All.
    pub all: usize,
}

/// What the canary has been seen by, since the release began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Exposed {
    /// Distinct units.
    pub users: u64,
    /// Requests.
    pub requests: u64,
    /// Tokens, in and out.
    pub tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
    /// The budget; null where there is no bound.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// What happens when it is spent: hold or stop.
    pub on: &'static str,
    /// The bound that is reached.
    pub spent: Option<&'static str>,
}

/// The exposure budget; null is no bound.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bounds {
    /// Distinct units.
    pub max_users: Option<u64>,
    /// Requests.
    pub max_requests: Option<u64>,
    /// Tokens, in and out.
    pub max_tokens: Option<u64>,
    /// US dollars.
    pub max_cost_usd: Option<f64>,
}

/// The newest view of every rollout, in the order of the configuration. Written by the evaluator alone, more often while it
/// is read.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    posted: ArcSwap<Posted>,
    /// Since the evaluator asked last.
    was_read: AtomicBool,
}

/// One posting of the board.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// Rises with every posting.
    pub number: u64,
    /// All rollouts.
    pub rollouts: Vec<Arc<RolloutView>>,
}

impl Board {
    /// The newest posting.
    #[must_use]
    pub fn read(&self) -> Arc<Posted> {
        self.0.was_read.store(true, Ordering::Relaxed);
        self.peek()
    }

    /// The same, for who looks all the time and at no numbers: it is no reason to paint them.
    #[must_use]
    pub fn peek(&self) -> Arc<Posted> {
        self.0.posted.load_full()
    }

    /// One rollout of the newest posting.
    #[must_use]
    pub fn rollout(&self, name: &str) -> Option<Arc<RolloutView>> {
        self.read().rollouts.iter().find(|view| view.name == name).cloned()
    }

    /// Whether anybody has read it since this was asked last. For the evaluator.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.0.was_read.swap(false, Ordering::Relaxed)
    }

    /// Posts new views. For the evaluator.
    pub fn post(&self, rollouts: Vec<Arc<RolloutView>>) {
        let number = self.0.posted.load().number + 1;
        self.0.posted.store(Arc::new(Posted { number, rollouts }));
    }
}
