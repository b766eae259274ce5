//! The model's name put into a request body that is held: one value replaced, every other byte as it was.

use bytes::Bytes;

use crate::wire::edit::{self, Edit};

/// The body with its top-level `model` replaced (each, where it stands there twice); `None` where there is none, or it is no
/// JSON object.
#[must_use]
pub fn with_model(body: &Bytes, model: &str) -> Option<Bytes> {
    edit::whole(body, &[Edit::text(&["model"], model)]).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_replaced_and_the_rest_stays() {
        for (body, expect) in [
            (
                r#"{ "model" : "a", "messages":[{"model":"x"}], "n":1.50 }"#,
                Some(r#"{ "model" : "b\"2", "messages":[{"model":"x"}], "n":1.50 }"#),
            ),
            (r#"{"messages":[],"model":"long-name"}"#, Some(r#"{"messages":[],"model":"b\"2"}"#)),
            (r#"{"model":"a","model":"c"}"#, Some(r#"{"model":"b\"2","model":"b\"2"}"#)),
            (r#"{"messages":[]}"#, None),
            (r#"[1,2]"#, None),
            ("{\"model\":", None),
        ] {
            let got = with_model(&Bytes::from_static(body.as_bytes()), "b\"2");
            assert_eq!(got.as_deref(), expect.map(str::as_bytes), "{body}");
        }
    }
}
