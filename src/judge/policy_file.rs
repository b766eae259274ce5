//! Policy files: the TOML that `serin replay --policy` reads.

use std::time::Duration;

use super::policy::{Comparator, Direction, ErrorStatuses, Margin, Metric, On, Policy, Rule, Stat};
use crate::names::{Script, TOOL_CLASSES};

/// Why a policy file is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// Not TOML, an unknown key, or a value of the wrong kind; the text says where.
    #[error("the policy cannot be read: {0}")]
    Toml(String),
    /// A rule or setting that makes no sense.
    #[error("{place}: {fault}")]
    Value {
        /// The key or rule.
        place: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    evaluator: RawEvaluator,
    #[serde(default, rename = "rule")]
    rules: Vec<RawRule>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEvaluator {
    alpha: f64,
    beta: f64,
    horizon_s: f64,
    warmup_s: f64,
    min_stage_s: f64,
    min_canary_requests: u64,
    min_canary_users: f64,
    error_statuses: Vec<RawStatus>,
}

impl Default for RawEvaluator {
    fn default() -> Self {
        let word = |word: &str| RawStatus::Word(word.to_owned());
        Self {
            alpha: 0.01,
            beta: 0.05,
            horizon_s: 86_400.0,
            warmup_s: 60.0,
            min_stage_s: 1_800.0,
            min_canary_requests: 500,
            min_canary_users: 10.0,
            error_statuses: vec![word("5xx"), word("timeout"), word("connect")],
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum RawStatus {
    Code(u16),
    Word(String),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: String,
    metric: String,
    stat: String,
    q: Option<f64>,
    promote: Option<f64>,
    rollback: Option<f64>,
    limit: Option<f64>,
    floor: Option<f64>,
    on: Option<On>,
    #[serde(default)]
    direction: Direction,
    #[serde(default)]
    hard: bool,
    required: Option<bool>,
    stale_s: Option<f64>,
}

fn wrong(place: &str, fault: impl Into<String>) -> PolicyFault {
    PolicyFault::Value { place: place.to_owned(), fault: fault.into() }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn from_toml(text: &str) -> Result<Self, PolicyFault> {
        let raw: RawPolicy = toml::from_str(text).map_err(|error| PolicyFault::Toml(error.to_string()))?;
        let evaluator = raw.evaluator;
        for (place, share) in [("evaluator.alpha", evaluator.alpha), ("evaluator.beta", evaluator.beta)] {
            if !(share > 0.0 && share < 1.0) {
                return Err(wrong(place, format!("{share} is no chance: give one above 0 and below 1")));
            }
        }
        let seconds = |place: &str, value: f64| {
            Duration::try_from_secs_f64(value).map_err(|_| wrong(place, format!("{value} is no length of time")))
        };
        let mut rules: Vec<Rule> = Vec::with_capacity(raw.rules.len());
        for rule in raw.rules {
            let rule = self::rule(rule)?;
            if rules.iter().any(|other| other.name == rule.name) {
                return Err(wrong(&format!("rule {}", rule.name), "a rule of this name is above: names are unique"));
            }
            rules.push(rule);
        }
        Ok(Policy {
            alpha: evaluator.alpha,
            beta: evaluator.beta,
            horizon: seconds("evaluator.horizon_s", evaluator.horizon_s)?,
            warm_up: seconds("evaluator.warmup_s", evaluator.warmup_s)?,
            min_stage: seconds("evaluator.min_stage_s", evaluator.min_stage_s)?,
            min_requests: evaluator.min_canary_requests,
            min_users: evaluator.min_canary_users,
            errors: statuses(&evaluator.error_statuses)?,
            comparator: Comparator::StableAndBaseline,
            rules,
        })
    }
}

fn statuses(raw: &[RawStatus]) -> Result<ErrorStatuses, PolicyFault> {
    let mut errors =
        ErrorStatuses { server: false, throttled: false, timeout: false, connect: false, codes: Vec::new() };
    for status in raw {
        let word = match status {
            RawStatus::Code(429) => "429",
            RawStatus::Code(code) => {
                errors.codes.push(*code);
                continue;
            }
            RawStatus::Word(word) => word.as_str(),
        };
        match word {
            "5xx" => errors.server = true,
            "429" => errors.throttled = true,
            "timeout" => errors.timeout = true,
            "connect" => errors.connect = true,
            other => match other.parse() {
                Ok(code) => errors.codes.push(code),
                Err(_) => {
                    let fault = format!("{other:?} is none of \"5xx\", \"429\", \"timeout\", \"connect\", or a status");
                    return Err(wrong("evaluator.error_statuses", fault));
                }
            },
        }
    }
    Ok(errors)
}

fn metric(name: &str) -> Option<Metric> {
    Some(match name {
        "error" => Metric::Errors,
        "timeout" => Metric::Timeout,
        "throttled" => Metric::Throttled,
        "client_error" => Metric::ClientError,
        "cut_stream" => Metric::CutStream,
        "latency_ms" => Metric::Latency,
        "ttft_ms" => Metric::Ttft,
        "tpot_ms" => Metric::Tpot,
        "tokens" => Metric::TokensOut,
        "cost" => Metric::Cost,
        "tool_error" => Metric::ToolError,
        "truncated" => Metric::Truncated,
        "refusal" => Metric::Refusal,
        "empty" => Metric::Empty,
        "regeneration" => Metric::Regeneration,
        "schema_invalid" => Metric::SchemaInvalid,
        "tool_call" => Metric::ToolCall,
        "quality" => Metric::Quality,
        "eval_pass" => Metric::EvalPass,
        "thumbs_down" => Metric::ThumbsDown,
        "escalation" => Metric::Escalation,
        "safety" => Metric::Safety,
        other if other.starts_with("not:") => Metric::Not(metric(other.strip_prefix("not:")?)?.into()),
        other if other.starts_with("tool:") => {
            let class = other.strip_prefix("tool:")?.parse().ok()?;
            Metric::Tool(Some(class).filter(|class| *class < TOOL_CLASSES)?)
        }
        other if other.starts_with("script:") => Metric::Script(other.strip_prefix("script:").and_then(Script::named)?),
        other => Metric::Score(other.strip_prefix("score:")?.into()),
    })
}

fn rule(raw: RawRule) -> Result<Rule, PolicyFault> {
    let place = format!("rule {}", raw.name);
    let metric = metric(&raw.metric).ok_or_else(|| wrong(&place, format!("{:?} is no metric", raw.metric)))?;
    let stat = match (raw.stat.as_str(), raw.q) {
        ("rate", None) => Stat::Rate,
        ("mean", None) => Stat::Mean,
        ("zero", None) => Stat::Zero,
        ("quantile", Some(q)) if q > 0.0 && q < 1.0 => Stat::Quantile(q),
        ("quantile", _) => return Err(wrong(&place, "a quantile needs q, above 0 and below 1")),
        ("rate" | "mean" | "zero", Some(_)) => return Err(wrong(&place, "q is for stat = \"quantile\" alone")),
        (other, _) => {
            return Err(wrong(&place, format!("stat {other:?} is none of rate, quantile, mean, zero")));
        }
    };
    let margin = |name: &str, value: Option<f64>| match (stat, value) {
        (Stat::Zero, _) => Ok(Margin::Absolute(0.0)),
        (_, None) => Err(wrong(&place, format!("{name} is missing"))),
        (Stat::Rate, Some(by)) if (0.0..1.0).contains(&by) => Ok(Margin::Absolute(by)),
        (Stat::Rate, Some(by)) => Err(wrong(&place, format!("{name} = {by} is no share: 0.005 is half a point"))),
        (_, Some(ratio)) if ratio > 0.0 && ratio.is_finite() => Ok(Margin::Relative(ratio)),
        (_, Some(ratio)) => Err(wrong(&place, format!("{name} = {ratio} is no ratio: 1.2 is 20 % more"))),
    };
    let (promote, rollback) = (margin("promote", raw.promote)?, margin("rollback", raw.rollback)?);
    let size = |margin: Margin| match margin {
        Margin::Absolute(size) | Margin::Relative(size) => size,
    };
    let (near, far) = (size(promote), size(rollback));
    let wider = match (stat, raw.direction) {
        (Stat::Zero, _) => true,
        (Stat::Rate, _) | (_, Direction::Higher) => far > near,
        (_, Direction::Lower) => far < near,
    };
    if !wider {
        return Err(wrong(&place, format!("rollback {far} must lie beyond promote {near}")));
    }
    let stale = Duration::try_from_secs_f64(raw.stale_s.unwrap_or(1_800.0));
    let mut rule = Rule::new(&raw.name, metric, stat, promote, rollback);
    rule.limit = raw.limit;
    rule.floor = raw.floor;
    rule.on = raw.on.unwrap_or_default();
    rule.direction = raw.direction;
    rule.hard = raw.hard;
    rule.required = raw.required.unwrap_or(true);
    rule.stale = stale.map_err(|_| wrong(&place, "stale_s is no length of time"))?;
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Policy::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn a_fault_names_its_place_and_what_would_be_right() {
        let head = "[[rule]]\nname = \"x\"\nmetric = \"error\"\nstat = \"rate\"\n";
        for (text, expect) in [
            ("[evaluator]\nalpha = 2.0", "evaluator.alpha: 2 is no chance"),
            ("[evaluator]\nerror_statuses = [\"6xx\"]", "\"6xx\" is none of"),
            (&format!("{head}promote = 0.1"), "rule x: rollback is missing"),
            (&format!("{head}promote = 0.1\nrollback = 0.05"), "rule x: rollback 0.05 must lie beyond promote 0.1"),
            (&format!("{head}promote = 0.1\nrollback = 0.2\nq = 0.5"), "q is for stat"),
            (&format!("{head}promote = 0.1\nrollback = 0.2\n{head}promote = 0.1\nrollback = 0.2"), "names are unique"),
            ("[evaluator]\nalfa = 1", "unknown field"),
        ] {
            let got = fault(text);
            assert!(got.contains(expect), "{text}: {got}");
        }
    }
}
