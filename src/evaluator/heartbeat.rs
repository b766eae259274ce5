//! The judge's sign of life: one atomic, written after every turn, read by scrapes, admin and the guard.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::names::{Mono, Wall};

/// When the evaluator last finished a turn. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<Beats>);

#[derive(Debug, Default)]
struct Beats {
    mono: AtomicU64,
    wall_ms: AtomicI64,
}

impl Heartbeat {
    /// A turn has ended.
    pub fn beat(&self, now: Mono, wall: Wall) {
        self.0.mono.store(now.0, Ordering::Relaxed);
        self.0.wall_ms.store(wall.0, Ordering::Relaxed);
    }

    /// How long ago the last turn ended.
    #[must_use]
    pub fn age(&self, now: Mono) -> Duration {
        now.since(Mono(self.0.mono.load(Ordering::Relaxed)))
    }

    /// When that was, seconds since 1970, for the metric.
    #[must_use]
    pub fn timestamp_seconds(&self) -> f64 {
        self.0.wall_ms.load(Ordering::Relaxed) as f64 / 1e3
    }
}
