//! The guard's and the judge's own OS threads: facts in, verdicts carried out, people answered.

pub mod case;
pub mod distinct;
pub mod effects;
pub mod exposure;
pub mod guard;
pub mod heartbeat;
pub mod mailbox;
pub mod picture;
mod reload;
pub mod threads;
pub mod tracer;
#[cfg(test)]
mod trials;
pub mod turn;
pub mod view;

pub use effects::{Notifier, ToLog, World};
pub use guard::record_latches;
pub use heartbeat::Heartbeat;
pub use mailbox::{Answer, Ask, Command, Confirmed, Drilled, Letter, Mailbox, Refused, Reload, Taken};
pub use view::{Board, RolloutView};
