//! What a response carries: rollout, version, arm, why, the request's name, and where the time went.

use bytes::Bytes;
use http::header::HeaderMap;
use http::{HeaderValue, Response};

use super::body::DownBody;
use super::headers::{
    REQUEST_ID, SERIN_ARM, SERIN_REF, SERIN_ROLLOUT, SERIN_VERSION, SERIN_WHY, SERVER_TIMING, TRACEPARENT,
};
use super::worker::{Routed, Worker};
use crate::names::Mono;
use crate::split::Choice;

/// The longest request id that is kept.
const ID_MOST: usize = 200;

/// The names of one request: the caller's, or fresh ones.
pub struct Ids {
    /// `x-request-id`.
    pub request_id: HeaderValue,
    /// A fresh `traceparent`; `None` where the caller's stays.
    traceparent: Option<HeaderValue>,
}

impl Ids {
    /// Keeps what the caller sent where it is well formed and mints the rest, in one allocation.
    #[must_use]
    pub fn of(headers: &HeaderMap, worker: &Worker) -> Self {
        let kept = headers.get(&REQUEST_ID).filter(|id| {
            !id.is_empty() && id.len() <= ID_MOST && id.as_bytes().iter().all(|b| matches!(b, 0x21..=0x7e))
        });
        let traced = headers.get(&TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes()));
        if let (Some(id), true) = (kept, traced) {
            return Self { request_id: id.clone(), traceparent: None };
        }
        let minted = mint(worker);
        let value = |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static("0"));
        Self {
            request_id: kept.cloned().unwrap_or_else(|| value(minted.slice(3..35))),
            traceparent: (!traced).then(|| value(minted)),
        }
    }

    /// Puts them on the way up.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID.clone(), self.request_id.clone());
        if let Some(traceparent) = &self.traceparent {
            headers.insert(TRACEPARENT.clone(), traceparent.clone());
        }
    }
}

/// `00-<trace>-<span>-00` (W3C Trace Context, version 00); its trace id serves as the request id.
fn mint(worker: &Worker) -> Bytes {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let words = [worker.random(), worker.random(), worker.random() | 1];
    for (word, at) in words.into_iter().zip([3usize, 19, 36]) {
        for (i, byte) in text[at..at + 16].iter_mut().enumerate() {
            *byte = HEX[(word >> (60 - 4 * i)) as usize & 15];
        }
    }
    Bytes::copy_from_slice(&text)
}

fn is_traceparent(text: &[u8]) -> bool {
    text.len() >= 55
        && text[2] == b'-'
        && text[35] == b'-'
        && text[52] == b'-'
        && text[3..35].iter().any(|b| *b != b'0')
        && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Names rollout, version and arm on a response; what upstream says under those names is replaced.
pub fn stamp(routed: &Routed, choice: Choice, ids: &Ids, headers: &mut HeaderMap) {
    let rollout = routed.rollout();
    if rollout.fixed.config.tag_responses {
        let target = rollout.target(choice.arm);
        headers.insert(SERIN_ROLLOUT.clone(), rollout.fixed.name_header.clone());
        headers.insert(SERIN_VERSION.clone(), target.version_header.clone());
        headers.insert(SERIN_ARM.clone(), HeaderValue::from_static(choice.arm.as_str()));
        headers.insert(SERIN_WHY.clone(), HeaderValue::from_static(choice.why.as_str()));
    } else {
        for name in [&SERIN_ROLLOUT, &SERIN_VERSION, &SERIN_ARM, &SERIN_WHY] {
            headers.remove(name);
        }
    }
    headers.remove(&SERIN_REF);
    headers.insert(REQUEST_ID.clone(), ids.request_id.clone());
}

/// Tags an error that serin made for a chosen arm.
#[must_use]
pub fn stamp_error(routed: &Routed, choice: Choice, ids: &Ids, mut response: Response<DownBody>) -> Response<DownBody> {
    stamp(routed, choice, ids, response.headers_mut());
    response
}

/// `Server-Timing`: upstream's time to its head and serin's own, in milliseconds; appended to what upstream sent.
pub fn timing(headers: &mut HeaderMap, sent_at: Mono, started: Mono, now: Mono) {
    let upstream_us = now.since(sent_at).as_micros();
    let serin_us = sent_at.since(started).as_micros();
    let mut text = Vec::with_capacity(48);
    text.extend_from_slice(b"upstream;dur=");
    push_ms(&mut text, upstream_us);
    text.extend_from_slice(b", serin;dur=");
    push_ms(&mut text, serin_us);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        if headers.contains_key(&SERVER_TIMING) {
            headers.append(SERVER_TIMING.clone(), value);
        } else {
            headers.insert(SERVER_TIMING.clone(), value);
        }
    }
}

/// Microseconds as milliseconds with two places.
fn push_ms(text: &mut Vec<u8>, us: u128) {
    let hundredths = us.div_ceil(10);
    let (whole, part) = (hundredths / 100, (hundredths % 100) as u8);
    let mut digits = [0u8; 39];
    let mut at = digits.len();
    let mut rest = whole;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
    text.extend_from_slice(&[b'.', b'0' + part / 10, b'0' + part % 10]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_milliseconds() {
        for (us, expect) in [(0u128, "0.00"), (7, "0.01"), (181_200, "181.20"), (60_000_009, "60000.01")] {
            let mut text = Vec::new();
            push_ms(&mut text, us);
            assert_eq!(String::from_utf8(text).unwrap(), expect);
        }
    }

    #[test]
    fn a_traceparent_is_kept_only_in_its_form() {
        assert!(is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!is_traceparent(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
        assert!(!is_traceparent(b"junk"));
    }
}
