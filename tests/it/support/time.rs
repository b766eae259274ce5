//! Time of the tests: how long they wait, and for what.

use std::time::Duration;

use serin::clock::Clock;
use serin::names::Mono;

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long something that must not come is waited for.
pub const A_MOMENT: Duration = Duration::from_millis(60);

/// The real time.
pub fn clock() -> Clock {
    static CLOCK: std::sync::OnceLock<Clock> = std::sync::OnceLock::new();
    CLOCK.get_or_init(Clock::system).clone()
}

/// The time now.
pub fn now() -> Mono {
    clock().now()
}

/// Looks until `done` says so; fails with `what` when it never does.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(now().since(start) < PATIENCE, "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
