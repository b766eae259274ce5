//! serin: an inline L7 reverse proxy that releases AI services safely.
//!
//! The map of the house. Flow of a request: `config` → `snapshot` → `proxy` (listener, identity, `split`,
//! `upstream`, forward) → `measure` → `evaluator` (`judge` → `rollout`) → `snapshot::live` → `journal`.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod evaluator;
pub mod http1;
pub mod journal;
pub mod judge;
pub mod measure;
pub mod names;
pub mod notify;
pub mod proxy;
pub mod report;
pub mod rollout;
pub mod signal;
pub mod snapshot;
pub mod split;
pub mod stats;
pub mod tls;
pub mod upstream;
pub mod wire;
