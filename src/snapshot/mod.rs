//! What a request reads: immutable tables, the one cell they live in, and how they are built.

pub mod build;
pub mod fall;
pub mod live;
pub mod rehearsal;
pub mod table;

pub use build::{BuildError, Builder, Prepared};
pub use fall::GROUP;
pub use live::{Live, LiveCache};
pub use table::{Fixed, Latch, Marks, Rollout, RouteTable, Runtime, Snapshot, Target};
