//! Who gets which version: units, buckets, weights, cohorts and the choice. Pure.

pub mod weight;

pub use weight::Weight;
