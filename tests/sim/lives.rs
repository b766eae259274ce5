//! A judge's life of two minutes, tick by tick, for tests that cut it into pieces: included beside the simulator where it is used.

use std::sync::Arc;
use std::time::Duration;

use serin::judge::{Fact, Judge, Policy, Stage, Verdict};
use serin::names::Mono;

use crate::sim::harm::Harm;
use crate::sim::kinds::Traffic;
use crate::sim::run::POLICY;
use crate::sim::traffic::{Times, World};

/// The canary's users arrive then, seconds.
pub const STAGE_AT: f64 = 60.0;
/// The end, seconds.
pub const UNTIL: f64 = 120.0;

/// The policy of the sample traces, in a hurry.
pub fn policy() -> Arc<Policy> {
    let mut policy = Policy::from_toml(POLICY).unwrap();
    policy.warm_up = Duration::from_secs(5);
    policy.min_stage = Duration::from_secs(20);
    Arc::new(policy)
}

/// What becomes known in each tick of two minutes; the canary's users arrive after one.
pub fn world(traffic: Traffic, harm: Harm, seed: u64) -> Vec<Vec<Fact>> {
    let mut world = World::new(traffic, harm, Times { stage: STAGE_AT, onset: STAGE_AT + 10.0 }, seed, 0);
    let mut ticks = vec![Vec::new(); (UNTIL / 0.25) as usize];
    while world.now() < UNTIL {
        for fact in world.step().facts {
            // The simulator may tell of a retry's start a tick late; here each fact is in its own.
            let tick = fact.known().0.div_ceil(250_000_000).max(1) as usize - 1;
            if let Some(tick) = ticks.get_mut(tick) {
                tick.push(fact);
            }
        }
    }
    ticks
}

/// When a tick ends.
pub fn seconds(tick: usize) -> f64 {
    0.25 * (tick + 1) as f64
}

/// One judge's life: every verdict, and what it would show at the end.
pub struct Life {
    pub judge: Judge,
    pub policy: Arc<Policy>,
    pub said: Vec<Verdict>,
}

impl Life {
    pub fn new(policy: &Arc<Policy>) -> Self {
        Self { judge: Judge::new(Arc::clone(policy), Mono(0)), policy: Arc::clone(policy), said: Vec::new() }
    }

    pub fn tick(&mut self, facts: &[Fact], at: Mono) {
        facts.iter().for_each(|fact| self.judge.observe(fact));
        self.said.push(self.judge.tick(at));
        if at == Mono::from_seconds(STAGE_AT) {
            let (residence, samples) = (self.policy.min_stage, 50);
            self.judge.enter_stage(Stage { weight: 0.25, residence, samples }, at);
        }
    }
}

/// A fault or none, by turns.
pub fn harm(seed: u64) -> Harm {
    match seed % 3 {
        0 => Harm::NONE,
        1 => Harm { errors: 0.5, ..Harm::NONE },
        _ => Harm { outage: true, ..Harm::NONE },
    }
}
