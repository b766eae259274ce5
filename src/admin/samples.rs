//! `GET /api/v1/samples`, and batches of samples pushed to a scorer: opt-in, bounded, on a thread of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::auth::{Caller, READERS};
use super::context::Context;
use super::error::Problem;
use super::fetch;
use crate::measure::{Sample, SampleStore};
use crate::snapshot::Live;

/// Samples of one answer, when the scorer does not say.
const LIMIT: usize = 100;
/// The most that it may ask for.
const LIMIT_MAX: usize = 1_000;
/// Samples of one push.
const BATCH: usize = 50;
/// A smaller batch is pushed after this long.
const PUSH_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for a scorer to take a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// The query of `GET /api/v1/samples`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    after: u64,
    rollout: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/samples?after=N&rollout=NAME&limit=N`: the oldest first.
///
/// # Errors
/// 401, 403, 404 where the rollout takes none, 422.
pub async fn samples(
    State(cx): State<Context>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let remedy = "ask as in ?after=41&rollout=chat&limit=100";
    let Query(asked) = asked.map_err(|_| Problem::invalid("the query cannot be read", remedy))?;
    let snapshot = cx.snapshot();
    let takes = |name: &str| snapshot.rollout(name).is_some_and(|r| r.fixed.config.samples.is_some());
    if let Some(name) = &asked.rollout {
        if snapshot.rollout(name).is_none() {
            return Err(Problem::no_rollout(name));
        }
        if !takes(name) {
            return Err(Problem::invalid(
                format!("rollout {name} takes no samples"),
                "write samples = { share = \"1%\" } into it",
            ));
        }
    }
    let limit = asked.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let items = cx.parts().samples.0.after(asked.after, asked.rollout.as_deref(), limit);
    let next = items.last().map_or(asked.after, |sample| sample.number);
    let items: Vec<&Sample> = items.iter().map(|sample| &**sample).collect();
    Ok(Json(json!({ "items": items, "next": next })).into_response())
}

/// Keeps what workers take, and pushes it where the rollout says so, until `stop`.
pub async fn run(mut taken: mpsc::Receiver<Sample>, live: Live, store: SampleStore, mut stop: watch::Receiver<bool>) {
    let mut batches: BTreeMap<String, Vec<Arc<Sample>>> = BTreeMap::new();
    let mut tick = tokio::time::interval(PUSH_EVERY);
    loop {
        let due = tokio::select! {
            _ = stop.changed() => return,
            sample = taken.recv() => {
                let Some(sample) = sample else { return };
                let snapshot = live.load();
                let terms = snapshot.rollout(&sample.rollout).and_then(|r| r.fixed.config.samples.clone());
                let Some(terms) = terms else { continue };
                let kept = store.keep(sample, terms.keep);
                if terms.push.is_none() {
                    continue;
                }
                let batch = batches.entry(kept.rollout.clone()).or_default();
                batch.push(kept);
                batch.len() >= BATCH
            }
            _ = tick.tick() => true,
        };
        if due {
            for (rollout, batch) in std::mem::take(&mut batches) {
                let snapshot = live.load();
                let terms = snapshot.rollout(&rollout).and_then(|r| r.fixed.config.samples.clone());
                let Some(url) = terms.and_then(|terms| terms.push) else { continue };
                push(&rollout, url.expose(), &batch).await;
            }
        }
    }
}

/// A batch that is not taken is lost to the scorer and stays to be asked for: a scorer that hangs delays nobody but itself.
async fn push(rollout: &str, url: &str, batch: &[Arc<Sample>]) {
    let items: Vec<&Sample> = batch.iter().map(|sample| &**sample).collect();
    let body = json!({ "rollout": rollout, "items": items }).to_string();
    let sent = tokio::time::timeout(PATIENCE, fetch::post(url, body)).await;
    let why = match sent {
        Ok(Ok(_)) => return,
        Ok(Err(why)) => why.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    // The address may hold a credential: it is not said.
    tracing::warn!(rollout.name = rollout, samples = batch.len(), error = why, "a scorer did not take its samples");
}
