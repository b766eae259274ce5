//! One upstream address and its shared state: load, ejection, health, resolved names. Kept across reloads by address.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::config;
use crate::names::Mono;

/// One upstream address. All state is atomics: workers, the health thread and scrapers share it without locks.
#[derive(Debug)]
pub struct Endpoint {
    /// A small number of its own, never used again in this process: the index of its pool in every worker.
    pub id: usize,
    /// What the configuration says of it.
    pub address: config::Endpoint,
    /// Resolved addresses; written by the name thread, read at each connect.
    resolved: ArcSwap<Vec<SocketAddr>>,
    next_address: AtomicUsize,
    in_flight: AtomicU32,
    failures: AtomicU32,
    /// Nanoseconds of `Mono` until which it is ejected; 0 is never.
    ejected_until: AtomicU64,
    healthy: AtomicBool,
}

impl Endpoint {
    fn new(id: usize, address: config::Endpoint) -> Self {
        let literal = address.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, address.port));
        Self {
            id,
            resolved: ArcSwap::from_pointee(literal.into_iter().collect()),
            address,
            next_address: AtomicUsize::new(0),
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }

    /// Whether the host is a name that has to be resolved.
    #[must_use]
    pub fn needs_resolving(&self) -> bool {
        self.address.host.parse::<IpAddr>().is_err()
    }

    /// Takes the addresses that a name resolved to; nothing found keeps the last known.
    pub fn set_resolved(&self, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() {
            self.resolved.store(Arc::new(addresses));
        }
    }

    /// The next address in turn, or `None` when the name never resolved.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let all = self.resolved.load();
        let turn = self.next_address.fetch_add(1, Ordering::Relaxed);
        all.get(turn % all.len().max(1)).copied()
    }

    /// Exchanges under way, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts an exchange in, until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// An answer that was no failure: the run of failures ends.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A failure of this endpoint; after `ejection.failures` in a row it is ejected for a while.
    pub fn failed(&self, ejection: &config::Ejection, now: Mono) {
        let run = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if run >= ejection.failures {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(now.plus(ejection.for_).0, Ordering::Relaxed);
        }
    }

    /// Whether passive ejection or the active check holds it out now.
    #[must_use]
    pub fn is_out(&self, now: Mono) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.0 || !self.healthy.load(Ordering::Relaxed)
    }

    /// What the active health check says.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }
}

/// An exchange counted on its endpoint.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// The endpoint it counts on.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All endpoints of the process by address, so that a reload finds load, ejection and pools as they were.
/// Asked when snapshots are built, never by a request.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Vec<Arc<Endpoint>>>);

impl Registry {
    /// The endpoint of this address, made when it is new.
    #[must_use]
    pub fn endpoint(&self, address: &config::Endpoint) -> Arc<Endpoint> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.address == *address) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Endpoint::new(all.len(), address.clone()));
        all.push(Arc::clone(&fresh));
        fresh
    }

    /// Every endpoint ever named.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
