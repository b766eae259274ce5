//! The judge of one rollout: facts and ticks in, verdicts out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{Arm, Mono};
use crate::stats::cluster;

use super::breaker::{self, Breaker};
use super::case::{Case, Exposure, Lane, is_beyond};
use super::events::{Limit, Limits, bad_event, order, value_of};
use super::facts::{End, Fact, Outcome};
use super::flight::{Flight, Flights};
use super::policy::{Comparator, Direction, Margin, Metric, Policy, Rule, Stat};
use super::starts::Bars;
use super::users::{self, Users};
use super::verdict::Verdict;

/// u is taken anew this often.
const REFRESH_NS: u64 = 10_000_000_000;
/// Ticks are short for this long after a weight change: what breaks, breaks then.
const FAST_NS: u64 = 300_000_000_000;
/// Half-life of the arrivals whose ratio says how failures should be shared: longer than answers take.
const ARRIVALS_HALF_LIFE_NS: f64 = 60e9;
/// After a record was dropped, advancement waits this long.
pub(super) const DROPPED_NS: u64 = 60_000_000_000;

/// What a stage asks of the judge.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stage {
    /// The canary's share of units, 0 to 1 (a `Weight` divided by its full; the judge knows no buckets).
    pub weight: f64,
    /// The least time in it.
    pub residence: Duration,
    /// The least canary requests in it.
    pub samples: u64,
}

/// Judges one rollout. Not thread-safe and in no need of it: one owner, one clock.
#[derive(Clone, Debug)]
pub struct Judge {
    pub(super) policy: Arc<Policy>,
    pub(super) state: State,
    /// What follows from the policy and the state, and is no part of a checkpoint.
    pub(super) derived: Derived,
}

/// Kept because it is asked for at every request or tick.
#[derive(Clone, Debug)]
pub(super) struct Derived {
    limits: Limits,
    /// How long a request that arrives now may take until it passes its first limit, nanoseconds: stable's, the canary's. Of
    /// the epoch.
    soonest: Option<[Option<u64>; 2]>,
    /// The last verdict, while what is missing has not been looked for again.
    pub(super) held: Option<Verdict>,
}

impl Derived {
    pub(super) fn new(policy: &Policy) -> Self {
        Self { limits: Limits::of(&policy.rules), soonest: None, held: None }
    }
}

/// All that a judge remembers: what a checkpoint holds.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct State {
    pub(super) cases: Vec<Case>,
    flights: Flights,
    /// Facts that wait for their tick.
    waiting: Vec<Fact>,
    pub(super) breaker: Breaker,
    pub(super) stage: Option<Stage>,
    pub(super) entered: u64,
    /// When this budget of alpha began, and how many the stage has used.
    budget: u64,
    pub(super) budgets: u32,
    /// The last weight change: what arrived before is left out of soft tests.
    cut: u64,
    warm_until: u64,
    pub(super) bars: Bars,
    epoch: u32,
    refreshed: u64,
    /// Decayed arrivals of canary and comparator since the cut.
    arrivals: [f64; 2],
    arrivals_at: u64,
    /// What is known of stable's users.
    users: Users,
    /// Answers of drawn canary units by slot, their sum and sum of squares.
    by_user: BTreeMap<u16, u32>,
    pub(super) answers: [f64; 2],
    /// Canary answers of this stage to what arrived in it: of drawn units, and of hand-picked ones.
    pub(super) arrived: [u64; 2],
    /// When records were last dropped.
    pub(super) dropped: Option<u64>,
    /// The fail that acts, once it was said; a rollback takes the place of a step back.
    pub(super) fallen: Option<(String, String)>,
    /// The last fold, and when.
    pub(super) folded: u64,
    pub(super) fresh: bool,
    pub(super) lacks: Vec<(Option<u16>, super::verdict::Lack)>,
}

impl State {
    /// Gives each rule its part of the offsets, which are kept once for all. Returns whether they are of these rules.
    pub(super) fn take_up_offsets(&mut self) -> bool {
        for (i, case) in self.cases.iter_mut().enumerate() {
            case.offsets = self.users.offsets(i);
        }
        self.users.is_of(self.cases.len())
    }
}

impl Judge {
    /// A judge that has seen nothing; `at` is when its history begins.
    #[must_use]
    pub fn new(policy: Arc<Policy>, at: Mono) -> Self {
        let bars = bars(&policy, policy.horizon);
        let state = State {
            cases: policy.rules.iter().map(Case::new).collect(),
            flights: Flights::default(),
            waiting: Vec::new(),
            breaker: Breaker::new(&policy),
            stage: None,
            entered: at.0,
            budget: at.0,
            budgets: 1,
            cut: 0,
            warm_until: 0,
            bars,
            epoch: 0,
            refreshed: at.0,
            arrivals: [0.0; 2],
            arrivals_at: at.0,
            users: Users::new(policy.rules.len()),
            by_user: BTreeMap::new(),
            answers: [0.0; 2],
            arrived: [0; 2],
            dropped: None,
            fallen: None,
            folded: 0,
            fresh: false,
            lacks: Vec::new(),
        };
        Self { derived: Derived::new(&policy), policy, state }
    }

    /// The policy it judges by.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Takes in one fact. It counts at the next tick; order within a tick does not matter.
    pub fn observe(&mut self, fact: &Fact) {
        self.state.waiting.push(fact.clone());
    }

    /// Records were dropped before they came here: nothing advances for a minute.
    pub fn records_dropped(&mut self, at: Mono) {
        self.state.dropped = Some(at.0);
    }

    /// Enters a stage: fresh evidence, a fresh budget of alpha, users' offsets fixed from stable's history.
    pub fn enter_stage(&mut self, stage: Stage, at: Mono) {
        self.take_in(at.0);
        self.close(at.0);
        let state = &mut self.state;
        state.stage = Some(stage);
        state.entered = at.0;
        state.budget = at.0;
        state.budgets = 1;
        state.cut = at.0;
        state.warm_until = at.plus(self.policy.warm_up).0;
        state.bars = bars(&self.policy, self.policy.horizon.max(stage.residence));
        state.arrivals = [0.0; 2];
        state.by_user.clear();
        state.answers = [0.0; 2];
        state.arrived = [0; 2];
        state.fallen = None;
        state.fresh = false;
        state.lacks.clear();
        state.breaker.stage_entered(stage.weight, at);
        self.begin(at.0, true);
    }

    /// Fresh evidence of every rule.
    fn begin(&mut self, at: u64, all: bool) {
        let State { users, cases, .. } = &mut self.state;
        users.close(at, cases.iter_mut().map(|case| &mut case.history));
        users.freeze(|rule, users| cases[rule].expected(users));
        for (i, (case, rule)) in cases.iter_mut().zip(&self.policy.rules).enumerate() {
            case.begin(rule, at, all, users.offsets(i));
        }
    }

    /// The canary's share changed inside a stage, by hand: the evidence is kept, what is in flight is left out.
    pub fn weight_changed(&mut self, weight: f64, at: Mono) {
        self.take_in(at.0);
        if let Some(stage) = &mut self.state.stage {
            stage.weight = weight;
        }
        self.state.cut = at.0;
        self.state.arrivals = [0.0; 2];
        self.state.breaker.weight_changed(weight);
    }

    /// Closes a tick and says what is known. Call it at least four times a second.
    pub fn tick(&mut self, now: Mono) -> Verdict {
        self.take_in(now.0);
        self.close(now.0);
        self.fold(now)
    }

    /// When its strata were last refreshed, at most ten seconds before its last tick: a clock that has not come there yet
    /// was set back, and evidence under it would stand still until that moment comes again.
    #[must_use]
    pub const fn refreshed(&self) -> Mono {
        Mono(self.state.refreshed)
    }

    /// Whether the stage sends nobody to the canary but units picked by hand: with no drawn ones nothing can be compared,
    /// and what there is decides (residence, samples, limits, zero tolerance, the breaker). A cohort with a split of its
    /// own draws, and is compared.
    #[must_use]
    pub fn is_hand_picked(&self) -> bool {
        self.state.stage.is_some_and(|stage| stage.weight <= 0.0) && self.state.arrived[0] == 0
    }

    /// Canary requests that arrived in this stage.
    #[must_use]
    pub fn canary_requests(&self) -> u64 {
        self.state.breaker.canary_arrivals()
    }

    /// Effective canary users in this stage, (Σn)²/Σn².
    #[must_use]
    pub fn effective_users(&self) -> f64 {
        cluster::effective(self.state.answers[0], self.state.answers[1])
    }

    /// Sorts what is known by `now` into the tests.
    fn take_in(&mut self, now: u64) {
        let mut facts = std::mem::take(&mut self.state.waiting);
        facts.sort_unstable_by_key(order);
        let known = facts.partition_point(|fact| fact.known().0 <= now);
        for fact in &facts[..known] {
            self.take(fact);
        }
        while let Some(id) = self.state.flights.due(now) {
            self.aged(id, now);
        }
        facts.drain(..known);
        self.state.waiting = facts;
    }

    /// Closes the strata that are due.
    fn close(&mut self, now: u64) {
        let state = &mut self.state;
        let fast = now.saturating_sub(state.cut) < FAST_NS;
        let odds = state.arrivals[0] / state.arrivals[1];
        let odds = if odds.is_nan() { 1.0 } else { odds };
        let proof_bar = self.policy.proof_bar();
        state.users.tick(now, state.cases.iter_mut().map(|case| &mut case.history));
        for (i, (case, rule)) in state.cases.iter_mut().zip(&self.policy.rules).enumerate() {
            case.tick(rule, now, fast, odds, state.users.history(i));
            case.look(rule, now, &state.bars, proof_bar);
        }
        if now.saturating_sub(state.refreshed) >= REFRESH_NS {
            let passed = now.saturating_sub(state.refreshed) as f64 / 1e9;
            state.refreshed = now;
            state.epoch += 1;
            for (case, rule) in state.cases.iter_mut().zip(&self.policy.rules) {
                case.refresh(rule, passed);
            }
            state.flights.sweep(now);
            self.derived.soonest = None;
        }
        self.renew_budget(now);
    }

    /// What lasts longer than the horizon starts a new budget.
    fn renew_budget(&mut self, now: u64) {
        let state = &mut self.state;
        let Some(stage) = state.stage else { return };
        let horizon = self.policy.horizon.max(stage.residence);
        if Mono(now).since(Mono(state.budget)) > horizon {
            state.budget = now;
            state.budgets += 1;
            self.begin(now, false);
        }
    }

    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Start { id, at, arm, user, drawn } => {
                let flight = Flight {
                    at: at.0,
                    user: *user,
                    arm: *arm,
                    drawn: *drawn,
                    first_byte_at: None,
                    epoch: self.state.epoch,
                    done: 0,
                };
                let wake = self.first_deadline(&flight);
                self.state.flights.add(*id, flight, wake);
                if *arm == Arm::Canary {
                    self.state.breaker.arrived(at.0);
                }
                if *drawn {
                    self.count_arrival(*arm, at.0);
                }
            }
            Fact::FirstByte { id, at } => self.first_byte(*id, at.0),
            Fact::End { id, at, end } => {
                if let Some(flight) = self.state.flights.end(*id) {
                    let canary = flight.arm == Arm::Canary;
                    let seen = breaker::Flight { at: flight.at, user: flight.user, canary };
                    self.state.breaker.ended(seen, at.0, end);
                    self.ended(&flight, at.0, end);
                }
            }
            Fact::Score { arm, user, drawn, metric, value, arrived, known } => {
                if let Some(canary) = self.side(*arm) {
                    self.scored(canary, *drawn, *user, metric, *value, arrived.0, known.0);
                }
            }
            Fact::Query { name, stable, canary, known } => self.queried(name, *stable, *canary, known.0),
        }
    }

    /// Whether an arm is the canary, or compared with it; none if neither.
    fn side(&self, arm: Arm) -> Option<bool> {
        match (arm, self.policy.comparator, self.state.stage) {
            (Arm::Canary, _, Some(_)) => Some(true),
            (Arm::Canary, _, None) => None,
            (Arm::Stable, Comparator::BaselineAlone, Some(_)) => None,
            _ => Some(false),
        }
    }

    fn count_arrival(&mut self, arm: Arm, at: u64) {
        let Some(canary) = self.side(arm) else { return };
        let state = &mut self.state;
        if at > state.arrivals_at {
            let fade = (-((at - state.arrivals_at) as f64) / ARRIVALS_HALF_LIFE_NS).exp2();
            state.arrivals_at = at;
            state.arrivals = state.arrivals.map(|count| count * fade);
        }
        state.arrivals[usize::from(!canary)] += 1.0;
    }

    fn exposure(&self, flight: &Flight, canary: bool, known: u64, quantile: bool) -> Exposure {
        let begun = if quantile { self.state.warm_until.max(self.state.cut) } else { self.state.cut };
        let slot = users::slot(flight.user);
        Exposure {
            canary,
            drawn: flight.drawn,
            user: flight.user,
            slot,
            row: self.state.users.row(slot),
            known,
            soft: flight.at >= begun,
        }
    }

    /// When an exchange that arrives now passes its first limit.
    fn first_deadline(&mut self, flight: &Flight) -> Option<u64> {
        let canary = self.side(flight.arm)?;
        let (derived, cases, rules) = (&mut self.derived, &self.state.cases, &self.policy.rules);
        let limits = &derived.limits.aging;
        let soonest = derived.soonest.get_or_insert_with(|| {
            [false, true].map(|canary| {
                let edge = |limit: &Limit| cases[limit.rule].edge(&rules[limit.rule], limit.lane, canary, 0);
                limits.iter().filter_map(edge).map(in_nanos).min()
            })
        });
        soonest[usize::from(canary)].map(|after| flight.at.saturating_add(after))
    }

    /// When an exchange passes the next limit that it has not met.
    fn next_deadline(&self, flight: &Flight) -> Option<u64> {
        let canary = self.side(flight.arm)?;
        let ago = self.ago(flight);
        let open = self.derived.limits.aging.iter().filter(|limit| is_open(limit, flight));
        open.filter_map(|limit| self.state.cases[limit.rule].edge(self.rule(limit), limit.lane, canary, ago))
            .map(|limit| flight.at.saturating_add(in_nanos(limit)))
            .min()
    }

    fn rule(&self, limit: &Limit) -> &Rule {
        &self.policy.rules[limit.rule]
    }

    fn ago(&self, flight: &Flight) -> usize {
        (self.state.epoch - flight.epoch.min(self.state.epoch)) as usize
    }

    /// An exchange in flight passed a limit: it is bad now, however it ends.
    fn aged(&mut self, id: u64, now: u64) {
        let Some(mut flight) = self.state.flights.get_mut(id).copied() else { return };
        if let Some(canary) = self.side(flight.arm) {
            let age_ms = now.saturating_sub(flight.at) as f64 / 1e6;
            let ago = self.ago(&flight);
            let exposure = self.exposure(&flight, canary, now, true);
            for limit in &self.derived.limits.aging {
                if !is_open(limit, &flight) {
                    continue;
                }
                let (rule, case) = (&self.policy.rules[limit.rule], &mut self.state.cases[limit.rule]);
                if case.edge(rule, limit.lane, canary, ago).is_some_and(|most| age_ms > most) {
                    flight.done |= limit.bit;
                    case.beyond(rule, limit.lane, exposure, true);
                }
            }
        }
        if let Some(kept) = self.state.flights.get_mut(id) {
            *kept = flight;
        }
        if let Some(at) = self.next_deadline(&flight) {
            self.state.flights.wake(id, at);
        }
    }

    fn first_byte(&mut self, id: u64, at: u64) {
        let Some(kept) = self.state.flights.get_mut(id).filter(|flight| flight.first_byte_at.is_none()) else { return };
        kept.first_byte_at = Some(at);
        if self.derived.limits.ttft.is_empty() {
            return;
        }
        let mut flight = *kept;
        let value = at.saturating_sub(flight.at) as f64 / 1e6;
        self.timed(&mut flight, true, value, at, true);
        if let Some(kept) = self.state.flights.get_mut(id) {
            kept.done = flight.done;
        }
    }

    /// A time is known. `good`: being within the limit counts; an answer that failed counts only if it was slow.
    fn timed(&mut self, flight: &mut Flight, of_ttft: bool, value: f64, known: u64, good: bool) {
        let Some(canary) = self.side(flight.arm) else { return };
        let ago = self.ago(flight);
        let exposure = self.exposure(flight, canary, known, true);
        let limits = &self.derived.limits;
        for limit in if of_ttft { &limits.ttft } else { &limits.latency } {
            let (rule, case) = (&self.policy.rules[limit.rule], &mut self.state.cases[limit.rule]);
            if !canary && limit.lane == Lane::Rollback && flight.drawn {
                case.note_tail(rule, exposure.slot, value, ago);
            }
            if flight.done & limit.bit != 0 {
                continue;
            }
            if let Some(most) = case.edge(rule, limit.lane, canary, ago) {
                let bad = is_beyond(rule, value, most);
                if bad || good {
                    flight.done |= limit.bit;
                    case.beyond(rule, limit.lane, exposure, bad);
                }
            }
        }
    }

    fn ended(&mut self, flight: &Flight, at: u64, end: &End) {
        let Some(canary) = self.side(flight.arm) else { return };
        if end.flags.safety {
            self.violated(canary, at);
        }
        if !end.outcome.is_evidence() {
            return;
        }
        if canary && flight.at >= self.state.entered {
            self.state.arrived[usize::from(!flight.drawn)] += 1;
        }
        if canary && flight.drawn {
            let slot = self.state.by_user.entry(users::slot(flight.user)).or_default();
            self.state.answers[0] += 1.0;
            self.state.answers[1] += f64::from(2 * *slot + 1);
            *slot += 1;
        }
        let success = end.outcome == Outcome::Success && !end.flags.in_band_error;
        let latency = at.saturating_sub(flight.at) as f64 / 1e6;
        let mut timed = *flight;
        let streamed = flight.first_byte_at.map(|first| first.saturating_sub(flight.at) as f64 / 1e6);
        let ttft = streamed.or(end.ttft_us.map(|us| us as f64 / 1e3)).unwrap_or(latency);
        if flight.first_byte_at.is_none() {
            self.timed(&mut timed, true, ttft, at, success);
        }
        self.timed(&mut timed, false, latency, at, success);
        let policy = Arc::clone(&self.policy);
        let ago = self.ago(flight);
        let [of_rate, of_value] = [false, true].map(|quantile| self.exposure(flight, canary, at, quantile));
        for (i, rule) in policy.rules.iter().enumerate() {
            match rule.stat {
                Stat::Rate => {
                    if let Some(bad) = bad_event(&policy, &rule.metric, end, success) {
                        let case = &mut self.state.cases[i];
                        case.seen += 1;
                        case.rate(of_rate, bad, rule.metric.is_fault());
                    }
                }
                Stat::Quantile(_) | Stat::Mean if success => {
                    let known_tokens = self.state.cases[i].seen > 0;
                    if let Some(value) = value_of(&rule.metric, end, [latency, ttft], known_tokens) {
                        self.valued(i, rule, of_value, value, ago);
                    }
                }
                _ => {}
            }
        }
    }

    /// A success has a value of a quantile or mean rule.
    fn valued(&mut self, i: usize, rule: &Rule, exposure: Exposure, value: f64, ago: usize) {
        let Exposure { canary, drawn, .. } = exposure;
        let case = &mut self.state.cases[i];
        case.seen += 1;
        if let Some(means) = &mut case.means {
            if drawn {
                means.add(canary, exposure.slot, value, exposure.soft);
            }
            return;
        }
        if drawn {
            case.learn(canary, value, exposure.soft);
        }
        if !rule.metric.is_time() {
            if drawn && !canary {
                case.note_tail(rule, exposure.slot, value, ago);
            }
            for lane in Lane::ALL {
                if let Some(limit) = case.edge(rule, lane, canary, ago) {
                    case.beyond(rule, lane, exposure, is_beyond(rule, value, limit));
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; the fields of one fact")]
    fn scored(&mut self, canary: bool, drawn: bool, user: u64, metric: &Metric, value: f64, arrived: u64, known: u64) {
        if *metric == Metric::Safety {
            if value > 0.0 {
                self.violated(canary, known);
            }
            return;
        }
        let policy = Arc::clone(&self.policy);
        for (i, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.metric == *metric) {
            let warm = arrived >= self.state.warm_until;
            let slot = users::slot(user);
            let exposure = Exposure {
                canary,
                drawn,
                user,
                slot,
                row: self.state.users.row(slot),
                known,
                soft: if rule.stat == Stat::Rate { arrived >= self.state.cut } else { warm },
            };
            let case = &mut self.state.cases[i];
            case.seen += 1;
            case.last = case.last.max(known);
            match (rule.stat, &mut case.means) {
                (Stat::Mean, Some(means)) if drawn => means.add(canary, exposure.slot, value, warm),
                (Stat::Rate, _) => {
                    let bad = (value >= 0.5) != (rule.metric == Metric::EvalPass);
                    case.rate(exposure, bad, rule.metric.is_fault());
                }
                (Stat::Quantile(_), _) => {
                    for lane in Lane::ALL {
                        if let Some(limit) = case.edge(rule, lane, canary, 0) {
                            case.beyond(rule, lane, exposure, is_beyond(rule, value, limit));
                        }
                    }
                    if drawn {
                        case.learn(canary, value, warm);
                    }
                }
                _ => {}
            }
        }
    }

    fn violated(&mut self, canary: bool, known: u64) {
        for (case, rule) in self.state.cases.iter_mut().zip(&self.policy.rules) {
            if rule.stat == Stat::Zero && rule.metric == Metric::Safety {
                case.violations[usize::from(!canary)] += 1;
                case.seen += 1;
                case.last = known;
            }
        }
    }

    fn queried(&mut self, name: &str, stable: f64, canary: f64, known: u64) {
        for (case, rule) in self.state.cases.iter_mut().zip(&self.policy.rules) {
            if !matches!(&rule.metric, Metric::Prometheus(query) if **query == *name) {
                continue;
            }
            case.seen += 1;
            case.last = known;
            case.query = Some((stable, canary));
            let edge = match rule.rollback {
                Margin::Absolute(by) => stable + by,
                Margin::Relative(ratio) => stable * ratio,
            };
            let beyond = |edge: f64| match rule.direction {
                Direction::Higher => canary > edge,
                Direction::Lower => canary < edge,
            };
            let breach = beyond(edge) || rule.limit.is_some_and(beyond);
            case.breaches = if breach { case.breaches + 1 } else { 0 };
            case.unproven = true;
            if !breach {
                // A gate that only holds, holds while it is beyond its margin.
                case.failing = None;
            }
        }
    }
}

/// Whether an exchange in flight can still pass a limit.
fn is_open(limit: &Limit, flight: &Flight) -> bool {
    flight.done & limit.bit == 0 && !(limit.of_ttft && flight.first_byte_at.is_some())
}

fn in_nanos(ms: f64) -> u64 {
    (ms.max(0.0) * 1e6) as u64
}

fn bars(policy: &Policy, horizon: Duration) -> Bars {
    Bars::new(f64::from(policy.tests()), policy.alpha, horizon.as_secs_f64())
}
