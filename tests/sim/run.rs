//! One stage: a world, the judge, its rivals, and a judge that is told the onset; and many of them on a few threads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin::judge::{Judge, Lack, Policy, Stage, Verdict};
use serin::names::Mono;

use super::harm::Harm;
use super::kinds::Traffic;
use super::rivals::Rivals;
use super::traffic::{TICK_S, Times, World};

/// The policy of the sample traces: ten rules.
pub const POLICY: &str = include_str!("../fixtures/traces/policy.toml");

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub traffic: Traffic,
    pub harm: Harm,
    /// Seconds of stable alone, before the stage.
    pub history: f64,
    /// Seconds from the stage's start to the onset, and from there to the end.
    pub onset: f64,
    pub length: f64,
    /// Also the rivals.
    pub rivals: bool,
    /// Also a judge with this rule alone whose stage begins at the onset.
    pub told: Option<&'static str>,
    /// The end is the first verdict other than hold.
    pub until_verdict: bool,
}

/// What came of it. Times are seconds from the onset (of passes: from the stage's start).
#[derive(Clone, Debug, Default)]
pub struct Result {
    pub seed: u64,
    pub rollback: Option<f64>,
    pub rule: String,
    pub reason: String,
    pub pass: Option<f64>,
    /// What the last verdict still missed.
    pub missing: String,
    /// What the verdict said five minutes into the stage: seconds to the last proof that was missing.
    pub expected: Option<f64>,
    pub rivals: [Option<f64>; 3],
    pub told: Option<f64>,
    /// Answers and users harmed by the judge's rollback (in flight then included), and answers by the rivals'.
    pub answers: usize,
    pub users: usize,
    /// Of the answers, those that were known by then.
    pub known: usize,
    pub rival_answers: [usize; 3],
    pub canary_requests: u64,
}

/// How a stage is meddled with.
pub type Between<'a> = &'a mut dyn FnMut(u64, Judge) -> Judge;

/// Simulates one stage.
pub fn stage(policy: &Arc<Policy>, trial: &Trial, seed: u64, label: u64, between: Option<Between<'_>>) -> Result {
    let times = Times { stage: trial.history, onset: trial.history + trial.onset };
    let mut world = World::new(trial.traffic, trial.harm, times, seed, label);
    let mut judge = Some(Judge::new(Arc::clone(policy), Mono(0)));
    let mut told = trial.told.map(|rule| Judge::new(Arc::new(alone(policy, rule)), Mono(0)));
    let mut rivals = Rivals::new(trial.history);
    let mut between = between;
    let mut result = Result { seed, ..Result::default() };
    let weight = trial.traffic.weight;
    let enter = |judge: &mut Judge, residence: Duration, now: f64| {
        judge.enter_stage(Stage { weight, residence, samples: policy.min_requests }, Mono::from_seconds(now));
    };
    let end = times.onset + trial.length;
    let mut count = 0;
    while world.now() < end {
        let fast = world.now() >= times.stage;
        let tick = world.step();
        let now = world.now();
        let at = Mono::from_seconds(now);
        if let Some(judge) = &mut judge {
            tick.facts.iter().for_each(|fact| judge.observe(fact));
            if fast || now.fract() < TICK_S / 2.0 {
                match judge.tick(at) {
                    Verdict::Rollback { rule, reason } if result.rollback.is_none() => {
                        result.rollback = Some(now - times.onset);
                        (result.rule, result.reason) = (rule, reason);
                        result.canary_requests = world.canary_arrivals;
                    }
                    Verdict::Advance { .. } if result.pass.is_none() => result.pass = Some(now - times.stage),
                    Verdict::Hold { reason, .. } if now >= end - TICK_S => result.missing = reason,
                    Verdict::Hold { missing, .. } if now == times.stage + 300.0 => {
                        let expected = missing.iter().filter_map(|missing| match missing.lack {
                            Lack::Proof { eta_s, .. } => eta_s,
                            _ => None,
                        });
                        result.expected = expected.reduce(f64::max);
                    }
                    _ => {}
                }
            }
            if now == times.stage {
                enter(judge, policy.min_stage, now);
            }
        }
        count += 1;
        if let Some(between) = &mut between {
            judge = judge.map(|judge| between(count, judge));
        }
        if let Some(told) = told.as_mut().filter(|_| result.told.is_none()) {
            tick.facts.iter().for_each(|fact| told.observe(fact));
            if now > times.onset
                && let Verdict::Rollback { .. } = told.tick(at)
            {
                result.told = Some(now - times.onset);
            } else if now <= times.onset && now.fract() < TICK_S / 2.0 {
                told.tick(at);
            }
            if now == times.onset {
                enter(told, Duration::ZERO, now);
            }
        }
        if trial.rivals && now > trial.history {
            rivals.tick(&tick.seen, now);
        }
        if result.rollback.is_some() {
            judge = None;
        }
        let decided = result.rollback.is_some() || (trial.until_verdict && result.pass.is_some());
        if decided && (!trial.rivals || rivals.all_done()) && (told.is_none() || result.told.is_some()) {
            break;
        }
    }
    if judge.is_some() {
        result.canary_requests = world.canary_arrivals;
    }
    result.rivals = rivals.at.map(|at| at.map(|at| at - times.onset));
    let before = |until: f64| world.harmed.iter().filter(move |harmed| harmed.at <= until);
    let until = |at: Option<f64>| at.map_or(end, |at| times.onset + at);
    result.answers = before(until(result.rollback)).count();
    result.users = before(until(result.rollback)).map(|harmed| harmed.user).collect::<BTreeSet<_>>().len();
    result.known = before(until(result.rollback)).filter(|harmed| harmed.known <= until(result.rollback)).count();
    result.rival_answers = result.rivals.map(|at| before(until(at)).count());
    result
}

/// One rule (and its hard twin) without warm-up: what knowing the onset and the metric is worth.
fn alone(policy: &Policy, rule: &str) -> Policy {
    let mut policy = policy.clone();
    policy.rules.retain(|known| &*known.name == rule);
    policy.warm_up = Duration::ZERO;
    policy
}

/// The stages of seeds `first..first + count`, in their order, on `threads` threads.
pub fn many(policy: &Arc<Policy>, trial: &Trial, first: u64, count: usize, threads: usize) -> Vec<Result> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    let result = stage(policy, trial, first + i as u64, 0, None);
                    if let Ok(mut results) = results.lock() {
                        results.push(result);
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|result| result.seed);
    results
}
