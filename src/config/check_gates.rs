//! Checks the evaluator's options, gates and their margins, and Prometheus queries; makes the policy.

use std::time::Duration;

use super::check::Check;
use super::duration::parse_duration;
use super::fault::{Place, nearest};
use super::model_rollout::{Evaluator, Query};
use super::raw;
use super::read::{At, Named, Scalar, Text};
use crate::judge::{Comparator, Direction, Margin, Metric, On, Policy, Rule, Stat, drift};

/// What a gate's fail does, by its word.
const ONS: [(&str, On); 3] = [("rollback", On::Rollback), ("step-back", On::StepBack), ("hold", On::Hold)];

/// All metrics of a gate but `score:NAME` and `prometheus:NAME`.
pub(crate) const METRICS: [&str; 29] = [
    "error_rate",
    "timeout_rate",
    "throttled_rate",
    "client_error_rate",
    "cut_stream_rate",
    "latency_p50",
    "latency_p95",
    "latency_p99",
    "ttft_p50",
    "ttft_p95",
    "ttft_p99",
    "tpot_p95",
    "tokens_out_mean",
    "cost_mean",
    "tool_error_rate",
    "truncated_rate",
    "refusal_rate",
    "empty_rate",
    "schema_invalid_rate",
    "regeneration_rate",
    "quality_mean",
    "eval_pass_rate",
    "thumbs_down_rate",
    "escalation_rate",
    "safety_violations",
    "drift_length",
    "drift_refusal",
    "drift_tools",
    "drift_language",
];

impl Check<'_, '_> {
    /// What is not part of the policy.
    pub(crate) fn evaluator(&mut self, raw: raw::Evaluator) -> Evaluator {
        let least = Duration::from_secs(1);
        Evaluator {
            enabled: raw.enabled.as_ref().is_none_or(|at| at.value),
            heartbeat_timeout: self.duration(raw.heartbeat_timeout.as_ref(), least, Duration::from_secs(10)),
            drill_every: self.duration_if(raw.drill_every.as_ref(), Duration::from_secs(60)),
        }
    }

    /// The policy: the evaluator's numbers and the gates of the file, or the default ones.
    pub(crate) fn policy(
        &mut self,
        evaluator: Option<&raw::Evaluator>,
        gates: Option<Named<raw::Gate>>,
        queries: &[Query],
        own_baseline: bool,
    ) -> Policy {
        let mut policy = Policy::default();
        if let Some(raw) = evaluator {
            policy.alpha = self.chance(raw.alpha.as_ref()).unwrap_or(policy.alpha);
            policy.beta = self.chance(raw.beta.as_ref()).unwrap_or(policy.beta);
            policy.warm_up = self.duration(raw.warm_up.as_ref(), Duration::ZERO, policy.warm_up);
            policy.horizon = self.duration(raw.horizon.as_ref(), Duration::from_secs(60), policy.horizon);
            if let Some(at) = &raw.min_users {
                if (0.0..=1e9).contains(&at.value) {
                    policy.min_users = at.value;
                } else {
                    self.sink.fault(&at.place, "is no number of users", "write 0 or more; 10 is usual");
                }
            }
        }
        if own_baseline {
            policy.comparator = Comparator::BaselineAlone;
        }
        let gates = gates.unwrap_or_default().0;
        if !gates.is_empty() {
            policy.rules = gates
                .into_iter()
                .flat_map(|(name, raw)| match drift::rules(&name.value) {
                    Some(rules) => self.drift(&name, &raw, rules),
                    None => self.gate(&name, &raw, queries).into_iter().collect(),
                })
                .collect();
        }
        policy.with_stall()
    }

    fn chance(&mut self, at: Option<&At<f64>>) -> Option<f64> {
        let at = at?;
        let good = at.value > 0.0 && at.value <= 0.5;
        if !good {
            self.sink.fault(
                &at.place,
                "is no chance of error",
                "write more than 0 and at most 0.5; 0.01 is one in a hundred",
            );
        }
        good.then_some(at.value)
    }

    fn gate(&mut self, name: &At<String>, raw: &raw::Gate, queries: &[Query]) -> Option<Rule> {
        let metric = name.value.as_str();
        let known = METRICS.contains(&metric) || metric.starts_with("score:") || metric.starts_with("prometheus:");
        let (Some(mut rule), true) = (Rule::gate(metric), known) else {
            let all = format!("there are {}, score:NAME and prometheus:NAME", METRICS.join(", "));
            let near = nearest(metric, METRICS).map(|near| format!("did you mean \"{near}\"?"));
            self.sink.fault(&name.place, "is no metric of a gate", near.unwrap_or(all));
            return None;
        };
        if let Metric::Score(score) = &rule.metric
            && score.is_empty()
        {
            self.sink.fault(&name.place, "does not say which score", "write score:NAME");
        }
        if let Metric::Prometheus(query) = &rule.metric {
            match queries.iter().find(|known| known.name == **query) {
                Some(known) => {
                    rule.stat = Stat::Breaches(known.for_);
                    rule.stale = known.stale;
                }
                None => {
                    let reason = format!("names the query \"{query}\", which there is not");
                    let remedy = format!("write [rollouts.NAME.queries.{query}] with url, stable and canary");
                    self.sink.fault(&name.place, reason, remedy);
                }
            }
        }
        self.direction(raw, &mut rule);
        self.margins(&name.value, raw, &mut rule);
        rule.limit = raw.limit.as_ref().and_then(|at| self.bound(at, &rule));
        rule.floor = raw.floor.as_ref().and_then(|at| self.bound(at, &rule));
        rule.on = self.choice(raw.on.as_ref(), &ONS, On::Rollback);
        rule.stale = self.duration(raw.stale.as_ref(), Duration::from_secs(1), rule.stale);
        Some(rule)
    }

    /// A gate of drift: its margins hold to either side, for each of its rules.
    fn drift(&mut self, name: &At<String>, raw: &raw::Gate, mut rules: Vec<Rule>) -> Vec<Rule> {
        let Some(mut first) = rules.first().cloned() else { return rules };
        let bounds = [raw.limit.as_ref().map(|at| &at.place), raw.floor.as_ref().map(|at| &at.place)];
        let times = [raw.stale.as_ref().map(|at| &at.place), raw.direction.as_ref().map(|at| &at.place)];
        for place in bounds.into_iter().chain(times).flatten() {
            self.sink.fault(place, "means nothing for drift, of which neither side is worse", "take it out");
        }
        self.margins(&name.value, raw, &mut first);
        for at in [&raw.promote, &raw.rollback].into_iter().flatten() {
            if first.stat == Stat::Rate && at.value.0.trim_end().ends_with('%') {
                self.sink.fault(&at.place, "is relative: shares are compared in percentage points", "write \"+10pp\"");
            }
        }
        let on = self.choice(raw.on.as_ref(), &ONS, On::Hold);
        for rule in &mut rules {
            let side = |margin| if rule.direction == Direction::Lower { drift::mirrored(margin) } else { margin };
            (rule.promote, rule.rollback, rule.on) = (side(first.promote), side(first.rollback), on);
        }
        rules
    }

    /// Which side is worse: for scores and queries the user's choice, for the rest the metric's nature.
    fn direction(&mut self, raw: &raw::Gate, rule: &mut Rule) {
        let Some(at) = &raw.direction else { return };
        if !matches!(rule.metric, Metric::Score(_) | Metric::Prometheus(_)) {
            self.sink.fault(
                &at.place,
                "is fixed for this metric",
                "take it out; only score:NAME and prometheus:NAME have one",
            );
            return;
        }
        let words = [("higher", Direction::Higher), ("lower", Direction::Lower)];
        let wanted = self.choice(Some(at), &words, rule.direction);
        if wanted != rule.direction {
            let mirror = |margin: Margin| match margin {
                Margin::Absolute(by) => Margin::Absolute(-by),
                Margin::Relative(ratio) => Margin::Relative(2.0 - ratio),
            };
            (rule.promote, rule.rollback) = (mirror(rule.promote), mirror(rule.rollback));
            rule.direction = wanted;
        }
    }

    fn margins(&mut self, name: &str, raw: &raw::Gate, rule: &mut Rule) {
        if rule.stat == Stat::Zero {
            if let Some(at) = raw.rollback.as_ref().filter(|at| at.value.0 != "any") {
                self.sink.fault(&at.place, "is no margin of a gate with zero tolerance", "write rollback = \"any\"");
            }
            if let Some(at) = &raw.promote {
                self.sink.fault(&at.place, "means nothing beside zero tolerance", "take it out");
            }
            for at in [&raw.limit, &raw.floor].into_iter().flatten() {
                self.sink.fault(&at.place, "means nothing beside zero tolerance", "take it out");
            }
            return;
        }
        let before = self.sink.count();
        let promote = raw.promote.as_ref().and_then(|at| self.margin(name, at, rule));
        let rollback = raw.rollback.as_ref().and_then(|at| self.margin(name, at, rule));
        if self.sink.count() > before {
            return;
        }
        // Where one margin is written alone, the other keeps the proportion of the defaults.
        let share = distance(rule.promote).1 / distance(rule.rollback).1;
        let (promote, rollback) = match (promote, rollback) {
            (None, None) => return,
            (Some(promote), Some(rollback)) => (promote, rollback),
            (None, Some(rollback)) => (scaled(rollback, share), rollback),
            (Some(promote), None) => (promote, scaled(promote, 1.0 / share)),
        };
        let place = raw.promote.as_ref().or(raw.rollback.as_ref()).map(|at| at.place.clone()).unwrap_or_default();
        let ((kind, near), (other, far)) = (distance(promote), distance(rollback));
        if kind != other {
            let remedy = "write both as \"+0.5pp\", both as \"+200ms\", or both as \"+50%\"";
            self.sink.fault(&place, "is of another kind than rollback, so that neither is surely the tighter", remedy);
        } else if near >= far {
            let shown = raw.rollback.as_ref().map(|at| at.value.0.clone()).unwrap_or_default();
            let reason = format!("is not tighter than rollback (\"{shown}\")");
            self.sink.fault(
                &place,
                reason,
                "promote is what is surely fine, rollback what is surely bad; between them lies doubt",
            );
        } else {
            (rule.promote, rule.rollback) = (promote, rollback);
        }
    }

    /// Reads `"+0.5pp"`, `"+200ms"` or `"+50%"` as a margin of this metric.
    fn margin(&mut self, name: &str, at: &At<Text>, rule: &Rule) -> Option<Margin> {
        // A pass rate is judged by its failures: less of it is more of them.
        let passes = rule.metric == Metric::EvalPass;
        let lower = passes || rule.direction == Direction::Lower;
        let form = match (rule.metric.unit(), lower) {
            _ if passes => "write \"-5pp\"",
            ("ratio", _) => "write \"+0.5pp\" or \"+50%\"",
            ("ms", _) => "write \"+200ms\" or \"+50%\"",
            (_, true) => "write \"-10%\"",
            (_, false) => "write \"+50%\"",
        };
        let text = at.value.0.trim();
        let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix(['-', '−'])) {
            (Some(rest), _) => (1.0, rest),
            (_, Some(rest)) => (-1.0, rest),
            _ => {
                let reason = if text == "any" { "is for safety_violations alone" } else { "has no sign" };
                self.sink.fault(&at.place, reason, form);
                return None;
            }
        };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let unit = rule.metric.unit();
        let margin = if let Some(points) = rest.strip_suffix("pp") {
            match number(points) {
                Some(_) if unit != "ratio" => Err(format!("counts percentage points, and {name} is no rate")),
                Some(points) => Ok(Margin::Absolute(if passes { -sign } else { sign } * points / 100.0)),
                None => Err("is no number of percentage points".to_owned()),
            }
        } else if let Some(percent) = rest.strip_suffix('%') {
            match number(percent) {
                Some(_) if passes => Err("is relative: a pass rate is judged in percentage points".to_owned()),
                Some(percent) if sign < 0.0 && percent >= 100.0 => Err("leaves nothing".to_owned()),
                Some(percent) => Ok(Margin::Relative(1.0 + sign * percent / 100.0)),
                None => Err("is no number of percent".to_owned()),
            }
        } else {
            match parse_duration(rest) {
                Ok(_) if unit != "ms" => Err(format!("is a time, and {name} is none")),
                Ok(time) => Ok(Margin::Absolute(sign * time.as_secs_f64() * 1e3)),
                Err(_) => Err("is no margin".to_owned()),
            }
        };
        let margin = match margin {
            Ok(_) if (sign < 0.0) != lower => {
                let side = if lower { "lower" } else { "higher" };
                Err(format!("points to the better side: {name} is worse when {side}"))
            }
            other => other,
        };
        match margin {
            Ok(margin) => Some(margin),
            Err(reason) => {
                self.sink.fault(&at.place, reason, form);
                None
            }
        }
    }

    /// Reads a limit or floor in the metric's own unit.
    fn bound(&mut self, at: &At<Scalar>, rule: &Rule) -> Option<f64> {
        if rule.stat == Stat::Zero {
            return None;
        }
        let percent =
            |text: &str| text.trim().strip_suffix('%').and_then(|t| t.trim().parse::<f64>().ok()).map(|p| p / 100.0);
        let unit = rule.metric.unit();
        let (value, form) = match (&at.value, unit) {
            (Scalar::Text(text), "ratio") => (percent(text), "write \"5%\""),
            (Scalar::Text(text), "ms") => (parse_duration(text).ok().map(|d| d.as_secs_f64() * 1e3), "write \"500ms\""),
            (Scalar::Number(number), "ratio") => (Some(*number), "write \"5%\" or 0.05"),
            (Scalar::Number(_), "ms") => (None, "write \"500ms\""),
            (Scalar::Text(text), _) => (text.trim().trim_start_matches('$').parse().ok(), "write a number"),
            (Scalar::Number(number), _) => (Some(*number), "write a number, 0 or more"),
        };
        let most = if matches!(unit, "ratio") { 1.0 } else { f64::MAX };
        let good = value.filter(|value| (0.0..=most).contains(value));
        if good.is_none() {
            self.sink.fault(&at.place, "is no value of this metric", form);
        }
        // A pass rate is judged by its failures.
        if rule.metric == Metric::EvalPass { good.map(|value| 1.0 - value) } else { good }
    }

    /// Prometheus queries.
    pub(crate) fn queries(&mut self, raw: Named<raw::Query>) -> Vec<Query> {
        raw.0.into_iter().filter_map(|(name, raw)| self.query(&name, raw)).collect()
    }

    fn query(&mut self, name: &At<String>, raw: raw::Query) -> Option<Query> {
        self.name(&name.place, &name.value);
        let url = match raw.url {
            Some(at) => {
                let text = at.value.0.expose();
                if !text.starts_with("http://") && !text.starts_with("https://") {
                    self.sink.fault(&at.place, "is no address of a server", "begin with http:// or https://");
                }
                Some(at.value.0)
            }
            None => {
                self.sink.missing(&raw.place, "url", "write the address of Prometheus");
                None
            }
        };
        let mut text = |at: Option<At<Text>>, key: &str, place: &Place| match at {
            Some(at) => self.filled(&at),
            None => {
                self.sink.missing(place, key, "write a PromQL expression");
                None
            }
        };
        let (stable, canary) = (text(raw.stable, "stable", &raw.place), text(raw.canary, "canary", &raw.place));
        let interval = self.duration(raw.interval.as_ref(), Duration::from_secs(1), Duration::from_secs(30));
        let stale = self.duration(raw.stale.as_ref(), Duration::from_secs(1), crate::judge::STALE);
        let for_ = u32::try_from(self.count(raw.r#for.as_ref(), 1, 1_000, 3)).unwrap_or(3);
        Some(Query { name: name.value.clone(), url: url?, stable: stable?, canary: canary?, interval, stale, for_ })
    }
}

/// The kind of a margin (true: absolute) and how far it lies from "equal".
fn distance(margin: Margin) -> (bool, f64) {
    match margin {
        Margin::Absolute(by) => (true, by.abs()),
        Margin::Relative(ratio) => (false, (ratio - 1.0).abs()),
    }
}

fn scaled(margin: Margin, by: f64) -> Margin {
    match margin {
        Margin::Absolute(distance) => Margin::Absolute(distance * by),
        Margin::Relative(ratio) => Margin::Relative((1.0 + (ratio - 1.0) * by).max(0.01)),
    }
}
