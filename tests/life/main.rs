//! A rollout's life on real sockets: shares, kills, breaks, reloads, restarts, ends. One binary, one module a subject.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers fail by panicking and print what they measured"
)]

mod breaks;
mod client;
mod fixture;
mod kills;
mod latches;
mod reloads;
mod shares;
mod sockets;
