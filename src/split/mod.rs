//! Who gets which version: units, buckets, weights, cohorts and the choice. Pure.

pub mod bucket;
pub mod choose;
pub mod cohort;
pub mod unit;
pub mod weight;

pub use bucket::Bucket;
pub use choose::{Choice, OpenCohorts, Table, Why, choose};
pub use cohort::{Ask, Cohort, CohortTo, Condition, Pattern, Subject, Test, UnitList};
pub use unit::{Seed, Unit, UnitKey};
pub use weight::Weight;
