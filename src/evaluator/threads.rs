//! Starts the guard and the judge on OS threads of their own.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::effects::World;
use super::guard::{self, BATCHES, Batch, Guard, Order};
use super::heartbeat::Heartbeat;
use super::mailbox::{Ask, Inbox};
use super::turn::{Evaluator, Known};
use super::view::Board;
use crate::clock::Clock;
use crate::journal::{Evidence, Kept};
use crate::measure::SharedMemory;
use crate::names::RolloutName;
use crate::rollout::Now;

/// The judge wakes at least this often: facts are never older in its eyes.
const WAKE_EVERY: Duration = Duration::from_millis(50);
/// How often the evidence is kept: what came after is lost in both arms alike when the process is killed.
pub const KEEP_EVERY: Duration = Duration::from_secs(10);
/// Checkpoints on their way to the disk.
const EVIDENCE: usize = 256;
/// Orders on their way to the guard.
const ORDERS: usize = 1_024;

/// The way from the evaluator to the guard.
#[must_use]
pub fn orders() -> (std::sync::mpsc::SyncSender<Order>, Receiver<Order>) {
    sync_channel(ORDERS)
}

/// The way from the guard to the evaluator.
#[must_use]
pub fn batches() -> (std::sync::mpsc::SyncSender<Batch>, Receiver<Batch>) {
    sync_channel(BATCHES)
}

/// Checkpoints of the evidence on their way to the disk.
pub type Keeping = SyncSender<(RolloutName, Kept)>;

/// What the judge's thread is made of.
pub struct Parts {
    /// What effects act on.
    pub world: World,
    /// Where pictures are posted.
    pub board: Board,
    /// The sign of life.
    pub heartbeat: Heartbeat,
    /// Letters.
    pub inbox: Inbox,
    /// Facts from the guard.
    pub batches: Receiver<Batch>,
    /// The source of time.
    pub clock: Clock,
    /// Where checkpoints of the evidence go, every [`KEEP_EVERY`].
    pub evidence: Option<Keeping>,
}

/// Starts the thread that writes evidence to disk: its own, so that a hung disk delays nobody.
///
/// # Errors
/// No thread could be started.
pub fn spawn_evidence(evidence: Evidence) -> io::Result<(Keeping, JoinHandle<()>)> {
    let (sender, kept) = sync_channel(EVIDENCE);
    let handle = std::thread::Builder::new().name("serin-evidence".to_owned()).spawn(move || {
        while let Ok((rollout, kept)) = kept.recv() {
            if let Err(error) = evidence.save(&rollout, &kept) {
                tracing::error!(rollout.name = %rollout, error = %error, "the evidence could not be kept; after a crash the stage's proof starts anew");
            }
        }
    })?;
    Ok((sender, handle))
}

/// Starts the guard's thread; it ends with the evaluator.
///
/// # Errors
/// No thread could be started.
pub fn spawn_guard(parts: guard::Parts, memory: SharedMemory) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("serin-guard".to_owned()).spawn(move || {
        raise_priority();
        Guard::new(parts).remembering(memory).run();
    })
}

/// Starts the judge's thread; it ends when every mailbox is gone. The first pictures are posted before this returns.
///
/// # Errors
/// No thread could be started.
pub fn spawn_judge(
    parts: Parts,
    known: impl Fn(&RolloutName) -> Option<Known> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (ready, started) = sync_channel::<()>(1);
    let handle = std::thread::Builder::new().name("serin-judge".to_owned()).spawn(move || {
        raise_priority();
        let Parts { world, board, heartbeat, inbox, batches, clock, evidence } = parts;
        let mut kept_at = clock.now();
        let now = Now { mono: clock.now(), wall: clock.wall() };
        let mut evaluator = Evaluator::new(world, board, heartbeat.clone(), now, known);
        heartbeat.beat(now.mono, now.wall);
        if ready.send(()).is_err() {
            return;
        }
        while let Ok(first) = inbox.next(WAKE_EVERY.min(evaluator.due(clock.now()))) {
            let mut letters: Vec<_> = first.into_iter().collect();
            while letters.len() < 64
                && let Ok(Some(letter)) = inbox.next(Duration::ZERO)
            {
                letters.push(letter);
            }
            let ends = letters.iter().any(|letter| matches!(letter.ask, Ask::End));
            let now = Now { mono: clock.now(), wall: clock.wall() };
            evaluator.turn(letters, drain(&batches), now);
            if let Some(evidence) = &evidence
                && (ends || now.mono.since(kept_at) >= KEEP_EVERY)
            {
                kept_at = now.mono;
                evaluator.keep(evidence);
            }
            if ends {
                return;
            }
        }
    })?;
    started.recv().map_err(|_| io::Error::other("the judge's thread ended before it began"))?;
    Ok(handle)
}

fn drain(batches: &Receiver<Batch>) -> Vec<Batch> {
    let mut all = Vec::new();
    while all.len() < BATCHES {
        match batches.try_recv() {
            Ok(batch) => all.push(batch),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    all
}

/// Workers on every core can starve the judge: this thread gets a higher priority where that is allowed.
pub fn raise_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, -5) {
        tracing::debug!(error = %error, "the thread keeps its priority");
    }
}
