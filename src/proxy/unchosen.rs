//! A request that ended before a version was chosen for it: counted once, under empty labels.

use http::StatusCode;

use super::error::ProxyError;
use super::worker::Worker;
use crate::measure::{Observation, Outcome, Recorder};
use crate::names::Mono;

/// Counted in flight until it is refused, gets its version, or is dropped because the caller left.
pub struct Unchosen<'a> {
    worker: &'a Worker,
    recorder: &'a Recorder,
    started: Mono,
    counted: bool,
}

impl<'a> Unchosen<'a> {
    /// Begins.
    #[must_use]
    pub fn begin(worker: &'a Worker, recorder: &'a Recorder, started: Mono) -> Self {
        recorder.start(worker.index);
        Self { worker, recorder, started, counted: false }
    }

    /// A version is chosen: its own recorder counts from here.
    pub fn chosen(mut self) {
        self.counted = true;
    }

    /// Answered by serin itself.
    pub fn answered(mut self, status: StatusCode) {
        self.count(Outcome::Success, Some(status.as_u16()));
    }

    /// Refused with `error`.
    pub fn refused(mut self, error: &ProxyError) {
        self.count(error.outcome(), Some(error.status().as_u16()));
    }

    fn count(&mut self, outcome: Outcome, status: Option<u16>) {
        self.counted = true;
        let total_us = u64::try_from(self.worker.clock.now().since(self.started).as_micros()).unwrap_or(u64::MAX);
        let observation = Observation { outcome, status, total_us, ..Observation::default() };
        self.recorder.observe(self.worker.index, &observation);
    }
}

impl Drop for Unchosen<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.count(Outcome::Cancelled, None);
        }
        self.recorder.end(self.worker.index);
    }
}
