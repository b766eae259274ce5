//! What is told when: a rollout's notices with everything that belongs to them, and the summaries. Pure.

use std::time::Duration;

use super::message::{Alert, Fact, Gate, Kind, Message, Severity};
use crate::names::{RolloutName, VersionName, Wall};
use crate::rollout::calendar::Hours;
use crate::rollout::{Approval, Decision, Notice, Phase, Plan, Record, Tidings};

/// A rollout as it is seen when something is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// The version under release.
    pub version: Option<String>,
    /// The version everybody had before.
    pub stable: String,
    /// The phase's word.
    pub phase: String,
    /// Where it stands and what it waits for.
    pub why: String,
    /// The desired weight, %.
    pub weight: f64,
    /// The rollout's generation.
    pub generation: u64,
    /// Whether the canary has traffic.
    pub serves: bool,
    /// The stage from 0, how many there are, and when it was entered (RFC 3339).
    pub stage: Option<(usize, usize, String)>,
    /// The gates' numbers.
    pub gates: Vec<Gate>,
    /// The plan, stage by stage, in words.
    pub timeline: Option<String>,
    /// What rolls it back, in words.
    pub criteria: Vec<String>,
    /// Whom to ask.
    pub contact: Option<String>,
    /// Distinct units and requests that the canary has served in this release.
    pub exposed: (u64, u64),
}

/// A plan in words: `1 % for 24h, one approval; 5 % for 24h, one approval; 100 % for 72h`.
#[must_use]
pub fn timeline(plan: &Plan) -> String {
    let stages = plan.stages.iter().enumerate().map(|(index, stage)| {
        let mut words = format!("{} for {}", plan.weight_of(index), span(plan.residence_of(index)));
        if !stage.cohorts.is_empty() {
            words.push_str(&format!(", with {}", stage.cohorts.join(" and ")));
        }
        match stage.approval {
            Approval::None => {}
            Approval::One => words.push_str(", one approval"),
            Approval::Two => words.push_str(", two approvals"),
        }
        words
    });
    stages.collect::<Vec<_>>().join("; ")
}

/// A span in its largest two units.
#[must_use]
pub fn span(of: Duration) -> String {
    let s = of.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 if s.is_multiple_of(60) => format!("{}m", s / 60),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        _ if s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        _ => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
    }
}

/// What is told of a notice; nothing of the heartbeat's, which [`super::pulse`] tells once for all rollouts.
#[must_use]
pub fn message(notice: &Notice, seen: Option<&Seen>) -> Option<Message> {
    let (kind, severity) = match notice.tidings {
        Tidings::Started => (Kind::Started, Severity::Info),
        Tidings::Stage | Tidings::Soaking => (Kind::Stage, Severity::Info),
        Tidings::Awaiting => (Kind::Approval, Severity::Info),
        Tidings::Paused => (Kind::Paused, Severity::Info),
        Tidings::Resumed => (Kind::Resumed, Severity::Info),
        Tidings::ByHand | Tidings::Version | Tidings::Gates => (Kind::Change, Severity::Warning),
        Tidings::Exposure => (Kind::Exposure, Severity::Warning),
        Tidings::Deadline => (Kind::Deadline, Severity::Warning),
        Tidings::Reminder => (Kind::Reminder, Severity::Warning),
        Tidings::Completed => (Kind::Completed, Severity::Info),
        Tidings::RolledBack => (Kind::Rollback, Severity::Error),
        Tidings::Aborted => (Kind::Aborted, Severity::Warning),
        Tidings::Cleared => (Kind::Cleared, Severity::Info),
        Tidings::Register => (Kind::Change, Severity::Info),
        Tidings::Drill => (Kind::Drill, Severity::Info),
        Tidings::Heartbeat => return None,
    };
    let name = notice.rollout.as_str();
    let alert = |what: &str, page: bool| Alert { key: format!("{name}/{what}"), page };
    let (raises, clears) = match kind {
        Kind::Rollback => (Some(alert("rollback", true)), vec!["deadline", "limit/"]),
        Kind::Aborted => (Some(alert("rollback", false)), vec!["deadline", "limit/"]),
        Kind::Deadline => (Some(alert("deadline", false)), Vec::new()),
        Kind::Started | Kind::Cleared | Kind::Completed => (None, vec!["rollback", "deadline", "limit/"]),
        Kind::Stage => (None, vec!["deadline", "limit/"]),
        Kind::Resumed | Kind::Change => (None, vec!["deadline"]),
        _ => (None, Vec::new()),
    };
    Some(Message {
        id: id(notice, kind),
        at: notice.at,
        kind,
        severity,
        rollout: Some(notice.rollout.clone()),
        version: notice.version.clone(),
        title: title(notice, kind),
        text: notice.text.clone(),
        actor: notice.actor.clone(),
        weight: Some(notice.weight.percent()),
        generation: Some(notice.generation),
        facts: seen.map(|seen| facts(notice, kind, seen)).unwrap_or_default(),
        gates: seen.map(|seen| gates(kind, seen)).unwrap_or_default(),
        raises,
        clears: clears.into_iter().map(|what| alert(what, false)).collect(),
    })
}

/// A change has a generation of its own; a reminder repeats one, and is told apart by its time.
fn id(notice: &Notice, kind: Kind) -> String {
    let base = format!("{}-{}-{}", notice.rollout, notice.generation, kind.as_str());
    if kind == Kind::Reminder { format!("{base}-{}", notice.at.0) } else { base }
}

fn title(notice: &Notice, kind: Kind) -> String {
    let name = &notice.rollout;
    let version = notice.version.as_ref().map_or("", VersionName::as_str);
    let weight = notice.weight;
    match kind {
        Kind::Started => format!("{name}: {version} starts at {weight}"),
        Kind::Stage => format!("{name}: {version} is at {weight}"),
        Kind::Approval => format!("{name}: {version} at {weight}: approval"),
        Kind::Paused => format!("{name}: {version} stands at {weight}"),
        Kind::Resumed => format!("{name}: {version} goes on at {weight}"),
        Kind::Deadline => format!("{name}: {version} stands at {weight}: a deadline has passed"),
        Kind::Reminder => format!("{name}: {version} still waits at {weight}"),
        Kind::Rollback => format!("P2 {name}: {version} was rolled back"),
        Kind::Aborted => format!("{name}: {version} was aborted by {}", notice.actor),
        Kind::Cleared => format!("{name}: the latch was lifted by {}", notice.actor),
        Kind::Completed => format!("{name}: {version} serves everybody"),
        Kind::Change => format!("{name}: changed by {}", notice.actor),
        Kind::Drill => format!("{name}: a drill"),
        Kind::Exposure => format!("{name}: the exposure budget of {version}, at {weight}"),
        Kind::Limit | Kind::Heartbeat | Kind::Summary => name.to_string(),
    }
}

fn facts(notice: &Notice, kind: Kind, seen: &Seen) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            facts.push(Fact::new(name, value));
        }
    };
    let stage = seen.stage.as_ref().map(|(index, of, _)| format!("{} of {of}", index + 1));
    let exposed = (seen.exposed.1 > 0).then(|| format!("{} users, {} requests", seen.exposed.0, seen.exposed.1));
    match kind {
        Kind::Started => {
            say("First weight", Some(notice.weight.to_string()));
            say("Stable", Some(seen.stable.clone()));
            say("Timeline", seen.timeline.clone());
            say("Rolled back by", Some(seen.criteria.join("; ")));
        }
        Kind::Rollback | Kind::Aborted => {
            say("Stage", stage);
            say("Everybody is on", Some(seen.stable.clone()));
            say("Canary was seen by", exposed);
            say("Next", Some("find the root cause, then lift the latch: serin clear".to_owned()));
        }
        Kind::Approval => {
            say("Stage", stage);
            say("Waits for", Some(seen.why.clone()));
            say("Next", Some("serin approve, or serin abort".to_owned()));
        }
        Kind::Deadline | Kind::Reminder => {
            say("Stage", stage);
            say("Next", Some("serin resume, step-back or abort".to_owned()));
        }
        Kind::Completed => {
            say("Canary was seen by", exposed);
            say("Next", Some("make it the stable version in the configuration; serin abort reverts".to_owned()));
        }
        _ => say("Stage", stage),
    }
    say("Contact", seen.contact.clone());
    facts
}

fn gates(kind: Kind, seen: &Seen) -> Vec<Gate> {
    match kind {
        Kind::Stage | Kind::Approval | Kind::Deadline | Kind::Rollback | Kind::Aborted | Kind::Completed => {
            seen.gates.iter().filter(|gate| gate.result != "unarmed").cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// The notice of a record that was made but, because of a crash, perhaps never told.
#[must_use]
pub fn of_record(record: &Record) -> Notice {
    let tidings = match record.decision {
        Decision::Promote if record.to == Phase::Completed => Tidings::Completed,
        Decision::StepBack if record.to == Phase::Paused => Tidings::Paused,
        Decision::Start => Tidings::Started,
        Decision::Advance | Decision::Promote | Decision::StepBack | Decision::Extend => Tidings::Stage,
        Decision::Await | Decision::Approve | Decision::Void => Tidings::Awaiting,
        Decision::Pause => Tidings::Paused,
        Decision::Deadline => Tidings::Deadline,
        Decision::Resume => Tidings::Resumed,
        Decision::SetWeight => Tidings::ByHand,
        Decision::Rollback => Tidings::RolledBack,
        Decision::Abort => Tidings::Aborted,
        Decision::Clear => Tidings::Cleared,
        Decision::Complete => Tidings::Completed,
        Decision::Swap | Decision::Adopt | Decision::Queue | Decision::Remove => Tidings::Version,
        Decision::Gates => Tidings::Gates,
        Decision::Register => Tidings::Register,
        Decision::Freeze | Decision::Thaw => Tidings::Heartbeat,
        Decision::Drill => Tidings::Drill,
        Decision::Exposure => Tidings::Exposure,
    };
    let version = record.version.as_ref().map_or("no version", VersionName::as_str);
    let why = if record.reason.is_empty() { "no reason given" } else { record.reason.as_str() };
    let text = format!("{version} at {}, by {} (told after a restart): {why}", record.weight, record.actor);
    Notice {
        at: record.at,
        rollout: record.rollout.clone(),
        version: record.version.clone(),
        tidings,
        text,
        actor: record.actor.clone(),
        weight: record.weight,
        generation: record.generation,
    }
}

/// Whether a summary is due: within the hours, and `every` after the last one (or the start).
#[must_use]
pub fn summary_due(now: Wall, last: Wall, every: Duration, hours: &Hours) -> bool {
    let passed = now.0.saturating_sub(last.0);
    let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    // A clock set back leaves the last summary in the future: then it is told by the next whole span.
    (passed >= every || passed < -every) && hours.open(now)
}

/// How every rollout that has somebody on its canary, or waits for somebody, stands; none where all is quiet.
#[must_use]
pub fn summary(target: &str, all: &[Seen], now: Wall) -> Option<Message> {
    let busy: Vec<&Seen> = all.iter().filter(|seen| seen.phase != "idle").collect();
    if busy.is_empty() {
        return None;
    }
    let facts = busy.iter().map(|seen| {
        let version = seen.version.as_deref().unwrap_or("no version");
        Fact::new(&seen.name, format!("{version}, {}: {}", seen.phase, seen.why))
    });
    let count = busy.len();
    Some(Message {
        id: format!("summary-{target}-{}", now.0),
        at: now,
        kind: Kind::Summary,
        severity: Severity::Info,
        rollout: None,
        version: None,
        title: format!("{count} rollout{} under way", if count == 1 { "" } else { "s" }),
        text: busy.iter().map(|seen| format!("{}: {} %", seen.name, seen.weight)).collect::<Vec<_>>().join(", "),
        actor: "serin".to_owned(),
        weight: None,
        generation: None,
        facts: facts.collect(),
        gates: Vec::new(),
        raises: None,
        clears: Vec::new(),
    })
}

/// The rollout that a message is about, as text.
#[must_use]
pub fn subject(message: &Message) -> &str {
    message.rollout.as_ref().map_or("serin", RolloutName::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Weight;

    fn notice(tidings: Tidings) -> Notice {
        Notice {
            at: Wall(1_000),
            rollout: RolloutName::new("chat"),
            version: Some(VersionName::new("b")),
            tidings,
            text: "b did something".to_owned(),
            actor: "alice".to_owned(),
            weight: Weight::from_percent(5.0).unwrap(),
            generation: 7,
        }
    }

    #[test]
    fn every_change_is_told_under_an_id_of_its_own_generation_and_the_heartbeat_by_others() {
        use Tidings as T;
        for (tidings, id, severity) in [
            (T::Started, "chat-7-started", Severity::Info),
            (T::Stage, "chat-7-stage", Severity::Info),
            (T::Soaking, "chat-7-stage", Severity::Info),
            (T::Awaiting, "chat-7-approval", Severity::Info),
            (T::Paused, "chat-7-paused", Severity::Info),
            (T::Resumed, "chat-7-resumed", Severity::Info),
            (T::ByHand, "chat-7-change", Severity::Warning),
            (T::Deadline, "chat-7-deadline", Severity::Warning),
            (T::Reminder, "chat-7-reminder-1000", Severity::Warning),
            (T::Completed, "chat-7-completed", Severity::Info),
            (T::RolledBack, "chat-7-rollback", Severity::Error),
            (T::Aborted, "chat-7-aborted", Severity::Warning),
            (T::Cleared, "chat-7-cleared", Severity::Info),
            (T::Version, "chat-7-change", Severity::Warning),
            (T::Gates, "chat-7-change", Severity::Warning),
            (T::Drill, "chat-7-drill", Severity::Info),
        ] {
            let told = message(&notice(tidings), None).unwrap();
            assert_eq!((told.id.as_str(), told.severity), (id, severity), "{tidings:?}");
            assert!(told.title.contains("chat"), "{}", told.title);
        }
        assert_eq!(message(&notice(T::Heartbeat), None), None);
    }

    #[test]
    fn a_rollback_is_an_incident_with_the_numbers_and_what_to_do() {
        let gate =
            |name: &str, result: &str| Gate { name: name.to_owned(), result: result.to_owned(), ..Gate::default() };
        let seen = Seen {
            stable: "a".to_owned(),
            stage: Some((1, 6, "2026-11-20T14:00:00Z".to_owned())),
            gates: vec![gate("error_rate", "fail"), gate("quality_mean", "unarmed")],
            contact: Some("release@example.com".to_owned()),
            exposed: (12, 345),
            ..Seen::default()
        };
        let told = message(&notice(Tidings::RolledBack), Some(&seen)).unwrap();
        let facts: Vec<_> = told.facts.iter().map(|f| (f.name.as_str(), f.value.as_str())).collect();
        assert_eq!(
            facts,
            [
                ("Stage", "2 of 6"),
                ("Everybody is on", "a"),
                ("Canary was seen by", "12 users, 345 requests"),
                ("Next", "find the root cause, then lift the latch: serin clear"),
                ("Contact", "release@example.com"),
            ]
        );
        assert_eq!(told.gates.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["error_rate"]);
        assert_eq!(told.raises, Some(Alert { key: "chat/rollback".to_owned(), page: true }));
    }

    #[test]
    fn a_plan_is_told_stage_by_stage() {
        let plan = Plan::preset("ai_gateway").unwrap();
        assert_eq!(timeline(&plan), "1 % for 4h; 10 % for 24h; 50 % for 48h, one approval; 99 % for 72h");
    }

    #[test]
    fn summaries_keep_to_hours_and_to_their_span_whatever_the_clock_does() {
        let hours: Hours = "Mon-Fri 09:00-17:00".parse().unwrap();
        let four = Duration::from_secs(4 * 3_600);
        // 2026-11-20 is a Friday.
        let at = |day: i64, hour: i64| Wall(1_795_132_800_000 + (day - 20) * 86_400_000 + hour * 3_600_000);
        let due = |now, last| summary_due(now, last, four, &hours);
        assert!(due(at(20, 13), at(20, 9)));
        assert!(!due(at(20, 12), at(20, 9)), "too soon");
        assert!(!due(at(20, 17), at(20, 13)), "after hours");
        assert!(!due(at(21, 10), at(20, 13)), "Saturday");
        assert!(due(at(23, 9), at(20, 13)), "Monday");
        assert!(!due(at(20, 10), at(20, 13)), "a clock set back by three hours");
        assert!(due(at(20, 10), at(21, 13)), "a clock set back by a day");
    }
}
