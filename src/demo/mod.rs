//! A rollout to watch: scripted model servers, users who talk to them, scenarios with a known end.
//!
//! Everything here speaks real HTTP over real sockets. Tests use the same server and the same users as `serin demo`.

pub mod answer;
pub mod behaviour;
pub mod client;
pub mod dice;
pub mod line;
pub mod model_server;
pub mod run;
pub mod script;
pub mod seen;
pub mod users;

pub use behaviour::{Fault, Script, Spread};
pub use model_server::ModelServer;
pub use run::{DemoError, Options, Outcome, Pace, Running, run};
pub use script::{SCENARIOS, Scenario};
pub use seen::{Counts, Ended, How, SeenRequest};
pub use users::{Load, Population, Sight, Tally};
