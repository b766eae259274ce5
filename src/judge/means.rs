//! Tests of means: scores against the comparator's running mean, cluster-robust, over long windows (evaluator.md section 4).

use std::collections::VecDeque;

use crate::stats::cluster::{self, Slots};
use crate::stats::mean::{self, FEWEST, FEWEST_USERS};

use super::policy::{Direction, Margin};
use super::reading::{Reading, Together};
use super::window::{Bars, FIRST_OF_MEANS, Halves, Ladder, Span};

/// The comparator's mean is taken over so many of its last scores: a drift is followed, one user is not.
const LAST: usize = 3_000;
/// Weight, in scores, of "like everybody" in a user's offset.
const SHRINK: f32 = 6.0;

/// One rule about a mean.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Means {
    direction: Direction,
    /// Values are divided by the comparator's mean, since they are not 0..1.
    scaled: bool,
    running: bool,
    last: VecDeque<f32>,
    last_sum: f64,
    /// Stable's history: scores, Σ (score − mean).
    history: Slots<2>,
    offsets: Slots<1>,
    pending: Vec<(bool, u16, f32)>,
    since: u64,
    halves: Halves,
    /// Scores n, Σ (score − mean − offset), Σ (mean + offset).
    canary: Ladder<3>,
    /// Scores n, Σ (score − mean − offset).
    stable: Ladder<2>,
    /// Sums of all slots since the stage began (canary n, off, level; stable n, off), and as they were when windows began.
    total: [f64; 5],
    starts: [[[f64; 5]; 2]; 6],
    /// Raw sums of this stage, for people: canary n, Σ, stable n, Σ.
    raw: [f64; 4],
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
            history: Slots::default(),
            offsets: Slots::default(),
            pending: Vec::new(),
            since: 0,
            halves: Halves::new(0, FIRST_OF_MEANS),
            canary: Ladder::new(FIRST_OF_MEANS),
            stable: Ladder::new(FIRST_OF_MEANS),
            total: [0.0; 5],
            starts: Default::default(),
            raw: [0.0; 4],
        }
    }

    /// Forgets the evidence, fixes users' offsets, and begins to count.
    pub(super) fn begin(&mut self, at: u64) {
        let offsets: Vec<(u16, [f32; 1])> =
            self.history.iter().map(|(slot, [n, sum])| (*slot, [sum / (n + SHRINK)])).collect();
        self.offsets = Slots::default();
        self.offsets.add(&offsets);
        self.running = true;
        self.pending.clear();
        self.since = at;
        self.halves = Halves::new(at, FIRST_OF_MEANS);
        self.canary = Ladder::new(FIRST_OF_MEANS);
        self.stable = Ladder::new(FIRST_OF_MEANS);
        self.total = [0.0; 5];
        self.starts = Default::default();
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

    /// Closes the tick if it is `length_ns` old. Returns whether evidence changed.
    pub(super) fn tick(&mut self, now: u64, length_ns: u64) -> bool {
        const SLACK_NS: u64 = 5_000_000;
        if now.saturating_sub(self.since) + SLACK_NS < length_ns {
            return false;
        }
        let (canary, stable) = (&mut self.canary, &mut self.stable);
        let (total, starts) = (self.total, &mut self.starts);
        self.halves.move_to(self.since, |level, adjacent| {
            starts[level][1] = if adjacent { starts[level][0] } else { total };
            starts[level][0] = total;
            canary.turn(level, adjacent);
            stable.turn(level, adjacent);
        });
        self.since = now;
        if self.pending.is_empty() {
            return false;
        }
        let pending = std::mem::take(&mut self.pending);
        if let Some(level) = self.level().filter(|level| !self.scaled || *level > 0.0) {
            self.count(&pending, level);
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

    fn count(&mut self, pending: &[(bool, u16, f32)], level: f64) {
        let (scale, mean) = if self.scaled { (1.0 / level, 1.0) } else { (1.0, level) };
        let (mut canary, mut stable, mut history) = (Vec::new(), Vec::new(), Vec::new());
        for (of_canary, slot, value) in pending {
            let counted = slot & UNCOUNTED == 0;
            let slot = slot & !UNCOUNTED;
            let offset = self.offsets.get(slot).map_or(0.0, |[offset]| offset);
            let off = (f64::from(*value) * scale - mean) as f32;
            if *of_canary {
                canary.push((slot, [1.0, off - offset, mean as f32 + offset]));
                continue;
            }
            history.push((slot, [1.0, off]));
            if counted && self.running {
                stable.push((slot, [1.0, off - offset]));
            }
        }
        for (_, sums) in &canary {
            add(&mut self.total[..3], sums);
        }
        for (_, sums) in &stable {
            add(&mut self.total[3..], sums);
        }
        self.canary.add(canary);
        self.stable.add(stable);
        self.history.add(&history);
    }

    /// What its windows say against a margin, but those that cannot bring the sum within `slack` of passing; of the whole stage in
    /// any case, where it is to be `shown`.
    pub(super) fn margin(&self, now: u64, bars: &Bars, margin: Margin, slack: f64, shown: bool) -> Together {
        self.read_all(now, bars, Against::Worse(margin), slack, shown)
    }

    /// The same against an absolute bound of the canary alone.
    pub(super) fn limit(&self, now: u64, bars: &Bars, limit: f64, slack: f64, shown: bool) -> Together {
        self.read_all(now, bars, Against::Limit(limit), slack, shown)
    }

    fn read_all(&self, now: u64, bars: &Bars, against: Against, slack: f64, shown: bool) -> Together {
        let mut together = Together::default();
        let slack = slack + f64::ln(self.spans().count().max(1) as f64);
        for span in self.spans() {
            if ((shown && span == Span::Whole) || self.may_pass(span, bars, against, slack))
                && let Some(reading) = self.read(span, now, bars, against)
            {
                together.add(reading);
            }
        }
        together
    }

    /// Whether the sums of a window leave it possible that its evidence comes within `slack` of its bar: log e ≤ S²/2ρ + ln 2 whatever the
    /// variance, and leaving out the loudest slot takes its positive share off, or a part of stable's sum. It spares the
    /// slots, nearly always.
    fn may_pass(&self, span: Span, bars: &Bars, against: Against, slack: f64) -> bool {
        let start = match span {
            Span::Whole => [0.0; 5],
            Span::Window { level, before } => self.starts[level][usize::from(before)],
        };
        let [n, off, level, n_s, off_s] = std::array::from_fn(|i| self.total[i] - start[i]);
        let canary = self.value(against, n, off, level).max(0.0);
        let stable = if matches!(against, Against::Limit(_)) { 0.0 } else { n / n_s.max(1.0) * off_s.abs() };
        let most = canary + 2.0 * stable;
        most * most / (2.0 * mean::RHO) + std::f64::consts::LN_2 + slack > bars.of(span, &self.halves)
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        self.halves.open().filter(|_| self.running)
    }

    fn read(&self, span: Span, now: u64, bars: &Bars, against: Against) -> Option<Reading> {
        let (canary, stable) = (self.canary.sum(span), self.stable.sum(span));
        let score = self.score(&canary, &stable, against, true)?;
        Some(Reading {
            evidence: mean::log_evidence(score.s, score.v, score.users),
            bar: bars.of(span, &self.halves),
            seconds: now.saturating_sub(self.halves.start(span)) as f64 / 1e9,
            design_effect: 1.0,
            canary_rate: self.values().1.unwrap_or(0.0),
        })
    }

    /// Proof over the whole stage that the canary is better than the rollback margin.
    pub(super) fn proof(&self, margin: Margin) -> Option<f64> {
        let (canary, stable) = (self.canary.sum(Span::Whole), self.stable.sum(Span::Whole));
        let score = self.score(&canary, &stable, Against::Better(margin), true)?;
        Some(mean::log_evidence(score.s, score.v, score.users))
    }

    /// How many times the scores so far a proof is expected to need, were the canary equal.
    pub(super) fn times_needed(&self, margin: Margin, bar: f64) -> Option<f64> {
        let (canary, stable) = (self.canary.sum(Span::Whole), self.stable.sum(Span::Whole));
        let score = self.score(&canary, &stable, Against::Better(margin), true)?;
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
    pub(super) fn estimate(&self) -> Option<(f64, f64, f64)> {
        let (canary, stable) = (self.canary.sum(Span::Whole), self.stable.sum(Span::Whole));
        let score = self.score(&canary, &stable, Against::Worse(Margin::Absolute(0.0)), false)?;
        let level: f64 = canary.iter().map(|cell| f64::from(cell.1[2])).sum();
        Some((score.s / score.n, score.v.sqrt() / score.n, level / score.n))
    }

    /// An always-valid 95 % interval of the difference, canary less stable.
    pub(super) fn interval(&self) -> Option<[f64; 2]> {
        let (difference, error, _) = self.estimate()?;
        let n = self.canary.sum(Span::Whole).iter().map(|cell| f64::from(cell.1[0])).sum::<f64>();
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
        self.canary.touched()
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

    /// S and V of a window; the slot that speaks loudest for what is tested is left out.
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

fn add<const N: usize>(sums: &mut [f64], more: &[f32; N]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += f64::from(*more);
    }
}

/// Marks a pending score of stable that feeds only the mean and the history.
const UNCOUNTED: u16 = 1 << 15;
