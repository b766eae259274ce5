//! Alertmanager's API v2: what is wrong fires, is said again while it lasts, and is resolved.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::http::Call;
use super::message::{Alert, Message};
use super::teller;
use crate::config::{Notify, Secret};
use crate::names::Wall;

/// How long an alert stands that is not said again: some of [`super::lane::REFRESH`].
const STANDS_MS: i64 = 5 * 60_000;
/// Where alerts are posted.
const PATH: &str = "/api/v2/alerts";

/// Whether this message begins or ends an alert.
#[must_use]
pub fn concerns(message: &Message) -> bool {
    message.raises.is_some() || !message.clears.is_empty()
}

/// The call that says these alerts.
#[must_use]
pub fn call(target: &Notify, alerts: Vec<Value>) -> Call {
    let base = target.url.expose().trim_end_matches('/');
    let url = if base.ends_with(PATH) { target.url.clone() } else { Secret::new(format!("{base}{PATH}")) };
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let bearer = target.secret.as_ref().map(|secret| format!("Bearer {}", secret.expose()));
    if let Some(Ok(bearer)) = bearer.map(HeaderValue::try_from) {
        headers.push((header::AUTHORIZATION, bearer));
    }
    Call { url, headers, body: Bytes::from(Value::from(alerts).to_string()) }
}

/// What a message begins and ends.
#[must_use]
pub fn alerts(message: &Message, now: Wall) -> Vec<Value> {
    let ended = message
        .clears
        .iter()
        .map(|alert| json!({"labels": labels(alert, teller::subject(message)), "endsAt": now.rfc3339()}));
    ended.chain(firing(message, now)).collect()
}

/// The alert that a message has raised, for as long as it stands.
#[must_use]
pub fn firing(message: &Message, now: Wall) -> Option<Value> {
    let alert = message.raises.as_ref()?;
    let gates: Vec<String> = message.gates.iter().map(|g| format!("{}: {}", g.name, g.sentence())).collect();
    Some(json!({
        "labels": labels(alert, teller::subject(message)),
        "annotations": {
            "summary": message.title,
            "description": message.text,
            "severity": message.severity,
            "gates": gates.join("\n"),
        },
        "startsAt": message.at.rfc3339(),
        "endsAt": Wall(now.0.saturating_add(STANDS_MS)).rfc3339(),
    }))
}

/// What an alert is known by: the same when it begins and when it ends.
fn labels(alert: &Alert, subject: &str) -> BTreeMap<&'static str, String> {
    let mut parts = alert.key.rsplitn(3, '/').collect::<Vec<_>>();
    parts.reverse();
    let (name, gate) = match parts.as_slice() {
        [_, "limit", gate] => ("SerinNearsRollbackLimit", Some(*gate)),
        [.., "rollback"] => ("SerinRolledBack", None),
        [.., "deadline"] => ("SerinDeadlinePassed", None),
        _ => ("SerinJudgeSilent", None),
    };
    let mut labels = BTreeMap::from([("alertname", name.to_owned()), ("service", "serin".to_owned())]);
    if subject != "serin" {
        labels.insert("rollout", subject.to_owned());
    }
    if let Some(gate) = gate {
        labels.insert("gate", gate.to_owned());
    }
    labels
}
