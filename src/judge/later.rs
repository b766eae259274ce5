//! Facts of a trace that are not known yet, told in the order in which they become known.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::facts::Fact;

/// A fact that is not known yet.
pub(super) struct Later {
    /// Control lines that come before it is told.
    pub(super) after: u64,
    pub(super) fact: Fact,
}

/// By the time at which they become known, then as they came. Facts are large: the heap moves their places instead.
#[derive(Default)]
pub(super) struct Queue {
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    held: Vec<Option<Later>>,
    free: Vec<usize>,
    sequence: u64,
}

impl Queue {
    pub(super) fn push(&mut self, later: Later) {
        self.sequence += 1;
        let known = later.fact.known().0;
        let place = self.free.pop().unwrap_or(self.held.len());
        if place == self.held.len() {
            self.held.push(None);
        }
        self.held[place] = Some(later);
        self.order.push(Reverse((known, self.sequence, place)));
    }

    /// The next that is known at `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<Later> {
        self.order.peek().filter(|Reverse((known, ..))| *known <= now)?;
        let Reverse((_, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.held[place].take()
    }

    pub(super) fn clear(&mut self) {
        *self = Self { sequence: self.sequence, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Mono;

    #[test]
    fn facts_come_by_time_then_as_they_were_put_in_and_places_are_used_again() {
        let mut queue = Queue::default();
        let put = |queue: &mut Queue, id, at| {
            queue.push(Later { after: 0, fact: Fact::FirstByte { id, at: Mono(at) } });
        };
        for (id, at) in [(1, 30), (2, 10), (3, 10), (4, 20)] {
            put(&mut queue, id, at);
        }
        let ids = |queue: &mut Queue, now| -> Vec<u64> {
            std::iter::from_fn(|| queue.pop(now))
                .map(|later| if let Fact::FirstByte { id, .. } = later.fact { id } else { 0 })
                .collect()
        };
        assert_eq!(ids(&mut queue, 20), [2, 3, 4]);
        put(&mut queue, 5, 25);
        assert_eq!(ids(&mut queue, 40), [5, 1]);
        assert_eq!(queue.held.len(), 4);
    }
}
