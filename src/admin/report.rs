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
use crate::report::{self, Book, Report};

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
    // Segments are read from the disk.
    let read = tokio::task::spawn_blocking(move || {
        let mut book = Book::new(rollout);
        let summary = journal.visit(&mut |entry| book.take(entry))?;
        Ok::<Option<Report>, Broken>(book.close(&summary, made_at))
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

fn text(media: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], text).into_response()
}
