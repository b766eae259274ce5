//! One test of one rule: closed strata into log evidence, what it sums up to since each start into a reading against a bar.
//!
//! The same machine serves the rollback test (soft and hard), the promotion test (roles exchanged), and the one-sample
//! form of limits; [`Terms`] say which. evaluator.md sections 2, 3, 6, 7.

use crate::stats::cluster::{self, Slots};
use crate::stats::proportion::{self, Line, Pair, Weights};

use super::reading::{NEGLIGIBLE, Reading, Together};
use super::starts::{Bars, Part, Span, Starts};
use super::strata::{Past, Side, Stratum};
use super::users::Offsets;
use super::worst::{loudest, means};

/// Odds ratios of the alternatives beside the mild one: small, doubled, and up to "everything fails".
pub(super) const OMEGAS: [f64; 6] = [1.6, 2.5, 5.0, 15.0, 60.0, 400.0];
/// Hard tests look for gross failures only.
pub(super) const HARD_OMEGAS: [f64; 4] = [5.0, 15.0, 60.0, 400.0];
/// Shares of the bet on each of these.
pub(super) const HARD_BETS: [f64; 4] = [0.25; 4];
const MOST_OMEGAS: usize = 7;
/// Shares of the bet on each alternative, the mild one first: a small effect takes long to show, so what its share costs in time is
/// most. Gross ones show at once, and have the hard tests besides.
pub(super) const BETS: [f64; MOST_OMEGAS] = [0.2, 0.2, 0.2, 0.15, 0.1, 0.08, 0.07];
/// Strata without canary traffic are joined up to this long.
const JOINED_NS: u64 = 5_000_000_000;
/// A block for the design effect: long enough to hold several exposures of one user.
const BLOCK_NS: u64 = 10_000_000_000;
const BLOCK_LEAST: usize = 20;
/// Residuals are summed up by so many groups of slots, of each span: the squares of independent users' sums add up whoever shares a
/// group, and a thousand tell φ within 4 %. By slot they were most of a rollout's memory.
const GROUPS: u16 = 1_024;
/// Evidence starts anew this often: what fails altogether is to be seen within seconds, hours into a stage too.
const SPAN_NS: u64 = 4_000_000_000;
/// Exposures that wait to be summed up by slot: bounded memory.
const MOST_LATEST: usize = 2_048;
/// Hard tests count this many bad events a slot, and need as many slots with some: one user's storm is no outage.
const HARD_EACH: f32 = 2.0;
const HARD_SLOTS: usize = 3;
/// Hard tests need this much evidence from events alone, which no unfinished request can bias.
const HARD_EVENTS: f64 = 3.0;

/// What rounding may add to a bound.
const ROUNDING: f64 = 1e-9;

/// What a test compares.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Terms {
    /// Is the canary worse than the boundary? `mild` is the first odds ratio, `cap` bounds its rate.
    Worse { null: Boundary, mild: f64, cap: Option<Boundary>, hard: bool },
    /// Is the canary better than the boundary? The alternative is `share` of stable's rate, at the users' far offsets.
    Better { null: Boundary, share: f64 },
    /// Is the canary's own rate above this?
    Above { limit: f64 },
}

/// The canary's rate as a function of stable's at the edge of a margin: times · p + plus.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Boundary {
    pub(super) times: f64,
    pub(super) plus: f64,
}

impl Boundary {
    /// No margin.
    pub(super) const NONE: Boundary = Boundary { times: 1.0, plus: 0.0 };

    pub(super) fn at(self, rate: f64) -> f64 {
        self.times * rate + self.plus
    }
}

/// Sums of a span of time.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Sums {
    pub(super) log: [f64; MOST_OMEGAS],
    /// Of `log`, what the canary's bad and good events gave.
    pub(super) bad: [f64; MOST_OMEGAS],
    pub(super) good: [f64; MOST_OMEGAS],
    /// Events-only evidence: Σ (K + k_s)·share_cost, of hard tests.
    cost: [f64; 4],
    pub(super) n_c: f64,
    pub(super) k_c: f64,
    pub(super) n_s: f64,
    pub(super) k_s: f64,
    /// Σ ρ of stable's and the canary's exposures.
    pub(super) rho_s: f64,
    pub(super) rho_c: f64,
    /// The same of the canary's far offsets.
    pub(super) far_c: f64,
    /// Σ x(1−x) of stable's exposures in closed blocks.
    variance: f64,
    /// Evidence that an alternative that is true would have given.
    drift: f64,
}

impl Sums {
    fn add(&mut self, more: &Sums) {
        for i in 0..MOST_OMEGAS {
            self.log[i] += more.log[i];
            self.bad[i] += more.bad[i];
            self.good[i] += more.good[i];
        }
        for i in 0..4 {
            self.cost[i] += more.cost[i];
        }
        self.n_c += more.n_c;
        self.k_c += more.k_c;
        self.n_s += more.n_s;
        self.k_s += more.k_s;
        self.rho_s += more.rho_s;
        self.rho_c += more.rho_c;
        self.far_c += more.far_c;
        self.variance += more.variance;
        self.drift += more.drift;
    }
}

/// What a test sums up over a span of time.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Counted {
    sums: Sums,
    /// The canary's exposures and bad events by slot.
    canary: Slots<2>,
    /// Stable's residuals by group (the canary's own in the one-sample form).
    residuals: Slots<1>,
}

impl Part for Counted {
    fn join(&mut self, later: Self) {
        self.sums.add(&later.sums);
        self.canary.merge(&later.canary);
        self.residuals.merge(&later.residuals);
    }
}

impl Counted {
    fn design_effect(&self) -> f64 {
        let squares = self.residuals.iter().map(|cell| f64::from(cell.1[0]).powi(2)).sum();
        cluster::design_effect(squares, self.sums.variance)
    }
}

/// One test.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Contest {
    terms: Terms,
    running: bool,
    stratum: Stratum,
    past: Past,
    /// Of the whole stage.
    total: Sums,
    starts: Starts<Counted>,
    /// The canary's last exposures, in a plain list, so that a tick costs its events and not the slots.
    latest: Slots<2>,
    block: Vec<(u16, bool)>,
    block_since: u64,
    /// Residuals of the whole stage and the sum of their squares, kept as they come: φ of the stage is asked for often.
    residuals_whole: Vec<f32>,
    squares_whole: f64,
}

impl Contest {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            running: false,
            stratum: Stratum::default(),
            past: Past::default(),
            total: Sums::default(),
            starts: Starts::new(0),
            latest: Slots::default(),
            block: Vec::new(),
            block_since: 0,
            residuals_whole: Vec::new(),
            squares_whole: 0.0,
        }
    }

    /// Forgets all evidence, keeps stable's rate, and begins to count.
    pub(super) fn begin(&mut self, terms: Terms, at: u64) {
        *self = Self {
            terms,
            running: true,
            past: self.past,
            stratum: Stratum { since: at, ..Stratum::default() },
            starts: Starts::new(at),
            block_since: at,
            ..Self::new(terms)
        };
    }

    /// Changes the alternatives from here on: what they are may depend on the past, never on what is counted with them.
    pub(super) fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    /// One exposure, known in this tick, of a user with these offsets: [`Offsets::both`].
    pub(super) fn add(&mut self, canary: bool, slot: u16, bad: bool, offsets: [f64; 2]) {
        let own = matches!(self.terms, Terms::Above { .. });
        if canary {
            if !self.running {
                return;
            }
            self.stratum.events.push((slot, bad));
            self.stratum.canary.add(bad, offsets);
        } else if own {
            return;
        } else {
            self.stratum.stable.add(bad, offsets);
        }
        // A proof is divided by the design effect of the rollback test: it needs none of its own.
        if self.running && own == canary && !matches!(self.terms, Terms::Better { .. }) {
            self.block.push((slot, bad));
        }
    }

    pub(super) fn total(&self) -> &Sums {
        &self.total
    }

    /// Closes the stratum if it is `length_ns` old and has canary traffic, or is older than any may be. `odds`: canary
    /// arrivals for each of stable's. Returns whether evidence changed.
    pub(super) fn tick(&mut self, now: u64, length_ns: u64, offsets: &Offsets, odds: f64) -> bool {
        const SLACK_NS: u64 = 5_000_000; // live ticks are not exact
        let age = now.saturating_sub(self.stratum.since) + SLACK_NS;
        let due = if self.stratum.events.is_empty() { age >= JOINED_NS } else { age >= length_ns };
        if !due {
            return false;
        }
        let Stratum { since, canary, stable, .. } = self.stratum;
        if self.running {
            self.turn_to(since);
            self.count(canary, stable, odds);
            let events = self.stratum.events.drain(..);
            self.latest.append(events.map(|(slot, bad)| (slot, [1.0, f32::from(u8::from(bad))])));
            if self.latest.len() >= MOST_LATEST {
                self.settle();
            }
            if now.saturating_sub(self.block_since) >= BLOCK_NS && self.block.len() >= BLOCK_LEAST {
                self.close_block(now, offsets);
            }
        }
        self.past.add(stable, now);
        self.stratum = Stratum { since: now, events: std::mem::take(&mut self.stratum.events), ..Stratum::default() };
        self.running && canary.n > 0.0
    }

    /// Time goes on to a stratum that began then. A proof is of the whole stage.
    fn turn_to(&mut self, since: u64) {
        if matches!(self.terms, Terms::Better { .. }) || !self.starts.is_due(since, SPAN_NS) {
            return;
        }
        self.settle();
        let bets = bets(self.terms);
        self.starts.turn(since, |spans| {
            let mut logs = [0.0; MOST_OMEGAS];
            spans.iter().for_each(|span| add(&mut logs, &span.part.sums.log));
            [proportion::log_mix_exp(&logs, bets)]
        });
    }

    fn settle(&mut self) {
        self.starts.newest().canary.take_in(&mut self.latest);
    }

    /// Adds one stratum's log likelihood ratios.
    fn count(&mut self, canary: Side, stable: Side, odds: f64) {
        let more = self.counted(canary, stable, odds);
        self.total.add(&more);
        self.starts.newest().sums.add(&more);
    }

    fn counted(&self, canary: Side, stable: Side, odds: f64) -> Sums {
        let (rho_c, rho_s) = (canary.rho(), stable.rho());
        let mut total = Sums {
            n_c: canary.n,
            k_c: canary.k,
            n_s: stable.n,
            k_s: stable.k,
            rho_c: canary.n * rho_c,
            far_c: canary.n * canary.far(),
            rho_s: stable.n * rho_s,
            ..Sums::default()
        };
        if let Terms::Worse { hard: true, .. } = self.terms
            && canary.k + stable.k > 0.0
        {
            for (cost, omega) in total.cost.iter_mut().zip(HARD_OMEGAS) {
                *cost = (canary.k + stable.k) * proportion::share_cost(omega, odds);
            }
        }
        if canary.n == 0.0 {
            return total;
        }
        let rate = self.past.rate(rho_s.max(rho_c));
        let expected = rate * rho_c;
        let mut add = |i: usize, alternative: Pair, null: Pair| {
            let weights = Weights::new(alternative, null);
            let bad = canary.k * weights.canary_bad;
            let good = (canary.n - canary.k) * weights.canary_good;
            total.bad[i] = bad;
            total.good[i] = good;
            total.log[i] = bad + good + stable.k * weights.stable_bad + (stable.n - stable.k) * weights.stable_good;
        };
        match self.terms {
            Terms::Above { limit } => {
                for (i, omega) in omegas(1.25, false).enumerate() {
                    let p = proportion::by_odds(limit, omega);
                    if p > limit {
                        add(i, Pair { stable: rate, canary: p }, Pair { stable: rate, canary: limit });
                    }
                }
            }
            Terms::Worse { null, mild, cap, hard } => {
                let margin = null.at(expected);
                let line = line(null, canary, stable);
                for (i, omega) in omegas(mild, hard).enumerate() {
                    let mut p = proportion::by_odds(margin, omega);
                    if let (0, false, Some(cap)) = (i, hard, cap) {
                        p = p.min(cap.at(expected));
                    }
                    if p > margin {
                        let alternative = Pair { stable: rate * rho_s, canary: p };
                        add(i, alternative, proportion::nearest_null(alternative, line));
                    }
                }
            }
            Terms::Better { null, share } => {
                let p = share * rate * canary.far();
                if p < null.at(expected) {
                    let alternative = Pair { stable: rate * rho_s, canary: p };
                    let nearest = proportion::nearest_null(alternative, line(null, canary, stable));
                    add(0, alternative, nearest);
                    total.drift = canary.n * proportion::divergence(p, nearest.canary)
                        + stable.n * proportion::divergence(alternative.stable, nearest.stable);
                }
            }
        }
        total
    }

    fn close_block(&mut self, now: u64, offsets: &Offsets) {
        self.block_since = now;
        let own = matches!(self.terms, Terms::Above { .. });
        let rho = |slot: u16| if own { 1.0 } else { offsets.of(slot) };
        self.block.sort_unstable_by_key(|(slot, _)| (slot % GROUPS, *slot));
        let bad = self.block.iter().filter(|event| event.1).count() as f64;
        let spread: f64 = self.block.iter().map(|event| rho(event.0)).sum();
        let rate = bad / spread;
        let mut variance = 0.0;
        let residuals: Vec<(u16, [f32; 1])> = self
            .block
            .chunk_by(|a, b| a.0 == b.0)
            .map(|events| {
                let n = events.len() as f64;
                let k = events.iter().filter(|event| event.1).count() as f64;
                let x = (rho(events[0].0) * rate).min(0.99);
                variance += n * x * (1.0 - x);
                (events[0].0 % GROUPS, [(k - x * n) as f32])
            })
            .collect();
        let squares = &mut self.squares_whole;
        self.residuals_whole.resize(usize::from(GROUPS), 0.0);
        for (group, [more]) in &residuals {
            if let Some(sum) = self.residuals_whole.get_mut(usize::from(*group)) {
                let before = f64::from(*sum);
                *sum += more;
                *squares += f64::from(*sum).powi(2) - before * before;
            }
        }
        self.total.variance += variance;
        let newest = self.starts.newest();
        newest.sums.variance += variance;
        newest.residuals.add_rising(&residuals, |[sum], [more]| *sum += more);
        self.block.clear();
    }

    /// Whether the raw evidence leaves it possible that all starts together come within `slack` of passing: no mean over ω
    /// is larger than its largest part, and none of so many starts has more than the best. Spares nearly all readings.
    pub(super) fn may_pass(&self, bars: &Bars, slack: f64) -> bool {
        if !self.running {
            return false;
        }
        let omegas = bets(self.terms).len();
        let (mut best, mut logs) = (f64::NEG_INFINITY, [0.0; MOST_OMEGAS]);
        for span in self.starts.back() {
            add(&mut logs, &span.part.sums.log);
            let raw = logs[..omegas].iter().copied().fold(0.0, f64::max);
            best = best.max(raw - bars.of(span.share));
        }
        best + f64::ln(self.starts.len() as f64) + slack > 0.0
    }

    /// How far what each start says, newest first, is beyond its bar at most: a correction only lowers what is above 0.
    fn bounds(&self, bars: &Bars) -> Vec<f64> {
        let mut logs = [0.0; MOST_OMEGAS];
        let bound = |span: &Span<Counted>| {
            add(&mut logs, &span.part.sums.log);
            proportion::log_mix_exp(&logs.map(|log| log.max(0.0)), bets(self.terms)) + ROUNDING - bars.of(span.share)
        };
        self.starts.back().map(bound).collect()
    }

    /// Reads what all starts say, but those which could add next to nothing: nearly all, of a canary that does well.
    pub(super) fn read_all(&self, now: u64, bars: &Bars, offsets: &Offsets) -> Together {
        let mut together = Together::default();
        if !self.running {
            return together;
        }
        let bounds = self.bounds(bars);
        let most = bounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let matters = |bound: f64| bound >= most || bound >= -NEGLIGIBLE;
        let oldest = bounds.iter().rposition(|bound| matters(*bound)).unwrap_or(0);
        let mut sum = Counted { canary: self.latest.summed(), ..Counted::default() };
        for (i, (span, bound)) in self.starts.back().zip(bounds).enumerate().take(oldest + 1) {
            sum.sums.add(&span.part.sums);
            sum.canary.merge(&span.part.canary);
            sum.residuals.merge(&span.part.residuals);
            if matters(bound) && sum.sums.n_c > 0.0 {
                let design_effect = if i + 1 == self.starts.len() { self.design_effect() } else { sum.design_effect() };
                together.add(Reading {
                    evidence: self.evidence(&sum.sums, &sum.canary, design_effect, offsets),
                    bar: bars.of(span.share),
                    seconds: now.saturating_sub(span.since) as f64 / 1e9,
                    design_effect,
                    canary_rate: sum.sums.k_c / sum.sums.n_c,
                });
            }
        }
        together
    }

    /// The whole stage, as it is with its worst user: an upper bound, which costs nothing.
    pub(super) fn read_roughly(&self, now: u64, bars: &Bars) -> Together {
        let mut together = Together::default();
        if self.running && self.total.n_c > 0.0 {
            let design_effect = self.design_effect();
            let logs = self.total.log.map(|log| log / design_effect);
            together.add(Reading {
                evidence: proportion::log_mix_exp(&logs, bets(self.terms)),
                bar: bars.whole,
                seconds: now.saturating_sub(self.starts.began()) as f64 / 1e9,
                design_effect,
                canary_rate: self.total.k_c / self.total.n_c,
            });
        }
        together
    }

    /// Proof that the canary is better than the boundary, over the whole stage, with a design effect measured beside it.
    /// Below `bar` without its worst user it is shown without that correction, which is not worth its cost then.
    pub(super) fn proof(&mut self, design_effect: f64, bar: f64, offsets: &Offsets) -> f64 {
        let raw = self.total.log[0] / design_effect;
        if !self.running || raw <= bar {
            return raw;
        }
        self.settle();
        let (sums, terms) = (self.total, self.terms);
        (sums.log[0] - loudest(&sums, 0, terms, &self.starts.newest().canary, offsets, f32::INFINITY)) / design_effect
    }

    /// The evidence to be expected of the whole stage, were the alternative true.
    pub(super) fn drift(&self) -> f64 {
        self.total.drift
    }

    /// φ over the whole stage.
    pub(super) fn design_effect(&self) -> f64 {
        cluster::design_effect(self.squares_whole, self.total.variance)
    }

    /// Slots that the canary touched in this stage.
    pub(super) fn users(&self) -> usize {
        let parts = self.starts.back().map(|span| &span.part.canary);
        cluster::touched(parts.chain([&self.latest]))
    }

    /// Log evidence of some sums: worst user out, divided by the design effect, mean over ω.
    fn evidence(&self, sums: &Sums, slots: &Slots<2>, design_effect: f64, offsets: &Offsets) -> f64 {
        if let Terms::Worse { hard: true, .. } = self.terms {
            return self.hard(sums, slots, design_effect, offsets);
        }
        let out = |i| (sums.log[i] - loudest(sums, i, self.terms, slots, offsets, f32::INFINITY)) / design_effect;
        let logs: [f64; MOST_OMEGAS] = std::array::from_fn(out);
        proportion::log_mix_exp(&logs, bets(self.terms))
    }

    /// The same for a hard test, with what a slot has beyond two bad events lifted out, and its two guards.
    fn hard(&self, sums: &Sums, slots: &Slots<2>, design_effect: f64, offsets: &Offsets) -> f64 {
        let failing = slots.iter().filter(|(_, [_, k])| *k > 0.0).count();
        let counted: f64 = slots.iter().map(|(_, [_, k])| f64::from(k.min(HARD_EACH))).sum();
        let excess = sums.k_c - counted;
        let events = (0..HARD_OMEGAS.len())
            .map(|i| {
                let each = sums.cost[i] / (sums.k_c + sums.k_s).max(1.0);
                counted * HARD_OMEGAS[i].ln() - (counted + sums.k_s) * each
            })
            .fold(f64::NEG_INFINITY, f64::max);
        if failing < HARD_SLOTS || events <= HARD_EVENTS {
            return 0.0;
        }
        let out = |i| {
            let worst = loudest(sums, i, self.terms, slots, offsets, HARD_EACH);
            (sums.log[i] - excess * means(sums, i).0 - worst) / design_effect
        };
        let logs: [f64; HARD_OMEGAS.len()] = std::array::from_fn(out);
        proportion::log_mix_exp(&logs, &HARD_BETS)
    }
}

/// The share of the bet on each alternative of a test.
fn bets(terms: Terms) -> &'static [f64] {
    match terms {
        Terms::Worse { hard: true, .. } => &HARD_BETS,
        Terms::Better { .. } => &[1.0],
        _ => &BETS,
    }
}

fn add(sums: &mut [f64; MOST_OMEGAS], more: &[f64; MOST_OMEGAS]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

fn omegas(mild: f64, hard: bool) -> impl Iterator<Item = f64> {
    let soft = std::iter::once(mild).chain(OMEGAS).filter(move |_| !hard);
    soft.chain(HARD_OMEGAS.into_iter().filter(move |_| hard))
}

fn line(null: Boundary, canary: Side, stable: Side) -> Line {
    Line {
        stable: stable.rho(),
        canary: canary.rho() * null.times,
        delta: null.plus,
        share: canary.n / (canary.n + stable.n),
    }
}
