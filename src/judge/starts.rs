//! Where evidence starts to count: at the stage's beginning, and anew all along it, so that a regression that begins in
//! mid-stage is not drowned by the good hours before it.
//!
//! Nobody knows the moment of change, so the bet is spread over all: with share w(s) of the budget on start s, Σ w(s)·e(s → now)
//! is an e-value (a mixture over the change point: Shiryaev 1963, Pollak 1985; for e-values: Shin, Ramdas and Rinaldo 2023,
//! "E-detectors"). Starts near the true one agree and add up. Time falls into spans of four seconds, and only some of their
//! starts are remembered: near now each one, before that each second, fourth, eighth … (an exponential histogram: Datar, Gionis,
//! Indyk and Motwani 2002), since a fault that takes minutes to show does not ask for its second. A start that is given up
//! leaves its share, and no more than it is worth by then, to one of its neighbours. So memory is O(log stage), whatever the
//! traffic.

const NANOS: u64 = 1_000_000_000;
/// Spans of the same length that are kept, before the two oldest become one: a start at most a third of the time since it off.
const KEPT: usize = 3;
/// Before this much of a stage has passed all moments are alike likely, afterwards each doubling of time is: a regression mostly
/// shows soon after the weight rose, and within the first minute the stage's own start is near enough.
const EARLY_S: f64 = 64.0;

/// What the e-value of each start must pass: a union bound over tests and starts.
///
/// Half of the budget is the stage's own start's. The other half is spread over all later moments with the density
/// 1/((t + 64 s)·ln(1 + horizon/64 s)), which sums to 1 over the horizon.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Bars {
    pub(super) whole: f64,
    /// ln ln(1 + horizon/64 s).
    all: f64,
}

impl Bars {
    /// The whole stage's is ln(R/α) + ln 2.
    pub(super) fn new(tests: f64, alpha: f64, horizon_s: f64) -> Self {
        Self { whole: (tests / alpha).ln() + 2f64.ln(), all: (horizon_s / EARLY_S).ln_1p().ln() }
    }

    /// ln(R/α) + ln 2 − ln w.
    pub(super) fn of(&self, share: Share) -> f64 {
        let later = share.log - self.all;
        self.whole - if share.own { later.exp().ln_1p() } else { later }
    }
}

/// A start's part of the budget.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Share {
    /// The half of the stage's own start is in it.
    own: bool,
    /// ln of what it has of the other half, times ln(1 + horizon/64 s).
    log: f64,
}

impl Share {
    const OF_STAGE: Self = Self { own: true, log: f64::NEG_INFINITY };

    /// Of the moments between these, nanoseconds since the stage began.
    fn of(from: u64, to: u64) -> Self {
        let early = |nanos: u64| nanos as f64 / NANOS as f64 + EARLY_S;
        Self { own: false, log: (early(to) / early(from)).ln().ln() }
    }

    fn add(&mut self, log: f64) {
        let (large, small) = (self.log.max(log), self.log.min(log));
        if small > f64::NEG_INFINITY {
            self.log = large + (small - large).exp().ln_1p();
        } else {
            self.log = large;
        }
    }
}

/// What is summed up in each span of time.
pub(super) trait Part: Default {
    /// Adds what came in the span right after.
    fn join(&mut self, later: Self);
}

/// The time from one start to the next.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Span<P> {
    /// When it began.
    pub(super) since: u64,
    pub(super) share: Share,
    /// How often its length was doubled.
    doubled: u8,
    pub(super) part: P,
}

/// All spans, oldest first: what a start says is the sum of its span's part and all later ones.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Starts<P> {
    spans: Vec<Span<P>>,
    last: Span<P>,
}

impl<P: Part> Starts<P> {
    /// From the stage's beginning on.
    pub(super) fn new(at: u64) -> Self {
        let last = Span { since: at, share: Share::OF_STAGE, doubled: 0, part: P::default() };
        Self { spans: Vec::new(), last }
    }

    /// The part to which is added.
    pub(super) fn newest(&mut self) -> &mut P {
        &mut self.last.part
    }

    /// When the stage began.
    pub(super) fn began(&self) -> u64 {
        self.spans.first().unwrap_or(&self.last).since
    }

    /// How many starts there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len() + 1
    }

    /// From the newest to the oldest, which is the stage's own.
    pub(super) fn back(&self) -> impl Iterator<Item = &Span<P>> {
        std::iter::once(&self.last).chain(self.spans.iter().rev())
    }

    /// Whether the newest span is so old.
    pub(super) fn is_due(&self, now: u64, length_ns: u64) -> bool {
        now.saturating_sub(self.last.since) >= length_ns
    }

    /// A span begins at `now`. `log_e`: what some spans say together, uncorrected, newest first: of each test that shares them.
    pub(super) fn turn<const T: usize>(&mut self, now: u64, log_e: impl Fn(&[&Span<P>]) -> [f64; T]) {
        let began = self.began();
        let share = Share::of(self.last.since - began, now - began);
        let next = Span { since: now, share, doubled: 0, part: P::default() };
        self.spans.push(std::mem::replace(&mut self.last, next));
        let mut doubled = 0;
        while let Some(first) = self.crowded(doubled) {
            self.give_up(first + 1, &log_e);
            self.spans[first].doubled += 1;
            doubled += 1;
        }
    }

    /// The oldest of the closed spans of a length, if there are too many of it.
    fn crowded(&self, doubled: u8) -> Option<usize> {
        let mut alike = self.spans.iter().enumerate().filter(|(_, span)| span.doubled == doubled).map(|(i, _)| i);
        let first = alike.next()?;
        (alike.count() >= KEPT).then_some(first)
    }

    /// Start `i` is no more: its span becomes part of the one before. Its share goes to the start before or behind, whichever
    /// keeps more of what it is worth: w·e in all, were the share to count from there, but never more of a share than it was, since
    /// `log_e` is not corrected yet.
    fn give_up<const T: usize>(&mut self, i: usize, log_e: &impl Fn(&[&Span<P>]) -> [f64; T]) {
        let says = |from: usize| {
            let later: Vec<&Span<P>> = self.back().take(self.len() - from).collect();
            log_e(&later)
        };
        let (own, before, behind) = (says(i), says(i - 1), says(i + 1));
        let kept =
            |other: &[f64; T]| own.iter().zip(other).map(|(own, other)| (own - other).min(0.0)).fold(0.0, f64::min);
        let (kept_before, kept_behind) = (kept(&before), kept(&behind));
        let gone = self.spans.remove(i);
        self.spans[i - 1].part.join(gone.part);
        if kept_behind + behind[0] >= kept_before + before[0] {
            let next = self.spans.get_mut(i).unwrap_or(&mut self.last);
            next.share.add(gone.share.log + kept_behind);
        } else {
            self.spans[i - 1].share.add(gone.share.log + kept_before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log likelihood ratio that is simply summed up.
    #[derive(Clone, Debug, Default)]
    struct Sum(f64);

    impl Part for Sum {
        fn join(&mut self, later: Self) {
            self.0 += later.0;
        }
    }

    fn log_e(spans: &[&Span<Sum>]) -> [f64; 1] {
        [spans.iter().map(|span| span.part.0).sum()]
    }

    /// ln Σ w·e, where the budget of all is 1.
    fn worth(starts: &Starts<Sum>, bars: &Bars) -> f64 {
        let (mut sum, mut worth) = (0.0, 0.0);
        for span in starts.back() {
            sum += span.part.0;
            worth += (sum - bars.of(span.share)).exp();
        }
        worth.ln()
    }

    fn turn(starts: &mut Starts<Sum>, second: u64) {
        if starts.is_due(second * NANOS, 4 * NANOS) {
            starts.turn(second * NANOS, log_e);
        }
    }

    fn noise(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    }

    #[test]
    fn all_starts_together_spend_no_more_than_the_budget() {
        let bars = Bars::new(10.0, 0.01, 86_400.0);
        assert!((bars.whole - 7.6).abs() < 0.01);
        let later = (1..=21_600u64).map(|i| (-bars.of(Share::of((i - 1) * 4 * NANOS, i * 4 * NANOS))).exp());
        let spent = 10.0 * (later.sum::<f64>() + (-bars.of(Share::OF_STAGE)).exp());
        assert!(spent <= 0.01 * (1.0 + 1e-9) && spent > 0.009_99, "all starts together spend {spent} of alpha");
    }

    #[test]
    fn the_bars_are_those_of_the_independent_script() {
        let answers = include_str!("../../tests/fixtures/stats/known_answers.json");
        let answers: serde_json::Value = serde_json::from_str(answers).unwrap();
        for row in answers["bars"].as_array().unwrap() {
            let of = |name: &str| row[name].as_f64().unwrap();
            let bars = Bars::new(of("tests"), of("alpha"), of("horizon"));
            assert!((bars.whole - of("whole")).abs() < 1e-12);
            for start in row["starts"].as_array().unwrap() {
                let [from, to, bar] = [0, 1, 2].map(|i| start[i].as_f64().unwrap());
                let share = Share::of((from * 1e9) as u64, (to * 1e9) as u64);
                assert!((bars.of(share) - bar).abs() < 1e-9, "{from} to {to}: {} {bar}", bars.of(share));
            }
        }
    }

    #[test]
    fn a_start_that_is_given_up_leaves_no_more_than_it_was_worth() {
        let bars = Bars::new(1.0, 1.0, 86_400.0);
        for drift in [-0.4, 0.0, 0.4] {
            let (mut starts, mut state) = (Starts::<Sum>::new(0), 7);
            for second in 1..4_000u64 {
                // What a new start is worth is its share; all others are worth as much as before, or less.
                let before = worth(&starts, &bars).exp();
                let last = starts.last.since;
                let mut new = 0.0;
                if starts.is_due(second * NANOS, 4 * NANOS) {
                    new = (-bars.of(Share::of(last, second * NANOS))).exp();
                    starts.turn(second * NANOS, log_e);
                }
                let after = worth(&starts, &bars).exp();
                assert!(
                    after <= (before + new) * (1.0 + 1e-9),
                    "{drift} at {second}: {before} and {new} became {after}"
                );
                assert!(after >= 0.3 * before, "{drift} at {second}: {before} became {after}");
                starts.newest().0 += drift * (second % 900) as f64 / 900.0 + noise(&mut state);
            }
        }
    }

    #[test]
    fn a_day_is_remembered_by_few_starts_that_are_near_any_moment() {
        let mut starts = Starts::<Sum>::new(0);
        for second in 1..86_400u64 {
            starts.newest().0 += 1.0;
            turn(&mut starts, second);
            let newest = starts.back().next().unwrap().since / NANOS;
            assert!(second - newest < 4);
            if second % 1_009 == 0 {
                for age in [1u64, 10, 60, 300, 1_000, 20_000].into_iter().filter(|age| *age < second) {
                    let off = |span: &Span<Sum>| (span.since / NANOS).abs_diff(second - age);
                    let nearest = starts.back().map(off).min().unwrap();
                    assert!(nearest <= 4 + age / 3, "{age} s ago: {nearest} s off");
                }
            }
        }
        assert!(starts.len() < 45, "{}", starts.len());
        let all: f64 = starts.back().map(|span| span.part.0).sum();
        assert!((all - 86_399.0).abs() < 1e-6);
        assert_eq!(starts.began(), 0);
    }

    #[test]
    fn a_fault_after_hours_is_found_nearly_as_soon_as_one_that_is_told() {
        let bars = Bars::new(10.0, 0.01, 86_400.0);
        let mut starts = Starts::<Sum>::new(0);
        let onset = 10_000;
        let found = (1..12_000u64).find(|second| {
            turn(&mut starts, *second);
            starts.newest().0 += if *second < onset { -0.05 } else { 0.05 };
            *second > onset && worth(&starts, &bars) > 0.0
        });
        let after = found.unwrap() - onset;
        // The starts of some 40 s round the onset agree: a share of 40/(10,000 · 7.2) is 7.5 nats, 150 s more.
        assert!((250..330).contains(&after), "{after} s, 152 s of the stage's own");
    }
}
