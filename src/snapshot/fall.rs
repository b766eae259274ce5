//! The way down that needs no evaluator: a latch on a rollout and on what runs of its lockstep group, in one swap.

use std::sync::Arc;

use super::live::Live;
use super::table::{Latch, Runtime, Snapshot};
use crate::names::RolloutName;
use crate::split::{OpenCohorts, Weight};

/// Who latched a rollout when another of its group fell.
pub const GROUP: &str = "group";

impl Live {
    /// Takes a canary to 0, latched, and with it every one of its group that has traffic. Latches that stand are left as
    /// they are; a rollout that is latched already takes nobody along. Returns the rollouts that fell, to be recorded.
    pub fn fall(&self, rollout: &str, latch: &Arc<Latch>) -> Vec<(RolloutName, Arc<Latch>)> {
        let mut fell = Vec::new();
        self.update(|current| {
            fell.clear();
            current.fallen(rollout, latch, &mut fell)
        });
        fell
    }
}

impl Snapshot {
    fn fallen(&self, name: &str, latch: &Arc<Latch>, fell: &mut Vec<(RolloutName, Arc<Latch>)>) -> Option<Snapshot> {
        let first = self.rollout(name).filter(|rollout| rollout.runtime.latch.is_none())?;
        let group = first.fixed.config.plan.as_ref().and_then(|plan| plan.lockstep.as_deref());
        let along = Arc::new(Latch {
            at: latch.at,
            actor: GROUP.to_owned(),
            reason: format!("{name} of the same group fell: {}", latch.reason),
        });
        let mut next = self.copy();
        for rollout in &mut next.rollouts {
            let config = &rollout.fixed.config;
            let of_group = || group.is_some() && config.plan.as_ref().and_then(|p| p.lockstep.as_deref()) == group;
            let latch = if config.name.as_str() == name {
                latch
            } else if rollout.runtime.latch.is_none() && rollout.runtime.has_traffic() && of_group() {
                &along
            } else {
                continue;
            };
            fell.push((config.name.clone(), Arc::clone(latch)));
            let fallen = Runtime { weight: Weight::ZERO, latch: Some(Arc::clone(latch)), open: OpenCohorts::None };
            *rollout = Arc::new(rollout.with(fallen));
        }
        Some(next)
    }
}

impl Runtime {
    /// Whether anybody may be sent to the canary.
    fn has_traffic(&self) -> bool {
        self.weight > Weight::ZERO || self.open != OpenCohorts::None
    }
}
