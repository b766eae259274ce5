//! The laws of the machine, checked on every reachable state (bounded) and on a long random walk, by a ledger that
//! keeps its own books of proof and signatures.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::judge::{Lack, Missing, Verdict};
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::split::weight::Weight;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn percent(p: f64) -> Weight {
    Weight::from_percent(p).unwrap()
}

pub(super) fn stage(weight: f64, approval: Approval, cohorts: &[&str]) -> Stage {
    Stage {
        weight: percent(weight),
        residence: HOUR,
        samples: 5,
        approval,
        cohorts: cohorts.iter().map(|c| (*c).to_owned()).collect(),
    }
}

fn terms(plan: Option<Plan>) -> Terms {
    Terms {
        rollout: RolloutName::new("chat"),
        stable: VersionName::new("a"),
        canary: Some(VersionName::new("b")),
        weight: plan.is_none().then(|| percent(5.0)),
        plan: plan.map(Arc::new),
        gates: "g1".to_owned(),
        policy: None,
        drill_every: None,
        confirm: std::sync::Arc::default(),
        register: None,
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

fn worlds() -> Vec<(&'static str, Terms)> {
    use Approval::{None as N, One, Two};
    let signed =
        plan(vec![stage(1.0, N, &[]), stage(5.0, One, &[]), stage(10.0, Two, &[])], SecondVersion::Supersede, 1.0);
    let cohorts =
        plan(vec![stage(0.0, One, &["in"]), stage(0.0, N, &["beta"]), stage(5.0, N, &[])], SecondVersion::Queue, 0.0);
    let mut own = plan(vec![stage(1.0, Two, &[])], SecondVersion::Reject, 1.0);
    own.start = Start::OnNewVersion;
    let mut group = plan(vec![stage(1.0, One, &[]), stage(5.0, N, &[])], SecondVersion::Reject, 1.0);
    group.lockstep = Some("pair".to_owned());
    vec![
        ("signed", terms(Some(signed))),
        ("cohorts", terms(Some(cohorts))),
        ("own", terms(Some(own))),
        ("lockstep", terms(Some(group))),
        ("only the last stage", terms(Some(plan(vec![], SecondVersion::Supersede, 1.0)))),
        ("plain", terms(None)),
    ]
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

fn events() -> Vec<Event> {
    let mut all = vec![
        Event::Tick,
        advance(),
        hold(),
        worse(),
        Event::Tripped { reason: "8 in a row".to_owned() },
        Event::HeartbeatLost,
        Event::HeartbeatFound,
        Event::NewVersion(VersionName::new("b")),
        Event::NewVersion(VersionName::new("c")),
        Event::CanaryRemoved,
        Event::PromotedInConfig,
        Event::Barrier,
        Event::GroupFell { which: RolloutName::new("other"), reason: "9 of 10".to_owned() },
        by("alice", Verb::Start),
        by("bob", Verb::Start),
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
        by("victor", Verb::Abort),
    ];
    for weight in [0.0, 0.5, 7.0, 100.0] {
        all.push(by("alice", Verb::SetWeight(percent(weight))));
        all.push(by("olga", Verb::SetWeight(percent(weight))));
    }
    all
}

/// Books of its own: what was really said and signed since the present stage was entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ledger {
    /// Age of the last advance, when it was the last verdict.
    advance: Option<Duration>,
    signers: BTreeSet<String>,
    resided: Duration,
    heartbeat_lost: bool,
    entered: BTreeSet<usize>,
    starter: Option<String>,
}

impl Ledger {
    fn pass(&mut self, before: &State, passed: Duration) {
        if let Some(age) = &mut self.advance {
            *age += passed;
        }
        let counts = matches!(before.phase, Phase::Running | Phase::Awaiting | Phase::Soaking);
        if counts && !self.heartbeat_lost {
            self.resided += passed;
        }
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::Judged(Verdict::Advance { .. }) if !self.heartbeat_lost => self.advance = Some(Duration::ZERO),
            Event::Judged(_) => self.advance = None,
            Event::HeartbeatLost => (self.advance, self.heartbeat_lost) = (None, true),
            Event::HeartbeatFound => self.heartbeat_lost = false,
            _ => {}
        }
    }

    fn sign(&mut self, event: &Event) {
        if let Event::Command { verb: Verb::Approve, actor, .. } = event {
            assert!(actor.is(Role::Approver), "{actor:?}");
            self.signers.insert(actor.name.clone());
        }
    }

    fn book(&mut self, before: &State, event: &Event, after: &State, effects: &[Effect]) {
        if effects.iter().any(|e| matches!(e, Effect::EnterStage { .. })) {
            self.resided = Duration::ZERO;
            self.entered.extend(after.stage);
        }
        let promoted = before.target.as_ref().is_some_and(|t| t.promoted_by.is_some());
        let voids = after.weight != before.weight
            || after.stage != before.stage
            || matches!(event, Event::Judged(Verdict::Hold { .. })) && !promoted
            || matches!(
                event,
                Event::Command {
                    verb: Verb::Pause | Verb::Extend { .. } | Verb::Gates | Verb::SetWeight(_) | Verb::StepBack,
                    ..
                }
            );
        if voids || after.phase == Phase::Paused {
            self.signers.clear();
        }
        if matches!(after.phase, Phase::Idle) {
            let lost = self.heartbeat_lost;
            *self = Ledger { heartbeat_lost: lost, ..Ledger::default() };
        }
        self.starter = after.started_by.clone();
        if after.weight != before.weight || after.stage != before.stage {
            self.advance = None;
        }
    }
}

fn record_of(effects: &[Effect]) -> Option<&Record> {
    let mut records = effects.iter().filter_map(|e| match e {
        Effect::Record(record) => Some(&**record),
        _ => None,
    });
    let first = records.next();
    assert!(records.next().is_none(), "one record a step");
    first
}

/// Every law about one step, with the ledger before it.
fn obey(before: &State, event: &Event, after: &State, effects: &[Effect], ledger: &Ledger) {
    assert_eq!(after.check_invariants(), Ok(()));
    let record = record_of(effects);
    assert_eq!(after.generation - before.generation, u64::from(record.is_some()), "{event:?}");
    let position = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted);
    let published = position(|e| matches!(e, Effect::Latch | Effect::Weight { .. } | Effect::Swap));
    let recorded = position(|e| matches!(e, Effect::Record(_)));
    let told = position(|e| matches!(e, Effect::Notify(_)));
    if after.weight != before.weight {
        let down = after.weight < before.weight && !effects.contains(&Effect::Swap);
        assert_eq!(published < recorded, down, "order: {event:?} {effects:?}");
        assert!(recorded < told && published < told && published.is_some(), "order: {event:?}");
        let says = effects.iter().rev().find_map(|e| match e {
            Effect::Weight { weight, .. } => Some(*weight),
            Effect::Latch | Effect::Swap => Some(Weight::ZERO),
            _ => None,
        });
        assert_eq!(says, Some(after.weight), "{event:?}");
    }
    if after.cohorts() != before.cohorts() {
        assert!(published.is_some(), "cohorts are published: {event:?}");
    }
    if before.latch.is_some() && after.latch.is_none() {
        assert!(matches!(event, Event::Command { verb: Verb::Clear, .. }), "only a person clears: {event:?}");
        assert!(effects.contains(&Effect::Unlatch) && after.phase == Phase::Idle);
    }
    let Some(record) = record else {
        assert_eq!((before.phase, before.weight, before.stage), (after.phase, after.weight, after.stage), "{event:?}");
        return;
    };
    assert_eq!(&State { last: None, lacking: None, ..after.clone() }, &record.state);
    let opens = ["in", "beta", "other"].iter().any(|c| after.cohorts().open(c) && !before.cohorts().open(c));
    if after.weight <= before.weight && !opens {
        return;
    }
    if after.weight == before.weight {
        assert!(recorded < published, "cohorts that open are recorded first: {event:?}");
    }
    rise_is_lawful(before, event, after, record, ledger);
}

fn rise_is_lawful(before: &State, event: &Event, after: &State, record: &Record, ledger: &Ledger) {
    let why = || format!("{event:?}\n before {before:?}\n after {after:?}\n {ledger:?}");
    assert!(!ledger.heartbeat_lost, "a stale heartbeat freezes: {}", why());
    let plan = after.plan.as_deref();
    let from = before.stage.unwrap_or(0);
    let signed = |through: usize| {
        let Some(plan) = plan else { return };
        let needed = plan.stages[from..through].iter().map(|s| s.approval).max().unwrap_or_default();
        assert!(ledger.signers.len() >= needed.needed(), "signatures: {}", why());
        if needed == Approval::Two {
            assert!(ledger.starter.as_ref().is_none_or(|s| !ledger.signers.contains(s)), "starter: {}", why());
        }
    };
    match record.decision {
        Decision::Advance | Decision::Complete => {
            assert!(record.proven);
            let plan = plan.unwrap();
            assert!(plan.lockstep.is_none() || *event == Event::Barrier, "the group's barrier: {}", why());
            assert!(ledger.resided >= plan.residence_of(from), "residence: {}", why());
            let nothing_to_compare = before.weight == Weight::FULL;
            assert!(
                ledger.advance.is_some_and(|age| age <= Duration::from_secs(10)) || nothing_to_compare,
                "fresh: {}",
                why()
            );
            if record.decision == Decision::Advance {
                assert_eq!(after.stage, Some(from + 1), "one stage at a time: {}", why());
                signed(from + 1);
            }
        }
        Decision::Promote => {
            assert!(!record.proven, "{}", why());
            if after.phase == Phase::Completed {
                assert_eq!(before.phase, Phase::Soaking);
            } else {
                signed(after.stage.unwrap());
            }
        }
        Decision::SetWeight => {
            let Event::Command { actor, .. } = event else { panic!("{}", why()) };
            let lawful = plan.map(|p| ledger.entered.iter().map(|i| p.weight_of(*i)).max().unwrap_or_default());
            assert!(!record.proven && lawful.is_none_or(|w| after.weight <= w || actor.is(Role::Owner)), "{}", why());
        }
        Decision::Start => {
            assert!(!record.proven && before.phase == Phase::Idle, "{}", why());
            assert_eq!(after.weight, plan.map_or(percent(5.0), |p| p.weight_of(0)), "{}", why());
        }
        Decision::Resume => {
            assert!(!record.proven && ledger.entered.contains(&after.stage.unwrap()), "{}", why());
        }
        _ => panic!("no way up: {}", why()),
    }
}

/// What must be true of every state, whatever comes next.
fn no_phase_is_a_trap(terms: &Terms, state: &State, now: Now) {
    if !matches!(state.phase, Phase::Idle | Phase::RolledBack) {
        for event in [
            by("alice", Verb::Abort),
            by("bob", Verb::Abort),
            worse(),
            Event::Tripped { reason: String::new() },
            Event::GroupFell { which: RolloutName::new("other"), reason: String::new() },
            Event::CanaryRemoved,
        ] {
            let (after, effects) = step(terms, state, event, now).unwrap();
            assert_eq!((after.phase, after.weight), (Phase::RolledBack, Weight::ZERO));
            assert_eq!(effects[0], Effect::Latch);
            let (idle, _) = step(terms, &after, by("olga", Verb::Clear), now).unwrap();
            assert_eq!(idle.phase, Phase::Idle);
        }
    }
    for name in Verb::NAMES {
        let args = VerbArgs { full: false, by: Some(HOUR), weight: Some(percent(1.0)) };
        let verb = Verb::parse(name, args).unwrap();
        let result = step(terms, state, by("olga", verb), now);
        let beside = possible_beside(state.phase, verb);
        if allowed(state, terms).contains(&name) {
            if let Err(refusal) = result {
                let known = state.heartbeat_lost || state.version.is_none() || name == "approve";
                assert!(known, "{name} {refusal:?} {state:?}");
            }
        } else if beside {
            let quiet = result.unwrap().1.is_empty();
            assert_eq!(quiet, name == "abort", "{name} {state:?}");
        } else {
            assert_eq!(result.unwrap_err().kind, RefusalKind::Conflict, "{name}");
        }
    }
    let Some(deadline) = state.deadline() else { return };
    let late = Now { mono: now.mono.plus(deadline + HOUR), wall: now.wall };
    let (after, effects) = step(terms, state, Event::Tick, late).unwrap();
    let told = effects.iter().any(|e| matches!(e, Effect::Notify(_)));
    assert!(told || after.phase != state.phase, "a wait ends or is told of: {state:?}");
}

type Key = String;

/// Bounds the counters so that the states are finitely many; nothing that a law looks at is lost.
pub(super) fn clamp(state: &mut State, ledger: &mut Ledger, mono: Mono) {
    let cap = |d: &mut Duration, most: Duration| *d = (*d).min(most);
    let residence = state.residence();
    cap(&mut state.resided, residence);
    let deadline = state.deadline().unwrap_or_default();
    cap(&mut state.waited, deadline);
    cap(&mut state.asked, deadline);
    if let Some(paused) = &mut state.paused {
        cap(&mut paused.waited, deadline);
        (paused.at, paused.why, paused.by) = (Wall(0), String::new(), String::new());
    }
    if let Some(proof) = &mut state.proof {
        cap(&mut proof.held, Duration::from_secs(60));
        cap(&mut proof.age, Duration::from_secs(11));
    }
    if let Some(latch) = &mut state.latch {
        (latch.at, latch.reason, latch.actor) = (Wall(0), String::new(), String::new());
    }
    if state.phase == Phase::Completed
        || state.phase == Phase::RolledBack
        || state.paused.as_ref().is_some_and(|p| p.by_hand)
    {
        // Whatever comes next enters a stage anew: these are read no more.
        (state.resided, state.extended, state.waited, state.voided) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
        if state.phase != Phase::Completed {
            state.asked = Duration::ZERO;
        }
    }
    if state.phase == Phase::RolledBack {
        (state.stage, state.plan, state.started_by) = (None, None, None);
        state.entered.clear();
        *ledger = Ledger { heartbeat_lost: ledger.heartbeat_lost, ..Ledger::default() };
    }
    state.approvals.sort();
    state.voided = state.voided.min(1);
    state.rollbacks.clear();
    (state.generation, state.entered_at, state.last) = (0, None, Some(mono));
    (state.lacking, state.at_barrier) = (None, false);
    ledger.resided = ledger.resided.min(residence);
    if ledger.advance.is_some_and(|age| age > Duration::from_secs(10)) {
        ledger.advance = None;
    }
}

fn key(state: &State, ledger: &Ledger) -> Key {
    let s = state;
    format!(
        "{:?}",
        (
            (s.phase, &s.version, s.weight, s.stage, &s.entered, s.resided, s.extended, s.waited, s.asked, s.voided),
            (&s.proof, &s.target, &s.approvals, &s.started_by, &s.paused, &s.next_version, s.auto_start),
            (s.heartbeat_lost, &s.rollbacks, &s.gates),
            ledger
        )
    )
}

#[test]
fn no_reachable_state_breaks_a_law() {
    let origin = Now { mono: Mono(1), wall: Wall(1_700_000_000_000) };
    for (name, terms) in worlds() {
        let new_file = Terms { canary: Some(VersionName::new("c")), ..terms.clone() };
        let no_canary = Terms { canary: None, ..terms.clone() };
        let swapped = Terms { stable: VersionName::new("b"), canary: None, ..terms.clone() };
        let mut seen: HashMap<Key, ()> = HashMap::new();
        let mut queue = VecDeque::from([(State::initial(&terms).resume(origin.mono), Ledger::default())]);
        let (mut steps, mut phases) = (0_u64, BTreeSet::new());
        while let Some((state, ledger)) = queue.pop_front() {
            phases.insert(state.phase);
            no_phase_is_a_trap(&terms, &state, origin);
            for passed in [Duration::ZERO, HOUR] {
                for event in events() {
                    // One extension, in one world; the random walk has them in all.
                    let rare = matches!(event, Event::Command { verb: Verb::Extend { .. } | Verb::Gates, .. });
                    if rare && (name != "only the last stage" || !state.extended.is_zero()) {
                        continue;
                    }
                    let file = match &event {
                        Event::NewVersion(v) if v.as_str() == "c" => &new_file,
                        Event::CanaryRemoved => &no_canary,
                        Event::PromotedInConfig => &swapped,
                        _ => &terms,
                    };
                    let now = Now { mono: origin.mono.plus(passed), wall: origin.wall };
                    let Ok((mut after, effects)) = step(file, &state, event.clone(), now) else { continue };
                    steps += 1;
                    let mut books = ledger.clone();
                    books.pass(&state, passed);
                    books.hear(&event);
                    books.sign(&event);
                    obey(&state, &event, &after, &effects, &books);
                    books.book(&state, &event, &after, &effects);
                    clamp(&mut after, &mut books, origin.mono);
                    let same = after.version.as_ref().is_none_or(|v| v.as_str() == "b");
                    if same && seen.insert(key(&after, &books), ()).is_none() {
                        queue.push_back((after, books));
                    }
                }
            }
            assert!(seen.len() < 400_000, "{name}: the states are bounded");
        }
        println!("{name}: {} states, {steps} steps", seen.len());
        let expect = match name {
            "plain" => 4,
            "only the last stage" => 5,
            _ => 7,
        };
        assert_eq!(phases.len(), expect, "{name}: every phase was reached: {phases:?}");
    }
}

/// A small generator: seeds are arguments, a failure prints its own.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn a_walk_of_a_million_steps_breaks_no_law() {
    const STEPS: usize = 1_000_000;
    let worlds = worlds();
    let events = events();
    let extra = [by("alice", Verb::Approve), by("carol", Verb::Approve), by("bob", Verb::Approve)];
    let mut visits: HashMap<(Phase, Option<usize>), u64> = HashMap::new();
    let mut walked = 0;
    for seed in 0..u64::MAX {
        let mut dice = Dice(seed);
        let (name, first) = &worlds[dice.roll(worlds.len())];
        let mut file = first.clone();
        let mut now = Now { mono: Mono(1), wall: Wall(1_700_000_000_000) };
        let (mut state, mut ledger) = (State::initial(&file).resume(now.mono), Ledger::default());
        let mut owed = Duration::ZERO;
        for at in 0..2_000 {
            let passed = [0, 1, 250, 9_000, 61_000, 1_800_000, 3_600_000, 7_300_000][dice.roll(8)];
            // Most rolls let time and proof work; the rest is everything that may happen.
            let event = match dice.roll(12) {
                0..=3 => advance(),
                4 if dice.roll(2) == 0 => Event::Barrier,
                4 => Event::Tick,
                5 => by("alice", Verb::Start),
                6 => extra[dice.roll(extra.len())].clone(),
                7 => Event::HeartbeatFound,
                8 => by("olga", Verb::Clear),
                _ => events[dice.roll(events.len())].clone(),
            };
            let new_file = match &event {
                Event::NewVersion(v) => Terms { canary: Some(v.clone()), ..file.clone() },
                Event::CanaryRemoved => Terms { canary: None, ..file.clone() },
                Event::PromotedInConfig => {
                    let stable = state.version.clone().unwrap_or_else(|| file.stable.clone());
                    let canary = if stable.as_str() == "b" { "c" } else { "b" };
                    Terms { stable, canary: Some(VersionName::new(canary)), ..file.clone() }
                }
                _ => file.clone(),
            };
            let passed = Duration::from_millis(passed);
            now = Now {
                mono: now.mono.plus(passed),
                wall: Wall(now.wall.0 + i64::try_from(passed.as_millis()).unwrap()),
            };
            // A refusal changes nothing, so its time is counted with the next step.
            owed += passed;
            walked += 1;
            // Now and then the process dies and the state comes back from its JSON.
            if dice.roll(500) == 0 {
                let text = serde_json::to_string(&state).unwrap();
                let back: State = serde_json::from_str(&text).unwrap();
                assert_eq!(
                    back,
                    State { last: None, lacking: None, at_barrier: false, ..state.clone() },
                    "seed {seed} step {at}"
                );
                state = back.resume(now.mono);
                owed = Duration::ZERO;
                ledger.advance = None;
                ledger.heartbeat_lost = false;
                continue;
            }
            let Ok((after, effects)) = step(&new_file, &state, event.clone(), now) else { continue };
            ledger.pass(&state, std::mem::take(&mut owed));
            ledger.hear(&event);
            ledger.sign(&event);
            obey(&state, &event, &after, &effects, &ledger);
            ledger.book(&state, &event, &after, &effects);
            if matches!(event, Event::NewVersion(_) | Event::CanaryRemoved | Event::PromotedInConfig) {
                file = new_file;
            }
            if dice.roll(64) == 0 {
                no_phase_is_a_trap(&file, &after, now);
            }
            *visits.entry((after.phase, after.stage)).or_default() += 1;
            state = after;
        }
        assert!(!name.is_empty());
        if walked >= STEPS {
            break;
        }
    }
    for phase in Phase::ALL {
        let seen: u64 = visits.iter().filter(|((p, _), _)| *p == phase).map(|(_, n)| n).sum();
        assert!(seen > 1_000, "{phase:?} was visited {seen} times: {visits:?}");
    }
    println!("{walked} steps: {visits:?}");
}
