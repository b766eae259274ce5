//! The workers' signs of life: each writes the time at its sweep, `/livez` and the scrape read it.
//!
//! A worker that hangs answers nobody on its connections, and nobody else notices: the process lives, the acceptor hands
//! it connections, the judge sees silence.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::names::Mono;

/// What a worker writes that has ended as it was told to.
const AT_REST: u64 = u64::MAX;

/// When each worker last showed itself. One writer each, relaxed: nothing else hangs on it.
#[derive(Debug, Default)]
pub struct Pulses(Box<[AtomicU64]>);

impl Pulses {
    /// Of so many workers, all alive at `now`.
    #[must_use]
    pub fn new(workers: usize, now: Mono) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(now.0)).collect())
    }

    /// A worker is alive.
    pub fn beat(&self, worker: usize, now: Mono) {
        self.write(worker, now.0);
    }

    /// A worker has served its last connection: it is silent from now on, as it should be.
    pub fn rest(&self, worker: usize) {
        self.write(worker, AT_REST);
    }

    fn write(&self, worker: usize, at: u64) {
        if let Some(pulse) = self.0.get(worker) {
            pulse.store(at, Ordering::Relaxed);
        }
    }

    /// How long each worker has been silent, by its number; those at rest are left out.
    pub fn silences(&self, now: Mono) -> impl Iterator<Item = (usize, Duration)> {
        let each = self.0.iter().map(|pulse| pulse.load(Ordering::Relaxed)).enumerate();
        each.filter(|(_, at)| *at != AT_REST).map(move |(worker, at)| (worker, now.since(Mono(at))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_hangs_is_told_from_one_that_beats_and_one_at_rest() {
        let pulses = Pulses::new(3, Mono::from_seconds(1.0));
        pulses.beat(0, Mono::from_seconds(8.0));
        pulses.rest(2);
        pulses.beat(7, Mono::from_seconds(8.0));
        let silent: Vec<_> = pulses.silences(Mono::from_seconds(9.0)).map(|(at, d)| (at, d.as_secs())).collect();
        assert_eq!(silent, [(0, 1), (1, 8)]);
        // A clock read before a beat is no silence.
        assert_eq!(pulses.silences(Mono::from_seconds(0.5)).map(|s| s.1).max(), Some(Duration::ZERO));
    }
}
