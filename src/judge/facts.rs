//! What the judge is told: starts, first bytes, ends, late scores and query results, in the order in which they become known.

use crate::names::{Arm, Mono, Script};

use super::policy::Metric;

/// One thing that became known.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Fact {
    /// A request arrived and was given an arm.
    Start {
        /// Names the exchange until its end; not used again while it lasts.
        id: u64,
        /// Arrival at the proxy.
        at: Mono,
        /// The arm that is charged or credited.
        arm: Arm,
        /// Keyed hash of the unit.
        user: u64,
        /// Placed by chance (bucket, or a pin that a bucket made): only these are compared.
        drawn: bool,
    },
    /// The first token (or byte of body) of an answer came.
    FirstByte {
        /// The exchange.
        id: u64,
        /// When.
        at: Mono,
    },
    /// An exchange ended.
    End {
        /// The exchange.
        id: u64,
        /// When its last byte came, or it failed.
        at: Mono,
        /// What became of it.
        end: End,
    },
    /// A score of an answer became known.
    Score {
        /// The arm of the answer.
        arm: Arm,
        /// Keyed hash of the unit.
        user: u64,
        /// Placed by chance.
        drawn: bool,
        /// What was scored.
        metric: Metric,
        /// The score, in the metric's unit.
        value: f64,
        /// Arrival of the request that was scored.
        arrived: Mono,
        /// When the score became known.
        known: Mono,
    },
    /// An external query answered for both arms.
    Query {
        /// The query's name.
        name: std::sync::Arc<str>,
        /// Stable's value.
        stable: f64,
        /// The canary's value.
        canary: f64,
        /// When it became known.
        known: Mono,
    },
}

impl Fact {
    /// When it became known.
    #[must_use]
    pub fn known(&self) -> Mono {
        match self {
            Fact::Start { at, .. } | Fact::FirstByte { at, .. } | Fact::End { at, .. } => *at,
            Fact::Score { known, .. } | Fact::Query { known, .. } => *known,
        }
    }
}

/// What became of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct End {
    /// Whose fault it was, if anybody's.
    pub outcome: Outcome,
    /// HTTP status; 0 where no head came.
    pub status: u16,
    /// Time to first token, microseconds; absent where none came (or it was told by [`Fact::FirstByte`] alone).
    pub ttft_us: Option<u64>,
    /// Time per output token after the first, microseconds.
    pub tpot_us: Option<u64>,
    /// Output tokens.
    pub tokens_out: Option<u64>,
    /// Cost in 10⁻⁹ US dollars.
    pub cost_nano: Option<u64>,
    /// What was seen in the answer.
    pub flags: Flags,
    /// The language or writing of its text, where that was looked at and told.
    pub script: Option<Script>,
    /// The class of the first tool that it calls, below [`crate::names::TOOL_CLASSES`].
    pub tool: Option<u8>,
}

impl End {
    /// A success or failure without any further facts.
    #[must_use]
    pub fn plain(outcome: Outcome, status: u16) -> Self {
        Self {
            outcome,
            status,
            ttft_us: None,
            tpot_us: None,
            tokens_out: None,
            cost_nano: None,
            flags: Flags::default(),
            script: None,
            tool: None,
        }
    }
}

/// What was seen in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, packed on the ring")]
pub struct Flags {
    /// It broke off.
    pub cut: bool,
    /// An error inside a 200.
    pub in_band_error: bool,
    /// It had no content.
    pub empty: bool,
    /// The token limit ended it.
    pub truncated: bool,
    /// It refused.
    pub refusal: bool,
    /// It called a tool.
    pub tool_called: bool,
    /// A tool call failed.
    pub tool_error: bool,
    /// It broke a safety rule.
    pub safety: bool,
    /// The request asked for an earlier answer again.
    pub regeneration: bool,
    /// It was held against the shape that its request declares.
    pub schema_checked: bool,
    /// It has not that shape.
    pub schema_invalid: bool,
}

/// How an exchange ended, as metrics and gates name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A whole answer.
    Success,
    /// 5xx, connect, reset, protocol error, an error inside a 200.
    UpstreamError,
    /// The upstream took too long.
    Timeout,
    /// 429.
    Throttled,
    /// Another 4xx.
    ClientError,
    /// Refused by a limit of ours.
    Refused,
    /// The caller hung up.
    Cancelled,
    /// Our own fault.
    Local,
}

impl Outcome {
    /// All outcomes, in the order of metrics.
    pub const ALL: [Outcome; 8] = [
        Outcome::Success,
        Outcome::UpstreamError,
        Outcome::Timeout,
        Outcome::Throttled,
        Outcome::ClientError,
        Outcome::Refused,
        Outcome::Cancelled,
        Outcome::Local,
    ];

    /// Position in [`Outcome::ALL`] and in tables by outcome.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in metric labels, logs and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::UpstreamError => "upstream_error",
            Outcome::Timeout => "timeout",
            Outcome::Throttled => "throttled",
            Outcome::ClientError => "client_error",
            Outcome::Refused => "refused",
            Outcome::Cancelled => "cancelled",
            Outcome::Local => "local",
        }
    }

    /// Whether the version answered for itself; what callers or we broke says nothing about it.
    #[must_use]
    pub const fn is_evidence(self) -> bool {
        !matches!(self, Outcome::Refused | Outcome::Cancelled | Outcome::Local)
    }
}
