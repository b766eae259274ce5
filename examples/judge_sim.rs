//! A compact simulation of the judge: sticky, heavy-tailed users; how often a healthy canary falls, how soon a bad one does.
//!
//! `cargo run --release --example judge_sim -- POLICY SCENARIO STAGES [FIRST_SEED]`; one line a stage, then the sum.

#![expect(clippy::print_stdout, reason = "a tool prints")]

use std::collections::BinaryHeap;
use std::sync::Arc;

use serin::judge::{End, Fact, Judge, Metric, Outcome, Policy, Stage, Verdict};
use serin::names::{Arm, Mono};

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
    fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }
}

struct User {
    share: f64,
    canary: bool,
    errors: f64,
    slow: f64,
    length: f64,
    quality: f64,
}

#[derive(Clone, Copy, Default)]
struct Harm {
    errors: f64,
    outage: bool,
    hang: bool,
    latency: f64,
    tail: f64,
    ttft: f64,
    cost: f64,
    cost_tail: f64,
    empty: f64,
    quality: f64,
    subset: bool,
}

fn harm(name: &str) -> Option<Harm> {
    let none = Harm { latency: 1.0, tail: 0.0, ttft: 1.0, cost: 1.0, quality: 1.0, ..Harm::default() };
    Some(match name {
        "healthy" => none,
        "outage" => Harm { outage: true, ..none },
        "hang" => Harm { hang: true, ..none },
        "half" => Harm { errors: 0.5, ..none },
        "errors8" => Harm { errors: 0.08, ..none },
        "errors2" => Harm { errors: 0.02, ..none },
        "errors1" => Harm { errors: 0.01, ..none },
        "errors05" => Harm { errors: 0.005, ..none },
        "subset" => Harm { errors: 0.9, subset: true, ..none },
        "latency1.7" => Harm { latency: 1.7, ..none },
        "latency1.5" => Harm { latency: 1.5, ..none },
        "latency1.25" => Harm { latency: 1.25, ..none },
        "tail" => Harm { tail: 0.05, ..none },
        "ttft" => Harm { ttft: 2.0, ..none },
        "cost" => Harm { cost: 2.0, ..none },
        "costtail" => Harm { cost_tail: 0.05, ..none },
        "empty" => Harm { empty: 0.1, ..none },
        "quality12" => Harm { quality: 0.88, ..none },
        "quality20" => Harm { quality: 0.8, ..none },
        _ => return None,
    })
}

struct Later(u64, u64, Fact);
impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

struct World {
    dice: Dice,
    users: Vec<User>,
    sums: Vec<f64>,
    rate: f64,
    harm: Harm,
    onset: f64,
    incident: (f64, f64),
    retries: bool,
    later: BinaryHeap<Later>,
    id: u64,
}

impl World {
    fn new(seed: u64, harm: Harm, onset: f64, weight: f64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let count = [60, 300, 1_000, 4_000][(dice.next() % 4) as usize];
        let heavy = 0.8 + 0.9 * dice.unit();
        let clustered = 0.3 + dice.unit();
        let base = 0.003 + 0.02 * dice.unit();
        let users: Vec<User> = (0..count)
            .map(|_| User {
                share: (heavy * dice.normal()).exp(),
                canary: dice.unit() < weight,
                errors: (base * (clustered * dice.normal() - clustered * clustered / 2.0).exp()).min(0.9),
                slow: (0.4 * dice.normal()).exp(),
                length: (0.6 * dice.normal()).exp(),
                quality: 0.8 + 0.06 * dice.normal(),
            })
            .collect();
        let mut sum = 0.0;
        let sums = users
            .iter()
            .map(|user| {
                sum += user.share;
                sum
            })
            .collect();
        let rate = [4.0, 10.0, 20.0][(dice.next() % 3) as usize];
        let incident = 1_000.0 + 3_000.0 * dice.unit();
        let retries = dice.next().is_multiple_of(2);
        Self {
            dice,
            users,
            sums,
            rate,
            harm,
            onset,
            incident: (incident, incident + 60.0),
            retries,
            later: BinaryHeap::new(),
            id: 0,
        }
    }

    fn push(&mut self, fact: Fact) {
        self.id += 1;
        self.later.push(Later(fact.known().0, self.id, fact));
    }

    fn request(&mut self, at: f64, user: usize, staged: bool, depth: u32) {
        let bad = at >= self.onset && staged && self.users[user].canary;
        let canary = staged && self.users[user].canary;
        let (slow, length, errors, quality) = {
            let user = &self.users[user];
            (user.slow, user.length, user.errors, user.quality)
        };
        let harm =
            if bad { self.harm } else { Harm { latency: 1.0, ttft: 1.0, cost: 1.0, quality: 1.0, ..Harm::default() } };
        let mut chance = errors;
        if (self.incident.0..self.incident.1).contains(&at) {
            chance = chance.max(0.4);
        }
        if !harm.subset || user.is_multiple_of(8) {
            chance = (chance + harm.errors).min(0.98);
        }
        let arm = if canary { Arm::Canary } else { Arm::Stable };
        let id = self.id + 1_000_000_000;
        let start = Mono::from_seconds(at);
        self.push(Fact::Start {
            id,
            at: start,
            arm,
            user: (user as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7,
            drawn: true,
        });
        let after = |seconds: f64| Mono::from_seconds(at + seconds);
        if harm.hang {
            self.push(Fact::End { id, at: after(600.0), end: End::plain(Outcome::Timeout, 504) });
            return;
        }
        if harm.outage || self.dice.unit() < chance {
            let took =
                if self.dice.unit() < 0.8 { 0.05 + 0.3 * self.dice.unit() } else { 5.0 + 25.0 * self.dice.unit() };
            self.push(Fact::End { id, at: after(took), end: End::plain(Outcome::UpstreamError, 503) });
            if self.retries && depth < 5 && self.dice.unit() < 0.7 {
                let again = at + took + 0.5 + self.dice.unit();
                self.request(again, user, staged, depth + 1);
            }
            return;
        }
        let mut tokens = (250.0 * length * (0.7 * self.dice.normal()).exp()).round().max(1.0);
        let mut ttft = 0.35 * slow * (0.5 * self.dice.normal()).exp() * harm.ttft;
        if self.dice.unit() < harm.empty {
            tokens = 0.0;
        }
        let mut took = (ttft + tokens * 0.012 * (0.2 * self.dice.normal()).exp()) * harm.latency;
        ttft *= harm.latency;
        if self.dice.unit() < harm.tail {
            took *= 4.0;
        }
        let mut cost = (0.0002 + tokens * 2e-6) * harm.cost;
        if self.dice.unit() < harm.cost_tail {
            cost *= 6.0;
        }
        let mut end = End::plain(Outcome::Success, 200);
        end.tokens_out = Some(tokens as u64);
        end.cost_nano = Some((cost * 1e9) as u64);
        if tokens > 0.0 {
            self.push(Fact::FirstByte { id, at: after(ttft.min(took)) });
        }
        self.push(Fact::End { id, at: after(took), end });
        if self.dice.unit() < 0.25 {
            let value = (quality * harm.quality + 0.12 * self.dice.normal()).clamp(0.0, 1.0);
            let known = after(took + 10.0 + 40.0 * self.dice.unit());
            let user = (user as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
            self.push(Fact::Score { arm, user, drawn: true, metric: Metric::Quality, value, arrived: start, known });
        }
    }
}

fn stage(
    policy: &Arc<Policy>,
    seed: u64,
    harm: Harm,
    onset: f64,
    length: f64,
) -> (Option<(f64, String, String)>, Option<f64>, f64) {
    const HISTORY: f64 = 900.0;
    let weight = [0.02, 0.1, 0.25, 0.5][(seed % 4) as usize];
    let mut world = World::new(seed, harm, onset, weight);
    let incident = world.incident.0 - onset;
    let mut judge = Judge::new(Arc::clone(policy), Mono(0));
    let (mut arrival, mut now, mut staged, mut passed) = (0.0, 0.0, false, None);
    while now < HISTORY + length {
        now += if staged { 0.25 } else { 1.0 };
        while arrival < now {
            let place = world.dice.unit() * world.sums[world.sums.len() - 1];
            let user = world.sums.partition_point(|sum| *sum < place).min(world.users.len() - 1);
            world.request(arrival, user, staged && arrival >= HISTORY, 0);
            let swing = 1.0 + 0.4 * (arrival / 1_700.0).sin();
            arrival += world.dice.exponential() / (world.rate * swing);
        }
        let at = Mono::from_seconds(now);
        while world.later.peek().is_some_and(|later| later.0 <= at.0) {
            if let Some(later) = world.later.pop() {
                judge.observe(&later.2);
            }
        }
        match judge.tick(at) {
            Verdict::Rollback { rule, reason } => return (Some((now, rule, reason)), passed, incident),
            Verdict::Advance { .. } if passed.is_none() => passed = Some(now),
            _ => {}
        }
        if !staged && now >= HISTORY {
            staged = true;
            judge.enter_stage(Stage { weight, residence: policy.min_stage, samples: policy.min_requests }, at);
        }
    }
    (None, passed, incident)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, policy, scenario, stages, rest @ ..] = arguments.as_slice() else {
        return Err("usage: judge_sim POLICY SCENARIO STAGES [FIRST_SEED]".into());
    };
    let policy = Arc::new(Policy::from_toml(&std::fs::read_to_string(policy)?)?);
    let harm = harm(scenario).ok_or("no such scenario")?;
    let stages: u64 = stages.parse()?;
    let first: u64 = rest.first().map_or(Ok(1), |seed| seed.parse())?;
    let onset = 900.0 + 600.0;
    let (mut fallen, mut early, mut passes, mut delays) = (0, 0, 0, Vec::new());
    for seed in first..first + stages {
        let (rollback, passed, incident) = stage(&policy, seed, harm, onset, 3_600.0);
        passes += u32::from(passed.is_some());
        if let Some((at, rule, reason)) = rollback {
            fallen += 1;
            early += u32::from(at < onset);
            delays.push(at - onset);
            println!(
                "seed {seed} (shared incident at {incident:.0} s): {rule} at {:.2} s after onset: {reason}",
                at - onset
            );
        }
    }
    delays.sort_by(f64::total_cmp);
    let median = delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN);
    println!(
        "{scenario}: {fallen} of {stages} rolled back ({early} before onset), median {median:.1} s; {passes} passed"
    );
    Ok(())
}
