//! `Serin-Ref` on an answer: the sealed reference by which feedback may name it on any replica.

use http::HeaderValue;

use super::exchange::Exchange;
use super::worker::Routed;
use crate::names::Mono;

/// The reference, where the rollout's feedback is on. Also where `tag_responses` is off: it does not show the arm.
#[must_use]
pub fn reference(routed: &Routed, exchange: &Exchange, now: Mono) -> Option<HeaderValue> {
    let marks = &routed.rollout().fixed.marks;
    let text = if marks.seals { marks.references.seal(&exchange.mark(now))? } else { return None };
    HeaderValue::from_bytes(&text).ok()
}
