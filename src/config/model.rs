//! The validated configuration of the process: admin, listeners, limits, drain, store, notifications.
//!
//! Every value here has been checked; whoever holds a [`Config`] never looks at the file again.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::Fault;
use super::model_rollout::Rollout;
use super::secret::Secret;
pub use crate::rollout::Role;
use crate::rollout::calendar::Hours;

/// A whole configuration, valid by construction.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The side of people and scrapers.
    pub admin: Admin,
    /// Where downstream connections are accepted, in the order of the file; at least one.
    pub listeners: Vec<Listener>,
    /// Threads of the data plane.
    pub server: Server,
    /// Logs.
    pub log: Log,
    /// Bounds of the data plane.
    pub limits: Limits,
    /// How the process ends.
    pub drain: Drain,
    /// Journal and evidence on disk; `None` keeps them in memory only.
    pub store: Option<Store>,
    /// Who is told, by name.
    pub notify: Vec<Notify>,
    /// Who may stop rollouts by a signed post.
    pub triggers: Vec<Trigger>,
    /// All rollouts, in the order of the file.
    pub rollouts: Vec<Arc<Rollout>>,
    /// Lawful things that the operator should know: said at start and by `check`.
    pub warnings: Vec<Fault>,
}

impl Config {
    /// The rollout of that name.
    #[must_use]
    pub fn rollout(&self, name: &str) -> Option<&Arc<Rollout>> {
        self.rollouts.iter().find(|rollout| rollout.name.as_str() == name)
    }
}

/// `[admin]`: API, dashboard, probes, metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// TCP address of the API; `None` only where a `socket` stands for it.
    pub listen: Option<SocketAddr>,
    /// A Unix socket with the same API.
    pub socket: Option<PathBuf>,
    /// TLS of `listen`.
    pub tls: Option<ServerTls>,
    /// A second address that serves only /livez, /readyz and /metrics.
    pub probes: Option<SocketAddr>,
    /// Host and Origin names allowed besides the address itself, lower case, without a port.
    pub hosts: Vec<String>,
    /// Who may call; empty is allowed on loopback only, and the actor is then "local".
    pub tokens: Vec<Token>,
}

/// One caller of the admin API.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Token {
    /// The identity written to the journal.
    pub name: String,
    /// What it may do; never empty.
    pub roles: Vec<Role>,
    /// The bearer token.
    pub secret: Secret,
}

/// Certificate and key of a side that accepts connections. The files were opened and parsed by the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM chain, the leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM authorities: with it, callers must show a certificate of theirs.
    pub client_ca: Option<PathBuf>,
    /// The lowest protocol version accepted.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// `[listeners.NAME]`: an address that accepts downstream connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The key under `[listeners]`.
    pub name: String,
    /// Address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// With it: h1 and h2 by ALPN; without: HTTP/1.1 and h2c.
    pub tls: Option<ServerTls>,
    /// Whose `X-Forwarded-*` (and the "ip" unit made of it) is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection begins with a PROXY protocol header (v1 or v2), from a trusted proxy only.
    pub proxy_protocol: bool,
    /// A path that serin answers itself, as /readyz does.
    pub health: Option<String>,
}

impl Listener {
    /// Whether what this peer says about its callers is believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// `[server]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads; `None` is "auto": the CPUs allowed, cgroup quota respected.
    pub workers: Option<NonZeroUsize>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least level written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// File of the access log, one JSON line an exchange.
    pub access: Option<PathBuf>,
}

/// The least level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What may fail soon.
    Warn,
    /// What happened (the default).
    Info,
    /// What happened to each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word, as `tracing` filters read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[limits]`: every bound of the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most downstream connections of the process.
    pub connections: usize,
    /// Requests after which a connection is closed in good order.
    pub requests_per_connection: u64,
    /// Longest wait for a whole request head.
    pub header_read: Duration,
    /// Most bytes of a head.
    pub header_bytes: usize,
    /// Most header fields.
    pub headers: usize,
    /// Longest request target.
    pub uri_bytes: usize,
    /// Most bytes of a request body; a rollout may have its own ([`Rollout::body_bytes`]).
    pub body_bytes: u64,
    /// Longest standstill of a body, either way.
    pub body_progress: Duration,
    /// Longest idle time of a kept downstream connection.
    pub idle: Duration,
    /// Most concurrent HTTP/2 streams of a connection.
    pub h2_streams: u32,
    /// Most bytes of a body that identity or a rewrite may look at.
    pub peek_bytes: usize,
    /// Turns of conversations that are remembered of a rollout with a gate of `regeneration_rate`.
    pub turns: usize,
    /// Request ids, and as many units, that feedback can be matched to; 0: none.
    pub feedback_ids: usize,
    /// Most feedback items of one token in a minute.
    pub feedback_items: u32,
    /// Most feedback items of one token about one user and metric in an hour.
    pub feedback_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            requests_per_connection: 100_000,
            header_read: Duration::from_secs(10),
            header_bytes: 64 << 10,
            headers: 128,
            uri_bytes: 16 << 10,
            body_bytes: 100 << 20,
            body_progress: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            h2_streams: 100,
            peek_bytes: 64 << 10,
            turns: 65_536,
            feedback_ids: 1_000_000,
            feedback_items: 60_000,
            feedback_per_user: 60,
        }
    }
}

/// `[drain]`: how the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long new connections are still accepted after /readyz says no.
    pub delay: Duration,
    /// How long what is in flight may take after that.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Duration::from_secs(600) }
    }
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Directory of journal and evidence.
    pub path: PathBuf,
    /// How long evidence is kept.
    pub retention: Duration,
    /// What signs the journal.
    pub signing_key: Option<SigningKey>,
}

/// The private key that signs the journal.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// The file, to name it.
    pub path: PathBuf,
    /// What was read from it: PEM.
    pub pem: Arc<[u8]>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.path.display())
    }
}

/// `[notify.NAME]`: one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    /// The key under `[notify]`.
    pub name: String,
    /// What speaks there.
    pub kind: NotifyKind,
    /// Where to (may itself be a secret, as Slack's are).
    pub url: Secret,
    /// Signs the body (webhook), is the routing key (pagerduty), or the password of the address's user (email).
    pub secret: Option<Secret>,
    /// Sender (email).
    pub from: Option<String>,
    /// Receivers (email).
    pub to: Vec<String>,
    /// Which kinds of notices, of [`NOTICE_KINDS`]; empty: all that the receiver is for.
    pub events: Vec<String>,
    /// How often a summary is told; `None`: never.
    pub summary: Option<Duration>,
    /// When summaries may be told.
    pub hours: Hours,
    /// How often a sign of life is sent (deadman).
    pub every: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long a notice is tried before it is given up.
    pub keep: Duration,
    /// Most notices that wait.
    pub queue: usize,
    /// PEM authorities of an `https://` receiver or of a mail server, in place of the machine's.
    pub ca: Option<PathBuf>,
}

/// The kinds of notices that a receiver can ask for.
pub const NOTICE_KINDS: [&str; 17] = [
    "started",
    "stage",
    "approval",
    "paused",
    "resumed",
    "deadline",
    "reminder",
    "limit",
    "rollback",
    "aborted",
    "cleared",
    "completed",
    "change",
    "heartbeat",
    "drill",
    "exposure",
    "summary",
];

/// `[triggers.NAME]`: a sender of signed posts that stop rollouts.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The key under `[triggers]`; the journal's actor is `trigger:NAME`.
    pub name: String,
    /// Signs its posts.
    pub secret: Secret,
    /// Which rollouts it may stop; empty: all.
    pub rollouts: Vec<String>,
    /// What it may do; empty: everything that a trigger can.
    pub actions: Vec<String>,
}

/// What a trigger can do.
pub const TRIGGER_ACTIONS: [&str; 2] = ["hold", "abort"];

/// What kind of receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyKind {
    /// A signed JSON post.
    Webhook,
    /// Slack's incoming webhook.
    Slack,
    /// PagerDuty Events v2.
    Pagerduty,
    /// Alertmanager's API v2.
    Alertmanager,
    /// SMTP.
    Email,
    /// A sign of life at regular times: its silence is the alarm.
    Deadman,
}
