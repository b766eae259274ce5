//! How people reach the evaluator: a bounded box of letters, each with its answer's way back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::view::RolloutView;
use crate::names::{RolloutName, VersionName};
use crate::rollout::{Actor, Verb};
use crate::snapshot::Prepared;

/// Letters that may wait; a person's verbs are few.
const LETTERS: usize = 256;

/// What a person asks of a rollout.
#[derive(Clone, Debug)]
pub struct Command {
    /// Which rollout.
    pub rollout: RolloutName,
    /// What.
    pub verb: Verb,
    /// Who, with the roles of the token.
    pub actor: Actor,
    /// Why, for the journal.
    pub reason: String,
    /// `If-Match`: the rollout's generation that the person saw.
    pub if_match: Option<u64>,
}

/// The rollout after the change, which is in force on every worker by then (and durable, if it is a rise).
pub type Answer = Result<Arc<RolloutView>, Refused>;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No rollout of that name: 404.
    #[error("there is no rollout {0:?}")]
    NotFound(String),
    /// The role does not suffice: 403.
    #[error("{0}")]
    Forbidden(String),
    /// The phase forbids it: 409.
    #[error("{why}")]
    Conflict {
        /// One sentence with the remedy.
        why: String,
        /// The verbs that would be allowed.
        allowed: Vec<&'static str>,
    },
    /// The request itself is wrong: 422.
    #[error("{0}")]
    Invalid(String),
    /// `If-Match` names another generation: 412.
    #[error("the rollout is at generation {0} by now: read it again and decide anew")]
    Changed(u64),
    /// The evaluator does not answer, or a rise could not be made durable: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// A letter. `answer` is called exactly once for a command, on the evaluator's thread, and must not block.
pub struct Letter {
    /// What is asked.
    pub ask: Ask,
    /// The way back.
    pub answer: Box<dyn FnOnce(Answer) + Send>,
}

/// What a letter asks.
pub enum Ask {
    /// A verb of a person.
    Command(Command),
    /// Scores from outside, one letter for all that came together: feedback must not fill the box of people's verbs.
    Scores(Vec<Score>),
    /// A new file, whose tables are ready.
    Reload(Reload),
    /// A drill has ended.
    Drilled(Drilled),
    /// A confirm gate, or a rollback hook, has answered.
    Confirmed(Confirmed),
    /// The process ends.
    End,
    /// Wake up and look: something was published by others (a latch of the guard or of the admin's own abort).
    Look,
}

/// A new file on its way. Whoever sets `claimed` first decides: the evaluator takes it, or the sender has given up and
/// nothing of it will ever come into force.
pub struct Reload {
    /// Its tables.
    pub prepared: Arc<Prepared>,
    /// Set once.
    pub claimed: Arc<AtomicBool>,
    /// Called where the evaluator took it, once the board shows what came of it.
    pub answer: Taken,
}

/// The way back to who brought a file: whether it is in force, or why not.
pub type Taken = Box<dyn FnOnce(Result<(), String>) + Send>;

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drilled {
    /// Whose.
    pub rollout: RolloutName,
    /// From the latch to zero on every worker.
    pub took: Duration,
    /// What failed, when it did.
    pub failed: Option<String>,
}

/// What a hook has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Whose.
    pub rollout: RolloutName,
    /// Which hook, by its name in the file.
    pub gate: String,
    /// About which version.
    pub version: VersionName,
    /// About which generation.
    pub generation: u64,
    /// Yes, or why not.
    pub answer: Result<(), String>,
}

/// A score that came by the feedback API, already matched to an arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The rollout's slot.
    pub rollout: RolloutName,
    /// The fact for the judge.
    pub fact: crate::judge::Fact,
}

/// The senders' side. Cheap to clone.
#[derive(Clone)]
pub struct Mailbox(SyncSender<Letter>);

/// The evaluator's side.
pub struct Inbox(Receiver<Letter>);

/// A mailbox.
#[must_use]
pub fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = sync_channel(LETTERS);
    (Mailbox(sender), Inbox(receiver))
}

impl Mailbox {
    /// Posts a letter without waiting.
    ///
    /// # Errors
    /// The box is full or the evaluator has ended; the letter's answer is then never called.
    pub fn post(&self, letter: Letter) -> Result<(), Refused> {
        self.0.try_send(letter).map_err(|error| {
            Refused::Unavailable(match error {
                TrySendError::Full(_) => "the evaluator is behind; try again in a second".to_owned(),
                TrySendError::Disconnected(_) => "the evaluator has ended".to_owned(),
            })
        })
    }
}

impl Mailbox {
    /// Tells the evaluator to end, waiting for room in a full box.
    ///
    /// # Errors
    /// It has ended already.
    pub fn end(&self) -> Result<(), Closed> {
        self.0.send(Letter { ask: Ask::End, answer: Box::new(|_| ()) }).map_err(|_| Closed)
    }
}

impl Inbox {
    /// Waits for the next letter, `wait` at most. `Err` is the end of all senders.
    ///
    /// # Errors
    /// Nobody can post any more.
    pub fn next(&self, wait: Duration) -> Result<Option<Letter>, Closed> {
        match self.0.recv_timeout(wait) {
            Ok(letter) => Ok(Some(letter)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }
}

/// All senders are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;
