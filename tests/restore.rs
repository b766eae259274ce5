//! A crash and a restore change no verdict and spend no alpha twice.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

#[path = "sim/mod.rs"]
#[expect(dead_code, reason = "the simulator does more than is asked of it here")]
mod sim;

use std::sync::Arc;
use std::time::Duration;

use serin::judge::{Fact, Judge, Policy, Stage, Verdict};
use serin::names::Mono;
use sim::dice::Dice;
use sim::harm::Harm;
use sim::kinds::{KINDS, Traffic};
use sim::traffic::{Times, World};

const POLICY: &str = include_str!("fixtures/traces/policy.toml");
const STAGE_AT: f64 = 60.0;
const UNTIL: f64 = 120.0;

fn policy() -> Arc<Policy> {
    let mut policy = Policy::from_toml(POLICY).unwrap();
    policy.warm_up = Duration::from_secs(5);
    policy.min_stage = Duration::from_secs(20);
    Arc::new(policy)
}

/// What becomes known in each tick of two minutes; the canary's users arrive after one.
fn world(traffic: Traffic, harm: Harm, seed: u64) -> Vec<Vec<Fact>> {
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

fn seconds(tick: usize) -> f64 {
    0.25 * (tick + 1) as f64
}

/// One judge's life: every verdict, and what it would show at the end.
struct Life {
    judge: Judge,
    policy: Arc<Policy>,
    said: Vec<Verdict>,
}

impl Life {
    fn new(policy: &Arc<Policy>) -> Self {
        Self { judge: Judge::new(Arc::clone(policy), Mono(0)), policy: Arc::clone(policy), said: Vec::new() }
    }

    fn tick(&mut self, facts: &[Fact], at: Mono) {
        facts.iter().for_each(|fact| self.judge.observe(fact));
        self.said.push(self.judge.tick(at));
        if at == Mono::from_seconds(STAGE_AT) {
            let (residence, samples) = (self.policy.min_stage, 50);
            self.judge.enter_stage(Stage { weight: 0.25, residence, samples }, at);
        }
    }

    fn crash(&mut self) {
        self.judge = Judge::restore(Arc::clone(&self.policy), &self.judge.checkpoint()).unwrap();
    }

    fn shown(&self) -> String {
        serde_json::to_string(&self.judge.report(Mono::from_seconds(UNTIL))).unwrap()
    }
}

fn harm(seed: u64) -> Harm {
    match seed % 3 {
        0 => Harm::NONE,
        1 => Harm { errors: 0.5, ..Harm::NONE },
        _ => Harm { outage: true, ..Harm::NONE },
    }
}

#[test]
fn a_crash_at_any_tick_and_a_restore_give_the_same_verdicts_evidence_and_bars_over_fifty_seeds() {
    let policy = policy();
    let mut rollbacks = 0;
    for seed in 1..=50 {
        let ticks = world(KINDS[seed as usize % KINDS.len()], harm(seed), seed);
        let (mut plain, mut crashed) = (Life::new(&policy), Life::new(&policy));
        let mut dice = Dice::new(seed, 9);
        for (i, facts) in ticks.iter().enumerate() {
            let at = Mono::from_seconds(seconds(i));
            plain.tick(facts, at);
            // Crashes come between ticks, and between the facts of one.
            let (first, rest) = facts.split_at(facts.len() / 2);
            first.iter().for_each(|fact| crashed.judge.observe(fact));
            if dice.chance(0.05) {
                crashed.crash();
            }
            crashed.tick(rest, at);
            if dice.chance(0.05) {
                crashed.crash();
            }
        }
        assert!(plain.said == crashed.said, "seed {seed}");
        // Evidence, windows and bars are those of one life: nothing is counted or paid twice.
        assert_eq!(plain.shown(), crashed.shown(), "seed {seed}");
        rollbacks += u32::from(plain.said.last().unwrap().word() == "rollback");
    }
    assert!((15..=40).contains(&rollbacks), "the seeds shall reach verdicts of both kinds: {rollbacks} rollbacks");
}
