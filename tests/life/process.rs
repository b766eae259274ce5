//! The real binary: started, found, signalled, and ended with its test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fixture::until;

/// A running `serin run`.
pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    pub edge: SocketAddr,
    pub admin: SocketAddr,
}

fn run(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    command.arg("run").arg("-c").arg(file).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts it and waits until it says where it listens.
    pub fn start(file: &Path) -> Self {
        Self::of(run(file))
    }

    /// The same for a command of one's own.
    pub fn of(mut command: Command) -> Self {
        Self::wait(command.stderr(Stdio::piped()).spawn().unwrap())
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Starts it and ends it as a crash would, wherever its start is by then.
    pub fn crash_young(file: &Path, after: Duration) {
        let mut child = run(file).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn wait(mut child: Child) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&said), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line))
        });
        let bound = until("where the process listens", || {
            let said = said.lock().unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {said:#?}");
            said.iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["event"] == "listening")
        });
        let address = |value: &Value| value.as_str().unwrap().parse().unwrap();
        Self { child, said, edge: address(&bound["listeners"]["edge"]), admin: address(&bound["admin"]) }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has said, for failures.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        until("the end of the process", || self.child.try_wait().unwrap())
    }

    /// Ends it as a crash would.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
