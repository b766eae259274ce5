//! Who is told: notices of rollouts, the outbox that keeps them until they are delivered, and those who receive them.
//!
//! The pure part (`teller`, `near`, `pulse`, `outbox`) says what is told when, and keeps the order; the sending part
//! (`courier`, `lane`, `http`, and one file for each kind of receiver) runs on threads of its own. Nobody awaits it: the
//! evaluator hands a notice over and goes on.

#[cfg(test)]
mod absences;
pub mod alertmanager;
pub mod counts;
pub mod courier;
pub mod heard;
pub mod hooks;
pub mod http;
pub mod lane;
pub mod mail;
#[cfg(test)]
mod mail_trials;
pub mod message;
pub mod near;
pub mod outbox;
pub mod pagerduty;
pub mod pulse;
pub mod signature;
pub mod slack;
pub mod store;
pub mod teller;
pub mod webhook;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod trials;

pub use counts::{Called, Counts, Told};
pub use courier::{Handle, Parts, Tuning, spawn};
pub use message::{Alert, Fact, Gate, Kind, Message, Severity};
pub use store::{Opened, open};
pub use teller::Seen;
