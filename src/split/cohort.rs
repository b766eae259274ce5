//! Cohorts: units chosen by rule, before the bucket. `config` compiles the rules; this file asks them.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use super::weight::Weight;

/// What a cohort's conditions may ask about one request. Every answer is borrowed; `None` is "not there", which is what an
/// asker that knows nothing answers.
pub trait Ask {
    /// A request header.
    fn header(&self, _name: &HeaderName) -> Option<&str> {
        None
    }
    /// A cookie by name.
    fn cookie(&self, _name: &str) -> Option<&str> {
        None
    }
    /// A claim of the verified token.
    fn claim(&self, _name: &str) -> Option<&str> {
        None
    }
    /// A query parameter, still percent-encoded.
    fn query(&self, _name: &str) -> Option<&str> {
        None
    }
    /// The path, without the query.
    fn path(&self) -> &str {
        "/"
    }
    /// The caller's address.
    fn ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
    /// The unit, as text.
    fn unit(&self) -> Option<&str> {
        None
    }
}

/// A rule before the bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Cohort {
    /// Its name, for plans and records.
    pub name: String,
    /// All must hold; never empty.
    pub when: Vec<Condition>,
    /// Where its units go.
    pub to: CohortTo,
}

/// Where a cohort's units go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CohortTo {
    /// All to the canary.
    Canary,
    /// All to stable.
    Stable,
    /// A split inside the cohort.
    Weight(Weight),
}

/// One condition of a cohort: what is looked at, and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub subject: Subject,
    /// What it must be.
    pub test: Test,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A claim of the JWT.
    Claim(String),
    /// A query parameter.
    Query(String),
    /// The request's path.
    Path,
    /// The unit itself; the test is [`Test::Listed`].
    Unit,
    /// The caller's address; the test is [`Test::Within`].
    Ip,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// There at all.
    Present,
    /// One of these, exactly.
    Is(Vec<String>),
    /// Begins with one of these.
    Prefix(Vec<String>),
    /// Matches; linear time.
    Regex(Pattern),
    /// Stands in a file.
    Listed(UnitList),
    /// Lies in one of these networks.
    Within(Vec<IpNet>),
}

impl Test {
    /// Whether a text passes. [`Test::Within`] reads it as an address.
    #[must_use]
    pub fn passes(&self, value: &str) -> bool {
        match self {
            Test::Present => true,
            Test::Is(all) => all.iter().any(|one| one == value),
            Test::Prefix(all) => all.iter().any(|one| value.starts_with(one.as_str())),
            Test::Regex(pattern) => pattern.is_match(value),
            Test::Listed(list) => list.contains(value),
            Test::Within(_) => value.parse().is_ok_and(|ip| self.passes_ip(ip)),
        }
    }

    /// Whether an address passes; only [`Test::Within`] can say yes.
    #[must_use]
    pub fn passes_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        matches!(self, Test::Within(nets) if nets.iter().any(|net| net.contains(&ip)))
    }
}

/// A compiled regular expression that compares by its text.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// Compiles a pattern of bounded size.
    ///
    /// # Errors
    /// Not a regular expression, or one that compiles to more than 1 MiB.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        regex::RegexBuilder::new(text).size_limit(1 << 20).build().map(Self)
    }

    /// Whether it matches somewhere in `value`.
    #[must_use]
    pub fn is_match(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Units read from a file. Never printed: units are people.
#[derive(Clone, PartialEq, Eq)]
pub struct UnitList {
    /// The file.
    pub path: PathBuf,
    /// Its units.
    pub units: Arc<HashSet<Box<str>>>,
}

impl UnitList {
    /// Whether the unit stands in the file.
    #[must_use]
    pub fn contains(&self, unit: &str) -> bool {
        self.units.contains(unit)
    }
}

impl fmt::Debug for UnitList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnitList({} units of {})", self.units.len(), self.path.display())
    }
}

impl Cohort {
    /// Whether this request belongs to the cohort: all conditions hold.
    #[must_use]
    pub fn matches(&self, ask: &dyn Ask) -> bool {
        self.when.iter().all(|condition| condition.holds(ask))
    }
}

impl Condition {
    fn holds(&self, ask: &dyn Ask) -> bool {
        let text = match &self.subject {
            Subject::Header(name) => ask.header(name),
            Subject::Cookie(name) => ask.cookie(name),
            Subject::Claim(name) => ask.claim(name),
            Subject::Query(name) => ask.query(name),
            Subject::Path => Some(ask.path()),
            Subject::Unit => ask.unit(),
            Subject::Ip => return self.test.passes_ip(ask.ip()),
        };
        text.is_some_and(|text| self.test.passes(text))
    }
}
