//! The only source of time: a monotonic and a wall clock behind one handle, and a manual one for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::names::{Mono, Wall};

/// A handle to the time of this process. Cheap to clone; clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant, offset_ns: u64 },
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    mono: AtomicU64,
    wall: AtomicI64,
}

impl Clock {
    /// The machine's clocks. Monotonic time counts from 1970 as the wall clock had it at this call, so that evidence
    /// kept by an earlier process lies in the past of this one by as long as it is old.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn system() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset_ns = u64::try_from(since.as_nanos()).unwrap_or(0);
        Self(Source::System { origin: Instant::now(), offset_ns })
    }

    /// A clock that only moves when told, starting at monotonic 0 and the wall time given.
    #[must_use]
    pub fn manual(wall: Wall) -> Self {
        Self(Source::Manual(Arc::new(Manual { mono: AtomicU64::new(0), wall: AtomicI64::new(wall.0) })))
    }

    /// Monotonic now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn now(&self) -> Mono {
        match &self.0 {
            Source::System { origin, offset_ns } => {
                let since = u64::try_from(Instant::now().duration_since(*origin).as_nanos()).unwrap_or(u64::MAX);
                Mono(since.saturating_add(*offset_ns))
            }
            Source::Manual(manual) => Mono(manual.mono.load(Ordering::Relaxed)),
        }
    }

    /// Wall-clock now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn wall(&self) -> Wall {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual(manual) => Wall(manual.wall.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock on; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.mono.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            manual.wall.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// Steps a manual clock's wall time alone, as an operator or NTP would.
    pub fn step_wall(&self, by_ms: i64) {
        if let Source::Manual(manual) = &self.0 {
            manual.wall.fetch_add(by_ms, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Wall(1_000));
        assert_eq!(clock.now(), Mono(0));
        clock.clone().advance(Duration::from_millis(5));
        assert_eq!(clock.now(), Mono(5_000_000));
        assert_eq!(clock.wall(), Wall(1_005));
        clock.step_wall(-86_400_000);
        assert_eq!(clock.now(), Mono(5_000_000));
    }
}
