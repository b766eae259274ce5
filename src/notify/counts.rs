//! What the scrape sees of notices: what became of them, how many wait, and for how long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::message::Kind;
use super::outbox::Outcome;
use crate::names::Wall;
use crate::rollout::Hook;

/// Shared by the notices' thread, which writes, and the scrape. Never on a request's path.
#[derive(Debug, Default)]
pub struct Counts {
    told: Mutex<BTreeMap<(String, Kind, Outcome), u64>>,
    waiting: Mutex<Vec<Waiting>>,
    calls: Mutex<BTreeMap<(String, Hook, Called), u64>>,
    /// Notices that found no room on their way to the notices' thread.
    pub unheard: AtomicU64,
    /// Changes of the outbox that did not reach the disk.
    pub unwritten: AtomicU64,
}

/// What became of a call of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Called {
    /// 2xx.
    Yes,
    /// Any other status.
    No,
    /// No answer.
    Failed,
    /// An event that found no room.
    Dropped,
}

impl Called {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Called::Yes => "yes",
            Called::No => "no",
            Called::Failed => "failed",
            Called::Dropped => "dropped",
        }
    }
}

/// What waits for one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which receiver.
    pub target: String,
    /// How many messages.
    pub depth: usize,
    /// When the oldest of them happened.
    pub oldest: Option<Wall>,
}

/// How often something became of a kind of message at a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The receiver.
    pub target: String,
    /// The kind of message.
    pub kind: Kind,
    /// What became of it.
    pub result: Outcome,
    /// How often.
    pub count: u64,
}

impl Counts {
    /// Counts what became of a message, or of an attempt.
    pub fn count(&self, target: &str, kind: Kind, result: Outcome) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told.entry((target.to_owned(), kind, result)).or_default() += 1;
    }

    /// Counts a call of a rollout's hook.
    pub fn call(&self, rollout: &str, hook: Hook, called: Called) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry((rollout.to_owned(), hook, called)).or_default() += 1;
    }

    /// Calls of hooks so far, by rollout.
    #[must_use]
    pub fn calls(&self) -> Vec<((String, Hook, Called), u64)> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    /// Replaces what waits.
    pub fn wait(&self, waiting: Vec<Waiting>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// What became of messages so far.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |((target, kind, result), count): (&(String, Kind, Outcome), &u64)| Told {
            target: target.clone(),
            kind: *kind,
            result: *result,
            count: *count,
        };
        told.iter().map(one).collect()
    }

    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often something found no room: on the way here, or on the way to the disk.
    #[must_use]
    pub fn lost(&self) -> [(&'static str, u64); 2] {
        [("queue", self.unheard.load(Ordering::Relaxed)), ("disk", self.unwritten.load(Ordering::Relaxed))]
    }
}
