//! A second version through the file and a reload: refused, queued, or taking the first one's place; none lifts a latch.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};

use crate::client::Admin;
use crate::fixture::{House, head, rollout, shared, until};
use crate::process::Process;

fn text(second: &str, canary: &str, server: SocketAddr) -> String {
    let plan = format!(
        "[rollouts.chat.plan]\nsecond_version = \"{second}\"\n\
         [[rollouts.chat.plan.stages]]\nweight = 10.0\nresidence = \"24h\"\n\
         [[rollouts.chat.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
         [[rollouts.chat.plan.stages]]\nweight = 100.0\n"
    );
    let text = head(1, true) + &rollout("chat", server, server, "") + &plan;
    text.replace("version = \"b\"", &format!("version = \"{canary}\""))
}

/// Version under release, phase, weight, the version that waits, and whether it is latched.
fn stands(admin: &mut Admin) -> (String, String, f64, Value, bool) {
    let said = admin.must("GET", "/api/v1/rollouts/chat", &json!(null));
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    (
        word(&said["arms"]["canary"]["version"]),
        word(&said["phase"]),
        said["weight"].as_f64().unwrap(),
        said["next_version"].clone(),
        said["latch"].is_object(),
    )
}

#[track_caller]
fn is(admin: &mut Admin, version: &str, phase: &str, weight: f64, next: Option<&str>) {
    let expect = (version.to_owned(), phase.to_owned(), weight, json!(next), phase == "rolled_back");
    assert_eq!(stands(admin), expect);
}

/// A house in whose first stage version b stands at 10 %, and the way to bring it another file.
struct Trial {
    house: House,
    admin: Admin,
    second: &'static str,
    server: ModelServer,
}

impl Trial {
    fn new(second: &'static str) -> Self {
        let server = ModelServer::start(Script::named("a"), 61, Clock::system()).unwrap();
        let house = House::start(&text(second, "b", server.addr()), &Clock::system());
        let mut admin = Admin::new(house.admin());
        admin.verb("chat", "start");
        is(&mut admin, "b", "running", 10.0, None);
        Self { house, admin, second, server }
    }

    fn reload(&mut self, canary: &str) -> (u16, Value) {
        self.house.write(&text(self.second, canary, self.server.addr()));
        self.admin.call("POST", "/api/v1/reload", &json!(null))
    }

    fn restart(&mut self) {
        self.house.serin.take().unwrap().stop();
        self.house.open();
        self.admin = Admin::new(self.house.admin());
    }

    #[track_caller]
    fn takes(&mut self, canary: &str) {
        let (status, said) = self.reload(canary);
        assert_eq!(status, 200, "{said}");
    }

    #[track_caller]
    fn is(&mut self, version: &str, phase: &str, weight: f64, next: Option<&str>) {
        is(&mut self.admin, version, phase, weight, next);
    }
}

#[test]
fn a_second_version_is_refused_until_the_first_one_is_done_and_its_latch_lifted() {
    let _machine = shared();
    let mut trial = Trial::new("reject");
    let refused = |trial: &mut Trial, remedy: &str| {
        let (status, said) = trial.reload("c");
        let detail = said["detail"].as_str().unwrap();
        assert!(status == 422 && detail.contains(remedy) && detail.contains("reject"), "{status} {said}");
    };
    refused(&mut trial, "complete or abort it");
    trial.is("b", "running", 10.0, None);
    assert_eq!(trial.admin.verb("chat", "promote")["weight"], 50.0, "what runs goes on");
    trial.admin.verb("chat", "abort");
    refused(&mut trial, "clear it");
    trial.is("b", "rolled_back", 0.0, None);
    trial.admin.verb("chat", "clear");
    trial.takes("c");
    trial.is("c", "idle", 0.0, None);
    trial.admin.verb("chat", "start");
    trial.is("c", "running", 10.0, None);
}

#[test]
fn a_second_version_waits_shown_and_the_newest_one_follows_when_the_latch_is_lifted() {
    let _machine = shared();
    let mut trial = Trial::new("queue");
    trial.takes("c");
    trial.is("b", "running", 10.0, Some("c"));
    trial.takes("d");
    trial.is("b", "running", 10.0, Some("d"));
    // Taken back, and brought again.
    trial.takes("b");
    trial.is("b", "running", 10.0, None);
    trial.takes("d");
    trial.admin.verb("chat", "abort");
    trial.is("b", "rolled_back", 0.0, Some("d"));
    trial.takes("e");
    trial.is("b", "rolled_back", 0.0, Some("e"));
    // It waits across a restart, too; what stands at 0 is the file's by then.
    trial.restart();
    trial.is("e", "rolled_back", 0.0, Some("e"));
    trial.admin.verb("chat", "clear");
    trial.is("e", "idle", 0.0, None);
}

#[test]
fn a_version_that_waits_is_not_served_in_the_place_of_the_first_one_after_a_restart() {
    let _machine = shared();
    let mut trial = Trial::new("queue");
    trial.takes("c");
    trial.is("b", "running", 10.0, Some("c"));
    // The file has c alone: of b nothing is known any more but that it was proven, and c never was.
    trial.restart();
    trial.is("c", "rolled_back", 0.0, Some("c"));
    let said = trial.admin.must("GET", "/api/v1/rollouts/chat", &json!(null));
    let reason = said["latch"]["reason"].as_str().unwrap();
    assert!(said["latch"]["actor"] == "config" && reason.starts_with("b is not in the file"), "{said}");
    trial.admin.verb("chat", "clear");
    trial.is("c", "idle", 0.0, None);
    // Nor when it stands at 0 by then: whoever lets it go on would let c go on.
    let mut trial = Trial::new("queue");
    trial.admin.verb("chat", "step-back");
    trial.takes("c");
    trial.restart();
    trial.is("c", "rolled_back", 0.0, Some("c"));
}

#[test]
fn a_second_version_takes_the_first_one_s_place_from_the_first_stage_and_lifts_no_latch() {
    let _machine = shared();
    let mut trial = Trial::new("supersede");
    trial.admin.verb("chat", "promote");
    trial.is("b", "running", 50.0, None);
    trial.takes("c");
    until("c in the first stage", || (stands(&mut trial.admin).1 == "running").then_some(()));
    trial.is("c", "running", 10.0, None);
    trial.admin.verb("chat", "abort");
    trial.takes("d");
    trial.is("c", "rolled_back", 0.0, Some("d"));
    trial.admin.verb("chat", "clear");
    trial.is("d", "idle", 0.0, None);
    let journal = trial.admin.must("GET", "/api/v1/journal?limit=1000", &json!(null));
    let decisions: Vec<&str> =
        journal["items"].as_array().unwrap().iter().map(|item| item["decision"].as_str().unwrap()).collect();
    let expect = ["start", "promote", "adopt", "start", "latch", "abort", "queue", "clear"];
    assert_eq!(decisions, expect);
}

#[test]
fn a_signal_brings_the_second_version_as_the_api_does() {
    let _machine = shared();
    let server = ModelServer::start(Script::named("a"), 62, Clock::system()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serin.toml");
    let write = |canary: &str| {
        std::fs::write(&file, text("queue", canary, server.addr()).replace("DIR", dir.path().to_str().unwrap()))
            .unwrap();
    };
    write("b");
    let process = Process::start(&file);
    let mut admin = Admin::new(process.admin);
    admin.verb("chat", "start");
    write("c");
    process.signal(Signal::HUP);
    until("c waits", || (stands(&mut admin).3 == "c").then_some(()));
    is(&mut admin, "b", "running", 10.0, Some("c"));
}
