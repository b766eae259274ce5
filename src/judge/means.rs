//! Tests of means: scores against the comparator's running mean, cluster-robust (evaluator.md section 4).

use std::collections::VecDeque;

use crate::stats::cluster::{self, Slots};
use crate::stats::mean::{self, FEWEST, FEWEST_USERS};

use super::policy::{Direction, Margin};
use super::reading::{Reading, Together};
use super::starts::{Bars, Part, Span, Starts};
use super::table::Column;
use super::users::{Expected, Offsets};

/// The comparator's mean is taken over so many of its last scores: a drift is followed, one user is not.
const LAST: usize = 3_000;
/// Weight, in scores, of "like everybody" in a user's offset.
const SHRINK: f32 = 6.0;
/// Evidence starts anew this often: shorter spans hold too few scores.
const SPAN_NS: u64 = 32_000_000_000;
/// Scores that wait to be summed up by slot: bounded memory.
const MOST_LATEST: usize = 2_048;

/// One rule about a mean.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Means {
    direction: Direction,
    /// Values are divided by the comparator's mean, since they are not 0..1.
    scaled: bool,
    running: bool,
    last: VecDeque<f32>,
    last_sum: f64,
    pending: Vec<(bool, u16, f32)>,
    since: u64,
    starts: Starts<Scores>,
    /// The last scores, in plain lists.
    latest: Scores,
    /// The margin of the rollback test and the absolute bound: shares of the budget move by what both say.
    tests: (Margin, Option<f64>),
    /// Raw sums of this stage, for people: canary n, Σ, stable n, Σ.
    raw: [f64; 4],
}

/// What is summed up over a span of time.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Scores {
    /// Scores n, Σ (score − mean − offset), Σ (mean + offset).
    canary: Slots<3>,
    /// Scores n, Σ (score − mean − offset).
    stable: Slots<2>,
    /// Sums of all slots: canary n, off, level; stable n, off.
    total: [f64; 5],
}

impl Scores {
    fn add(&mut self, more: &Scores) {
        self.canary.merge(&more.canary);
        self.stable.merge(&more.stable);
        add(&mut self.total, &more.total);
    }

    /// The same of a plain list, which is left empty.
    fn take_in(&mut self, latest: &mut Scores) {
        self.canary.take_in(&mut latest.canary);
        self.stable.take_in(&mut latest.stable);
        add(&mut self.total, &std::mem::take(&mut latest.total));
    }
}

impl Part for Scores {
    fn join(&mut self, later: Self) {
        self.add(&later);
    }
}

/// What a margin makes of the slot sums.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// Is it worse than this margin?
    Worse(Margin),
    /// Is it better than this margin?
    Better(Margin),
    /// Is the canary alone worse than this value?
    Limit(f64),
}

/// A score and what it rests on.
#[derive(Clone, Copy, Debug)]
struct Score {
    s: f64,
    v: f64,
    users: f64,
    n: f64,
}

impl Means {
    pub(super) fn new(direction: Direction, scaled: bool) -> Self {
        Self {
            direction,
            scaled,
            running: false,
            last: VecDeque::new(),
            last_sum: 0.0,
            pending: Vec::new(),
            since: 0,
            starts: Starts::new(0),
            latest: Scores::default(),
            tests: (Margin::Relative(1.0), None),
            raw: [0.0; 4],
        }
    }

    /// Users' offsets, of whom stable's history has n scores and their Σ (score − mean); 0 of all others.
    pub(super) fn expected(users: &[(u16, [f32; 3])]) -> Expected {
        let of_users = users.iter().map(|(slot, [n, sum, _])| (*slot, [sum / (n + SHRINK), 0.0]));
        Expected { of_users: of_users.collect(), typical: 0.0 }
    }

    /// Forgets the evidence and begins to count.
    pub(super) fn begin(&mut self, margin: Margin, limit: Option<f64>, at: u64) {
        self.running = true;
        self.pending.clear();
        self.since = at;
        self.starts = Starts::new(at);
        self.latest = Scores::default();
        self.tests = (margin, limit);
        self.raw = [0.0; 4];
    }

    /// One score, known in this tick. `counted`: it takes part in the comparison, not only in the comparator's mean.
    pub(super) fn add(&mut self, canary: bool, slot: u16, value: f64, counted: bool) {
        if canary && !(self.running && counted) {
            return;
        }
        self.pending.push((canary, slot, value as f32));
        if counted && self.running {
            let at = if canary { 0 } else { 2 };
            self.raw[at] += 1.0;
            self.raw[at + 1] += value;
        } else if let Some(last) = self.pending.last_mut() {
            last.1 |= UNCOUNTED;
        }
    }

    fn level(&self) -> Option<f64> {
        (self.last.len() >= FEWEST as usize).then(|| self.last_sum / self.last.len() as f64)
    }

    /// When a tick was closed last.
    pub(super) fn closed(&self) -> u64 {
        self.since
    }

    /// Closes the tick if it is `length_ns` old. Returns whether evidence changed.
    pub(super) fn tick(&mut self, now: u64, length_ns: u64, offsets: &Offsets, history: Column<'_, 3>) -> bool {
        const SLACK_NS: u64 = 5_000_000;
        if now.saturating_sub(self.since) + SLACK_NS < length_ns {
            return false;
        }
        if self.running && self.starts.is_due(self.since, SPAN_NS) {
            self.turn();
        }
        self.since = now;
        if self.pending.is_empty() {
            return false;
        }
        let pending = std::mem::take(&mut self.pending);
        if let Some(level) = self.level().filter(|level| !self.scaled || *level > 0.0) {
            self.count(&pending, level, offsets, history);
        }
        for (_, _, value) in pending.iter().filter(|score| !score.0) {
            self.last.push_back(*value);
            self.last_sum += f64::from(*value);
            if self.last.len() > LAST {
                self.last_sum -= self.last.pop_front().map_or(0.0, f64::from);
            }
        }
        self.pending = pending;
        self.pending.clear();
        self.running
    }

    /// A span begins with what comes from now on.
    fn turn(&mut self) {
        let mut starts = std::mem::replace(&mut self.starts, Starts::new(self.since));
        starts.newest().take_in(&mut self.latest);
        starts.turn(self.since, |spans| {
            let sums = together(spans.iter().copied());
            [Some(Against::Worse(self.tests.0)), self.tests.1.map(Against::Limit)].map(|against| {
                let score = against.and_then(|against| self.score(&sums.canary, &sums.stable, against, true));
                score.map_or(0.0, |score| mean::log_evidence(score.s, score.v, score.users))
            })
        });
        self.starts = starts;
    }

    fn count(&mut self, pending: &[(bool, u16, f32)], level: f64, offsets: &Offsets, mut history: Column<'_, 3>) {
        let (scale, mean) = if self.scaled { (1.0 / level, 1.0) } else { (1.0, level) };
        let (mut canary, mut stable) = (Vec::new(), Vec::new());
        for (of_canary, slot, value) in pending {
            let counted = slot & UNCOUNTED == 0;
            let slot = slot & !UNCOUNTED;
            let [offset, _] = offsets.kept(slot);
            let off = (f64::from(*value) * scale - mean) as f32;
            if *of_canary {
                canary.push((slot, [1.0, off - offset, mean as f32 + offset]));
                continue;
            }
            history.add(slot, [1.0, off, 0.0]);
            if counted && self.running {
                stable.push((slot, [1.0, off - offset]));
            }
        }
        for (_, sums) in &canary {
            add(&mut self.latest.total[..3], &sums.map(f64::from));
        }
        for (_, sums) in &stable {
            add(&mut self.latest.total[3..], &sums.map(f64::from));
        }
        self.latest.canary.append(canary);
        self.latest.stable.append(stable);
        if self.latest.canary.len().max(self.latest.stable.len()) >= MOST_LATEST {
            self.starts.newest().take_in(&mut self.latest);
        }
    }

    /// What its starts say against a margin, but those that cannot bring the sum within `slack` of passing; of the `whole` stage in
    /// any case, where it is to be shown.
    pub(super) fn margin(&self, now: u64, bars: &Bars, margin: Margin, slack: f64, whole: Option<&Scores>) -> Together {
        self.read_all(now, bars, Against::Worse(margin), slack, whole)
    }

    /// The same against an absolute bound of the canary alone.
    pub(super) fn limit(&self, now: u64, bars: &Bars, limit: f64, slack: f64, whole: Option<&Scores>) -> Together {
        self.read_all(now, bars, Against::Limit(limit), slack, whole)
    }

    fn read_all(&self, now: u64, bars: &Bars, against: Against, slack: f64, whole: Option<&Scores>) -> Together {
        let mut all = Together::default();
        if !self.running {
            return all;
        }
        let starts = self.starts.len();
        let slack = slack + f64::ln(starts as f64);
        let mut total = self.latest.total;
        let matters = self.starts.back().enumerate().map(|(i, span)| {
            add(&mut total, &span.part.total);
            (whole.is_some() && i + 1 == starts) || self.most(&total, against) + slack > bars.of(span.share)
        });
        let matters: Vec<bool> = matters.collect();
        let mut add = |span: &Span<Scores>, sums: &Scores| {
            if let Some(score) = self.score(&sums.canary, &sums.stable, against, true) {
                all.add(Reading {
                    evidence: mean::log_evidence(score.s, score.v, score.users),
                    bar: bars.of(span.share),
                    seconds: now.saturating_sub(span.since) as f64 / 1e9,
                    design_effect: 1.0,
                    canary_rate: self.values().1.unwrap_or(0.0),
                });
            }
        };
        let Some(oldest) = matters.iter().rposition(|matters| *matters) else { return all };
        let alone = !matters[..oldest].contains(&true);
        if let (true, Some(whole), Some(span)) = (alone, whole, self.starts.back().last()) {
            add(span, whole);
            return all;
        }
        let mut sums = self.latest();
        for (span, matters) in self.starts.back().zip(matters).take(oldest + 1) {
            sums.add(&span.part);
            if matters {
                add(span, &sums);
            }
        }
        all
    }

    /// The most evidence that sums of all slots leave possible: log e ≤ S²/2ρ + ln 2 whatever the variance, and leaving out the
    /// loudest slot takes its positive share off, or a part of stable's sum. It spares the slots, nearly always.
    fn most(&self, [n, off, level, n_s, off_s]: &[f64; 5], against: Against) -> f64 {
        let canary = self.value(against, *n, *off, *level).max(0.0);
        let stable = if matches!(against, Against::Limit(_)) { 0.0 } else { n / n_s.max(1.0) * off_s.abs() };
        let most = canary + 2.0 * stable;
        most * most / (2.0 * mean::RHO) + std::f64::consts::LN_2
    }

    /// Sums of the whole stage, which the following take: dear, and the same until another tick is [closed](Self::closed).
    pub(super) fn whole(&self) -> Scores {
        let mut whole = self.latest();
        self.starts.back().for_each(|span| whole.add(&span.part));
        whole
    }

    fn latest(&self) -> Scores {
        Scores { canary: self.latest.canary.summed(), stable: self.latest.stable.summed(), total: self.latest.total }
    }

    /// Proof over the whole stage that the canary is better than the rollback margin.
    pub(super) fn proof(&self, Scores { canary, stable, .. }: &Scores, margin: Margin) -> Option<f64> {
        let score = self.score(canary, stable, Against::Better(margin), true)?;
        Some(mean::log_evidence(score.s, score.v, score.users))
    }

    /// How many times the scores so far a proof is expected to need, were the canary equal.
    pub(super) fn times_needed(&self, Scores { canary, stable, .. }: &Scores, margin: Margin, bar: f64) -> Option<f64> {
        let score = self.score(canary, stable, Against::Better(margin), true)?;
        let gain = match margin {
            Margin::Relative(ratio) => {
                let level: f64 = canary.iter().map(|cell| f64::from(cell.1[2])).sum();
                (1.0 - ratio).abs() * level
            }
            Margin::Absolute(by) => by.abs() * score.n * self.scale(),
        };
        let reaches = |times: f64| mean::log_evidence(gain * times, score.v * times, score.users * times) > bar;
        let (mut low, mut high) = (1e-3, 1e4);
        if !reaches(high) {
            return None;
        }
        for _ in 0..60 {
            let middle = (low * high).sqrt();
            if reaches(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }

    /// The difference of the means (canary less what its users were expected to score, in the margin's direction: positive is
    /// worse) and its standard error, and the level, all as the sums have them.
    pub(super) fn estimate(&self, Scores { canary, stable, .. }: &Scores) -> Option<(f64, f64, f64)> {
        let score = self.score(canary, stable, Against::Worse(Margin::Absolute(0.0)), false)?;
        let level: f64 = canary.iter().map(|cell| f64::from(cell.1[2])).sum();
        Some((score.s / score.n, score.v.sqrt() / score.n, level / score.n))
    }

    /// An always-valid 95 % interval of the difference, canary less stable.
    pub(super) fn interval(&self, whole: &Scores) -> Option<[f64; 2]> {
        let (difference, error, _) = self.estimate(whole)?;
        let n = whole.canary.iter().map(|cell| f64::from(cell.1[0])).sum::<f64>();
        let half = mean::half_width((error * n).powi(2), mean::RHO, 0.05) / n;
        let signed = difference / self.sign();
        Some([(signed - half) / self.scale(), (signed + half) / self.scale()])
    }

    /// Stable's and the canary's raw means in this stage.
    pub(super) fn values(&self) -> (Option<f64>, Option<f64>) {
        let mean = |n: f64, sum: f64| (n > 0.0).then(|| sum / n);
        (mean(self.raw[2], self.raw[3]), mean(self.raw[0], self.raw[1]))
    }

    /// Mean and standard deviation of the comparator's last scores; none with few of them.
    pub(super) fn spread(&self) -> Option<(f64, f64)> {
        let level = self.level()?;
        let squares: f64 = self.last.iter().map(|score| (f64::from(*score) - level).powi(2)).sum();
        Some((level, (squares / (self.last.len() as f64 - 1.0)).sqrt()))
    }

    /// Scores of the canary and the comparator in this stage.
    pub(super) fn counts(&self) -> (f64, f64) {
        (self.raw[0], self.raw[2])
    }

    pub(super) fn users(&self) -> usize {
        let parts = self.starts.back().map(|span| &span.part.canary);
        cluster::touched(parts.chain([&self.latest.canary]))
    }

    /// +1 where more is worse.
    fn sign(&self) -> f64 {
        match self.direction {
            Direction::Higher => 1.0,
            Direction::Lower => -1.0,
        }
    }

    fn scale(&self) -> f64 {
        match self.level() {
            Some(level) if self.scaled && level > 0.0 => 1.0 / level,
            _ => 1.0,
        }
    }

    fn sign_of(&self, against: Against) -> f64 {
        if matches!(against, Against::Better(_)) { -self.sign() } else { self.sign() }
    }

    /// What sums of the canary say in the direction that is tested.
    fn value(&self, against: Against, n: f64, off: f64, level: f64) -> f64 {
        let beyond = match against {
            Against::Worse(Margin::Relative(ratio)) | Against::Better(Margin::Relative(ratio)) => {
                off + (1.0 - ratio) * level
            }
            Against::Worse(Margin::Absolute(by)) | Against::Better(Margin::Absolute(by)) => off - by * self.scale() * n,
            Against::Limit(limit) => off + level - limit * self.scale() * n,
        };
        self.sign_of(against) * beyond
    }

    /// S and V of some sums; the slot that speaks loudest for what is tested is left out.
    fn score(&self, canary: &Slots<3>, stable: &Slots<2>, against: Against, drop: bool) -> Option<Score> {
        let alone = matches!(against, Against::Limit(_));
        let sign = self.sign_of(against);
        let value = |[n, off, level]: [f32; 3]| self.value(against, f64::from(n), f64::from(off), f64::from(level));
        let loudest = canary
            .iter()
            .filter(|_| drop)
            .max_by(|a, b| value(a.1).total_cmp(&value(b.1)).then(b.0.cmp(&a.0)))
            .map(|cell| cell.0);
        let kept = || canary.iter().filter(|cell| Some(cell.0) != loudest);
        let (mut n, mut n2, mut sum) = (0.0, 0.0, 0.0);
        let mut all = 0.0;
        for cell in canary.iter() {
            all += f64::from(cell.1[0]);
        }
        for cell in kept() {
            let count = f64::from(cell.1[0]);
            n += count;
            n2 += count * count;
            sum += value(cell.1);
        }
        let users = cluster::effective(n, n2);
        if all < FEWEST || users < if drop { FEWEST_USERS } else { 1.5 } {
            return None;
        }
        let mean = sum / n;
        let own: f64 = kept().map(|cell| (value(cell.1) - mean * f64::from(cell.1[0])).powi(2)).sum();
        let mut score = Score { s: sum, v: own * users / (users - 1.0), users, n };
        if alone {
            return Some(score);
        }
        let (mut n_s, mut sum_s) = (0.0, 0.0);
        for (_, [n, off]) in stable.iter() {
            n_s += f64::from(*n);
            sum_s += sign * f64::from(*off);
        }
        if n_s < FEWEST {
            return None;
        }
        let (ratio, mean_s) = (n / n_s, sum_s / n_s);
        let theirs: f64 =
            stable.iter().map(|(_, [n, off])| (sign * f64::from(*off) - mean_s * f64::from(*n)).powi(2)).sum();
        score.s -= ratio * sum_s;
        score.v += ratio * ratio * theirs;
        Some(score)
    }
}

/// What these spans sum up to.
fn together<'a>(spans: impl Iterator<Item = &'a Span<Scores>>) -> Scores {
    spans.fold(Scores::default(), |mut sums, span| {
        sums.add(&span.part);
        sums
    })
}

fn add(sums: &mut [f64], more: &[f64]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Marks a pending score of stable that feeds only the mean and the history.
const UNCOUNTED: u16 = 1 << 15;
