//! What is judged and how strictly: the budget, the rules, their margins.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{End, Outcome};
use crate::names::Script;

/// Everything that a judge needs to know before it starts. Frozen while a stage runs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// Chance of rolling back a canary that is as good as stable, a stage, all rules together.
    pub alpha: f64,
    /// Chance of promoting a canary that is worse by its rollback margin, each rule.
    pub beta: f64,
    /// Length of stage that `alpha` is spread over; a longer residence stretches it.
    pub horizon: Duration,
    /// Quantile and mean rules drop what arrived or became known this soon after a stage began.
    pub warm_up: Duration,
    /// Least residence where a stage does not say its own.
    pub min_stage: Duration,
    /// Least canary requests where a stage does not say its own.
    pub min_requests: u64,
    /// Least effective canary users, (Σn)²/Σn².
    pub min_users: f64,
    /// What counts as an error.
    pub errors: ErrorStatuses,
    /// Which arms the canary is compared with.
    pub comparator: Comparator,
    /// The rules, in the order in which they are shown.
    pub rules: Vec<Rule>,
}

impl Default for Policy {
    /// The defaults of the configuration (`[rollouts.x.evaluator]`) with the default gates.
    fn default() -> Self {
        Self {
            alpha: 0.01,
            beta: 0.05,
            horizon: Duration::from_secs(86_400),
            warm_up: Duration::from_secs(60),
            min_stage: Duration::from_secs(1_800),
            min_requests: 500,
            min_users: 10.0,
            errors: ErrorStatuses::default(),
            comparator: Comparator::StableAndBaseline,
            rules: Rule::defaults(),
        }
    }
}

/// Which outcomes are errors.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorStatuses {
    /// Any 5xx.
    pub server: bool,
    /// 429.
    pub throttled: bool,
    /// The upstream took too long.
    pub timeout: bool,
    /// No connection, or one that was reset.
    pub connect: bool,
    /// Further status codes.
    pub codes: Vec<u16>,
}

impl Default for ErrorStatuses {
    /// 5xx, time-out, connect and reset; 429 has a rule of its own.
    fn default() -> Self {
        Self { server: true, throttled: false, timeout: true, connect: true, codes: Vec::new() }
    }
}

impl ErrorStatuses {
    /// Whether an ended exchange is an error of its version. An error inside a 200 always is.
    #[must_use]
    pub fn is_error(&self, end: &End) -> bool {
        let by_outcome = match end.outcome {
            Outcome::Timeout => self.timeout || (self.server && end.status >= 500),
            Outcome::Throttled => self.throttled,
            Outcome::UpstreamError if end.status >= 500 => {
                self.server || (self.connect && matches!(end.status, 502 | 503))
            }
            Outcome::UpstreamError => self.connect || self.server,
            Outcome::Success => end.flags.in_band_error,
            Outcome::ClientError => false,
            Outcome::Refused | Outcome::Cancelled | Outcome::Local => return false,
        };
        by_outcome || self.codes.contains(&end.status)
    }
}

/// Which arms the canary is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Comparator {
    /// Stable and baseline together: the baseline is only a marked slice of stable.
    #[default]
    StableAndBaseline,
    /// The baseline alone: it has endpoints of its own, started as freshly as the canary's.
    BaselineAlone,
}

/// One gate: a metric, a statistic of it, and the margins.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rule {
    /// The name shown, unique in a policy. A hard twin is shown as `NAME/hard`, a limit as `NAME/limit`.
    pub name: Arc<str>,
    /// What is measured.
    pub metric: Metric,
    /// Which statistic of it.
    pub stat: Stat,
    /// Surely fine up to here.
    pub promote: Margin,
    /// Surely bad from here on.
    pub rollback: Margin,
    /// An absolute bound for the canary alone, in the metric's unit.
    pub limit: Option<f64>,
    /// A fail counts only while the canary's own value is worse than this, in the metric's unit.
    pub floor: Option<f64>,
    /// What a fail does.
    pub on: On,
    /// Only the fast test for gross failures, exempt from warm-up and cut (stalls).
    pub hard: bool,
    /// Without data it holds; else it is shown as unarmed and does not hold.
    pub required: bool,
    /// Which side is worse.
    pub direction: Direction,
    /// A score source silent for longer than this holds.
    pub stale: Duration,
}

/// What is measured, and where its values come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Metric {
    /// What [`ErrorStatuses`] names (a share of answers).
    Errors,
    /// Time-outs (a share of answers).
    Timeout,
    /// 429 (a share of answers).
    Throttled,
    /// Other 4xx (a share of answers).
    ClientError,
    /// Answers that broke off (a share of answers).
    CutStream,
    /// Arrival to last byte, milliseconds.
    Latency,
    /// Arrival to first token (or byte), milliseconds.
    Ttft,
    /// Time per output token after the first, milliseconds.
    Tpot,
    /// Output tokens of a success.
    TokensOut,
    /// Cost of a success, US dollars.
    Cost,
    /// Exchanges whose tool calls failed (a share of those with tool calls).
    ToolError,
    /// Answers cut by the token limit (a share of successes).
    Truncated,
    /// Answers that refuse (a share of successes).
    Refusal,
    /// Answers without content (a share of successes).
    Empty,
    /// Requests that ask for the same answer again (a share of answers).
    Regeneration,
    /// Quality score, 0 to 1.
    Quality,
    /// Evaluations passed (scores of 0 or 1; bad is 0).
    EvalPass,
    /// Thumbs down (scores of 0 or 1; bad is 1).
    ThumbsDown,
    /// Escalations to a person (scores of 0 or 1; bad is 1).
    Escalation,
    /// Safety violations (zero tolerance).
    Safety,
    /// Anything reported by feedback under this name.
    Score(Arc<str>),
    /// An external query of this name.
    Prometheus(Arc<str>),
    /// Answers that have not the shape that their request declares (a share of those that were held against one).
    SchemaInvalid,
    /// Answers that call tools (a share of successes): neither better nor worse.
    ToolCall,
    /// Answers in this language or writing (a share of successes of which that was told).
    Script(Script),
    /// All others, of those of which the metric speaks.
    Not(Arc<Metric>),
    /// Answers whose first tool call is of this class, below [`crate::names::TOOL_CLASSES`] (a share of successes).
    Tool(u8),
}

impl Metric {
    /// The unit of its values: `ratio`, `ms`, `tokens`, `usd`, `score` or `count`.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self {
            Metric::Latency | Metric::Ttft | Metric::Tpot => "ms",
            Metric::TokensOut => "tokens",
            Metric::Cost => "usd",
            Metric::Quality | Metric::Score(_) => "score",
            Metric::Safety => "count",
            Metric::Prometheus(_) => "value",
            _ => "ratio",
        }
    }

    /// Whether values arrive as [`super::facts::Fact::Score`], after the exchange.
    #[must_use]
    pub fn is_score(&self) -> bool {
        matches!(self, Metric::Quality | Metric::EvalPass | Metric::ThumbsDown | Metric::Escalation | Metric::Score(_))
    }

    /// Whether a bad event of it is a fault, which comes in storms when a caller tries again; else it is a class of answers.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self, Metric::ToolCall | Metric::Tool(_) | Metric::Script(_) | Metric::Not(_))
    }

    /// Whether its value is an age: bad is known as soon as the age passes the limit.
    #[must_use]
    pub fn is_time(&self) -> bool {
        matches!(self, Metric::Latency | Metric::Ttft)
    }
}

/// Which statistic of a metric is compared.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Stat {
    /// The share of bad events.
    Rate,
    /// This quantile, 0 to 1.
    Quantile(f64),
    /// The mean.
    Mean,
    /// None allowed in the canary.
    Zero,
    /// Beyond its margin this many times in a row (external queries; outside alpha).
    Breaches(u32),
}

/// A distance from the comparator's value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Margin {
    /// In the metric's unit: 0.005 is half a percentage point of a rate; signed, negative where lower is worse.
    Absolute(f64),
    /// A ratio: 1.2 is 20 % more, 0.9 is 10 % less.
    Relative(f64),
}

/// What a fail does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// Rolls back.
    #[default]
    Rollback,
    /// Only stops advancement.
    Hold,
    /// Goes back to the stage before.
    #[serde(rename = "step-back")]
    StepBack,
}

/// Which side of a metric is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More is worse.
    #[default]
    Higher,
    /// Less is worse.
    Lower,
}

/// How long a score source may be silent before its rule holds.
pub const STALE: Duration = Duration::from_secs(1_800);

impl Rule {
    /// A rule with neither limit nor floor that rolls back and is required.
    #[must_use]
    pub fn new(name: &str, metric: Metric, stat: Stat, promote: Margin, rollback: Margin) -> Self {
        Self {
            name: name.into(),
            metric,
            stat,
            promote,
            rollback,
            limit: None,
            floor: None,
            on: On::Rollback,
            hard: false,
            required: true,
            direction: Direction::Higher,
            stale: STALE,
        }
    }

    /// The rule that a gate's metric name (`latency_p99`, `score:tone`) stands for, with the margins that it has
    /// where the configuration gives none. `None` for a name that is no metric.
    #[must_use]
    pub fn gate(name: &str) -> Option<Self> {
        use Margin::{Absolute, Relative};
        let rate = |metric, promote, rollback| {
            Some(Rule::new(name, metric, Stat::Rate, Absolute(promote), Absolute(rollback)))
        };
        let quantile = |metric, q, promote, rollback| {
            Some(Rule::new(name, metric, Stat::Quantile(q), Relative(promote), Relative(rollback)))
        };
        let mean = |metric, promote, rollback, direction| {
            let mut rule = Rule::new(name, metric, Stat::Mean, Relative(promote), Relative(rollback));
            rule.direction = direction;
            Some(rule)
        };
        match name {
            "error_rate" => rate(Metric::Errors, 0.001, 0.005),
            "timeout_rate" => rate(Metric::Timeout, 0.001, 0.005),
            "throttled_rate" => rate(Metric::Throttled, 0.002, 0.01),
            "client_error_rate" => rate(Metric::ClientError, 0.002, 0.01),
            "cut_stream_rate" => rate(Metric::CutStream, 0.001, 0.005),
            "tool_error_rate" => rate(Metric::ToolError, 0.005, 0.02),
            "truncated_rate" => rate(Metric::Truncated, 0.005, 0.02),
            "refusal_rate" => rate(Metric::Refusal, 0.005, 0.02),
            "empty_rate" => rate(Metric::Empty, 0.001, 0.005),
            "schema_invalid_rate" => rate(Metric::SchemaInvalid, 0.005, 0.02),
            "regeneration_rate" => rate(Metric::Regeneration, 0.005, 0.02),
            "eval_pass_rate" => rate(Metric::EvalPass, 0.01, 0.05),
            "thumbs_down_rate" => rate(Metric::ThumbsDown, 0.005, 0.02),
            "escalation_rate" => rate(Metric::Escalation, 0.005, 0.02),
            "latency_p50" => quantile(Metric::Latency, 0.5, 1.1, 1.2),
            "latency_p95" => quantile(Metric::Latency, 0.95, 1.1, 1.25),
            "latency_p99" => quantile(Metric::Latency, 0.99, 1.2, 1.5),
            "ttft_p50" => quantile(Metric::Ttft, 0.5, 1.1, 1.2),
            "ttft_p95" => quantile(Metric::Ttft, 0.95, 1.1, 1.25),
            "ttft_p99" => quantile(Metric::Ttft, 0.99, 1.2, 1.5),
            "tpot_p95" => quantile(Metric::Tpot, 0.95, 1.1, 1.25),
            "tokens_out_mean" => mean(Metric::TokensOut, 1.1, 1.3, Direction::Higher),
            "cost_mean" => mean(Metric::Cost, 1.1, 1.3, Direction::Higher),
            "quality_mean" => mean(Metric::Quality, 0.98, 0.9, Direction::Lower),
            "safety_violations" => Some(Rule::new(name, Metric::Safety, Stat::Zero, Absolute(0.0), Absolute(0.0))),
            _ => {
                if let Some(score) = name.strip_prefix("score:") {
                    mean(Metric::Score(score.into()), 0.98, 0.9, Direction::Lower)
                } else {
                    let query = name.strip_prefix("prometheus:")?;
                    Some(Rule::new(
                        name,
                        Metric::Prometheus(query.into()),
                        Stat::Breaches(3),
                        Relative(1.1),
                        Relative(1.5),
                    ))
                }
            }
        }
    }

    /// The gates of a rollout that names none; each is unarmed, not holding, until its source speaks.
    #[must_use]
    pub fn defaults() -> Vec<Rule> {
        ["error_rate", "throttled_rate", "latency_p99", "quality_mean", "safety_violations"]
            .into_iter()
            .filter_map(Rule::gate)
            .map(|rule| Rule { required: false, ..rule })
            .collect()
    }

    /// The stall rule: no first byte by four times stable's p99. Hard: neither warm-up nor cut apply. Not required, so that it
    /// is never what a stage waits for: its proof would ask 300 to 500 canary answers of stages that ask for fewer.
    #[must_use]
    pub fn stall() -> Self {
        let mut rule =
            Rule::new("stall", Metric::Ttft, Stat::Quantile(0.99), Margin::Relative(4.0), Margin::Relative(8.0));
        rule.hard = true;
        rule.required = false;
        rule
    }

    /// Whether it is an alarm and no gate: a hard rule that nobody asked for (the stall rule that serin adds). It rolls back,
    /// and no stage waits for its proof.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        self.hard && !self.required
    }

    /// Whether a fail of that name is its own: the rule's name, or that with the name of one of its tests behind it.
    #[must_use]
    pub fn is_named(&self, fail: &str) -> bool {
        fail.strip_prefix(&*self.name).is_some_and(|test| matches!(test, "" | "/hard" | "/limit"))
    }

    /// Whether it has a hard twin beside it (every error rate has).
    #[must_use]
    pub fn has_twin(&self) -> bool {
        !self.hard && self.stat == Stat::Rate && matches!(self.metric, Metric::Errors | Metric::Timeout)
    }
}

impl Policy {
    /// The policy with the stall rule added, if it has none (as a rollout's policy always is).
    #[must_use]
    pub fn with_stall(mut self) -> Self {
        if !self.rules.iter().any(|rule| rule.hard) {
            self.rules.push(Rule::stall());
        }
        self
    }

    /// What the log evidence for not worse must pass, ln(1/β).
    #[must_use]
    pub fn proof_bar(&self) -> f64 {
        (1.0 / self.beta).ln()
    }

    /// R: all tests that can roll or step back and share `alpha` (rules, hard twins, stalls, limits), at least 1.
    #[must_use]
    pub fn tests(&self) -> u32 {
        let count = |rule: &Rule| {
            if rule.on == On::Hold || matches!(rule.stat, Stat::Zero | Stat::Breaches(_)) {
                return 0;
            }
            1 + u32::from(rule.has_twin()) + u32::from(rule.limit.is_some())
        };
        self.rules.iter().map(count).sum::<u32>().max(1)
    }
}
