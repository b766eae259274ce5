//! A worker's own kept connections, by endpoint. Nothing here crosses threads.
//!
//! HTTP/1.1: a stack of idle connections, the most recent first, so that the surplus ages and is trimmed; the bound is
//! of the process and is heeded by the trimming, not at the return, so that a burst does not make connections churn.
//! HTTP/2: connections shared by streams; a new one when all are full.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;

use super::cluster::Cluster;
use super::connect::{ConnectError, Connection, Http2, connect};
use super::endpoint::Endpoint;
use super::h1::H1;
use crate::names::Mono;

/// A surplus connection is kept this long before trimming closes it.
const SURPLUS_FOR: Duration = Duration::from_secs(1);
/// Streams on one h2 connection before another is opened, where upstream does not allow fewer; servers commonly allow 100.
pub(super) const H2_STREAMS: u32 = 100;
/// With fewer streams on a connection nobody waits for one that another is opening.
const FEW_STREAMS: usize = 8;
/// Requests after which an h2 connection is left to end, so that load spreads over new endpoints.
const H2_REUSE: u32 = 100_000;

/// The pools of one worker.
pub struct Pool<B> {
    slots: RefCell<Vec<Slot<B>>>,
}

struct Slot<B> {
    idle: Vec<Idle<B>>,
    h2: Vec<Rc<H2<B>>>,
    opening: Arc<tokio::sync::Mutex<()>>,
    /// The last connection takes enough streams for others to wait for it; until there is one it is thought so.
    is_shared: bool,
    /// Attempts to connect that took all their time.
    timed_out: u64,
    keep: usize,
    keep_for: Duration,
}

struct Idle<B> {
    connection: Box<H1<B>>,
    since: Mono,
}

pub(super) struct H2<B> {
    pub(super) connection: Http2<B>,
    streams: Cell<u32>,
    served: Cell<u32>,
    /// Without a stream since then, as the trimming saw it.
    idle_since: Cell<Option<Mono>>,
}

impl<B> H2<B> {
    fn is_closed(&self) -> bool {
        self.connection.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        let streams = self.streams.get();
        streams < H2_STREAMS && self.served.get() < H2_REUSE && (streams as usize) < self.connection.allowed()
    }

    fn is_to_keep(&self, now: Mono, keep_for: Duration) -> bool {
        if self.is_closed() {
            return false;
        }
        if self.streams.get() > 0 {
            self.idle_since.set(None);
            return true;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        self.served.get() < H2_REUSE && now.since(since) < keep_for
    }
}

/// A connection lent for one exchange.
pub struct Lease<B> {
    pub(super) inner: Lent<B>,
    pub(super) endpoint: usize,
    /// It has served before: it may have died unseen.
    pub reused: bool,
}

pub(super) enum Lent<B> {
    H1(Box<H1<B>>),
    H2(Stream<B>),
}

/// A stream of a shared connection.
pub(super) struct Stream<B>(pub(super) Rc<H2<B>>);

impl<B> Stream<B> {
    fn on(connection: &Rc<H2<B>>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.served.set(connection.served.get().saturating_add(1));
        connection.idle_since.set(None);
        Self(Rc::clone(connection))
    }
}

impl<B> Drop for Stream<B> {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self { slots: RefCell::new(Vec::new()) }
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An idle connection to `endpoint`, without waiting.
    #[must_use]
    pub fn reuse(&self, cluster: &Cluster, endpoint: &Endpoint) -> Option<Lease<B>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(endpoint.id)?;
        slot.keep = cluster.pool.idle;
        slot.keep_for = cluster.pool.idle_for;
        if let Some(connection) = slot.usable_h2() {
            return Some(Lease { inner: Lent::H2(Stream::on(connection)), endpoint: endpoint.id, reused: true });
        }
        while let Some(mut idle) = slot.idle.pop() {
            if idle.connection.is_fresh() {
                return Some(Lease { inner: Lent::H1(idle.connection), endpoint: endpoint.id, reused: true });
            }
        }
        None
    }

    /// A connection to `endpoint`: fresh, or where streams can share one and it need not be `fresh`, one that others have
    /// opened meanwhile.
    ///
    /// # Errors
    /// Connecting failed.
    pub async fn lend(
        &self,
        cluster: &Cluster,
        endpoint: &Arc<Endpoint>,
        fresh: bool,
    ) -> Result<Lease<B>, ConnectError> {
        let known = |slot: &mut Slot<B>| (slot.is_shared, slot.timed_out);
        let (is_shared, timed_out) = self.with_slot(endpoint.id, known);
        // Streams share a connection, so those who arrive while one is being opened wait for it.
        let mut turn = None;
        if is_shared && endpoint_speaks_h2(cluster) && !fresh {
            let opening = self.with_slot(endpoint.id, |slot| Arc::clone(&slot.opening));
            turn = Some(opening.lock_owned().await);
            if let Some(lease) = self.reuse(cluster, endpoint) {
                return Ok(lease);
            }
            match self.with_slot(endpoint.id, known) {
                // What they have waited for has failed: tried again by each, the last would wait for the sum of all.
                (_, now) if now != timed_out => return Err(ConnectError::TimedOut(cluster.timeouts.connect)),
                (false, _) => turn = None,
                _ => {}
            }
        }
        let connected = connect(cluster, endpoint).await;
        let lent = match connected {
            Ok(Connection::H1(io)) => {
                self.with_slot(endpoint.id, |slot| slot.is_shared = false);
                let connection = Box::new(H1::new(io));
                Ok(Lease { inner: Lent::H1(connection), endpoint: endpoint.id, reused: false })
            }
            Ok(Connection::H2(connection)) => {
                let (streams, served, idle_since) = (Cell::new(0), Cell::new(0), Cell::new(None));
                let connection = Rc::new(H2 { connection, streams, served, idle_since });
                let stream = Stream::on(&connection);
                self.with_slot(endpoint.id, |slot| {
                    slot.is_shared = connection.connection.allowed() >= FEW_STREAMS;
                    slot.h2.push(connection);
                });
                Ok(Lease { inner: Lent::H2(stream), endpoint: endpoint.id, reused: false })
            }
            Err(error) => {
                let timed_out = u64::from(matches!(error, ConnectError::TimedOut(_)));
                self.with_slot(endpoint.id, |slot| slot.timed_out += timed_out);
                Err(error)
            }
        };
        // The next one finds what became of it.
        drop(turn);
        lent
    }

    /// Takes a connection back after the exact end of its exchange; one that cannot serve another is closed.
    pub fn give_back(&self, lease: Lease<B>, now: Mono) {
        if let Lent::H1(mut connection) = lease.inner
            && connection.settle()
        {
            self.with_slot(lease.endpoint, |slot| slot.idle.push(Idle { connection, since: now }));
        }
    }

    /// Closes what has been idle too long or is too many for this worker (`workers` share the process's bound).
    pub fn trim(&self, now: Mono, workers: usize) {
        for slot in self.slots.borrow_mut().iter_mut() {
            let most = slot.keep.div_ceil(workers.max(1));
            let keep_for = slot.keep_for;
            slot.idle.retain_mut(|idle| now.since(idle.since) < keep_for && idle.connection.is_fresh());
            // The oldest stand at the front.
            let surplus = slot.idle.len().saturating_sub(most);
            let old = slot.idle.iter().take(surplus).take_while(|i| now.since(i.since) >= SURPLUS_FOR).count();
            slot.idle.drain(..old);
            slot.h2.retain(|c| c.is_to_keep(now, keep_for));
        }
    }

    fn with_slot<T>(&self, id: usize, act: impl FnOnce(&mut Slot<B>) -> T) -> T {
        let mut slots = self.slots.borrow_mut();
        while slots.len() <= id {
            slots.push(Slot {
                idle: Vec::new(),
                h2: Vec::new(),
                opening: Arc::default(),
                is_shared: true,
                timed_out: 0,
                keep: 64,
                keep_for: Duration::from_secs(60),
            });
        }
        act(&mut slots[id])
    }
}

impl<B> Slot<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn usable_h2(&mut self) -> Option<&Rc<H2<B>>> {
        if self.h2.is_empty() {
            return None;
        }
        self.h2.retain(|c| !c.is_closed());
        self.h2.iter().find(|c| c.has_room())
    }
}

fn endpoint_speaks_h2(cluster: &Cluster) -> bool {
    use crate::config::HttpVersion;
    match cluster.http {
        HttpVersion::Http2 => true,
        HttpVersion::Http1 => false,
        HttpVersion::Auto => cluster.tls.is_some(),
    }
}
