//! The validated configuration of one rollout: route, units, cohorts, versions, evaluator.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::model::TlsVersion;
use super::secret::Secret;
use crate::judge::{Metric, Policy};
use crate::names::{RolloutName, Script, VersionName};
use crate::rollout::{Hook, Plan, Registration};
use crate::split::Weight;
use crate::wire::{Protocol, Rewrite, SafetyRules};

/// `[rollouts.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// The key under `[rollouts]`.
    pub name: RolloutName,
    /// Which requests come here.
    pub route: Route,
    /// How answers are read.
    pub protocol: Protocol,
    /// Where the unit is looked for, first that is present.
    pub unit: Vec<UnitSource>,
    /// How claims are verified; `None` where no claim is used.
    pub jwt: Option<Jwt>,
    /// Stands for the secret of the store in the seed of buckets.
    pub salt: Option<Secret>,
    /// Whether answers carry `Serin-*`.
    pub tag_responses: bool,
    /// When stable answers in the canary's place.
    pub fallback: Fallback,
    /// Whether feedback may name answers here.
    pub feedback: Feedback,
    /// How much of the canary may be seen in all.
    pub exposure: Exposure,
    /// What of an answer counts as a safety violation.
    pub safety: Safety,
    /// Samples for scorers; `None`: none are taken.
    pub samples: Option<Samples>,
    /// Where a replayable trace is written.
    pub trace: Option<Trace>,
    /// Most bytes of a request body here: the rollout's own, or that of `[limits]`.
    pub body_bytes: u64,
    /// Rules before the bucket, in order.
    pub cohorts: Arc<[Cohort]>,
    /// What everybody had before.
    pub stable: Version,
    /// What is under release; `None`: stable serves all.
    pub canary: Option<Version>,
    /// The control slice.
    pub baseline: Baseline,
    /// Without a plan: the canary's fixed share (0 when none is written).
    pub weight: Option<Weight>,
    /// The stages; either this or `weight` is there, never both.
    pub plan: Option<Arc<Plan>>,
    /// What is judged and how strictly: the gates of the file, or the default ones.
    pub policy: Arc<Policy>,
    /// How the evaluator runs.
    pub evaluator: Evaluator,
    /// Prometheus queries that gates name.
    pub queries: Vec<Query>,
    /// The canary's entry in the register.
    pub register: Option<Arc<Registration>>,
    /// Whom to ask before a rise, whether to roll back, and who is told of each event.
    pub confirm: Vec<Arc<ConfirmHook>>,
    /// Whom to ask about this release; told with every notice.
    pub contact: Option<String>,
}

impl Rollout {
    /// Whether a gate asks if answers have the shape that their requests declare.
    #[must_use]
    pub fn judges_shapes(&self) -> bool {
        self.judges(&Metric::SchemaInvalid)
    }

    /// Whether a gate compares the languages of answers.
    #[must_use]
    pub fn judges_languages(&self) -> bool {
        Script::ALL.into_iter().any(|script| self.judges(&Metric::Script(script)))
    }

    /// Whether a gate asks how often an answer is asked for again.
    #[must_use]
    pub fn judges_regenerations(&self) -> bool {
        self.judges(&Metric::Regeneration)
    }

    fn judges(&self, metric: &Metric) -> bool {
        self.evaluator.enabled && self.canary.is_some() && self.policy.rules.iter().any(|rule| rule.metric == *metric)
    }
}

/// `[rollouts.NAME.confirm.NAME]`: a webhook by one of Flagger's names.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfirmHook {
    /// The key under `confirm`.
    pub name: String,
    /// When it is called.
    pub hook: Hook,
    /// Where it is called.
    pub url: Secret,
    /// Signs the calls.
    pub secret: Option<Secret>,
    /// How long one call may take.
    pub timeout: Duration,
    /// How often it is asked while its answer is wanted.
    pub every: Duration,
    /// What its receiver knows as the namespace.
    pub namespace: String,
    /// What its receiver is told besides; may hold a token.
    pub metadata: Vec<(String, Secret)>,
    /// PEM authorities of an `https://` receiver instead of the machine's.
    pub ca: Option<PathBuf>,
}

impl ConfirmHook {
    /// How long a yes is good for: two of its calls may fail before it is no yes any more.
    #[must_use]
    pub fn valid(&self) -> Duration {
        self.every.saturating_mul(3).saturating_add(self.timeout)
    }
}

/// Which requests come to a rollout: host, then the longest path prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Rule for the host, without its port.
    pub host: HostRule,
    /// Begins with `/`; matches whole segments: `/v1` takes `/v1` and `/v1/x`, not `/v1x`. A trailing `/` is dropped (except `/`).
    pub path_prefix: String,
}

impl Route {
    /// Whether this path lies under the prefix, by whole segments.
    #[must_use]
    pub fn takes_path(&self, path: &str) -> bool {
        match path.strip_prefix(self.path_prefix.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.path_prefix.ends_with('/'),
            None => false,
        }
    }
}

/// Rule for a host name. The order is that of precedence: exact, then the longest suffix, then any.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostRule {
    /// This name, lower case.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name below it.
    Suffix(String),
    /// `*`.
    Any,
}

impl HostRule {
    /// Whether this host (without a port) is meant; letters of either case.
    #[must_use]
    pub fn takes(&self, host: &str) -> bool {
        match self {
            HostRule::Any => true,
            HostRule::Exact(name) => name.eq_ignore_ascii_case(host),
            HostRule::Suffix(suffix) => {
                host.len() > suffix.len()
                    && host
                        .as_bytes()
                        .get(host.len() - suffix.len()..)
                        .is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

/// Where a unit is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitSource {
    /// A request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A claim of the bearer's JWT (`a.b` is a claim inside a claim).
    Jwt(String),
    /// A field of the JSON body, by JSON pointer (`/user`).
    Body(String),
    /// A query parameter.
    Query(String),
    /// The caller's address (of the forwarded chain where the peer is trusted).
    Ip,
}

/// How claims of a JWT are believed.
#[derive(Clone, Debug, PartialEq)]
pub enum Jwt {
    /// Signature checked with these keys.
    Verified {
        /// The file, for a reload.
        path: PathBuf,
        /// What was read from it.
        keys: JwtKeys,
    },
    /// Believed as they stand: somebody before serin has verified them.
    Unverified,
}

/// Keys that verify a JWT.
#[derive(Clone, PartialEq)]
pub enum JwtKeys {
    /// A JSON Web Key Set.
    Jwks(Arc<jsonwebtoken::jwk::JwkSet>),
    /// A public key in PEM (RSA, EC or Ed25519).
    Pem(Arc<[u8]>),
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtKeys::Jwks(set) => write!(f, "Jwks({} keys)", set.keys.len()),
            JwtKeys::Pem(_) => f.write_str("Pem(hidden)"),
        }
    }
}

/// When stable answers in the canary's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Never.
    None,
    /// When no connection to the canary could be made.
    Connect,
    /// Whenever no byte of an answer has come and the request can be sent again.
    BeforeFirstByte,
}

/// By what feedback may name an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// Answers carry `Serin-Ref`.
    pub references: bool,
    /// Request ids and units are remembered.
    pub remembers: bool,
}

/// What of an answer counts as a safety violation, in both arms alike. A feedback event `safety` always does.
#[derive(Clone, Debug, PartialEq)]
pub struct Safety {
    /// A response header or trailer that says so.
    pub header: Option<HeaderName>,
    /// The provider's own content filter stopped the answer.
    pub content_filter: bool,
    /// What an answer may not say.
    pub rules: Option<SafetyRules>,
}

/// Samples of exchanges for scorers.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Of exchanges, 0 to 1, in each arm alike.
    pub share: f64,
    /// Most that are kept of this rollout.
    pub keep: usize,
    /// Most bytes of a request and of an answer.
    pub bytes: usize,
    /// What of texts is kept.
    pub text: SampleText,
    /// Where each batch is sent to.
    pub push: Option<Secret>,
}

/// What a sample keeps of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleText {
    /// Nothing.
    None,
    /// All but what names a person or opens a door.
    #[default]
    Redacted,
    /// As it passed.
    Full,
}

/// What tokens cost, in whole 10⁻¹² dollars a token: millionths of a dollar a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// A token of input.
    pub input_pico: u64,
    /// A token of input read from a cache.
    pub cached_input_pico: u64,
    /// A token of input written into a cache.
    pub cache_write_pico: u64,
    /// A token of output.
    pub output_pico: u64,
}

/// How much of the canary may be seen in all; `None` has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Distinct users.
    pub max_users: Option<u64>,
    /// Requests.
    pub max_requests: Option<u64>,
    /// Tokens of every kind, each counted once: input, fresh or by way of a cache, and output.
    pub max_tokens: Option<u64>,
    /// Billionths of a dollar.
    pub max_cost_nano: Option<u64>,
    /// What happens when one of them is reached.
    pub on: OnSpent,
}

/// What happens when an exposure budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSpent {
    /// The weight stays, and rises no further.
    #[default]
    Hold,
    /// The canary goes to 0, paused and not latched.
    Stop,
}

impl OnSpent {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OnSpent::Hold => "hold",
            OnSpent::Stop => "stop",
        }
    }
}

/// Where a replayable trace is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The file.
    pub path: PathBuf,
    /// Writing stops at this size.
    pub max_bytes: u64,
}

pub use crate::split::{Cohort, CohortTo, Condition, Pattern, Subject, Test, UnitList};

/// `[rollouts.NAME.stable]` and `canary`: one version and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The version's name.
    pub name: VersionName,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// What is spoken upstream.
    pub http: HttpVersion,
    /// Host (and SNI) sent.
    pub host: HostMode,
    /// Taken off the front of the path (whole segments).
    pub strip_prefix: Option<String>,
    /// Put in front of the path after that.
    pub add_prefix: Option<String>,
    /// What is put into request bodies.
    pub rewrite: Option<Rewrite>,
    /// Headers set on the way up; values are marked sensitive.
    pub headers_set: Vec<(HeaderName, HeaderValue)>,
    /// Headers removed on the way up.
    pub headers_remove: Vec<HeaderName>,
    /// TLS towards `https://` endpoints.
    pub tls: UpstreamTls,
    /// Most requests in flight to this version; `None` has no bound.
    pub concurrency: Option<NonZeroU32>,
    /// Deadlines of one exchange.
    pub timeouts: Timeouts,
    /// Active health checks.
    pub health: Option<HealthCheck>,
    /// Passive ejection of endpoints.
    pub ejection: Ejection,
    /// Kept connections.
    pub pool: Pool,
    /// The version's own prices, or the rollout's.
    pub prices: Option<Prices>,
}

/// One upstream address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port; 80 or 443 when none is written.
    pub port: u16,
}

impl Endpoint {
    /// `host:port`, without the port where it is the scheme's own: the Host header.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.scheme == Scheme::Https { "https" } else { "http" }, self.authority())
    }
}

/// Plain or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `http://`.
    Http,
    /// `https://`.
    Https,
}

impl Scheme {
    /// The port when none is written.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// What is spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// By ALPN; plain connections speak HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 (prior knowledge on plain connections).
    Http2,
}

/// Which Host (and SNI) is sent upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMode {
    /// The endpoint's own.
    Upstream,
    /// The caller's.
    Pass,
    /// This name.
    Name(String),
}

/// TLS towards `https://` endpoints. The files were opened and parsed by the check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM authorities instead of the machine's.
    pub ca: Option<PathBuf>,
    /// PEM client chain and its key; both or neither.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name asked for and verified instead of the Host's.
    pub server_name: Option<String>,
    /// The lowest protocol version; `None`: 1.2.
    pub min_version: Option<TlsVersion>,
}

/// Deadlines of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request sent to the response head.
    pub first_byte: Duration,
    /// Between two chunks of the answer.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), first_byte: Duration::from_secs(600), idle: Duration::from_secs(60) }
    }
}

/// Active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Asked with GET; 2xx is healthy.
    pub path: String,
    /// How often.
    pub interval: Duration,
}

/// Passive ejection of endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// For how long.
    pub for_: Duration,
    /// The largest share of endpoints that may be out, 0 to 1.
    pub at_most: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, for_: Duration::from_secs(10), at_most: 0.5 }
    }
}

/// Kept upstream connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Most idle connections kept to one endpoint, by the process.
    pub idle: usize,
    /// How long one is kept.
    pub idle_for: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: 64, idle_for: Duration::from_secs(60) }
    }
}

/// The control slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Whether it is marked.
    pub enabled: bool,
    /// A fresh deployment of stable, reached as stable is; empty: stable's own endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// `[rollouts.NAME.evaluator]`: what is not part of the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluator {
    /// `false`: a plain split, no gates, no breaker.
    pub enabled: bool,
    /// A heartbeat older than this freezes every rise.
    pub heartbeat_timeout: Duration,
    /// How often a rollback is rehearsed.
    pub drill_every: Option<Duration>,
}

/// `[rollouts.NAME.queries.NAME]`: a Prometheus query that a gate names.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The key under `queries`; the gate is `prometheus:NAME`.
    pub name: String,
    /// The server's address.
    pub url: Secret,
    /// PromQL for stable.
    pub stable: String,
    /// PromQL for the canary.
    pub canary: String,
    /// How often.
    pub interval: Duration,
    /// Silent for longer holds.
    pub stale: Duration,
    /// Breaches in a row that fail.
    pub for_: u32,
}
