//! The endpoints that serve one version, and how they are spoken to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderValue;
use tokio_rustls::TlsConnector;

use super::balance;
use super::endpoint::{Endpoint, Registry};
use crate::config;
use crate::names::Mono;
use crate::tls::{self, TlsError};

/// The endpoints of one version. Built from its configuration, shared by every snapshot until that changes.
pub struct Cluster {
    /// At least one.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// Host header for each endpoint, where the endpoint's own is sent.
    hosts: Box<[HeaderValue]>,
    /// Deadlines of an exchange.
    pub timeouts: config::Timeouts,
    /// Passive ejection.
    pub ejection: config::Ejection,
    /// Kept connections.
    pub pool: config::Pool,
    /// What is spoken.
    pub http: config::HttpVersion,
    /// Active check, where wanted.
    pub health: Option<config::HealthCheck>,
    /// TLS towards `https://` endpoints.
    pub tls: Option<TlsConnector>,
    /// Name asked for instead of the host's.
    pub server_name: Option<String>,
    concurrency: Option<u32>,
    in_flight: AtomicU32,
}

impl Cluster {
    /// Builds the cluster of `version`; `endpoints` stand for its own when a baseline has some.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub fn new(
        version: &config::Version,
        endpoints: &[config::Endpoint],
        registry: &Registry,
    ) -> Result<Self, TlsError> {
        let tls = if endpoints.iter().any(|e| e.scheme == config::Scheme::Https) {
            Some(TlsConnector::from(tls::client(&version.tls, version.http)?))
        } else {
            None
        };
        let host = |e: &config::Endpoint| {
            HeaderValue::from_str(&e.authority()).unwrap_or(HeaderValue::from_static("localhost"))
        };
        Ok(Self {
            hosts: endpoints.iter().map(host).collect(),
            endpoints: endpoints.iter().map(|e| registry.endpoint(e)).collect(),
            timeouts: version.timeouts,
            ejection: version.ejection,
            pool: version.pool,
            http: version.http,
            health: version.health.clone(),
            tls,
            server_name: match (&version.tls.server_name, &version.host) {
                (Some(name), _) | (None, config::HostMode::Name(name)) => Some(name.clone()),
                _ => None,
            },
            concurrency: version.concurrency.map(std::num::NonZeroU32::get),
            in_flight: AtomicU32::new(0),
        })
    }

    /// Chooses an endpoint for an attempt, avoiding `tried`.
    #[must_use]
    pub fn pick(&self, now: Mono, random: u64, tried: Option<usize>) -> Option<&Arc<Endpoint>> {
        balance::pick(&self.endpoints, &self.ejection, now, random, tried)
    }

    /// The Host header of an endpoint of this cluster.
    #[must_use]
    pub fn host_of(&self, endpoint: &Endpoint) -> Option<&HeaderValue> {
        self.endpoints.iter().position(|e| e.id == endpoint.id).and_then(|i| self.hosts.get(i))
    }

    /// Takes one of the version's places, or `None` when all are taken. Free where no bound is set.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let Some(most) = self.concurrency else { return Some(Admitted(None)) };
        let taken = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if taken >= most {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Admitted(Some(Arc::clone(self))))
    }

    /// Endpoints in use and in all.
    #[must_use]
    pub fn health_counts(&self, now: Mono) -> (usize, usize) {
        (self.endpoints.iter().filter(|e| !e.is_out(now)).count(), self.endpoints.len())
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A place in a version's `concurrency`, given back when dropped.
#[derive(Debug)]
pub struct Admitted(Option<Arc<Cluster>>);

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(cluster) = &self.0 {
            cluster.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
