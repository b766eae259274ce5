//! One rollout under trial: its terms, its state, its clock, and everything that it did.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::split::weight::Weight;

/// 2026-11-20, a Friday, 10:00 UTC.
pub(super) const FRIDAY: Wall = Wall(1_795_168_800_000);

pub(super) fn percent(p: f64) -> Weight {
    Weight::from_percent(p).unwrap()
}

/// The file's word of a rollout from `a` to `b`: this plan, or a plain split at 5 %.
pub(super) fn terms(plan: Option<Plan>) -> Terms {
    Terms {
        rollout: RolloutName::new("chat"),
        stable: VersionName::new("a"),
        canary: Some(VersionName::new("b")),
        weight: plan.is_none().then(|| percent(5.0)),
        plan: plan.map(Arc::new),
        gates: "g1".to_owned(),
        policy: None,
        drill_every: None,
        confirm: Arc::default(),
        register: None,
    }
}

/// A rollout with its clock.
pub(super) struct Trial {
    pub terms: Terms,
    pub state: State,
    pub now: Now,
    pub done: Vec<Effect>,
}

impl Trial {
    pub(super) fn under(terms: Terms) -> Self {
        let now = Now { mono: Mono(0), wall: FRIDAY };
        Self { state: State::initial(&terms).resume(now.mono), terms, now, done: Vec::new() }
    }

    /// One event, and what is to be done.
    pub(super) fn take(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        let (state, effects) = step(&self.terms, &self.state, event, self.now)?;
        self.state = state;
        self.done.extend(effects.clone());
        Ok(effects)
    }

    /// One event, and what of it the journal gets.
    pub(super) fn recorded(&mut self, event: Event) -> Result<Vec<Record>, Refusal> {
        let record = |effect| if let Effect::Record(record) = effect { Some(*record) } else { None };
        self.take(event).map(|effects| effects.into_iter().filter_map(record).collect())
    }

    /// A verb of somebody with this role.
    pub(super) fn by(&mut self, role: Role, verb: Verb) -> Result<Vec<Record>, Refusal> {
        self.recorded(Event::Command { verb, actor: Actor::new("olga", &[role]), reason: "why".to_owned() })
    }

    pub(super) fn passes(&mut self, time: Duration) -> &mut Self {
        self.now.mono = self.now.mono.plus(time);
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
        self
    }

    /// What the stage waits for now.
    pub(super) fn waits_for(&self) -> Option<&'static str> {
        waits_for(&self.state, &self.terms, self.now.wall)
    }
}
