//! Checks a plan: preset or stages, weights that rise, holdback, calendar; and the weight of a plain split.

use std::time::Duration;

use super::check::Check;
use super::fault::Place;
use super::model::{Role, Token};
use super::model_rollout::Cohort;
use super::raw;
use super::read::{At, Text};
use crate::rollout::plan::DEFAULT_SAMPLES;
use crate::rollout::{Approval, PRESETS, Plan, RiskClass, SecondVersion, Stage, Start};
use crate::split::Weight;

impl Check<'_, '_> {
    /// The fixed weight of a rollout without a plan.
    pub(crate) fn plain_weight(&mut self, at: Option<&At<f64>>, plan: Option<&raw::Plan>, canary: bool) -> Weight {
        let Some(at) = at else { return Weight::ZERO };
        if plan.is_some() {
            self.sink.fault_of(
                &at.place,
                format!("{} %", at.value),
                "stands beside a plan",
                "write a weight (a plain split) or a plan, not both",
            );
        }
        let weight = self.weight(at).unwrap_or(Weight::ZERO);
        if weight > Weight::ZERO && !canary {
            self.sink.warn(&at.place, "has no canary to go to: stable serves all", "write [rollouts.NAME.canary]");
        }
        weight
    }

    /// A plan; `None` after a fault that leaves it without stages. Without preset and stages of its own it has those that
    /// `risk` picks.
    pub(crate) fn plan(
        &mut self,
        raw: raw::Plan,
        risk: Option<RiskClass>,
        cohorts: &[Cohort],
        tokens: &[Token],
    ) -> Option<Plan> {
        let default = Plan::default();
        let given = raw.stages.as_ref().is_some_and(|stages| !stages.is_empty());
        let mut places: Vec<Place> = Vec::new();
        let (preset, stages) = match (&raw.preset, raw.stages) {
            (Some(at), Some(_)) if given => {
                self.sink.fault(&at.place, "stands beside stages", "write a preset or stages, not both");
                (None, Vec::new())
            }
            (Some(at), _) => match Plan::preset(&at.value.0) {
                Some(plan) => (plan.preset, plan.stages),
                None => {
                    self.unknown_word(&at.place, &at.value.0, &PRESETS);
                    (None, Vec::new())
                }
            },
            (None, _) if !given && risk.is_some() => {
                let picked = risk.and_then(|risk| Plan::preset(risk.preset()));
                picked.map(|plan| (plan.preset, plan.stages)).unwrap_or_default()
            }
            (None, stages) => {
                let stages = stages.unwrap_or_default();
                if stages.is_empty() {
                    self.sink.fault(
                        &raw.place,
                        "has neither a preset nor stages",
                        "write preset = \"standard\", [[rollouts.NAME.plan.stages]], or risk in [rollouts.NAME.register]",
                    );
                }
                (None, self.stages(stages, &mut places))
            }
        };
        for (index, stage) in stages.iter().enumerate() {
            for cohort in stage.cohorts.iter().filter(|name| !cohorts.iter().any(|known| known.name == **name)) {
                let at = places.get(index).cloned().or_else(|| raw.preset.as_ref().map(|at| at.place.clone()));
                let reason = format!("names the cohort \"{cohort}\", which there is not");
                self.sink.fault(&at.unwrap_or_default(), reason, "write [[rollouts.NAME.cohorts]] with that name");
            }
        }
        let signed = stages.iter().map(|stage| stage.approval.needed()).max().unwrap_or_default();
        self.signers(&raw.place, signed, tokens);
        let starts = [("manual", Start::Manual), ("on_new_version", Start::OnNewVersion)];
        let seconds = [
            ("reject", SecondVersion::Reject),
            ("queue", SecondVersion::Queue),
            ("supersede", SecondVersion::Supersede),
        ];
        let holdback = self.holdback(&raw.place, raw.holdback.as_ref(), &stages);
        let plan = Plan {
            preset,
            start: self.choice(raw.start.as_ref(), &starts, default.start),
            second_version: self.choice(raw.second_version.as_ref(), &seconds, default.second_version),
            soak: self.duration(raw.soak.as_ref(), Duration::ZERO, default.soak),
            holdback: holdback.unwrap_or(default.holdback),
            deadline_factor: self.deadline(raw.deadline.as_ref()).unwrap_or(default.deadline_factor),
            not_before: raw.not_before.as_ref().and_then(|at| self.parsed(at)),
            hours: raw.hours.as_ref().and_then(|at| self.parsed(at)),
            freezes: raw.freezes.unwrap_or_default().iter().filter_map(|at| self.parsed(at)).collect(),
            lockstep: raw.lockstep.as_ref().and_then(|at| self.filled(at)),
            stages,
        };
        (!plan.stages.is_empty()).then_some(plan)
    }

    fn stages(&mut self, raw: Vec<raw::Stage>, places: &mut Vec<Place>) -> Vec<Stage> {
        let last = raw.len().saturating_sub(1);
        let mut stages: Vec<Stage> = Vec::new();
        let mut highest: Option<Weight> = None;
        for (index, raw) in raw.into_iter().enumerate() {
            places.push(
                raw.cohorts.as_ref().and_then(|c| c.first()).map_or_else(|| raw.place.clone(), |at| at.place.clone()),
            );
            let cohorts: Vec<String> = raw.cohorts.iter().flatten().map(|at| at.value.0.clone()).collect();
            let weight = match &raw.weight {
                None => {
                    self.sink.missing(&raw.place, "weight", "write the canary's share in percent");
                    None
                }
                Some(at) => self.weight(at),
            };
            if let (Some(at), Some(weight)) = (&raw.weight, weight) {
                let shown = weight.to_string();
                match highest {
                    Some(before) if weight <= before && !(weight == Weight::ZERO && before == Weight::ZERO) => {
                        let reason = format!("is not above the stage before it ({before})");
                        self.sink.fault_of(&at.place, shown, reason, "weights of a plan rise, list them in order");
                    }
                    _ if weight == Weight::ZERO && cohorts.is_empty() => {
                        self.sink.fault_of(
                            &at.place,
                            shown,
                            "sends nobody to the canary",
                            "only a stage with cohorts stands at 0",
                        );
                    }
                    _ if index == last && weight != Weight::FULL => {
                        self.sink.fault_of(
                            &at.place,
                            shown,
                            "is the last stage and not 100 %",
                            "end the plan with weight = 100.0",
                        );
                    }
                    _ => {}
                }
                highest = Some(highest.map_or(weight, |before| before.max(weight)));
            }
            let stage = self.stage(&raw, index == last, weight.unwrap_or_default(), cohorts);
            stages.push(stage);
        }
        stages
    }

    fn stage(&mut self, raw: &raw::Stage, last: bool, weight: Weight, cohorts: Vec<String>) -> Stage {
        let approvals = [("none", Approval::None), ("one", Approval::One), ("two", Approval::Two)];
        let approval = self.choice(raw.approval.as_ref(), &approvals, Approval::None);
        let residence = self.duration_if(raw.residence.as_ref(), Duration::ZERO);
        if last {
            let unused = raw.residence.as_ref().map(|at| &at.place).or(raw.approval.as_ref().map(|at| &at.place));
            if let Some(place) =
                unused.filter(|_| approval != Approval::None || residence.is_some_and(|d| !d.is_zero()))
            {
                self.sink.warn(
                    place,
                    "is not used: the last stage lasts for the soak and is left without a signature",
                    "take it out, or set soak",
                );
            }
            return Stage { cohorts, ..Stage::last() };
        }
        if raw.residence.is_none() {
            self.sink.warn(
                &raw.place.child("residence"),
                "is missing: the stage is left as soon as its gates pass",
                "write the least time here, as \"24h\"",
            );
        }
        let samples = raw.samples.as_ref().map_or(DEFAULT_SAMPLES, |at| at.value);
        Stage { weight, residence: residence.unwrap_or_default(), samples, approval, cohorts }
    }

    /// Whether enough people could sign.
    fn signers(&mut self, plan: &Place, needed: usize, tokens: &[Token]) {
        let may = |token: &&Token| token.roles.iter().any(|role| matches!(role, Role::Approver | Role::Owner));
        let signers = if tokens.is_empty() { 1 } else { tokens.iter().filter(may).count() };
        if signers < needed {
            let reason =
                format!("asks for {needed} approvals of a stage, and {signers} of the admin tokens may approve");
            self.sink.warn(plan, reason, "give more tokens the role approver");
        }
    }

    fn holdback(&mut self, plan: &Place, at: Option<&At<f64>>, stages: &[Stage]) -> Option<Weight> {
        let default = Plan::default().holdback;
        let holdback = match at {
            Some(at) => self.weight(at)?,
            None => default,
        };
        let before = stages.len().checked_sub(2).and_then(|index| stages.get(index)).map(|stage| stage.weight);
        let before = before.unwrap_or_default();
        if holdback >= before.complement() {
            let Some(at) = at else {
                if !stages.is_empty() {
                    let reason = format!(
                        "is 0 here: the default ({default}) would leave the last stage no more than the one before it"
                    );
                    self.sink.warn(&plan.child("holdback"), reason, "write holdback, or a lower stage before the last");
                }
                return Some(Weight::ZERO);
            };
            let reason = format!("leaves the last stage no more than the one before it ({before})");
            self.sink.fault_of(&at.place, holdback.to_string(), reason, "write less; 1.0 is usual, 0 is none");
            return None;
        }
        Some(holdback)
    }

    fn deadline(&mut self, at: Option<&At<Text>>) -> Option<f64> {
        let at = at?;
        let factor = at.value.0.trim().strip_suffix('x').and_then(|text| text.trim().parse::<f64>().ok());
        let good = factor.filter(|factor| (1.0..=1_000.0).contains(factor));
        if good.is_none() {
            self.sink.fault(&at.place, "is no multiple of the residence", "write \"4x\"; at least \"1x\"");
        }
        good
    }

    pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, at: &At<Text>) -> Option<T> {
        match at.value.0.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.sink.fault(&at.place, "cannot be read", error.to_string());
                None
            }
        }
    }
}
