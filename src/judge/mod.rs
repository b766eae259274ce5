//! Is the canary worse, and is it proven fine? Facts in, a verdict out; pure, with time as an argument.
//!
//! [`Judge`] is one rollout's: it is told [`Fact`]s and ticks, and answers with a [`Verdict`]. [`Breaker`] is its fast
//! part, which also runs alone in the guard thread. [`replay`] runs a judge over a recorded trace.

mod breaker;
mod case;
mod contest;
mod court;
pub mod drift;
mod events;
mod facts;
mod flight;
mod fold;
pub mod forecast;
mod gate;
mod ids;
mod later;
mod means;
pub mod merge;
mod policy;
mod policy_file;
mod reading;
pub mod replay;
mod report;
pub mod show;
mod starts;
mod strata;
mod table;
pub mod trace;
mod trace_write;
mod users;
mod verdict;
mod worst;

pub use breaker::{Breaker, Tripped};
pub use court::{Judge, Stage};
pub use facts::{End, Fact, Flags, Outcome};
pub use fold::CheckpointError;
pub use gate::{Evidence, GateReport, GateResult};
pub(crate) use ids::Ids;
pub use policy::{Comparator, Direction, ErrorStatuses, Margin, Metric, On, Policy, Rule, STALE, Stat};
pub use policy_file::PolicyFault;
pub use trace_write::{Item, MOST_HELD, TraceWriter};
pub use verdict::{Lack, Missing, Verdict};
