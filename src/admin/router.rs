//! Which path leads to which handler.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post, put};

use super::context::Context;
use super::error::Problem;
use super::{
    auth, change, dashboard, events, feedback, journal, openapi, probe, register, report, rollouts, samples, triggers,
    which,
};

/// Most bytes of a change's body.
const BODY_MAX: usize = 64 << 10;
/// Most bytes of a feedback's body.
const FEEDBACK_MAX: usize = 2 << 20;

/// Every route, as the description must name them.
pub const ROUTES: [(&str, &str); 26] = [
    ("get", "/api/v1/samples"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/api/v1/rollouts"),
    ("get", "/api/v1/rollouts/{name}"),
    ("get", "/api/v1/rollouts/{name}/which"),
    ("get", "/api/v1/rollouts/{name}/report"),
    ("get", "/api/v1/rollouts/{name}/register"),
    ("put", "/api/v1/rollouts/{name}/register"),
    ("put", "/api/v1/rollouts/{name}/weight"),
    ("post", "/api/v1/rollouts/{name}/{verb}"),
    ("get", "/api/v1/events"),
    ("get", "/api/v1/journal"),
    ("get", "/api/v1/feedback"),
    ("post", "/api/v1/feedback"),
    ("post", "/api/v1/reload"),
    ("post", "/api/v1/triggers/alertmanager"),
    ("post", "/api/v1/triggers/generic"),
    ("get", "/"),
    ("get", "/dashboard/rollouts"),
    ("get", "/dashboard/style.css"),
    ("get", "/dashboard/app.js"),
    ("post", "/login"),
    ("post", "/logout"),
];

/// The whole admin side: API, probes, metrics, dashboard.
pub fn router(cx: Context) -> Router {
    let feedback = get(feedback::shown).post(feedback::post).layer(DefaultBodyLimit::max(FEEDBACK_MAX));
    Router::new()
        .route("/api/v1/rollouts", get(rollouts::list))
        .route("/api/v1/rollouts/{name}", get(rollouts::get))
        .route("/api/v1/rollouts/{name}/which", get(which::which))
        .route("/api/v1/rollouts/{name}/report", get(report::report))
        .route("/api/v1/rollouts/{name}/register", get(register::show).put(register::put))
        .route("/api/v1/rollouts/{name}/weight", put(change::weight))
        .route("/api/v1/rollouts/{name}/{verb}", post(change::verb))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/feedback", feedback)
        .route("/api/v1/journal", get(journal::journal))
        .route("/api/v1/samples", get(samples::samples))
        .route("/api/v1/reload", post(change::reload))
        .route("/api/v1/triggers/alertmanager", post(triggers::alertmanager))
        .route("/api/v1/triggers/generic", post(triggers::generic))
        .route("/openapi.json", get(openapi::openapi))
        .merge(dashboard::routes())
        .merge(probes())
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(cx.clone(), auth::guard))
        .layer(middleware::map_response(careful))
        .with_state(cx)
}

/// Probes and metrics alone, for kubelets and Prometheus.
pub fn probes_router(cx: Context) -> Router {
    probes().fallback(no_route).method_not_allowed_fallback(wrong_method).with_state(cx)
}

fn probes() -> Router<Context> {
    Router::new()
        .route("/livez", get(probe::livez))
        .route("/readyz", get(probe::readyz))
        .route("/metrics", get(probe::scrape))
}

async fn no_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(format!("nothing is at {path}"), "GET /openapi.json lists what there is")
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("{path} does not take {method}");
    Problem::other(StatusCode::METHOD_NOT_ALLOWED, "method", detail, "GET /openapi.json lists what there is")
}

/// Headers that every answer carries.
async fn careful(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not "no-referrer": a browser then sends "Origin: null" with the log-in, which is refused.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}
