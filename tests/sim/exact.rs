//! What a count of falls in so many stages proves: the exact bound of Clopper and Pearson (1934).

/// The largest chance that `k` or fewer of `n` leaves possible at `level` (one-sided): P(X ≤ k | p) = 1 − level.
pub fn upper_bound(k: u32, n: u32, level: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let p = 0.5 * (low + high);
        if at_most(k, n, p) > 1.0 - level {
            low = p;
        } else {
            high = p;
        }
    }
    high
}

fn at_most(k: u32, n: u32, p: f64) -> f64 {
    let mut log = f64::from(n) * (1.0 - p).ln();
    let mut sum = log.exp();
    for i in 0..k {
        log += (f64::from(n - i) / f64::from(i + 1)).ln() + (p / (1.0 - p)).ln();
        sum += log.exp();
    }
    sum
}

/// The value below which a share `q` of `sorted` lies (nearest rank); NaN where there is none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
