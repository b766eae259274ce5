//! The guard's and the judge's own OS threads: facts in, verdicts carried out, people answered.

pub mod heartbeat;
pub mod mailbox;
pub mod view;

pub use heartbeat::Heartbeat;
pub use mailbox::{Answer, Ask, Command, Letter, Mailbox, Refused};
pub use view::{Board, RolloutView};
