//! Replicas' ticks merged are judged as one process would be.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

#[path = "sim/mod.rs"]
#[expect(dead_code, reason = "the simulator does more than is asked of it here")]
mod sim;

#[path = "sim/lives.rs"]
mod lives;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lives::{Life, harm, policy, seconds, world};
use serin::judge::merge::{Merge, Tick};
use serin::judge::{Fact, Policy};
use serin::names::Mono;
use sim::dice::Dice;
use sim::kinds::STEADY;

/// Judges two replicas' ticks, which come late and in any order; `to` says which replica a fact is seen by.
fn merged(policy: &Arc<Policy>, ticks: &[Vec<Fact>], seed: u64, mut to: impl FnMut(&Fact) -> u8) -> (Life, u64) {
    let (mut life, mut merge, mut dice) = (Life::new(policy), Merge::default(), Dice::new(seed, 3));
    let mut under_way: Vec<(usize, Tick)> = Vec::new();
    let (mut told, mut last, mut facts) = (Mono(0), [0; 2], VecDeque::new());
    (0..2).for_each(|replica| merge.join(replica, Mono(0)));
    for now in 0..ticks.len() + 20 {
        if let Some(facts) = ticks.get(now) {
            let mut parts = [Vec::new(), Vec::new()];
            facts.iter().for_each(|fact| parts[usize::from(to(fact))].push(fact.clone()));
            for (replica, facts) in (0u8..).zip(parts) {
                // A replica's own ticks come in their order, as over one connection; those of two in any.
                let comes = &mut last[usize::from(replica)];
                *comes = (*comes).max(now + (dice.unit() * 19.0) as usize);
                let until = Mono::from_seconds(seconds(now));
                under_way.push((*comes, Tick { replica, until, facts }));
            }
        }
        let (arrived, rest): (Vec<_>, Vec<_>) = under_way.drain(..).partition(|(at, _)| *at <= now);
        under_way = rest;
        arrived.into_iter().for_each(|(_, tick)| {
            merge.take(tick);
        });
        let (ready, until) = merge.go_on(Mono::from_seconds(seconds(now)));
        facts.extend(ready);
        while told < until {
            told = told.plus(Duration::from_millis(250));
            let mut these = Vec::new();
            while facts.front().is_some_and(|fact: &Fact| fact.known() <= told) {
                these.extend(facts.pop_front());
            }
            life.tick(&these, told);
        }
    }
    (life, merge.late())
}

fn id_of(fact: &Fact) -> u64 {
    match fact {
        Fact::Start { id, .. } | Fact::FirstByte { id, .. } | Fact::End { id, .. } => *id,
        Fact::Score { user, .. } => *user,
        Fact::Query { .. } => 0,
    }
}

#[test]
fn two_halves_of_the_traffic_are_judged_as_the_whole_is() {
    let policy = policy();
    for seed in 1..=6 {
        let ticks = world(STEADY, harm(seed), seed);
        let mut whole = Life::new(&policy);
        ticks.iter().enumerate().for_each(|(i, facts)| whole.tick(facts, Mono::from_seconds(seconds(i))));
        let mut users = HashMap::new();
        let by_user = merged(&policy, &ticks, seed, |fact| {
            if let Fact::Start { id, user, .. } = fact {
                users.insert(*id, *user);
            }
            let user = if let Fact::Score { user, .. } = fact { *user } else { users[&id_of(fact)] };
            (user % 2) as u8
        });
        let at_random =
            merged(&policy, &ticks, seed, |fact| (id_of(fact).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63) as u8);
        for (life, late) in [by_user, at_random] {
            assert_eq!(late, 0, "seed {seed}: nothing was later than five seconds");
            for (tick, (merged, whole)) in life.said.iter().zip(&whole.said).enumerate() {
                assert_eq!(merged, whole, "seed {seed}, tick {tick}");
            }
            assert!(life.said.len() + 1 >= whole.said.len(), "seed {seed}: {} ticks", life.said.len());
        }
    }
}
