//! Cohorts: units chosen by rule, before the bucket. Rules are compiled by `config`; this file only asks them.

use std::collections::HashSet;
use std::net::IpAddr;

use regex::Regex;

use super::weight::Weight;

/// What a cohort's conditions may ask about one request. Every answer is borrowed; `None` is "not there".
pub trait Ask {
    /// A request header by its lower-case name.
    fn header(&self, name: &str) -> Option<&str>;
    /// A cookie by name.
    fn cookie(&self, name: &str) -> Option<&str>;
    /// A claim of the verified token.
    fn claim(&self, name: &str) -> Option<&str>;
    /// A query parameter, still percent-encoded.
    fn query(&self, name: &str) -> Option<&str>;
    /// The path, without the query.
    fn path(&self) -> &str;
    /// The caller's address.
    fn ip(&self) -> IpAddr;
    /// The unit, as text.
    fn unit(&self) -> Option<&str>;
}

/// Where a condition looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A request header (lower case).
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A claim of the token.
    Claim(String),
    /// A query parameter.
    Query(String),
    /// The path.
    Path,
    /// The unit itself (for lists).
    Unit,
}

/// What the text found there must be.
#[derive(Clone, Debug)]
pub enum Test {
    /// One of these, exactly.
    Is(HashSet<String>),
    /// Begins with one of these.
    Prefix(Vec<String>),
    /// Matches (linear time).
    Regex(Regex),
    /// Merely present.
    Present,
}

impl Test {
    fn holds(&self, text: &str) -> bool {
        match self {
            Test::Is(set) => set.contains(text),
            Test::Prefix(list) => list.iter().any(|p| text.starts_with(p.as_str())),
            Test::Regex(regex) => regex.is_match(text),
            Test::Present => true,
        }
    }
}

/// One condition. All conditions of a cohort must hold.
#[derive(Clone, Debug)]
pub enum Condition {
    /// A text of the request passes a test.
    Text(Subject, Test),
    /// The caller's address lies in one of these networks.
    Ip(Vec<ipnet::IpNet>),
}

impl Condition {
    fn holds(&self, ask: &dyn Ask) -> bool {
        match self {
            Condition::Text(subject, test) => {
                let text = match subject {
                    Subject::Header(name) => ask.header(name),
                    Subject::Cookie(name) => ask.cookie(name),
                    Subject::Claim(name) => ask.claim(name),
                    Subject::Query(name) => ask.query(name),
                    Subject::Path => Some(ask.path()),
                    Subject::Unit => ask.unit(),
                };
                text.is_some_and(|t| test.holds(t))
            }
            Condition::Ip(nets) => nets.iter().any(|net| net.contains(&ask.ip())),
        }
    }
}

/// Where a cohort's units go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// All to the canary. Hand-picked: counted, but outside the comparative gates.
    Canary,
    /// All to stable.
    Stable,
    /// A split inside the cohort: drawn by the same bucket.
    Weight(Weight),
}

/// A named rule.
#[derive(Clone, Debug)]
pub struct Cohort {
    /// Its name, for people and `which`.
    pub name: String,
    /// All must hold.
    pub when: Vec<Condition>,
    /// Where its units go.
    pub to: Destination,
}

impl Cohort {
    /// Whether this request belongs to the cohort.
    #[must_use]
    pub fn matches(&self, ask: &dyn Ask) -> bool {
        self.when.iter().all(|condition| condition.holds(ask))
    }
}
