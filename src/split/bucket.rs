//! Buckets: where a unit stands among 100,000, and which arm its place belongs to.
//!
//! The canary grows from the bottom and the baseline, as large as the canary up to 50 %, is the top; stable is the
//! middle. So the buckets of a weight are a subset of those of every larger weight: a raise moves nobody back, and
//! the baseline keeps its people up to 50 %.

use super::unit::{Seed, Unit};
use super::weight::{BUCKETS, Weight};
use crate::names::Arm;

/// A unit's place, 0 to 99,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(u32);

impl Bucket {
    /// The place of `unit` under `seed`: `xxh3_64(unit, seed) mod 100_000`.
    #[must_use]
    pub fn of(unit: Unit<'_>, seed: Seed) -> Self {
        Self((unit.hash(seed) % u64::from(BUCKETS)) as u32)
    }

    /// The bare number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The arm of this place when the canary has `weight`, with or without a baseline.
    #[must_use]
    pub fn arm(self, weight: Weight, baseline: bool) -> Arm {
        let canary = weight.buckets();
        if self.0 < canary {
            Arm::Canary
        } else if baseline && self.0 >= BUCKETS - canary.min(BUCKETS - canary) {
            Arm::Baseline
        } else {
            Arm::Stable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets() -> impl Iterator<Item = Bucket> {
        (0..BUCKETS).map(Bucket)
    }

    #[test]
    fn the_arms_have_exactly_their_shares() {
        for weight in [0, 1, 500, 1_000, 49_999, 50_000, 50_001, 99_000, 100_000] {
            let weight = Weight::from_buckets(weight);
            let count = |arm| buckets().filter(|b| b.arm(weight, true) == arm).count() as u32;
            assert_eq!(count(Arm::Canary), weight.buckets());
            assert_eq!(count(Arm::Baseline), weight.buckets().min(weight.complement().buckets()));
            assert_eq!(buckets().filter(|b| b.arm(weight, false) == Arm::Baseline).count(), 0);
        }
    }

    #[test]
    fn a_unit_keeps_its_version_while_the_weight_rises() {
        for bucket in buckets().step_by(7) {
            let mut seen_canary = false;
            let mut seen_baseline = false;
            for weight in [0, 1, 10, 1_000, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000] {
                let arm = bucket.arm(Weight::from_buckets(weight), true);
                assert!(!(seen_canary && arm != Arm::Canary), "left the canary at {weight}");
                assert!(!(seen_baseline && weight <= 50_000 && arm != Arm::Baseline), "left the baseline at {weight}");
                seen_canary |= arm == Arm::Canary;
                seen_baseline |= arm == Arm::Baseline;
            }
        }
    }
}
