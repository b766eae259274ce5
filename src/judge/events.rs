//! Facts made into events: their order in a tick, the limits that they meet, what is a bad event and what has a value.

use super::case::Lane;
use super::facts::{End, Fact, Outcome};
use super::policy::{Direction, Metric, Policy, Rule, Stat};

/// Facts of one tick in an order that does not depend on how they came: by time, then kind, then what they are about.
pub(super) fn order(fact: &Fact) -> (u64, u8, u64, u64) {
    match fact {
        Fact::Start { id, at, .. } => (at.0, 0, *id, 0),
        Fact::FirstByte { id, at } => (at.0, 1, *id, 0),
        Fact::End { id, at, .. } => (at.0, 2, *id, 0),
        Fact::Score { user, value, known, arrived, .. } => (known.0, 3, *user, value.to_bits() ^ arrived.0),
        Fact::Query { known, canary, .. } => (known.0, 4, canary.to_bits(), 0),
    }
}

/// One limit that a time may be beyond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// In `Flight::done`; 0 where bits ran out.
    pub(super) bit: u128,
    /// The rule's number.
    pub(super) rule: usize,
    pub(super) lane: Lane,
    /// It is met by the first byte.
    pub(super) of_ttft: bool,
}

/// The limits of a policy's quantile rules of times, looked up for every request.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) ttft: Vec<Limit>,
    pub(super) latency: Vec<Limit>,
    /// Those that an age can pass before the end is known.
    pub(super) aging: Vec<Limit>,
}

impl Limits {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let all: Vec<Limit> = limits(rules).collect();
        let of = |keep: &dyn Fn(&Limit) -> bool| all.iter().copied().filter(|limit| keep(limit)).collect();
        Self {
            ttft: of(&|limit| limit.of_ttft),
            latency: of(&|limit| !limit.of_ttft),
            aging: of(&|limit| limit.bit != 0 && rules[limit.rule].direction == Direction::Higher),
        }
    }
}

/// More than 42 such rules have no bit, and are judged at the end alone.
fn limits(rules: &[Rule]) -> impl Iterator<Item = Limit> {
    let of_time = |rule: &Rule| matches!(rule.stat, Stat::Quantile(_)) && rule.metric.is_time();
    rules.iter().enumerate().filter(move |(_, rule)| of_time(rule)).enumerate().flat_map(|(place, (i, rule))| {
        let of_ttft = rule.metric == Metric::Ttft;
        [Lane::Rollback, Lane::Promote, Lane::Limit].into_iter().enumerate().map(move |(lane, which)| Limit {
            bit: 1u128.checked_shl((place * 3 + lane) as u32).unwrap_or(0),
            rule: i,
            lane: which,
            of_ttft,
        })
    })
}

/// Whether an answer is a bad event of a rate, or no exposure of it at all.
pub(super) fn bad_event(policy: &Policy, metric: &Metric, end: &End, success: bool) -> Option<bool> {
    let flags = &end.flags;
    match metric {
        Metric::Errors => Some(policy.errors.is_error(end)),
        Metric::Timeout => Some(end.outcome == Outcome::Timeout),
        Metric::Throttled => Some(end.outcome == Outcome::Throttled),
        Metric::ClientError => Some(end.outcome == Outcome::ClientError),
        Metric::CutStream => Some(flags.cut),
        Metric::ToolError => (flags.tool_called || flags.tool_error).then_some(flags.tool_error),
        Metric::Truncated => success.then_some(flags.truncated),
        Metric::Refusal => success.then_some(flags.refusal),
        Metric::Empty => success.then_some(flags.empty || end.tokens_out == Some(0)),
        Metric::Regeneration => Some(flags.regeneration),
        Metric::ToolCall => success.then_some(flags.tool_called),
        Metric::Tool(class) => success.then_some(end.tool == Some(*class)),
        Metric::Script(script) => end.script.filter(|_| success).map(|found| found == *script),
        Metric::Not(other) => bad_event(policy, other, end, success).map(|bad| !bad),
        Metric::SchemaInvalid => (flags.schema_checked || flags.schema_invalid).then_some(flags.schema_invalid),
        _ => None,
    }
}

/// The value of a success, in the metric's unit. A success without tokens has none: 0, once tokens were ever counted.
pub(super) fn value_of(metric: &Metric, end: &End, times_ms: [f64; 2], tokens_known: bool) -> Option<f64> {
    match metric {
        Metric::Latency => Some(times_ms[0]),
        Metric::Ttft => Some(times_ms[1]),
        Metric::Tpot => end.tpot_us.map(|us| us as f64 / 1e3),
        Metric::TokensOut => end.tokens_out.map(|tokens| tokens as f64).or_else(|| tokens_known.then_some(0.0)),
        Metric::Cost => end.cost_nano.map(|nano| nano as f64 / 1e9),
        _ => None,
    }
}
