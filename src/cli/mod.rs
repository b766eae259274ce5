//! The terminal: arguments, a small client of the admin API, and screens. It speaks to a running serin, never reaches into one.

pub mod args;
pub mod client;
pub mod local;
pub mod place;
pub mod register;
pub mod remote;
pub mod screen;
pub mod seen;
#[cfg(test)]
mod tests;

pub use args::{Command, DemoArgs, Globals, Output, PlanArgs, ReplayArgs, ReportArgs, parse};
pub use local::{Local, perform};
pub use remote::{Deed, Remote, Streams, ask, ask_blocking};
