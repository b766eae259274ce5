//! The mathematics of judging: counts in, evidence out. Pure, without time and without rollouts.

pub mod cluster;
pub mod mean;
pub mod plan;
pub mod proportion;
pub mod quantile;
pub mod sketch;
