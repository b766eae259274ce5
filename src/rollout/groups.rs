//! The laws of groups: every reachable pair of two members (bounded), and three members on a long random walk.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::laws::{Ledger, clamp};
use super::lockstep::{Member, fall_with, open, waiting};
use super::testing::terms;
use super::worlds::{HOUR, advance, by, hold, plan, stage, worse};
use super::*;
use crate::names::{Mono, RolloutName, Wall};
use crate::split::weight::Weight;

const NOON: Wall = Wall(1_795_176_000_000);

#[derive(Clone)]
struct Group {
    terms: Vec<Terms>,
    states: Vec<State>,
    now: Now,
    /// How often the barrier opened.
    opened: u64,
}

/// What one event did: a record a member that changed, and who moved by the barrier.
struct Done {
    records: Vec<(usize, Record)>,
    through: Vec<usize>,
}

impl Group {
    fn new(members: usize, freeze: Option<&str>) -> Self {
        let now = Now { mono: Mono(1), wall: NOON };
        let terms: Vec<Terms> = (0..members)
            .map(|index| {
                let mut plan = plan(vec![stage(1.0, Approval::None, &[])], SecondVersion::Reject, 1.0);
                plan.lockstep = Some("pair".to_owned());
                plan.deadline_factor = 1_000.0;
                // Only the last member has a calendar: the others must heed it too.
                if let Some(freeze) = freeze.filter(|_| index + 1 == members) {
                    plan.freezes = vec![freeze.parse().unwrap()];
                }
                Terms { rollout: RolloutName::new(format!("r{index}")), ..terms(Some(plan)) }
            })
            .collect();
        let states = terms.iter().map(|terms| State::initial(terms).resume(now.mono)).collect();
        Self { terms, states, now, opened: 0 }
    }

    fn take(&mut self, at: usize, event: Event, done: &mut Done) {
        let fell = self.states[at].latch.is_none();
        let Ok((state, effects)) = step(&self.terms[at], &self.states[at], event, self.now) else { return };
        self.put(at, state, &effects, done);
        if fell && let Some(latch) = self.states[at].latch.clone() {
            let (which, group) = (self.terms[at].rollout.clone(), "pair");
            for other in fall_with(&self.members(), group, &which) {
                self.take(other, Event::GroupFell { which: which.clone(), reason: latch.reason.clone() }, done);
            }
        }
    }

    fn put(&mut self, at: usize, state: State, effects: &[Effect], done: &mut Done) {
        for effect in effects {
            if let Effect::Record(record) = effect {
                done.records.push((at, (**record).clone()));
            }
        }
        self.states[at] = state;
    }

    fn members(&self) -> Vec<Member<'_>> {
        self.terms.iter().zip(&self.states).map(|(terms, state)| Member { terms, state }).collect()
    }

    /// What the evaluator does with one event of one member: the machine, the fall of the others, a tick for all, the barrier.
    fn turn(&mut self, at: usize, event: Event) -> Done {
        let mut done = Done { records: Vec::new(), through: Vec::new() };
        self.take(at, event, &mut done);
        for member in 0..self.states.len() {
            self.take(member, Event::Tick, &mut done);
        }
        for group in waiting(&self.members()) {
            let moves = open(&self.members(), &group, self.now);
            self.opened += u64::from(!moves.is_empty());
            for (at, state, effects) in moves {
                done.through.push(at);
                self.put(at, state, &effects, &mut done);
            }
        }
        done
    }

    fn obeys(&self, before: &[State], done: &Done) {
        for (at, record) in &done.records {
            if matches!(record.decision, Decision::Advance | Decision::Complete) {
                assert!(done.through.contains(at), "no member rises on proof but by the barrier: {record:?}");
            }
        }
        if !done.through.is_empty() {
            for (at, state) in before.iter().enumerate().filter(|(_, s)| s.phase != Phase::Completed) {
                assert!(done.through.contains(&at), "the barrier opens for all or for none: {state:?}");
            }
        }
        let fell = done.records.iter().any(|(_, r)| matches!(r.decision, Decision::Rollback | Decision::Abort));
        if fell {
            for state in &self.states {
                assert!(matches!(state.phase, Phase::RolledBack | Phase::Idle), "one abort aborts all: {state:?}");
                assert_eq!(state.weight, Weight::ZERO);
            }
        }
    }
}

fn events() -> Vec<Event> {
    vec![
        Event::Tick,
        advance(),
        hold(),
        worse(),
        by("alice", Verb::Start),
        by("alice", Verb::Pause),
        by("alice", Verb::Resume),
        by("alice", Verb::Abort),
        by("olga", Verb::Clear),
        Event::HeartbeatLost,
        Event::HeartbeatFound,
    ]
}

fn key(group: &mut Group) -> String {
    for state in &mut group.states {
        clamp(state, &mut Ledger::default(), group.now.mono);
        // Nothing that a law of groups looks at: no deadline is ever near here.
        (state.waited, state.asked, state.voided) = (Duration::ZERO, Duration::ZERO, 0);
        if let Some(paused) = &mut state.paused {
            paused.waited = Duration::ZERO;
        }
        if let Some(proof) = &mut state.proof {
            proof.held = Duration::ZERO;
        }
    }
    format!("{:?}", group.states)
}

#[test]
fn no_reachable_pair_of_two_members_breaks_a_law_of_groups() {
    let first = Group::new(2, None);
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([first]);
    let (mut turns, mut opened) = (0_u64, 0);
    while let Some(group) = queue.pop_front() {
        for passed in [Duration::ZERO, HOUR] {
            for at in 0..2 {
                for event in events() {
                    let mut next = group.clone();
                    next.opened = 0;
                    next.now.mono = next.now.mono.plus(passed);
                    let before = next.states.clone();
                    let done = next.turn(at, event);
                    next.obeys(&before, &done);
                    turns += 1;
                    opened += next.opened;
                    next.now = group.now;
                    if seen.insert(key(&mut next)) {
                        queue.push_back(next);
                    }
                }
            }
        }
        assert!(seen.len() < 60_000, "the pairs are bounded");
    }
    println!("{} pairs, {turns} turns, the barrier opened {opened} times", seen.len());
    assert!(opened >= 10, "{opened}");
}

#[test]
fn three_members_walk_far_and_break_no_law_of_groups() {
    let (mut completed, mut fallen) = (0, 0);
    for seed in 0..60_u64 {
        let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut group = Group::new(3, None);
        for _ in 0..600 {
            let passed = Duration::from_millis([0, 250, 4_000, 900_000][roll(4) as usize]);
            group.now.mono = group.now.mono.plus(passed);
            let event = match roll(20) {
                0..=12 => advance(),
                13 => by("alice", Verb::Start),
                14 => by("alice", Verb::Resume),
                15 => by("olga", Verb::Clear),
                _ => events()[roll(events().len() as u64) as usize].clone(),
            };
            let before = group.states.clone();
            let done = group.turn(roll(3) as usize, event);
            group.obeys(&before, &done);
            completed += u64::from(group.states.iter().all(|s| s.phase == Phase::Completed));
            fallen += u64::from(done.records.iter().any(|(_, r)| r.actor == "group"));
        }
    }
    println!("{completed} completed turns, {fallen} falls of a group");
    assert!(fallen > 20, "{fallen}");
}

/// All members proven and resided in their first stage.
fn at_the_barrier(freeze: Option<&str>) -> Group {
    let mut group = Group::new(3, freeze);
    for at in 0..3 {
        group.turn(at, by("olga", Verb::Start));
    }
    group.now.mono = group.now.mono.plus(HOUR);
    for at in 0..2 {
        group.turn(at, advance());
    }
    group
}

#[test]
fn those_who_are_ready_wait_for_the_last_and_then_all_go_together() {
    let mut group = at_the_barrier(None);
    assert_eq!(group.opened, 0);
    for at in 0..2 {
        assert_eq!(waits_for(&group.states[at], &group.terms[at], NOON), Some("group"));
    }
    assert_eq!(group.states[2].stage, Some(0));
    let done = group.turn(2, advance());
    assert_eq!(done.through, [0, 1, 2]);
    assert!(group.states.iter().all(|s| s.stage == Some(1) && s.phase == Phase::Soaking));
}

#[test]
fn a_freeze_of_one_member_holds_the_whole_group() {
    let mut group = at_the_barrier(Some("2026-11-19/2026-11-22"));
    let done = group.turn(2, advance());
    assert!(done.through.is_empty() && group.states.iter().all(|s| s.stage == Some(0)), "nothing rises");
    let done = group.turn(0, worse());
    assert_eq!(done.records.len(), 3, "a fall needs no calendar");
    assert!(group.states.iter().all(|s| s.phase == Phase::RolledBack));
    let said = &group.states[2].latch.as_ref().unwrap();
    assert!(said.actor == "group" && said.reason.contains("r0 of the same group fell: errors"), "{said:?}");
}

#[test]
fn a_member_that_stands_keeps_the_barrier_shut_until_it_goes_on() {
    let mut group = at_the_barrier(None);
    group.turn(2, by("alice", Verb::Pause));
    for at in 0..2 {
        assert!(group.turn(at, advance()).through.is_empty(), "a member that stands is waited for");
    }
    group.turn(2, by("alice", Verb::Resume));
    group.turn(0, advance());
    group.turn(1, advance());
    assert_eq!(group.turn(2, advance()).through.len(), 3);
}
