//! `GET /api/v1/rollouts/{name}/report`: the governance records of a rollout, rendered from the journal.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::auth::{Caller, READERS};
use super::context::Context;
use super::error::Problem;
use crate::journal::Broken;
use crate::names::RolloutName;
use crate::notify::heard::{self, Heard};
use crate::report::release::Moment;
use crate::report::{self, Book, Report, Told};

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    format: Format,
}

/// How it is rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Values.
    #[default]
    Json,
    /// Text with tables.
    Md,
    /// One page that needs nothing else.
    Html,
}

/// `GET /api/v1/rollouts/{name}/report?format=json|md|html`.
///
/// # Errors
/// 401, 403, 404, 422, 503.
pub async fn report(
    State(cx): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let Query(asked) =
        asked.map_err(|_| Problem::invalid("the query cannot be read", "ask with ?format=json, md or html"))?;
    let (journal, made_at) = (Arc::clone(&cx.parts().journal), cx.parts().clock.wall());
    let rollout = RolloutName::new(name.as_str());
    let outbox = cx.snapshot().config.store.as_ref().map(|store| store.path.join("outbox"));
    // Segments are read from the disk.
    let read = tokio::task::spawn_blocking(move || {
        let mut book = Book::new(rollout.clone());
        let summary = journal.visit(&mut |entry| book.take(entry))?;
        let report = book.close(&summary, made_at);
        // An outbox that cannot be read costs the record what it says of notices, and nothing else.
        let heard = outbox.and_then(|outbox| heard::read(&outbox, &rollout).ok());
        Ok::<Option<Report>, Broken>(report.map(|report| with_heard(report, heard)))
    });
    let read = read.await.map_err(|_| Problem::unavailable("the journal could not be read"))?;
    let report = read
        .map_err(|broken| Problem::unavailable(format!("the journal cannot be relied on: {broken}")))?
        .ok_or_else(|| Problem::not_found(format!("the journal has no record of {name:?}"), "start it first"))?;
    Ok(match asked.format {
        Format::Json => Json(report).into_response(),
        Format::Md => text("text/markdown; charset=utf-8", report::markdown::render(&report)),
        Format::Html => text("text/html; charset=utf-8", report::page::render(&report)),
    })
}

/// The report with what the outbox knows, where there is one.
#[must_use]
pub fn with_heard(report: Report, heard: Option<Vec<Heard>>) -> Report {
    let Some(heard) = heard else { return report };
    let told = heard.into_iter().map(|one| Told {
        n: None,
        generation: one.generation,
        kind: one.kind.as_str().to_owned(),
        to: one.target,
        at: Moment(one.at),
        result: one.result.map_or("waiting", |result| result.as_str()).to_owned(),
        attempts: one.attempts,
        why: one.why,
    });
    report.with_told(told.collect())
}

fn text(media: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], text).into_response()
}
