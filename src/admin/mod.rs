//! People and scrapers: the admin API, probes, metrics, live events and the dashboard, on a thread of their own.

pub mod answers;
pub mod auth;
pub mod body;
pub mod card;
pub mod change;
pub mod context;
pub mod dashboard;
pub mod error;
pub mod events;
pub mod feedback;
pub mod fetch;
pub mod journal;
pub mod metrics;
pub mod openapi;
pub mod picture;
pub mod probe;
pub mod queries;
pub mod register;
pub mod report;
pub mod reports;
pub mod rollouts;
pub mod router;
pub mod samples;
pub mod serve;
pub mod sessions;
pub mod triggers;
pub mod which;

pub use context::{Context, Parts, Reload, Settle, Side};
pub use error::Problem;
pub use router::{probes_router, router};
pub use serve::{Doors, serve};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
