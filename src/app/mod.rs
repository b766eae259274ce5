//! The composition root: the one area that knows every part. Binds, starts threads, reloads, drains, and the commands
//! that need more than the command line knows.

pub mod demo;
mod drill;
pub mod error;
mod hooks;
mod notices;
pub mod offline;
pub mod plan;
pub mod reload;
pub mod run;
pub mod sockets;
pub mod start;
pub mod store;

pub use error::StartError;
pub use sockets::Bound;
pub use start::{Serin, start};
