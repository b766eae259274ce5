//! A worker: one thread, one runtime, and everything that its requests touch. Nothing here crosses threads but the
//! snapshot's cell, the gauges and the ring.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::access::Access;
use super::body::UpBody;
use super::claims::ClaimsCache;
use super::connection::Connections;
use super::deadlines::Deadlines;
use crate::clock::Clock;
use crate::config;
use crate::measure::Fact;
use crate::measure::gauges::Gauges;
use crate::measure::ring;
use crate::measure::{Recorder, SampleSender};
use crate::snapshot::{Live, LiveCache, Rollout, Snapshot};
use crate::upstream::Pool;

/// What a worker is made of; handed to its thread.
pub struct Parts {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub workers: usize,
    /// The source of time.
    pub clock: Clock,
    /// The snapshot in force.
    pub live: Live,
    /// The judge's ring.
    pub ring: ring::Writer,
    /// Counts of the data plane.
    pub gauges: Arc<Gauges>,
    /// Connections it holds, for the acceptor.
    pub load: Arc<AtomicUsize>,
    /// The access log, where one is kept.
    pub access: Option<Access>,
    /// The way of samples.
    pub samples: Option<SampleSender>,
    /// Seed of its random choices and request ids.
    pub seed: u64,
}

/// The worker of this thread.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub workers: usize,
    /// The source of time.
    pub clock: Clock,
    /// Its kept upstream connections.
    pub pool: Pool<UpBody>,
    /// Its deadlines.
    pub deadlines: Rc<Deadlines>,
    /// Its downstream connections.
    pub connections: Connections,
    /// Counts of the data plane.
    pub gauges: Arc<Gauges>,
    /// Tokens it has verified.
    pub claims: ClaimsCache,
    /// The access log, where one is kept.
    pub access: Option<Access>,
    /// The way of samples.
    pub samples: Option<SampleSender>,
    live: RefCell<LiveCache>,
    view: RefCell<Rc<View>>,
    ring: RefCell<ring::Writer>,
    load: Arc<AtomicUsize>,
    date: Cell<(u64, [u8; 29])>,
    random: Cell<u64>,
    exchanges: Cell<u64>,
}

/// The snapshot as this worker holds it: counted without atomics.
#[derive(Debug)]
pub struct View {
    snapshot: Arc<Snapshot>,
}

impl View {
    /// The tables.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// A rollout within the snapshot that one request has loaded.
#[derive(Clone, Debug)]
pub struct Routed {
    view: Rc<View>,
    at: usize,
}

impl Routed {
    /// The rollout at a position of the snapshot's list.
    #[must_use]
    pub fn new(view: &Rc<View>, at: usize) -> Option<Self> {
        (at < view.snapshot.rollouts.len()).then(|| Self { view: Rc::clone(view), at })
    }

    /// The rollout.
    #[must_use]
    pub fn rollout(&self) -> &Rollout {
        &self.view.snapshot.rollouts[self.at]
    }

    /// Counts what ends before a version is chosen.
    #[must_use]
    pub fn unrouted(&self) -> &Recorder {
        &self.view.snapshot.unrouted
    }

    /// The configuration in force when the request came.
    #[must_use]
    pub fn config(&self) -> &config::Config {
        &self.view.snapshot.config
    }
}

impl Worker {
    /// Made on its own thread.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let mut live = parts.live.cache();
        let view = Rc::new(View { snapshot: Arc::clone(live.load()) });
        let deadlines = Rc::new(Deadlines::default());
        deadlines.sweep(parts.clock.now());
        Rc::new(Self {
            index: parts.index,
            workers: parts.workers,
            clock: parts.clock,
            pool: Pool::default(),
            deadlines,
            connections: Connections::default(),
            gauges: parts.gauges,
            claims: ClaimsCache::default(),
            access: parts.access,
            samples: parts.samples,
            live: RefCell::new(live),
            view: RefCell::new(view),
            ring: RefCell::new(parts.ring),
            load: parts.load,
            date: Cell::new((u64::MAX, [0; 29])),
            random: Cell::new(parts.seed | 1),
            exchanges: Cell::new(0),
        })
    }

    /// The snapshot in force: one atomic load, and a comparison with the one held.
    pub fn view(&self) -> Rc<View> {
        let mut live = self.live.borrow_mut();
        let newest = live.load();
        let mut held = self.view.borrow_mut();
        if !Arc::ptr_eq(newest, &held.snapshot) {
            if !Arc::ptr_eq(&newest.config, &held.snapshot.config) {
                self.claims.clear();
            }
            *held = Rc::new(View { snapshot: Arc::clone(newest) });
        }
        Rc::clone(&held)
    }

    /// The second look that law 1 allows: has this rollout been latched since the request loaded its snapshot?
    #[must_use]
    pub fn latched_since(&self, routed: &Routed) -> bool {
        let newest = self.view();
        if Rc::ptr_eq(&newest, &routed.view) {
            return false;
        }
        let name = &routed.rollout().fixed.config.name;
        newest.snapshot.rollout(name.as_str()).is_none_or(|rollout| rollout.split.latched)
    }

    /// Tells the judge; a full ring drops and counts.
    pub fn tell(&self, rollout: u32, fact: Fact) {
        self.ring.borrow_mut().push(ring::Record::new(rollout, fact));
    }

    /// Tells the judge of a start, and the memory of feedback its request id's hash (0: none).
    pub fn tell_start(&self, rollout: u32, request: u64, fact: Fact) {
        self.ring.borrow_mut().push(ring::Record { rollout, request, fact });
    }

    /// A name for an exchange, used once in this process and never 0.
    #[must_use]
    pub fn next_exchange(&self) -> u64 {
        let next = self.exchanges.get() + 1;
        self.exchanges.set(next);
        ((self.index as u64) << 48) | next
    }

    /// The date as an answer says it (RFC 9110 section 5.6.7), at most a second and a sweep old.
    #[must_use]
    pub fn date(&self) -> [u8; 29] {
        let second = self.deadlines.coarse_now().0 / 1_000_000_000;
        let (of, text) = self.date.get();
        if of == second {
            return text;
        }
        let since = Duration::from_millis(u64::try_from(self.clock.wall().0).unwrap_or(0));
        let text = httpdate::fmt_http_date(UNIX_EPOCH + since).into_bytes().try_into().unwrap_or([b' '; 29]);
        self.date.set((second, text));
        text
    }

    /// 64 bits that are random enough to balance load and name requests (xorshift64*, Vigna 2016). Not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A downstream connection came.
    pub(super) fn connected(&self) {
        self.gauges.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A downstream connection is gone.
    pub(super) fn disconnected(&self) {
        self.gauges.connections.fetch_sub(1, Ordering::Relaxed);
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}
