//! A simulator with known truth: traffic of many kinds, faults, the judge, rival rules, and a judge that is told the onset.
//!
//! `tests/simulation.rs` runs a few dozen stages of it, `examples/simulate.rs` makes the tables of `docs/evaluator.md`.

pub mod dice;
pub mod exact;
pub mod foretold;
pub mod harm;
pub mod kinds;
pub mod rivals;
pub mod run;
pub mod traffic;
