//! The guard: the first reader of every ring. It runs the breaker, which latches by itself, and hands the facts on.
//!
//! A thread of its own, so that a canary that simply breaks is cut while the evaluator hangs (design section 10).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use super::mailbox::{Ask, Letter, Mailbox};
use crate::clock::Clock;
use crate::journal::{Done, Full, Journal, Latched};
use crate::judge::{Breaker, Policy};
use crate::measure::gauges::Gauges;
use crate::measure::ring::{self, Record};
use crate::measure::{Release, SharedMemory};
use crate::names::{Arm, Mono, RolloutName};
use crate::rollout;
use crate::snapshot::{Latch, Live, Rollout};
use crate::split::Weight;

/// How often the rings are drained.
pub const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// Batches on their way to the evaluator; a minute and more of its being hung.
pub const BATCHES: usize = 8_192;
/// Who latched, when the breaker did.
pub const BREAKER: &str = "breaker";

/// Facts in the order in which they became known, as one drain found them.
#[derive(Debug, Default)]
pub struct Batch {
    /// The facts.
    pub records: Vec<Record>,
    /// Records lost before these: the judge's window with them can hold or roll back, never advance.
    pub dropped: u64,
}

/// What the evaluator tells the guard.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// A stage was entered: the breaker starts anew.
    StageEntered {
        /// The rollout's slot.
        slot: u32,
        /// The canary's share, 0 to 1.
        weight: f64,
        /// When.
        at: Mono,
    },
    /// The gates in force: the file's, or those frozen when the rollout began. The guard never takes others by itself.
    Gates {
        /// The rollout's slot.
        slot: u32,
        /// What the breaker goes by.
        policy: Arc<Policy>,
    },
}

/// What the guard is made of.
pub struct Parts {
    /// One for each worker.
    pub rings: Vec<ring::Reader>,
    /// The snapshot in force; the guard's one write to it is the latch.
    pub live: Live,
    /// Where its latches are recorded at once, in case nobody lives to do it later.
    pub journal: Arc<Journal>,
    /// The way to the evaluator.
    pub batches: SyncSender<Batch>,
    /// To wake the evaluator after a latch.
    pub mailbox: Mailbox,
    /// From the evaluator; its end is the guard's.
    pub orders: Receiver<Order>,
    /// Counts of the data plane.
    pub gauges: Arc<Gauges>,
    /// The source of time.
    pub clock: Clock,
}

struct Watched {
    breaker: Breaker,
    policy: Arc<Policy>,
    weight: Weight,
    /// Under what the newest snapshot that was looked at has exchanges remembered; `None` where it has none remembered.
    release: Option<Release>,
}

impl Watched {
    fn new(policy: &Arc<Policy>) -> Self {
        Self { breaker: Breaker::new(policy), policy: Arc::clone(policy), weight: Weight::ZERO, release: None }
    }
}

/// The guard's state between two drains.
pub struct Guard {
    parts: Parts,
    /// By the rollout's slot: slots are small numbers, given in order.
    watched: Vec<Option<Watched>>,
    memory: Option<SharedMemory>,
    lost_before: u64,
    unsent: u64,
}

impl Guard {
    /// A guard that has seen nothing.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts, watched: Vec::new(), memory: None, lost_before: 0, unsent: 0 }
    }

    /// Remembers exchanges and units for feedback.
    #[must_use]
    pub fn remembering(mut self, memory: SharedMemory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Drains until the evaluator's side of the orders is gone.
    pub fn run(mut self) {
        loop {
            match self.parts.orders.recv_timeout(DRAIN_EVERY) {
                Ok(order) => self.heed(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn();
        }
    }

    fn heed(&mut self, order: Order) {
        match order {
            Order::StageEntered { slot, weight, at } => {
                if let Some(watched) = of(&mut self.watched, slot) {
                    watched.breaker.stage_entered(weight, at);
                }
            }
            Order::Gates { slot, policy } => {
                let watched = self.watched(slot, &policy);
                if *watched.policy != *policy {
                    *watched = Watched { release: watched.release, ..Watched::new(&policy) };
                }
            }
        }
    }

    /// One drain: orders heeded, facts to breakers, breakers to the latch, facts to the evaluator.
    pub fn turn(&mut self) {
        while let Ok(order) = self.parts.orders.try_recv() {
            self.heed(order);
        }
        let snapshot = self.parts.live.load();
        for rollout in &snapshot.rollouts {
            self.watch(rollout);
        }
        let batch = self.drain();
        for record in &batch.records {
            if let Some(watched) = of(&mut self.watched, record.rollout) {
                watched.breaker.observe(&record.fact);
            }
        }
        let now = self.parts.clock.now();
        for rollout in &snapshot.rollouts {
            if rollout.split.latched || !rollout.fixed.config.evaluator.enabled {
                continue;
            }
            let tripped = of(&mut self.watched, rollout.fixed.slot).and_then(|w| w.breaker.tick(now));
            if let Some(tripped) = tripped {
                self.latch(rollout, &tripped.reason);
            }
        }
        // Behind the breaker: nothing that feedback does delays a latch.
        if let Some(memory) = self.memory.as_ref().filter(|_| !batch.records.is_empty()) {
            let release = |slot: u32| self.watched.get(slot as usize)?.as_ref()?.release;
            memory.lock().take_in(&batch.records, release);
        }
        self.hand_on(batch);
    }

    /// At the first sight of a rollout nothing of it has begun under other gates.
    fn watched(&mut self, slot: u32, policy: &Arc<Policy>) -> &mut Watched {
        let slot = slot as usize;
        if slot >= self.watched.len() {
            self.watched.resize_with(slot + 1, || None);
        }
        self.watched[slot].get_or_insert_with(|| Watched::new(policy))
    }

    fn watch(&mut self, rollout: &Rollout) {
        let watched = self.watched(rollout.fixed.slot, &rollout.fixed.config.policy);
        watched.release = rollout.fixed.marks.remembers.then_some(rollout.fixed.marks.release);
        if watched.weight != rollout.split.weight {
            watched.weight = rollout.split.weight;
            watched.breaker.weight_changed(share(rollout.split.weight));
        }
    }

    fn drain(&mut self) -> Batch {
        let mut records = Vec::new();
        let mut lost = 0;
        for ring in &mut self.parts.rings {
            ring.drain(&mut records);
            lost += ring.dropped();
        }
        if self.parts.rings.len() > 1 {
            records.sort_by_key(|record| record.fact.known());
        }
        let dropped = lost - self.lost_before + std::mem::take(&mut self.unsent);
        if lost != self.lost_before {
            self.parts.gauges.observations_dropped.fetch_add(lost - self.lost_before, Ordering::Relaxed);
            self.lost_before = lost;
        }
        Batch { records, dropped }
    }

    /// Takes the canary to 0, and its group along, without asking anybody.
    fn latch(&self, rollout: &Rollout, reason: &str) {
        let name = rollout.fixed.config.name.as_str();
        let latch =
            Arc::new(Latch { at: self.parts.clock.wall(), actor: BREAKER.to_owned(), reason: reason.to_owned() });
        let fell = self.parts.live.fall(name, &latch);
        tracing::warn!(
            rollout.name = name,
            arm = Arm::Canary.as_str(),
            reason,
            "the breaker opened: the canary is at 0 %"
        );
        if record_latches(&self.parts.journal, fell, None).is_err() {
            tracing::error!(rollout.name = name, "the latch is in force and not recorded: the journal's queue is full");
        }
        let look = Letter { ask: Ask::Look, answer: Box::new(|_| ()) };
        if self.parts.mailbox.post(look).is_err() {
            tracing::warn!(
                rollout.name = name,
                "the evaluator could not be woken; it will see the latch at its next turn"
            );
        }
    }

    fn hand_on(&mut self, batch: Batch) {
        if batch.records.is_empty() && batch.dropped == 0 {
            return;
        }
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.parts.batches.try_send(batch) {
            let lost = batch.records.len() as u64;
            self.unsent = batch.dropped + lost;
            self.parts.gauges.observations_dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// Hands latches that were set past the judge to the journal's thread, without waiting: were the process to end before the
/// judge has taken them up, the next start knows of them all the same.
///
/// # Errors
/// The journal's queue is full: the disk hangs. Nothing of that lifts a latch.
pub fn record_latches(journal: &Journal, fell: Vec<(RolloutName, Arc<Latch>)>, done: Option<Done>) -> Result<(), Full> {
    let latched = |(rollout, latch): (RolloutName, Arc<Latch>)| {
        let Latch { at, actor, reason } = Arc::unwrap_or_clone(latch);
        Latched { rollout, latch: rollout::Latch { at, actor, reason } }
    };
    let latches: Vec<Latched> = fell.into_iter().map(latched).collect();
    if latches.is_empty() {
        return Ok(());
    }
    journal.append_latches(latches, done)
}

fn of(watched: &mut [Option<Watched>], slot: u32) -> Option<&mut Watched> {
    watched.get_mut(slot as usize)?.as_mut()
}

/// A weight as the share of units, 0 to 1.
#[must_use]
pub fn share(weight: Weight) -> f64 {
    f64::from(weight.buckets()) / f64::from(Weight::FULL.buckets())
}
