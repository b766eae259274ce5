//! A rollout's life on real sockets: shares, kills, breaks, reloads, restarts, ends. One binary, one module a subject.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers fail by panicking and print what they measured"
)]

mod bench;
mod breaks;
mod client;
mod cohorts;
mod confirmed;
mod crashes;
mod disks;
mod ends;
mod fixture;
mod frozen;
mod groups;
mod heartbeat;
mod kills;
mod latches;
mod nearing;
mod object;
mod process;
mod receiver;
mod registered;
mod reloads;
mod restarts;
mod secrecy;
mod shares;
mod signed;
mod sockets;
mod unjudged;
mod verbs;
mod versions;
mod weights;
