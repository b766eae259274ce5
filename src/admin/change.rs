//! Changes: verbs and weights, posted to the evaluator; the abort that works without it; the reload.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::answers::{Reply, Turn};
use super::auth::{Caller, RELOADERS};
use super::body::{self, Body};
use super::context::Context;
use super::error::Problem;
use super::rollouts;
use crate::evaluator::effects::RECORD_PATIENCE;
use crate::evaluator::{Ask, Command, Letter, RolloutView, record_latches};
use crate::journal::Full;
use crate::names::RolloutName;
use crate::rollout::{Actor, Verb, VerbArgs};
use crate::snapshot::Latch;
use crate::split::Weight;

/// How long an abort waits for the evaluator's word; the weight is 0 before that.
const ABORT_WAIT: Duration = Duration::from_secs(2);
/// How long every other change waits: a rise is durable before it is answered, and a disk may be slow.
const CHANGE_WAIT: Duration = Duration::from_secs(15);
/// The longest reason.
const REASON_MAX: usize = 2_000;

/// The body of a verb.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VerbBody {
    reason: String,
    full: bool,
    by: Option<String>,
}

/// The body of `PUT weight`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WeightBody {
    weight: Option<f64>,
    reason: String,
}

/// `POST /api/v1/rollouts/{name}/{verb}`.
///
/// # Errors
/// Every refusal of the interface: 401, 403, 404, 409, 412, 422, 503.
pub async fn verb(
    State(cx): State<Context>,
    caller: Caller,
    Path((name, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Reply, Problem> {
    let body = body::bytes(body)?;
    let known = Verb::NAMES.contains(&verb.as_str()) && verb != "set weight";
    if !known {
        let verbs: Vec<_> = Verb::NAMES.into_iter().filter(|name| *name != "set weight").collect();
        let detail = format!("{verb:?} is no verb");
        return Err(Problem::not_found(detail, format!("the verbs are: {}", verbs.join(", "))));
    }
    let place = format!("{verb} {name}");
    once(&cx, &caller.actor, &place, &headers, &body, async {
        let given: VerbBody = body::json(&body)?;
        let by = given.by.as_deref().map(body::duration).transpose()?;
        let args = VerbArgs { full: given.full, by, weight: None };
        let verb = Verb::parse(&verb, args).map_err(|why| Problem::invalid(why, "add it to the body"))?;
        change(&cx, &caller, &name, verb, given.reason, body::if_match(&headers)?).await
    })
    .await
}

/// `PUT /api/v1/rollouts/{name}/weight`.
///
/// # Errors
/// As [`verb`].
pub async fn weight(
    State(cx): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Reply, Problem> {
    let body = body::bytes(body)?;
    let place = format!("set weight {name}");
    once(&cx, &caller.actor, &place, &headers, &body, async {
        let given: WeightBody = body::json(&body)?;
        let remedy = "send {\"weight\": 5.0, \"reason\": \"…\"}: a percentage in steps of 0.001";
        let percent = given.weight.ok_or_else(|| Problem::invalid("the body names no weight", remedy))?;
        let weight = Weight::from_percent(percent).map_err(|why| Problem::invalid(why.to_string(), remedy))?;
        change(&cx, &caller, &name, Verb::SetWeight(weight), given.reason, body::if_match(&headers)?).await
    })
    .await
}

/// `POST /api/v1/reload`.
///
/// # Errors
/// 401, 403; 422 with every fault of the file.
pub async fn reload(State(cx): State<Context>, caller: Caller) -> Result<Response, Problem> {
    caller.need(RELOADERS)?;
    let reload = Arc::clone(&cx.parts().reload);
    let done = tokio::task::spawn_blocking(move || reload()).await;
    match done {
        Ok(Ok(())) => {
            let generation = cx.snapshot().generation;
            let body = json!({"successful": true, "generation": generation});
            Ok(Reply::json(StatusCode::OK, &body, None).into_response())
        }
        Ok(Err(faults)) => Err(Problem::invalid(faults, "correct the file; the old configuration stays in force")),
        Err(_) => Err(Problem::unavailable("the reload did not end in good order")),
    }
}

/// Runs a change once for each `Idempotency-Key`.
pub(super) async fn once(
    cx: &Context,
    actor: &Actor,
    place: &str,
    headers: &HeaderMap,
    body: &[u8],
    act: impl Future<Output = Result<Reply, Problem>>,
) -> Result<Reply, Problem> {
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            Some(value.to_str().map_err(|_| Problem::invalid("Idempotency-Key is not plain text", "send a UUID"))?)
        }
    };
    match cx.answers().turn(&actor.name, place, key, body)? {
        Turn::Again(reply) => Ok(reply),
        Turn::First(pending) => {
            let result = act.await;
            let reply = match &result {
                Ok(reply) => reply.clone(),
                Err(problem) => Reply { status: problem.status, body: problem.body().into(), generation: None },
            };
            pending.keep(&reply);
            result
        }
    }
}

/// Asks the evaluator for a change and answers with the rollout after it.
pub(super) async fn change(
    cx: &Context,
    caller: &Caller,
    name: &str,
    verb: Verb,
    reason: String,
    if_match: Option<u64>,
) -> Result<Reply, Problem> {
    caller.may(verb)?;
    if reason.chars().count() > REASON_MAX {
        return Err(Problem::invalid(format!("a reason has {REASON_MAX} characters at most"), "shorten it"));
    }
    let snapshot = cx.snapshot();
    let Some(rollout) = snapshot.rollout(name) else { return Err(Problem::no_rollout(name)) };
    let rollout = rollout.fixed.config.name.clone();
    let command = Command { rollout, verb, actor: caller.actor.clone(), reason, if_match };
    if verb == Verb::Abort {
        return abort(cx, command).await.map(|view| rollouts::reply(&view));
    }
    if cx.is_stale(&snapshot, &command.rollout) {
        let age = cx.heartbeat_age().as_secs();
        return Err(Problem::unavailable(format!("the evaluator has been silent for {age} s: nothing rises")));
    }
    match post(cx, command, CHANGE_WAIT).await {
        Some(answer) => answer.map(|view| rollouts::reply(&view)),
        None => Err(Problem::unavailable(
            "the evaluator did not answer in time; the change may still come about: read the rollout again",
        )),
    }
}

/// 0 and latched, at once and by ourselves; then the evaluator is told, so that it is recorded.
async fn abort(cx: &Context, command: Command) -> Result<Arc<RolloutView>, Problem> {
    let name = command.rollout.as_str().to_owned();
    let newest = || rollouts::one(cx, &name).ok_or_else(|| Problem::no_rollout(&name));
    let before = newest()?;
    if let Some(seen) = command.if_match.filter(|seen| *seen != before.generation) {
        tracing::debug!(rollout.name = %name, seen, "abort with a stale If-Match refused");
        return Err(Problem::changed(before.generation));
    }
    let snapshot = cx.snapshot();
    if rollouts::nothing_runs(cx, &snapshot, &name) {
        // Perhaps because of a latch of this very moment.
        (cx.parts().settle)().await;
        return Ok(before);
    }
    let recorded = latch(cx, &command);
    let stale = cx.is_stale(&snapshot, &command.rollout);
    // Our own latch may already have moved the generation on, so it is not asked for again.
    let command = Command { if_match: None, ..command };
    let wait = if stale { Duration::ZERO } else { ABORT_WAIT };
    // An acknowledged kill means: no later canary head, and none after a crash, unless the disk hangs. Workers, evaluator and
    // journal work on it at the same time.
    let (answer, (), ()) = tokio::join!(post(cx, command, wait), (cx.parts().settle)(), recorded);
    match answer {
        Some(Ok(view)) if view.latch.is_some() => Ok(view),
        // Refused because somebody else latched it meanwhile, or silent: the snapshot says how it stands.
        _ => newest(),
    }
}

/// The rollout, and what runs of its group. What it returns ends when that is durable, or has been waited for enough: the
/// judge may be silent, and the process may end before it speaks again.
fn latch(cx: &Context, command: &Command) -> impl Future<Output = ()> + use<> {
    let reason = if command.reason.is_empty() { "aborted by a person" } else { command.reason.as_str() };
    let at = cx.parts().clock.wall();
    let latch = Arc::new(Latch { at, actor: command.actor.name.clone(), reason: reason.to_owned() });
    let fell = cx.parts().live.fall(command.rollout.as_str(), &latch);
    tracing::warn!(
        rollout.name = %command.rollout, actor = %command.actor.name, reason,
        "aborted: the canary's weight is 0 and latched"
    );
    let (say, durable) = oneshot::channel();
    let fell_here = !fell.is_empty();
    let done = Box::new(move |result| drop(say.send(result)));
    let queued = record_latches(&cx.parts().journal, fell, Some(done));
    let rollout = command.rollout.clone();
    async move {
        let word = match queued {
            Ok(()) if !fell_here => return,
            Ok(()) => tokio::time::timeout(RECORD_PATIENCE, durable).await,
            Err(Full) => {
                tracing::error!(rollout.name = %rollout, "the abort is in force and not recorded: the journal's queue is full");
                return;
            }
        };
        if !matches!(word, Ok(Ok(Ok(_)))) {
            tracing::error!(rollout.name = %rollout, "the abort is in force and its record waits: the disk hangs or refuses it");
        }
    }
}

/// Posts a command and waits for its answer; `None` when none came in time.
async fn post(cx: &Context, command: Command, wait: Duration) -> Option<Result<Arc<RolloutView>, Problem>> {
    let (sender, receiver) = oneshot::channel();
    let rollout: RolloutName = command.rollout.clone();
    let letter = Letter {
        ask: Ask::Command(command),
        // A receiver that is gone has given up waiting; the change stands all the same.
        answer: Box::new(move |answer| drop(sender.send(answer))),
    };
    if let Err(refused) = cx.parts().mailbox.post(letter) {
        return Some(Err(refused.into()));
    }
    match tokio::time::timeout(wait, receiver).await {
        Ok(Ok(answer)) => Some(answer.map_err(Problem::from)),
        Ok(Err(_)) => Some(Err(Problem::unavailable(format!("the evaluator dropped a command for {rollout}")))),
        Err(_) => None,
    }
}
