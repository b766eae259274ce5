//! A crash and a restore change no verdict and spend no alpha twice.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

#[path = "sim/mod.rs"]
#[expect(dead_code, reason = "the simulator does more than is asked of it here")]
mod sim;

#[path = "sim/lives.rs"]
mod lives;

use std::sync::Arc;

use lives::{Life, UNTIL, harm, policy, seconds, world};
use serin::judge::Judge;
use serin::names::Mono;
use sim::dice::Dice;
use sim::kinds::KINDS;

impl Life {
    fn crash(&mut self) {
        self.judge = Judge::restore(Arc::clone(&self.policy), &self.judge.checkpoint()).unwrap();
    }

    fn shown(&self) -> String {
        serde_json::to_string(&self.judge.report(Mono::from_seconds(UNTIL))).unwrap()
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
