//! PagerDuty Events v2: an incident for what must wake somebody, and its end.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::http::Call;
use super::message::Message;
use super::teller;
use crate::config::Notify;

/// The longest summary that PagerDuty takes.
const SUMMARY_MAX: usize = 1_024;

/// Whether this message begins or ends an incident.
#[must_use]
pub fn concerns(message: &Message) -> bool {
    message.raises.as_ref().is_some_and(|alert| alert.page) || message.clears.iter().any(|alert| alert.page)
}

/// The calls that tell `message`, in order: PagerDuty takes one event a call, and knows them by their key.
#[must_use]
pub fn calls(target: &Notify, message: &Message) -> Vec<Call> {
    let key = target.secret.as_ref().map_or("", |secret| secret.expose());
    let call = |event: Value| Call {
        url: target.url.clone(),
        headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body: Bytes::from(event.to_string()),
    };
    events(key, message).into_iter().map(call).collect()
}

/// The events of a message: ends first.
#[must_use]
pub fn events(routing_key: &str, message: &Message) -> Vec<Value> {
    let dedup = |key: &str| format!("serin/{key}");
    let ends =
        message.clears.iter().filter(|alert| alert.page).map(
            |alert| json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup(&alert.key)}),
        );
    let begins = message.raises.iter().filter(|alert| alert.page).map(|alert| {
        let mut details = serde_json::Map::new();
        details.insert("what".to_owned(), message.text.clone().into());
        for fact in &message.facts {
            details.insert(fact.name.clone(), fact.value.clone().into());
        }
        for gate in &message.gates {
            details.insert(gate.name.clone(), gate.sentence().into());
        }
        json!({
            "routing_key": routing_key,
            "event_action": "trigger",
            "dedup_key": dedup(&alert.key),
            "client": "serin",
            "payload": {
                "summary": format!("{}: {}", message.title, message.text).chars().take(SUMMARY_MAX).collect::<String>(),
                "source": "serin",
                "severity": message.severity.as_str(),
                "timestamp": message.at.rfc3339(),
                "component": teller::subject(message),
                "group": message.version,
                "class": message.kind.as_str(),
                "custom_details": details,
            },
        })
    });
    ends.chain(begins).collect()
}
