//! From quantiles to shares: which odds and shares of "above the limit" a shift of a distribution makes.
//!
//! A quantile rule counts the canary's values beyond stable's quantile times a margin. How strong an alternative is then
//! depends on how steep stable's own distribution is there, which its history tells.

use super::sketch::Sketch;

/// Which tail of a distribution is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Values above the limit.
    Above,
    /// Values below the limit.
    Below,
}

impl Tail {
    /// The share of `sketch` in this tail of `limit`.
    #[must_use]
    pub fn share(self, sketch: &Sketch, limit: f64) -> f64 {
        match self {
            Tail::Above => sketch.above(limit),
            Tail::Below => 1.0 - sketch.above(limit),
        }
    }

    /// Whether `value` lies in this tail of `limit`.
    #[must_use]
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Tail::Above => value > limit,
            Tail::Below => value < limit,
        }
    }
}

/// The odds ratio that a shift of the whole distribution from the promote to the rollback margin makes at the limit
/// `u`, where `back` is `u` moved by as much the other way. Clipped to 1.05..1.25: below it the alternative is too near the
/// null to gain, above it the next ω takes over.
#[must_use]
pub fn mild_odds(sketch: &Sketch, tail: Tail, u: f64, back: f64) -> f64 {
    let odds = |share: f64| {
        let share = share.clamp(1e-6, 1.0 - 1e-6);
        share / (1.0 - share)
    };
    (odds(tail.share(sketch, back)) / odds(tail.share(sketch, u))).clamp(1.05, 1.25)
}

/// Of stable's values beyond `u`, the share that is beyond `far` too: where an equal canary stands in the promotion
/// test. Clipped to 0.01..0.9. `seen` counts events beyond `u` and beyond both, which knows of slow failures that a
/// sketch of successes does not; the sketch is worth ten of them.
#[must_use]
pub fn kept_share(sketch: &Sketch, tail: Tail, u: f64, far: f64, seen: [f64; 2]) -> f64 {
    const WORTH: f64 = 10.0;
    let by_sketch = tail.share(sketch, far) / tail.share(sketch, u).max(1e-6);
    ((seen[1] + WORTH * by_sketch) / (seen[0] + WORTH)).clamp(0.01, 0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steeper_distribution_makes_larger_odds() {
        let mut steep = Sketch::default();
        let mut flat = Sketch::default();
        for i in 1..=10_000 {
            let x = f64::from(i) / 10_000.0;
            steep.add(100.0 * x.powf(0.02));
            flat.add(100.0 * x.powf(3.0));
        }
        let at = |sketch: &Sketch| {
            let u = sketch.quantile(0.5).unwrap();
            (mild_odds(sketch, Tail::Above, u, u / 1.05), kept_share(sketch, Tail::Above, u, u * 1.2, [0.0; 2]))
        };
        assert_eq!(at(&steep).0, 1.25);
        assert_eq!(at(&steep).1, 0.01);
        assert!(at(&flat).0 < 1.1 && at(&flat).1 > 0.8, "{:?}", at(&flat));
    }
}
