//! What was decided, so that it survives and can be proved: an append-only, hash-chained, fsynced journal.
//!
//! Appending happens on a thread of its own behind a bounded queue: a rise waits for its record's completion, a drop
//! never waits. Replaying the journal restores the state of every rollout; `evidence` keeps what changes too often
//! for it.

pub mod chain;
pub mod evidence;
pub mod file;
#[cfg(test)]
mod latched;
pub mod record;
pub mod recover;
pub mod sign;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod trials;
pub mod writer;

pub use evidence::{Evidence, Kept};
pub use file::{Faults, Medium};
pub use record::{Body, Checkpoint, Entry, Latched};
pub use recover::{Broken, OpenError, Recovered, Signed, Summary, Torn, verify, verify_signed, visit};
pub use sign::{KeyError, Signature, Signer, Verifier};
pub use writer::{Done, Failure, Full, Health, Journal, Options};
