//! A whole conservative rollout in virtual time, over the real journal and evidence files, with a hundred restarts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serin::journal::{Body, Evidence, Journal, Kept, verify};
use serin::judge::Verdict;
use serin::names::{Mono, RolloutName, VersionName, Wall};
use serin::rollout::{Actor, Decision, Effect, Event, Now, Phase, Plan, Record, Role, State, Terms, Verb, step};

const HOUR: Duration = Duration::from_secs(3_600);

/// One process after the other: each has its own monotonic clock, and only the files in common.
struct Life<'a> {
    dir: &'a Path,
    terms: Terms,
    state: State,
    journal: Option<Journal>,
    evidence: Evidence,
    now: Now,
    published: u32,
}

impl<'a> Life<'a> {
    fn new(dir: &'a Path) -> Self {
        let terms = Terms {
            rollout: RolloutName::new("chat"),
            stable: VersionName::new("a"),
            canary: Some(VersionName::new("b")),
            plan: Some(Arc::new(Plan::preset("conservative").unwrap())),
            weight: None,
            gates: "g".to_owned(),
            policy: None,
            drill_every: None,
            confirm: std::sync::Arc::default(),
            register: None,
        };
        let now = Now { mono: Mono(1), wall: Wall(1_795_168_800_000) };
        let state = State::initial(&terms).resume(now.mono);
        let journal = Some(Journal::open(&dir.join("journal")).unwrap().0);
        Self { dir, terms, state, journal, evidence: Evidence::open(&dir.join("evidence")).unwrap(), now, published: 0 }
    }

    /// Takes an event and carries out what the order of effects asks for: a rise only after its record is durable.
    fn take(&mut self, event: Event) {
        let (state, effects) = step(&self.terms, &self.state, event, self.now).unwrap();
        for effect in effects {
            match effect {
                Effect::Record(record) => {
                    let (told, answer) = sync_channel(1);
                    let done = Box::new(move |result| told.send(result).unwrap());
                    self.journal.as_ref().unwrap().append(record, Some(done)).unwrap();
                    answer.recv().unwrap().unwrap();
                }
                Effect::Weight { weight, .. } => self.published = weight.buckets(),
                Effect::Latch | Effect::Swap => self.published = 0,
                _ => {}
            }
        }
        self.state = state;
        assert_eq!(self.state.weight.buckets(), self.published);
    }

    fn command(&mut self, name: &str, role: Role, verb: Verb) {
        let actor = Actor::new(name, &[role]);
        self.take(Event::Command { verb, actor, reason: "planned".to_owned() });
    }

    fn passes(&mut self, time: Duration) {
        self.now.mono = self.now.mono.plus(time);
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
    }

    /// The process dies after a checkpoint of evidence; the next one has only the files.
    fn restart(&mut self) {
        let kept = Kept { state: self.state.clone(), judge: Vec::new(), counts: None };
        self.evidence.save(&self.terms.rollout, &kept).unwrap();
        self.journal = None;
        self.now.mono = Mono(7);
        let (journal, recovered) = Journal::open(&self.dir.join("journal")).unwrap();
        assert_eq!(recovered.torn, None);
        let mut state = recovered.states[&self.terms.rollout].clone();
        assert_eq!((state.phase, state.weight.buckets()), (self.state.phase, self.published));
        assert!(state.catch_up(&self.evidence.load(&self.terms.rollout).unwrap().state));
        assert_eq!(state.resided, self.state.resided);
        self.state = state.resume(self.now.mono);
        self.journal = Some(journal);
    }

    fn records(&self) -> Vec<Record> {
        let entries = self.journal.as_ref().unwrap().after(0, usize::MAX);
        let record = |body: &Body| if let Body::Record(r) = body { Some((**r).clone()) } else { None };
        entries.iter().filter_map(|e| record(&e.body)).collect()
    }
}

fn advance() -> Event {
    Event::Judged(Verdict::Advance { reason: "all gates proven".to_owned() })
}

/// Runs to the end, or to `until` hours; gives the hours that it took.
fn run(life: &mut Life<'_>, until: u64) -> u64 {
    life.command("alice", Role::Operator, Verb::Start);
    for hour in 0..until {
        life.passes(HOUR);
        life.take(advance());
        if life.state.phase == Phase::Awaiting {
            life.command("bob", Role::Approver, Verb::Approve);
            life.take(advance());
            life.command("carol", Role::Approver, Verb::Approve);
        }
        if hour % 3 == 0 {
            life.restart();
        }
        if life.state.phase == Phase::Completed {
            return hour + 1;
        }
    }
    until
}

#[test]
fn a_conservative_rollout_with_a_hundred_restarts_ends_completed_with_the_right_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::new(dir.path());
    let hours = run(&mut life, 1_000);
    assert_eq!(hours, 6 * 48 + 72, "restarts cost no residence, and give none");
    assert!(hours / 3 >= 100);
    let records = life.records();
    let count = |decision| records.iter().filter(|r| r.decision == decision).count();
    assert_eq!((count(Decision::Start), count(Decision::Await), count(Decision::Approve)), (1, 6, 6));
    assert_eq!((count(Decision::Advance), count(Decision::Complete)), (6, 1));
    for record in records.iter().filter(|r| r.decision == Decision::Advance) {
        assert!(record.proven && record.approvals == ["bob", "carol"], "{record:?}");
    }
    life.journal = None;
    assert_eq!(verify(&dir.path().join("journal")).unwrap().last, records.len() as u64);
}

#[test]
fn a_regression_in_the_fourth_stage_ends_latched_with_the_gate_and_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::new(dir.path());
    run(&mut life, 3 * 48 + 20);
    assert_eq!(life.state.stage, Some(3));
    life.take(Event::Judged(Verdict::Rollback {
        rule: "latency_p99".to_owned(),
        reason: "log e 9.1 > 7.6".to_owned(),
    }));
    for _ in 0..5 {
        life.restart();
        life.passes(HOUR * 24);
        life.take(advance());
        assert_eq!((life.state.phase, life.state.weight.buckets()), (Phase::RolledBack, 0));
    }
    let records = life.records();
    let last = records.last().unwrap();
    assert_eq!(
        (last.decision, last.stage_before, last.reason.as_str()),
        (Decision::Rollback, Some(3), "latency_p99: log e 9.1 > 7.6")
    );
}
