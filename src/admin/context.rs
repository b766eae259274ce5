//! What every handler of the admin side is given.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::answers::Answers;
use super::events::Feed;
use super::feedback::Shown;
use super::reports::Reports;
use super::sessions::Sessions;
use crate::clock::Clock;
use crate::evaluator::{Board, Heartbeat, Mailbox};
use crate::journal::Journal;
use crate::measure::{Gauges, Recorders, References, SampleSender, SampleStore, SharedMemory};
use crate::names::RolloutName;
use crate::notify::Counts;
use crate::snapshot::{Live, Snapshot};

/// Loads the configuration file again, all or nothing. Called on a thread that may block.
pub type Reload = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Waits until every worker has sent what it had decided to send before.
pub type Settle = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What `app` supplies.
#[derive(Clone)]
pub struct Parts {
    /// The snapshot in force; tokens and hosts are those of its configuration, so a reload takes them along.
    pub live: Live,
    /// The rollouts as the evaluator last posted them.
    pub board: Board,
    /// The way to the evaluator.
    pub mailbox: Mailbox,
    /// The evaluator's sign of life.
    pub heartbeat: Heartbeat,
    /// All counters.
    pub recorders: Arc<Recorders>,
    /// What is no request.
    pub gauges: Arc<Gauges>,
    /// Time.
    pub clock: Clock,
    /// Loads the configuration again.
    pub reload: Reload,
    /// The fence behind an abort.
    pub settle: Settle,
    /// What was decided.
    pub journal: Arc<Journal>,
    /// What became of notices.
    pub told: Arc<Counts>,
    /// Exchanges and units of the last day, for feedback.
    pub memory: SharedMemory,
    /// Samples for scorers, and how many found no room.
    pub samples: (SampleStore, SampleSender),
    /// What opens references and hashes request ids.
    pub references: Arc<References>,
}

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A TCP listener at this address.
    Tcp {
        /// Where it listens.
        local: SocketAddr,
        /// Whether TLS is spoken there.
        tls: bool,
    },
    /// The Unix socket: whoever may open it is on this machine.
    Unix,
}

/// What every handler is given. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
    /// The door.
    pub side: Side,
}

struct Shared {
    parts: Parts,
    answers: Answers,
    sessions: Sessions,
    feed: Feed,
    shown: Shown,
    reports: Reports,
}

impl Context {
    /// A context of these parts, for requests that come through `side`.
    #[must_use]
    pub fn new(parts: Parts, side: Side) -> Self {
        let feed = Feed::new(parts.clock.wall());
        let shared = Shared {
            parts,
            feed,
            answers: Answers::default(),
            sessions: Sessions::default(),
            shown: Shown::default(),
            reports: Reports::default(),
        };
        Self { shared: Arc::new(shared), side }
    }

    /// The same context behind another door.
    #[must_use]
    pub fn on(&self, side: Side) -> Self {
        Self { shared: Arc::clone(&self.shared), side }
    }

    /// What `app` supplied.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.shared.parts
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.parts.live.load()
    }

    /// Answers kept for `Idempotency-Key`.
    #[must_use]
    pub fn answers(&self) -> &Answers {
        &self.shared.answers
    }

    /// Logged-in browsers.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// Live events.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.shared.feed
    }

    /// Feedback that is shown and not judged.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shared.shown
    }

    /// What reporters have sent, and how much they may.
    #[must_use]
    pub fn reports(&self) -> &Reports {
        &self.shared.reports
    }

    /// How long ago the evaluator finished a turn.
    #[must_use]
    pub fn heartbeat_age(&self) -> Duration {
        self.shared.parts.heartbeat.age(self.shared.parts.clock.now())
    }

    /// Whether the evaluator is silent for longer than this rollout allows.
    #[must_use]
    pub fn is_stale(&self, snapshot: &Snapshot, rollout: &RolloutName) -> bool {
        let allowed = snapshot
            .config
            .rollout(rollout.as_str())
            .map_or(Duration::from_secs(10), |one| one.evaluator.heartbeat_timeout);
        self.heartbeat_age() > allowed
    }
}
