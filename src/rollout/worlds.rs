//! The worlds in which the machine's laws are checked: plans with signatures, cohorts, groups, calendars, drills, gates of
//! others and a register; and every event that there is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::testing::{percent, terms};
use super::*;
use crate::judge::{Lack, Missing, Verdict};
use crate::names::{RolloutName, VersionName, Wall};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// Tuesday 2023-11-14, 22:13:20 UTC.
pub(super) const TUESDAY_NIGHT: Wall = Wall(1_700_000_000_000);

pub(super) fn stage(weight: f64, approval: Approval, cohorts: &[&str]) -> Stage {
    Stage {
        weight: percent(weight),
        residence: HOUR,
        samples: 5,
        approval,
        cohorts: cohorts.iter().map(|c| (*c).to_owned()).collect(),
    }
}

pub(super) fn plan(stages: Vec<Stage>, second_version: SecondVersion, holdback: f64) -> Plan {
    Plan {
        stages: stages.into_iter().chain([Stage::last()]).collect(),
        second_version,
        holdback: percent(holdback),
        soak: HOUR,
        deadline_factor: 1.0,
        ..Plan::default()
    }
}

/// What a rollout lives under.
pub(super) struct World {
    pub name: &'static str,
    /// The file's word.
    pub terms: Terms,
    /// What the file may say instead while it runs.
    pub edits: Vec<Terms>,
    /// When events come, in the exhaustive check, and whether the calendar lets anything rise then.
    pub walls: Vec<(Wall, bool)>,
}

impl World {
    /// Whether it is about what else lets a weight rise; stages and weights by hand are the other worlds' matter.
    fn is_about_others(&self) -> bool {
        ["calendar", "drills", "confirm", "register"].contains(&self.name)
    }

    fn new(name: &'static str, plan: Option<Plan>) -> Self {
        Self { name, terms: terms(plan), edits: Vec::new(), walls: vec![(TUESDAY_NIGHT, true)] }
    }

    /// Whether the exhaustive check asks this here: what a world is not about would only multiply its states. The random
    /// walk asks everything everywhere.
    pub(super) fn asks(&self, event: &Event, extended: bool) -> bool {
        match event {
            Event::Command { verb: Verb::Extend { .. }, .. } => self.name == "only the last stage" && !extended,
            // Who starts it is kept, and an owner is a starter of his own.
            Event::Command { verb: Verb::Start, actor, .. } if actor.name == "olga" => {
                self.name == "only the last stage"
            }
            Event::Command { verb: Verb::Gates, .. } => ["only the last stage", "register"].contains(&self.name),
            Event::Command { verb: Verb::Register, .. } => self.name == "register",
            Event::Command { verb: Verb::SetWeight(weight), .. } => {
                !self.is_about_others() || *weight == percent(7.0) && self.name != "confirm"
            }
            Event::Exposure { .. } => ["only the last stage", "plain"].contains(&self.name),
            Event::Drilled { .. } => self.name == "drills",
            Event::Confirmed { .. } => self.name == "confirm",
            _ => true,
        }
    }
}

fn entry(digest: &str) -> Arc<Registration> {
    Arc::new(Registration {
        version: VersionName::new("b"),
        digest: format!("sha256:{digest}"),
        kind: ReleaseKind::Minor,
        risk: None,
        owner: "team".to_owned(),
        contacts: Vec::new(),
        shadow_evidence: Vec::new(),
        thresholds: Vec::new(),
    })
}

pub(super) fn worlds() -> Vec<World> {
    use Approval::{None as N, One, Two};
    let signed =
        plan(vec![stage(1.0, N, &[]), stage(5.0, One, &[]), stage(10.0, Two, &[])], SecondVersion::Supersede, 1.0);
    let cohorts =
        plan(vec![stage(0.0, One, &["in"]), stage(0.0, N, &["beta"]), stage(5.0, N, &[])], SecondVersion::Queue, 0.0);
    let mut own = plan(vec![stage(1.0, Two, &[])], SecondVersion::Reject, 1.0);
    own.start = Start::OnNewVersion;
    let mut group = plan(vec![stage(1.0, One, &[]), stage(5.0, N, &[])], SecondVersion::Reject, 1.0);
    group.lockstep = Some("pair".to_owned());
    let only_last = plan(vec![], SecondVersion::Supersede, 1.0);
    vec![
        World::new("signed", Some(signed)),
        World::new("cohorts", Some(cohorts)),
        World::new("own", Some(own)),
        World::new("lockstep", Some(group)),
        World::new("only the last stage", Some(only_last)),
        World::new("plain", None),
        calendar(),
        drills(),
        confirm(),
        register(),
    ]
}

/// Business hours, a day that is frozen, and a time before which nothing rises.
fn calendar() -> World {
    let mut plan = plan(vec![stage(1.0, Approval::None, &[])], SecondVersion::Supersede, 1.0);
    plan.hours = Some("Mon-Fri 09:00-17:00".parse().unwrap());
    plan.freezes = vec!["2023-11-16".parse().unwrap()];
    plan.not_before = Some("2023-11-14T00:00:00Z".parse().unwrap());
    let day = 86_400_000;
    // 22:13 on Tuesday is closed; 10:13 of the days around it is another matter.
    let morning = Wall(TUESDAY_NIGHT.0 - 12 * 3_600_000);
    World {
        walls: vec![
            (morning, true),
            (TUESDAY_NIGHT, false),
            (Wall(morning.0 + 2 * day), false),
            (Wall(morning.0 - day), false),
        ],
        ..World::new("calendar", Some(plan))
    }
}

/// A rehearsal every two hours; three hours later it is overdue.
fn drills() -> World {
    let mut world = World::new("drills", Some(plan(vec![stage(1.0, Approval::None, &[])], SecondVersion::Queue, 1.0)));
    world.terms.drill_every = Some(HOUR * 2);
    world.walls.push((Wall(TUESDAY_NIGHT.0 + 3 * 3_600_000), true));
    world
}

/// Somebody else is asked before every rise, and may ask for a fall.
fn confirm() -> World {
    let mut world =
        World::new("confirm", Some(plan(vec![stage(1.0, Approval::None, &[])], SecondVersion::Supersede, 1.0)));
    let gate = |hook: Hook| ConfirmGate { name: hook.as_str().to_owned(), hook, valid: Duration::from_secs(60) };
    world.terms.confirm = Hook::ALL.into_iter().filter(|hook| *hook != Hook::Event).map(gate).collect();
    world
}

/// What is released is registered, and the file may come to say something else.
fn register() -> World {
    let plan = plan(vec![stage(1.0, Approval::None, &[])], SecondVersion::Reject, 1.0);
    let mut world = World::new("register", Some(plan));
    world.terms.register = Some(entry("01"));
    for register in [Some(entry("02")), None] {
        world.edits.push(Terms { register, ..world.terms.clone() });
    }
    world
}

fn actor(name: &str) -> Actor {
    let roles: &[Role] = match name {
        "alice" => &[Role::Operator, Role::Approver],
        "bob" | "carol" => &[Role::Approver],
        "olga" => &[Role::Owner],
        _ => &[Role::Viewer],
    };
    Actor::new(name, roles)
}

pub(super) fn by(name: &str, verb: Verb) -> Event {
    Event::Command { verb, actor: actor(name), reason: "because".to_owned() }
}

pub(super) fn advance() -> Event {
    Event::Judged(Verdict::Advance { reason: "proven".to_owned() })
}

pub(super) fn hold() -> Event {
    let missing = vec![Missing { rule: None, lack: Lack::Data }];
    Event::Judged(Verdict::Hold { missing, reason: "no data".to_owned() })
}

pub(super) fn worse() -> Event {
    Event::Judged(Verdict::Rollback { rule: "errors".to_owned(), reason: "9 of 10".to_owned() })
}

pub(super) fn less() -> Event {
    Event::Judged(Verdict::StepBack { rule: "cost".to_owned(), reason: "twice as dear".to_owned() })
}

fn confirmed(hook: Hook, generation: u64, yes: bool) -> Event {
    let answer = if yes { Ok(()) } else { Err("not yet".to_owned()) };
    Event::Confirmed { gate: hook.as_str().to_owned(), version: VersionName::new("b"), generation, answer }
}

/// Everything that may happen. States of the exhaustive check are at generation 0, so an answer about another is late.
pub(super) fn events() -> Vec<Event> {
    let spent = || Some(("max_users".to_owned(), "1,000 of 1,000 users".to_owned()));
    let mut all = vec![
        Event::Tick,
        advance(),
        hold(),
        less(),
        worse(),
        Event::Tripped { reason: "8 in a row".to_owned() },
        Event::HeartbeatLost,
        Event::HeartbeatFound,
        Event::Exposure { spent: spent(), stops: false },
        Event::Exposure { spent: spent(), stops: true },
        Event::Exposure { spent: None, stops: false },
        Event::NewVersion(VersionName::new("b")),
        Event::NewVersion(VersionName::new("c")),
        Event::CanaryRemoved,
        Event::PromotedInConfig,
        Event::Drilled { took: Duration::from_micros(80), failed: None },
        Event::Drilled { took: Duration::from_secs(15), failed: Some("no worker answered".to_owned()) },
        confirmed(Hook::ConfirmRollout, 0, true),
        confirmed(Hook::ConfirmPromotion, 0, true),
        confirmed(Hook::ConfirmPromotion, 0, false),
        confirmed(Hook::ConfirmPromotion, 7, true),
        confirmed(Hook::Rollback, 7, true),
        Event::Barrier,
        Event::GroupFell { which: RolloutName::new("other"), reason: "9 of 10".to_owned() },
        by("alice", Verb::Start),
        by("bob", Verb::Start),
        by("olga", Verb::Start),
        by("alice", Verb::Approve),
        by("bob", Verb::Approve),
        by("carol", Verb::Approve),
        by("alice", Verb::Promote { full: false }),
        by("alice", Verb::Promote { full: true }),
        by("olga", Verb::Promote { full: true }),
        by("alice", Verb::Pause),
        by("alice", Verb::Resume),
        by("alice", Verb::StepBack),
        by("alice", Verb::Extend { by: HOUR }),
        by("alice", Verb::Abort),
        by("bob", Verb::Clear),
        by("olga", Verb::Clear),
        by("alice", Verb::Drill),
        by("olga", Verb::Gates),
        by("alice", Verb::Register),
        by("victor", Verb::Abort),
    ];
    for weight in [0.0, 0.5, 7.0, 100.0] {
        all.push(by("alice", Verb::SetWeight(percent(weight))));
        all.push(by("olga", Verb::SetWeight(percent(weight))));
    }
    all
}

/// The kinds that [`kind`] tells apart; all of them are among [`events`].
const KINDS: [&str; 30] = [
    "advance",
    "hold",
    "less",
    "rollback",
    "tripped",
    "tick",
    "lost",
    "found",
    "exposure",
    "version",
    "removed",
    "promoted",
    "drilled",
    "confirmed",
    "barrier",
    "fell",
    "start",
    "approve",
    "promote",
    "pause",
    "resume",
    "step-back",
    "extend",
    "abort",
    "clear",
    "drill",
    "set weight",
    "gates",
    "register",
    "promote full",
];

/// No wildcard: whoever adds an event, a verdict or a verb is led here, and from here to [`KINDS`] and [`events`].
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Command { verb, .. } => match verb {
            Verb::Start => "start",
            Verb::Approve => "approve",
            Verb::Promote { full: false } => "promote",
            Verb::Promote { full: true } => "promote full",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::StepBack => "step-back",
            Verb::Extend { by: _ } => "extend",
            Verb::Abort => "abort",
            Verb::Clear => "clear",
            Verb::Drill => "drill",
            Verb::SetWeight(_) => "set weight",
            Verb::Gates => "gates",
            Verb::Register => "register",
        },
        Event::Judged(Verdict::Advance { .. }) => "advance",
        Event::Judged(Verdict::Hold { .. }) => "hold",
        Event::Judged(Verdict::StepBack { .. }) => "less",
        Event::Judged(Verdict::Rollback { .. }) => "rollback",
        Event::Tripped { .. } => "tripped",
        Event::Tick => "tick",
        Event::HeartbeatLost => "lost",
        Event::HeartbeatFound => "found",
        Event::Exposure { .. } => "exposure",
        Event::NewVersion(_) => "version",
        Event::CanaryRemoved => "removed",
        Event::PromotedInConfig => "promoted",
        Event::Drilled { .. } => "drilled",
        Event::Confirmed { .. } => "confirmed",
        Event::Barrier => "barrier",
        Event::GroupFell { .. } => "fell",
    }
}

#[test]
fn no_event_verdict_or_verb_is_missing_from_the_laws() {
    let all: BTreeSet<&str> = events().iter().map(kind).collect();
    assert_eq!(all, KINDS.into_iter().collect());
    let worlds = worlds();
    for event in events() {
        assert!(worlds.iter().any(|world| world.asks(&event, false)), "{event:?} is asked in some world");
    }
}
