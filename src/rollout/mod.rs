//! What to do about a verdict: the plan, the events, and the pure state machine that every rollout lives in.
//!
//! `machine::step` is total and does no I/O: time comes in, effects go out as data, in the order in which they
//! must be carried out (down: publish, record, tell; up: record, publish, tell).

pub mod calendar;
pub mod confirm;
#[cfg(test)]
mod confirmed;
mod drill;
pub mod effect;
pub mod event;
mod exposure;
mod file;
#[cfg(test)]
mod groups;
mod invariants;
#[cfg(test)]
mod laws;
pub mod lockstep;
pub mod machine;
mod moves;
pub mod numbers;
pub mod plan;
pub mod record;
pub mod register;
#[cfg(test)]
mod registered;
pub mod state;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;
mod verbs;
#[cfg(test)]
mod worlds;

pub use crate::judge::{GateResult, On};
pub use calendar::{Freeze, Hours, NotBefore};
pub use confirm::{Confirm, ConfirmGate, Hook, Question};
pub use effect::{Cohorts, Effect, Notice, Refusal, RefusalKind, Tidings};
pub use event::{Actor, Event, Now, Role, Verb, VerbArgs};
pub use machine::{allowed, possible_beside, reconcile, step, waits_for};
pub use numbers::{Exposed, GateNumbers, Numbers};
pub use plan::{Approval, PRESETS, Plan, SecondVersion, Stage, Start};
pub use record::{Decision, Record};
pub use register::{Registration, ReleaseKind, RiskClass, Threshold};
pub use state::{Drill, Lacking, Latch, Paused, Phase, Proof, State, Target, Terms};
