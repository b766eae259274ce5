//! What is in flight: only arm, user, age, and whether its first byte has come; with the ages at which it becomes bad.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

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
    /// When the next limit of each is passed. What comes in order waits in a queue, as arrivals do between two refreshes of u;
    /// only the rest needs a heap.
    queue: VecDeque<(u64, u64)>,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    swept: u64,
}

impl Flights {
    /// Follows one more, and wakes at `wake` if it is then still in flight.
    pub(super) fn add(&mut self, id: u64, flight: Flight, wake: Option<u64>) {
        if self.by_id.len() >= MOST {
            return;
        }
        self.by_id.insert(id, flight);
        match wake {
            Some(at) if self.queue.back().is_none_or(|last| *last <= (at, id)) => self.queue.push_back((at, id)),
            Some(at) => self.heap.push(Reverse((at, id))),
            None => {}
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Flight> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn end(&mut self, id: u64) -> Option<Flight> {
        self.by_id.remove(&id)
    }

    /// Wakes again at `at`, if the exchange is then still in flight.
    pub(super) fn wake(&mut self, id: u64, at: u64) {
        if self.by_id.contains_key(&id) {
            self.heap.push(Reverse((at, id)));
        }
    }

    /// The next whose limit has passed.
    pub(super) fn due(&mut self, now: u64) -> Option<u64> {
        loop {
            let (queued, heaped) = (self.queue.front().copied(), self.heap.peek().map(|Reverse(first)| *first));
            let of_queue = queued.is_some_and(|queued| heaped.is_none_or(|heaped| queued <= heaped));
            let (at, id) = if of_queue { queued? } else { heaped? };
            if at >= now {
                return None;
            }
            if of_queue {
                self.queue.pop_front();
            } else {
                self.heap.pop();
            }
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
