//! A rollout as the admin API shows it, read leniently: a newer serin may say more, an older one less.

use serde::Deserialize;

/// A rollout.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Rollout {
    pub name: String,
    pub phase: String,
    pub why: String,
    pub verdict: String,
    pub verdict_reason: String,
    pub generation: u64,
    pub weight: f64,
    pub weight_actual: Option<f64>,
    pub stages: Vec<f64>,
    pub stage: Option<Stage>,
    pub started_by: Option<String>,
    pub paused: Option<Paused>,
    pub soak_ends_at: Option<String>,
    pub next_version: Option<String>,
    pub latch: Option<Latch>,
    pub arms: Arms,
    pub gates: Vec<Gate>,
    pub exposed: Exposed,
    pub drill: Option<Drill>,
    pub register: Option<Register>,
    pub confirm: Option<Confirm>,
    pub heartbeat_age_s: f64,
    pub allowed: Vec<String>,
}

/// What is asked before a rise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Confirm {
    pub hook: String,
    pub since: String,
    pub holds: Vec<Held>,
}

/// A gate that holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Held {
    pub gate: String,
    pub why: String,
}

/// The version's entry in the register.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Register {
    pub digest: String,
    pub kind: String,
    pub risk: Option<String>,
    pub owner: String,
    pub contacts: Vec<String>,
    pub frozen: bool,
    pub changed: Option<String>,
}

/// The last rehearsal of a rollback.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Drill {
    pub at: String,
    pub took_ms: f64,
    pub failed: Option<String>,
}

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Stage {
    pub index: usize,
    pub of: usize,
    pub weight: f64,
    pub entered_at: Option<String>,
    pub residence_left_s: f64,
    pub deadline_at: Option<String>,
    pub waits_for: Option<String>,
    pub approvals: Approvals,
}

/// Signatures.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Approvals {
    pub needed: usize,
    pub given: Vec<String>,
}

/// Why it stands.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Paused {
    pub from: String,
    pub by: String,
    pub why: String,
}

/// Why its weight stays 0.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Latch {
    pub at: String,
    pub actor: String,
    pub reason: String,
}

/// All arms.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Arms {
    pub stable: Arm,
    pub baseline: Arm,
    pub canary: Arm,
}

/// One arm.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Arm {
    pub version: Option<String>,
    pub users: u64,
    pub requests: u64,
    pub share: Share,
    pub endpoints: Endpoints,
    pub cost_usd: f64,
}

/// Its part of the whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Share {
    pub users: Option<f64>,
    pub requests: Option<f64>,
    pub cost: Option<f64>,
}

/// Its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Endpoints {
    pub healthy: usize,
    pub all: usize,
}

/// A gate.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Gate {
    pub name: String,
    pub unit: String,
    pub on: String,
    pub required: bool,
    pub result: String,
    pub stable: Option<f64>,
    pub canary: Option<f64>,
    pub difference: Option<f64>,
    pub interval: Option<[f64; 2]>,
    pub promote: Option<f64>,
    pub rollback: Option<f64>,
    pub limit: Option<f64>,
    pub samples: u64,
    pub samples_needed: Option<u64>,
    pub users: u64,
    pub eta_s: Option<f64>,
    pub why: String,
}

/// What the canary has been seen by.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the admin API, described there")]
pub struct Exposed {
    pub users: u64,
    pub requests: u64,
    pub tokens: u64,
    pub cost_usd: f64,
    pub max_users: Option<u64>,
    pub max_requests: Option<u64>,
    pub max_tokens: Option<u64>,
    pub max_cost_usd: Option<f64>,
    pub on: String,
    pub spent: Option<String>,
}
