//! What one gate shows to people and machines: the object inside `"gates"` of the API.

use super::policy::On;

/// One gate's state.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct GateReport {
    /// The rule's name.
    pub name: String,
    /// Unit of the values below: ratio, ms, tokens, usd, score, count or value.
    pub unit: &'static str,
    /// What a fail does.
    pub on: On,
    /// Whether it must pass for the stage to advance.
    pub required: bool,
    /// Where it stands.
    pub result: GateResult,
    /// The comparator's value in this stage.
    pub stable: Option<f64>,
    /// The canary's value in this stage.
    pub canary: Option<f64>,
    /// Canary less comparator.
    pub difference: Option<f64>,
    /// Always-valid 95 % interval of the difference.
    pub interval: Option<[f64; 2]>,
    /// The promote margin as a difference in the same unit.
    pub promote: Option<f64>,
    /// The rollback margin as a difference in the same unit.
    pub rollback: Option<f64>,
    /// The absolute bound for the canary alone.
    pub limit: Option<f64>,
    /// Log evidence both ways and the bars that it must pass.
    pub evidence: Evidence,
    /// Canary values in this stage.
    pub samples: u64,
    /// Canary values that an answer is expected to need.
    pub samples_needed: Option<u64>,
    /// Canary users (slots) in this stage.
    pub users: u64,
    /// How much less than independent requests these are worth.
    pub design_effect: f64,
    /// Seconds by which the answer has come with 80 % chance, at this traffic, were the canary equal.
    pub eta_s: Option<f64>,
    /// All of that as a sentence.
    pub why: String,
}

/// Log evidence of a gate, and its bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Evidence {
    /// For worse, of the start nearest to its bar.
    pub rollback: f64,
    /// That start's bar.
    pub bar: f64,
    /// For not worse, over the whole stage.
    pub promote: f64,
    /// Its bar, ln(1/β).
    pub promote_bar: f64,
}

/// Where a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateResult {
    /// Proven not worse.
    Pass,
    /// Proven worse.
    Fail,
    /// Neither yet.
    Inconclusive,
    /// A default gate whose source never spoke.
    Unarmed,
}

impl GateResult {
    /// The word in the API, metrics and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GateResult::Pass => "pass",
            GateResult::Fail => "fail",
            GateResult::Inconclusive => "inconclusive",
            GateResult::Unarmed => "unarmed",
        }
    }
}
