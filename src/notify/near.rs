//! When a gate comes near its rollback limit: said once for each gate and stage, with hysteresis. Pure.
//!
//! A gate is near when its log evidence has reached 80 % of the bar at which it rolls back, or when the value itself
//! stands within 20 % of its margin or limit on enough answers and with some evidence (one early error of ten answers
//! is no news). It must stay near for ten seconds, and has left when everything is below 60 % again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::{Alert, Fact, Gate, Kind, Message, Severity};
use super::teller::Seen;
use crate::names::{Mono, RolloutName, VersionName, Wall};

/// How near is near: within 20 % of the limit.
const NEAR: f64 = 0.8;
/// Below that it has left.
const LEFT: f64 = 0.6;
/// The least answers on which a value counts.
const SAMPLES: u64 = 100;
/// The least part of the bar that the evidence must have for a value to count.
const SOME: f64 = 0.25;
/// For how long it must be near.
const STEADY: Duration = Duration::from_secs(10);

/// What is remembered of the gates.
#[derive(Debug, Default)]
pub struct Nearness {
    gates: BTreeMap<(String, String), Known>,
}

#[derive(Debug)]
struct Known {
    /// The entry of the stage that this is about.
    stage: String,
    /// Since when it is near.
    since: Option<Mono>,
    told: bool,
    left: bool,
}

/// How much of its way to a rollback a gate has gone: 1 is there.
#[must_use]
pub fn part(gate: &Gate) -> f64 {
    let [evidence, bar] = gate.evidence;
    let proof = if bar > 0.0 { (evidence / bar).max(0.0) } else { 0.0 };
    if gate.samples < SAMPLES || proof < SOME {
        return proof;
    }
    let of = |value: Option<f64>, limit: Option<f64>| match value.zip(limit) {
        Some((value, limit)) if limit != 0.0 => value / limit,
        _ => 0.0,
    };
    let difference = gate.canary.zip(gate.stable).map(|(canary, stable)| canary - stable);
    proof.max(of(difference, gate.rollback)).max(of(gate.canary, gate.limit.filter(|l| *l > 0.0)))
}

impl Nearness {
    /// Looks at a rollout's gates; what is to be told of them.
    pub fn look(&mut self, seen: &Seen, mono: Mono, wall: Wall) -> Vec<Message> {
        if !seen.serves {
            self.gates.retain(|(rollout, _), _| *rollout != seen.name);
            return Vec::new();
        }
        // A split without a plan has one stage, and no name for it.
        let (stage, entered) = match &seen.stage {
            Some((index, of, entered)) => (Some((*index, *of)), entered.as_str()),
            None => (None, ""),
        };
        let mut told = Vec::new();
        for gate in &seen.gates {
            let known = self.gates.entry((seen.name.clone(), gate.name.clone())).or_insert_with(|| Known::of(entered));
            if known.stage != entered {
                *known = Known::of(entered);
            }
            let part = part(gate);
            if part >= NEAR {
                let since = *known.since.get_or_insert(mono);
                if !known.told && mono.since(since) >= STEADY {
                    known.told = true;
                    told.push(near(seen, gate, part, (stage, entered), wall));
                }
            } else if part < LEFT {
                known.since = None;
                if known.told && !known.left {
                    known.left = true;
                    told.push(left(seen, gate, entered, wall));
                }
            } else if !known.told {
                // Between the two nothing begins, and what was told goes on.
                known.since = None;
            }
        }
        told
    }
}

impl Known {
    fn of(stage: &str) -> Self {
        Self { stage: stage.to_owned(), since: None, told: false, left: false }
    }
}

type Stage<'a> = (Option<(usize, usize)>, &'a str);

fn near(seen: &Seen, gate: &Gate, part: f64, (stage, entered): Stage<'_>, wall: Wall) -> Message {
    let text = format!(
        "{} of {} at {} % has come to {:.0} % of its rollback limit: {}",
        gate.name,
        seen.version.as_deref().unwrap_or("the canary"),
        seen.weight,
        part * 100.0,
        gate.sentence()
    );
    let title = format!("{}: {} nears its rollback limit", seen.name, gate.name);
    let mut message = about(seen, gate, format!("{entered}-near"), title, text, wall);
    message.severity = Severity::Warning;
    if let Some((index, of)) = stage {
        message.facts.insert(0, Fact::new("Stage", format!("{} of {of}", index + 1)));
    }
    message.gates = vec![gate.clone()];
    message.raises = Some(alert(seen, gate));
    message
}

fn left(seen: &Seen, gate: &Gate, entered: &str, wall: Wall) -> Message {
    let title = format!("{}: {} has left its rollback limit", seen.name, gate.name);
    let text = format!("{} is away from its rollback limit again: {}", gate.name, gate.sentence());
    let mut message = about(seen, gate, format!("{entered}-left"), title, text, wall);
    message.clears = vec![alert(seen, gate)];
    message
}

fn alert(seen: &Seen, gate: &Gate) -> Alert {
    Alert { key: format!("{}/limit/{}", seen.name, gate.name), page: false }
}

fn about(seen: &Seen, gate: &Gate, which: String, title: String, text: String, wall: Wall) -> Message {
    Message {
        id: format!("{}-limit-{}-{which}", seen.name, gate.name),
        at: wall,
        kind: Kind::Limit,
        severity: Severity::Info,
        rollout: Some(RolloutName::new(seen.name.as_str())),
        version: seen.version.as_deref().map(VersionName::new),
        title,
        text,
        actor: "judge".to_owned(),
        weight: Some(seen.weight),
        generation: None,
        facts: seen.contact.iter().map(|contact| Fact::new("Contact", contact.as_str())).collect(),
        gates: Vec::new(),
        raises: None,
        clears: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(stage: &str, evidence: f64, canary: f64, samples: u64) -> Seen {
        Seen {
            name: "chat".to_owned(),
            serves: true,
            weight: 5.0,
            stage: Some((1, 6, stage.to_owned())),
            gates: vec![Gate {
                name: "error_rate".to_owned(),
                unit: "ratio".to_owned(),
                stable: Some(0.01),
                canary: Some(canary),
                rollback: Some(0.005),
                evidence: [evidence, 8.0],
                samples,
                ..Gate::default()
            }],
            ..Seen::default()
        }
    }

    /// Looks each second; the seconds at which something was told, and what.
    fn told(looks: impl Iterator<Item = Seen>) -> Vec<(u64, String)> {
        let mut nearness = Nearness::default();
        let mut all = Vec::new();
        for (second, seen) in (0..).zip(looks) {
            let messages = nearness.look(&seen, Mono(second * 1_000_000_000), Wall(0));
            all.extend(messages.into_iter().map(|m| (second, m.id.rsplit('-').next().unwrap().to_owned())));
        }
        all
    }

    #[test]
    fn a_gate_that_nears_its_limit_is_said_once_a_stage() {
        let near = |stage: &str| seen(stage, 6.5, 0.0, 1_000);
        let far = |stage: &str| seen(stage, 1.0, 0.0, 1_000);
        let looks = (0..30).map(|_| near("a")).chain((0..5).map(|_| far("a"))).chain((0..30).map(|_| near("a")));
        assert_eq!(told(looks), [(10, "near".to_owned()), (30, "left".to_owned())], "never twice in one stage");
        let looks = (0..15).map(|_| near("a")).chain((0..15).map(|_| near("b")));
        assert_eq!(told(looks), [(10, "near".to_owned()), (25, "near".to_owned())], "but again in the next");
    }

    #[test]
    fn what_flickers_about_the_limit_is_not_said() {
        let looks = (0..60).map(|i| seen("a", if i % 5 == 0 { 6.3 } else { 6.5 }, 0.0, 1_000));
        assert!(told(looks).is_empty());
    }

    #[test]
    fn between_the_bounds_a_told_gate_has_not_left() {
        let looks = (0..15).map(|_| seen("a", 7.0, 0.0, 1_000)).chain((0..30).map(|_| seen("a", 5.0, 0.0, 1_000)));
        assert_eq!(told(looks), [(10, "near".to_owned())]);
    }

    #[test]
    fn a_value_counts_on_enough_answers_and_some_evidence_only() {
        let at = |evidence, canary, samples| part(&seen("a", evidence, canary, samples).gates[0]);
        assert!(at(2.1, 0.0141, 100) >= NEAR, "0.41 of 0.5 points");
        assert!(at(2.1, 0.0139, 100) < NEAR, "0.39 of 0.5 points");
        assert!(at(1.9, 0.0149, 100) < NEAR, "hardly any evidence");
        assert!(at(2.1, 0.5, 99) < NEAR, "too few answers");
        assert!(at(6.4, 0.0, 1) >= NEAR, "evidence speaks for itself");
    }

    #[test]
    fn without_canary_traffic_nothing_is_near() {
        let idle = || Seen { serves: false, ..seen("a", 7.9, 1.0, 1_000) };
        assert!(told((0..30).map(|_| idle())).is_empty());
    }
}
