//! `POST /api/v1/feedback`: scores from outside, matched to an answer's arm and posted to the judge.
//!
//! A `request_id` finds the exchange in the memory of the last day; a `ref` says by itself what it stands for, on any
//! replica; a `unit` stands for the arm that it had when it was served here, and one that was not served here is unknown:
//! units can be invented without end. A `version` alone names no user, so it cannot be compared: it is shown
//! (`GET /api/v1/feedback`) and never judged.
//!
//! Where stable answered in the canary's place (a fallback), the score is the canary's, as the failure is: what its people
//! got is what is compared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
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
use super::reports::Taken;
use super::which;
use crate::evaluator::mailbox::{Letter, Score};
use crate::evaluator::{Ask, Refused};
use crate::judge::{Fact, Metric};
use crate::measure::memory::{REMEMBERED, Seen};
use crate::measure::{Limit, References, Release};
use crate::names::{Arm, Mono, RolloutName};
use crate::snapshot::{Rollout, Snapshot};
use crate::split::Unit;

/// Scores that one request may carry.
const ITEMS_MAX: usize = 10_000;
/// The longest name of a metric.
const NAME_MAX: usize = 64;
/// Rollouts, versions and metrics that are shown apart.
const SHOWN_MAX: usize = 1_000;
/// How long scores wait for room in the mailbox.
const ROOM: Duration = Duration::from_secs(1);
/// How far a reporter's clock may be ahead of ours.
const AHEAD_MS: i64 = 5 * 60 * 1_000;
/// The oldest reference that is taken: evidence of earlier stages is behind it.
const REFERENCE_AGE: Duration = Duration::from_secs(7 * 86_400);
/// The largest score of any name.
const SCORE_MAX: f64 = 1e12;

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
    value: Value,
    #[serde(default)]
    at: Option<jiff::Timestamp>,
}

/// An item that is well formed.
struct Asked {
    item: Item,
    metric: Metric,
    value: f64,
    /// When the answer was asked for, as the reporter has it.
    at: Option<Mono>,
}

/// Why an item is not taken.
struct Not(Taken, String);

impl Not {
    fn unknown(why: impl Into<String>) -> Self {
        Self(Taken::Unknown, why.into())
    }

    fn invalid(why: impl Into<String>) -> Self {
        Self(Taken::Invalid, why.into())
    }
}

/// What an item names.
struct Named {
    rollout: RolloutName,
    release: Release,
    arm: Arm,
    user: u64,
    drawn: bool,
    arrived: Mono,
    /// What tells one answer from another; nothing where only the unit is named, and no time.
    once: Option<String>,
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
    let desk = Desk { cx: &cx, snapshot: cx.snapshot(), token: &caller.actor.name, now: cx.parts().clock.now() };
    let mut rejected = Vec::new();
    let (mut accepted, mut scores, mut placed) = (0u64, Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        match desk.take(item) {
            Ok(Some((score, once))) => {
                scores.push(score);
                placed.push((index, once));
            }
            Ok(None) => {
                cx.reports().count(Taken::Shown);
                accepted += 1;
            }
            Err(Not(taken, reason)) => {
                cx.reports().count(taken);
                rejected.push(Rejected { index, reason });
            }
        }
    }
    match send(&cx, scores).await {
        Ok(()) => {
            placed.iter().for_each(|_| cx.reports().count(Taken::Accepted));
            accepted += placed.len() as u64;
        }
        Err(reason) => {
            let mut memory = cx.parts().memory.lock();
            for (index, once) in placed {
                once.into_iter().for_each(|hash| memory.give_back(hash));
                cx.reports().count(Taken::Refused);
                rejected.push(Rejected { index, reason: reason.clone() });
            }
            rejected.sort_by_key(|item| item.index);
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

/// Where one reporter's items are looked at.
struct Desk<'a> {
    cx: &'a Context,
    snapshot: Arc<Snapshot>,
    token: &'a str,
    now: Mono,
}

impl Desk<'_> {
    /// One item: read, matched, bounded. `None` when it is shown only; else the score, and the hash that was taken for it.
    fn take(&self, item: Value) -> Result<Option<(Score, Option<u64>)>, Not> {
        let limits = &self.snapshot.config.limits;
        self.cx.reports().may_send(self.token, limits, self.now).map_err(|limit| self.limited(limit))?;
        let asked = self.read(item)?;
        let Some(named) = self.name(&asked)? else { return Ok(None) };
        let metric = asked.item.metric.as_str();
        let once = named
            .once
            .as_ref()
            .map(|once| self.references().id(format!("{}\n{metric}\n{once}", self.token).as_bytes()));
        if once.is_some_and(|hash| !self.cx.parts().memory.lock().take(hash, self.now)) {
            return Err(Not(Taken::Duplicate, "this score was taken before".to_owned()));
        }
        if named.user != 0 {
            let about = (self.token, named.release.number(), named.user, metric);
            self.cx.reports().may_judge(about, limits, self.now).map_err(|limit| self.limited(limit))?;
        }
        let Named { rollout, arm, user, drawn, arrived, .. } = named;
        let known = self.now;
        let fact = Fact::Score { arm, user, drawn, metric: asked.metric, value: asked.value, arrived, known };
        Ok(Some((Score { rollout, fact }, once)))
    }

    fn limited(&self, limit: Limit) -> Not {
        self.cx.parts().gauges.hit(limit);
        let why = match limit {
            Limit::FeedbackItems => "this token has sent limits.feedback_items in this minute",
            _ => "this token has said limits.feedback_per_user about this user and metric in this hour",
        };
        Not(Taken::Limited, why.to_owned())
    }

    fn references(&self) -> &References {
        &self.cx.parts().references
    }

    /// Reads an item; `at` a little ahead of this machine's clock is now.
    fn read(&self, item: Value) -> Result<Asked, Not> {
        let item: Item = serde_json::from_value(item).map_err(|error| Not::invalid(error.to_string()))?;
        let value = match &item.value {
            Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
            other => other.as_f64(),
        };
        let value = value.filter(|v| v.is_finite()).ok_or_else(|| Not::invalid("value is no number"))?;
        let name = item.metric.strip_prefix("score:").unwrap_or(&item.metric);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
            return Err(Not::invalid(format!("metric has 1 to {NAME_MAX} letters, digits, '_', '-' or '.'")));
        }
        let metric = metric(&item.metric);
        match metric {
            Metric::Score(_) if value.abs() > SCORE_MAX => {
                return Err(Not::invalid(format!("value is beyond {SCORE_MAX:e}")));
            }
            Metric::Score(_) => {}
            _ if !(0.0..=1.0).contains(&value) => {
                return Err(Not::invalid(format!("a value of {} is between 0 and 1", item.metric)));
            }
            _ => {}
        }
        let at = match item.at {
            None => None,
            Some(at) => {
                let ago = self.cx.parts().clock.wall().0.saturating_sub(at.as_millisecond());
                if ago < -AHEAD_MS {
                    return Err(Not::invalid("at lies in the future"));
                }
                let ago = Duration::from_millis(ago.max(0).unsigned_abs());
                if ago > REMEMBERED {
                    return Err(Not::unknown("at is more than 24 hours ago"));
                }
                Some(self.before(ago))
            }
        };
        Ok(Asked { item, metric, value, at })
    }

    fn before(&self, ago: Duration) -> Mono {
        Mono(self.now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Finds what an item names; `None` when it names a version alone, which is shown.
    fn name(&self, asked: &Asked) -> Result<Option<Named>, Not> {
        let item = &asked.item;
        if let Some(id) = &item.request_id {
            let hash = self.references().id(id.as_bytes());
            let seen = self.cx.parts().memory.lock().find(hash, self.now);
            let seen = seen.ok_or_else(|| {
                Not::unknown("this request id is not known, or too old, or not of this replica: name the ref")
            })?;
            let Seen { release, arm, user, drawn, arrived } = seen;
            let rollout = self.of_release(release, item)?;
            return Ok(Some(Named { rollout, release, arm, user, drawn, arrived, once: Some(format!("i{hash:x}")) }));
        }
        if let Some(text) = &item.reference {
            let mark = self
                .references()
                .open(text)
                .ok_or_else(|| Not::unknown("this ref was not made by this store or fleet"))?;
            let ago = self.cx.parts().clock.wall().0.saturating_sub(mark.at.0);
            let ago = Duration::from_millis(ago.max(0).unsigned_abs());
            if ago > REFERENCE_AGE {
                return Err(Not::unknown("this ref is more than 7 days old"));
            }
            let rollout = self.of_release(mark.release, item)?;
            let (arm, user, drawn, release) = (mark.arm, mark.user, mark.drawn, mark.release);
            let (arrived, once) = (self.before(ago), Some(format!("r{text}")));
            return Ok(Some(Named { rollout, release, arm, user, drawn, arrived, once }));
        }
        let rollout = find(&self.snapshot, item.rollout.as_deref())?;
        if let Some(text) = &item.unit {
            return self.of_unit(rollout, text, asked.at).map(Some);
        }
        let name = &rollout.fixed.config.name;
        let version = item.version.as_deref();
        let version = version.ok_or_else(|| Not::invalid("one of request_id, ref, unit or version is needed"))?;
        if !rollout.fixed.targets.iter().any(|target| target.version.as_str() == version) {
            return Err(Not::unknown(format!("rollout {name} has no version of that name")));
        }
        show(self.cx, [name.as_str(), version, &item.metric], asked.value)?;
        Ok(None)
    }

    /// The arm that the unit had when it was served. Only where there is no memory is it the one where it goes now.
    fn of_unit(&self, rollout: &Rollout, text: &str, at: Option<Mono>) -> Result<Named, Not> {
        let unit = Unit::new(text.as_bytes()).ok_or_else(|| Not::invalid("unit is empty"))?;
        let (fixed, when) = (&rollout.fixed, at.unwrap_or(self.now));
        let (release, user) = (fixed.marks.release, unit.key(fixed.key_seed).0);
        let (remembered, stranger) = {
            let mut memory = self.cx.parts().memory.lock();
            // A time before its first request here is a clock of the reporter's: the unit itself is known.
            (memory.arm_of(user, release, when), memory.is_on() && memory.arm_of(user, release, self.now).is_none())
        };
        let (arm, drawn) = match remembered {
            Some(seen) => seen,
            None if stranger => {
                return Err(Not::unknown(
                    "this unit was not served here in the last day: name the ref, or the request id",
                ));
            }
            None if rollout.split.latched => {
                return Err(Not::unknown("the rollout is latched, and this unit was not seen here before that"));
            }
            None => which::place(rollout, text)
                .map(|place| (place.arm, place.drawn))
                .ok_or_else(|| Not::invalid("unit is empty"))?,
        };
        let once = at.map(|at| format!("u{user:x}.{}", at.0 / 1_000_000));
        Ok(Named { rollout: fixed.config.name.clone(), release, arm, user, drawn, arrived: when, once })
    }

    fn of_release(&self, release: Release, item: &Item) -> Result<RolloutName, Not> {
        let rollout = self.snapshot.rollouts.iter().find(|rollout| rollout.fixed.marks.release == release);
        let over = "this answer belongs to a release that is over: nothing judges it any more";
        let name = &rollout.ok_or_else(|| Not::unknown(over))?.fixed.config.name;
        match &item.rollout {
            Some(named) if named != name.as_str() => Err(Not::invalid(format!("this answer is of rollout {name}"))),
            _ => Ok(name.clone()),
        }
    }
}

/// The metric that a name of feedback stands for; the name of its gate does as well.
fn metric(name: &str) -> Metric {
    match name {
        "quality" | "quality_mean" => Metric::Quality,
        "eval_pass" | "eval_pass_rate" => Metric::EvalPass,
        "thumbs_down" | "thumbs_down_rate" => Metric::ThumbsDown,
        "escalation" | "escalation_rate" => Metric::Escalation,
        "safety" | "safety_violations" => Metric::Safety,
        other => Metric::Score(other.strip_prefix("score:").unwrap_or(other).into()),
    }
}

fn find<'s>(snapshot: &'s Snapshot, name: Option<&str>) -> Result<&'s Rollout, Not> {
    match (name, snapshot.rollouts.as_ref()) {
        (Some(name), _) => snapshot.rollout(name).map(|r| &**r).ok_or_else(|| Not::unknown("there is no such rollout")),
        (None, [only]) => Ok(only),
        (None, _) => Err(Not::invalid("rollout is needed where there is not exactly one")),
    }
}

fn show(cx: &Context, [rollout, version, metric]: [&str; 3], value: f64) -> Result<(), Not> {
    let mut all = cx.shown().0.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (rollout.to_owned(), version.to_owned(), metric.to_owned());
    if all.len() >= SHOWN_MAX && !all.contains_key(&key) {
        return Err(Not(Taken::Limited, format!("{SHOWN_MAX} versions and metrics are shown already")));
    }
    let tally = all.entry(key).or_default();
    tally.count += 1;
    tally.sum += value;
    tally.last_ms = cx.parts().clock.wall().0;
    Ok(())
}

/// Posts scores in one letter, waiting a little for room.
async fn send(cx: &Context, scores: Vec<Score>) -> Result<(), String> {
    if scores.is_empty() {
        return Ok(());
    }
    let deadline = tokio::time::Instant::now() + ROOM;
    loop {
        let letter = Letter { ask: Ask::Scores(scores.clone()), answer: Box::new(|_| ()) };
        match cx.parts().mailbox.post(letter) {
            Ok(()) => return Ok(()),
            Err(Refused::Unavailable(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(refused) => return Err(refused.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::super::testing::{Bench, START, TOKENS, bench};
    use super::*;
    use crate::measure::Mark;
    use crate::measure::ring::Record;
    use crate::names::Wall;
    use crate::snapshot::{Latch, Runtime};

    /// The canary runs at 50 %; an hour has passed.
    fn running() -> Bench {
        let bench = bench("");
        bench.running(50.0);
        bench.clock.advance(Duration::from_secs(3_600));
        bench
    }

    fn release(bench: &Bench) -> Release {
        bench.cx.snapshot().rollouts[0].fixed.marks.release
    }

    fn user(bench: &Bench, unit: &str) -> u64 {
        Unit::new(unit.as_bytes()).unwrap().key(bench.cx.snapshot().rollouts[0].fixed.key_seed).0
    }

    /// The guard has seen this request of `unit` at `at_s`.
    fn served(bench: &Bench, id: &str, unit: &str, arm: Arm, at_s: u64) {
        let parts = bench.cx.parts();
        let fact = Fact::Start { id: 1, at: Mono(at_s * 1_000_000_000), arm, user: user(bench, unit), drawn: true };
        let record = Record { rollout: 0, request: parts.references.id(id.as_bytes()), fact };
        let release = release(bench);
        parts.memory.lock().take_in(&[record], |_| Some(release));
    }

    async fn post(bench: &Bench, items: Value) -> Value {
        let seen = bench.ask("POST", "/api/v1/feedback", &items.to_string()).await;
        assert_eq!(seen.status, StatusCode::ACCEPTED, "{}", seen.text);
        seen.json()
    }

    fn at(bench: &Bench, ago_s: i64) -> String {
        Wall(bench.clock.wall().0 - ago_s * 1_000).rfc3339()
    }

    /// Arm, user and arrival in seconds of every score in the box.
    fn taken(bench: &Bench) -> Vec<(Arm, u64, u64)> {
        let mut all = Vec::new();
        while let Ok(Some(letter)) = bench.inbox.lock().unwrap().next(Duration::ZERO) {
            let Ask::Scores(scores) = letter.ask else { panic!("not scores") };
            all.extend(scores.into_iter().map(|score| match score.fact {
                Fact::Score { arm, user, arrived, .. } => (arm, user, arrived.0 / 1_000_000_000),
                other => panic!("{other:?}"),
            }));
        }
        all
    }

    #[tokio::test]
    async fn a_score_by_request_id_is_charged_to_the_arm_that_answered_then() {
        let bench = running();
        served(&bench, "r1", "u", Arm::Canary, 100);
        served(&bench, "r2", "u", Arm::Stable, 200);
        let item = |id: &str| json!({"request_id": id, "metric": "quality", "value": 0.9});
        let said = post(&bench, json!([item("r1"), item("r2"), item("r3"), item("r1")])).await;
        assert_eq!(said["accepted"], 2, "{said}");
        let why: Vec<_> = said["rejected"].as_array().unwrap().iter().map(|r| r["index"].as_u64().unwrap()).collect();
        assert_eq!(why, [2, 3], "unknown, and a duplicate: {said}");
        let user = user(&bench, "u");
        assert_eq!(taken(&bench), [(Arm::Canary, user, 100), (Arm::Stable, user, 200)]);
        let other = json!({"request_id": "r2", "rollout": "mail", "metric": "tone", "value": 1});
        assert!(post(&bench, other).await["rejected"][0]["reason"].as_str().unwrap().contains("of rollout chat"));
        bench.clock.advance(Duration::from_secs(24 * 3_600));
        let late = post(&bench, json!({"request_id": "r1", "metric": "tone", "value": 1})).await;
        assert_eq!(late["accepted"], 0, "a day later it is forgotten");
    }

    #[tokio::test]
    async fn a_ref_needs_no_memory_and_no_rollout() {
        let bench = running();
        let mark = |arm, user, ago_s: i64| Mark {
            release: release(&bench),
            arm,
            drawn: true,
            user,
            at: Wall(bench.clock.wall().0 - ago_s * 1_000),
        };
        let sealed = |mark: &Mark| {
            let other_replica = References::new(b"secret");
            String::from_utf8(other_replica.seal(mark).unwrap().to_vec()).unwrap()
        };
        let item = |text: &str| json!({"ref": text, "metric": "thumbs_down", "value": true});
        let good = sealed(&mark(Arm::Canary, 77, 600));
        let strange = References::new(b"x").seal(&mark(Arm::Canary, 77, 600)).unwrap();
        let old = sealed(&mark(Arm::Canary, 77, 8 * 86_400));
        let over = sealed(&Mark { release: Release::new("chat", "before"), ..mark(Arm::Canary, 77, 600) });
        let strange = std::str::from_utf8(&strange).unwrap();
        let said = post(&bench, json!([item(&good), item(&good), item(strange), item(&old), item(&over)])).await;
        assert_eq!((&said["accepted"], said["rejected"].as_array().unwrap().len()), (&json!(1), 4), "{said}");
        assert_eq!(taken(&bench), [(Arm::Canary, 77, 3_000)]);
        for (at, word) in ["taken before", "not made by this", "7 days", "is over"].into_iter().enumerate() {
            assert!(said["rejected"][at]["reason"].as_str().unwrap().contains(word), "{said}");
        }
    }

    #[tokio::test]
    async fn a_latched_rollout_still_knows_whom_the_canary_served() {
        let bench = running();
        served(&bench, "r1", "bitten", Arm::Canary, 100);
        served(&bench, "r2", "spared", Arm::Stable, 100);
        bench.live.update_runtime("chat", |_| {
            let latch = Latch { at: START, actor: "breaker".to_owned(), reason: "it broke".to_owned() };
            Some(Runtime { latch: Some(Arc::new(latch)), ..Runtime::default() })
        });
        let item = |unit: &str, ago| json!({"unit": unit, "metric": "quality", "value": 0.1, "at": at(&bench, ago)});
        let all = json!([item("bitten", 0), item("spared", 0), item("stranger", 0)]);
        let said = post(&bench, all).await;
        assert_eq!((&said["accepted"], &said["rejected"][0]["index"]), (&json!(2), &json!(2)), "{said}");
        // After the latch he is served by stable; what he says of before is the canary's.
        served(&bench, "r3", "bitten", Arm::Stable, 3_000);
        post(&bench, json!([item("bitten", 1_800), item("bitten", 60)])).await;
        let arms: Vec<_> = taken(&bench).into_iter().map(|(arm, _, _)| arm).collect();
        assert_eq!(arms, [Arm::Canary, Arm::Stable, Arm::Canary, Arm::Stable]);
    }

    #[tokio::test]
    async fn one_token_cannot_say_without_end_about_one_user() {
        let bench = bench(TOKENS).with_token("reporter-secret-0123456789");
        bench.running(50.0);
        bench.clock.advance(Duration::from_secs(7_200));
        served(&bench, "r", "u", Arm::Canary, 100);
        let one = |n: i64| json!({"unit": "u", "metric": "quality", "value": 0, "at": at(&bench, n)});
        let said = post(&bench, (0..100).map(one).collect()).await;
        assert_eq!(said["accepted"], 60, "limits.feedback_per_user");
        assert!(said["rejected"][0]["reason"].as_str().unwrap().contains("feedback_per_user"));
        // Rejected, as nobody of them was ever served here; counted against the token all the same.
        let many: Vec<_> =
            (0..9_900).map(|n| json!({"unit": format!("v{n}"), "metric": "quality", "value": 0})).collect();
        for _ in 0..7 {
            assert_eq!(post(&bench, json!(many)).await["accepted"], 0);
        }
        let owner = Bench { token: Some("owner-secret-0123456789"), ..bench };
        assert_eq!(post(&owner, json!({"unit": "u", "metric": "quality", "value": 1})).await["accepted"], 1);
        let metrics = owner.ask("GET", "/metrics", "").await.text;
        for line in [
            "serin_limit_hits_total{limit=\"feedback_per_user\"} 40",
            "serin_limit_hits_total{limit=\"feedback_items\"} 9400",
            "serin_feedback_items_total{result=\"accepted\"} 61",
            "serin_feedback_items_total{result=\"unknown\"} 59900",
            "serin_feedback_items_total{result=\"limited\"} 9440",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
    }

    #[tokio::test]
    async fn a_reporter_who_invents_users_is_heard_by_no_judge() {
        let bench = running();
        served(&bench, "r", "real", Arm::Canary, 100);
        let item = |unit: String| json!({"unit": unit, "metric": "safety", "value": 1});
        let lies = post(&bench, (0..10_000).map(|n| item(format!("invented{n}"))).collect()).await;
        assert_eq!((&lies["accepted"], lies["rejected"].as_array().unwrap().len()), (&json!(0), 10_000));
        assert!(lies["rejected"][0]["reason"].as_str().unwrap().contains("not served here in the last day"));
        assert_eq!(taken(&bench), [], "no letter of them reaches the judge");
        assert_eq!(post(&bench, item("real".to_owned())).await["accepted"], 1);
        bench.clock.advance(Duration::from_secs(24 * 3_600));
        assert_eq!(post(&bench, item("real".to_owned())).await["accepted"], 0, "a day later he is forgotten");
    }

    #[tokio::test]
    async fn a_time_before_the_first_request_is_still_of_a_known_unit() {
        let bench = running();
        served(&bench, "r", "u", Arm::Canary, 3_000);
        let item = json!({"unit": "u", "metric": "quality", "value": 1, "at": at(&bench, 1_800)});
        assert_eq!(post(&bench, item).await["accepted"], 1);
    }

    #[tokio::test]
    async fn times_and_values_that_cannot_be_are_said() {
        let bench = running();
        served(&bench, "r", "u", Arm::Canary, 100);
        let item = |metric: &str, value: Value, ago| json!({"unit": "u", "metric": metric, "value": value, "at": at(&bench, ago)});
        let items = json!([
            item("quality", json!(0.5), -60),
            item("quality", json!(0.5), -301),
            item("quality", json!(0.5), 24 * 3_600 + 1),
            item("quality", json!(1.5), 0),
            item("safety", json!(-1), 0),
            item("score:tone", json!(-3.5), 0),
            item("tone", json!(1e13), 0),
            item("tone", json!("high"), 0),
            item("thumbs_down", json!(false), 0),
        ]);
        let said = post(&bench, items).await;
        let indices: Vec<_> =
            said["rejected"].as_array().unwrap().iter().map(|r| r["index"].as_u64().unwrap()).collect();
        assert_eq!(indices, [1, 2, 3, 4, 6, 7], "{said}");
    }

    #[tokio::test]
    async fn what_the_judge_had_no_room_for_may_be_sent_again() {
        let bench = running();
        served(&bench, "r1", "u", Arm::Canary, 100);
        let mailbox = &bench.cx.parts().mailbox;
        while mailbox.post(Letter { ask: Ask::Look, answer: Box::new(|_| ()) }).is_ok() {}
        tokio::time::pause();
        let item = json!({"request_id": "r1", "metric": "quality", "value": 1});
        let said = post(&bench, item.clone()).await;
        assert_eq!((&said["accepted"], &said["rejected"][0]["index"]), (&json!(0), &json!(0)), "{said}");
        while let Ok(Some(_)) = bench.inbox.lock().unwrap().next(Duration::ZERO) {}
        assert_eq!(post(&bench, item).await["accepted"], 1);
    }
}
