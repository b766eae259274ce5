//! The laws of the machine, checked on every reachable state (bounded) and on a long random walk, by a ledger that
//! keeps its own books of proof and signatures.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::testing::percent;
use super::worlds::{HOUR, TUESDAY_NIGHT, World, advance, by, events, worlds, worse};
use super::*;
use crate::judge::Verdict;
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::split::weight::Weight;

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
    /// The last rehearsal: when, and whether it went well.
    drilled: Option<(Wall, bool)>,
    /// Who said yes in this entry of the stage, and how long ago.
    yes: BTreeMap<String, Duration>,
    /// The digest that was in the file when the rollout started, or was taken in since.
    registered: Option<String>,
}

/// The moment of an event, and the file then.
struct Sky<'a> {
    now: Now,
    file: &'a Terms,
    /// Whether the calendar lets a weight rise.
    open: bool,
}

impl Ledger {
    fn pass(&mut self, before: &State, passed: Duration) {
        if let Some(age) = &mut self.advance {
            *age += passed;
        }
        self.yes.values_mut().for_each(|age| *age += passed);
        let counts = matches!(before.phase, Phase::Running | Phase::Awaiting | Phase::Soaking);
        if counts && !self.heartbeat_lost {
            self.resided += passed;
        }
    }

    /// No wildcard: a new event must say what it proves.
    fn hear(&mut self, event: &Event, state: &State, now: Now) {
        match event {
            Event::Judged(Verdict::Advance { .. }) if !self.heartbeat_lost => self.advance = Some(Duration::ZERO),
            Event::Judged(_) => self.advance = None,
            Event::HeartbeatLost => (self.advance, self.heartbeat_lost) = (None, true),
            Event::HeartbeatFound => self.heartbeat_lost = false,
            Event::Drilled { failed, took: _ } => self.drilled = Some((now.wall, failed.is_none())),
            Event::Confirmed { gate, version, generation, answer } => {
                if state.version.as_ref() != Some(version) || state.generation != *generation {
                } else if answer.is_ok() {
                    self.yes.insert(gate.clone(), Duration::ZERO);
                } else {
                    self.yes.remove(gate);
                }
            }
            Event::Command { .. }
            | Event::Tripped { .. }
            | Event::Tick
            | Event::Exposure { .. }
            | Event::NewVersion(_)
            | Event::CanaryRemoved
            | Event::PromotedInConfig
            | Event::Barrier
            | Event::GroupFell { .. } => {}
        }
    }

    fn sign(&mut self, event: &Event) {
        if let Event::Command { verb: Verb::Approve, actor, .. } = event {
            assert!(actor.is(Role::Approver), "{actor:?}");
            self.signers.insert(actor.name.clone());
        }
    }

    /// What outlives a release.
    fn afresh(&self) -> Self {
        Ledger { heartbeat_lost: self.heartbeat_lost, drilled: self.drilled, ..Ledger::default() }
    }

    fn book(&mut self, before: &State, event: &Event, after: &State, effects: &[Effect], file: &Terms) {
        let takes_in = matches!(event, Event::Command { verb: Verb::Gates | Verb::Register, .. });
        if after.phase != Phase::Idle && (takes_in || before.phase == Phase::Idle) {
            let of_it = file.register.as_ref().filter(|entry| after.version.as_ref() == Some(&entry.version));
            self.registered = of_it.map(|entry| entry.digest.clone());
        }
        if effects.iter().any(|e| matches!(e, Effect::EnterStage { .. })) {
            self.resided = Duration::ZERO;
            self.yes.clear();
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
            // Whether a release may begin is asked while it is idle.
            let yes = if before.phase == Phase::Idle { std::mem::take(&mut self.yes) } else { BTreeMap::new() };
            *self = Ledger { yes, ..self.afresh() };
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
fn obey(before: &State, event: &Event, after: &State, effects: &[Effect], ledger: &Ledger, sky: &Sky<'_>) {
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
    if let Event::Judged(Verdict::StepBack { .. }) = event {
        step_back_is_lawful(before, after);
    }
    if let Event::Exposure { stops, spent } = event {
        let stopped = *stops && spent.is_some() && !matches!(before.phase, Phase::Completed | Phase::RolledBack);
        assert!(!stopped || !after.has_canary_traffic(), "a budget that is spent stops the canary: {after:?}");
        assert_eq!(after.latch, before.latch, "a budget that is spent says nothing against it");
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
    rise_is_lawful(before, event, after, record, ledger, sky);
}

/// A gate that asks for less takes a stage back, with nothing known and nothing signed, or from the first one to 0; only where
/// the plan goes on by itself or waits for a signature. It latches nothing.
fn step_back_is_lawful(before: &State, after: &State) {
    assert_eq!(after.latch, before.latch);
    let moves = before.plan.is_some() && matches!(before.phase, Phase::Running | Phase::Awaiting);
    if !moves {
        assert_eq!((after.phase, after.stage, after.weight), (before.phase, before.stage, before.weight));
    } else if let Some(below) = before.stage.unwrap().checked_sub(1) {
        assert_eq!((after.phase, after.stage), (Phase::Running, Some(below)));
        assert_eq!((after.resided, &after.proof, after.approvals.len()), (Duration::ZERO, &None, 0));
    } else {
        assert_eq!((after.phase, after.weight), (Phase::Paused, Weight::ZERO));
        assert!(!after.has_canary_traffic());
    }
}

/// What nobody's proof replaces: an open calendar and a rehearsed rollback, which only an owner's own word passes by, the
/// digest that was registered, and the yes of those who are asked.
fn rise_is_let(event: &Event, after: &State, record: &Record, ledger: &Ledger, sky: &Sky<'_>) {
    let why = || format!("{event:?}\n after {after:?}\n {ledger:?}");
    let by_word = matches!(event, Event::Command { verb, .. } if *verb != Verb::Approve);
    let owner = matches!(event, Event::Command { actor, .. } if actor.is(Role::Owner));
    assert!(sky.open || (by_word && owner), "the calendar is closed: {}", why());
    if let Some(every) = sky.file.drill_every {
        let every = i64::try_from(every.as_millis()).unwrap();
        let fresh = ledger.drilled.is_some_and(|(at, well)| well && sky.now.wall.0 - at.0 <= every);
        assert!(fresh || (by_word && owner), "no rollback was rehearsed: {}", why());
    }
    if let (Some(digest), Some(file)) = (&ledger.registered, &sky.file.register) {
        assert_eq!(*digest, file.digest, "it is another thing: {}", why());
    }
    let plan = after.plan.as_deref();
    let hook = match record.decision {
        Decision::Start => Hook::ConfirmRollout,
        Decision::Advance | Decision::Promote if after.phase != Phase::Completed => {
            plan.map_or(Hook::ConfirmRollout, |plan| Hook::into_stage(plan, after.stage.unwrap()))
        }
        _ => return,
    };
    for gate in sky.file.confirm.iter().filter(|gate| gate.hook == hook) {
        let age = ledger.yes.get(&gate.name);
        assert!(age.is_some_and(|age| *age <= gate.valid), "{} has not said yes: {}", gate.name, why());
    }
}

fn rise_is_lawful(before: &State, event: &Event, after: &State, record: &Record, ledger: &Ledger, sky: &Sky<'_>) {
    let why = || format!("{event:?}\n before {before:?}\n after {after:?}\n {ledger:?}");
    assert!(!ledger.heartbeat_lost, "a stale heartbeat freezes: {}", why());
    rise_is_let(event, after, record, ledger, sky);
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
                let asks = name == "start" && !terms.confirm.is_empty();
                let other = register::unchanged(state, terms).is_err();
                let known = state.heartbeat_lost || state.version.is_none() || name == "approve" || asks || other;
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
    // A rehearsal that is due is asked for first, and answered.
    let told = effects.iter().any(|e| matches!(e, Effect::Notify(_) | Effect::Drill));
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
        *ledger = ledger.afresh();
    }
    if let Some(drill) = &mut state.drill {
        (drill.took, drill.failed) = (Duration::ZERO, drill.failed.as_ref().map(|_| String::new()));
    }
    state.confirm.clamp(Duration::from_secs(61));
    ledger.yes.retain(|_, age| *age <= Duration::from_secs(60));
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
            (s.heartbeat_lost, &s.rollbacks, &s.gates, &s.spent, &s.drill, &s.confirm),
            s.register.as_ref().map(|entry| &entry.digest),
            ledger
        )
    )
}

/// The worlds of each exhaustive check; several checks, so that they run beside each other.
const BY_STAGES: [&str; 3] = ["signed", "own", "lockstep"];
const BY_COHORTS: [&str; 1] = ["cohorts"];
const BY_HAND: [&str; 2] = ["only the last stage", "plain"];
const BY_OTHERS: [&str; 2] = ["calendar", "drills"];
/// Gates of others and the register have too many states for an ordinary run: the random walk has them.
const ONLY_WALKED: [&str; 2] = ["confirm", "register"];

#[test]
fn every_world_is_explored_or_walked() {
    let explored = [&BY_STAGES[..], &BY_COHORTS, &BY_HAND, &BY_OTHERS, &ONLY_WALKED].concat();
    let worlds: Vec<&str> = worlds().iter().map(|world| world.name).collect();
    assert_eq!(explored.iter().collect::<BTreeSet<_>>(), worlds.iter().collect());
}

#[test]
fn no_reachable_state_of_a_plan_with_signatures_breaks_a_law() {
    explore(&BY_STAGES);
}

#[test]
fn no_reachable_state_of_a_plan_of_cohorts_breaks_a_law() {
    explore(&BY_COHORTS);
}

#[test]
fn no_reachable_state_of_the_last_stage_or_of_a_plain_split_breaks_a_law() {
    explore(&BY_HAND);
}

#[test]
fn no_reachable_state_under_a_calendar_or_drills_breaks_a_law() {
    explore(&BY_OTHERS);
}

/// Every state that can be reached, each event in it.
fn explore(names: &[&str]) {
    let events = events();
    for world in worlds().into_iter().filter(|world| names.contains(&world.name)) {
        let (name, terms) = (world.name, &world.terms);
        let new_file = Terms { canary: Some(VersionName::new("c")), ..terms.clone() };
        let no_canary = Terms { canary: None, ..terms.clone() };
        let swapped = Terms { stable: VersionName::new("b"), canary: None, ..terms.clone() };
        let origin = Mono(1);
        let mut seen: HashMap<Key, ()> = HashMap::new();
        let mut queue = VecDeque::from([(State::initial(terms).resume(origin), Ledger::default())]);
        let (mut steps, mut phases) = (0_u64, BTreeSet::new());
        while let Some((state, ledger)) = queue.pop_front() {
            phases.insert(state.phase);
            no_phase_is_a_trap(terms, &state, Now { mono: origin, wall: world.walls[0].0 });
            // Time passes under the first wall; the others are other moments of the same state.
            let times = world.walls.iter().map(|wall| (Duration::ZERO, *wall));
            let times = times.chain([(HOUR, world.walls[0])]);
            for (passed, (wall, open)) in times {
                for event in events.iter().filter(|event| world.asks(event, !state.extended.is_zero())) {
                    let files: Vec<&Terms> = match event {
                        Event::NewVersion(v) if v.as_str() == "c" => vec![&new_file],
                        Event::CanaryRemoved => vec![&no_canary],
                        Event::PromotedInConfig => vec![&swapped],
                        _ => std::iter::once(terms).chain(&world.edits).collect(),
                    };
                    for file in files {
                        let now = Now { mono: origin.plus(passed), wall };
                        let Ok((mut after, effects)) = step(file, &state, event.clone(), now) else { continue };
                        steps += 1;
                        let mut books = ledger.clone();
                        books.pass(&state, passed);
                        books.hear(event, &state, now);
                        books.sign(event);
                        obey(&state, event, &after, &effects, &books, &Sky { now, file, open });
                        books.book(&state, event, &after, &effects, file);
                        clamp(&mut after, &mut books, origin);
                        if after == state && books == ledger {
                            continue;
                        }
                        let same = after.version.as_ref().is_none_or(|v| v.as_str() == "b");
                        if same && seen.insert(key(&after, &books), ()).is_none() {
                            queue.push_back((after, books));
                        }
                    }
                }
            }
            assert!(seen.len() < 400_000, "{name}: the states are bounded");
        }
        println!("{name}: {} states, {steps} steps", seen.len());
        let expect = match name {
            "plain" => 4,
            "only the last stage" => 5,
            // No signature is asked for.
            "calendar" | "drills" | "register" => 6,
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

/// Steps of an ordinary run; `SERIN_STEPS` asks for another number (`tests/run --full` for ten million).
const STEPS: usize = 3_000_000;

/// What happens next: most rolls let time and proof work, and answer what is asked; the rest is everything that may happen.
fn roll(dice: &mut Dice, events: &[Event], state: &State, drill_asked: bool) -> Event {
    if drill_asked && dice.roll(2) == 0 {
        let failed = (dice.roll(4) == 0).then(|| "no worker answered".to_owned());
        return Event::Drilled { took: Duration::from_micros(80), failed };
    }
    let event = match dice.roll(12) {
        0..=3 => advance(),
        4 => match dice.roll(3) {
            0 => Event::Barrier,
            1 => Event::Tick,
            _ => Event::Confirmed {
                gate: Hook::ALL[dice.roll(3)].as_str().to_owned(),
                version: VersionName::new("b"),
                generation: 0,
                answer: Ok(()),
            },
        },
        5 => by("alice", Verb::Start),
        6 => by(["alice", "bob", "carol"][dice.roll(3)], Verb::Approve),
        7 => Event::HeartbeatFound,
        8 => by("olga", Verb::Clear),
        _ => events[dice.roll(events.len())].clone(),
    };
    match event {
        // About this entry of the stage, or just too late.
        Event::Confirmed { gate, version, generation: _, answer } => {
            let generation = state.generation.saturating_sub(u64::from(dice.roll(8) == 0));
            Event::Confirmed { gate, version, generation, answer }
        }
        event => event,
    }
}

/// The file after the event: what it says of versions, and now and then of the register.
fn edit(dice: &mut Dice, world: &World, file: &Terms, event: &Event, state: &State) -> Terms {
    let mut file = file.clone();
    match event {
        Event::NewVersion(v) => file.canary = Some(v.clone()),
        Event::CanaryRemoved => file.canary = None,
        Event::PromotedInConfig => {
            file.stable = state.version.clone().unwrap_or(file.stable);
            let canary = if file.stable.as_str() == "b" { "c" } else { "b" };
            file.canary = Some(VersionName::new(canary));
        }
        _ if !world.edits.is_empty() && dice.roll(200) == 0 => {
            let other = std::iter::once(&world.terms).chain(&world.edits).nth(dice.roll(world.edits.len() + 1));
            file.register = other.unwrap().register.clone();
        }
        _ => {}
    }
    file
}

#[test]
fn a_walk_of_millions_of_steps_breaks_no_law() {
    let steps = std::env::var("SERIN_STEPS").map_or(STEPS, |text| text.parse().unwrap());
    let worlds = worlds();
    let events = events();
    let mut visits: HashMap<(Phase, Option<usize>), u64> = HashMap::new();
    let mut rises: BTreeMap<&str, u64> = BTreeMap::new();
    let mut walked = 0;
    for seed in 0..u64::MAX {
        let mut dice = Dice(seed);
        let world = &worlds[dice.roll(worlds.len())];
        let mut file = world.terms.clone();
        let mut now = Now { mono: Mono(1), wall: TUESDAY_NIGHT };
        let (mut state, mut ledger) = (State::initial(&file).resume(now.mono), Ledger::default());
        let (mut owed, mut drill_asked) = (Duration::ZERO, false);
        for at in 0..2_000 {
            let passed = [0, 1, 250, 9_000, 61_000, 1_800_000, 3_600_000, 7_300_000][dice.roll(8)];
            let event = roll(&mut dice, &events, &state, drill_asked);
            let new_file = edit(&mut dice, world, &file, &event, &state);
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
                let stored =
                    State { last: None, lacking: None, at_barrier: false, confirm: Confirm::default(), ..state };
                assert_eq!(back, stored, "seed {seed} step {at}");
                state = back.resume(now.mono);
                owed = Duration::ZERO;
                ledger.yes.clear();
                (ledger.advance, ledger.heartbeat_lost) = (None, false);
                continue;
            }
            let by_file = !matches!(event, Event::NewVersion(_) | Event::CanaryRemoved | Event::PromotedInConfig);
            if by_file {
                file.clone_from(&new_file);
            }
            let Ok((after, effects)) = step(&new_file, &state, event.clone(), now) else { continue };
            let plan = state.plan.as_ref().or(new_file.plan.as_ref());
            let open = plan.is_none_or(|plan| calendar::may_rise(plan, now.wall).is_ok());
            ledger.pass(&state, std::mem::take(&mut owed));
            ledger.hear(&event, &state, now);
            ledger.sign(&event);
            obey(&state, &event, &after, &effects, &ledger, &Sky { now, file: &new_file, open });
            ledger.book(&state, &event, &after, &effects, &new_file);
            drill_asked = effects.contains(&Effect::Drill);
            file = new_file;
            if dice.roll(64) == 0 {
                no_phase_is_a_trap(&file, &after, now);
            }
            *visits.entry((after.phase, after.stage)).or_default() += 1;
            *rises.entry(world.name).or_default() += u64::from(after.weight > state.weight);
            state = after;
        }
        if walked >= steps {
            break;
        }
    }
    for phase in Phase::ALL {
        let seen: u64 = visits.iter().filter(|((p, _), _)| *p == phase).map(|(_, n)| n).sum();
        assert!(seen > 1_000, "{phase:?} was visited {seen} times: {visits:?}");
    }
    assert!(worlds.iter().all(|world| rises.get(world.name).is_some_and(|n| *n > 100)), "{rises:?}");
    println!("{walked} steps: {visits:?}; rises {rises:?}");
}
