//! Rollouts as people read them: the evaluator's board, with what the snapshot knows better.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answers::Reply;
use super::auth::{Caller, READERS};
use super::context::Context;
use super::error::Problem;
use crate::evaluator::RolloutView;
use crate::evaluator::view::{Arms, Exposed, LatchView};
use crate::names::Arm;
use crate::rollout::Phase;
use crate::snapshot::{self, Latch, Snapshot};
use crate::split::{OpenCohorts, Weight};

#[derive(Serialize)]
struct Items {
    items: Vec<Arc<RolloutView>>,
}

/// `GET /api/v1/rollouts`.
///
/// # Errors
/// 403.
pub async fn list(State(cx): State<Context>, caller: Caller) -> Result<Response, Problem> {
    caller.need(READERS)?;
    Ok(Json(Items { items: all(&cx) }).into_response())
}

/// `GET /api/v1/rollouts/{name}`.
///
/// # Errors
/// 403, 404.
pub async fn get(State(cx): State<Context>, caller: Caller, Path(name): Path<String>) -> Result<Reply, Problem> {
    caller.need(READERS)?;
    let view = one(&cx, &name).ok_or_else(|| Problem::no_rollout(&name))?;
    Ok(reply(&view))
}

/// The answer that shows a rollout.
#[must_use]
pub fn reply(view: &RolloutView) -> Reply {
    Reply::json(StatusCode::OK, view, Some(view.generation))
}

/// Every rollout of the configuration in force, in its order.
#[must_use]
pub fn all(cx: &Context) -> Vec<Arc<RolloutView>> {
    let snapshot = cx.snapshot();
    let posted = cx.parts().board.read();
    let seen = |rollout: &Arc<snapshot::Rollout>| {
        let name = rollout.fixed.config.name.as_str();
        let view = posted.rollouts.iter().find(|view| view.name == name);
        Arc::new(look(cx, rollout, view.map(|view| (**view).clone())))
    };
    snapshot.rollouts.iter().map(seen).collect()
}

/// One rollout of the configuration in force.
#[must_use]
pub fn one(cx: &Context, name: &str) -> Option<Arc<RolloutView>> {
    let snapshot = cx.snapshot();
    let rollout = snapshot.rollout(name)?;
    let view = cx.parts().board.rollout(name).map(|view| (*view).clone());
    Some(Arc::new(look(cx, rollout, view)))
}

/// Whether nothing of this rollout runs: an abort changes nothing then.
#[must_use]
pub fn nothing_runs(cx: &Context, snapshot: &Snapshot, name: &str) -> bool {
    let Some(rollout) = snapshot.rollout(name) else { return true };
    let runtime = &rollout.runtime;
    let no_traffic = runtime.latch.is_some() || (runtime.weight == Weight::ZERO && runtime.open == OpenCohorts::None);
    let phase = cx.parts().board.rollout(name).map(|view| view.phase);
    no_traffic && phase.is_none_or(|phase| phase == Phase::Idle.as_str() || phase == Phase::RolledBack.as_str())
}

/// A view with what the snapshot knows better than the board: the latch, and how old the heartbeat is.
fn look(cx: &Context, rollout: &snapshot::Rollout, view: Option<RolloutView>) -> RolloutView {
    let mut view = view.unwrap_or_else(|| unjudged(cx, rollout));
    view.heartbeat_age_s = cx.heartbeat_age().as_secs_f64();
    if let Some(latch) = rollout.runtime.latch.as_deref()
        && view.latch.is_none()
    {
        latched(&mut view, latch);
    }
    view
}

/// Shows a latch that the evaluator has not taken over yet.
fn latched(view: &mut RolloutView, latch: &Latch) {
    view.phase = Phase::RolledBack.as_str();
    view.why = format!("0 % and latched by {}: {}; not yet taken over by the evaluator", latch.actor, latch.reason);
    view.verdict = "rollback";
    view.weight = 0.0;
    view.stage = None;
    view.paused = None;
    view.soak_ends_at = None;
    view.allowed = vec!["clear"];
    view.latch = Some(LatchView { at: latch.at.rfc3339(), actor: latch.actor.clone(), reason: latch.reason.clone() });
}

/// A rollout that the evaluator has never posted, by what requests read of it.
fn unjudged(cx: &Context, rollout: &snapshot::Rollout) -> RolloutView {
    let runtime = &rollout.runtime;
    let runs = runtime.weight > Weight::ZERO || runtime.open != OpenCohorts::None;
    let phase = if runs { Phase::Running } else { Phase::Idle };
    let now = cx.parts().clock.now();
    let mut arms = Arms::default();
    for (arm, view) in
        [(Arm::Stable, &mut arms.stable), (Arm::Baseline, &mut arms.baseline), (Arm::Canary, &mut arms.canary)]
    {
        if arm == Arm::Canary && rollout.fixed.config.canary.is_none() {
            continue;
        }
        let target = rollout.target(arm);
        let (healthy, all) = target.cluster.health_counts(now);
        view.version = Some(target.version.to_string());
        view.endpoints = crate::evaluator::view::EndpointsView { healthy, all };
    }
    RolloutView {
        name: rollout.fixed.config.name.to_string(),
        phase: phase.as_str(),
        why: "the evaluator has not looked at it yet".to_owned(),
        verdict: "hold",
        verdict_reason: "nothing has been judged yet".to_owned(),
        generation: 0,
        weight: runtime.weight.percent(),
        weight_actual: None,
        stages: Vec::new(),
        stage: None,
        started_by: None,
        paused: None,
        soak_ends_at: None,
        next_version: None,
        latch: None,
        arms,
        gates: Vec::new(),
        exposed: Exposed::default(),
        drill: None,
        confirm: None,
        register: None,
        heartbeat_age_s: 0.0,
        allowed: if runs { vec!["abort"] } else { Vec::new() },
    }
}
