//! Counters and histograms for people: one writer each (the worker), read by the scrape without stopping anybody.
//!
//! A slot belongs to one rollout, version and arm and holds a shard for each worker. The writer is the only one, so a
//! count is a relaxed load and store, not a locked instruction; the reader adds the shards up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::answer::{Answer, FINISHES, Note};
use super::observation::Observation;
use crate::judge::Outcome;
use crate::names::{Arm, RolloutName, VersionName};

/// Upper bounds of the histograms' buckets in microseconds, a 1-2.5-5 series from 0.1 ms to 1,000 s; the last is open.
pub const BOUNDS_US: [u64; 22] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// Adds to a counter that only this thread writes.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// A fixed histogram of times.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn record(&self, us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.sum_us, us);
    }
}

/// A histogram read out: counts per bucket (not cumulative; the last is above all bounds) and the sum in µs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSums {
    /// One count a bucket.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// Sum of all values, µs.
    pub sum_us: u64,
}

impl HistogramSums {
    fn add(&mut self, shard: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&shard.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        self.sum_us += shard.sum_us.load(Ordering::Relaxed);
    }
}

/// Status classes: none, 1xx … 5xx.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Kinds of tokens, in the order of the counters.
pub const TOKEN_TYPES: [&str; 5] = ["input", "output", "cached_input", "reasoning", "cache_write"];

/// One worker's shard of a slot.
#[derive(Debug, Default)]
struct Shard {
    started: AtomicU64,
    ended: AtomicU64,
    requests: [[AtomicU64; CLASSES.len()]; Outcome::ALL.len()],
    duration: Histogram,
    ttfb: Histogram,
    ttft: Histogram,
    tpot: Histogram,
    tokens: [AtomicU64; TOKEN_TYPES.len()],
    tokens_all: AtomicU64,
    cost_nano: AtomicU64,
    finishes: [AtomicU64; FINISHES.len()],
    notes: [AtomicU64; Note::ALL.len()],
}

/// The counters of one rollout, version and arm.
#[derive(Debug)]
pub struct Recorder {
    /// Labels; empty for requests that reached no rollout.
    pub labels: Option<Labels>,
    shards: Box<[Shard]>,
}

/// Whom a slot counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The rollout.
    pub rollout: RolloutName,
    /// The arm.
    pub arm: Arm,
    /// The version.
    pub version: VersionName,
}

/// A slot read out.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Requests begun.
    pub started: u64,
    /// Requests ended.
    pub ended: u64,
    /// By outcome and class.
    pub requests: [[u64; CLASSES.len()]; Outcome::ALL.len()],
    /// Arrival to the last byte.
    pub duration: HistogramSums,
    /// Arrival to the response head.
    pub ttfb: HistogramSums,
    /// Arrival to the first generated token.
    pub ttft: HistogramSums,
    /// Time per output token after the first.
    pub tpot: HistogramSums,
    /// By [`TOKEN_TYPES`].
    pub tokens: [u64; TOKEN_TYPES.len()],
    /// Billionths of a dollar.
    pub cost_nano: u64,
    /// Answers by why they ended: [`FINISHES`].
    pub finishes: [u64; FINISHES.len()],
    /// Answers by what was noted: [`Note::ALL`].
    pub notes: [u64; Note::ALL.len()],
}

/// What [`Recorder::brief`] adds up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brief {
    /// Exchanges that ended.
    pub ended: u64,
    /// By [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Billionths of a dollar.
    pub cost_nano: u64,
}

impl Recorder {
    fn new(labels: Option<Labels>, workers: usize) -> Self {
        Self { labels, shards: (0..workers.max(1)).map(|_| Shard::default()).collect() }
    }

    /// An exchange begins on `worker`.
    pub fn start(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            add(&shard.started, 1);
        }
    }

    /// An exchange that began here ends; what is to be said of it may be charged to another slot.
    pub fn end(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            add(&shard.ended, 1);
        }
    }

    /// Counts a finished exchange, once, under the version to blame or to credit.
    pub fn observe(&self, worker: usize, seen: &Observation) {
        let Some(shard) = self.shards.get(worker) else { return };
        let class = seen.status.map_or(0, |s| usize::from(s / 100).min(5));
        if let Some(count) = shard.requests.get(seen.outcome.index()).and_then(|row| row.get(class)) {
            add(count, 1);
        }
        shard.duration.record(seen.total_us);
        for (histogram, value) in
            [(&shard.ttfb, seen.ttfb_us), (&shard.ttft, seen.ttft_us), (&shard.tpot, seen.tpot_us)]
        {
            if let Some(us) = value {
                histogram.record(us);
            }
        }
        self.answered(worker, &seen.answer);
    }

    /// Counts what an answer said and took, of whichever arm the exchange was.
    pub fn answered(&self, worker: usize, answer: &Answer) {
        let Some(shard) = self.shards.get(worker) else { return };
        for (count, tokens) in shard.tokens.iter().zip(answer.tokens) {
            if tokens != 0 {
                add(count, tokens);
            }
        }
        if answer.tokens_all != 0 {
            add(&shard.tokens_all, answer.tokens_all);
        }
        if answer.cost_nano != 0 {
            add(&shard.cost_nano, answer.cost_nano);
        }
        if let Some(count) = answer.finish.and_then(|at| shard.finishes.get(at)) {
            add(count, 1);
        }
        if answer.notes != 0 {
            let noted = shard.notes.iter().enumerate().filter(|(bit, _)| answer.notes & 1 << bit != 0);
            noted.for_each(|(_, count)| add(count, 1));
        }
    }

    /// Tokens of every kind, each counted once.
    #[must_use]
    pub fn tokens_all(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(shard.tokens_all.load(Ordering::Relaxed)))
    }

    /// The few numbers of [`Recorder::sums`] that a picture shows, without its histograms.
    #[must_use]
    pub fn brief(&self) -> Brief {
        let mut brief = Brief::default();
        for shard in &self.shards {
            brief.ended += shard.ended.load(Ordering::Relaxed);
            brief.cost_nano += shard.cost_nano.load(Ordering::Relaxed);
            for (to, from) in brief.outcomes.iter_mut().zip(&shard.requests) {
                *to += from.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
            }
        }
        brief
    }

    /// Adds up what all workers counted.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for shard in &self.shards {
            // `ended` first: an exchange that ends between the two reads must not make the gauge negative.
            sums.ended += shard.ended.load(Ordering::Acquire);
            sums.started += shard.started.load(Ordering::Relaxed);
            for (to, from) in sums.requests.iter_mut().flatten().zip(shard.requests.iter().flatten()) {
                *to += from.load(Ordering::Relaxed);
            }
            sums.duration.add(&shard.duration);
            sums.ttfb.add(&shard.ttfb);
            sums.ttft.add(&shard.ttft);
            sums.tpot.add(&shard.tpot);
            for (to, from) in sums.tokens.iter_mut().zip(&shard.tokens) {
                *to += from.load(Ordering::Relaxed);
            }
            sums.cost_nano += shard.cost_nano.load(Ordering::Relaxed);
            let finishes = sums.finishes.iter_mut().zip(&shard.finishes);
            for (to, from) in finishes.chain(sums.notes.iter_mut().zip(&shard.notes)) {
                *to += from.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

/// Slots of versions that are gone are dropped beyond so many.
const SLOTS_MAX: usize = 10_000;

/// All slots of the process, by rollout, version and arm, so that a reload goes on counting where it was.
/// Asked when snapshots are built and by the scrape.
#[derive(Debug)]
pub struct Recorders {
    workers: usize,
    unrouted: Arc<Recorder>,
    slots: Mutex<Vec<Arc<Recorder>>>,
}

impl Recorders {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers, unrouted: Arc::new(Recorder::new(None, workers)), slots: Mutex::default() }
    }

    /// Where requests count that reached no rollout.
    #[must_use]
    pub fn unrouted(&self) -> Arc<Recorder> {
        Arc::clone(&self.unrouted)
    }

    /// The slot of these labels, made when it is new.
    #[must_use]
    pub fn slot(&self, rollout: &RolloutName, arm: Arm, version: &VersionName) -> Arc<Recorder> {
        let labels = Labels { rollout: rollout.clone(), arm, version: version.clone() };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slots.iter().find(|slot| slot.labels.as_ref() == Some(&labels)) {
            return Arc::clone(known);
        }
        if slots.len() >= SLOTS_MAX {
            // Only slots that nobody holds any more: not while a stream of theirs lives.
            slots.retain(|slot| Arc::strong_count(slot) > 1);
        }
        let fresh = Arc::new(Recorder::new(Some(labels), self.workers));
        slots.push(Arc::clone(&fresh));
        fresh
    }

    /// Every slot, the unrouted one first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Recorder>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(Arc::clone(&self.unrouted)).chain(slots.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(outcome: Outcome, status: Option<u16>, total_us: u64) -> Observation {
        Observation { outcome, status, total_us, ..Observation::default() }
    }

    #[test]
    fn what_workers_count_apart_adds_up() {
        let recorders = Recorders::new(2);
        let slot = recorders.slot(&RolloutName::new("chat"), Arm::Canary, &VersionName::new("b"));
        for worker in [0, 1, 1] {
            slot.start(worker);
            slot.end(worker);
            slot.observe(worker, &seen(Outcome::Success, Some(200), 2_000));
        }
        slot.start(0);
        slot.observe(0, &seen(Outcome::Timeout, None, 3_000_000_000));
        let sums = slot.sums();
        assert_eq!((sums.started, sums.ended), (4, 3));
        assert_eq!(sums.requests[Outcome::Success.index()][2], 3);
        assert_eq!(sums.requests[Outcome::Timeout.index()][0], 1);
        assert_eq!(sums.duration.counts.iter().sum::<u64>(), 4);
        assert_eq!(sums.duration.counts[4], 3, "2 ms lies in the bucket up to 2.5 ms");
        assert_eq!(sums.duration.counts[BOUNDS_US.len()], 1);
        assert_eq!(sums.duration.sum_us, 3_000_006_000);
    }

    #[test]
    fn a_slot_outlives_reloads() {
        let recorders = Recorders::new(1);
        let (name, version) = (RolloutName::new("chat"), VersionName::new("b"));
        let before = recorders.slot(&name, Arm::Stable, &version);
        assert!(Arc::ptr_eq(&before, &recorders.slot(&name, Arm::Stable, &version)));
        assert_eq!(recorders.all().len(), 2);
    }
}
