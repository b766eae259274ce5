//! Gates shown to people and machines: values, difference, interval, evidence, what is missing, in numbers and a sentence.

use crate::names::Mono;
use crate::stats::mean;

use super::case::Case;
use super::contest::Contest;
use super::court::Judge;
use super::gate::{Evidence, GateReport, GateResult};
use super::policy::{Margin, Metric, Rule, Stat};

/// Variance scale of the intervals of shares: a few bad events' worth.
const RHO: f64 = 3.0;
/// Level of the intervals shown.
const LEVEL: f64 = 0.05;

impl Judge {
    /// Every gate in full, for people.
    #[must_use]
    pub fn report(&self, now: Mono) -> Vec<GateReport> {
        let cases = self.policy.rules.iter().zip(&self.state.cases).enumerate();
        cases.map(|(index, (rule, case))| self.gate(index, rule, case, now)).collect()
    }

    fn gate(&self, index: usize, rule: &Rule, case: &Case, now: Mono) -> GateReport {
        let state = &self.state;
        let promote_bar = self.policy.proof_bar();
        let read = case.read(rule, now.0, &state.bars, false).map(|(_, reading)| reading);
        let lack =
            state.lacks.iter().find(|(of, _)| of.is_some_and(|of| usize::from(of) == index)).map(|(_, lack)| *lack);
        let fallen = state.fallen.as_ref().filter(|(name, _)| rule.is_named(name));
        let uncompared = self.is_hand_picked() && !matches!(rule.stat, Stat::Zero | Stat::Breaches(_));
        let result = match (&lack, fallen) {
            (_, Some(_)) | (Some(super::verdict::Lack::Failing { .. }), _) => GateResult::Fail,
            _ if case.seen == 0 && !rule.required => GateResult::Unarmed,
            _ if state.stage.is_none() || !state.fresh || uncompared => GateResult::Inconclusive,
            (Some(_), None) => GateResult::Inconclusive,
            (None, None) if rule.is_alarm() && case.proof <= promote_bar => GateResult::Inconclusive,
            (None, None) => GateResult::Pass,
        };
        let (stable, canary) = values(case, rule);
        let design_effect = case.design_effect();
        let samples = case.soft.as_ref().map_or_else(
            || case.means.as_ref().map_or(case.violations[0] as f64, |means| means.counts().0),
            |soft| soft.total().n_c,
        );
        let promote = case.proof;
        let needed = needed(case, rule, promote_bar, design_effect, samples);
        let eta_s = match lack {
            Some(super::verdict::Lack::Proof { eta_s, .. }) => eta_s,
            _ => None,
        };
        let why = match (fallen, &lack, result) {
            (Some((_, reason)), _, _) => format!("worse than stable: {reason}"),
            (None, Some(lack), _) => lack.to_string(),
            (None, None, GateResult::Unarmed) => "its source has never spoken: shown, not required".to_owned(),
            (None, None, GateResult::Inconclusive) if rule.is_alarm() => {
                "an alarm: it can roll back, and no stage waits for its proof".to_owned()
            }
            (None, None, GateResult::Inconclusive) if uncompared => {
                "units of this stage are picked by hand, none is drawn: nothing to compare, and no proof is asked for"
                    .to_owned()
            }
            (None, None, GateResult::Inconclusive) => "no stage has been entered".to_owned(),
            (None, None, _) if matches!(rule.stat, Stat::Breaches(_)) => {
                "within its margin: a plain rule, outside alpha".to_owned()
            }
            (None, None, _) => format!("proven not worse: log evidence {promote:.1} > {promote_bar:.1}"),
        };
        GateReport {
            name: rule.name.to_string(),
            unit: rule.metric.unit(),
            on: rule.on,
            required: rule.required,
            result,
            stable,
            canary,
            difference: stable.zip(canary).map(|(stable, canary)| canary - stable),
            interval: interval(case, rule, design_effect),
            promote: in_unit(rule, rule.promote, stable),
            rollback: in_unit(rule, rule.rollback, stable),
            limit: rule.limit,
            evidence: Evidence {
                rollback: read.map_or(0.0, |reading| reading.evidence),
                bar: read.map_or(state.bars.whole, |reading| reading.bar),
                promote,
                promote_bar,
            },
            samples: samples as u64,
            samples_needed: needed,
            users: case
                .soft
                .as_ref()
                .map(Contest::users)
                .or(case.means.as_ref().map(super::means::Means::users))
                .unwrap_or(0) as u64,
            design_effect,
            eta_s,
            why,
        }
    }
}

/// How many canary values a proof is expected to need.
fn needed(case: &Case, rule: &Rule, bar: f64, design_effect: f64, samples: f64) -> Option<u64> {
    if let Some(means) = &case.means {
        let times =
            case.mean.map_or_else(|| means.times_needed(&means.whole(), rule.rollback, bar), |known| known.times);
        return times.map(|times| (times * samples).ceil() as u64);
    }
    let contest = case.promote.as_ref()?;
    let each = contest.drift() / design_effect / contest.total().n_c.max(1.0);
    (each > 0.0).then(|| (bar / each).ceil() as u64)
}

fn flips(rule: &Rule) -> bool {
    rule.metric == Metric::EvalPass
}

fn values(case: &Case, rule: &Rule) -> (Option<f64>, Option<f64>) {
    match rule.stat {
        Stat::Quantile(q) => (case.shown[0].quantile(q), case.shown[1].quantile(q)),
        Stat::Zero => (Some(case.violations[1] as f64), Some(case.violations[0] as f64)),
        Stat::Breaches(_) => case.query.unzip(),
        Stat::Mean => case.means.as_ref().map_or((None, None), super::means::Means::values),
        Stat::Rate => {
            let Some(sums) = case.soft.as_ref().map(Contest::total) else { return (None, None) };
            let share = |k: f64, n: f64| {
                let share = k / n;
                (n > 0.0).then_some(if flips(rule) { 1.0 - share } else { share })
            };
            (share(sums.k_s, sums.n_s), share(sums.k_c, sums.n_c))
        }
    }
}

/// A margin as a difference in the metric's unit.
fn in_unit(rule: &Rule, margin: Margin, stable: Option<f64>) -> Option<f64> {
    match margin {
        _ if rule.stat == Stat::Zero => None,
        Margin::Absolute(by) if flips(rule) => Some(-by.abs()),
        Margin::Absolute(by) => Some(by),
        Margin::Relative(ratio) => stable.map(|stable| stable * (ratio - 1.0)),
    }
}

/// An always-valid 95 % interval of the difference, canary less comparator (stats::mean::half_width).
fn interval(case: &Case, rule: &Rule, design_effect: f64) -> Option<[f64; 2]> {
    match rule.stat {
        Stat::Mean => {
            let means = case.means.as_ref()?;
            case.mean.map_or_else(|| means.interval(&means.whole()), |known| known.interval)
        }
        Stat::Rate => {
            let (half, sums) = half_share(case, design_effect)?;
            let difference = sums.k_c / sums.n_c - sums.k_s / sums.rho_s * sums.rho_c / sums.n_c;
            let difference = if flips(rule) { -difference } else { difference };
            // Shares differ by 100 points at most, whatever few samples leave possible.
            Some([(difference - half).max(-1.0), (difference + half).min(1.0)])
        }
        Stat::Quantile(q) => {
            // By order statistics: the ranks that the interval of the share beyond u leaves possible.
            let (half, _) = half_share(case, design_effect)?;
            let at = |share: f64| case.shown[1].quantile(share.clamp(0.0, 1.0));
            let stable = case.shown[0].quantile(q)?;
            Some([at(q - half)? - stable, at(q + half)? - stable])
        }
        Stat::Zero | Stat::Breaches(_) => None,
    }
}

fn half_share(case: &Case, design_effect: f64) -> Option<(f64, &super::contest::Sums)> {
    let sums = case.soft.as_ref()?.total();
    if sums.n_c < 1.0 || sums.n_s < 1.0 || sums.rho_s <= 0.0 {
        return None;
    }
    let pooled = (sums.k_c + sums.k_s + 0.5) / (sums.n_c + sums.n_s + 1.0);
    let variance = design_effect * pooled * (1.0 - pooled) * sums.n_c * (1.0 + sums.n_c / sums.n_s);
    Some((mean::half_width(variance, RHO, LEVEL) / sums.n_c, sums))
}
