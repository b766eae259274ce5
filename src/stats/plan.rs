//! How long a stage must last: the time in which evidence about a share of bad events is to be expected to pass its bar.
//!
//! Log evidence is a random walk with drift; the time at which it first passes a bar follows, nearly, the inverse Gaussian
//! distribution (Wald 1947; Schrödinger 1915). Drift and variance are taken over the strata that the judge compares within:
//! a stratum tells n_c n_s/(n_c + n_s), so that a few exposures in each tell less than their sum does; and over the
//! alternatives that it has, not the truth. What is lifted out of the evidence (the worst user) and what divides it (the
//! design effect) raises the bar.

use super::cluster;
use super::proportion::{self, Line, Pair, Weights};

/// Strata without canary traffic are joined up to this long.
const JOINED_S: f64 = 5.0;
/// Above so many exposures a stratum, their number is as good as its mean.
const MANY: f64 = 30.0;

/// Traffic of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// The canary's exposures a second.
    pub canary: f64,
    /// The comparator's exposures a second.
    pub stable: f64,
    /// How much less than independent exposures are, 1 at least: evidence is divided by it. Where it comes of users that stay
    /// as they are, `likeness` says it better.
    pub design_effect: f64,
    /// How alike the exposures of one user are for good (intraclass correlation, 0 to 1; Kish 1965). Their design effect grows
    /// with the exposures of each, and the arm's users may be better or worse than others by luck, for the whole stage.
    pub likeness: f64,
    /// It is measured as exposures come ([`cluster::design_effect`], 1.3 at first), and not known from the start.
    pub measured: bool,
    /// The canary's users in the stage, as many equal ones as they are worth.
    pub users: f64,
    /// The share of the canary's exposures that its heaviest user has, 0 to 1.
    pub heaviest: f64,
}

/// Strata of one length until some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ticks {
    /// The length of a stratum at first, seconds.
    pub first_s: f64,
    /// For so long.
    pub first_for_s: f64,
    /// The length from then on.
    pub then_s: f64,
}

/// What is asked of it: rates and shares 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Stable's share of bad events.
    pub stable: f64,
    /// The canary's, in truth.
    pub canary: f64,
    /// The edge of what is to be ruled out: canary = `times` · stable + `plus`.
    pub times: f64,
    /// See `times`.
    pub plus: f64,
    /// What the canary's share is under each alternative of the test, and that alternative's share of the bet.
    pub alternatives: Vec<(f64, f64)>,
    /// Log evidence that is needed.
    pub bar: f64,
}

/// Drift and variance a second of log evidence for one alternative.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    drift: f64,
    variance: f64,
}

/// Users' luck is taken at so many quantiles of the normal distribution.
const LUCKS: usize = 101;

/// What strata of one length tell, as sums over their possible counts: of log evidence `a · p + b` a stratum, where `p` is the
/// canary's share in truth, and of its variance.
#[derive(Clone, Copy, Debug, Default)]
struct Tells {
    /// Seconds that a stratum lasts on average.
    lasts: f64,
    a: f64,
    b: f64,
    aa: f64,
    ab: f64,
    bb: f64,
    own_canary: f64,
    own_stable: f64,
}

impl Tells {
    /// Strata of `tick_s`, with evidence for `alternative` against what `question` wants ruled out.
    fn of(traffic: Traffic, question: &Question, alternative: f64, tick_s: f64) -> Self {
        let mut this = Self::default();
        let (mean_c, mean_s) = (traffic.canary * tick_s, traffic.stable * tick_s);
        if mean_c > MANY {
            this.lasts = tick_s;
            this.add(question, alternative, mean_c, mean_s, 1.0);
            return this;
        }
        let none = (-mean_c).exp();
        let most = (JOINED_S / tick_s).ceil().max(1.0) as u32;
        for joined in 1..=most {
            let before = none.powi(joined as i32 - 1);
            this.lasts += tick_s * before;
            for (n_c, p_c) in poisson(mean_c).filter(|(n, _)| *n > 0.0) {
                let mean_s = mean_s * f64::from(joined);
                if mean_s > MANY {
                    this.add(question, alternative, n_c, mean_s, before * p_c);
                } else {
                    poisson(mean_s)
                        .for_each(|(n_s, p_s)| this.add(question, alternative, n_c, n_s, before * p_c * p_s));
                }
            }
            if before < 1e-6 {
                break;
            }
        }
        this
    }

    fn add(&mut self, question: &Question, alternative: f64, n_c: f64, n_s: f64, chance: f64) {
        if n_c <= 0.0 || n_s <= 0.0 {
            return; // without a comparator the nearest null is the alternative
        }
        let line = Line { stable: 1.0, canary: question.times, delta: question.plus, share: n_c / (n_c + n_s) };
        let pair = Pair { stable: question.stable, canary: alternative };
        let w = Weights::new(pair, proportion::nearest_null(pair, line));
        let stable = question.stable;
        let a = n_c * (w.canary_bad - w.canary_good);
        let b = n_c * w.canary_good + n_s * (stable * w.stable_bad + (1.0 - stable) * w.stable_good);
        self.a += chance * a;
        self.b += chance * b;
        self.aa += chance * a * a;
        self.ab += chance * a * b;
        self.bb += chance * b * b;
        self.own_canary += chance * n_c * (w.canary_bad - w.canary_good).powi(2);
        self.own_stable += chance * n_s * stable * (1.0 - stable) * (w.stable_bad - w.stable_good).powi(2);
    }

    /// Were this the canary's share.
    fn walk(&self, p: f64) -> Walk {
        let sum = self.a * p + self.b;
        let square = self.aa * p * p + 2.0 * self.ab * p + self.bb;
        let own = self.own_canary * p * (1.0 - p) + self.own_stable;
        Walk { drift: sum / self.lasts, variance: (own + square - sum * sum) / self.lasts }
    }
}

/// The counts that matter of a Poisson distribution, and their chances.
fn poisson(mean: f64) -> impl Iterator<Item = (f64, f64)> {
    let last = (mean + 6.0 * mean.sqrt() + 6.0) as u32;
    let mut chance = (-mean).exp();
    (0..=last).map(move |n| {
        let now = chance;
        chance *= mean / f64::from(n + 1);
        (f64::from(n), now)
    })
}

/// Seconds after which the evidence has passed its bar with chance `power`; none if it never will.
#[must_use]
pub fn seconds(traffic: Traffic, question: &Question, ticks: Ticks, power: f64) -> Option<f64> {
    let tells: Vec<Tells> =
        question.alternatives.iter().map(|(a, _)| Tells::of(traffic, question, *a, ticks.then_s)).collect();
    let late: Vec<Walk> = tells.iter().map(|tells| tells.walk(question.canary)).collect();
    let best = (0..late.len()).max_by(|a, b| late[*a].drift.total_cmp(&late[*b].drift))?;
    let ahead = late[best].drift;
    if !(ahead > 1e-12 && ahead.is_finite()) {
        return None;
    }
    let effect = |t: f64| match traffic.likeness {
        0.0 => traffic.design_effect.max(1.0),
        likeness => 1.0 + likeness * (traffic.canary * t / traffic.users.max(1.0) - 1.0).max(0.0),
    };
    let divisor = |t: f64| {
        let variance = traffic.stable * t * question.stable * (1.0 - question.stable);
        if traffic.measured { cluster::design_effect(effect(t) * variance, variance) } else { effect(t) }
    };
    // Where the mean of all alternatives passes the bar, the best one stands here.
    let bets: Vec<f64> = question.alternatives.iter().map(|(_, bet)| *bet).collect();
    let mixed = |t: f64| {
        let logs: Vec<f64> = late.iter().map(|walk| walk.drift * t).collect();
        proportion::log_mix_exp(&logs, &bets)
    };
    let alone = bisect(question.bar / ahead * 1e-3, |t| mixed(t) > question.bar)? * ahead;
    // The walks of arms with more and less luck: each as likely as the other.
    let first = Tells::of(traffic, question, question.alternatives[best].0, ticks.first_s);
    let walks: Vec<[Walk; 2]> = lucks(traffic, question).map(|p| [first.walk(p), tells[best].walk(p)]).collect();
    // Where the heaviest brings less than he should, another is the worst who brings about as much: E max(X, E X) = E X + 0.4 σ of a
    // normal X. That fits a proof, since nobody can do better than never to fail; failures of one user that accuse have no such end.
    let luck = if tells[best].a < 0.0 { 0.4 } else { 1.0 };
    // What users' luck does not explain is as of independent exposures.
    let spread = if traffic.likeness > 0.0 { 1.0 } else { traffic.design_effect.max(1.0) };
    let chance_of = |[early, late]: &[Walk; 2], t: f64| {
        let (first, rest) = (t.min(ticks.first_for_s), (t - ticks.first_for_s).max(0.0));
        let drift = early.drift * first + late.drift * rest;
        if drift <= 0.0 {
            return 0.0;
        }
        let variance = spread * (early.variance * first + late.variance * rest);
        // Evidence is looked at after each stratum and has gone past its bar by then: 0.583 σ on average (Siegmund 1985).
        let step = if t > ticks.first_for_s { ticks.then_s } else { ticks.first_s };
        let bar = alone * divisor(t)
            + lifted(traffic, drift.min(2.0 * alone), variance, luck)
            + 0.583 * (variance / t * step).sqrt();
        passed(t, bar * t / drift, bar * bar / (variance / t))
    };
    let chance = |t: f64| walks.iter().map(|walks| chance_of(walks, t)).sum::<f64>() / walks.len() as f64;
    bisect(alone / ahead * 1e-3, |t| chance(t) >= power)
}

/// The canary's share as its users' luck may have it.
fn lucks(traffic: Traffic, question: &Question) -> impl Iterator<Item = f64> {
    let p = question.canary;
    let users = [traffic.users, traffic.users * traffic.stable / traffic.canary].map(|users| users.max(1.0));
    let sigma = (traffic.likeness * p * (1.0 - p) * (1.0 / users[0] + 1.0 / users[1])).sqrt();
    let of = if sigma > 0.0 { LUCKS } else { 1 };
    (0..of).map(move |i| {
        let z = if of == 1 { 0.0 } else { normal_quantile((i as f64 + 0.5) / of as f64) };
        (p + z * sigma).clamp(p * 0.05, 1.0 - (1.0 - p) * 0.05)
    })
}

/// The evidence that leaves with the worst user: what the heaviest brings, or the luckiest of all; `luck` of the heaviest in standard
/// deviations.
fn lifted(traffic: Traffic, evidence: f64, variance: f64, luck_of_heaviest: f64) -> f64 {
    let of = |share: f64, luck: f64| share * evidence + luck * (share * variance).sqrt();
    let users = traffic.users.max(1.0);
    let luck = (2.0 * users.ln()).sqrt();
    of(1.0 / users, luck).max(of(traffic.heaviest.clamp(0.0, 1.0), luck_of_heaviest))
}

/// The least time, seconds, at which `is` holds and stays so: looked for from about `from` on.
#[must_use]
pub fn least(from: f64, is: impl Fn(f64) -> bool) -> Option<f64> {
    bisect(from, is)
}

/// The normal distribution function.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    log_normal_cdf(x).exp()
}

/// Its inverse, for 10⁻⁹ to 1 − 10⁻⁹.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The least `t` from `from` on for which `is` holds, which then holds for all later ones; none within 10⁹ times `from`.
fn bisect(from: f64, is: impl Fn(f64) -> bool) -> Option<f64> {
    let (mut low, mut high) = (0.0, from);
    while !is(high) {
        low = high;
        high *= 2.0;
        if high > 1e9 * from {
            return None;
        }
    }
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if is(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// Seconds by which log evidence that is `left` short of its bar has passed it with 80 % chance, if it gains `speed` a second on
/// average. A log likelihood ratio under its own alternative has twice its drift for a variance (to second order), so that the
/// time over its mean depends on `left` alone; the cube root fits that quantile of the inverse Gaussian within 5 % from 1 nat on.
#[must_use]
pub fn likely_by(left: f64, speed: f64) -> f64 {
    left / speed * (1.0 + 0.45 * (3.0 / left).cbrt().min(1.0))
}

/// The inverse Gaussian distribution function.
fn passed(t: f64, mean: f64, shape: f64) -> f64 {
    let root = (shape / t).sqrt();
    let second = (2.0 * shape / mean + log_normal_cdf(-root * (t / mean + 1.0))).exp();
    log_normal_cdf(root * (t / mean - 1.0)).exp() + second
}

/// ln Φ(x), by the continued fraction of Laplace in the tail and the series of Marsaglia (2004) in the middle.
fn log_normal_cdf(x: f64) -> f64 {
    let density = -0.5 * x * x - 0.5 * std::f64::consts::TAU.ln();
    if x < -5.0 {
        let z = -x;
        let fraction = (1..=40).rev().fold(z, |below, k| z + f64::from(k) / below);
        return density - fraction.ln();
    }
    if x > 8.0 {
        return 0.0;
    }
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while f64::abs(term) > 1e-17 && k < 400.0 {
        k += 2.0;
        term *= x * x / k;
        sum += term;
    }
    (0.5 + sum * density.exp()).max(1e-300).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: Traffic = Traffic {
        canary: 10.0,
        stable: 30.0,
        design_effect: 1.0,
        likeness: 0.0,
        measured: false,
        users: 1e9,
        heaviest: 0.0,
    };
    #[test]
    fn four_of_five_walks_have_passed_by_the_time_that_is_likely() {
        for left in [1.0, 2.0, 3.0, 8.0, 20.0, 60.0] {
            let speed = 0.03;
            let chance = passed(likely_by(left, speed), left / speed, left * left / (2.0 * speed));
            assert!((0.78..0.83).contains(&chance), "{chance} at {left}");
        }
    }

    const TICKS: Ticks = Ticks { first_s: 1.0, first_for_s: 300.0, then_s: 1.0 };

    fn dice(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn count(state: &mut u64, mean: f64) -> u32 {
        let drawn = dice(state);
        let mut below = 0.0;
        let holds = |(_, chance): &(f64, f64)| {
            below += chance;
            drawn < below
        };
        poisson(mean).find(holds).map_or(0, |(n, _)| n as u32)
    }

    /// When the test itself passes its bar, in so many simulated stages of independent exposures, sorted.
    fn simulated(traffic: Traffic, question: &Question) -> Vec<f64> {
        let mut state = 7;
        let mut all: Vec<f64> = (0..600)
            .map(|_| {
                let mut logs = vec![0.0; question.alternatives.len()];
                let bets: Vec<f64> = question.alternatives.iter().map(|(_, bet)| *bet).collect();
                let mut second = 0.0;
                while proportion::log_mix_exp(&logs, &bets) <= question.bar {
                    second += 1.0;
                    let counts = [traffic.canary, traffic.stable].map(|mean| count(&mut state, mean));
                    let [n_c, n_s] = counts.map(f64::from);
                    let bad = |state: &mut u64, n: u32, p: f64| (0..n).filter(|_| dice(state) < p).count() as f64;
                    let k_c = bad(&mut state, counts[0], question.canary);
                    let k_s = bad(&mut state, counts[1], question.stable);
                    if n_c == 0.0 || n_s == 0.0 {
                        continue;
                    }
                    let share = n_c / (n_c + n_s);
                    let line = Line { stable: 1.0, canary: question.times, delta: question.plus, share };
                    for (log, (alternative, _)) in logs.iter_mut().zip(&question.alternatives) {
                        let pair = Pair { stable: question.stable, canary: *alternative };
                        let w = Weights::new(pair, proportion::nearest_null(pair, line));
                        *log += k_c * w.canary_bad
                            + (n_c - k_c) * w.canary_good
                            + k_s * w.stable_bad
                            + (n_s - k_s) * w.stable_good;
                    }
                }
                second
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn predictions_are_within_15_percent_of_simulation_at_80_percent_and_20_at_95() {
        let ask = |stable, canary, times, plus, alternatives: &[f64], bar| Question {
            stable,
            canary,
            times,
            plus,
            alternatives: alternatives.iter().map(|p| (*p, 1.0 / alternatives.len() as f64)).collect(),
            bar,
        };
        let questions = [
            ask(0.01, 0.01, 1.0, 0.005, &[0.01], 3.0),
            ask(0.01, 0.03, 1.0, 0.001, &[0.0137, 0.0175, 0.027, 0.053, 0.143, 0.4, 0.8], 7.6),
            ask(0.01, 0.003, 1.0, 0.0, &[0.003], 3.0),
            ask(0.05, 0.08, 1.0, 0.0, &[0.0617, 0.0777, 0.116, 0.208], 7.6),
        ];
        for (traffic, questions) in
            [(TRAFFIC, &questions[..]), (Traffic { canary: 1.0, stable: 3.0, ..TRAFFIC }, &questions[3..])]
        {
            for question in questions {
                let all = simulated(traffic, question);
                for (power, most) in [(0.8, 0.15), (0.95, 0.2)] {
                    let got = seconds(traffic, question, TICKS, power).unwrap();
                    let expect = all[(power * all.len() as f64) as usize];
                    let off = (got / expect - 1.0).abs();
                    assert!(off < most, "{traffic:?} {question:?} {power}: {got} s, simulated {expect} s");
                }
            }
        }
    }

    #[test]
    fn what_lies_on_the_null_s_side_is_never_proven_and_less_traffic_takes_longer() {
        let question =
            Question { stable: 0.01, canary: 0.01, times: 1.0, plus: 0.005, alternatives: vec![(0.01, 1.0)], bar: 3.0 };
        let ask = |traffic, question: &Question| seconds(traffic, question, TICKS, 0.8);
        assert_eq!(ask(TRAFFIC, &Question { canary: 0.015, ..question.clone() }), None);
        let plain = ask(TRAFFIC, &question).unwrap();
        let doubled = ask(Traffic { canary: 20.0, stable: 60.0, ..TRAFFIC }, &question).unwrap();
        assert!((plain / doubled - 2.0).abs() < 0.15, "{plain} s and {doubled} s");
        let clustered = ask(Traffic { design_effect: 2.0, ..TRAFFIC }, &question).unwrap();
        assert!((clustered / plain - 2.0).abs() < 0.15, "{plain} s and {clustered} s");
        let alike = |likeness, users| ask(Traffic { likeness, users, ..TRAFFIC }, &question);
        assert!(alike(0.01, 1_000.0).unwrap() > plain && alike(0.02, 1_000.0) > alike(0.01, 1_000.0));
        assert_eq!(alike(0.05, 10.0), None, "ten users who stay as they are prove nothing of others, however long");
        let few = ask(Traffic { users: 20.0, heaviest: 0.2, ..TRAFFIC }, &question).unwrap();
        assert!(few > 1.2 * plain, "{plain} s and {few} s");
    }
}
