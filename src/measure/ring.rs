//! The ring that carries facts from a worker to the judge: bounded, single producer, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::judge::Fact;

/// Records a worker may be ahead of the guard: half a second at 40,000 records a second.
pub const RING_RECORDS: usize = 1 << 15;

/// One fact of one rollout, on its way to the judge.
#[derive(Clone, Debug)]
pub struct Record {
    /// The rollout's number in this process (`snapshot::Route::slot`).
    pub rollout: u32,
    /// For a start: the request id as [`super::References::id`] hashes it, where it is to be remembered; else 0.
    pub request: u64,
    /// What happened.
    pub fact: Fact,
}

impl Record {
    /// A fact without a request id to remember.
    #[must_use]
    pub const fn new(rollout: u32, fact: Fact) -> Self {
        Self { rollout, request: 0, fact }
    }
}

/// The worker's end.
pub struct Writer {
    ring: rtrb::Producer<Record>,
    dropped: Arc<AtomicU64>,
}

/// The guard's end.
pub struct Reader {
    ring: rtrb::Consumer<Record>,
    dropped: Arc<AtomicU64>,
}

/// A ring of `records` places.
#[must_use]
pub fn ring(records: usize) -> (Writer, Reader) {
    let (producer, consumer) = rtrb::RingBuffer::new(records);
    let dropped = Arc::new(AtomicU64::new(0));
    (Writer { ring: producer, dropped: Arc::clone(&dropped) }, Reader { ring: consumer, dropped })
}

impl Writer {
    /// Hands a record over; a full ring drops it and counts.
    pub fn push(&mut self, record: Record) {
        if self.ring.push(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Reader {
    /// The oldest record not yet taken.
    pub fn pop(&mut self) -> Option<Record> {
        self.ring.pop().ok()
    }

    /// Takes all that was there when it was called, the oldest first: a fast worker does not hold who drains.
    pub fn drain(&mut self, records: &mut Vec<Record>) {
        // No more than there are can be too many.
        if let Ok(waiting) = self.ring.read_chunk(self.ring.slots()) {
            records.extend(waiting);
        }
    }

    /// Records dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Mono;

    #[test]
    fn a_full_ring_drops_and_counts_and_keeps_the_order() {
        let (mut writer, mut reader) = ring(4);
        for id in 0..6 {
            writer.push(Record::new(0, Fact::FirstByte { id, at: Mono(id) }));
        }
        assert_eq!(reader.dropped(), 2);
        let id = |record: Record| match record.fact {
            Fact::FirstByte { id, .. } => id,
            _ => 99,
        };
        assert_eq!(reader.pop().map(id), Some(0));
        let mut rest = Vec::new();
        reader.drain(&mut rest);
        assert_eq!(rest.into_iter().map(id).collect::<Vec<_>>(), [1, 2, 3]);
        writer.push(Record::new(0, Fact::FirstByte { id: 7, at: Mono(7) }));
        assert_eq!(reader.pop().map(id), Some(7), "the room is there again");
    }
}
