//! A rollout's life on real sockets: shares, kills, breaks, reloads, restarts, ends. One binary, one module a subject.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod client;
mod fixture;
mod kills;
mod latches;
mod shares;
