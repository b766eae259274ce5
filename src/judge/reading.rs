//! What a test says since one of its starts, and what several say together: its starts, the tests of a rule, the rules.
//!
//! The bars are those of a union bound: start j may spend α·w_j, and its bar is −ln(α·w_j). The e-values of the starts may as well
//! be added with these weights: Σ w_j e_j is an e-value too (Vovk and Wang 2021, "E-values: calibration, combination and
//! applications", section 3: the arithmetic mean needs no independence), it passes 1/α where Σ exp(log e_j − bar_j) passes 1, and that
//! is so wherever one passes its own bar, and sooner where several agree. Starts that are still to come are worth 1 each
//! and are left out, as are those that have ended: both only lower the sum.

/// What a test says since a start.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Reading {
    /// Log e-value, worst user out, divided by the design effect.
    pub(super) evidence: f64,
    pub(super) bar: f64,
    pub(super) seconds: f64,
    pub(super) design_effect: f64,
    /// The canary's share of bad events since then.
    pub(super) canary_rate: f64,
}

impl Reading {
    /// How far the evidence is beyond its bar.
    pub(super) fn headroom(&self) -> f64 {
        self.evidence - self.bar
    }
}

/// Readings added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Together {
    /// The one nearest to its bar, or furthest beyond it.
    nearest: Option<Reading>,
    /// Σ exp(headroom).
    sum: f64,
}

/// What is further below its bar than this adds less than a fiftieth of what is needed.
pub(super) const NEGLIGIBLE: f64 = 4.0;

impl Together {
    /// Adds one.
    pub(super) fn add(&mut self, reading: Reading) {
        self.sum += reading.headroom().exp();
        if self.nearest.is_none_or(|nearest| reading.headroom() >= nearest.headroom()) {
            self.nearest = Some(reading);
        }
    }

    /// The reading nearest to its bar, with the evidence of all of them: beyond that bar where the sum passes.
    pub(super) fn told(&self) -> Option<Reading> {
        let nearest = self.nearest?;
        // So far below every bar that the sum is 0: the nearest alone says it all.
        Some(Reading { evidence: nearest.evidence.max(nearest.bar + self.sum.ln()), ..nearest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(evidence: f64, bar: f64) -> Reading {
        Reading { evidence, bar, seconds: 16.0, design_effect: 1.0, canary_rate: 0.0 }
    }

    #[test]
    fn starts_that_agree_pass_together_before_one_does_alone() {
        let mut together = Together::default();
        assert_eq!(together.told(), None);
        together.add(reading(7.0, 7.6));
        assert!(together.told().unwrap().headroom() < 0.0);
        together.add(reading(12.9, 13.4));
        let passed = together.told().unwrap();
        assert_eq!(passed.bar, 13.4);
        assert!((passed.headroom() - ((-0.6f64).exp() + (-0.5f64).exp()).ln()).abs() < 1e-12);
    }

    #[test]
    fn sums_are_those_of_the_independent_script() {
        let answers = include_str!("../../tests/fixtures/stats/known_answers.json");
        let answers: serde_json::Value = serde_json::from_str(answers).unwrap();
        for row in answers["sums"].as_array().unwrap() {
            let mut together = Together::default();
            for (log, bar) in row["logs"].as_array().unwrap().iter().zip(row["bars"].as_array().unwrap()) {
                together.add(reading(log.as_f64().unwrap(), bar.as_f64().unwrap()));
            }
            assert!((together.told().unwrap().headroom() - row["beyond"].as_f64().unwrap()).abs() < 1e-9);
        }
    }

    #[test]
    fn one_alone_is_told_as_it_is_however_far_from_its_bar() {
        for evidence in [-2_000.0, -3.0, 0.0, 8.0] {
            let mut together = Together::default();
            together.add(reading(evidence, 7.6));
            assert!((together.told().unwrap().evidence - evidence).abs() < 1e-9);
            assert_eq!(together.told().unwrap().headroom() > 0.0, evidence > 7.6);
        }
    }
}
