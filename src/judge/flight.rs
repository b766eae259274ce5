//! What is in flight: only arm, user, age, and whether its first byte has come; with the ages at which it becomes bad.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ids::ById;
use crate::names::Arm;

/// No more than this many are followed; what starts beyond is not judged (and counted by whoever sheds it).
const MOST: usize = 1_000_000;
/// What is older than this lost its end somewhere.
const OLDEST_NS: u64 = 6 * 3_600 * 1_000_000_000;

/// One exchange in flight.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Flight {
    pub(super) at: u64,
    pub(super) user: u64,
    pub(super) arm: Arm,
    pub(super) drawn: bool,
    pub(super) first_byte_at: Option<u64>,
    /// Number of the refresh of u that was in force at its arrival.
    pub(super) epoch: u32,
    /// Limits that it has already met or passed: a bit for each rule and lane.
    pub(super) done: u128,
}

/// All exchanges in flight.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Flights {
    by_id: ById<Flight>,
    /// When the next limit of each is passed.
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    swept: u64,
}

impl Flights {
    pub(super) fn add(&mut self, id: u64, flight: Flight) {
        if self.by_id.len() < MOST {
            self.by_id.insert(id, flight);
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Flight> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn end(&mut self, id: u64) -> Option<Flight> {
        self.by_id.remove(&id)
    }

    /// Wakes at `at`, if the exchange is then still in flight.
    pub(super) fn wake(&mut self, id: u64, at: u64) {
        if self.by_id.contains_key(&id) {
            self.deadlines.push(Reverse((at, id)));
        }
    }

    /// The next whose limit has passed.
    pub(super) fn due(&mut self, now: u64) -> Option<u64> {
        loop {
            let Reverse((at, id)) = *self.deadlines.peek()?;
            if at >= now {
                return None;
            }
            self.deadlines.pop();
            if self.by_id.contains_key(&id) {
                return Some(id);
            }
        }
    }

    /// Forgets what lost its end.
    pub(super) fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.swept) > OLDEST_NS / 8 {
            self.swept = now;
            self.by_id.retain(|_, flight| now.saturating_sub(flight.at) < OLDEST_NS);
        }
    }
}
