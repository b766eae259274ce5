//! Finished exchanges to numbers: recorders for people, rings for the judge, cost.

pub mod cost;
pub mod gauges;
pub mod observation;
pub mod recorder;
pub mod ring;

pub use gauges::{Gauges, Limit, Rollbacks};
pub use observation::Observation;
pub use recorder::{Labels, Recorder, Recorders, Sums};
