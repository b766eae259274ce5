//! Text in, valid `Config` out: every fault of a file at once, secrets hidden, nothing half-applied.

pub mod model;
pub mod model_rollout;
pub mod secret;

pub use model::{
    Admin, Config, Drain, Limits, Listener, Log, LogFormat, LogLevel, Notify, NotifyKind, Role, Server, ServerTls,
    Store, TlsVersion, Token,
};
pub use model_rollout::{
    Baseline, Cohort, CohortTo, Condition, Ejection, Endpoint, Evaluator, Exposure, Fallback, HealthCheck, HostMode,
    HostRule, HttpVersion, Jwt, JwtKeys, Pattern, Pool, Prices, Protocol, Query, Rollout, Route, Scheme, Subject, Test,
    Timeouts, Trace, UnitList, UnitSource, UpstreamTls, Version,
};
pub use secret::Secret;
