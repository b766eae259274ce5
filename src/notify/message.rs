//! A notice as it is told: what happened, how grave it is, and the facts that a tired person needs.

use serde::{Deserialize, Serialize};

use crate::names::{RolloutName, VersionName, Wall};

/// One notice. Its id is made of what it tells, so that telling it again after a crash is seen to be the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The same for every attempt, every receiver and every restart.
    pub id: String,
    /// When it happened.
    pub at: Wall,
    /// What kind of news.
    pub kind: Kind,
    /// How grave.
    pub severity: Severity,
    /// Which rollout; none where it is about serin itself.
    pub rollout: Option<RolloutName>,
    /// The version under release.
    pub version: Option<VersionName>,
    /// One line.
    pub title: String,
    /// One sentence that stands alone.
    pub text: String,
    /// Who or what caused it.
    pub actor: String,
    /// The canary's weight after it, %.
    pub weight: Option<f64>,
    /// The rollout's generation after it.
    pub generation: Option<u64>,
    /// What else should be known, in the order in which it is shown.
    pub facts: Vec<Fact>,
    /// The gates with their numbers.
    pub gates: Vec<Gate>,
    /// The alert that it raises.
    pub raises: Option<Alert>,
    /// The alerts that it ends: beginnings of keys until the outbox has settled them, whole alerts afterwards.
    pub clears: Vec<Alert>,
}

/// A named fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// What is said of it.
    pub value: String,
}

impl Fact {
    /// A fact.
    #[must_use]
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }
}

/// A state that lasts: raised by one notice, ended by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alert {
    /// What is wrong, in words that stay the same: `chat/rollback`, `chat/limit/error_rate`, `heartbeat`.
    pub key: String,
    /// Whether somebody is to be woken.
    pub page: bool,
}

/// What kind of news. The words are those of `notify.NAME.events` and of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A rollout began.
    Started,
    /// A stage was entered, the last one too.
    Stage,
    /// A signature is wanted, was given, or is void.
    Approval,
    /// It stands, by a person.
    Paused,
    /// It goes on.
    Resumed,
    /// It stands, because a deadline passed.
    Deadline,
    /// A wait goes on for long.
    Reminder,
    /// A gate comes near its rollback limit, or has left it.
    Limit,
    /// Rolled back by a gate or the breaker.
    Rollback,
    /// Rolled back by a person, a trigger, or the configuration.
    Aborted,
    /// The latch was lifted.
    Cleared,
    /// All is on the canary.
    Completed,
    /// A weight, version or gate set was changed by hand or by the file.
    Change,
    /// The judge fell silent, or is back.
    Heartbeat,
    /// A drill ended.
    Drill,
    /// The exposure budget is spent, or has room again.
    Exposure,
    /// How everything stands.
    Summary,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 17] = [
        Kind::Started,
        Kind::Stage,
        Kind::Approval,
        Kind::Paused,
        Kind::Resumed,
        Kind::Deadline,
        Kind::Reminder,
        Kind::Limit,
        Kind::Rollback,
        Kind::Aborted,
        Kind::Cleared,
        Kind::Completed,
        Kind::Change,
        Kind::Heartbeat,
        Kind::Drill,
        Kind::Exposure,
        Kind::Summary,
    ];

    /// The word in configuration, metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Started => "started",
            Kind::Stage => "stage",
            Kind::Approval => "approval",
            Kind::Paused => "paused",
            Kind::Resumed => "resumed",
            Kind::Deadline => "deadline",
            Kind::Reminder => "reminder",
            Kind::Limit => "limit",
            Kind::Rollback => "rollback",
            Kind::Aborted => "aborted",
            Kind::Cleared => "cleared",
            Kind::Completed => "completed",
            Kind::Change => "change",
            Kind::Heartbeat => "heartbeat",
            Kind::Drill => "drill",
            Kind::Exposure => "exposure",
            Kind::Summary => "summary",
        }
    }

    /// What is given up first when an outbox is full: the lowest. [`Kind::KEPT`] is never given up for others.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Kind::Summary => 0,
            Kind::Reminder | Kind::Drill | Kind::Limit => 1,
            Kind::Rollback | Kind::Aborted => Self::KEPT,
            _ => 2,
        }
    }

    /// The rank of what is never dropped to make room.
    pub const KEPT: u8 = 3;
}

/// How grave a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody should look today.
    Warning,
    /// An incident of priority 2: users were protected, the release is off.
    Error,
    /// Wake somebody: serin itself cannot protect as it should.
    Critical,
}

impl Severity {
    /// The word, which is PagerDuty's too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }
}

/// A gate's numbers, as they are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The gate's name.
    pub name: String,
    /// Unit of the values: ratio, ms, tokens, usd, score, count or value.
    pub unit: String,
    /// pass, fail, inconclusive or unarmed.
    pub result: String,
    /// The comparator's value.
    pub stable: Option<f64>,
    /// The canary's value.
    pub canary: Option<f64>,
    /// The rollback margin, as a difference.
    pub rollback: Option<f64>,
    /// The absolute bound for the canary alone.
    pub limit: Option<f64>,
    /// Log evidence for worse, and the bar at which it rolls back.
    pub evidence: [f64; 2],
    /// Canary values.
    pub samples: u64,
}

impl Gate {
    /// `canary 2.1 % · stable 0.3 % · rolls back beyond +0.5 pp`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut parts = vec![self.result.clone()];
        let mut say = |name: &str, value: Option<f64>, signed: bool| {
            if let Some(value) = value {
                parts.push(format!("{name} {}", self.shown(value, signed)));
            }
        };
        say("canary", self.canary, false);
        say("stable", self.stable, false);
        say("rolls back beyond", self.rollback, true);
        say("limit", self.limit, false);
        parts.push(format!("{} samples", self.samples));
        parts.join(" · ")
    }

    fn shown(&self, value: f64, signed: bool) -> String {
        let sign = if signed && value > 0.0 { "+" } else { "" };
        match (self.unit.as_str(), signed) {
            ("ratio", false) => format!("{:.2} %", value * 100.0),
            ("ratio", true) => format!("{sign}{:.2} pp", value * 100.0),
            ("count", _) => format!("{sign}{value:.0}"),
            ("value" | "score", _) => format!("{sign}{value:.3}"),
            (unit, _) => format!("{sign}{value:.1} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_word_that_serde_writes_and_a_receiver_can_ask_for() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
            assert!(crate::config::NOTICE_KINDS.contains(&kind.as_str()), "{kind:?}");
        }
        assert_eq!(Kind::ALL.len(), crate::config::NOTICE_KINDS.len());
    }

    #[test]
    fn a_gate_is_told_in_its_own_unit() {
        let gate = Gate {
            name: "error_rate".to_owned(),
            unit: "ratio".to_owned(),
            result: "fail".to_owned(),
            stable: Some(0.003),
            canary: Some(0.021),
            rollback: Some(0.005),
            samples: 5_120,
            ..Gate::default()
        };
        assert_eq!(gate.sentence(), "fail · canary 2.10 % · stable 0.30 % · rolls back beyond +0.50 pp · 5120 samples");
    }
}
