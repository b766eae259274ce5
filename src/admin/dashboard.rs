//! The root page. (The dashboard proper lands here next.)

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;

use super::context::Context;

/// All of them.
pub fn routes() -> Router<Context> {
    Router::new().route("/", get(|| async { "serin admin API: GET /openapi.json describes it\n".into_response() }))
}
