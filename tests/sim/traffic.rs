//! The generator: arrivals of sticky users, answers with known truth, each fact in the tick in which it becomes known.

use std::collections::VecDeque;

use serin::judge::{End, Fact, Metric, Outcome};
use serin::names::{Arm, Mono};

use super::dice::Dice;
use super::harm::Harm;
use super::kinds::Traffic;

/// Length of a tick, seconds.
pub const TICK_S: f64 = 0.25;

/// When what happens, seconds since the traffic began.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The canary gets its users.
    pub stage: f64,
    /// The fault begins.
    pub onset: f64,
}

/// A finished answer or a late score, as the rivals see it.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Answer { canary: bool, failed: bool, latency: f64, ttft: f64, tokens: f64, cost: f64, unsafe_once: bool },
    Score { canary: bool, value: f64 },
}

/// All that became known in one tick.
#[derive(Debug, Default)]
pub struct Tick {
    pub facts: Vec<Fact>,
    pub seen: Vec<Seen>,
    arrivals: Vec<Arrival>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: f64,
    user: usize,
    /// Requests of the session still to come; retries left.
    more: u32,
    tries: u32,
    /// Bound to fail: a storm's.
    poison: bool,
}

#[derive(Clone, Debug)]
struct User {
    key: u64,
    canary: bool,
    private: f64,
    errors: f64,
    speed: f64,
    length: f64,
    quality: f64,
}

/// An answer that the fault changed: when its request arrived and was answered, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Harmed {
    pub at: f64,
    pub known: f64,
    pub user: usize,
}

/// A world of one seed.
#[derive(Debug)]
pub struct World {
    traffic: Traffic,
    harm: Harm,
    times: Times,
    dice: Dice,
    users: Vec<User>,
    sums: Vec<f64>,
    incidents: Vec<(f64, f64)>,
    next: f64,
    next_storm: f64,
    ticks: VecDeque<Tick>,
    tick: u64,
    id: u64,
    unsafe_done: bool,
    pub harmed: Vec<Harmed>,
    pub canary_arrivals: u64,
}

/// A user's key: a bijection, so that relabelling (another `label`) moves users to other slots and never merges them.
fn key(user: usize, label: u64) -> u64 {
    (user as u64).wrapping_mul(2_654_435_761).wrapping_add(label.wrapping_mul(977))
}

impl World {
    pub fn new(traffic: Traffic, harm: Harm, times: Times, seed: u64, label: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let center = traffic.error_spread * traffic.error_spread / 2.0;
        let users: Vec<User> = (0..=traffic.users)
            .map(|i| User {
                key: key(i, label),
                canary: dice.chance(traffic.weight),
                private: dice.unit(),
                errors: (traffic.errors * (traffic.error_spread * dice.normal() - center).exp()).min(0.9),
                speed: dice.log_normal(traffic.speed_spread),
                length: dice.log_normal(traffic.length_spread) * if i == traffic.users { 2.0 } else { 1.0 },
                quality: 0.8 + 0.06 * dice.normal(),
            })
            .collect();
        let mut sum = 0.0;
        let sums = (0..traffic.users)
            .map(|rank| {
                sum += ((rank + 1) as f64).powf(-traffic.zipf);
                sum
            })
            .collect();
        let count = (traffic.incidents * 1.5) as usize;
        let incidents = (0..count)
            .map(|_| {
                let from = 5_400.0 * dice.unit();
                (from, from + 20.0 + 100.0 * dice.unit())
            })
            .collect();
        let next_storm = if traffic.storms > 0.0 { dice.exponential() * 3_600.0 / traffic.storms } else { f64::MAX };
        Self {
            traffic,
            harm,
            times,
            dice: Dice::new(seed, 2),
            users,
            sums,
            incidents,
            next: 0.0,
            next_storm,
            ticks: VecDeque::new(),
            tick: 0,
            id: 0,
            unsafe_done: false,
            harmed: Vec::new(),
            canary_arrivals: 0,
        }
    }

    /// The time up to which everything has been told.
    pub fn now(&self) -> f64 {
        self.tick as f64 * TICK_S
    }

    fn at(&mut self, time: f64) -> &mut Tick {
        // What happens at an instant is known at the end of its tick.
        let index = ((time / TICK_S).ceil() as u64).max(self.tick + 1) - self.tick - 1;
        let index = index as usize;
        if self.ticks.len() <= index {
            self.ticks.resize_with(index + 1, Tick::default);
        }
        &mut self.ticks[index]
    }

    /// Lives through one tick and says what became known in it.
    pub fn step(&mut self) -> Tick {
        let end = (self.tick + 1) as f64 * TICK_S;
        while self.next < end {
            self.arrive(self.next);
            let rate = self.traffic.rate * self.swing(self.next) * self.burst(self.next) / self.traffic.session;
            self.next += self.dice.exponential() / rate;
        }
        while self.next_storm < end {
            let storm = Arrival { at: self.next_storm, user: self.draw(), more: 0, tries: 80, poison: true };
            self.request(storm);
            self.next_storm += self.dice.exponential() * 3_600.0 / self.traffic.storms;
        }
        loop {
            let arrivals = std::mem::take(&mut self.at(end).arrivals);
            if arrivals.is_empty() {
                break;
            }
            arrivals.into_iter().for_each(|arrival| self.request(arrival));
        }
        self.tick += 1;
        self.ticks.pop_front().unwrap_or_default()
    }

    fn swing(&self, at: f64) -> f64 {
        1.0 + self.traffic.drift * (at / 5_400.0 * std::f64::consts::TAU).sin()
    }

    fn burst(&self, at: f64) -> f64 {
        if self.traffic.bursts > 0.0 && at % 330.0 < 30.0 { self.traffic.bursts } else { 1.0 }
    }

    fn draw(&mut self) -> usize {
        let whale = self.traffic.whale;
        if whale != 0.0 && (whale < 0.0 || self.now() > 2_100.0) && self.dice.chance(whale.abs()) {
            return self.traffic.users;
        }
        let place = self.dice.unit() * self.sums.last().copied().unwrap_or(0.0);
        self.sums.partition_point(|sum| *sum < place).min(self.traffic.users - 1)
    }

    fn arrive(&mut self, at: f64) {
        let user = self.draw();
        let more = if self.traffic.session > 1.0 {
            (self.dice.exponential() * (self.traffic.session - 0.5)) as u32
        } else {
            0
        };
        self.request(Arrival { at, user, more, tries: 5, poison: false });
    }

    /// One request: what is true of it is decided here, and told when it becomes known.
    fn request(&mut self, arrival: Arrival) {
        let Arrival { at, user, more, tries, poison } = arrival;
        self.id += 1;
        let mut dice = Dice::new(self.dice.draw(), self.id);
        if more > 0 {
            let next = Arrival { at: at + 8.0 * dice.exponential(), more: more - 1, tries: 5, ..arrival };
            self.at(next.at).arrivals.push(next);
        }
        let traffic = self.traffic;
        let person = self.users[user].clone();
        let canary = person.canary && at >= self.times.stage;
        self.canary_arrivals += u64::from(canary);
        let harm = if canary { self.harm.after(at - self.times.onset) } else { Harm::NONE };
        let subject = person.private < harm.subset;
        let (id, start) = (self.id, Mono::from_seconds(at));
        let arm = if canary { Arm::Canary } else { Arm::Stable };
        self.at(at).facts.push(Fact::Start { id, at: start, arm, user: person.key, drawn: true });

        if harm.hang {
            self.harmed.push(Harmed { at, known: at + 600.0, user });
            self.fail(id, canary, at, 600.0, 504);
            return;
        }
        let incident = self.incidents.iter().any(|(from, to)| (*from..*to).contains(&at));
        let swing = self.swing(at);
        let healthy = (person.errors * swing).max(if incident { 0.4 } else { 0.0 });
        let added = if subject { harm.errors } else { 0.0 };
        let luck = dice.unit();
        let by_fault = harm.outage || (luck >= healthy && luck < (healthy + added).min(0.995));
        if by_fault || luck < healthy || poison {
            let took = if dice.chance(traffic.fast) { 0.05 + 0.3 * dice.unit() } else { 5.0 + 25.0 * dice.unit() };
            if by_fault {
                self.harmed.push(Harmed { at, known: at + took, user });
            }
            self.fail(id, canary, at, took, 503);
            if tries > 0 && (poison || dice.chance(traffic.retry)) {
                let wait = if poison { 0.5 } else { 0.5 + dice.exponential() };
                let again = Arrival {
                    at: at + took.min(if poison { 0.2 } else { 30.0 }) + wait,
                    tries: tries - 1,
                    more: 0,
                    ..arrival
                };
                self.at(again.at).arrivals.push(again);
            }
            return;
        }

        let spread = traffic.length_spread.hypot(traffic.token_sigma);
        let long = if dice.chance(traffic.long) { 20.0 } else { 1.0 };
        let drawn = person.length * dice.log_normal(traffic.token_sigma);
        let in_tail = drawn > (1.645 * spread).exp();
        let mut tokens = (traffic.tokens * drawn * long).round().max(1.0) * harm.tokens;
        let shared = swing * if incident { 3.0 } else { 1.0 };
        let since = at - self.times.stage;
        let cold = if canary && since < 45.0 { 1.0 + (traffic.cold - 1.0) * (1.0 - since / 45.0) } else { 1.0 };
        let slow = person.speed * shared * cold * harm.latency;
        let mut ttft = traffic.ttft_s * dice.log_normal(traffic.ttft_sigma) * slow * harm.ttft;
        let mut took = ttft + tokens * traffic.s_per_token * dice.log_normal(0.2) * slow;
        if in_tail {
            took *= harm.latency_tail;
        }
        let mut cost = (0.0002 + tokens * 2e-6) * harm.cost * if in_tail { harm.cost_tail } else { 1.0 };
        let empty = dice.chance(harm.empty);
        if empty {
            (tokens, cost, took) = (0.0, 0.0002, ttft);
            ttft = took;
        }
        let mut end = End::plain(Outcome::Success, 200);
        end.tokens_out = Some(tokens as u64);
        end.cost_nano = Some((cost * 1e9) as u64);
        if harm.unsafe_once && !self.unsafe_done {
            self.unsafe_done = true;
            end.flags.safety = true;
        }
        let changed = end.flags.safety
            || empty
            || harm.latency > 1.0
            || harm.ttft > 1.0
            || harm.tokens > 1.0
            || harm.cost > 1.0
            || harm.quality < 1.0
            || (in_tail && (harm.latency_tail > 1.0 || harm.cost_tail > 1.0));
        if changed {
            self.harmed.push(Harmed { at, known: at + took, user });
        }
        if !empty {
            self.at(at + ttft).facts.push(Fact::FirstByte { id, at: Mono::from_seconds(at + ttft) });
        }
        let unsafe_once = end.flags.safety;
        let tick = self.at(at + took);
        tick.facts.push(Fact::End { id, at: Mono::from_seconds(at + took), end });
        tick.seen.push(Seen::Answer { canary, failed: false, latency: took, ttft, tokens, cost, unsafe_once });
        if dice.chance(traffic.scored) {
            let value = (person.quality * harm.quality + 0.12 * dice.normal()).clamp(0.0, 1.0);
            let late = at + took + 10.0 + 50.0 * dice.unit();
            let known = Mono::from_seconds(late);
            let metric = Metric::Quality;
            let score = Fact::Score { arm, user: person.key, drawn: true, metric, value, arrived: start, known };
            let tick = self.at(late);
            tick.facts.push(score);
            tick.seen.push(Seen::Score { canary, value });
        }
    }

    fn fail(&mut self, id: u64, canary: bool, at: f64, took: f64, status: u16) {
        let outcome = if status == 504 { Outcome::Timeout } else { Outcome::UpstreamError };
        let tick = self.at(at + took);
        tick.facts.push(Fact::End { id, at: Mono::from_seconds(at + took), end: End::plain(outcome, status) });
        let (latency, ttft) = (took, took);
        tick.seen.push(Seen::Answer {
            canary,
            failed: true,
            latency,
            ttft,
            tokens: 0.0,
            cost: 0.0,
            unsafe_once: false,
        });
    }
}
