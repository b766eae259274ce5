//! What a rollout intends: its stages, who must agree, how long it watches, and the presets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rollout::calendar::{Freeze, Hours, NotBefore};
use crate::split::weight::Weight;

/// The names of all presets, in the order in which the documents list them.
pub const PRESETS: [&str; 7] =
    ["standard", "accelerated", "conservative", "cohort_first", "ai_gateway", "progressive", "gradual"];

/// How long a wait without a length of its own may last before somebody is told: a stage without residence, a pause
/// of a plain split, a completed rollout that waits for its config edit.
pub const UNSAID_DEADLINE: Duration = Duration::from_secs(24 * 3_600);

/// What a rollout intends. Valid by construction in `config`; frozen into the state at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The preset that the stages come from, when they do.
    pub preset: Option<String>,
    /// In order; weights rise; the last is 100 % (less the holdback) and is the soak.
    pub stages: Vec<Stage>,
    /// Who starts it.
    pub start: Start,
    /// What becomes of a new canary version while one is under release.
    pub second_version: SecondVersion,
    /// How long to watch after the last stage was entered.
    pub soak: Duration,
    /// What stays on stable until the soak ends.
    pub holdback: Weight,
    /// A stage without an answer after this many times its residence is paused; at least 1.
    pub deadline_factor: f64,
    /// Nothing rises before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<NotBefore>,
    /// When rises may happen; always, when absent.
    pub hours: Option<Hours>,
    /// Days on which nothing rises.
    pub freezes: Vec<Freeze>,
    /// The group of rollouts that advance together.
    pub lockstep: Option<String>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The canary's share while the stage lasts.
    pub weight: Weight,
    /// The least time in the stage.
    pub residence: Duration,
    /// The least canary observations; the judge holds until they are there.
    pub samples: u64,
    /// Who must agree before the stage is left.
    pub approval: Approval,
    /// Cohorts that open with this stage, and stay open in later ones.
    pub cohorts: Vec<String>,
}

/// How many people must agree before a stage is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody: proof is enough.
    #[default]
    None,
    /// One approver.
    One,
    /// Two different approvers, neither of whom started the rollout.
    Two,
}

impl Approval {
    /// How many signatures that is.
    #[must_use]
    pub const fn needed(self) -> usize {
        match self {
            Approval::None => 0,
            Approval::One => 1,
            Approval::Two => 2,
        }
    }

    /// The word used in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Approval::None => "none",
            Approval::One => "one",
            Approval::Two => "two",
        }
    }
}

/// Who starts a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// A person.
    #[default]
    Manual,
    /// The arrival of a new canary version in the configuration.
    OnNewVersion,
}

/// What becomes of a new canary version while another is under release. None of these clears a latch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondVersion {
    /// The reload that names it is refused.
    #[default]
    Reject,
    /// The newest waits until the rollout is idle.
    Queue,
    /// The old one goes to 0 and the new one starts at the first stage.
    Supersede,
}

impl Default for Plan {
    /// No stages; everything else as the configuration's defaults are.
    fn default() -> Self {
        Self {
            preset: None,
            stages: Vec::new(),
            start: Start::default(),
            second_version: SecondVersion::default(),
            soak: Duration::from_secs(72 * HOUR),
            holdback: Weight::from_buckets(1_000),
            deadline_factor: 4.0,
            not_before: None,
            hours: None,
            freezes: Vec::new(),
            lockstep: None,
        }
    }
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// The least canary observations of a stage where none are written (evaluator, section 6).
pub const DEFAULT_SAMPLES: u64 = 500;

impl Plan {
    /// The preset of that name with everything else at its default; `None` when there is no such preset.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let (percents, residence, approval): (&[f64], &[u64], &[Approval]) = match name {
            "standard" => (&[1.0, 5.0, 10.0, 25.0, 50.0, 100.0], &[DAY], &[Approval::One]),
            "accelerated" => (&[1.0, 10.0, 25.0, 100.0], &[DAY], &[Approval::One]),
            "conservative" => (&[1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0], &[2 * DAY], &[Approval::Two]),
            "cohort_first" => (&[0.0, 0.0, 5.0, 25.0, 100.0], &[DAY], &[Approval::One]),
            "ai_gateway" => {
                (&[1.0, 10.0, 50.0, 100.0], &[4 * HOUR, DAY, 2 * DAY], &[Approval::None, Approval::None, Approval::One])
            }
            "progressive" => (&[1.0, 10.0, 50.0, 100.0], &[600, 1_800, HOUR], &[Approval::None]),
            "gradual" => (&[10.0, 25.0, 50.0, 75.0, 100.0], &[HOUR], &[Approval::None]),
            _ => return None,
        };
        let last = percents.len() - 1;
        let mut stages: Vec<Stage> = (0..percents.len())
            .map(|i| {
                let of = |list: &[u64]| list.get(i).or_else(|| list.last()).copied().unwrap_or_default();
                let weight = Weight::from_percent(percents[i]).unwrap_or(Weight::ZERO);
                if i == last {
                    return Stage::last();
                }
                Stage {
                    weight,
                    residence: Duration::from_secs(of(residence)),
                    samples: DEFAULT_SAMPLES,
                    approval: approval.get(i).or_else(|| approval.last()).copied().unwrap_or_default(),
                    cohorts: Vec::new(),
                }
            })
            .collect();
        if name == "cohort_first" {
            stages[0].cohorts = vec!["internal".to_owned()];
            stages[1].cohorts = vec!["beta".to_owned()];
        }
        Some(Self { preset: Some(name.to_owned()), stages, ..Self::default() })
    }

    /// The index of the last stage, the soak; 0 for a plan without stages.
    #[must_use]
    pub fn last(&self) -> usize {
        self.stages.len().saturating_sub(1)
    }

    /// The weight that is really published in a stage: the last one leaves the holdback on stable.
    #[must_use]
    pub fn weight_of(&self, index: usize) -> Weight {
        let Some(stage) = self.stages.get(index) else { return Weight::ZERO };
        if index == self.last() { stage.weight.min(self.holdback.complement()) } else { stage.weight }
    }

    /// The least time in a stage; for the last one, the soak.
    #[must_use]
    pub fn residence_of(&self, index: usize) -> Duration {
        if index == self.last() { self.soak } else { self.stages.get(index).map_or(Duration::ZERO, |s| s.residence) }
    }

    /// How long a stage may go without an answer.
    #[must_use]
    pub fn deadline_of(&self, index: usize) -> Duration {
        let residence = self.residence_of(index);
        if residence.is_zero() {
            return UNSAID_DEADLINE;
        }
        let factor = if self.deadline_factor.is_finite() { self.deadline_factor.max(1.0) } else { 1.0 };
        Duration::try_from_secs_f64(residence.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}

impl Stage {
    /// The last stage of every plan: all, for the length of the soak; no residence and no approval of its own.
    #[must_use]
    pub const fn last() -> Self {
        Self {
            weight: Weight::FULL,
            residence: Duration::ZERO,
            samples: 0,
            approval: Approval::None,
            cohorts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: u64 = 3_600;

    #[test]
    fn the_presets_are_those_of_the_interface() {
        use Approval::{None as N, One, Two};
        type Row = (&'static str, &'static [f64], &'static [u64], &'static [Approval]);
        let table: [Row; 7] = [
            ("standard", &[1.0, 5.0, 10.0, 25.0, 50.0, 100.0], &[24; 5], &[One; 5]),
            ("accelerated", &[1.0, 10.0, 25.0, 100.0], &[24; 3], &[One; 3]),
            ("conservative", &[1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0], &[48; 6], &[Two; 6]),
            ("cohort_first", &[0.0, 0.0, 5.0, 25.0, 100.0], &[24; 4], &[One; 4]),
            ("ai_gateway", &[1.0, 10.0, 50.0, 100.0], &[4, 24, 48], &[N, N, One]),
            ("gradual", &[10.0, 25.0, 50.0, 75.0, 100.0], &[1; 4], &[N; 4]),
            ("progressive", &[1.0, 10.0, 50.0, 100.0], &[], &[N; 3]),
        ];
        assert_eq!(table.len(), PRESETS.len());
        for (name, percents, hours, approvals) in table {
            assert!(PRESETS.contains(&name));
            let plan = Plan::preset(name).unwrap();
            let got: Vec<f64> = plan.stages.iter().map(|s| s.weight.percent()).collect();
            assert_eq!(got, percents, "{name}");
            let body = &plan.stages[..plan.last()];
            let got: Vec<u64> = body.iter().map(|s| s.residence.as_secs()).collect();
            let expect: Vec<u64> =
                if name == "progressive" { vec![600, 1_800, H] } else { hours.iter().map(|h| h * H).collect() };
            assert_eq!(got, expect, "{name}");
            let got: Vec<Approval> = body.iter().map(|s| s.approval).collect();
            assert_eq!(got, approvals, "{name}");
            assert_eq!(plan.stages[plan.last()], Stage::last(), "{name}");
            assert_eq!(plan.soak, Duration::from_secs(72 * H), "{name}");
            assert_eq!(plan.weight_of(plan.last()), Weight::from_percent(99.0).unwrap(), "{name}");
        }
        let cohort = Plan::preset("cohort_first").unwrap();
        assert_eq!(
            (cohort.stages[0].cohorts.as_slice(), cohort.stages[1].cohorts.as_slice()),
            (&["internal".to_owned()][..], &["beta".to_owned()][..])
        );
        assert!(Plan::preset("Standard").is_none());
    }

    #[test]
    fn a_plan_survives_its_own_json() {
        for name in PRESETS {
            let mut plan = Plan::preset(name).unwrap();
            plan.not_before = Some("2026-12-01T09:00:00+01:00".parse().unwrap());
            plan.hours = Some("Mon-Fri 09:00-17:00 Europe/Berlin".parse().unwrap());
            plan.freezes = vec!["2026-12-24/2027-01-02".parse().unwrap()];
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        }
    }
}
