//! `POST /api/v1/feedback`: scores from outside, matched to an arm and posted to the judge.
//!
//! By request id the exchange itself is found (where exchanges are remembered), by unit the arm that the unit has now.
//! A version alone names no user, so it cannot be compared: it is shown (`GET /api/v1/feedback`) and never judged.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{Caller, READERS, REPORTERS};
use super::body::{self, Body};
use super::context::Context;
use super::error::Problem;
use super::which;
use crate::evaluator::mailbox::{Letter, Score};
use crate::evaluator::{Ask, Refused};
use crate::judge::{Fact, Metric};
use crate::names::{Arm, Mono, RolloutName};
use crate::snapshot::{Rollout, Snapshot};
use crate::split::Unit;

/// Scores that one request may carry.
const ITEMS_MAX: usize = 10_000;
/// The longest name of a metric.
const NAME_MAX: usize = 64;
/// Rollouts, versions and metrics that are shown apart.
const SHOWN_MAX: usize = 1_000;
/// How long an item waits for room in the mailbox, in all.
const ROOM: Duration = Duration::from_secs(1);

/// An exchange that was remembered by its request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its rollout.
    pub rollout: RolloutName,
    /// The arm that answered.
    pub arm: Arm,
    /// The unit's key in statistics; 0 is unidentified.
    pub user: u64,
    /// Placed by chance.
    pub drawn: bool,
    /// Arrival of the request.
    pub arrived: Mono,
}

/// Finds exchanges by request id.
pub trait Exchanges: Send + Sync {
    /// The exchange of that id; `None` when it is unknown or too old.
    fn find(&self, request_id: &str) -> Option<Exchange>;

    /// Whether exchanges are remembered at all.
    fn remembers(&self) -> bool {
        true
    }
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExchanges;

impl Exchanges for NoExchanges {
    fn find(&self, _: &str) -> Option<Exchange> {
        None
    }

    fn remembers(&self) -> bool {
        false
    }
}

/// One score, as it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    rollout: Option<String>,
    metric: String,
    value: f64,
    #[serde(default)]
    at: Option<jiff::Timestamp>,
}

#[derive(Debug, Serialize)]
struct Rejected {
    index: usize,
    reason: String,
}

/// Scores by version alone: shown, never judged.
#[derive(Debug, Default)]
pub struct Shown(Mutex<BTreeMap<(String, String, String), Tally>>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    sum: f64,
    last_ms: i64,
}

/// `POST /api/v1/feedback`.
///
/// # Errors
/// 400, 401, 403, 413; what is wrong with an item is said of the item.
pub async fn post(State(cx): State<Context>, caller: Caller, body: Body) -> Result<Response, Problem> {
    caller.need(REPORTERS)?;
    let items = match body::json::<Value>(&body::bytes(body)?)? {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    if items.is_empty() || items.len() > ITEMS_MAX {
        let detail = format!("{} scores were sent; 1 to {ITEMS_MAX} may be", items.len());
        return Err(Problem::invalid(detail, "send one object or an array of them"));
    }
    let snapshot = cx.snapshot();
    let deadline = tokio::time::Instant::now() + ROOM;
    let (mut accepted, mut rejected) = (0u64, Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let taken = match read(item).and_then(|item| place(&cx, &snapshot, item)) {
            Ok(Some(score)) => send(&cx, score, deadline).await,
            Ok(None) => Ok(()),
            Err(reason) => Err(reason),
        };
        match taken {
            Ok(()) => accepted += 1,
            Err(reason) => rejected.push(Rejected { index, reason }),
        }
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"accepted": accepted, "rejected": rejected}))).into_response())
}

/// `GET /api/v1/feedback`: scores that came by version alone.
///
/// # Errors
/// 401, 403.
pub async fn shown(State(cx): State<Context>, caller: Caller) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let all = cx.shown().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let items: Vec<_> = all
        .iter()
        .map(|((rollout, version, metric), tally)| {
            json!({
                "rollout": rollout, "version": version, "metric": metric, "count": tally.count,
                "mean": tally.sum / tally.count.max(1) as f64,
                "last_at": crate::names::Wall(tally.last_ms).rfc3339(), "judged": false,
            })
        })
        .collect();
    Ok(Json(json!({ "items": items })).into_response())
}

fn read(item: Value) -> Result<Item, String> {
    let item: Item = serde_json::from_value(item).map_err(|error| error.to_string())?;
    if !item.value.is_finite() {
        return Err("value is no number".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if item.metric.is_empty() || item.metric.len() > NAME_MAX || !item.metric.chars().all(plain) {
        return Err(format!("metric has 1 to {NAME_MAX} letters, digits, '_', '-' or '.'"));
    }
    Ok(item)
}

/// The metric that a name of feedback stands for; the name of its gate does as well.
fn metric(name: &str) -> Metric {
    match name {
        "quality" | "quality_mean" => Metric::Quality,
        "eval_pass" | "eval_pass_rate" => Metric::EvalPass,
        "thumbs_down" | "thumbs_down_rate" => Metric::ThumbsDown,
        "escalation" | "escalation_rate" => Metric::Escalation,
        "safety" | "safety_violations" => Metric::Safety,
        other => Metric::Score(other.into()),
    }
}

/// Matches a score to an arm; `None` when it is shown only.
fn place(cx: &Context, snapshot: &Snapshot, item: Item) -> Result<Option<Score>, String> {
    let clock = &cx.parts().clock;
    let known = clock.now();
    let ago = item.at.map_or(0, |at| clock.wall().0.saturating_sub(at.as_millisecond()).max(0));
    let arrived = Mono(known.0.saturating_sub(u64::try_from(ago).unwrap_or(0).saturating_mul(1_000_000)));
    let metric = metric(&item.metric);
    let score = |name: &RolloutName, arm, user, drawn, arrived| Score {
        rollout: name.clone(),
        fact: Fact::Score { arm, user, drawn, metric: metric.clone(), value: item.value, arrived, known },
    };
    if let Some(id) = &item.request_id {
        let exchanges = &cx.parts().exchanges;
        if !exchanges.remembers() {
            return Err("request ids are not remembered here: name the unit".to_owned());
        }
        let Some(seen) = exchanges.find(id) else {
            return Err("this request id is not known, or too old: name the unit".to_owned());
        };
        return Ok(Some(score(&seen.rollout, seen.arm, seen.user, seen.drawn, seen.arrived)));
    }
    if item.reference.is_some() {
        return Err("refs are not given out here yet: name the unit".to_owned());
    }
    let rollout = find(snapshot, item.rollout.as_deref())?;
    let name = &rollout.fixed.config.name;
    if let Some(text) = &item.unit {
        let unit = Unit::new(text.as_bytes()).ok_or("unit is empty")?;
        let place = which::place(rollout, text).ok_or("unit is empty")?;
        if rollout.split.latched {
            return Err("the rollout is latched: the unit's arm of before is not known".to_owned());
        }
        let user = unit.key(rollout.fixed.key_seed).0;
        return Ok(Some(score(name, place.arm, user, place.drawn, arrived)));
    }
    let version = item.version.as_deref().ok_or("one of request_id, ref, unit or version is needed")?;
    if !rollout.fixed.targets.iter().any(|target| target.version.as_str() == version) {
        return Err(format!("rollout {name} has no version of that name"));
    }
    show(cx, [name.as_str(), version, &item.metric], item.value)?;
    Ok(None)
}

fn find<'s>(snapshot: &'s Snapshot, name: Option<&str>) -> Result<&'s Rollout, String> {
    match (name, snapshot.rollouts.as_ref()) {
        (Some(name), _) => snapshot.rollout(name).map(|r| &**r).ok_or_else(|| "there is no such rollout".to_owned()),
        (None, [only]) => Ok(only),
        (None, _) => Err("rollout is needed where there is not exactly one".to_owned()),
    }
}

fn show(cx: &Context, [rollout, version, metric]: [&str; 3], value: f64) -> Result<(), String> {
    let mut all = cx.shown().0.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (rollout.to_owned(), version.to_owned(), metric.to_owned());
    if all.len() >= SHOWN_MAX && !all.contains_key(&key) {
        return Err(format!("{SHOWN_MAX} versions and metrics are shown already"));
    }
    let tally = all.entry(key).or_default();
    tally.count += 1;
    tally.sum += value;
    tally.last_ms = cx.parts().clock.wall().0;
    Ok(())
}

/// Posts a score, waiting a little for room: the evaluator empties its box in one turn.
async fn send(cx: &Context, score: Score, deadline: tokio::time::Instant) -> Result<(), String> {
    loop {
        let letter = Letter { ask: Ask::Score(score.clone()), answer: Box::new(|_| ()) };
        match cx.parts().mailbox.post(letter) {
            Ok(()) => return Ok(()),
            Err(Refused::Unavailable(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(refused) => return Err(refused.to_string()),
        }
    }
}
