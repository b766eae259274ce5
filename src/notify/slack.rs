//! Slack's incoming webhook: blocks that a tired person understands.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::http::Call;
use super::message::{Kind, Message, Severity};
use crate::config::Notify;

/// The longest header, section and field that Slack takes, and the most fields of a section.
const HEADER_MAX: usize = 150;
const SECTION_MAX: usize = 3_000;
const FIELD_MAX: usize = 2_000;
const FIELDS_MAX: usize = 10;

/// The call that tells `message`.
#[must_use]
pub fn call(target: &Notify, message: &Message) -> Call {
    let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Call { url: target.url.clone(), headers, body: Bytes::from(blocks(message).to_string()) }
}

/// The message in Slack's blocks. `text` is what a notification on a locked screen shows.
#[must_use]
pub fn blocks(message: &Message) -> Value {
    let title = format!("{} {}", sign(message), message.title);
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&title, HEADER_MAX), "emoji": true}}),
        json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(&safe(&message.text), SECTION_MAX)}}),
    ];
    let field = |name: &str, value: &str| json!({"type": "mrkdwn", "text": cut(&format!("*{}*\n{}", safe(name), safe(value)), FIELD_MAX)});
    let facts = message.facts.iter().map(|fact| field(&fact.name, &fact.value));
    let gates = message.gates.iter().map(|gate| field(&gate.name, &gate.sentence()));
    let fields: Vec<Value> = facts.chain(gates).collect();
    blocks.extend(fields.chunks(FIELDS_MAX).take(4).map(|some| json!({"type": "section", "fields": some})));
    let from = format!("{} · {} · by {}", message.at.rfc3339(), message.kind.as_str(), safe(&message.actor));
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": cut(&from, FIELD_MAX)}]}));
    json!({"text": cut(&safe(&title), SECTION_MAX), "blocks": blocks})
}

fn sign(message: &Message) -> &'static str {
    match (message.kind, message.severity) {
        (Kind::Rollback | Kind::Aborted, _) => "⏪",
        (_, Severity::Critical | Severity::Error) => "🚨",
        (_, Severity::Warning) => "⚠️",
        (Kind::Approval, _) => "✋",
        (Kind::Completed | Kind::Cleared, _) => "✅",
        _ => "🚦",
    }
}

/// Slack's three signs with a meaning, taken as they stand.
fn safe(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::Fact;
    use crate::notify::testing::message;

    #[test]
    fn blocks_stay_within_slacks_bounds_and_mean_nothing_more_than_they_say() {
        let mut long = message("a", Kind::Rollback);
        long.title = "é".repeat(400);
        long.text = "<!channel> & ".repeat(400);
        long.facts = (0..60).map(|n| Fact::new(&format!("fact {n}"), "x".repeat(3_000))).collect();
        let json = blocks(&long);
        let all = json["blocks"].as_array().unwrap();
        assert!(all.len() <= 50);
        assert_eq!(all[0]["text"]["text"].as_str().unwrap().chars().count(), HEADER_MAX);
        let text = all[1]["text"]["text"].as_str().unwrap();
        assert!(
            text.chars().count() <= SECTION_MAX && !text.contains("<!channel>") && text.starts_with("&lt;!channel")
        );
        for section in &all[2..all.len() - 1] {
            let fields = section["fields"].as_array().unwrap();
            assert!(fields.len() <= FIELDS_MAX);
            assert!(fields.iter().all(|f| f["text"].as_str().unwrap().chars().count() <= FIELD_MAX));
        }
    }
}
