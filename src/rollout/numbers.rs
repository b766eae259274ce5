//! The numbers that stand beside a decision in the journal: every gate as it was then, and who had seen the canary.

use serde::{Deserialize, Serialize};

use crate::judge::{GateReport, GateResult, On};

/// What was known at the moment of a decision. Counts only: no unit, no body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Every gate, in the order of the policy.
    pub gates: Vec<GateNumbers>,
    /// What the canary had been seen by since the release began.
    pub exposed: Exposed,
    /// Distinct users of the stage that was left or judged: stable, baseline, canary.
    pub users: [u64; 3],
}

/// What the canary had been seen by since the release began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// Distinct users, estimated.
    pub users: u64,
    /// Requests.
    pub requests: u64,
    /// Billionths of a dollar.
    pub cost_nano: u64,
}

/// One gate at the moment of a decision. A number that was not finite is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateNumbers {
    /// The gate's name.
    pub name: String,
    /// Unit of the values: ratio, ms, tokens, usd, score, count or value.
    pub unit: String,
    /// What a fail does.
    pub on: On,
    /// Whether it had to pass for the stage to be left.
    pub required: bool,
    /// Where it stood.
    pub result: GateResult,
    /// The comparator's value in the stage.
    pub stable: Option<f64>,
    /// The canary's value in the stage.
    pub canary: Option<f64>,
    /// Canary less comparator.
    pub difference: Option<f64>,
    /// Always-valid 95 % interval of the difference.
    pub interval: Option<[f64; 2]>,
    /// The promote margin as a difference.
    pub promote: Option<f64>,
    /// The rollback margin as a difference.
    pub rollback: Option<f64>,
    /// The absolute bound for the canary alone.
    pub limit: Option<f64>,
    /// Log evidence for worse, of the window nearest to its bar, and that bar.
    pub worse: Option<[f64; 2]>,
    /// Log evidence for not worse, and its bar.
    pub fine: Option<[f64; 2]>,
    /// Canary values in the stage.
    pub samples: u64,
    /// Canary users in the stage.
    pub users: u64,
    /// All of that as a sentence.
    pub why: String,
}

impl From<&GateReport> for GateNumbers {
    fn from(gate: &GateReport) -> Self {
        let finite = |value: Option<f64>| value.filter(|v| v.is_finite());
        let both = |pair: [f64; 2]| pair.iter().all(|v| v.is_finite()).then_some(pair);
        Self {
            name: gate.name.clone(),
            unit: gate.unit.to_owned(),
            on: gate.on,
            required: gate.required,
            result: gate.result,
            stable: finite(gate.stable),
            canary: finite(gate.canary),
            difference: finite(gate.difference),
            interval: gate.interval.and_then(both),
            promote: finite(gate.promote),
            rollback: finite(gate.rollback),
            limit: finite(gate.limit),
            worse: both([gate.evidence.rollback, gate.evidence.bar]),
            fine: both([gate.evidence.promote, gate.evidence.promote_bar]),
            samples: gate.samples,
            users: gate.users,
            why: gate.why.clone(),
        }
    }
}
