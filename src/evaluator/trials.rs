//! The evaluator under a clock moved by hand: gates frozen across a restart, groups that fall together, drills that are answered.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::mailbox::{Drilled, Inbox, Mailbox, mailbox};
use super::threads::orders;
use super::turn::{Evaluator, Known};
use super::{Answer, Ask, Board, Command, Heartbeat, Letter, ToLog, World};
use crate::clock::Clock;
use crate::journal::{Body, Journal};
use crate::measure::{Gauges, Recorders};
use crate::names::{RolloutName, Wall};
use crate::rollout::{Actor, Decision, Now, Record, Role, State, Verb};
use crate::snapshot::{Builder, Live, Runtime};

/// Looks for what another thread does, a millisecond apart.
const WAITS: u32 = 20_000;

struct Bench {
    clock: Clock,
    live: Live,
    journal: Arc<Journal>,
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
        let config = Arc::new(crate::config::parse(text, "t", &|_| None).unwrap_or_else(|f| panic!("{f}")));
        let builder = Builder::new(Arc::default(), Arc::new(Recorders::new(1)), b"");
        let prepared = Arc::new(builder.prepare(config).unwrap());
        let live = Live::new(prepared.merge(|_| Runtime::default()));
        let clock = Clock::manual(Wall(1_795_183_200_000));
        clock.advance(Duration::from_secs(1_000));
        let (mailbox, inbox) = mailbox();
        let (guard, _orders) = orders();
        let (drills, asked) = sync_channel(8);
        let journal = Arc::new(Journal::memory().unwrap());
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
        let known = |name: &RolloutName| states.get(name).map(|state| Known { state: state.clone(), kept: None });
        let evaluator = Evaluator::new(world, board.clone(), Heartbeat::default(), now, known);
        Self { clock, live, journal, inbox, mailbox, board, evaluator, drills: asked, _orders }
    }

    fn turn(&mut self) {
        self.clock.advance(Duration::from_millis(250));
        self.stand();
    }

    /// A turn at the same time: while a thread is waited for, no deadline may pass.
    fn stand(&mut self) {
        let mut letters = Vec::new();
        while let Ok(Some(letter)) = self.inbox.next(Duration::ZERO) {
            letters.push(letter);
        }
        let now = Now { mono: self.clock.now(), wall: self.clock.wall() };
        self.evaluator.turn(letters, Vec::new(), now);
    }

    fn ask(&self, rollout: &str, verb: Verb) -> Arc<Mutex<Option<Answer>>> {
        let said = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&said);
        let command = Command {
            rollout: RolloutName::new(rollout),
            verb,
            actor: Actor::new("olga", &[Role::Owner]),
            reason: "a test".to_owned(),
            if_match: None,
        };
        let answer = Box::new(move |answer| *slot.lock().unwrap() = Some(answer));
        self.mailbox.post(Letter { ask: Ask::Command(command), answer }).unwrap();
        said
    }

    /// Asks, and turns until it is answered: the journal writes on a thread of its own.
    fn does(&mut self, rollout: &str, verb: Verb) {
        let said = self.ask(rollout, verb);
        for _ in 0..WAITS {
            self.stand();
            if let Some(answer) = said.lock().unwrap().take() {
                answer.unwrap_or_else(|refused| panic!("{rollout} {verb:?}: {refused}"));
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("{rollout} {verb:?} was never answered");
    }

    fn gates(&self, rollout: &str) -> usize {
        self.board.rollout(rollout).unwrap().gates.len()
    }

    fn records(&self) -> Vec<Record> {
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
