//! A CloudEvents 1.0 event in structured JSON, signed as Standard Webhooks are.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};

use super::http::Call;
use super::message::Message;
use super::{signature, teller};
use crate::config::Notify;
use crate::names::Wall;

/// The call that tells `message`.
#[must_use]
pub fn call(target: &Notify, message: &Message, now: Wall) -> Call {
    let body = event(message).to_string();
    let mut headers =
        vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json; charset=utf-8"))];
    let stamp = now.0.div_euclid(1_000);
    let mut add = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.push((HeaderName::from_static(name), value));
        }
    };
    add("webhook-id", message.id.clone());
    add("webhook-timestamp", stamp.to_string());
    if let Some(secret) = &target.secret {
        add("webhook-signature", signature::sign(secret, &message.id, stamp, body.as_bytes()));
    }
    Call { url: target.url.clone(), headers, body: Bytes::from(body) }
}

/// The event. `source` and `id` together are unique, as CloudEvents asks.
#[must_use]
pub fn event(message: &Message) -> Value {
    json!({
        "specversion": "1.0",
        "id": message.id,
        "source": "urn:serin",
        "type": format!("serin.{}", message.kind.as_str()),
        "subject": teller::subject(message),
        "time": message.at.rfc3339(),
        "datacontenttype": "application/json",
        "data": {
            "kind": message.kind,
            "severity": message.severity,
            "rollout": message.rollout,
            "version": message.version,
            "title": message.title,
            "text": message.text,
            "actor": message.actor,
            "weight": message.weight,
            "generation": message.generation,
            "facts": message.facts,
            "gates": message.gates,
            "raises": message.raises.as_ref().map(|alert| &alert.key),
            "clears": message.clears.iter().map(|alert| &alert.key).collect::<Vec<_>>(),
        },
    })
}
