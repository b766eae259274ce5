//! Reading what a change carries: JSON bodies, `If-Match`, durations.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::error::Problem;

/// The body of a request, or why there is none.
pub type Body = Result<Bytes, BytesRejection>;

/// The bytes of a body.
///
/// # Errors
/// 413 when it is larger than the route takes, 400 when it broke off.
pub fn bytes(body: Body) -> Result<Bytes, Problem> {
    body.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::other(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large", "send less at once")
        } else {
            Problem::malformed("the body could not be read", "send it again")
        }
    })
}

/// The JSON of a body; an empty body is `T`'s default.
///
/// # Errors
/// 400 when it is no JSON, 422 when it is other JSON than asked for.
pub fn json<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        let remedy = "GET /openapi.json describes the body";
        if error.is_data() {
            Problem::invalid(format!("the body is not what is asked for: {error}"), remedy)
        } else {
            Problem::malformed(format!("the body is no JSON: {error}"), remedy)
        }
    })
}

/// The generation in `If-Match`; none, or `*`, asks for none.
///
/// # Errors
/// 422 when it is no generation.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    if text == "*" {
        return Ok(None);
    }
    let bare = text.trim_start_matches("W/").trim_matches('"');
    bare.parse().map(Some).map_err(|_| {
        Problem::invalid("If-Match is no generation", "send the rollout's generation, as in If-Match: \"41\"")
    })
}

/// A duration as people write it: "24h", "90s", "2d".
///
/// # Errors
/// 422.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let wrong =
        || Problem::invalid(format!("{text:?} is no duration"), "write it as \"90s\", \"30m\", \"24h\" or \"2d\"");
    crate::config::duration::parse_duration(text).ok().filter(|d| !d.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("24h", 86_400), ("90s", 90), ("2d", 172_800), ("1h 30m", 5_400), ("30m", 1_800)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "0s", "-1h", "soon", "12"] {
            assert_eq!(duration(text).unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
        }
    }

    #[test]
    fn a_generation_is_read_in_every_form_of_etag() {
        for (text, expect) in [("\"41\"", Some(41)), ("41", Some(41)), ("W/\"41\"", Some(41)), ("*", None)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, text.parse().unwrap());
            assert_eq!(if_match(&headers).unwrap(), expect, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, "\"abc\"".parse().unwrap());
        assert!(if_match(&headers).is_err());
    }
}
