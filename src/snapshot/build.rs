//! Builds tables from a configuration; runtime state, endpoints, counters and slots are carried over.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::HeaderValue;

use super::table::{Asks, Fixed, Marks, Rollout, RouteTable, Runtime, Snapshot, Target};
use crate::config;
use crate::measure::{Recorders, References, Release};
use crate::names::{Arm, RolloutName};
use crate::split::{Seed, Unit};
use crate::tls::TlsError;
use crate::upstream::{Cluster, Registry};
use crate::wire::history::Memory;

/// Where tables take from what outlives reloads.
#[derive(Debug)]
pub struct Builder {
    endpoints: Arc<Registry>,
    recorders: Arc<Recorders>,
    /// The installation's secret (of the store or the fleet); empty without one.
    secret: Box<[u8]>,
    references: Arc<References>,
    /// Names by slot.
    slots: Mutex<Vec<RolloutName>>,
    /// Memories of conversations, while a snapshot holds them.
    memories: Mutex<Vec<(RolloutName, Weak<Memory>)>>,
}

/// How long a turn of a conversation can be asked again: who tries again does it within minutes.
const TURN_WINDOW_S: u32 = 1_800;

impl Builder {
    /// A builder on these registries.
    #[must_use]
    pub fn new(endpoints: Arc<Registry>, recorders: Arc<Recorders>, secret: &[u8]) -> Self {
        let references = Arc::new(References::new(secret));
        Self {
            endpoints,
            recorders,
            secret: secret.into(),
            references,
            slots: Mutex::default(),
            memories: Mutex::default(),
        }
    }

    /// Seals references for feedback so: for an installation without a secret, which must not use none.
    #[must_use]
    pub fn sealing(mut self, references: References) -> Self {
        self.references = Arc::new(references);
        self
    }

    /// What seals references and hashes request ids.
    #[must_use]
    pub fn references(&self) -> Arc<References> {
        Arc::clone(&self.references)
    }

    fn slot(&self, name: &RolloutName) -> u32 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let at = slots.iter().position(|n| n == name).unwrap_or_else(|| {
            slots.push(name.clone());
            slots.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Resolves a whole configuration. Rollouts have the runtime that `life` says (a first start) until
    /// [`Prepared::merge`] takes over that of the snapshot in force.
    ///
    /// # Errors
    /// A certificate or key that cannot be used; names the rollout.
    pub fn prepare(&self, config: Arc<config::Config>) -> Result<Prepared, BuildError> {
        let rollouts = config
            .rollouts
            .iter()
            .map(|rollout| {
                let fixed = self
                    .fixed(rollout, config.limits.turns)
                    .map_err(|source| BuildError { rollout: rollout.name.to_string(), source })?;
                let seed = self.seed(rollout, "bucket");
                Ok((Arc::new(fixed), seed))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let routes = Arc::new(RouteTable::new(config.rollouts.iter().map(|r| &r.route)));
        Ok(Prepared { rollouts, routes, config, unrouted: self.recorders.unrouted() })
    }

    fn seed(&self, rollout: &config::Rollout, purpose: &str) -> Seed {
        let secret = rollout.salt.as_ref().map_or(&*self.secret, |salt| salt.expose().as_bytes());
        let version = rollout.canary.as_ref().map_or("", |canary| canary.name.as_str());
        Seed::derive(secret, purpose, rollout.name.as_str(), version)
    }

    fn marks(&self, rollout: &config::Rollout) -> Marks {
        let canary = rollout.canary.as_ref().map_or("", |canary| canary.name.as_str());
        Marks {
            references: Arc::clone(&self.references),
            release: Release::new(rollout.name.as_str(), canary),
            seals: rollout.feedback.references,
            remembers: rollout.feedback.remembers,
        }
    }

    fn asks(&self, rollout: &config::Rollout, turns: usize) -> Asks {
        let seed = Unit::new(b"conversations").map_or(0, |unit| unit.hash(self.seed(rollout, "turn")));
        Asks {
            schema: rollout.judges_shapes(),
            script: rollout.judges_languages(),
            turns: rollout.judges_regenerations().then(|| self.memory(&rollout.name, turns)),
            turn_seed: seed,
        }
    }

    /// The memory of a rollout, which outlives reloads while its size stays.
    fn memory(&self, name: &RolloutName, turns: usize) -> Arc<Memory> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Memory::new(turns, TURN_WINDOW_S);
        let known = memories.iter().find(|(other, _)| other == name).and_then(|(_, memory)| memory.upgrade());
        if let Some(known) = known.filter(|known| known.kept() == fresh.kept()) {
            return known;
        }
        let fresh = Arc::new(fresh);
        memories.retain(|(other, memory)| other != name && memory.strong_count() > 0);
        memories.push((name.clone(), Arc::downgrade(&fresh)));
        fresh
    }

    fn fixed(&self, rollout: &Arc<config::Rollout>, turns: usize) -> Result<Fixed, TlsError> {
        let stable = Arc::new(rollout.stable.clone());
        let canary = rollout.canary.clone().map_or_else(|| Arc::clone(&stable), Arc::new);
        let stable_cluster = Arc::new(Cluster::new(&stable, &stable.endpoints, &self.endpoints)?);
        let baseline_cluster = if rollout.baseline.endpoints.is_empty() {
            Arc::clone(&stable_cluster)
        } else {
            Arc::new(Cluster::new(&stable, &rollout.baseline.endpoints, &self.endpoints)?)
        };
        let canary_cluster = match &rollout.canary {
            None => Arc::clone(&stable_cluster),
            Some(canary) => Arc::new(Cluster::new(canary, &canary.endpoints, &self.endpoints)?),
        };
        let target = |arm: Arm, settings: &Arc<config::Version>, cluster: Arc<Cluster>| Target {
            arm,
            version: settings.name.clone(),
            cluster,
            recorder: self.recorders.slot(&rollout.name, arm, &settings.name),
            version_header: header_value(settings.name.as_str()),
            prices: settings.prices,
            settings: Arc::clone(settings),
        };
        Ok(Fixed {
            slot: self.slot(&rollout.name),
            name_header: header_value(rollout.name.as_str()),
            key_seed: self.seed(rollout, "unit key"),
            marks: self.marks(rollout),
            asks: self.asks(rollout, turns),
            targets: [
                target(Arm::Stable, &stable, stable_cluster),
                target(Arm::Baseline, &stable, baseline_cluster),
                target(Arm::Canary, &canary, canary_cluster),
            ],
            config: Arc::clone(rollout),
        })
    }
}

fn header_value(name: &str) -> HeaderValue {
    HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
}

/// A configuration whose certificates, endpoints and counters are in place: all that can fail is behind it.
#[derive(Debug)]
pub struct Prepared {
    rollouts: Vec<(Arc<Fixed>, Seed)>,
    routes: Arc<RouteTable>,
    config: Arc<config::Config>,
    unrouted: Arc<crate::measure::Recorder>,
}

impl Prepared {
    /// The clusters of all arms, for the health thread.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.rollouts.iter().flat_map(|(f, _)| f.targets.iter().map(|t| Arc::clone(&t.cluster))).collect()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<config::Config> {
        &self.config
    }

    /// One rollout's tables and the seed of its buckets.
    #[must_use]
    pub fn rollout(&self, name: &str) -> Option<(Arc<Fixed>, Seed)> {
        let (fixed, seed) = self.rollouts.iter().find(|(fixed, _)| fixed.config.name.as_str() == name)?;
        Some((Arc::clone(fixed), *seed))
    }

    /// The snapshot of it: runtime state is `life`'s for each rollout by name, never reset by a reload.
    #[must_use]
    pub fn merge(&self, life: impl Fn(&config::Rollout) -> Runtime) -> Snapshot {
        Snapshot {
            generation: 1,
            rollouts: self
                .rollouts
                .iter()
                .map(|(fixed, seed)| Arc::new(Rollout::new(Arc::clone(fixed), life(&fixed.config), *seed)))
                .collect(),
            routes: Arc::clone(&self.routes),
            unrouted: Arc::clone(&self.unrouted),
            config: Arc::clone(&self.config),
            rehearsal: None,
        }
    }

    /// The snapshot that follows `current`: rollouts that stay keep their life, new ones begin with `fresh`; those of
    /// which `keep` says so keep their old tables too (their new version waits).
    #[must_use]
    pub fn merge_onto(
        &self,
        current: &Snapshot,
        keep: impl Fn(&str) -> bool,
        fresh: impl Fn(&config::Rollout) -> Runtime,
    ) -> Snapshot {
        let mut next = self.merge(|rollout| match current.rollout(rollout.name.as_str()) {
            Some(known) => known.runtime.clone(),
            None => fresh(rollout),
        });
        next.rehearsal.clone_from(&current.rehearsal);
        for place in &mut next.rollouts {
            let name = place.fixed.config.name.as_str();
            if keep(name)
                && let Some(known) = current.rollout(name)
            {
                *place = Arc::clone(known);
            }
        }
        next
    }
}

/// A rollout that cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("rollouts.{rollout}: {source}")]
pub struct BuildError {
    /// Which.
    pub rollout: String,
    /// Why not.
    pub source: TlsError,
}
