//! Finished exchanges to numbers: recorders for people, rings for the judge, cost.

pub mod answer;
pub mod cost;
pub mod gauges;
pub mod memory;
pub mod observation;
pub mod pulse;
pub mod recorder;
pub mod reference;
pub mod ring;
pub mod sample;

/// What the judge is told, for those who measure.
pub use crate::judge::{End, Fact, Flags, Outcome};
pub use answer::Answer;
pub use gauges::{Gauges, Limit, Rollbacks};
pub use memory::{Memory, SharedMemory};
pub use observation::Observation;
pub use recorder::{Brief, Labels, Recorder, Recorders, Sums};
pub use reference::{Mark, References, Release};
pub use sample::{Sample, SampleSender, SampleStore};
