//! Is the canary worse, and is it proven fine? Facts in, a verdict out; pure, with time as an argument.
//!
//! [`Judge`] is one rollout's: it is told [`Fact`]s and ticks, and answers with a [`Verdict`]. [`Breaker`] is its fast
//! part, which also runs alone in the guard thread. [`replay`] runs a judge over a recorded trace.

mod breaker;
mod court;
mod facts;
mod gate;
mod policy;
mod verdict;

pub use breaker::{Breaker, Tripped};
pub use court::{CheckpointError, Judge, Stage};
pub use facts::{End, Fact, Flags, Outcome};
pub use gate::{Evidence, GateReport, GateResult};
pub use policy::{Comparator, Direction, ErrorStatuses, Margin, Metric, On, Policy, Rule, STALE, Stat};
pub use verdict::{Lack, Missing, Verdict};
