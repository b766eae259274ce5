//! What one request reads: routes, splits, targets. Immutable; a change publishes a new one.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;

use crate::config;
use crate::measure::{Recorder, References, Release};
use crate::names::{Arm, VersionName, Wall};
use crate::split::{self, Choice, OpenCohorts, Seed, Unit, Weight};
use crate::upstream::Cluster;
use crate::wire::history::Memory;

/// The immutable tables of one generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises with every publication.
    pub generation: u64,
    /// Every rollout, in the order of the configuration.
    pub rollouts: Box<[Arc<Rollout>]>,
    /// Where hosts and paths lead; shared while the configuration stays.
    pub routes: Arc<RouteTable>,
    /// Where requests count that reach no rollout.
    pub unrouted: Arc<Recorder>,
    /// The configuration in force.
    pub config: Arc<config::Config>,
    /// The phantom of a drill under way: no route leads to it.
    pub rehearsal: Option<Arc<Rollout>>,
}

impl Snapshot {
    /// The rollout of that name.
    #[must_use]
    pub fn rollout(&self, name: &str) -> Option<&Arc<Rollout>> {
        self.rollouts.iter().find(|r| r.fixed.config.name.as_str() == name)
    }
}

/// One rollout as requests see it: what the file says, and where its life stands.
#[derive(Debug)]
pub struct Rollout {
    /// What changes only by a reload.
    pub fixed: Arc<Fixed>,
    /// What the evaluator and people change.
    pub runtime: Runtime,
    /// The split, made of both.
    pub split: split::Table,
}

/// The part of a rollout that is its configuration, resolved.
#[derive(Debug)]
pub struct Fixed {
    /// The configuration.
    pub config: Arc<config::Rollout>,
    /// The rollout's number in this process: never used again for another name.
    pub slot: u32,
    /// `Serin-Rollout`.
    pub name_header: HeaderValue,
    /// Seed of the keyed hashes by which statistics know units.
    pub key_seed: Seed,
    /// By what feedback names its answers.
    pub marks: Marks,
    /// What is read off request bodies.
    pub asks: Asks,
    /// By [`Arm::index`].
    pub targets: [Target; 3],
}

/// What the gates of a rollout want to know of bodies beside the usual facts. Where they want nothing, nothing is looked at.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    /// The shape that an answer is to have.
    pub schema: bool,
    /// The language or writing of answers.
    pub script: bool,
    /// Which turns of conversations were asked.
    pub turns: Option<Arc<Memory>>,
    /// The seed of their fingerprints.
    pub turn_seed: u64,
}

impl Asks {
    /// Whether there is anything to look for in requests.
    #[must_use]
    pub const fn of_requests(&self) -> bool {
        self.schema || self.turns.is_some()
    }
}

/// By what feedback names the answers of a rollout.
#[derive(Clone, Debug)]
pub struct Marks {
    /// Seals and hashes; one for the process.
    pub references: Arc<References>,
    /// The number of this rollout and its canary.
    pub release: Release,
    /// Answers carry `Serin-Ref`.
    pub seals: bool,
    /// Request ids are remembered.
    pub remembers: bool,
}

impl Marks {
    /// The key under which a request id is remembered; 0 where none is.
    #[must_use]
    pub fn request(&self, id: &[u8]) -> u64 {
        if self.remembers { self.references.id(id) } else { 0 }
    }
}

/// Where an arm's requests go and how its answers are marked.
#[derive(Clone, Debug)]
pub struct Target {
    /// The arm.
    pub arm: Arm,
    /// The version that serves it.
    pub version: VersionName,
    /// Its endpoints.
    pub cluster: Arc<Cluster>,
    /// Its counters.
    pub recorder: Arc<Recorder>,
    /// How it is reached: rewrites, headers.
    pub settings: Arc<config::Version>,
    /// `Serin-Version`.
    pub version_header: HeaderValue,
    /// Prices of its tokens.
    pub prices: Option<config::Prices>,
}

/// The part of a rollout that lives: written by the evaluator and the kill switch, kept across reloads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runtime {
    /// The canary's desired share; 0 as soon as the latch is set.
    pub weight: Weight,
    /// Set by a rollback.
    pub latch: Option<Arc<Latch>>,
    /// Which cohorts may go to the canary.
    pub open: OpenCohorts,
}

/// Why the weight stays 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latch {
    /// When.
    pub at: Wall,
    /// Who or what set it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Rollout {
    /// Puts the two halves together.
    #[must_use]
    pub fn new(fixed: Arc<Fixed>, runtime: Runtime, seed: Seed) -> Self {
        let latched = runtime.latch.is_some();
        let split = split::Table {
            seed,
            weight: if latched { Weight::ZERO } else { runtime.weight },
            baseline: fixed.config.baseline.enabled && fixed.config.canary.is_some(),
            latched,
            cohorts: Arc::clone(&fixed.config.cohorts),
            open: runtime.open.clone(),
        };
        Self { fixed, runtime, split }
    }

    /// The same rollout at another point of its life.
    #[must_use]
    pub fn with(&self, runtime: Runtime) -> Self {
        Self::new(Arc::clone(&self.fixed), runtime, self.split.seed)
    }

    /// Where this request goes.
    #[must_use]
    pub fn choose(&self, unit: Option<Unit<'_>>, ask: &dyn split::Ask) -> Choice {
        let mut choice = split::choose(&self.split, unit, ask);
        if choice.arm == Arm::Canary && self.fixed.config.canary.is_none() {
            choice.arm = Arm::Stable;
        }
        choice
    }

    /// The target of an arm.
    #[must_use]
    pub fn target(&self, arm: Arm) -> &Target {
        &self.fixed.targets[arm.index()]
    }
}

/// Where hosts and paths lead: the most specific host, then the longest path prefix by whole segments.
/// Look-ups cost the number of segments of the path, not the number of rollouts.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<String, Paths>,
    /// Longest suffix first.
    suffixes: Vec<(String, Paths)>,
    any: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    by_prefix: HashMap<String, usize>,
    /// The only prefix is `/`: the common case needs no look-up.
    only_root: Option<usize>,
}

impl Paths {
    fn insert(&mut self, prefix: &str, rollout: usize) {
        self.by_prefix.insert(prefix.trim_end_matches('/').to_owned(), rollout);
        let root = self.by_prefix.get("").copied();
        self.only_root = if self.by_prefix.len() == 1 { root } else { None };
    }

    fn find(&self, path: &str) -> Option<usize> {
        if self.only_root.is_some() || self.by_prefix.is_empty() {
            return self.only_root;
        }
        let mut rest = path.trim_end_matches('/');
        loop {
            if let Some(rollout) = self.by_prefix.get(rest) {
                return Some(*rollout);
            }
            // What is no path (`*`) belongs to the root.
            rest = &rest[..rest.rfind('/').or(if rest.is_empty() { None } else { Some(0) })?];
        }
    }
}

impl RouteTable {
    /// The table of these rollouts' routes; a rollout is named by its position.
    #[must_use]
    pub fn new<'a>(routes: impl Iterator<Item = &'a config::Route>) -> Self {
        let mut table = Self::default();
        for (index, route) in routes.enumerate() {
            let paths = match &route.host {
                config::HostRule::Any => &mut table.any,
                config::HostRule::Exact(name) => table.exact.entry(name.to_ascii_lowercase()).or_default(),
                config::HostRule::Suffix(suffix) => {
                    let at = table.suffixes.iter().position(|(s, _)| s == suffix).unwrap_or_else(|| {
                        table.suffixes.push((suffix.clone(), Paths::default()));
                        table.suffixes.len() - 1
                    });
                    &mut table.suffixes[at].1
                }
            };
            paths.insert(&route.path_prefix, index);
        }
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    /// The position of the rollout that takes this host (without a port) and path.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        // `example.com.` is the same name, said to be whole (RFC 1034 section 3.1).
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.exact.is_empty() {
            let found = match self.exact.get(host) {
                Some(paths) => Some(paths),
                None if host.bytes().any(|b| b.is_ascii_uppercase()) => self.exact.get(&host.to_ascii_lowercase()),
                None => None,
            };
            if let Some(rollout) = found.and_then(|paths| paths.find(path)) {
                return Some(rollout);
            }
        }
        for (suffix, paths) in &self.suffixes {
            let tail = host.len().checked_sub(suffix.len()).filter(|n| *n > 0).and_then(|n| host.get(n..));
            if tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
                && let Some(rollout) = paths.find(path)
            {
                return Some(rollout);
            }
        }
        self.any.find(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostRule, Route};

    #[test]
    fn the_most_specific_host_then_the_longest_prefix_wins() {
        let route = |host: HostRule, prefix: &str| Route { host, path_prefix: prefix.to_owned() };
        let routes = [
            route(HostRule::Any, "/"),
            route(HostRule::Any, "/v1"),
            route(HostRule::Any, "/v1/chat"),
            route(HostRule::Suffix(".example.com".into()), "/"),
            route(HostRule::Suffix(".eu.example.com".into()), "/"),
            route(HostRule::Exact("api.example.com".into()), "/v1"),
        ];
        let table = RouteTable::new(routes.iter());
        for (host, path, expect) in [
            ("h", "/", 0),
            ("h", "*", 0),
            ("h", "/v1", 1),
            ("h", "/v1/", 1),
            ("h", "/v1x", 0),
            ("h", "/v1/chat/completions", 2),
            ("h", "/v1/chatter", 1),
            ("a.example.com", "/v1/chat", 3),
            ("a.eu.example.com", "/", 4),
            ("API.example.com", "/v1/models", 5),
            ("api.example.com", "/v2", 3),
            ("api.example.com.", "/v1", 5),
            ("A.example.COM.", "/", 3),
            (".", "/", 0),
            ("api.example.com..", "/v1", 1),
            ("example.com", "/", 0),
        ] {
            assert_eq!(table.find(host, path), Some(expect), "{host}{path}");
        }
        assert_eq!(RouteTable::new(routes[1..2].iter()).find("h", "/"), None);
    }
}
