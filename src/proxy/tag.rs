//! What a response carries: rollout, version, arm, why, the request's name, and where the time went.

use bytes::Bytes;
use http::header::HeaderMap;
use http::{HeaderValue, Response, Version};

use super::body::DownBody;
use super::headers::{
    Fields, Present, REQUEST_ID, SERIN_ARM, SERIN_REF, SERIN_ROLLOUT, SERIN_VERSION, SERIN_WHY, SERVER_TIMING,
    TRACEPARENT, VIA, via,
};
use super::worker::{Routed, Worker};
use crate::names::{Arm, Mono};
use crate::split::Choice;

/// The longest request id that is kept.
const ID_MOST: usize = 200;

/// The names of one request: the caller's, or fresh ones.
pub struct Ids {
    /// `x-request-id`.
    pub request_id: HeaderValue,
    /// The caller's own is in the head already.
    kept: bool,
    /// A fresh `traceparent`; `None` where the caller's stays.
    traceparent: Option<HeaderValue>,
}

impl Ids {
    /// Keeps what the caller sent where it is well formed and mints the rest, in one allocation.
    #[must_use]
    pub fn of(headers: &HeaderMap, present: Present, worker: &Worker) -> Self {
        let sent = if present.has(Present::REQUEST_ID) { headers.get(&REQUEST_ID) } else { None };
        let kept = sent.filter(|id| {
            !id.is_empty() && id.len() <= ID_MOST && id.as_bytes().iter().all(|b| matches!(b, 0x21..=0x7e))
        });
        let traced = present.has(Present::TRACEPARENT)
            && headers.get(&TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes()));
        if let (Some(id), true) = (kept, traced) {
            return Self { request_id: id.clone(), kept: true, traceparent: None };
        }
        let minted = mint(worker);
        let value = |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static("0"));
        Self {
            kept: kept.is_some(),
            request_id: kept.cloned().unwrap_or_else(|| value(minted.slice(3..35))),
            traceparent: (!traced).then(|| value(minted)),
        }
    }

    /// Takes off what the caller sent in their place and is not well formed.
    pub fn clean(&self, headers: &mut HeaderMap, present: Present) {
        if present.has(Present::REQUEST_ID) {
            if !self.kept {
                headers.remove(&REQUEST_ID);
            } else if headers.get_all(&REQUEST_ID).iter().nth(1).is_some() {
                headers.insert(REQUEST_ID.clone(), self.request_id.clone());
            }
        }
        if present.has(Present::TRACEPARENT) && self.traceparent.is_some() {
            headers.remove(&TRACEPARENT);
        }
    }

    /// Puts those that the head does not have on the way up.
    pub fn put(&self, out: &mut impl Fields) {
        if !self.kept {
            out.set(&REQUEST_ID, &self.request_id);
        }
        if let Some(traceparent) = &self.traceparent {
            out.set(&TRACEPARENT, traceparent);
        }
    }
}

/// Every byte as two hexadecimal digits.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// `00-<trace>-<span>-00` (W3C Trace Context, version 00); its trace id serves as the request id.
fn mint(worker: &Worker) -> Bytes {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let words = [worker.random(), worker.random(), worker.random() | 1];
    for (word, at) in words.into_iter().zip([3usize, 19, 36]) {
        for (two, byte) in text[at..at + 16].chunks_exact_mut(2).zip(word.to_be_bytes()) {
            two.copy_from_slice(&HEX[usize::from(byte)]);
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

/// Names rollout, version, arm and why on a response, and the request.
fn stamp(routed: &Routed, choice: Choice, request_id: &HeaderValue, out: &mut impl Fields) {
    let rollout = routed.rollout();
    if rollout.fixed.config.tag_responses {
        out.set(&SERIN_ROLLOUT, &rollout.fixed.name_header);
        out.set(&SERIN_VERSION, &rollout.target(choice.arm).version_header);
        out.set(&SERIN_ARM, arm(choice.arm));
        out.set(&SERIN_WHY, &HeaderValue::from_static(choice.why.as_str()));
    }
    out.set(&REQUEST_ID, request_id);
}

/// An arm as a field's value.
#[must_use]
pub fn arm(arm: Arm) -> &'static HeaderValue {
    static STABLE: HeaderValue = HeaderValue::from_static(Arm::Stable.as_str());
    static BASELINE: HeaderValue = HeaderValue::from_static(Arm::Baseline.as_str());
    static CANARY: HeaderValue = HeaderValue::from_static(Arm::Canary.as_str());
    match arm {
        Arm::Stable => &STABLE,
        Arm::Baseline => &BASELINE,
        Arm::Canary => &CANARY,
    }
}

/// Tags an error that serin made for a chosen arm.
#[must_use]
pub fn stamp_error(routed: &Routed, choice: Choice, ids: &Ids, mut response: Response<DownBody>) -> Response<DownBody> {
    stamp(routed, choice, &ids.request_id, response.headers_mut());
    response
}

/// What a version's answer gets on its way down; put on when its head is written.
pub struct Tags {
    /// The rollout.
    pub routed: Routed,
    /// Who answered, and why.
    pub choice: Choice,
    /// The request's name.
    pub request_id: HeaderValue,
    /// The request came.
    pub started: Mono,
    /// It went up.
    pub sent_at: Mono,
    /// The head of the answer came.
    pub answered_at: Mono,
    /// The version of HTTP that the answer came by.
    pub version: Version,
    /// What feedback may name the answer by, where it is on.
    pub reference: Option<HeaderValue>,
}

impl Tags {
    /// Puts the fields. `Server-Timing`: upstream's time to its head and serin's own, in milliseconds; appended to what
    /// upstream sent.
    pub fn put(&self, out: &mut impl Fields) {
        stamp(&self.routed, self.choice, &self.request_id, out);
        if let Some(reference) = &self.reference {
            out.set(&SERIN_REF, reference);
        }
        let us = |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let mut text = [0u8; TIMING_MOST];
        let mut at = 0;
        at = put(&mut text, at, b"upstream;dur=");
        at = put_ms(&mut text, at, us(self.answered_at.since(self.sent_at)));
        at = put(&mut text, at, b", serin;dur=");
        at = put_ms(&mut text, at, us(self.sent_at.since(self.started)));
        out.add(&SERVER_TIMING, &text[..at]);
        out.add(&VIA, via(self.version));
    }
}

/// The longest `Server-Timing` of ours.
const TIMING_MOST: usize = 80;

fn put(text: &mut [u8; TIMING_MOST], at: usize, bytes: &[u8]) -> usize {
    text[at..at + bytes.len()].copy_from_slice(bytes);
    at + bytes.len()
}

/// Microseconds as milliseconds with two places, rounded up.
fn put_ms(text: &mut [u8; TIMING_MOST], at: usize, us: u64) -> usize {
    let hundredths = us.div_ceil(10);
    let mut digits = [0u8; 20];
    let mut from = digits.len();
    let mut rest = hundredths / 100;
    loop {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let part = (hundredths % 100) as u8;
    let at = put(text, at, &digits[from..]);
    put(text, at, &[b'.', b'0' + part / 10, b'0' + part % 10])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_milliseconds() {
        for (us, expect) in [(0, "0.00"), (7, "0.01"), (181_200, "181.20"), (60_000_009, "60000.01")] {
            let mut text = [0u8; TIMING_MOST];
            let end = put_ms(&mut text, 0, us);
            assert_eq!(std::str::from_utf8(&text[..end]).unwrap(), expect);
        }
    }

    #[test]
    fn a_traceparent_is_kept_only_in_its_form() {
        assert!(is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!is_traceparent(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
        assert!(!is_traceparent(b"junk"));
    }
}
