//! Towards the models: clusters, endpoints, balancing, pools, connecting, health.

pub mod balance;
pub mod cluster;
pub mod connect;
pub mod endpoint;
pub mod exchange;
pub mod h1;
pub mod health;
pub mod pool;

pub use cluster::{Admitted, Cluster};
pub use connect::ConnectError;
pub use endpoint::{Endpoint, InFlight, Registry};
pub use exchange::{AnswerBody, AnswerFault, Fate, SendError, SendFailed};
pub use pool::{Lease, Pool};
