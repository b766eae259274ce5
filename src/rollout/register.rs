//! The register: what is known of a version before it is released, frozen with the gates when its rollout starts.
//!
//! Proof is about the thing that was measured. A version whose digest is another than at the start is another thing
//! under the same name: nothing rises then, until the file has the old digest again or an owner takes the new one in,
//! which begins the evidence anew. Falling is never held up.

use serde::{Deserialize, Serialize};

use crate::judge::show::{difference, number, value};
use crate::judge::{Margin, On, Policy, Rule, Stat};
use crate::names::VersionName;
use crate::rollout::state::{State, Terms};

/// The entry of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The version.
    pub version: VersionName,
    /// What it is made of: `sha256:` and so on, with the hexadecimal digits behind it.
    pub digest: String,
    /// How far it is from the version before it.
    pub kind: ReleaseKind,
    /// How much harm it could do; picks the preset where the plan names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<RiskClass>,
    /// Who answers for it.
    pub owner: String,
    /// Whom to reach about it.
    #[serde(default)]
    pub contacts: Vec<String>,
    /// Where the results of its trials in the shadow of stable are to be found.
    #[serde(default)]
    pub shadow_evidence: Vec<String>,
    /// The gates' margins in words; the gates themselves are frozen by their hash.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
}

/// How far a version is from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseKind {
    /// Another model, or another behaviour.
    Major,
    /// The same with more, or tuned.
    Minor,
    /// A correction.
    Patch,
}

impl ReleaseKind {
    /// All kinds, the largest first.
    pub const ALL: [ReleaseKind; 3] = [ReleaseKind::Major, ReleaseKind::Minor, ReleaseKind::Patch];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ReleaseKind::Major => "major",
            ReleaseKind::Minor => "minor",
            ReleaseKind::Patch => "patch",
        }
    }
}

/// How much harm a version could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RiskClass {
    /// Little, and soon mended.
    Low,
    /// What most releases could do.
    Medium,
    /// To health, money or rights.
    High,
}

impl RiskClass {
    /// All classes, the lowest first.
    pub const ALL: [RiskClass; 3] = [RiskClass::Low, RiskClass::Medium, RiskClass::High];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RiskClass::Low => "low",
            RiskClass::Medium => "medium",
            RiskClass::High => "high",
        }
    }

    /// The preset that it picks.
    #[must_use]
    pub const fn preset(self) -> &'static str {
        match self {
            RiskClass::Low => "accelerated",
            RiskClass::Medium => "standard",
            RiskClass::High => "conservative",
        }
    }
}

/// A gate's margins in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// The gate.
    pub gate: String,
    /// Surely fine up to here.
    pub promote: String,
    /// Surely bad from here on.
    pub rollback: String,
    /// The canary's own bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What a fail does.
    pub on: On,
}

impl Threshold {
    /// Those of a policy, in its order.
    #[must_use]
    pub fn of(policy: &Policy) -> Vec<Threshold> {
        policy.rules.iter().map(Self::of_rule).collect()
    }

    fn of_rule(rule: &Rule) -> Threshold {
        let unit = rule.metric.unit();
        let margin = |margin: Margin| match (rule.stat, margin) {
            (Stat::Zero, _) => "any".to_owned(),
            (_, Margin::Absolute(by)) => difference(unit, by),
            (_, Margin::Relative(ratio)) => {
                let by = (ratio - 1.0) * 100.0;
                format!("{}{} %", if by >= 0.0 { "+" } else { "" }, number(by))
            }
        };
        Threshold {
            gate: rule.name.to_string(),
            promote: margin(rule.promote),
            rollback: margin(rule.rollback),
            limit: rule.limit.map(|limit| value(unit, limit)),
            on: rule.on,
        }
    }
}

impl Registration {
    /// The keys in which two entries differ, in the order in which they are written.
    #[must_use]
    pub fn differences(&self, other: &Registration) -> Vec<&'static str> {
        [
            ("version", self.version == other.version),
            ("digest", self.digest == other.digest),
            ("kind", self.kind == other.kind),
            ("risk", self.risk == other.risk),
            ("owner", self.owner == other.owner),
            ("contacts", self.contacts == other.contacts),
            ("shadow_evidence", self.shadow_evidence == other.shadow_evidence),
            ("thresholds", self.thresholds == other.thresholds),
        ]
        .into_iter()
        .filter_map(|(key, same)| (!same).then_some(key))
        .collect()
    }
}

/// The file's entry of the version under release; one of another version is not about it.
#[must_use]
pub fn of_file<'a>(state: &State, terms: &'a Terms) -> Option<&'a std::sync::Arc<Registration>> {
    terms.register.as_ref().filter(|entry| state.version.as_ref() == Some(&entry.version))
}

/// Whether the version under release is still what was registered at the start; else why nothing may rise.
///
/// # Errors
/// A sentence with both digests and what can be done.
pub fn unchanged(state: &State, terms: &Terms) -> Result<(), String> {
    match (&state.register, of_file(state, terms)) {
        (Some(frozen), Some(file)) if frozen.digest != file.digest => Err(format!(
            "{} was registered as {} when its rollout started, and the file says {}: what was proven is about the \
             first. Put it back, give the other a version name of its own, or let an owner take it in (gates)",
            frozen.version, frozen.digest, file.digest
        )),
        (Some(frozen), None) if state.version == terms.canary => Err(format!(
            "{} was registered as {} when its rollout started, and the file has no entry of it any more: put it back, \
             or let an owner go on without (gates)",
            frozen.version, frozen.digest
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Plan;

    #[test]
    fn every_risk_class_picks_a_preset_that_there_is_and_higher_ones_ask_more() {
        let plans = RiskClass::ALL.map(|risk| Plan::preset(risk.preset()).unwrap());
        let asked = plans.each_ref().map(|plan| {
            let time: u64 = plan.stages.iter().map(|stage| stage.residence.as_secs()).sum();
            let signed: usize = plan.stages.iter().map(|stage| stage.approval.needed()).sum();
            (time, signed)
        });
        assert!(asked[0] < asked[1] && asked[1] < asked[2], "{asked:?}");
    }

    #[test]
    fn thresholds_are_the_gates_margins_in_words() {
        let words = Threshold::of(&Policy::default());
        let find = |gate: &str| words.iter().find(|t| t.gate == gate).unwrap_or_else(|| panic!("{gate}: {words:?}"));
        assert_eq!((find("error_rate").rollback.as_str(), find("error_rate").promote.as_str()), ("+0.5 pp", "+0.1 pp"));
        assert_eq!(find("latency_p99").rollback, "+50 %");
        assert_eq!(find("quality_mean").rollback, "-10 %");
        assert_eq!(find("safety_violations").rollback, "any");
    }

    #[test]
    fn differences_name_the_keys() {
        let entry = Registration {
            version: VersionName::new("b"),
            digest: "sha256:00".to_owned(),
            kind: ReleaseKind::Minor,
            risk: None,
            owner: "team".to_owned(),
            contacts: Vec::new(),
            shadow_evidence: Vec::new(),
            thresholds: Vec::new(),
        };
        assert!(entry.differences(&entry).is_empty());
        let other = Registration { digest: "sha256:01".to_owned(), owner: "other".to_owned(), ..entry.clone() };
        assert_eq!(entry.differences(&other), ["digest", "owner"]);
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Registration>(&text).unwrap(), entry);
    }
}
