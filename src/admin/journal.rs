//! `GET /api/v1/journal`: what was decided, by whom and why, in order.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Caller, READERS};
use super::context::Context;
use super::error::Problem;
use crate::journal::{Body, Entry};
use crate::rollout::Latch;

/// Entries in one answer when nobody says how many.
const LIMIT: usize = 100;
/// The most.
const LIMIT_MAX: usize = 1_000;

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    after: u64,
    limit: Option<usize>,
}

/// `GET /api/v1/journal?after=N&limit=M`: entries with numbers above N, the oldest first.
///
/// # Errors
/// 401, 403, 422.
pub async fn journal(
    State(cx): State<Context>,
    caller: Caller,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let remedy = "ask with ?after=N&limit=M, both whole numbers";
    let Query(asked) = asked.map_err(|_| Problem::invalid("the query cannot be read", remedy))?;
    let limit = asked.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let journal = Arc::clone(&cx.parts().journal);
    // Old entries are read from the disk.
    let entries = tokio::task::spawn_blocking(move || journal.after(asked.after, limit)).await;
    let entries = entries.map_err(|_| Problem::unavailable("the journal could not be read"))?;
    let items: Vec<_> = entries.iter().map(|entry| shown(entry)).collect();
    let last = cx.parts().journal.health().last;
    Ok(Json(json!({ "items": items, "last": last })).into_response())
}

/// An entry for people: without the state that a restart needs, times as RFC 3339.
fn shown(entry: &Entry) -> Value {
    let at = entry.at().rfc3339();
    let record = match &entry.body {
        Body::Record(record) => record,
        Body::Latch(latched) => {
            let Latch { actor, reason, .. } = &latched.latch;
            let rollout = latched.rollout.as_str();
            return json!({"n": entry.n, "at": at, "decision": "latch", "rollout": rollout, "actor": actor, "reason": reason});
        }
        Body::Checkpoint(_) => return json!({"n": entry.n, "at": at, "decision": "checkpoint"}),
        Body::Signature(signature) => {
            return json!({"n": entry.n, "at": at, "decision": "signature", "of": signature.of, "key": signature.key});
        }
    };
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("state");
        fields.insert("at".to_owned(), json!(at));
        fields.insert("n".to_owned(), json!(entry.n));
    }
    value
}
