//! The facts of one finished exchange, written once.

use super::answer::Answer;
use crate::judge::Outcome;

/// One finished exchange, as people count it. Times run from the arrival of the request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What became of it.
    pub outcome: Outcome,
    /// Status sent to the caller; `None` when none was.
    pub status: Option<u16>,
    /// Arrival to the last byte, the error or the drop, µs.
    pub total_us: u64,
    /// Arrival to upstream's response head, µs.
    pub ttfb_us: Option<u64>,
    /// Arrival to the first generated token, µs.
    pub ttft_us: Option<u64>,
    /// Per output token after the first, µs.
    pub tpot_us: Option<u64>,
    /// What the model said.
    pub answer: Answer,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            outcome: Outcome::Success,
            status: None,
            total_us: 0,
            ttfb_us: None,
            ttft_us: None,
            tpot_us: None,
            answer: Answer::default(),
        }
    }
}
