//! `/livez`, `/readyz`, `/metrics`: for kubelets and scrapers, without a token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::context::Context;
use super::metrics;
use crate::names::Arm;

/// A worker that is silent for so long hangs: two hundred sweeps have not come. Long, because the remedy cuts every
/// stream of the process.
const SILENCE: Duration = Duration::from_secs(10);

/// `GET /livez`: the process answers, and every worker is alive. It speaks for the data plane alone: a stale evaluator
/// alarms elsewhere and is no reason to be restarted.
pub async fn livez(State(cx): State<Context>) -> Response {
    let now = cx.parts().clock.now();
    match cx.parts().gauges.pulses.silences(now).max_by_key(|(_, silence)| *silence) {
        Some((worker, silence)) if silence > SILENCE => {
            let why = format!("not live: worker {worker} has been silent for {} s\n", silence.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
        _ => "ok\n".into_response(),
    }
}

/// `GET /readyz`: listeners are bound, nobody has said stop, and stable has an endpoint in use.
pub async fn readyz(State(cx): State<Context>) -> Response {
    match ready(&cx) {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

/// Whether traffic may be sent here. With several rollouts one whose stable is gone does not take the others down.
///
/// # Errors
/// Why not, for people.
pub fn ready(cx: &Context) -> Result<(), &'static str> {
    let gauges = &cx.parts().gauges;
    if gauges.draining.load(Ordering::Relaxed) {
        return Err("draining");
    }
    if !gauges.serving.load(Ordering::Relaxed) {
        return Err("the listeners are not bound yet");
    }
    let now = cx.parts().clock.now();
    let snapshot = cx.snapshot();
    let mut rollouts = snapshot.rollouts.iter().peekable();
    let any = rollouts.peek().is_none() || rollouts.any(|r| r.target(Arm::Stable).cluster.health_counts(now).0 > 0);
    if any { Ok(()) } else { Err("no endpoint of stable is in use") }
}

/// `GET /metrics`: Prometheus text.
pub async fn scrape(State(cx): State<Context>) -> Response {
    match metrics::text(&cx) {
        Ok(text) => {
            let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, media)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
