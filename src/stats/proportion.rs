//! Evidence about shares of bad events: the two-sample likelihood-ratio e-process with its exact nearest null.
//!
//! Turner, Ly, Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping"
//! (eq. 2: the reverse information projection of the alternative onto a convex null makes an e-variable); Lindon,
//! Sanden, Shirikian 2022 for the canary setting; Ville's inequality turns the product of factors into a bound that
//! holds however often it is looked at. The null here is the line (bρ_s, bρ_c·m + δ): stable's rate times the users'
//! offsets, for the canary with the promote margin on top. Leaving out the 1/(1−q) below (the Poisson form) has a closed
//! solution but makes stable's successes count against the canary when offsets differ.

/// No rate in an alternative or a null is above this: a success must never be impossible.
pub const MOST: f64 = 0.985;

/// A rate for each arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Stable's (the comparator's).
    pub stable: f64,
    /// The canary's.
    pub canary: f64,
}

/// The null of one stratum: rates (b·`stable`, b·`canary` + `delta`) for any b, and the canary's share of exposures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Mean offset of stable's exposures, ρ̄_s.
    pub stable: f64,
    /// Mean offset of the canary's exposures, times a relative margin.
    pub canary: f64,
    /// Absolute margin δ.
    pub delta: f64,
    /// n_c / (n_c + n_s).
    pub share: f64,
}

/// One term of the projection's slope, ρ(p − q)/(q(1 − q)), and its derivative by b.
fn term(p: f64, q: f64, rho: f64) -> (f64, f64) {
    let spread = q * (1.0 - q);
    let value = (p - q) / spread;
    let slope = (-spread - (p - q) * (1.0 - 2.0 * q)) / (spread * spread);
    (rho * value, rho * rho * slope)
}

/// The point of the null nearest to `alternative` in Kullback–Leibler divergence: the root b of
/// (1−π) ρ̄_s (p_s − q_s)/(q_s(1−q_s)) + π ρ̄_c (p_c − q_c)/(q_c(1−q_c)) = 0, a decreasing function; bisection with
/// Newton steps where they stay inside. Where the root lies beyond the bound on b, the bound is nearest.
#[must_use]
pub fn nearest_null(alternative: Pair, line: Line) -> Pair {
    let slope = |b: f64| {
        let (stable, stable_slope) = term(alternative.stable, b * line.stable, line.stable);
        let (canary, canary_slope) = term(alternative.canary, b * line.canary + line.delta, line.canary);
        (
            (1.0 - line.share) * stable + line.share * canary,
            (1.0 - line.share) * stable_slope + line.share * canary_slope,
        )
    };
    let mut low = 0.0;
    let mut high = (MOST / line.stable).min((MOST - line.delta) / line.canary);
    let by_stable = alternative.stable / line.stable;
    let by_canary = (alternative.canary - line.delta) / line.canary;
    let mut b = ((1.0 - line.share) * by_stable + line.share * by_canary).clamp(high * 1e-9, high);
    for _ in 0..100 {
        let (value, derivative) = slope(b);
        if value > 0.0 {
            low = b;
        } else {
            high = b;
        }
        let newton = b - value / derivative;
        let inside = newton > low && newton < high;
        let next = if inside { newton } else { 0.5 * (low + high) };
        let step = (next - b).abs();
        b = next;
        // What a Newton step leaves is as the square of it: 10⁻¹⁴ of b.
        if step <= if inside { 1e-7 } else { 1e-13 } * b {
            break;
        }
    }
    Pair { stable: b * line.stable, canary: b * line.canary + line.delta }
}

/// What one event adds to the log evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weights {
    /// A bad event of the canary.
    pub canary_bad: f64,
    /// A good event of the canary.
    pub canary_good: f64,
    /// A bad event of stable.
    pub stable_bad: f64,
    /// A good event of stable.
    pub stable_good: f64,
}

impl Weights {
    /// The log likelihood ratios of `alternative` to `null`.
    #[must_use]
    pub fn new(alternative: Pair, null: Pair) -> Self {
        Self {
            canary_bad: (alternative.canary / null.canary).ln(),
            canary_good: ((1.0 - alternative.canary) / (1.0 - null.canary)).ln(),
            stable_bad: (alternative.stable / null.stable).ln(),
            stable_good: ((1.0 - alternative.stable) / (1.0 - null.stable)).ln(),
        }
    }
}

/// The rate whose odds are `omega` times those of `rate`, at most [`MOST`].
#[must_use]
pub fn by_odds(rate: f64, omega: f64) -> f64 {
    (omega * rate / (1.0 - rate + omega * rate)).min(MOST)
}

/// The rates whose log ratios are these: p and q of `bad` = ln(p/q), `good` = ln((1−p)/(1−q)). None where both ratios are of one
/// sign, which no two rates have.
#[must_use]
pub fn rates(bad: f64, good: f64) -> Option<[f64; 2]> {
    if bad * good >= 0.0 {
        return None;
    }
    let q = good.exp_m1() / (good.exp_m1() - bad.exp_m1());
    Some([q * bad.exp(), q])
}

/// Log likelihood ratio of `bad` events and `good` ones, were their rate p and not q.
#[must_use]
pub fn log_ratio(bad: f64, good: f64, p: f64, q: f64) -> f64 {
    bad * (p / q).ln() + good * ((1.0 - p) / (1.0 - q)).ln()
}

/// Kullback–Leibler divergence of two Bernoulli rates, KL(a ‖ p), in nats.
#[must_use]
pub fn divergence(a: f64, p: f64) -> f64 {
    let part = |x: f64, y: f64| if x <= 0.0 { 0.0 } else { x * (x / y).ln() };
    part(a, p) + part(1.0 - a, 1.0 - p)
}

/// What events-only evidence takes off for each failure of either arm, ln(1 + ω·o) − ln(1 + o), where `odds` o is the
/// canary's arrivals for each of stable's: given the failures, the canary's share of them under the null is its share
/// of arrivals (a conditional binomial; no completed request is needed). No stable arrivals at all: ln ω.
#[must_use]
pub fn share_cost(omega: f64, odds: f64) -> f64 {
    if odds.is_finite() { (omega * odds).ln_1p() - odds.ln_1p() } else { omega.ln() }
}

/// ln Σ share·e^log: the e-value of a mixture. The shares sum to 1; logs beyond them do not count.
#[must_use]
pub fn log_mix_exp(logs: &[f64], shares: &[f64]) -> f64 {
    let logs = &logs[..shares.len().min(logs.len())];
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return most;
    }
    let sum: f64 = logs.iter().zip(shares).map(|(log, share)| share * (log - most).exp()).sum();
    most + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binomial(n: u32, k: u32, p: f64) -> f64 {
        let mut value = 1.0;
        for i in 0..k {
            value *= f64::from(n - i) / f64::from(i + 1);
        }
        value * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
    }

    /// E[factor] under the rates `truth`, by enumerating every outcome of one stratum.
    fn expectation(n_s: u32, n_c: u32, truth: Pair, weights: Weights) -> f64 {
        let mut total = 0.0;
        for k_s in 0..=n_s {
            for k_c in 0..=n_c {
                let log = f64::from(k_c) * weights.canary_bad
                    + f64::from(n_c - k_c) * weights.canary_good
                    + f64::from(k_s) * weights.stable_bad
                    + f64::from(n_s - k_s) * weights.stable_good;
                total += binomial(n_s, k_s, truth.stable) * binomial(n_c, k_c, truth.canary) * log.exp();
            }
        }
        total
    }

    #[test]
    fn the_expected_factor_is_at_most_one_under_every_null_even_with_unequal_offsets_and_huge_odds() {
        let mut worst: f64 = 0.0;
        for (n_s, n_c) in [(1, 1), (12, 2), (3, 9), (20, 20)] {
            for (rho_s, rho_c) in [(1.0, 1.0), (0.4, 2.5), (3.0, 0.2), (1.0, 6.0)] {
                for delta in [0.0, 0.001, 0.05] {
                    for p in [0.0005, 0.01, 0.1] {
                        for omega in [1.05, 1.25, 2.5, 15.0, 400.0] {
                            let line = Line {
                                stable: rho_s,
                                canary: rho_c,
                                delta,
                                share: f64::from(n_c) / f64::from(n_c + n_s),
                            };
                            let margin = p * rho_c + delta;
                            let alternative = Pair { stable: p * rho_s, canary: by_odds(margin, omega) };
                            if alternative.canary <= margin {
                                continue;
                            }
                            let weights = Weights::new(alternative, nearest_null(alternative, line));
                            let top = (MOST / rho_s).min((MOST - delta) / rho_c);
                            for step in 1..60 {
                                let b = top * (f64::from(step) / 60.0).powi(3);
                                for better in [1.0, 0.7, 0.0] {
                                    let truth = Pair { stable: b * rho_s, canary: better * (b * rho_c + delta) };
                                    worst = worst.max(expectation(n_s, n_c, truth, weights));
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(worst <= 1.0 + 1e-9, "an e-value's mean is {worst}");
        assert!(worst > 0.999, "and the bound is met at the nearest null: {worst}");
    }

    #[test]
    fn without_stable_exposures_there_is_no_evidence() {
        let line = Line { stable: 1.0, canary: 1.0, delta: 0.001, share: 1.0 };
        let alternative = Pair { stable: 0.01, canary: 0.2 };
        let null = nearest_null(alternative, line);
        assert!((null.canary - 0.2).abs() < 1e-9);
    }

    #[test]
    fn events_alone_say_nothing_when_the_odds_are_one() {
        assert!(share_cost(1.0, 0.3).abs() < 1e-12);
        assert!((share_cost(5.0, f64::INFINITY) - 5f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_mixture_lies_between_its_parts() {
        assert!((log_mix_exp(&[0.0, 0.0], &[0.3, 0.7]) - 0.0).abs() < 1e-12);
        assert!((log_mix_exp(&[1_000.0, 0.0, 2_000.0], &[0.5, 0.5]) - (1_000.0 - 2f64.ln())).abs() < 1e-9);
    }
}
