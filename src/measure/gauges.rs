//! What the data plane tells the scrape beside its requests: connections, limits that were hit, drops, reloads.
//!
//! Written on accept, on close and at a bound, never for an ordinary request, so shared atomics are cheap enough.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::pulse::Pulses;
use crate::names::{Mono, RolloutName, Wall};

/// A bound of the data plane, named after its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `limits.connections`.
    Connections,
    /// `limits.header_read`: a request head that took too long.
    HeaderRead,
    /// `limits.header_bytes`.
    HeaderBytes,
    /// `limits.headers`.
    Headers,
    /// `limits.uri_bytes`.
    UriBytes,
    /// `limits.body_bytes`.
    BodyBytes,
    /// `limits.body_progress`: a body that stood still.
    BodyProgress,
    /// `limits.idle`: a connection that nobody used.
    Idle,
    /// `limits.h2_streams`.
    H2Streams,
    /// `limits.peek_bytes`: a body too large to look at.
    PeekBytes,
    /// `limits.requests_per_connection`.
    RequestsPerConnection,
    /// A version's `concurrency`.
    Concurrency,
    /// `limits.turns`: a turn of a conversation was forgotten while it could still have been asked again.
    Turns,
    /// `limits.feedback_ids`: an exchange of the last day was forgotten.
    FeedbackIds,
    /// `limits.feedback_items`.
    FeedbackItems,
    /// `limits.feedback_per_user`.
    FeedbackPerUser,
}

impl Limit {
    /// All limits, in the order of [`Limit::index`].
    pub const ALL: [Limit; 16] = [
        Limit::Connections,
        Limit::HeaderRead,
        Limit::HeaderBytes,
        Limit::Headers,
        Limit::UriBytes,
        Limit::BodyBytes,
        Limit::BodyProgress,
        Limit::Idle,
        Limit::H2Streams,
        Limit::PeekBytes,
        Limit::RequestsPerConnection,
        Limit::Concurrency,
        Limit::Turns,
        Limit::FeedbackIds,
        Limit::FeedbackItems,
        Limit::FeedbackPerUser,
    ];

    /// Position in [`Limit::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The `limit` label: the key in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::HeaderRead => "header_read",
            Limit::HeaderBytes => "header_bytes",
            Limit::Headers => "headers",
            Limit::UriBytes => "uri_bytes",
            Limit::BodyBytes => "body_bytes",
            Limit::BodyProgress => "body_progress",
            Limit::Idle => "idle",
            Limit::H2Streams => "h2_streams",
            Limit::PeekBytes => "peek_bytes",
            Limit::RequestsPerConnection => "requests_per_connection",
            Limit::Concurrency => "concurrency",
            Limit::Turns => "turns",
            Limit::FeedbackIds => "feedback_ids",
            Limit::FeedbackItems => "feedback_items",
            Limit::FeedbackPerUser => "feedback_per_user",
        }
    }
}

/// The process's gauges: one for all workers, shared by `Arc`.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Open downstream connections. Written by the listeners.
    pub connections: AtomicI64,
    limit_hits: [AtomicU64; Limit::ALL.len()],
    /// Facts for the judge that did not fit a ring, of all workers. Written by the guard.
    pub observations_dropped: AtomicU64,
    /// Whether the last reload took. Written by the reload, at start with success.
    pub reload_good: AtomicBool,
    /// When the last good load of the configuration was, milliseconds since 1970. Written by the reload and at start.
    pub reload_good_at_ms: AtomicI64,
    /// Reloads that were tried, so that followers of events see a new one.
    pub reloads: AtomicU64,
    /// Set once the drain has begun: `/readyz` is 503 from then on.
    pub draining: AtomicBool,
    /// Set once every listener is bound and the workers accept.
    pub serving: AtomicBool,
    /// Rollbacks since the start. Written by the evaluator when it carries out a latch.
    pub rollbacks: Rollbacks,
    /// The workers' signs of life.
    pub pulses: Pulses,
    /// Answers of external queries, by rollout, query and result.
    pub queries: Queries,
}

/// Most queries and results that are counted apart.
const QUERIES_MAX: usize = 16_384;
/// Most pairs of rollout and reason that are counted apart.
const ROLLBACK_REASONS_MAX: usize = 4_096;

/// Rollbacks by rollout and reason: a gate's name, `breaker`, `abort` or `canary_removed`. Never a person's words.
#[derive(Debug, Default)]
pub struct Rollbacks(Mutex<BTreeMap<(RolloutName, String), u64>>);

impl Rollbacks {
    /// A rollout was latched.
    pub fn count(&self, rollout: &RolloutName, reason: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (rollout.clone(), reason.to_owned());
        if all.len() < ROLLBACK_REASONS_MAX || all.contains_key(&key) {
            *all.entry(key).or_default() += 1;
        }
    }

    /// All counts, in the order of names.
    #[must_use]
    pub fn all(&self) -> Vec<(RolloutName, String, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((rollout, reason), count)| (rollout.clone(), reason.clone(), *count)).collect()
    }
}

/// External queries by rollout, query and what came of them. The names are the configuration's.
#[derive(Debug, Default)]
pub struct Queries(Mutex<BTreeMap<(RolloutName, String, &'static str), u64>>);

impl Queries {
    /// A query was answered, or not.
    pub fn count(&self, rollout: &RolloutName, query: &str, result: &'static str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (rollout.clone(), query.to_owned(), result);
        if all.len() < QUERIES_MAX || all.contains_key(&key) {
            *all.entry(key).or_default() += 1;
        }
    }

    /// All counts, in the order of names.
    #[must_use]
    pub fn all(&self) -> Vec<(RolloutName, String, &'static str, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((rollout, query, result), n)| (rollout.clone(), query.clone(), *result, *n)).collect()
    }
}

impl Gauges {
    /// Of so many workers, all alive at `now`.
    #[must_use]
    pub fn new(workers: usize, now: Mono) -> Self {
        Self { pulses: Pulses::new(workers, now), ..Self::default() }
    }

    /// Counts a request or connection that ran into a bound.
    pub fn hit(&self, limit: Limit) {
        if let Some(count) = self.limit_hits.get(limit.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a bound was hit.
    #[must_use]
    pub fn hits(&self, limit: Limit) -> u64 {
        self.limit_hits.get(limit.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// A load of the configuration has ended.
    pub fn reloaded(&self, good: bool, wall: Wall) {
        self.reload_good.store(good, Ordering::Relaxed);
        if good {
            self.reload_good_at_ms.store(wall.0, Ordering::Relaxed);
        }
        self.reloads.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_counts_apart() {
        let gauges = Gauges::default();
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit.index(), index);
            for _ in 0..=index {
                gauges.hit(limit);
            }
        }
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(gauges.hits(limit), index as u64 + 1, "{}", limit.as_str());
        }
    }

    #[test]
    fn a_failed_reload_keeps_the_time_of_the_last_good_one() {
        let gauges = Gauges::default();
        gauges.reloaded(true, Wall(7));
        gauges.reloaded(false, Wall(9));
        assert!(!gauges.reload_good.load(Ordering::Relaxed));
        assert_eq!(gauges.reload_good_at_ms.load(Ordering::Relaxed), 7);
        assert_eq!(gauges.reloads.load(Ordering::Relaxed), 2);
    }
}
