//! The share of units that an arm serves, as an exact count of buckets.

use std::fmt;

/// How many buckets there are: one is 0.001 %.
pub const BUCKETS: u32 = 100_000;

/// A share of all units: a count of buckets, 0 to [`BUCKETS`]. Shown and written as a percentage everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// Nobody.
    pub const ZERO: Weight = Weight(0);
    /// Everybody.
    pub const FULL: Weight = Weight(BUCKETS);

    /// A weight of so many buckets; more than all is all.
    #[must_use]
    pub const fn from_buckets(buckets: u32) -> Self {
        Self(if buckets > BUCKETS { BUCKETS } else { buckets })
    }

    /// A weight from a percentage.
    ///
    /// # Errors
    /// Not a number, outside 0 to 100, or finer than 0.001 %.
    pub fn from_percent(percent: f64) -> Result<Self, WeightError> {
        if !percent.is_finite() || !(0.0..=100.0).contains(&percent) {
            return Err(WeightError::Range);
        }
        let buckets = percent * 1_000.0;
        let whole = buckets.round();
        if (buckets - whole).abs() > 1e-6 {
            return Err(WeightError::Step);
        }
        Ok(Self(whole as u32))
    }

    /// How many buckets.
    #[must_use]
    pub const fn buckets(self) -> u32 {
        self.0
    }

    /// As a percentage.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }

    /// What is left of all buckets.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(BUCKETS - self.0)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

impl serde::Serialize for Weight {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.percent())
    }
}

impl<'de> serde::Deserialize<'de> for Weight {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Weight::from_percent(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a number is no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// Outside 0 to 100, or not a number.
    #[error("a weight is a percentage from 0 to 100")]
    Range,
    /// Finer than one bucket.
    #[error("a weight has steps of 0.001 %")]
    Step,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_becomes_an_exact_count_of_buckets() {
        for (percent, expect) in
            [(0.0, Ok(0)), (0.001, Ok(1)), (0.5, Ok(500)), (33.333, Ok(33_333)), (100.0, Ok(BUCKETS))]
        {
            assert_eq!(Weight::from_percent(percent).map(Weight::buckets), expect);
        }
        for (percent, expect) in [
            (-0.1, WeightError::Range),
            (100.001, WeightError::Range),
            (f64::NAN, WeightError::Range),
            (0.0005, WeightError::Step),
        ] {
            assert_eq!(Weight::from_percent(percent), Err(expect));
        }
    }
}
