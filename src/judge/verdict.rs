//! All gates folded into one word: advance, hold with what is missing, step back or rollback with why.

use std::fmt;
use std::sync::Arc;

/// What the judge says at a tick.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every required rule is proven, and residence, requests and users are there.
    Advance {
        /// The numbers, as a sentence.
        reason: String,
    },
    /// Not proven either way.
    Hold {
        /// What is missing, in the order of the rules.
        missing: Vec<Missing>,
        /// The numbers, as a sentence.
        reason: String,
    },
    /// The canary is worse by a gate that asks for less of it, and no more (`on = "step-back"`).
    StepBack {
        /// The rule that says so: a rule's name, `NAME/hard` or `NAME/limit`.
        rule: String,
        /// The numbers, as a sentence.
        reason: String,
    },
    /// The canary is worse.
    Rollback {
        /// The rule that says so: a rule's name, `NAME/hard`, `NAME/limit`, or `breaker`.
        rule: String,
        /// The numbers, as a sentence.
        reason: String,
    },
}

impl Verdict {
    /// The word of the API: advance, hold, step-back or rollback.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Advance { .. } => "advance",
            Verdict::Hold { .. } => "hold",
            Verdict::StepBack { .. } => "step-back",
            Verdict::Rollback { .. } => "rollback",
        }
    }

    /// The numbers, as a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Advance { reason }
            | Verdict::Hold { reason, .. }
            | Verdict::StepBack { reason, .. }
            | Verdict::Rollback { reason, .. } => reason,
        }
    }
}

/// One thing that keeps a stage from advancing.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// The rule, or none where it is the stage itself (residence, requests, users).
    pub rule: Option<Arc<str>>,
    /// What it lacks.
    pub lack: Lack,
}

/// What is lacking, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Lack {
    /// No stage has been entered, or one of weight 0 in which the canary has been asked nothing.
    Stage,
    /// Seconds of residence left.
    Residence {
        /// How many.
        left_s: f64,
    },
    /// Canary requests.
    Requests {
        /// So far.
        have: u64,
        /// Needed.
        need: u64,
    },
    /// Effective canary users.
    Users {
        /// So far.
        have: f64,
        /// Needed.
        need: f64,
    },
    /// The rule's source has not spoken.
    Data,
    /// Scores in the arm that has fewer.
    Scores {
        /// So far.
        have: u64,
        /// Needed.
        need: u64,
    },
    /// The source is silent for longer than it may be.
    Stale {
        /// For how long, seconds.
        silent_s: f64,
    },
    /// Proof that it is not worse.
    Proof {
        /// Log evidence so far.
        have: f64,
        /// Needed.
        need: f64,
        /// Seconds to the answer at this traffic, where it can be foreseen.
        eta_s: Option<f64>,
    },
    /// Proven not worse by the rollback margin, but the estimate lies outside the promote margin.
    Estimate {
        /// The difference seen, in the margin's terms.
        have: f64,
        /// The most that passes.
        most: f64,
    },
    /// A rule that only holds has failed.
    Failing {
        /// Its log evidence.
        evidence: f64,
        /// Its bar.
        bar: f64,
    },
    /// Records were lost on the way to the judge.
    Dropped,
    /// Stable is failing too: nothing can be said of the canary.
    Shared {
        /// Stable's failures.
        failed: u64,
        /// Of so many of its last answers.
        answers: u64,
    },
    /// A bound of the release's exposure is reached.
    Exposure {
        /// What the canary has been seen by.
        have: f64,
        /// The bound.
        most: f64,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Lack::Stage => f.write_str("the canary has had no traffic"),
            Lack::Residence { left_s } => write!(f, "{left_s:.0} s of residence left"),
            Lack::Requests { have, need } => write!(f, "{have} of {need} canary requests"),
            Lack::Users { have, need } => write!(f, "{have:.1} of {need:.0} effective canary users"),
            Lack::Data => f.write_str("no data yet"),
            Lack::Scores { have, need } => write!(f, "{have} of {need} scores known"),
            Lack::Stale { silent_s } => write!(f, "its source is silent for {silent_s:.0} s"),
            Lack::Proof { have, need, eta_s: Some(eta) } => {
                write!(f, "log evidence {have:.1} of {need:.1}, about {eta:.0} s more")
            }
            Lack::Proof { have, need, eta_s: None } => write!(f, "log evidence {have:.1} of {need:.1}"),
            Lack::Estimate { have, most } => write!(f, "estimate {have:.4} is above {most:.4}"),
            Lack::Failing { evidence, bar } => write!(f, "fails: log evidence {evidence:.1} > {bar:.1}"),
            Lack::Dropped => f.write_str("records were dropped in the last minute"),
            Lack::Exposure { have, most } => write!(f, "{have} of {most} spent"),
            Lack::Shared { failed, answers } => write!(f, "stable is failing too: {failed} of {answers} answers"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "{rule}: {}", self.lack),
            None => self.lack.fmt(f),
        }
    }
}
