//! Text in, valid `Config` out: every fault of a file at once, secrets hidden, nothing half-applied.

pub mod check;
mod check_confirm;
mod check_gates;
mod check_notify;
mod check_plan;
mod check_process;
mod check_register;
mod check_rollout;
mod check_unheeded;
mod check_version;
pub mod duration;
pub mod fault;
mod files;
pub mod model;
pub mod model_rollout;
mod raw;
mod read;
pub mod reload;
pub mod secret;
pub mod waiting;

pub use check::{json_of, keys, load, parse};
pub use fault::{Fault, Faults};
pub use model::{
    Admin, Config, Drain, Limits, Listener, Log, LogFormat, LogLevel, NOTICE_KINDS, Notify, NotifyKind, Role, Server,
    ServerTls, SigningKey, Store, TRIGGER_ACTIONS, TlsVersion, Token, Trigger,
};
pub use model_rollout::{
    Baseline, Cohort, CohortTo, Condition, ConfirmHook, Ejection, Endpoint, Evaluator, Exposure, Fallback, Feedback,
    HealthCheck, HostMode, HostRule, HttpVersion, Jwt, JwtKeys, OnSpent, Pattern, Pool, Prices, Query, Rollout, Route,
    Safety, SampleText, Samples, Scheme, Subject, Test, Timeouts, Trace, UnitList, UnitSource, UpstreamTls, Version,
};
pub use secret::Secret;
pub use waiting::waiting;

#[cfg(test)]
mod tests;
