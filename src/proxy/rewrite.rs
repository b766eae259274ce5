//! The model's name put into a request body: one value replaced, every other byte as it was.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

/// The body with its top-level `model` replaced; `None` where there is none, or it is no JSON object.
#[must_use]
pub fn with_model(body: &Bytes, model: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let place = place_of_model(text)?;
    let name = serde_json::to_string(model).ok()?;
    let mut out = Vec::with_capacity(body.len() + name.len());
    out.extend_from_slice(text.get(..place.start)?.as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(text.get(place.end..)?.as_bytes());
    Some(Bytes::from(out))
}

fn place_of_model(text: &str) -> Option<Range<usize>> {
    let value = serde_json::from_str::<Named<'_>>(text).ok()?.model?.get();
    let start = value.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    Some(start..start + value.len())
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
            (r#"{"messages":[]}"#, None),
            (r#"[1,2]"#, None),
            ("{\"model\":", None),
        ] {
            let got = with_model(&Bytes::from_static(body.as_bytes()), "b\"2");
            assert_eq!(got.as_deref(), expect.map(str::as_bytes), "{body}");
        }
    }
}
