//! One rule's whole docket: its tests, stable's quantile for it, its history; fed with exposures, asked for fails and proof.

use std::collections::VecDeque;

use crate::stats::plan;
use crate::stats::quantile::{self, Tail};
use crate::stats::sketch::{self, Sketch};

use super::contest::{Boundary, Contest, Terms};
use super::drift;
use super::means::Means;
use super::policy::{Direction, Margin, Metric, Rule, Stat};
use super::reading::{NEGLIGIBLE, Reading, Together};
use super::starts::Bars;
use super::table::{Column, Row};
use super::users::{Expected, History, Offsets, Repeats};
use super::verdict::Lack;

/// Half-life of stable's histogram: follows the time of day, forgets an incident.
const HALF_LIFE_S: f64 = 600.0;
/// Fewest values that a quantile is taken from.
const VALUES: u64 = 200;
/// Remembered refreshes of u, 10 s each: a request older than that is judged by the oldest.
const REMEMBERED: usize = 720;
/// The odds that the first alternative of a rate has.
pub(super) const MILD: f64 = 1.25;

/// Which limit of a quantile rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The promote margin: the rollback test.
    Rollback,
    /// The rollback margin: the promotion test.
    Promote,
    /// The absolute bound.
    Limit,
}

impl Lane {
    pub(super) const ALL: [Lane; 3] = [Lane::Rollback, Lane::Promote, Lane::Limit];
}

/// One exposure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exposure {
    pub(super) canary: bool,
    pub(super) drawn: bool,
    pub(super) user: u64,
    pub(super) slot: u16,
    /// Where the user's offsets are.
    pub(super) row: Row,
    /// When it became known.
    pub(super) known: u64,
    /// It arrived after the cut (and, for quantiles, the warm-up).
    pub(super) soft: bool,
}

/// A fail of one of a rule's tests.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Test {
    Soft,
    Twin,
    Limit,
}

impl Test {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Test::Soft => "",
            Test::Twin => "/hard",
            Test::Limit => "/limit",
        }
    }
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Case {
    /// The rollback test; of a hard rule, the hard test.
    pub(super) soft: Option<Contest>,
    pub(super) twin: Option<Contest>,
    pub(super) promote: Option<Contest>,
    pub(super) limit: Option<Contest>,
    pub(super) means: Option<Means>,
    pub(super) history: History,
    /// Of the stage, from what all rules share; not kept twice.
    #[serde(skip)]
    pub(super) offsets: Offsets,
    repeats: Repeats,
    sketch: Sketch,
    /// Stable's quantile at each of the last refreshes; NaN where there was none.
    us: VecDeque<f64>,
    /// Stable's values beyond u, and beyond the rollback margin too; slow failures, which no histogram of successes
    /// holds, among them.
    tails: [f64; 2],
    /// Whether the alternatives have been fitted to stable's distribution.
    fitted: bool,
    /// Values of this stage, for people.
    pub(super) shown: [Sketch; 2],
    /// Values ever seen, of either arm, and when the last became known.
    pub(super) seen: u64,
    pub(super) last: u64,
    /// Violations in this stage: canary, stable.
    pub(super) violations: [u64; 2],
    /// External query: last values, breaches in a row.
    pub(super) query: Option<(f64, f64)>,
    pub(super) breaches: u32,
    /// A fail of a rule that only holds.
    pub(super) failing: Option<(f64, f64)>,
    /// What its tests said together when they were looked at last, if it was near their bars.
    pub(super) near: Option<(Test, Reading)>,
    /// Evidence changed since fails were looked for, and since proof was.
    pub(super) changed: bool,
    pub(super) unproven: bool,
    lack: Option<Lack>,
    /// Log evidence for not worse, when proof was last looked for.
    pub(super) proof: f64,
    /// Of a mean, what is known since its evidence changed last; not kept.
    #[serde(skip)]
    pub(super) mean: Option<MeanKnown>,
}

/// What is dear to compute of a mean, asked for at every picture and fold, and changed with its evidence alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeanKnown {
    /// [`Means::interval`].
    pub(super) interval: Option<[f64; 2]>,
    /// [`Means::times_needed`].
    pub(super) times: Option<f64>,
    /// [`Means::proof`].
    proof: Option<f64>,
    /// [`Means::estimate`].
    estimate: Option<(f64, f64, f64)>,
    /// [`Means::margin`] and [`Means::limit`], as people are shown them.
    margin: Together,
    limit: Together,
    /// [`Means::closed`].
    closed: u64,
}

pub(super) fn rate_boundary(rule: &Rule, margin: Margin) -> Boundary {
    match margin {
        Margin::Absolute(by) => Boundary { times: 1.0, plus: by.abs() },
        // A pass rate that may fall to a ratio r of stable's: fails 1 − r(1 − p).
        Margin::Relative(ratio) if rule.metric == Metric::EvalPass => {
            Boundary { times: ratio.min(1.0), plus: (1.0 - ratio).max(0.0) }
        }
        Margin::Relative(ratio) => Boundary { times: ratio, plus: 0.0 },
    }
}

fn moved(u: f64, margin: Margin) -> f64 {
    match margin {
        Margin::Absolute(by) => u + by,
        Margin::Relative(ratio) => u * ratio,
    }
}

impl Case {
    pub(super) fn new(rule: &Rule) -> Self {
        let compared = matches!(rule.stat, Stat::Rate | Stat::Quantile(_));
        let contest = |present: bool, terms: Terms| present.then(|| Contest::new(terms));
        let scaled = !matches!(rule.metric, Metric::Quality | Metric::EvalPass);
        let mut case = Self {
            soft: contest(compared, Terms::Above { limit: 0.5 }),
            twin: contest(rule.has_twin(), Terms::Above { limit: 0.5 }),
            promote: contest(compared, Terms::Above { limit: 0.5 }),
            limit: contest(compared && rule.limit.is_some(), Terms::Above { limit: 0.5 }),
            means: (rule.stat == Stat::Mean).then(|| Means::new(rule.direction, scaled)),
            history: History::default(),
            offsets: Offsets::default(),
            repeats: Repeats::default(),
            sketch: Sketch::default(),
            us: VecDeque::new(),
            tails: [0.0; 2],
            fitted: false,
            shown: [Sketch::default(), Sketch::default()],
            seen: 0,
            last: 0,
            violations: [0; 2],
            query: None,
            breaches: 0,
            failing: None,
            near: None,
            changed: false,
            unproven: true,
            lack: None,
            proof: 0.0,
            mean: None,
        };
        case.set_terms(rule);
        case
    }

    fn tail(rule: &Rule) -> Tail {
        match rule.direction {
            Direction::Higher => Tail::Above,
            Direction::Lower => Tail::Below,
        }
    }

    /// The terms of each test, as stable's history has them now.
    fn terms(&mut self, rule: &Rule) -> [Terms; 4] {
        let (null, cap, worse) = match rule.stat {
            Stat::Rate => (
                rate_boundary(rule, rule.promote),
                Some(rate_boundary(rule, rule.rollback)),
                rate_boundary(rule, rule.rollback),
            ),
            _ => (Boundary::NONE, None, Boundary::NONE),
        };
        let (mut mild, mut share) = (MILD, 1.0);
        let mut edge = rule.limit.unwrap_or(0.5);
        if let Stat::Quantile(q) = rule.stat {
            share = 0.5;
            edge = if rule.direction == Direction::Higher { 1.0 - q } else { q };
            if let Some(u) = self.u(0) {
                let tail = Self::tail(rule);
                let (promote, rollback) = (moved(u, rule.promote), moved(u, rule.rollback));
                // The limit moved back by what lies between the margins: where stable's values would have to start
                // from to come out above it.
                let back = match (rule.promote, rule.rollback) {
                    (Margin::Relative(promote), Margin::Relative(rollback)) => u * promote / rollback,
                    _ => u - (rollback - promote),
                };
                mild = quantile::mild_odds(&self.sketch, tail, u, back);
                share = quantile::kept_share(&self.sketch, tail, u, rollback, self.tails);
                self.fitted = true;
            }
        }
        [
            Terms::Worse { null, mild, cap, hard: rule.hard },
            Terms::Worse { null, mild, cap, hard: true },
            Terms::Better { null: worse, share },
            Terms::Above { limit: edge.clamp(1e-6, 0.98) },
        ]
    }

    fn set_terms(&mut self, rule: &Rule) {
        let terms = self.terms(rule);
        let contests = [&mut self.soft, &mut self.twin, &mut self.promote, &mut self.limit];
        for (contest, terms) in contests.into_iter().zip(terms) {
            if let Some(contest) = contest {
                contest.set_terms(terms);
            }
        }
    }

    /// What is expected of the users of stable's history.
    pub(super) fn expected(&self, users: &[(u16, [f32; 3])]) -> Expected {
        if self.means.is_some() { Means::expected(users) } else { self.history.expected(users) }
    }

    /// Fresh evidence: offsets and alternatives are fixed from stable's history. `all`: the promotion test too.
    pub(super) fn begin(&mut self, rule: &Rule, at: u64, all: bool, offsets: Offsets) {
        self.offsets = offsets;
        self.fitted = false;
        let terms = self.terms(rule);
        let contests = [&mut self.soft, &mut self.twin, &mut self.promote, &mut self.limit];
        for (i, (contest, terms)) in contests.into_iter().zip(terms).enumerate() {
            if let Some(contest) = contest.as_mut().filter(|_| all || i != 2) {
                contest.begin(terms, at);
            }
        }
        if let Some(means) = &mut self.means {
            means.begin(rule.promote, rule.limit, at);
            self.mean = None;
        }
        self.near = None;
        self.unproven = true;
        if all {
            self.shown = [Sketch::default(), Sketch::default()];
            self.violations = [0; 2];
            self.breaches = 0;
            self.query = None;
            self.failing = None;
        }
    }

    /// Stable's values, decayed.
    pub(super) fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// Stable's quantile `ago` refreshes before now.
    pub(super) fn u(&self, ago: usize) -> Option<f64> {
        let last = self.us.len().checked_sub(1)?;
        self.us.get(last.saturating_sub(ago)).copied().filter(|u| u.is_finite())
    }

    /// The limit beyond which a value is bad, for a request that arrived `ago` refreshes before now.
    pub(super) fn edge(&self, rule: &Rule, lane: Lane, canary: bool, ago: usize) -> Option<f64> {
        match lane {
            Lane::Limit => rule.limit.filter(|_| canary),
            _ if !canary => self.u(ago),
            Lane::Rollback => Some(moved(self.u(ago)?, rule.promote)),
            Lane::Promote => Some(moved(self.u(ago)?, rule.rollback)),
        }
    }

    /// A value that counted in stable, for the share of its tail that lies beyond the rollback margin.
    pub(super) fn note_tail(&mut self, rule: &Rule, slot: u16, value: f64, ago: usize) {
        let Some(u) = self.u(ago) else { return };
        if is_beyond(rule, value, u) {
            self.tails[0] += 1.0;
            if is_beyond(rule, value, moved(u, rule.rollback)) {
                self.tails[1] += 1.0;
                self.history.add_far(slot);
            }
        }
    }

    /// A value of a success that was placed by chance: of stable's, for u; of this stage (`counted`), for people.
    pub(super) fn learn(&mut self, canary: bool, value: f64, counted: bool) {
        if canary && !counted {
            return;
        }
        let bucket = sketch::bucket(value);
        if counted {
            self.shown[usize::from(canary)].add_at(bucket);
        }
        if !canary {
            self.sketch.add_at(bucket);
        }
    }

    /// Takes u anew from what was learnt.
    pub(super) fn refresh(&mut self, rule: &Rule, passed_s: f64) {
        let Stat::Quantile(q) = rule.stat else { return };
        let u = if self.sketch.seen() >= VALUES { self.sketch.quantile(q) } else { None };
        self.us.push_back(u.unwrap_or(f64::NAN));
        if self.us.len() > REMEMBERED {
            self.us.pop_front();
        }
        self.sketch.decay(0.5f64.powf(passed_s / HALF_LIFE_S));
        if !self.fitted && u.is_some() {
            self.set_terms(rule);
        }
    }

    /// One exposure of a rate rule. Of faults, those that one user has in a storm count once.
    pub(super) fn rate(&mut self, exposure: Exposure, bad: bool, fault: bool) {
        let counted = bad && exposure.drawn && (!fault || self.repeats.counts(exposure.user, exposure.known));
        let Exposure { canary, slot, .. } = exposure;
        let rho = self.offsets.at(exposure.row);
        if exposure.soft
            && canary
            && let Some(limit) = &mut self.limit
        {
            limit.add(true, slot, if exposure.drawn { counted } else { bad }, rho);
        }
        if !exposure.drawn {
            return;
        }
        if exposure.soft {
            for contest in [&mut self.soft, &mut self.promote].into_iter().flatten() {
                contest.add(canary, slot, counted, rho);
            }
        }
        // What stable had in flight at the cut is left out here too: its successes come in while of the canary's first
        // arrivals only the fast failures are known.
        if let Some(twin) = self.twin.as_mut().filter(|_| (counted || !bad) && exposure.soft) {
            twin.add(canary, slot, bad, rho);
        }
        if !canary {
            self.history.add(slot, counted);
        }
    }

    /// One exposure of a quantile rule: a value that is known to be beyond its limit, or not.
    pub(super) fn beyond(&mut self, rule: &Rule, lane: Lane, exposure: Exposure, bad: bool) {
        let Exposure { canary, slot, row, .. } = exposure;
        match lane {
            Lane::Limit => {
                if let Some(limit) = self.limit.as_mut().filter(|_| exposure.soft && canary) {
                    limit.add(true, slot, bad, self.offsets.at(row));
                }
            }
            _ if !exposure.drawn => {}
            Lane::Rollback => {
                if !canary {
                    self.history.add(slot, bad);
                }
                let repeat = rule.hard && bad && !self.repeats.counts(exposure.user, exposure.known);
                if let Some(soft) = self.soft.as_mut().filter(|_| !repeat && (rule.hard || exposure.soft)) {
                    soft.add(canary, slot, bad, self.offsets.at(row));
                }
            }
            Lane::Promote => {
                if let Some(promote) = self.promote.as_mut().filter(|_| exposure.soft) {
                    promote.add(canary, slot, bad, self.offsets.at(row));
                }
            }
        }
    }

    /// Looks at a mean whose evidence may have changed. `bar`: of a proof.
    pub(super) fn look(&mut self, rule: &Rule, now: u64, bars: &Bars, bar: f64) {
        let Some(means) = &self.means else { return };
        if self.mean.is_some_and(|known| known.closed == means.closed()) {
            return;
        }
        let whole = means.whole();
        let against = |limit| means.limit(now, bars, limit, NEGLIGIBLE, Some(&whole));
        self.mean = Some(MeanKnown {
            interval: means.interval(&whole),
            times: means.times_needed(&whole, rule.rollback, bar),
            proof: means.proof(&whole, rule.rollback),
            estimate: means.estimate(&whole),
            margin: means.margin(now, bars, rule.promote, NEGLIGIBLE, Some(&whole)),
            limit: rule.limit.map_or_else(Together::default, against),
            closed: means.closed(),
        });
    }

    /// Closes what is due. `fast`: soon after a weight change.
    pub(super) fn tick(&mut self, rule: &Rule, now: u64, fast: bool, odds: f64, history: Column<'_, 3>) {
        const QUARTER: u64 = 250_000_000;
        const SECOND: u64 = 1_000_000_000;
        self.repeats.tick(now);
        let hard = if fast { QUARTER } else { SECOND };
        let soft = match (rule.stat, fast) {
            _ if rule.hard => hard,
            (Stat::Quantile(_), true) => SECOND,
            (Stat::Quantile(_), false) => 2 * SECOND,
            _ => hard,
        };
        let mut changed = false;
        let contests = [
            (&mut self.soft, soft),
            (&mut self.twin, hard),
            (&mut self.promote, soft.max(SECOND)),
            (&mut self.limit, soft),
        ];
        for (contest, length) in contests {
            if let Some(contest) = contest {
                changed |= contest.tick(now, length, &self.offsets, odds);
            }
        }
        if let Some(means) = &mut self.means
            && means.tick(now, if fast { 5 * SECOND } else { 10 * SECOND }, &self.offsets, history)
        {
            changed = true;
        }
        self.changed |= changed;
        self.unproven |= changed;
    }

    /// What its tests say together. `only_if_near`: nothing where they cannot have passed, which costs next to nothing to see;
    /// else people are shown what stands there, without the corrections that only lower it.
    pub(super) fn read(&self, rule: &Rule, now: u64, bars: &Bars, only_if_near: bool) -> Option<(Test, Reading)> {
        let contests = [(Test::Twin, &self.twin), (Test::Soft, &self.soft), (Test::Limit, &self.limit)];
        let mut all = Together::default();
        let mut named = None;
        let mut add = |test: Test, together: Together| {
            let Some(reading) = together.told().filter(|reading| !only_if_near || self.above_floor(rule, reading))
            else {
                return;
            };
            if named.is_none_or(|(_, most)| reading.headroom() > most) {
                named = Some((test, reading.headroom()));
            }
            all.add(reading);
        };
        let contests = contests.iter().filter_map(|(test, contest)| Some((*test, contest.as_ref()?)));
        if contests.clone().any(|(_, contest)| contest.may_pass(bars, NEGLIGIBLE)) {
            contests.for_each(|(test, contest)| add(test, contest.read_all(now, bars, &self.offsets)));
        } else if !only_if_near {
            contests.for_each(|(test, contest)| add(test, contest.read_roughly(now, bars)));
        }
        if let Some(means) = &self.means {
            let known = self.mean.filter(|_| !only_if_near);
            let whole = (!only_if_near && known.is_none()).then(|| means.whole());
            let margin = || means.margin(now, bars, rule.promote, NEGLIGIBLE, whole.as_ref());
            add(Test::Soft, known.map_or_else(margin, |known| known.margin));
            if let Some(limit) = rule.limit {
                let limit = || means.limit(now, bars, limit, NEGLIGIBLE, whole.as_ref());
                add(Test::Limit, known.map_or_else(limit, |known| known.limit));
            }
        }
        Some((named?.0, all.told()?))
    }

    fn above_floor(&self, rule: &Rule, reading: &Reading) -> bool {
        let Some(floor) = rule.floor else { return true };
        let own = match rule.stat {
            Stat::Quantile(q) => self.shown[1].quantile(q).unwrap_or(f64::NAN),
            Stat::Rate if rule.metric == Metric::EvalPass => 1.0 - reading.canary_rate,
            _ => reading.canary_rate,
        };
        match rule.direction {
            _ if rule.metric == Metric::EvalPass => own < floor,
            Direction::Higher => own > floor,
            Direction::Lower => own < floor,
        }
    }

    /// φ over the whole stage, measured where the rollback test is.
    pub(super) fn design_effect(&self) -> f64 {
        self.soft.as_ref().map_or(1.0, Contest::design_effect)
    }

    /// What keeps this rule from being proven, or nothing. `elapsed_s`: since the stage began. Computed anew only where evidence changed.
    pub(super) fn lacks(&mut self, rule: &Rule, bar: f64, elapsed_s: f64) -> Option<Lack> {
        if std::mem::take(&mut self.unproven) {
            self.lack = self.lack(rule, bar, elapsed_s);
        }
        self.lack
    }

    fn lack(&mut self, rule: &Rule, bar: f64, elapsed_s: f64) -> Option<Lack> {
        match rule.stat {
            Stat::Zero => None,
            Stat::Breaches(_) => self.lack_of_query(rule),
            Stat::Mean => self.lack_of_mean(rule, bar, elapsed_s),
            Stat::Rate if drift::is_without_room(self, rule) => None,
            Stat::Rate | Stat::Quantile(_) => self.lack_of_share(bar, elapsed_s),
        }
    }

    /// A query passes while its newest answer in this stage lies within the promote margin.
    fn lack_of_query(&self, rule: &Rule) -> Option<Lack> {
        let Some((stable, canary)) = self.query else { return Some(Lack::Data) };
        let edge = match rule.promote {
            Margin::Absolute(by) => stable + by,
            Margin::Relative(ratio) => stable * ratio,
        };
        let outside = match rule.direction {
            Direction::Higher => canary > edge,
            Direction::Lower => canary < edge,
        };
        outside.then_some(Lack::Estimate { have: canary - stable, most: edge - stable })
    }

    fn lack_of_share(&mut self, bar: f64, elapsed_s: f64) -> Option<Lack> {
        if self.seen == 0 {
            return Some(Lack::Data);
        }
        let design_effect = self.design_effect();
        let (soft, promote) = (self.soft.as_ref()?, self.promote.as_mut()?);
        let have = promote.proof(design_effect, bar, &self.offsets);
        self.proof = have;
        let sums = promote.total();
        if have <= bar {
            let speed = promote.drift() / design_effect / elapsed_s.max(1.0);
            let eta_s = (speed > 0.0 && sums.n_c > 0.0).then(|| plan::likely_by(bar - have, speed));
            return Some(Lack::Proof { have, need: bar, eta_s });
        }
        let estimate = Self::estimate(soft, design_effect)?;
        (estimate.0 > estimate.1).then_some(Lack::Estimate { have: estimate.0, most: estimate.1 })
    }

    /// The canary's share of bad events less what stable's is at its users' offsets, and the most that passes: the promote
    /// margin plus one cluster-robust standard error.
    pub(super) fn estimate(soft: &Contest, design_effect: f64) -> Option<(f64, f64)> {
        let sums = soft.total();
        if sums.n_c <= 0.0 || sums.rho_s <= 0.0 {
            return None;
        }
        let expected = sums.k_s / sums.rho_s * sums.rho_c / sums.n_c;
        let own = sums.k_c / sums.n_c;
        let pooled = ((sums.k_c + sums.k_s + 0.5) / (sums.n_c + sums.n_s + 1.0)).min(0.99);
        let error = (design_effect * pooled * (1.0 - pooled) * (1.0 / sums.n_c + 1.0 / sums.n_s.max(1.0))).sqrt();
        let Terms::Worse { null, .. } = soft.terms() else { return None };
        Some((own - expected, null.at(expected) - expected + error))
    }

    fn lack_of_mean(&mut self, rule: &Rule, bar: f64, elapsed_s: f64) -> Option<Lack> {
        let (Some(means), Some(known)) = (&self.means, self.mean) else { return Some(Lack::Data) };
        self.proof = 0.0;
        let (canary, stable) = means.counts();
        let fewest = canary.min(stable);
        if self.seen == 0 || fewest < crate::stats::mean::FEWEST {
            return Some(Lack::Scores { have: fewest as u64, need: crate::stats::mean::FEWEST as u64 });
        }
        let have = known.proof.unwrap_or(0.0);
        self.proof = have;
        if have <= bar {
            let eta_s = known.times.map(|times| ((times - 1.0) * elapsed_s).max(0.0));
            return Some(Lack::Proof { have, need: bar, eta_s });
        }
        let (difference, error, level) = known.estimate?;
        let margin = match rule.promote {
            Margin::Absolute(by) => by.abs(),
            Margin::Relative(ratio) => (ratio - 1.0).abs() * level,
        };
        (difference > margin + error).then_some(Lack::Estimate { have: difference, most: margin + error })
    }
}

/// Whether a value lies beyond a rule's limit.
pub(super) fn is_beyond(rule: &Rule, value: f64, limit: f64) -> bool {
    Case::tail(rule).holds(value, limit)
}
