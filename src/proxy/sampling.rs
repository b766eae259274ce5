//! An exchange that is a sample, from its request to its end. Nothing of it is there for one that is none.

use super::peek::Peeked;
use super::worker::{Routed, Worker};
use crate::config::SampleText;
use crate::measure::sample::{Sample, is_sample, kept_text};
use crate::measure::{Mark, Observation};
use crate::wire::Transcript;

/// A sample in the making.
pub struct Sampling {
    request: (Vec<u8>, bool),
    /// What the answer says, written by its reader.
    transcript: Option<Transcript>,
}

/// Whether the exchange of this request id is a sample of this rollout.
#[must_use]
pub fn wanted(routed: &Routed, request_id: &[u8]) -> bool {
    let fixed = &routed.rollout().fixed;
    let Some(terms) = &fixed.config.samples else { return false };
    is_sample(terms, fixed.marks.references.id(request_id))
}

/// Whether its request body must be looked at.
#[must_use]
pub fn wants_text(routed: &Routed) -> bool {
    routed.rollout().fixed.config.samples.as_ref().is_some_and(|terms| terms.text != SampleText::None)
}

impl Sampling {
    /// Begins with as much of the request as was looked at.
    #[must_use]
    pub fn new(routed: &Routed, peeked: Option<&Peeked>) -> Option<Box<Self>> {
        let terms = routed.rollout().fixed.config.samples.as_ref()?;
        let text = terms.text != SampleText::None;
        let (mut request, mut cut) = (Vec::new(), false);
        if let Some(peeked) = peeked.filter(|_| text) {
            for chunk in &peeked.chunks {
                let room = terms.bytes.saturating_sub(request.len());
                request.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
            }
            cut = !peeked.whole || request.len() < peeked.bytes;
        }
        Some(Box::new(Self { request: (request, cut), transcript: text.then(|| Transcript::new(terms.bytes)) }))
    }

    /// What the reader of the answer writes into.
    #[must_use]
    pub fn transcript(&self) -> Option<Transcript> {
        self.transcript.clone()
    }

    /// The exchange has ended: the sample goes its way, or finds no room.
    pub fn finish(self, worker: &Worker, routed: &Routed, mark: &Mark, seen: &Observation) {
        let rollout = routed.rollout();
        let Some((terms, sender)) = rollout.fixed.config.samples.as_ref().zip(worker.samples.as_ref()) else { return };
        let reference = rollout.fixed.marks.references.seal(mark);
        let (answer, full) = self.transcript.map(|text| text.take()).unwrap_or_default();
        sender.send(Sample {
            number: 0,
            at: mark.at.rfc3339(),
            rollout: rollout.fixed.config.name.to_string(),
            version: rollout.target(mark.arm).version.to_string(),
            arm: mark.arm.as_str(),
            r#ref: reference.map(|text| String::from_utf8_lossy(&text).into_owned()),
            outcome: seen.outcome.as_str(),
            status: seen.status,
            total_ms: seen.total_us as f64 / 1e3,
            ttft_ms: seen.ttft_us.map(|us| us as f64 / 1e3),
            tokens: [seen.answer.tokens[0], seen.answer.tokens[1]],
            cost_usd: seen.answer.cost_nano as f64 / 1e9,
            request: kept_text(terms, &self.request.0, self.request.1),
            answer: kept_text(terms, &answer, full),
        });
    }
}
