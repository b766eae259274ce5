//! A decayed log histogram: the quantiles of what was seen lately, in bounded memory.
//!
//! Buckets of 2 % (the margins of gates start at 5 %, so a bucket is well inside them), one more for values of 0 and less.
//! Counts are plain sums, so that sketches of workers and replicas add up.

/// ln of the width of a bucket.
const STEP: f64 = 0.019_802_627_296_179_71; // ln 1.02
/// Lowest bucket: e^(−24) ≈ 4·10⁻¹¹ (a cost in dollars); what is lower counts as 0.
const LOWEST: i32 = -1_212;
/// Highest bucket: e^(+24) ≈ 2.6·10¹⁰.
const HIGHEST: i32 = 1_212;

/// The bucket of a value; none for what counts as 0.
#[must_use]
pub fn bucket(value: f64) -> Option<i32> {
    let bucket = if value > 0.0 { (value.ln() / STEP).floor() as i32 } else { i32::MIN };
    (bucket >= LOWEST).then(|| bucket.min(HIGHEST))
}

/// A decayed histogram of positive values.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sketch {
    /// Bucket number of `counts[0]`.
    first: i32,
    counts: Vec<f64>,
    /// Values of 0 and less.
    zeros: f64,
    /// Sum of all counts.
    total: f64,
    /// Values ever seen, not decayed.
    seen: u64,
}

impl Sketch {
    /// Values ever seen, not decayed.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        self.add_at(bucket(value));
    }

    /// The same, for a value whose [`bucket`] is known already: several sketches may take in one value.
    pub fn add_at(&mut self, bucket: Option<i32>) {
        self.seen += 1;
        self.total += 1.0;
        match bucket {
            Some(bucket) => *self.at(bucket) += 1.0,
            None => self.zeros += 1.0,
        }
    }

    fn at(&mut self, bucket: i32) -> &mut f64 {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = (self.first - bucket) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0.0, more));
            self.first = bucket;
        }
        let index = (bucket - self.first) as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0.0);
        }
        &mut self.counts[index]
    }

    /// Multiplies every count by `factor`: what is older weighs less.
    pub fn decay(&mut self, factor: f64) {
        self.zeros *= factor;
        self.total = self.zeros;
        for count in &mut self.counts {
            *count *= factor;
            self.total += *count;
        }
    }

    /// Adds another sketch's counts.
    pub fn merge(&mut self, other: &Sketch) {
        self.seen += other.seen;
        self.total += other.total;
        self.zeros += other.zeros;
        for (index, count) in other.counts.iter().enumerate() {
            if *count > 0.0 {
                *self.at(other.first + index as i32) += *count;
            }
        }
    }

    /// The value below which a share `q` lies, interpolated in its bucket; none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.total <= 0.0 {
            return None;
        }
        let target = q * self.total;
        let mut below = self.zeros;
        if target <= below && below > 0.0 {
            return Some(0.0);
        }
        let mut found = None;
        for (bucket, count) in (self.first..).zip(&self.counts).filter(|(_, count)| **count > 0.0) {
            found = Some((bucket, below, count));
            below += count;
            if below >= target {
                break;
            }
        }
        Some(found.map_or(0.0, |(bucket, below, count)| {
            let within = ((target - below) / count).clamp(0.0, 1.0);
            ((f64::from(bucket) + within) * STEP).exp()
        }))
    }

    /// The share of values above `value`, interpolated in its bucket; 0 without values.
    #[must_use]
    pub fn above(&self, value: f64) -> f64 {
        if self.total <= 0.0 {
            return 0.0;
        }
        let place = if value > 0.0 { value.ln() / STEP } else { f64::NEG_INFINITY };
        let mut above = 0.0;
        for (index, count) in self.counts.iter().enumerate() {
            let low = f64::from(self.first + index as i32);
            above += count * (low + 1.0 - place).clamp(0.0, 1.0);
        }
        above / self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(values: impl Iterator<Item = f64>) -> Sketch {
        let mut sketch = Sketch::default();
        values.for_each(|value| sketch.add(value));
        sketch
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let sketch = filled((1..=10_000).map(f64::from));
        for q in [0.05, 0.5, 0.95, 0.99] {
            let got = sketch.quantile(q).unwrap();
            assert!((got / (q * 10_000.0) - 1.0).abs() < 0.02, "{q}: {got}");
            assert!((sketch.above(got) - (1.0 - q)).abs() < 0.002);
        }
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(filled([0.0, 0.0, 5.0].into_iter()).quantile(0.5), Some(0.0));
    }

    #[test]
    fn merging_is_associative_and_commutative() {
        let parts = [filled([1.0, 2.0, 0.0].into_iter()), filled([1e9, 3.0].into_iter()), filled([1e-9].into_iter())];
        let join = |order: [usize; 3]| {
            let mut sketch = Sketch::default();
            order.iter().for_each(|i| sketch.merge(&parts[*i]));
            (sketch.seen(), sketch.quantile(0.1), sketch.quantile(0.6), sketch.above(2.5))
        };
        let expect = join([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(join(order), expect);
        }
        let mut right = parts[1].clone();
        right.merge(&parts[2]);
        let mut left = parts[0].clone();
        left.merge(&right);
        assert_eq!((left.seen(), left.quantile(0.1), left.quantile(0.6), left.above(2.5)), expect);
    }

    #[test]
    fn what_is_old_fades() {
        let mut sketch = filled(std::iter::repeat_n(10.0, 100));
        sketch.decay(0.01);
        (0..100).for_each(|_| sketch.add(1_000.0));
        assert!(sketch.quantile(0.5).unwrap() > 900.0);
    }
}
