//! What a version puts into request bodies: a model's name, a system prompt, values of its own; by what the request is.

use std::sync::Arc;

use super::dialect;
use super::edit::Edit;
use super::facts::{Dialect, Protocol};

/// The edits of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Of every request.
    plain: Arc<[Edit]>,
    /// Of requests that carry a system prompt, each dialect in its own place.
    chat: Arc<[Edit]>,
    responses: Arc<[Edit]>,
    messages: Arc<[Edit]>,
}

impl Rewrite {
    /// Puts in the model's name where there is one, sets these values, and gives chats this system prompt.
    #[must_use]
    pub fn new(model: Option<&str>, system: Option<&str>, values: &[(Vec<String>, serde_json::Value)]) -> Rewrite {
        let model = model.map(|model| Edit::text(&["model"], model));
        let values = values.iter().map(|(path, value)| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            Edit::set(&path, value)
        });
        let plain: Vec<Edit> = model.into_iter().chain(values).collect();
        let with = |edit: Option<Edit>| plain.iter().cloned().chain(edit).collect();
        let message = |text: &str| serde_json::json!({"role": "system", "content": text});
        Rewrite {
            chat: with(system.map(|text| Edit::lead(&["messages"], &message(text)))),
            responses: with(system.map(|text| Edit::set(&["instructions"], &text.into()))),
            messages: with(system.map(|text| Edit::set(&["system"], &text.into()))),
            plain: plain.into(),
        }
    }

    /// The edits of a request for this path; `None` where it goes up as it is.
    #[must_use]
    pub fn edits(&self, protocol: Protocol, path: &str) -> Option<&Arc<[Edit]>> {
        let edits = match dialect::by_path(protocol, path) {
            Dialect::Chat => &self.chat,
            Dialect::Responses => &self.responses,
            Dialect::Messages => &self.messages,
            _ => &self.plain,
        };
        (!edits.is_empty()).then_some(edits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit;
    use super::*;

    #[test]
    fn a_system_prompt_goes_where_its_dialect_has_it() {
        let values = [(vec!["prompt".to_owned(), "version".to_owned()], "7".into())];
        let rewrite = Rewrite::new(Some("b"), Some("Be brief."), &values);
        for (path, body, expect) in [
            (
                "/v1/chat/completions",
                r#"{"model":"a","messages":[{"role":"user"}]}"#,
                r#"{"model":"b","messages":[{"content":"Be brief.","role":"system"},{"role":"user"}]}"#,
            ),
            (
                "/v1/responses",
                r#"{"model":"a","prompt":{"id":"p"}}"#,
                r#"{"model":"b","prompt":{"id":"p","version":"7"},"instructions":"Be brief."}"#,
            ),
            ("/v1/messages", r#"{"system":"Be long.","messages":[]}"#, r#"{"system":"Be brief.","messages":[]}"#),
            ("/v1/embeddings", r#"{"model":"a","input":""}"#, r#"{"model":"b","input":""}"#),
        ] {
            let edits = rewrite.edits(Protocol::Auto, path).unwrap();
            let out = edit::whole(body.as_bytes(), edits).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        }
        let only_system = Rewrite::new(None, Some("Be brief."), &[]);
        assert_eq!(only_system.edits(Protocol::Auto, "/v1/embeddings"), None);
    }
}
