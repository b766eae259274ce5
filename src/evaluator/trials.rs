//! The evaluator under a clock moved by hand: gates frozen across a restart, groups that fall together, drills that are answered.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guard::Batch;
use super::mailbox::{Drilled, Inbox, Mailbox, Reload, Score, mailbox};
use super::threads::orders;
use super::turn::{Evaluator, Known};
use super::{Answer, Ask, Board, Command, Heartbeat, Letter, Refused, ToLog, World};
use crate::clock::Clock;
use crate::journal::{Body, Faults, Journal, Kept};
use crate::judge::{End, Fact, GateResult, Metric, Outcome};
use crate::measure::ring::Record;
use crate::measure::{Gauges, Recorders};
use crate::names::{Arm, RolloutName, Wall};
use crate::rollout::{Actor, Decision, Now, Role, State, Verb};
use crate::snapshot::{Builder, Live, Runtime};

/// Looks for what another thread does, a millisecond apart.
const WAITS: u32 = 20_000;

/// 2026-11-20T14:00:00Z.
const FRIDAY: Wall = Wall(1_795_183_200_000);
const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    clock: Clock,
    live: Live,
    builder: Builder,
    journal: Arc<Journal>,
    disk: Faults,
    inbox: Inbox,
    mailbox: Mailbox,
    board: Board,
    evaluator: Evaluator,
    drills: Receiver<RolloutName>,
    /// Held so that the guard's side of the orders lives.
    _orders: Receiver<super::guard::Order>,
}

fn file(gates: &str, group: &str) -> String {
    let rollout = |name: &str| {
        format!(
            "[rollouts.{name}]\nmatch = {{ host = \"*\", path_prefix = \"/{name}\" }}\nunit = [\"ip\"]\n\
             stable = {{ version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }}\n\
             canary = {{ version = \"b\", endpoints = [\"http://127.0.0.1:2\"] }}\n\
             plan = {{ preset = \"gradual\"{group} }}\n{}\n",
            gates.replace("NAME", name)
        )
    };
    format!(
        "[listeners.e]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}{}",
        rollout("r0"),
        rollout("r1")
    )
}

const ONE_GATE: &str = "[rollouts.NAME.gates.error_rate]\nrollback = \"+0.5pp\"\npromote = \"+0.1pp\"\n";
const TWO_GATES: &str = "[rollouts.NAME.gates.error_rate]\nrollback = \"+0.5pp\"\npromote = \"+0.1pp\"\n\
                         [rollouts.NAME.gates.latency_p99]\nrollback = \"+50%\"\npromote = \"+20%\"\n";

impl Bench {
    fn new(text: &str, states: BTreeMap<RolloutName, State>) -> Self {
        let known = states.into_iter().map(|(name, state)| (name, Known { state, kept: None, latch: None })).collect();
        Self::open(text, &known, Clock::manual(FRIDAY))
    }

    fn open(text: &str, known: &BTreeMap<RolloutName, Known>, clock: Clock) -> Self {
        let config = Arc::new(crate::config::parse(text, "t", &|_| None).unwrap_or_else(|f| panic!("{f}")));
        let builder = Builder::new(Arc::default(), Arc::new(Recorders::new(1)), b"");
        let prepared = Arc::new(builder.prepare(config).unwrap());
        let live = Live::new(prepared.merge(|_| Runtime::default()));
        clock.advance(Duration::from_secs(1_000));
        let (mailbox, inbox) = mailbox();
        let (guard, _orders) = orders();
        let (drills, asked) = sync_channel(8);
        let (journal, disk) = Journal::faulty().unwrap();
        let journal = Arc::new(journal);
        let world = World {
            live: live.clone(),
            journal: Arc::clone(&journal),
            mailbox: mailbox.clone(),
            notifier: Box::new(ToLog),
            guard,
            prepared,
            gauges: Arc::new(Gauges::default()),
            tracing: None,
            drills: Some(drills),
        };
        let now = Now { mono: clock.now(), wall: clock.wall() };
        let board = Board::default();
        let known = known.clone();
        let known = move |name: &RolloutName| known.get(name).cloned();
        let evaluator = Evaluator::new(world, board.clone(), Heartbeat::default(), now, known);
        Self { clock, live, builder, journal, disk, inbox, mailbox, board, evaluator, drills: asked, _orders }
    }

    fn turn(&mut self) {
        self.clock.advance(Duration::from_millis(250));
        self.stand();
    }

    /// A turn at the same time: while a thread is waited for, no deadline may pass.
    fn stand(&mut self) {
        self.hear(Vec::new());
    }

    /// The same, with these facts.
    fn hear(&mut self, batches: Vec<Batch>) {
        let mut letters = Vec::new();
        while let Ok(Some(letter)) = self.inbox.next(Duration::ZERO) {
            letters.push(letter);
        }
        let now = Now { mono: self.clock.now(), wall: self.clock.wall() };
        self.evaluator.turn(letters, batches, now);
    }

    /// Turns among requests to both arms of r0, of which `bad` of a hundred fail in the canary, until it is latched; returns
    /// how many turns that took, `most` at most.
    fn serve(&mut self, bad: u64, most: u64) -> u64 {
        let slot = self.live.load().rollout("r0").unwrap().fixed.slot;
        for turn in 0..most {
            self.clock.advance(Duration::from_millis(250));
            let at = self.clock.now();
            let mut records = Vec::new();
            for n in 0..20 {
                let number = turn * 20 + n;
                for (arm, fails) in [(Arm::Stable, false), (Arm::Canary, number * 7 % 100 < bad)] {
                    let id = number * 2 + u64::from(arm == Arm::Canary);
                    let end =
                        if fails { End::plain(Outcome::UpstreamError, 500) } else { End::plain(Outcome::Success, 200) };
                    records.push(Record::new(slot, Fact::Start { id, at, arm, user: id, drawn: true }));
                    records.push(Record::new(slot, Fact::End { id, at, end }));
                }
            }
            self.hear(vec![Batch { records, dropped: 0 }]);
            if self.board.rollout("r0").unwrap().latch.is_some() {
                return turn;
            }
        }
        most
    }

    /// What the disk would have of this life: the journal's states, and the evidence.
    fn left(&mut self) -> BTreeMap<RolloutName, Known> {
        let (sender, kept) = sync_channel(8);
        self.evaluator.keep(&sender);
        drop(sender);
        let mut kept: BTreeMap<RolloutName, Kept> = kept.iter().collect();
        self.states()
            .into_iter()
            .map(|(name, state)| (name.clone(), Known { state, kept: kept.remove(&name), latch: None }))
            .collect()
    }

    fn ask(&self, rollout: &str, verb: Verb) -> Arc<Mutex<Option<Answer>>> {
        self.ask_as(rollout, verb, Role::Owner)
    }

    fn ask_as(&self, rollout: &str, verb: Verb, role: Role) -> Arc<Mutex<Option<Answer>>> {
        let said = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&said);
        let command = Command {
            rollout: RolloutName::new(rollout),
            verb,
            actor: Actor::new("olga", &[role]),
            reason: "a test".to_owned(),
            if_match: None,
        };
        let answer = Box::new(move |answer| *slot.lock().unwrap() = Some(answer));
        self.mailbox.post(Letter { ask: Ask::Command(command), answer }).unwrap();
        said
    }

    /// Asks, and turns until it is answered: the journal writes on a thread of its own.
    fn does(&mut self, rollout: &str, verb: Verb) {
        let answer = self.answer_to(rollout, verb, Role::Owner);
        answer.unwrap_or_else(|refused| panic!("{rollout} {verb:?}: {refused}"));
    }

    /// Brings a new file, as a reload does.
    fn reload(&mut self, text: &str) -> Result<(), String> {
        self.reload_seen(text).0
    }

    /// The same, and the rollouts on the board at the moment of the answer.
    fn reload_seen(&mut self, text: &str) -> (Result<(), String>, Vec<String>) {
        let config = Arc::new(crate::config::parse(text, "t", &|_| None).unwrap_or_else(|f| panic!("{f}")));
        let prepared = Arc::new(self.builder.prepare(config).unwrap());
        let (answer, said) = sync_channel(1);
        let board = self.board.clone();
        let answer = Box::new(move |result| {
            let names = board.read().rollouts.iter().map(|view| view.name.clone()).collect();
            answer.send((result, names)).unwrap();
        });
        let ask = Ask::Reload(Reload { prepared, claimed: Arc::default(), answer });
        self.mailbox.post(Letter { ask, answer: Box::new(|_| ()) }).unwrap();
        self.stand();
        said.recv().unwrap()
    }

    /// Asks in another role, and turns until it is answered.
    fn answer_to(&mut self, rollout: &str, verb: Verb, role: Role) -> Answer {
        let said = self.ask_as(rollout, verb, role);
        for _ in 0..WAITS {
            self.stand();
            if let Some(answer) = said.lock().unwrap().take() {
                return answer;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("{rollout} {verb:?} was never answered");
    }

    /// The newest record of a rollout, once it is written.
    fn last_record(&self, rollout: &str) -> crate::rollout::Record {
        let generation = self.board.rollout(rollout).unwrap().generation;
        for _ in 0..WAITS {
            let last = self.records().into_iter().rfind(|record| record.rollout.as_str() == rollout);
            if let Some(record) = last.filter(|record| record.generation == generation) {
                return record;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("generation {generation} of {rollout} was never recorded");
    }

    /// Turns, a quarter of a second apart, until this is so; the journal writes on a thread of its own.
    fn turns_until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..WAITS {
            if so(self) {
                return;
            }
            self.turn();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("never: {what}");
    }

    fn gates(&self, rollout: &str) -> usize {
        self.board.rollout(rollout).unwrap().gates.len()
    }

    fn records(&self) -> Vec<crate::rollout::Record> {
        let entries = self.journal.after(0, usize::MAX);
        let record = |body: &Body| if let Body::Record(r) = body { Some((**r).clone()) } else { None };
        entries.iter().filter_map(|entry| record(&entry.body)).collect()
    }

    fn states(&self) -> BTreeMap<RolloutName, State> {
        // As the disk would give them back.
        let text = |state: &State| serde_json::to_string(state).unwrap();
        self.records().into_iter().map(|r| (r.rollout, serde_json::from_str(&text(&r.state)).unwrap())).collect()
    }
}

#[test]
fn gates_that_the_file_changed_while_serin_was_down_are_still_those_of_the_start() {
    let mut before = Bench::new(&file(ONE_GATE, ""), BTreeMap::new());
    before.does("r0", Verb::Start);
    let few = before.gates("r0");
    assert_eq!(before.gates("r1"), few);
    let hash = before.records()[0].gates.clone();
    let mut after = Bench::new(&file(TWO_GATES, ""), before.states());
    assert_eq!(
        (after.gates("r0"), after.gates("r1")),
        (few, few + 1),
        "r0 runs and keeps its gate; r1 has not started"
    );
    after.does("r0", Verb::Pause);
    assert_eq!(after.records().last().unwrap().gates, hash);
    // An owner takes them in, or the next start does.
    after.does("r0", Verb::Gates);
    assert_eq!(after.gates("r0"), few + 1);
    let mut cleared = Bench::new(&file(TWO_GATES, ""), before.states());
    for verb in [Verb::Abort, Verb::Clear, Verb::Start] {
        cleared.does("r0", verb);
    }
    assert_eq!(cleared.gates("r0"), few + 1);
    assert_ne!(cleared.records().last().unwrap().gates, hash);
}

#[test]
fn one_abort_latches_the_whole_group_in_the_cell_that_requests_read() {
    for (group, together) in [(", lockstep = \"pair\"", true), ("", false)] {
        let mut bench = Bench::new(&file(ONE_GATE, group), BTreeMap::new());
        bench.does("r0", Verb::Start);
        bench.does("r1", Verb::Start);
        bench.does("r0", Verb::Abort);
        let latched = |bench: &Bench, name: &str| bench.live.load().rollout(name).unwrap().split.latched;
        assert_eq!((latched(&bench, "r0"), latched(&bench, "r1")), (true, together));
        let fell = bench.board.rollout("r1").unwrap().latch.as_ref().map(|l| (l.actor.clone(), l.reason.clone()));
        assert_eq!(fell, together.then(|| ("group".to_owned(), "r0 of the same group fell: a test".to_owned())));
    }
}

#[test]
fn a_latch_outlives_the_file_s_losing_the_rollout_and_finding_it_again() {
    let both = file(ONE_GATE, "");
    let one = both.split("[rollouts.r1]").next().unwrap().to_owned();
    let mut bench = Bench::new(&both, BTreeMap::new());
    bench.does("r1", Verb::Start);
    bench.does("r1", Verb::Abort);
    let latched = |bench: &Bench| bench.live.load().rollout("r1").is_some_and(|r| r.split.latched);
    assert!(latched(&bench));
    bench.reload(&one).unwrap();
    bench.turn();
    assert!(bench.live.load().rollout("r1").is_none());
    bench.reload(&both).unwrap();
    bench.turn();
    let view = bench.board.rollout("r1").unwrap();
    assert!(latched(&bench) && view.latch.is_some(), "only a root cause lifts it");
    // And where serin was restarted in between: the journal knows.
    let known =
        bench.states().into_iter().map(|(name, state)| (name, Known { state, kept: None, latch: None })).collect();
    let mut bench = Bench::open(&one, &known, Clock::manual(FRIDAY));
    bench.reload(&both).unwrap();
    bench.turn();
    assert!(latched(&bench));
}

#[test]
fn who_brings_a_file_is_answered_once_the_board_shows_it() {
    let both = file(ONE_GATE, "");
    let one = both.split("[rollouts.r1]").next().unwrap().to_owned();
    let mut bench = Bench::new(&one, BTreeMap::new());
    assert_eq!(bench.reload_seen(&both), (Ok(()), vec!["r0".to_owned(), "r1".to_owned()]));
    assert_eq!(bench.reload_seen(&one), (Ok(()), vec!["r0".to_owned()]));
}

#[test]
fn a_reload_may_not_switch_the_judge_of_a_running_rollout_off() {
    let text = file(ONE_GATE, "");
    let off = text.replace("[rollouts.r1]", "[rollouts.r0.evaluator]\nenabled = false\n[rollouts.r1]");
    let mut bench = Bench::new(&text, BTreeMap::new());
    bench.does("r0", Verb::Start);
    let why = bench.reload(&off).unwrap_err();
    assert!(why.contains("rollouts.r0.evaluator.enabled"), "{why}");
    bench.does("r0", Verb::Abort);
    bench.reload(&off).unwrap();
}

#[test]
fn a_drill_is_answered_when_it_has_ended_and_one_that_never_ends_has_failed() {
    let mut bench = Bench::new(&file(ONE_GATE, ""), BTreeMap::new());
    bench.turn();
    let said = bench.ask("r0", Verb::Drill);
    bench.turn();
    assert_eq!(bench.drills.try_recv().unwrap(), RolloutName::new("r0"));
    assert!(said.lock().unwrap().is_none(), "it has not ended yet");
    let ended = Drilled { rollout: RolloutName::new("r0"), took: Duration::from_micros(740), failed: None };
    bench.mailbox.post(Letter { ask: Ask::Drilled(ended), answer: Box::new(|_| ()) }).unwrap();
    for _ in 0..WAITS {
        bench.stand();
        if said.lock().unwrap().is_some() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let view = said.lock().unwrap().take().unwrap().unwrap();
    let drill = view.drill.as_ref().unwrap();
    assert!((drill.took_ms - 0.74).abs() < 1e-9 && drill.failed.is_none(), "{drill:?}");
    assert_eq!(bench.records().last().unwrap().decision, Decision::Drill);
    let said = bench.ask("r0", Verb::Drill);
    bench.turn();
    bench.clock.advance(Duration::from_secs(20));
    for _ in 0..WAITS {
        bench.stand();
        if said.lock().unwrap().is_some() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let view = said.lock().unwrap().take().unwrap().unwrap();
    assert!(view.drill.as_ref().unwrap().failed.as_ref().unwrap().contains("did not end"));
}

#[test]
fn swaps_that_the_disk_refuses_leave_nothing_of_the_file_in_force_and_are_taken_when_there_is_room() {
    let old = file(ONE_GATE, "");
    let mut bench = Bench::new(&old, BTreeMap::new());
    for verb in [Verb::Start, Verb::Promote { full: true }, Verb::Promote { full: false }] {
        bench.does("r0", verb);
        bench.does("r1", verb);
    }
    // Both canaries have become the stable versions.
    let new = old.replace("version = \"b\"", "version = \"c\"").replace("version = \"a\"", "version = \"b\"");
    let stands = |bench: &Bench| {
        let live = bench.live.load();
        let stable = live.config.rollouts[0].stable.name.to_string();
        let each = ["r0", "r1"]
            .map(|name| (bench.board.rollout(name).unwrap().phase, live.rollout(name).unwrap().split.weight.percent()));
        (stable, each, bench.records().len())
    };
    let before = stands(&bench);
    assert_eq!((before.0.as_str(), before.1), ("a", [("completed", 100.0); 2]));
    // The two records find more room from time to time: none, a part of the first, the first and a part of the second.
    let mut rooms = (0..).step_by(250);
    let refused = rooms.position(|room| {
        bench.disk.room(Some(room));
        let Err(why) = bench.reload(&new) else { return true };
        assert!(why.contains("could not be written") && why.contains("nothing of the file is in force"), "{why}");
        assert_eq!(stands(&bench), before, "with room for {room} bytes");
        false
    });
    assert!(refused.is_some_and(|times| times >= 6), "{refused:?}");
    let after = stands(&bench);
    assert_eq!((after.0.as_str(), after.1, after.2), ("b", [("idle", 0.0); 2], before.2 + 2));
    assert!(bench.records()[before.2..].iter().all(|record| record.decision == Decision::Swap));
    let states = bench.states();
    assert!(states.values().all(|state| state.version.as_ref().is_some_and(|version| version.as_str() == "c")));
}

#[test]
fn a_journal_that_becomes_read_only_refuses_rises_with_the_reason_and_stops_no_rollback() {
    let mut bench = Bench::new(&file(ONE_GATE, ""), BTreeMap::new());
    bench.does("r0", Verb::Start);
    bench.does("r1", Verb::Start);
    let weight = |bench: &Bench, name: &str| bench.live.load().rollout(name).unwrap().split.weight.percent();
    let before = (bench.records().len(), weight(&bench, "r0"));
    bench.disk.read_only(true);
    for verb in [Verb::Promote { full: false }, Verb::Promote { full: true }] {
        let Err(Refused::Unavailable(why)) = bench.answer_to("r0", verb, Role::Owner) else { panic!("{verb:?}") };
        assert!(why.contains("could not be written") && why.contains("read-only"), "{why}");
    }
    assert_eq!((bench.records().len(), weight(&bench, "r0")), before);
    // Down goes on: by a person, and by the judge.
    bench.does("r1", Verb::Abort);
    assert!(bench.serve(30, 1_000) < 1_000);
    let latched = |bench: &Bench, name: &str| bench.live.load().rollout(name).unwrap().split.latched;
    assert!(latched(&bench, "r0") && latched(&bench, "r1"));
    bench.turns_until("both wait for the disk", |bench| bench.journal.health().backlog == 2);
    assert_eq!((bench.records().len(), bench.journal.health().lost), (before.0, 0), "kept, and nothing lost");
    bench.disk.read_only(false);
    bench.turns_until("the disk has them", |bench| bench.journal.health().backlog == 0);
    let states = bench.states();
    assert!(states.values().all(|state| state.latch.is_some()), "{states:?}");
}

#[test]
fn a_gate_that_steps_back_takes_a_rollout_one_stage_down_and_the_next_one_to_nothing() {
    let gate = format!("{ONE_GATE}on = \"step-back\"\n");
    let mut bench = Bench::new(&file(&gate, ""), BTreeMap::new());
    bench.does("r0", Verb::Start);
    bench.does("r0", Verb::Promote { full: false });
    let seen = |bench: &Bench| {
        let view = bench.board.rollout("r0").unwrap();
        (view.phase, view.weight, view.stage.as_ref().map(|stage| stage.index))
    };
    assert_eq!(seen(&bench), ("running", 25.0, Some(1)));
    let down = |bench: &mut Bench, weight: f64| {
        for _ in 0..400 {
            bench.serve(30, 1);
            if seen(bench).1 == weight {
                return bench.last_record("r0");
            }
        }
        panic!("never at {weight} %: {:?}", bench.board.rollout("r0").unwrap());
    };
    let record = down(&mut bench, 10.0);
    assert_eq!((record.decision, record.actor.as_str(), record.stage), (Decision::StepBack, "judge", Some(0)));
    assert!(record.reason.starts_with("error_rate"), "{}", record.reason);
    let gates = &record.numbers.as_ref().unwrap().gates;
    assert!(gates.iter().any(|gate| gate.name == "error_rate" && gate.result == GateResult::Fail), "{gates:?}");
    assert_eq!(seen(&bench), ("running", 10.0, Some(0)));
    let record = down(&mut bench, 0.0);
    assert_eq!((record.decision, record.actor.as_str()), (Decision::StepBack, "judge"));
    let view = bench.board.rollout("r0").unwrap();
    assert_eq!((view.phase, view.latch.is_none(), view.verdict), ("paused", true, "step-back"));
    // A person goes on, with evidence that begins anew; numbers are painted once a second.
    bench.does("r0", Verb::Resume);
    bench.turns_until("nothing is held against it", |bench| bench.board.rollout("r0").unwrap().verdict == "hold");
    assert_eq!(seen(&bench), ("running", 10.0, Some(0)));
}

#[test]
fn numbers_are_painted_each_second_while_somebody_looks_and_seldom_else() {
    let mut bench = Bench::new(&file(ONE_GATE, ""), BTreeMap::new());
    bench.does("r0", Verb::Start);
    let slot = bench.live.load().rollout("r0").unwrap().fixed.slot;
    let mut id = 0;
    let mut painted = |bench: &mut Bench, somebody_looks: bool| {
        let (mut pictures, mut last) = (0, bench.board.peek());
        for _ in 0..80 {
            id += 1;
            bench.clock.advance(Duration::from_millis(250));
            let fact = Fact::Start { id, at: bench.clock.now(), arm: Arm::Canary, user: id, drawn: true };
            bench.hear(vec![Batch { records: vec![Record::new(slot, fact)], dropped: 0 }]);
            let now = if somebody_looks { bench.board.read() } else { bench.board.peek() };
            pictures += u32::from(!Arc::ptr_eq(&now.rollouts[0], &last.rollouts[0]));
            last = now;
        }
        pictures
    };
    painted(&mut bench, false); // whoever looked at the start is gone by then
    assert_eq!([false, true].map(|looks| painted(&mut bench, looks)), [4, 20], "in 20 s");
}

#[test]
fn a_wall_clock_that_jumps_a_day_moves_no_residence_lets_nothing_rise_out_of_hours_and_stops_no_rollback() {
    let friday = file(ONE_GATE, ", hours = \"Mon-Fri 09:00-17:00 Europe/Berlin\"");
    for days in [1, -1, 2, -6] {
        let mut bench = Bench::new(&friday, BTreeMap::new());
        bench.does("r0", Verb::Start);
        bench.turn();
        let stands = |bench: &Bench| {
            let view = bench.board.rollout("r0").unwrap();
            (view.phase, view.weight, view.stage.as_ref().unwrap().residence_left_s)
        };
        let before = stands(&bench);
        bench.clock.step_wall(days * 86_400_000);
        (0..8).for_each(|_| bench.turn());
        let after = stands(&bench);
        assert_eq!((after.0, after.1), (before.0, before.1), "{days} days");
        assert!((0.0..5.0).contains(&(before.2 - after.2)), "{days} days: residence {} to {}", before.2, after.2);
        // A step back of one day is a Thursday; the others are no working days.
        let said = bench.answer_to("r0", Verb::Promote { full: false }, Role::Operator);
        match (days, said) {
            (-1, said) => assert!(said.is_ok(), "{said:?}"),
            (_, Err(Refused::Conflict { why, .. })) => assert!(why.contains("nothing rises now"), "{why}"),
            (_, other) => panic!("{days} days: {other:?}"),
        }
        bench.serve(30, 1_000);
        let record = bench.last_record("r0");
        assert_eq!((record.decision, record.actor.as_str()), (Decision::Rollback, "judge"), "{days} days");
        assert_eq!(record.at.0 - FRIDAY.0, days * 86_400_000 + i64::try_from(bench.clock.now().0 / 1_000_000).unwrap());
    }
}

#[test]
fn after_a_restart_with_the_clock_a_day_back_or_ahead_a_bad_canary_falls_within_a_minute() {
    let text = file(ONE_GATE, "");
    let ahead = Clock::manual(FRIDAY);
    ahead.advance(DAY * 30);
    let mut before = Bench::open(&text, &BTreeMap::new(), ahead);
    before.does("r0", Verb::Start);
    assert_eq!(before.serve(0, 200), 200, "a good canary");
    let left = before.left();
    assert!(left[&RolloutName::new("r0")].kept.is_some());
    let again = |days: u32| {
        let clock = Clock::manual(FRIDAY);
        clock.advance(DAY * days + Duration::from_secs(1_000));
        let mut after = Bench::open(&text, &left, clock);
        assert_eq!(after.board.rollout("r0").unwrap().phase, "running");
        after.serve(10, 1_000)
    };
    let (good, back, forth) = (again(30), again(29), again(31));
    println!("turns to the rollback: {good} with a good clock, {back} a day back, {forth} a day ahead");
    assert!(good < 200 && back < 200 && forth < 200, "{good}, {back}, {forth}");
}

#[test]
fn the_record_of_a_rollback_holds_the_numbers_of_every_gate_at_that_moment() {
    let gates = "[rollouts.NAME.gates.safety_violations]\nrollback = \"any\"\n[rollouts.NAME.gates.error_rate]\npromote = \"+0.1pp\"\n";
    let mut bench = Bench::new(&file(gates, ""), BTreeMap::new());
    bench.does("r0", Verb::Start);
    bench.turn();
    let (rollout, at) = (RolloutName::new("r0"), bench.clock.now());
    let fact = Fact::Score {
        arm: Arm::Canary,
        user: 7,
        drawn: true,
        metric: Metric::Safety,
        value: 1.0,
        arrived: at,
        known: at,
    };
    let ask = Ask::Scores(vec![Score { rollout, fact }]);
    bench.mailbox.post(Letter { ask, answer: Box::new(|_| ()) }).unwrap();
    let fell = |bench: &Bench| bench.records().iter().any(|record| record.decision == Decision::Rollback);
    bench.turns_until("a violation rolls back", fell);
    let records = bench.records();
    for record in records.iter().filter(|record| record.decision.wants_numbers()) {
        let numbers = record.numbers.as_ref().unwrap_or_else(|| panic!("{:?} has no numbers", record.decision));
        assert_eq!(numbers.gates.len(), bench.gates("r0"), "{:?}", record.decision);
    }
    let last = records.iter().find(|record| record.decision == Decision::Rollback).unwrap();
    let gates = &last.numbers.as_ref().unwrap().gates;
    let safety = gates.iter().find(|gate| gate.name == "safety_violations").unwrap();
    assert_eq!((safety.result, safety.samples), (GateResult::Fail, 1), "{safety:?}");
    let errors = gates.iter().find(|gate| gate.name == "error_rate").unwrap();
    assert_eq!((errors.result, errors.samples), (GateResult::Inconclusive, 0), "{errors:?}");
}

#[test]
fn a_span_between_drills_in_the_file_is_a_drill_made_by_itself_and_a_rise_held_until_then() {
    let every = "[rollouts.NAME.evaluator]\ndrill_every = \"24h\"\n";
    let mut bench = Bench::new(&file(every, ""), BTreeMap::new());
    let name = RolloutName::new("r0");
    let refused = |bench: &mut Bench| {
        // No owner: owners may rise without.
        let said = bench.ask_as("r0", Verb::Start, Role::Operator);
        bench.stand();
        let answer = said.lock().unwrap().take();
        answer.unwrap().unwrap_err().to_string()
    };
    let ends = |bench: &Bench, failed: Option<&str>| {
        let ended =
            Drilled { rollout: name.clone(), took: Duration::from_micros(9), failed: failed.map(str::to_owned) };
        bench.mailbox.post(Letter { ask: Ask::Drilled(ended), answer: Box::new(|_| ()) }).unwrap();
    };
    let drills =
        |bench: &Bench| bench.records().iter().filter(|r| r.rollout == name && r.decision == Decision::Drill).count();
    for _ in 0..8 {
        bench.turn();
    }
    let asked: Vec<RolloutName> = bench.drills.try_iter().collect();
    assert_eq!(asked, [name.clone(), RolloutName::new("r1")], "once each, and by nobody's word");
    assert!(refused(&mut bench).contains("never been rehearsed"));
    ends(&bench, Some("worker 1 did not see it"));
    bench.turns_until("the drill's record", |bench| drills(bench) == 1);
    assert!(refused(&mut bench).contains("worker 1 did not see it"));
    bench.clock.advance(Duration::from_secs(600));
    bench.turn();
    assert!(bench.drills.try_iter().any(|asked| asked == name), "one that failed is made again");
    ends(&bench, None);
    bench.turns_until("the second drill's record", |bench| drills(bench) == 2);
    bench.does("r0", Verb::Start);
    // A little ahead of time, so that nothing is held when all is well.
    bench.clock.advance(Duration::from_secs(24 * 3_600 - 1_200));
    bench.turn();
    bench.turn();
    assert!(bench.drills.try_iter().any(|asked| asked == name), "before it is overdue");
}
