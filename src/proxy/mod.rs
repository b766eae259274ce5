//! The hot path: listeners, connections, one request from top to bottom, bodies, tags.
//!
//! Read `service::handle` first.

pub mod access;
pub mod asking;
pub mod body;
pub mod caller_body;
pub mod claims;
pub mod connection;
pub mod deadlines;
pub mod downlink;
pub mod editing;
pub mod error;
pub mod exchange;
pub mod feedback;
pub mod fence;
pub mod forward;
pub mod h1;
mod h2;
mod hangup;
mod head;
pub mod headers;
pub mod identity;
pub mod listener;
pub mod peek;
pub mod proxy_protocol;
pub mod sampling;
pub mod service;
pub mod tag;
pub mod thread;
pub mod tunnel;
mod unchosen;
pub mod worker;

pub use listener::{Handed, Listening, WorkerHandle};
pub use thread::Shutdown;
