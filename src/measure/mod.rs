//! Finished exchanges to numbers: recorders for people, rings for the judge, cost.

pub mod cost;
pub mod gauges;
pub mod observation;
pub mod pulse;
pub mod recorder;
pub mod ring;

/// What the judge is told, for those who measure.
pub use crate::judge::{End, Fact, Flags, Outcome};
pub use gauges::{Gauges, Limit, Rollbacks};
pub use observation::Observation;
pub use recorder::{Labels, Recorder, Recorders, Sums};
