//! A serin in this process, its files, and waiting with a bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serin::app::{self, Serin};
use serin::clock::Clock;
use serin::config;
use serin::evaluator::{Ask, Command, Letter};
use serin::names::RolloutName;
use serin::rollout::{Actor, Role, Verb};
use tempfile::TempDir;

/// Tests that load the machine hold it shared; the one that measures times holds it alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// Shares the machine with other tests.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Has the machine alone, as far as this binary goes.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The longest that any test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks every millisecond until there is something; panics after [`PATIENCE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let end = clock.now().plus(PATIENCE);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock.now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A running serin with a directory of its own.
pub struct House {
    pub serin: Option<Serin>,
    pub dir: TempDir,
    pub clock: Clock,
}

/// What every configuration here begins with. `store` keeps state in the house's directory.
pub fn head(workers: usize, store: bool) -> String {
    let store = if store { "[store]\npath = \"DIR/state\"\n" } else { "" };
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[listeners.edge]\nlisten = \"127.0.0.1:0\"\n[server]\nworkers = {workers}\n\
         [log]\nlevel = \"error\"\n[limits]\nrequests_per_connection = 100_000_000\n{store}"
    )
}

/// A rollout that takes every path below `/NAME`; `more` are further keys of it.
pub fn rollout(name: &str, stable: SocketAddr, canary: SocketAddr, more: &str) -> String {
    format!(
        "[rollouts.{name}]\nmatch = {{ host = \"*\", path_prefix = \"/{name}\" }}\nunit = [\"header:x-user-id\"]\n{more}\n\
         [rollouts.{name}.stable]\nversion = \"a\"\nendpoints = [\"http://{stable}\"]\n\
         [rollouts.{name}.canary]\nversion = \"b\"\nendpoints = [\"http://{canary}\"]\n"
    )
}

impl House {
    /// Writes the file and starts.
    pub fn start(text: &str, clock: &Clock) -> Self {
        let mut house = Self { serin: None, dir: tempfile::tempdir().unwrap(), clock: clock.clone() };
        house.write(text);
        house.open();
        house
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("serin.toml")
    }

    /// Puts another text into the file; `DIR` stands for the house's directory.
    pub fn write(&self, text: &str) {
        let text = text.replace("DIR", self.dir.path().to_str().unwrap());
        std::fs::write(self.file(), text).unwrap();
    }

    /// Starts from the file.
    pub fn open(&mut self) {
        let config = config::load(&self.file()).unwrap_or_else(|faults| panic!("{faults}"));
        let started = app::start(config, Some(self.file()), &self.clock);
        self.serin = Some(started.unwrap_or_else(|error| panic!("{error}")));
    }

    pub fn serin(&self) -> &Serin {
        self.serin.as_ref().unwrap()
    }

    pub fn edge(&self) -> SocketAddr {
        self.serin().bound.listeners["edge"]
    }

    pub fn admin(&self) -> SocketAddr {
        self.serin().bound.admin.unwrap()
    }
}

/// Hangs the evaluator's thread until what it returns is dropped.
pub fn hang(serin: &Serin) -> SyncSender<()> {
    let (go_on, wait) = sync_channel::<()>(0);
    let (hangs, hung) = sync_channel::<()>(1);
    let command = Command {
        rollout: RolloutName::new("nobody"),
        verb: Verb::Pause,
        actor: Actor::new("test", &[Role::Owner]),
        reason: String::new(),
        if_match: None,
    };
    let answer = Box::new(move |_| {
        hangs.send(()).unwrap();
        assert!(wait.recv().is_err(), "the other end is only dropped");
    });
    serin.mailbox.post(Letter { ask: Ask::Command(command), answer }).unwrap();
    hung.recv().unwrap();
    go_on
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(serin) = self.serin.take() {
            serin.stop();
        }
    }
}
