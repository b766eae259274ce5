//! Guard and evaluator under a clock that is moved by hand: no sockets, no threads but the journal's.

use std::sync::Arc;
use std::time::Duration;

use serin::clock::Clock;
use serin::config;
use serin::evaluator::guard::{self, Batch, Guard};
use serin::evaluator::mailbox::{Inbox, Mailbox, mailbox};
use serin::evaluator::threads::{batches, orders};
use serin::evaluator::turn::Evaluator;
use serin::evaluator::{Ask, Board, Command, Heartbeat, Letter, Reload, ToLog, World};
use serin::journal::Journal;
use serin::journal::writer::ROOM;
use serin::measure::ring::{self, Writer};
use serin::measure::{Gauges, Recorders};
use serin::names::{RolloutName, Wall};
use serin::rollout::{Actor, Now, Role, Verb};
use serin::snapshot::{Builder, Live, Prepared, Runtime};
use serin::split::Weight;

/// The evaluator's side of a serin under a clock that is moved by hand.
pub struct Bench {
    pub clock: Clock,
    pub live: Live,
    pub rings: Vec<Writer>,
    pub guard: Guard,
    pub board: Board,
    pub journal: Arc<Journal>,
    builder: Builder,
    batches: std::sync::mpsc::Receiver<Batch>,
    inbox: Inbox,
    evaluator: Evaluator,
    /// The evaluator stands still.
    pub hung: bool,
    /// Posts letters; also keeps the box open.
    mailbox: Mailbox,
}

impl Bench {
    /// Everything idle, under this configuration.
    pub fn new(text: &str) -> Self {
        let builder = Builder::new(Arc::default(), Arc::new(Recorders::new(2)), b"");
        let prepared = prepare(&builder, text);
        let live = Live::new(prepared.merge(|_| Runtime::default()));
        let clock = Clock::manual(Wall(1_795_183_200_000));
        clock.advance(Duration::from_secs(1_000));
        let gauges = Arc::new(Gauges::default());
        let (mailbox, inbox) = mailbox();
        let (rings, readers) = (0..2).map(|_| ring::ring(ring::RING_RECORDS)).unzip();
        let (orders, orders_in) = orders();
        let (batches, batches_in) = batches();
        let journal = Arc::new(Journal::memory().unwrap());
        let guard = Guard::new(guard::Parts {
            rings: readers,
            live: live.clone(),
            journal: Arc::clone(&journal),
            batches,
            mailbox: mailbox.clone(),
            orders: orders_in,
            gauges: Arc::clone(&gauges),
            clock: clock.clone(),
        });
        let board = Board::default();
        let world = World {
            live: live.clone(),
            journal: Arc::clone(&journal),
            mailbox: mailbox.clone(),
            notifier: Box::new(ToLog),
            guard: orders,
            prepared,
            gauges,
            tracing: None,
            drills: None,
        };
        let now = Now { mono: clock.now(), wall: clock.wall() };
        let evaluator = Evaluator::new(world, board.clone(), Heartbeat::default(), now, |_| None);
        let batches = batches_in;
        Self { clock, live, rings, guard, board, journal, builder, batches, inbox, evaluator, hung: false, mailbox }
    }

    /// The weight is set by a person and in force.
    pub fn weigh(&mut self, percent: f64) {
        self.command(Verb::SetWeight(Weight::from_percent(percent).unwrap()));
        crate::fixture::until("the weight", || {
            self.judge();
            let snapshot = self.live.load();
            (snapshot.rollout("chat")?.split.weight.percent() == percent).then_some(())
        });
    }

    /// A turn, and another once the journal has said its word about all that came of it.
    pub fn settle(&mut self) {
        self.judge();
        crate::fixture::until("the records", || self.journal.has_room(ROOM).then_some(()));
        self.judge();
    }

    /// An owner's verb, which must be taken, is posted; the next turn carries it out.
    pub fn command(&mut self, verb: Verb) {
        let actor = Actor::new("test", &[Role::Owner]);
        let rollout = RolloutName::new("chat");
        let command = Command { rollout, verb, actor, reason: "test".to_owned(), if_match: None };
        self.mailbox.post(Letter { ask: Ask::Command(command), answer: Box::new(|said| drop(said.unwrap())) }).unwrap();
    }

    /// Reloads another file, in one turn.
    pub fn reload(&mut self, text: &str) -> Result<(), String> {
        let (say, said) = std::sync::mpsc::sync_channel(1);
        let reload = Reload {
            prepared: prepare(&self.builder, text),
            claimed: Arc::default(),
            answer: Box::new(move |result| say.send(result).unwrap()),
        };
        self.mailbox.post(Letter { ask: Ask::Reload(reload), answer: Box::new(|_| ()) }).unwrap();
        self.judge();
        said.try_recv().unwrap()
    }

    /// One turn of the evaluator, if it is alive.
    pub fn judge(&mut self) {
        if self.hung {
            return;
        }
        let mut letters = Vec::new();
        while let Ok(Some(letter)) = self.inbox.next(Duration::ZERO) {
            letters.push(letter);
        }
        let now = Now { mono: self.clock.now(), wall: self.clock.wall() };
        self.evaluator.turn(letters, self.batches.try_iter().collect(), now);
    }

    /// Whether the canary of `chat` is latched at 0.
    pub fn latched(&self) -> bool {
        self.live.load().rollout("chat").unwrap().split.latched
    }
}

fn prepare(builder: &Builder, text: &str) -> Arc<Prepared> {
    let config = config::parse(text, "bench.toml", &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    Arc::new(builder.prepare(Arc::new(config)).unwrap())
}
