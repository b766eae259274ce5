//! The breaker: failures in a row by arrival, with what is in flight counted as not failed (evaluator.md section 3).
//!
//! What fails fast is known before what succeeds slowly, so "eight in a row by completion", the obvious rule, rolls back
//! healthy canaries, and waits for old slow successes in real outages. Here the run is what arrived after the latest-arrived
//! known success, and every request that arrived since its first failure counts as not failed until it is known.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::names::{Arm, Mono};
use crate::stats::proportion::divergence;

use super::facts::{End, Fact, Outcome};
use super::ids::ById;
use super::policy::{ErrorStatuses, Policy};

/// ln of one in 10⁹: what a run must exceed at least.
const LEAST_EVIDENCE: f64 = 20.7;
/// ln of one in 10⁵ a stage, before the union over the stage's arrivals at which a run may begin.
const STAGE_EVIDENCE: f64 = 11.5;
/// A canary is allowed at least this share of failures.
const LEAST_SHARE: f64 = 0.05;
/// Stable's answers that its share of failures is taken over.
const STABLE_ANSWERS: usize = 1_000;
/// And over so many of its last ones: in a shared incident what stable answered since a short run began may by luck be
/// all good, and a thousand answers reach far back before it. (One healthy canary of 240 fell so, with retries at 40 %
/// failures in both arms; its stage stood with this, and so did 300 fresh ones.)
const STABLE_LATE: usize = 100;
/// Stable must have answered this many since the run began, and failed fewer than this share of them.
const STABLE_LEAST: usize = 8;
const STABLE_MOST: f64 = 0.3;
/// Bounds of what is remembered: far above what opens it, so that a long shared incident costs no memory.
const RUN_MOST: usize = 2_000;
const ARRIVALS_MOST: usize = 65_536;
const FLIGHTS_MOST: usize = 1_000_000;
/// Of each of two or three users so many failures are evidence, though six are counted for the length of the run: they are no
/// independent ones. (With six, one healthy canary of 300 fell to the retry storms of two users and a failure of a third.)
const FEW_EACH: u64 = 5;
/// A run of one user alone must have lasted this long.
const ALONE_NS: u64 = 60_000_000_000;

/// Watches one rollout for a canary that simply broke. Small and alone: it also runs in the guard thread, without the judge.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Breaker {
    errors: ErrorStatuses,
    /// Whether stable has traffic by plan; without, its clause is void.
    stable_serves: bool,
    flights: ById<Flight>,
    /// Arrival of the latest-arrived known success of the canary, or the stage's start.
    success: u64,
    /// The canary's failures that arrived later: arrival, user.
    run: Vec<(u64, u64)>,
    /// The canary's arrivals later than `success`.
    arrivals: VecDeque<u64>,
    stage_arrivals: u64,
    stable_answers: u64,
    /// Stable's last answers: when known, whether failed.
    stable: VecDeque<(u64, bool)>,
    /// Whether anything came since the last tick.
    changed: bool,
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Flight {
    pub(super) at: u64,
    pub(super) user: u64,
    pub(super) canary: bool,
}

/// Why the breaker opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tripped {
    /// The numbers, as a sentence.
    pub reason: String,
}

impl Breaker {
    /// A breaker that has seen nothing.
    #[must_use]
    pub fn new(policy: &Arc<Policy>) -> Self {
        Self {
            errors: policy.errors.clone(),
            stable_serves: true,
            flights: ById::default(),
            success: 0,
            run: Vec::new(),
            arrivals: VecDeque::new(),
            stage_arrivals: 0,
            stable_answers: 0,
            stable: VecDeque::new(),
            changed: false,
        }
    }

    /// Takes in one fact.
    pub fn observe(&mut self, fact: &Fact) {
        match fact {
            Fact::Start { id, at, arm, user, .. } => {
                let canary = *arm == Arm::Canary;
                if self.flights.len() < FLIGHTS_MOST {
                    self.flights.insert(*id, Flight { at: at.0, user: *user, canary });
                }
                if canary {
                    self.arrived(at.0);
                }
            }
            Fact::End { id, at, end } => {
                if let Some(flight) = self.flights.remove(id) {
                    self.ended(flight, at.0, end);
                }
            }
            Fact::FirstByte { .. } | Fact::Score { .. } | Fact::Query { .. } => {}
        }
    }

    /// The canary got a request. For an owner who follows what is in flight himself; others call [`Self::observe`].
    pub(super) fn arrived(&mut self, at: u64) {
        self.stage_arrivals += 1;
        self.arrivals.push_back(at);
        if self.arrivals.len() > ARRIVALS_MOST {
            self.arrivals.pop_front();
        }
    }

    /// A request was answered. See [`Self::arrived`].
    pub(super) fn ended(&mut self, flight: Flight, at: u64, end: &End) {
        if !end.outcome.is_evidence() {
            return;
        }
        self.changed = true;
        let failed = self.errors.is_error(end);
        if !flight.canary {
            self.stable_answers += 1;
            self.stable.push_back((at, failed));
            if self.stable.len() > STABLE_ANSWERS {
                self.stable.pop_front();
            }
        } else if failed {
            if flight.at > self.success {
                self.run.push((flight.at, flight.user));
                if self.run.len() > RUN_MOST {
                    self.run.remove(0);
                }
            }
        } else if end.outcome == Outcome::Success && flight.at > self.success {
            self.since(flight.at);
        }
    }

    fn since(&mut self, at: u64) {
        self.success = at;
        self.run.retain(|failure| failure.0 > at);
        self.arrivals.retain(|arrival| *arrival > at);
    }

    /// A stage began, or the weight changed: the canary gets `weight` (a share, 0 to 1) of the units. At 1 there is no
    /// stable to compare with.
    pub fn stage_entered(&mut self, weight: f64, at: Mono) {
        self.stable_serves = weight < 1.0;
        self.stage_arrivals = 0;
        self.since(at.0.saturating_sub(1));
    }

    /// The weight changed inside a stage.
    pub fn weight_changed(&mut self, weight: f64) {
        self.stable_serves = weight < 1.0;
    }

    /// The canary's arrivals in this stage.
    #[must_use]
    pub fn canary_arrivals(&self) -> u64 {
        self.stage_arrivals
    }

    /// Stable's answers ever known.
    #[must_use]
    pub(super) fn answers(&self) -> u64 {
        self.stable_answers
    }

    /// Stable's failures and answers since `since`, among its last thousand.
    #[must_use]
    pub fn stable_since(&self, since: Mono) -> (u64, u64) {
        let mut sum = (0, 0);
        for (_, failed) in self.stable.iter().rev().take_while(|answer| answer.0 >= since.0) {
            sum.0 += u64::from(*failed);
            sum.1 += 1;
        }
        sum
    }

    /// Whether the run of failures is long enough, as known now.
    #[must_use]
    pub fn tick(&mut self, _now: Mono) -> Option<Tripped> {
        if !std::mem::take(&mut self.changed) || self.run.len() < 8 {
            return None;
        }
        let first = self.run.iter().map(|failure| failure.0).min()?;
        let last = self.run.iter().map(|failure| failure.0).max()?;
        let mut users: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, user) in &self.run {
            *users.entry(*user).or_default() += 1;
        }
        let (each, least, of_evidence) = match users.len() {
            1 => (u64::MAX, 30, u64::MAX),
            2 | 3 => (6, 12, FEW_EACH),
            _ => (3, 8, 3),
        };
        let count = |each: u64| users.values().map(|failures| (*failures).min(each)).sum::<u64>();
        let counted = count(of_evidence);
        if count(each) < least || (users.len() == 1 && last - first < ALONE_NS) {
            return None;
        }
        let repeats = self.run.len() as u64 - counted;
        let arrivals = self.arrivals.iter().filter(|arrival| **arrival >= first).count() as u64;
        let arrivals = arrivals.saturating_sub(repeats).max(counted);
        let (stable_failed, stable_answers) = self.stable_since(Mono(first));
        let share = |failed: u64, answers: u64| if answers > 0 { failed as f64 / answers as f64 } else { 0.0 };
        if self.stable_serves
            && ((stable_answers as usize) < STABLE_LEAST || share(stable_failed, stable_answers) >= STABLE_MOST)
        {
            return None;
        }
        let (all_failed, all_answers) = self.stable_since(Mono(0));
        let late = self.stable.iter().rev().take(STABLE_LATE);
        let (late_failed, late_answers) = late.fold((0, 0), |sum, answer| (sum.0 + u64::from(answer.1), sum.1 + 1));
        let p = LEAST_SHARE
            .max(share(stable_failed, stable_answers))
            .max(share(all_failed, all_answers))
            .max(share(late_failed, late_answers));
        let seen = counted as f64 / arrivals as f64;
        let bar = LEAST_EVIDENCE.max(STAGE_EVIDENCE + (self.stage_arrivals.max(1) as f64).ln());
        let evidence = arrivals as f64 * divergence(seen, p.min(0.999));
        if seen <= p || evidence < bar {
            return None;
        }
        Some(Tripped {
            reason: format!(
                "{} canary failures in a row from {} users, {} of {} arrivals counted, log evidence {evidence:.1} > \
                 {bar:.1}; stable {stable_failed}/{stable_answers} meanwhile",
                self.run.len(),
                users.len(),
                counted,
                arrivals,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        breaker: Breaker,
        id: u64,
    }

    impl Bench {
        fn new() -> Self {
            let mut breaker = Breaker::new(&Arc::new(Policy::default()));
            breaker.stage_entered(0.5, Mono::from_seconds(0.5));
            Self { breaker, id: 0 }
        }

        fn start(&mut self, at: f64, arm: Arm, user: u64) -> u64 {
            self.id += 1;
            let at = Mono::from_seconds(at);
            self.breaker.observe(&Fact::Start { id: self.id, at, arm, user, drawn: true });
            self.id
        }

        fn end(&mut self, id: u64, at: f64, status: u16) {
            let outcome = if status < 400 { Outcome::Success } else { Outcome::UpstreamError };
            self.breaker.observe(&Fact::End { id, at: Mono::from_seconds(at), end: End::plain(outcome, status) });
        }

        fn whole(&mut self, at: f64, arm: Arm, user: u64, status: u16) {
            let id = self.start(at, arm, user);
            self.end(id, at + 0.05, status);
        }

        fn opens(&mut self) -> bool {
            self.breaker.tick(Mono::from_seconds(1e6)).is_some()
        }

        fn stable(&mut self, from: f64, n: u32, status: u16) {
            (0..n).for_each(|i| self.whole(from + f64::from(i) * 0.01, Arm::Stable, u64::from(i), status));
        }
    }

    #[test]
    fn a_total_outage_opens_it_after_eight_answers() {
        let mut bench = Bench::new();
        for i in 0..7 {
            bench.whole(1.0 + i as f64 * 0.1, Arm::Canary, i, 500);
        }
        bench.stable(1.0, 10, 200);
        assert!(!bench.opens());
        bench.whole(1.8, Arm::Canary, 7, 500);
        assert!(bench.opens());
    }

    #[test]
    fn what_is_in_flight_counts_as_not_failed() {
        let mut bench = Bench::new();
        (0..40).for_each(|i| {
            bench.start(0.95 + f64::from(i) * 0.001, Arm::Canary, 1_000);
            bench.start(1.05, Arm::Canary, 1_000);
        });
        (0..8).for_each(|i| bench.whole(1.0 + i as f64 * 0.1, Arm::Canary, i, 500));
        bench.stable(1.0, 20, 200);
        assert!(!bench.opens(), "8 of 49 may be fast errors of a healthy canary");
    }

    #[test]
    fn a_success_that_arrived_before_the_failures_does_not_break_the_run() {
        let mut bench = Bench::new();
        let slow = bench.start(0.9, Arm::Canary, 99);
        (0..8).for_each(|i| bench.whole(1.0 + i as f64 * 0.1, Arm::Canary, i, 500));
        bench.stable(1.0, 20, 200);
        bench.end(slow, 2.0, 200);
        assert!(bench.opens());
    }

    #[test]
    fn a_later_success_breaks_the_run() {
        let mut bench = Bench::new();
        (0..7).for_each(|i| bench.whole(1.0 + i as f64 * 0.1, Arm::Canary, i, 500));
        bench.whole(1.75, Arm::Canary, 50, 200);
        bench.whole(1.8, Arm::Canary, 8, 500);
        bench.stable(1.0, 20, 200);
        assert!(!bench.opens());
    }

    #[test]
    fn a_shared_incident_does_not_open_it_and_no_stable_traffic_voids_its_clause() {
        let mut bench = Bench::new();
        (0..20).for_each(|i| bench.whole(1.0 + i as f64 * 0.1, Arm::Canary, i, 500));
        bench.stable(1.0, 10, 500);
        bench.stable(2.0, 10, 200);
        assert!(!bench.opens());
        let mut bench = Bench::new();
        (0..8).for_each(|i| bench.whole(1.0 + i as f64 * 0.1, Arm::Canary, i, 500));
        assert!(!bench.opens());
        bench.breaker.weight_changed(1.0);
        bench.breaker.changed = true;
        assert!(bench.opens());
    }

    #[test]
    fn one_user_s_retry_storm_needs_thirty_failures_over_a_minute() {
        let mut bench = Bench::new();
        (0..80).for_each(|i| bench.whole(1.0 + f64::from(i) * 0.5, Arm::Canary, 1, 500));
        bench.stable(1.0, 20, 200);
        assert!(!bench.opens(), "80 in 40 s");
        (0..50).for_each(|i| bench.whole(41.0 + f64::from(i) * 0.5, Arm::Canary, 1, 500));
        assert!(bench.opens());
        let mut bench = Bench::new();
        (0..40).for_each(|i| bench.whole(1.0 + f64::from(i) * 0.5, Arm::Canary, u64::from(i > 3), 500));
        bench.stable(1.0, 20, 200);
        assert!(!bench.opens(), "two users: 4 + 6 counted");
        // Two users in a storm, a failure of a third, and nine in flight: 13 of 22 arrivals, were six of each evidence.
        let storms = |others: u64| {
            let mut bench = Bench::new();
            (0..6).for_each(|i| bench.whole(1.0 + f64::from(i) * 0.5, Arm::Canary, 1, 500));
            (0..6).for_each(|i| bench.whole(1.1 + f64::from(i) * 0.5, Arm::Canary, 2, 500));
            (0..others).for_each(|i| bench.whole(1.2 + i as f64 * 0.1, Arm::Canary, 3 + i, 500));
            for i in 0..9 {
                bench.start(1.3 + f64::from(i) * 0.1, Arm::Canary, 30);
            }
            bench.stable(1.0, 20, 200);
            bench.opens()
        };
        assert!(!storms(1));
        assert!(storms(9), "failures of many users are another matter");
    }
}
