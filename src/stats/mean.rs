//! Evidence about means: a one-sided normal mixture with the tails that few clusters need.

/// The variance scale of the mixture, in squared scores: about what the first handful of users' sums spread by, so
/// that it weighs nothing once evidence is real. Scores are 0..1, or divided by the comparator's mean.
pub const RHO: f64 = 3.0;
/// Fewest values in each arm.
pub const FEWEST: f64 = 20.0;
/// Fewest effective users of the canary.
pub const FEWEST_USERS: f64 = 6.0;

/// log e of a score `s` (positive: in the tested direction) with cluster-robust variance `v` from `b` effective
/// clusters: ½ ln(ρ/(V+ρ)) + (B/2) ln(1 + x/B) + ln 2 with x = S²/(V+ρ). For many clusters it is the one-sided normal
/// mixture of Robbins 1970 (Howard, Ramdas, McAuliffe, Sekhon 2021, eq. 3.7); for few, (1 + x/B)^(B/2) stands for
/// e^(x/2), as in Student's distribution. A score in the other direction is no evidence.
#[must_use]
pub fn log_evidence(s: f64, v: f64, b: f64) -> f64 {
    let spread = v + RHO;
    let base = 0.5 * (RHO / spread).ln();
    if s <= 0.0 {
        return base;
    }
    let x = s * s / spread;
    base + 0.5 * b * (x / b).ln_1p() + std::f64::consts::LN_2
}

/// Half the width of an always-valid interval of a sum with variance `v`, at level `alpha`: the two-sided normal
/// mixture boundary √((V+ρ) ln((V+ρ)/(ρα²))) (Howard et al. 2021, eq. 3.7).
#[must_use]
pub fn half_width(v: f64, rho: f64, alpha: f64) -> f64 {
    ((v + rho) * ((v + rho) / (rho * alpha * alpha)).ln()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_against_the_tested_direction_never_accuses() {
        assert!(log_evidence(-50.0, 10.0, 20.0) < 0.0);
        assert!(log_evidence(0.0, 0.0, 20.0) <= 0.0);
    }

    #[test]
    fn few_clusters_need_more_than_many() {
        assert!(log_evidence(30.0, 20.0, 8.0) < log_evidence(30.0, 20.0, 800.0));
    }
}
