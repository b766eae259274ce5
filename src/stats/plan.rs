//! How long a stage must last: the time in which evidence about a share of bad events is to be expected to pass its bar.
//!
//! Log evidence is a random walk with drift; the time at which it first passes a bar follows, nearly, the inverse Gaussian
//! distribution (Wald 1947; Schrödinger 1915). Drift and variance are exact for the nearest null of the judge's tests.

use super::proportion::{self, Line, Pair, Weights};

/// Traffic of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// The canary's exposures a second.
    pub canary: f64,
    /// The comparator's exposures a second.
    pub stable: f64,
    /// How much less than independent exposures are, 1 at least: evidence is divided by it.
    pub design_effect: f64,
    /// The share of the canary's exposures that its heaviest user has, 0 to 1: that user's evidence is left out.
    pub heaviest: f64,
}

/// What is asked of it: rates and shares 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Stable's share of bad events.
    pub stable: f64,
    /// The canary's, in truth.
    pub canary: f64,
    /// The edge of what is to be ruled out: canary = `times` · stable + `plus`.
    pub times: f64,
    /// See `times`.
    pub plus: f64,
    /// Log evidence that is needed (with ln of the number of alternatives, where they are several).
    pub bar: f64,
}

/// Drift and variance of log evidence a second, were `question` true; none where the truth lies on the null's side.
fn walk(traffic: Traffic, question: Question) -> Option<(f64, f64)> {
    let truth = Pair { stable: question.stable, canary: question.canary };
    let share = traffic.canary / (traffic.canary + traffic.stable);
    let line = Line { stable: 1.0, canary: question.times, delta: question.plus, share };
    let w = Weights::new(truth, proportion::nearest_null(truth, line));
    let moments = |p: f64, bad: f64, good: f64| (p * bad + (1.0 - p) * good, p * (1.0 - p) * (bad - good).powi(2));
    let (canary, stable) =
        (moments(truth.canary, w.canary_bad, w.canary_good), moments(truth.stable, w.stable_bad, w.stable_good));
    let kept = 1.0 - traffic.heaviest.clamp(0.0, 0.99);
    let scale = kept / traffic.design_effect.max(1.0);
    let drift = scale * (traffic.canary * canary.0 + traffic.stable * stable.0);
    // Clusters make the walk rougher by φ, and dividing by φ takes φ² off.
    let variance = kept / traffic.design_effect.max(1.0) * (traffic.canary * canary.1 + traffic.stable * stable.1);
    (drift > 1e-12 && drift.is_finite()).then_some((drift, variance))
}

/// Seconds after which the evidence has passed its bar with chance `power`; none if it never will.
#[must_use]
pub fn seconds(traffic: Traffic, question: Question, power: f64) -> Option<f64> {
    let (drift, variance) = walk(traffic, question)?;
    // Evidence is looked at once a second and has gone past its bar by then: 0.583 σ on average (Siegmund 1985).
    let bar = question.bar + 0.583 * variance.sqrt();
    let mean = bar / drift;
    let shape = bar * bar / variance;
    let (mut low, mut high) = (0.0, mean);
    while passed(high, mean, shape) < power {
        low = high;
        high *= 2.0;
        if high > 1e3 * mean {
            return None;
        }
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if passed(middle, mean, shape) < power {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
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

    fn dice(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// When the test itself passes its bar, in so many simulated stages of independent exposures, sorted.
    fn simulated(traffic: Traffic, question: Question) -> Vec<f64> {
        let truth = Pair { stable: question.stable, canary: question.canary };
        let share = traffic.canary / (traffic.canary + traffic.stable);
        let line = Line { stable: 1.0, canary: question.times, delta: question.plus, share };
        let w = Weights::new(truth, proportion::nearest_null(truth, line));
        let mut state = 7;
        let mut all: Vec<f64> = (0..1_000)
            .map(|_| {
                let (mut log, mut second) = (0.0, 0.0);
                while log <= question.bar {
                    second += 1.0;
                    for _ in 0..traffic.canary as u32 {
                        log += if dice(&mut state) < truth.canary { w.canary_bad } else { w.canary_good };
                    }
                    for _ in 0..traffic.stable as u32 {
                        log += if dice(&mut state) < truth.stable { w.stable_bad } else { w.stable_good };
                    }
                }
                second
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn predictions_are_within_15_percent_of_simulation() {
        let traffic = Traffic { canary: 10.0, stable: 30.0, design_effect: 1.0, heaviest: 0.0 };
        let ask = |stable, canary, times, plus, bar| Question { stable, canary, times, plus, bar };
        let questions = [
            ask(0.01, 0.01, 1.0, 0.005, 3.0),
            ask(0.01, 0.03, 1.0, 0.001, 9.5),
            ask(0.002, 0.007, 1.0, 0.001, 9.5),
            ask(0.5, 0.35, 1.0, 0.0, 3.0),
            ask(0.01, 0.003, 1.0, 0.0, 3.0),
        ];
        for question in questions {
            let all = simulated(traffic, question);
            for power in [0.8, 0.95] {
                let got = seconds(traffic, question, power).unwrap();
                let expect = all[(power * all.len() as f64) as usize];
                let off = (got / expect - 1.0).abs();
                assert!(off < 0.15, "{question:?} {power}: {got} s, simulated {expect} s");
            }
        }
    }

    #[test]
    fn what_lies_on_the_null_s_side_is_never_proven_and_less_traffic_takes_longer() {
        let traffic = Traffic { canary: 5.0, stable: 15.0, design_effect: 1.0, heaviest: 0.0 };
        let question = Question { stable: 0.01, canary: 0.01, times: 1.0, plus: 0.005, bar: 3.0 };
        assert_eq!(seconds(traffic, Question { canary: 0.015, ..question }, 0.8), None);
        let plain = seconds(traffic, question, 0.8).unwrap();
        let doubled = Traffic { canary: 10.0, stable: 30.0, ..traffic };
        assert!((plain / seconds(doubled, question, 0.8).unwrap() - 2.0).abs() < 0.1);
        let clustered = Traffic { design_effect: 2.0, heaviest: 0.1, ..traffic };
        assert!(seconds(clustered, question, 0.8).unwrap() > 1.9 * plain);
    }
}
