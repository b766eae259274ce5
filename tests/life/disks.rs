//! Bad disks under the real binary: full, read-only, and a journal that is deleted. A rollback works, a rise is refused with
//! the reason, and nothing is lost in silence.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};
use serin::journal::verify;

use crate::client::{Admin, Caller};
use crate::fixture::{head, rollout, shared, until};
use crate::process::Process;

fn server() -> ModelServer {
    ModelServer::start(Script::named("a"), 21, Clock::system()).unwrap()
}

fn write(dir: &Path, server: SocketAddr) -> std::path::PathBuf {
    let plan = "[[rollouts.chat.plan.stages]]\nweight = 1.0\nresidence = \"24h\"\n\
                [[rollouts.chat.plan.stages]]\nweight = 25.0\nresidence = \"24h\"\n\
                [[rollouts.chat.plan.stages]]\nweight = 100.0\n";
    let text = head(1, true) + &rollout("chat", server, server, "") + plan;
    let file = dir.join("serin.toml");
    std::fs::write(&file, text.replace("DIR", dir.to_str().unwrap())).unwrap();
    file
}

fn look(admin: &mut Admin) -> Value {
    admin.must("GET", "/api/v1/rollouts/chat", &json!(null))
}

fn why_of_a_request(edge: SocketAddr) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Caller::connect(edge).await.unwrap().get("/chat/x", "u").await.unwrap().why })
}

fn metric(admin: &mut Admin, name: &str) -> f64 {
    let text = admin.text("/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A rise is refused with this reason and changes nothing; an abort is in force at once.
fn refuses_rises_and_falls(process: &Process, reason: &str) {
    let mut admin = Admin::new(process.admin);
    let before = look(&mut admin);
    let (status, said) = admin.call("POST", "/api/v1/rollouts/chat/promote", &json!({"reason": "test"}));
    let detail = said["detail"].as_str().unwrap();
    assert!(status == 503 && detail.contains("could not be written") && detail.contains(reason), "{status} {said}");
    let after = look(&mut admin);
    assert_eq!((&after["weight"], &after["generation"]), (&before["weight"], &before["generation"]), "{after}");
    assert_eq!(metric(&mut admin, "serin_journal_failing"), 1.0);
    let fallen = admin.verb("chat", "abort");
    assert!(fallen["latch"].is_object() && fallen["weight"] == 0.0, "{fallen}");
    assert_eq!(why_of_a_request(process.edge), "latched");
    until("the latch and the abort's record that wait for the disk", || {
        (metric(&mut admin, "serin_journal_waiting_records") == 2.0).then_some(())
    });
    assert!(process.said().iter().any(|line| line.contains("the journal cannot be written")), "{:#?}", process.said());
}

/// From now on the process may write no file beyond this length: a write ends as on a full disk.
fn limit(process: &Process, bytes: Option<u64>) {
    prlimit(Some(process.pid()), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_full_disk_refuses_rises_with_the_reason_and_a_rollback_made_meanwhile_outlives_a_crash_after_there_is_room() {
    let _machine = shared();
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let file = write(dir.path(), server.addr());
    let process = Process::start(&file);
    Admin::new(process.admin).verb("chat", "start");
    limit(&process, Some(1));
    refuses_rises_and_falls(&process, "File too large");
    limit(&process, None);
    let mut admin = Admin::new(process.admin);
    until("room", || (metric(&mut admin, "serin_journal_failing") == 0.0).then_some(()));
    assert_eq!(metric(&mut admin, "serin_journal_waiting_records"), 0.0);
    process.crash();
    verify(&dir.path().join("state")).unwrap();
    let process = Process::start(&file);
    let mut admin = Admin::new(process.admin);
    assert!(look(&mut admin)["latch"].is_object(), "the latch that was set while the disk was full is lost");
    assert_eq!(why_of_a_request(process.edge), "latched");
    admin.verb("chat", "clear");
    assert_eq!(admin.verb("chat", "start")["weight"], 1.0);
}

#[test]
fn a_journal_that_is_deleted_refuses_rises_with_the_reason_and_nothing_rises_after_a_restart() {
    let _machine = shared();
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let file = write(dir.path(), server.addr());
    let mut process = Process::start(&file);
    Admin::new(process.admin).verb("chat", "start");
    std::fs::remove_dir_all(dir.path().join("state/journal")).unwrap();
    refuses_rises_and_falls(&process, "removed while serin runs");
    process.signal(Signal::TERM);
    assert!(process.ended().success());
    let lost = |line: &String| line.contains("the next start will not know of it");
    until("its last words", || process.said().iter().any(lost).then_some(()));
    let process = Process::start(&file);
    let said = look(&mut Admin::new(process.admin));
    assert_eq!((&said["phase"], &said["weight"]), (&json!("idle"), &json!(0.0)), "{said}");
}

/// Root may write everywhere: the binary runs as nobody then, from a folder that nobody may enter.
struct Unprivileged {
    dir: tempfile::TempDir,
    root: bool,
}

const NOBODY: u32 = 65_534;

impl Unprivileged {
    fn new() -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap(), root: rustix::process::geteuid().is_root() };
        std::fs::copy(env!("CARGO_BIN_EXE_serin"), this.dir.path().join("serin")).unwrap();
        this.own(this.dir.path());
        this
    }

    fn own(&self, path: &Path) {
        if self.root {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn run(&self, file: &Path) -> Command {
        let mut command = Command::new(self.dir.path().join("serin"));
        command.arg("run").arg("-c").arg(file).stdin(Stdio::null()).stderr(Stdio::piped());
        if self.root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_store_that_may_not_be_written_refuses_the_start_with_its_name() {
    let _machine = shared();
    let (server, house) = (server(), Unprivileged::new());
    let file = write(house.dir.path(), server.addr());
    let store = house.dir.path().join("state");
    std::fs::create_dir(&store).unwrap();
    house.own(&store);
    allow(&store, 0o555);
    let ended = house.run(&file).output().unwrap();
    allow(&store, 0o755);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.contains("Permission denied"), "{said}");
    assert!(said.contains(store.to_str().unwrap()), "{said}");
}

#[test]
fn folders_that_become_read_only_stop_no_rollback_and_what_was_acknowledged_outlives_a_crash() {
    let _machine = shared();
    let (server, house) = (server(), Unprivileged::new());
    let file = write(house.dir.path(), server.addr());
    let folders = ["state", "state/journal", "state/evidence", "state/outbox"].map(|name| house.dir.path().join(name));
    let process = Process::of(house.run(&file));
    Admin::new(process.admin).verb("chat", "start");
    folders.iter().filter(|path| path.exists()).for_each(|path| allow(path, 0o555));
    let mut admin = Admin::new(process.admin);
    assert_eq!(admin.verb("chat", "promote")["weight"], 25.0, "what is open can still be written");
    assert!(admin.verb("chat", "abort")["latch"].is_object());
    process.crash();
    let process = Process::of(house.run(&file));
    let said = look(&mut Admin::new(process.admin));
    assert!(said["latch"].is_object() && said["weight"] == 0.0, "{said}");
    assert_eq!(why_of_a_request(process.edge), "latched");
    process.crash();
    folders.iter().filter(|path| path.exists()).for_each(|path| allow(path, 0o755));
}
