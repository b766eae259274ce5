//! The usual rules, with the same margins: thresholds per window, k of n failed intervals, Mann–Whitney per interval.
//!
//! They are told all that the judge is told, ask for at least 20 values in each arm, and look at a window when it ends:
//! - *thresholds*: windows of 5 minutes; the first one in which a metric is beyond its rollback margin.
//! - *k of n*: intervals of 1 minute judged in the same way; three failed ones of the last five.
//! - *Mann–Whitney*: intervals of 5 minutes, each metric's values compared one-sided at 1 %; two failed ones in a row.

use std::collections::VecDeque;

use super::traffic::Seen;

const LEAST: usize = 20;
/// One-sided 1 %.
const CRITICAL: f64 = 2.326;

/// Values of one arm in one interval: failed (0 or 1), latency, ttft, tokens, cost, quality.
#[derive(Debug, Default)]
struct Bag {
    values: [Vec<f64>; 6],
    violations: u32,
}

#[derive(Debug, Default)]
struct Interval {
    /// Canary, stable.
    bags: [Bag; 2],
}

impl Interval {
    fn add(&mut self, seen: &Seen) {
        match *seen {
            Seen::Score { canary, value } => self.bags[usize::from(!canary)].values[5].push(value),
            Seen::Answer { canary, failed, latency, ttft, tokens, cost, unsafe_once } => {
                let bag = &mut self.bags[usize::from(!canary)];
                bag.violations += u32::from(unsafe_once);
                bag.values[0].push(f64::from(u8::from(failed)));
                if !failed {
                    for (place, value) in [(1, latency), (2, ttft), (3, tokens), (4, cost)] {
                        bag.values[place].push(value);
                    }
                }
            }
        }
    }

    /// Whether a metric is beyond its rollback margin.
    fn beyond(&mut self) -> bool {
        if self.bags[0].violations > 0 {
            return true;
        }
        for bag in &mut self.bags {
            bag.values[1..5].iter_mut().for_each(|values| values.sort_unstable_by(f64::total_cmp));
        }
        let [canary, stable] = &self.bags;
        let both = |place: usize| {
            let pair = (&canary.values[place], &stable.values[place]);
            (pair.0.len() >= LEAST && pair.1.len() >= LEAST).then_some(pair)
        };
        let quantile = |values: &[f64], q: f64| values[((q * values.len() as f64) as usize).min(values.len() - 1)];
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let above = |place: usize, q: f64, ratio: f64| {
            both(place).is_some_and(|(canary, stable)| quantile(canary, q) > ratio * quantile(stable, q))
        };
        both(0).is_some_and(|(canary, stable)| mean(canary) > mean(stable) + 0.005)
            || above(1, 0.99, 1.5)
            || above(1, 0.5, 1.2)
            || above(2, 0.95, 1.2)
            || above(3, 0.5, 1.2)
            || both(3).is_some_and(|(canary, stable)| quantile(canary, 0.05) < 0.5 * quantile(stable, 0.05))
            || above(4, 0.99, 1.5)
            || both(5).is_some_and(|(canary, stable)| mean(canary) < 0.9 * mean(stable))
    }

    /// Whether a metric's values are larger (scores: smaller) by the test of Mann and Whitney (1947), ties corrected.
    fn differs(&self) -> bool {
        (0..6).any(|place| {
            let (canary, stable) = (&self.bags[0].values[place], &self.bags[1].values[place]);
            if canary.len() < LEAST || stable.len() < LEAST {
                return false;
            }
            let z = mann_whitney(canary, stable);
            if place == 5 { z < -CRITICAL } else { z > CRITICAL }
        })
    }
}

/// z of the rank sum of `a`: positive where its values are larger.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, true)).chain(b.iter().map(|x| (*x, false))).collect();
    all.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
    let (n, n_a, n_b) = (all.len() as f64, a.len() as f64, b.len() as f64);
    let (mut ranks, mut ties, mut i) = (0.0, 0.0, 0);
    while i < all.len() {
        let end = i + all[i..].partition_point(|x| x.0 <= all[i].0);
        let t = (end - i) as f64;
        let rank = i as f64 + (t + 1.0) / 2.0;
        ranks += rank * all[i..end].iter().filter(|x| x.1).count() as f64;
        ties += t * t * t - t;
        i = end;
    }
    let u = ranks - n_a * (n_a + 1.0) / 2.0;
    let variance = n_a * n_b / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance > 0.0 { (u - n_a * n_b / 2.0) / variance.sqrt() } else { 0.0 }
}

/// The three of them over one stage.
#[derive(Debug)]
pub struct Rivals {
    began: f64,
    minute: Interval,
    five: Interval,
    failed: VecDeque<bool>,
    differed: bool,
    minutes: u64,
    /// When each rolled back.
    pub at: [Option<f64>; 3],
}

impl Rivals {
    pub fn new(began: f64) -> Self {
        Self {
            began,
            minute: Interval::default(),
            five: Interval::default(),
            failed: VecDeque::new(),
            differed: false,
            minutes: 0,
            at: [None; 3],
        }
    }

    pub fn all_done(&self) -> bool {
        self.at.iter().all(Option::is_some)
    }

    pub fn tick(&mut self, seen: &[Seen], now: f64) {
        for seen in seen {
            self.minute.add(seen);
            self.five.add(seen);
        }
        if now < self.began + (self.minutes + 1) as f64 * 60.0 {
            return;
        }
        self.minutes += 1;
        self.failed.push_back(std::mem::take(&mut self.minute).beyond());
        if self.failed.len() > 5 {
            self.failed.pop_front();
        }
        if self.failed.iter().filter(|failed| **failed).count() >= 3 {
            self.at[1].get_or_insert(now);
        }
        if self.minutes.is_multiple_of(5) {
            let mut five = std::mem::take(&mut self.five);
            let differs = five.differs();
            if differs && self.differed {
                self.at[2].get_or_insert(now);
            }
            self.differed = differs;
            if five.beyond() {
                self.at[0].get_or_insert(now);
            }
        }
    }
}
