//! The spans of time over which evidence is read: the whole stage, and short ones laid end to end, so that a
//! regression that begins in mid-stage is not drowned by the good hours before it.
//!
//! Lengths L = 16 … 16,384 s from the stage's start and again from L/2. At any time two windows of a length are open:
//! the one that began with this half and the one that began with the half before. So two remembered starts a length, and
//! slot sums of two halves a length, are enough: O(windows) memory, whatever the traffic.

use crate::stats::cluster::{SLOTS, Slots};

/// Lengths of windows, seconds: each four times the one before, so that some window starts near any onset.
pub(super) const LENGTHS: [u64; 6] = [16, 64, 256, 1_024, 4_096, 16_384];
/// The first of [`LENGTHS`] that means use: shorter ones hold too few scores.
pub(super) const FIRST_OF_MEANS: usize = 2;
const NANOS: u64 = 1_000_000_000;

/// What the e-value of each window must pass: a union bound over tests and windows.
///
/// Half of the budget is the whole stage's; the other half is shared by the lengths alike. Of a length's, the h-th window
/// (h = 1, 2, … half lengths after the stage's start; the window at the start itself is a part of the whole stage, and
/// would never be first) gets w(h) = ½/H + ½/(h(h+1)), H = ⌈2 · horizon/L⌉, which sums to less than 1: half of it alike
/// over the horizon, half where regressions mostly begin, soon after the weight rose. It costs what begins late ln 2 at
/// most, and spares what begins after ten minutes 2 to 4 of some 15.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Bars {
    pub(super) whole: f64,
    horizon_s: f64,
}

impl Bars {
    /// The whole stage's is ln(R/α) + ln 2.
    pub(super) fn new(tests: f64, alpha: f64, horizon_s: f64) -> Self {
        Self { whole: (tests / alpha).ln() + 2f64.ln(), horizon_s }
    }

    /// ln(R/α) + ln 2 + ln(number of lengths) − ln w(h).
    fn window(&self, lengths: usize, level: usize, half: u64) -> f64 {
        let most = (2.0 * self.horizon_s / LENGTHS[level] as f64).ceil().max(1.0);
        let half = half as f64;
        let weight = 0.5 / most + 0.5 / (half * (half + 1.0));
        self.whole + (lengths as f64).ln() - weight.ln()
    }

    /// Of a window that is open in `halves`.
    pub(super) fn of(&self, span: Span, halves: &Halves) -> f64 {
        match span {
            Span::Whole => self.whole,
            Span::Window { level, before } => {
                self.window(LENGTHS.len() - halves.first, level, halves.index[level] - u64::from(before))
            }
        }
    }
}

/// Which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The whole stage.
    Whole,
    /// Of `LENGTHS[level]`, begun with this half or the half before.
    Window { level: usize, before: bool },
}

/// Which half of each length time is in, and when it began.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Halves {
    began: u64,
    first: usize,
    index: [u64; 6],
}

impl Halves {
    /// From `began` on, windows of `LENGTHS[first..]`.
    pub(super) fn new(began: u64, first: usize) -> Self {
        Self { began, first, index: [0; 6] }
    }

    /// Moves on to the halves that `since` lies in; tells of each length whose half changed, short ones first, and
    /// whether exactly one half ended (else the half before it was empty).
    pub(super) fn move_to(&mut self, since: u64, mut changed: impl FnMut(usize, bool)) {
        for (level, length) in LENGTHS.iter().enumerate().skip(self.first) {
            let half = since.saturating_sub(self.began) / (length * NANOS / 2);
            if half != self.index[level] {
                changed(level, half == self.index[level] + 1);
                self.index[level] = half;
            }
        }
    }

    /// When a window began.
    pub(super) fn start(&self, span: Span) -> u64 {
        match span {
            Span::Whole => self.began,
            Span::Window { level, before } => {
                self.began + (self.index[level] - u64::from(before)) * (LENGTHS[level] * NANOS / 2)
            }
        }
    }

    /// All windows that are open, the whole stage first; those that began with it are a part of it.
    pub(super) fn open(&self) -> impl Iterator<Item = Span> + use<> {
        let (index, first) = (self.index, self.first);
        let windows = (first..LENGTHS.len()).flat_map(move |level| {
            let open = move |before| (index[level] > u64::from(before)).then_some(Span::Window { level, before });
            [open(false), open(true)].into_iter().flatten()
        });
        std::iter::once(Span::Whole).chain(windows)
    }
}

/// Slot sums of every open window. Events enter the shortest half only; a half that ends is carried into the next length.
/// What came last waits in a plain list, so that a tick costs its events and not the slots.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Ladder<const N: usize> {
    first: usize,
    latest: Slots<N>,
    this: Vec<Slots<N>>,
    before: Vec<Slots<N>>,
    whole: Slots<N>,
}

impl<const N: usize> Ladder<N> {
    /// For windows of `LENGTHS[first..]`; `LENGTHS.len()` for the whole stage alone.
    pub(super) fn new(first: usize) -> Self {
        let levels = LENGTHS.len() - first;
        Self {
            first,
            latest: Slots::default(),
            this: vec![Slots::default(); levels],
            before: vec![Slots::default(); levels],
            whole: Slots::default(),
        }
    }

    pub(super) fn add(&mut self, events: impl IntoIterator<Item = (u16, [f32; N])>) {
        const MOST: usize = 2_048; // then sorted and summed: bounded memory
        self.latest.append(events);
        if self.latest.len() >= MOST {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.this.first_mut().unwrap_or(&mut self.whole).take_in(&mut self.latest);
    }

    /// The sums of the whole stage, where there are no shorter windows.
    pub(super) fn only(&mut self) -> &Slots<N> {
        debug_assert!(self.this.is_empty(), "shorter windows hold a part of the sums");
        self.settle();
        &self.whole
    }

    /// The half of `LENGTHS[level]` ended; `adjacent`: the half that now begins follows it directly.
    pub(super) fn turn(&mut self, level: usize, adjacent: bool) {
        if level == self.first {
            self.settle();
        }
        let level = level - self.first;
        let ended = std::mem::take(&mut self.this[level]);
        self.this.get_mut(level + 1).unwrap_or(&mut self.whole).merge(&ended);
        self.before[level] = if adjacent { ended } else { Slots::default() };
    }

    /// How many slots were touched since the stage began.
    pub(super) fn touched(&self) -> usize {
        let mut seen = [0u64; SLOTS / 64];
        for part in self.this.iter().chain([&self.whole, &self.latest]) {
            for (slot, _) in part.iter() {
                seen[usize::from(slot / 64) % seen.len()] |= 1 << (slot % 64);
            }
        }
        seen.iter().map(|slots| slots.count_ones() as usize).sum()
    }

    /// The sums of a window.
    pub(super) fn sum(&self, span: Span) -> Slots<N> {
        let (mut sum, upto) = match span {
            Span::Whole => (self.whole.clone(), self.this.len()),
            Span::Window { level, before: true } => (self.before[level - self.first].clone(), level - self.first + 1),
            Span::Window { level, before: false } => (Slots::default(), level - self.first + 1),
        };
        for part in self.this[..upto].iter().rev() {
            sum.merge(part);
        }
        sum.merge(&self.latest);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_are_those_of_the_union_bound() {
        let bars = Bars::new(10.0, 0.01, 86_400.0);
        assert!((bars.whole - 7.6).abs() < 0.01);
        assert!((bars.window(6, 2, 4) - 13.0).abs() < 0.1, "256 s from 512 s on: {}", bars.window(6, 2, 4));
        let windows = |level: usize| (1..=(172_800 / LENGTHS[level] + 1)).map(move |half| (level, half));
        let spent: f64 = (0..6).flat_map(windows).map(|(level, half)| (-bars.window(6, level, half)).exp()).sum();
        let spent = 10.0 * (spent + (-bars.whole).exp());
        assert!(spent <= 0.01 && spent > 0.0099, "all windows together spend {spent} of alpha");
    }

    #[test]
    fn the_bars_are_those_of_the_independent_script() {
        let answers = include_str!("../../tests/fixtures/stats/known_answers.json");
        let answers: serde_json::Value = serde_json::from_str(answers).unwrap();
        for row in answers["bars"].as_array().unwrap() {
            let of = |name: &str| row[name].as_f64().unwrap();
            let bars = Bars::new(of("tests"), of("alpha"), of("horizon"));
            assert!((bars.whole - of("whole")).abs() < 1e-12);
            for (level, expect) in row["windows"].as_array().unwrap().iter().enumerate() {
                for (half, expect) in [1, 2, 7, 40].into_iter().zip(expect.as_array().unwrap()) {
                    assert!((bars.window(6, level, half) - expect.as_f64().unwrap()).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn every_window_holds_what_came_since_it_began() {
        let mut halves = Halves::new(0, 0);
        let mut ladder = Ladder::<1>::new(0);
        let mut events = Vec::new();
        for second in 0..40_000u64 {
            if (3_000..3_700).contains(&second) {
                continue; // a gap without strata
            }
            halves.move_to(second * NANOS, |level, adjacent| ladder.turn(level, adjacent));
            let slot = (second % 97) as u16;
            ladder.add([(slot, [1.0])]);
            events.push((second, slot));
            if second % 1_237 == 0 || second == 3_700 {
                for span in halves.open() {
                    let start = halves.start(span) / NANOS;
                    let mut expect = Slots::<1>::default();
                    let since: Vec<_> = events.iter().filter(|e| e.0 >= start).map(|e| (e.1, [1.0])).collect();
                    expect.add(&since);
                    assert_eq!(ladder.sum(span), expect, "{span:?} at {second}");
                }
            }
        }
    }
}
