//! A canary that turns to nothing but 5xx: how soon it is at 0 %, over fifty seeds, with the evaluator alive and hung.

use std::collections::BTreeMap;
use std::time::Duration;

use serin::evaluator::guard;
use serin::judge::{End, Fact, Outcome};
use serin::measure::ring::Record;
use serin::names::{Arm, Mono};

use crate::bench::Bench;
use crate::fixture::{head, rollout};

const SEEDS: u64 = 50;
/// What the product promises of a canary with 20 requests a second.
const WITHIN: Duration = Duration::from_secs(2);
const ANSWERS: u32 = 30;
/// Requests a second, of both arms together; the canary has a tenth.
const RATE: f64 = 200.0;
const WEIGHT: f64 = 10.0;
const USERS: u64 = 2_000;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A wait of that mean.
    fn wait(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.unit()).ln() * mean)
    }
}

/// What a run saw: from the turn to the latch, canary answers with 5xx until then, who latched.
struct Saw {
    took: Duration,
    answers: u32,
    by: String,
}

/// One canary's break. `hung`: the evaluator stands still from the break on.
fn one_break(seed: u64, hung: bool) -> Saw {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let mut bench = Bench::new(&(head(2, false) + &rollout("chat", nowhere, nowhere, "weight = 0.0")));
    bench.weigh(WEIGHT);
    let mut dice = Dice(seed);
    let slot = bench.live.load().rollout("chat").unwrap().fixed.slot;
    let begun = bench.clock.now();
    // Some seconds of health first, never the same.
    let breaks = begun.plus(Duration::from_secs(5)).plus(dice.wait(3.0));
    let mut next = begun.plus(dice.wait(1.0 / RATE));
    let mut ends: BTreeMap<(Mono, u64), (Arm, u16)> = BTreeMap::new();
    let (mut id, mut answers, mut step) = (0, 0, 0u64);
    loop {
        let now = bench.clock.now();
        if hung && now >= breaks {
            bench.hung = true;
        }
        // All that happened until now, in the order of time.
        loop {
            let end = ends.first_key_value().map_or(Mono(u64::MAX), |((at, _), _)| *at);
            if next.min(end) > now {
                break;
            }
            let fact = if next <= end {
                id += 1;
                let user = 1 + dice.next() % USERS;
                let arm = if user <= USERS / 10 { Arm::Canary } else { Arm::Stable };
                let broken = arm == Arm::Canary && next >= breaks;
                // A model's answer takes its time; an error comes at once. Stable fails one in two hundred.
                let takes = dice.wait(if broken { 0.03 } else { 0.3 });
                let status = if broken || dice.unit() < 0.005 { 503 } else { 200 };
                let at = next;
                next = at.plus(dice.wait(1.0 / RATE));
                ends.insert((at.plus(takes), id), (arm, status));
                Fact::Start { id, at, arm, user, drawn: true }
            } else {
                let ((at, id), (arm, status)) = ends.pop_first().unwrap();
                answers += u32::from(arm == Arm::Canary && status == 503 && at >= breaks);
                let outcome = if status == 200 { Outcome::Success } else { Outcome::UpstreamError };
                Fact::End { id, at, end: End::plain(outcome, status) }
            };
            let ring = dice.next() as usize % 2;
            bench.rings[ring].push(Record::new(slot, fact));
        }
        bench.guard.turn();
        if step.is_multiple_of(5) {
            bench.judge();
        }
        step += 1;
        if bench.latched() {
            let by = bench.live.load().rollout("chat").unwrap().runtime.latch.clone().unwrap();
            assert!(now >= breaks, "seed {seed}: a healthy canary was latched by {}: {}", by.actor, by.reason);
            return Saw { took: now.since(breaks), answers, by: by.actor.clone() };
        }
        assert!(now.since(breaks) < Duration::from_secs(10), "seed {seed}: no latch within ten seconds");
        bench.clock.advance(guard::DRAIN_EVERY);
    }
}

fn over_all_seeds(hung: bool) {
    let mut worst = Saw { took: Duration::ZERO, answers: 0, by: String::new() };
    let mut by: BTreeMap<String, u32> = BTreeMap::new();
    let mut all = Vec::new();
    for seed in 0..SEEDS {
        let saw = one_break(seed, hung);
        assert!(saw.took <= WITHIN, "seed {seed}: {:?} after the break", saw.took);
        assert!(saw.answers <= ANSWERS, "seed {seed}: {} answers with 5xx", saw.answers);
        worst = Saw { took: worst.took.max(saw.took), answers: worst.answers.max(saw.answers), by: String::new() };
        *by.entry(saw.by).or_default() += 1;
        all.push((saw.took, saw.answers));
    }
    all.sort_unstable();
    println!(
        "{SEEDS} breaks at 20 canary requests/s, evaluator {}: median {:?}, worst {:?} and {} answers; latched by {by:?}",
        if hung { "hung" } else { "alive" },
        all[all.len() / 2].0,
        worst.took,
        worst.answers,
    );
}

#[test]
fn a_canary_that_turns_to_5xx_is_at_0_within_two_seconds_and_thirty_answers_over_fifty_seeds() {
    over_all_seeds(false);
}

#[test]
fn and_so_it_is_while_the_evaluator_hangs() {
    over_all_seeds(true);
}
