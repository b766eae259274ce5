//! Every phase against every verb, and every role against every verb, by the HTTP API and by the command line: what the
//! tables in `rollout` allow is done, all else is refused with what would be allowed.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};
use serin::rollout::{Actor, Phase, Role, Verb, VerbArgs, possible_beside};

use crate::client::Admin;
use crate::fixture::{House, head, rollout, shared};

/// How a verb is asked for: the two doors say the same.
trait Door {
    /// The status (200, 403, 409 …) and what was said: the rollout, or the refusal's words.
    fn ask(&mut self, name: &str, verb: Verb) -> (u16, String);
}

impl Door for Admin {
    fn ask(&mut self, name: &str, verb: Verb) -> (u16, String) {
        let place = format!("/api/v1/rollouts/{name}");
        let mut body = json!({"reason": "the table"});
        match verb {
            Verb::SetWeight(weight) => body["weight"] = json!(weight.percent()),
            Verb::Extend { .. } => body["by"] = json!("1h"),
            Verb::Promote { full: true } => body["full"] = json!(true),
            _ => {}
        }
        let (status, said) = match verb {
            Verb::SetWeight(_) => self.call("PUT", &format!("{place}/weight"), &body),
            _ => self.call("POST", &format!("{place}/{}", verb.name()), &body),
        };
        if status == 409 {
            let words: Vec<&str> = said["allowed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            return (status, words.join(", "));
        }
        (status, said.to_string())
    }
}

/// The binary, asked as a person asks it.
struct Terminal {
    admin: String,
    token: Option<PathBuf>,
}

impl Terminal {
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
        command.args(words).args(["--admin", &self.admin, "--reason", "the table"]);
        if let Some(file) = &self.token {
            command.arg("--token-file").arg(file);
        }
        command.output().unwrap()
    }
}

impl Door for Terminal {
    fn ask(&mut self, name: &str, verb: Verb) -> (u16, String) {
        let done = match verb {
            Verb::SetWeight(weight) => self.run(&["set", "weight", name, &weight.percent().to_string()]),
            Verb::Extend { .. } => self.run(&["extend", name, "--by", "1h"]),
            Verb::Promote { full: true } => self.run(&["promote", name, "--full"]),
            _ => self.run(&[verb.name(), name]),
        };
        let said = String::from_utf8(done.stderr).unwrap();
        // A refusal ends with what is possible, or says which role is missing.
        match done.status.code() {
            Some(0) => (200, String::from_utf8(done.stdout).unwrap()),
            Some(5) => match said.trim_end().rsplit_once("possible are: ") {
                Some((_, words)) => (409, words.to_owned()),
                None => (403, said),
            },
            other => panic!("{verb:?}: {other:?} {said}"),
        }
    }
}

fn verb(name: &str) -> Verb {
    let args = VerbArgs {
        full: false,
        by: Some(std::time::Duration::from_secs(3_600)),
        weight: Some(serin::split::Weight::from_percent(2.0).unwrap()),
    };
    Verb::parse(name, args).unwrap()
}

/// Every verb; `promote` a second time with `--full`.
fn verbs() -> impl Iterator<Item = Verb> {
    Verb::NAMES.into_iter().map(verb).chain([Verb::Promote { full: true }])
}

fn look(admin: &mut Admin, name: &str) -> Value {
    admin.must("GET", &format!("/api/v1/rollouts/{name}"), &json!(null))
}

const PHASES: [Phase; 7] =
    [Phase::Idle, Phase::Running, Phase::Awaiting, Phase::Paused, Phase::Soaking, Phase::Completed, Phase::RolledBack];

/// Brings a rollout from wherever it is into the phase.
fn reach(admin: &mut Admin, name: &str, phase: Phase) -> Value {
    admin.verb(name, "abort");
    if look(admin, name)["latch"].is_object() {
        admin.verb(name, "clear");
    }
    let steps: &[&str] = match phase {
        Phase::Idle => &[],
        Phase::Running => &["start", "promote"],
        Phase::Awaiting => &["start", "promote", "promote"],
        Phase::Paused => &["start", "promote", "pause"],
        Phase::Soaking => &["start", "promote", "promote", "approve", "promote"],
        Phase::Completed => &["start", "promote", "promote", "approve", "promote", "promote"],
        Phase::RolledBack => &["start", "promote", "abort"],
    };
    match (name, steps.split_first()) {
        // A split without a plan begins with its weight and has nothing to be promoted to.
        ("plain", Some((_, rest))) => {
            admin.weight(name, 1.0);
            rest.iter().filter(|step| **step != "promote").for_each(|step| drop(admin.verb(name, step)));
        }
        _ => steps.iter().for_each(|step| drop(admin.verb(name, step))),
    }
    let said = look(admin, name);
    assert_eq!(said["phase"], phase.as_str(), "{name}: {said}");
    said
}

fn house(tokens: &str) -> (ModelServer, House) {
    let server = ModelServer::start(Script::named("a"), 21, Clock::system()).unwrap();
    let at = server.addr();
    let plan = "[[rollouts.staged.plan.stages]]\nweight = 1.0\nresidence = \"24h\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 10.0\nresidence = \"24h\"\napproval = \"one\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 100.0\n";
    let text =
        head(1, false) + tokens + &rollout("staged", at, at, "") + plan + &rollout("plain", at, at, "weight = 0.0");
    (server, House::start(&text, &Clock::system()))
}

/// Walks the whole table through one door; returns how many verbs were done and how many refused.
fn walk(admin: &mut Admin, door: &mut dyn Door, name: &str, phases: &[Phase]) -> (usize, usize) {
    let (mut done, mut refused) = (0, 0);
    for &phase in phases {
        let mut before = reach(admin, name, phase);
        for verb in verbs() {
            let listed: Vec<&str> = before["allowed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let (status, said) = door.ask(name, verb);
            let after = look(admin, name);
            let what = format!("{name}, {phase:?}, {verb:?}: {status} {said}");
            if listed.contains(&verb.name()) || possible_beside(phase, verb) {
                assert_eq!(status, 200, "{what}");
                let changed = after["generation"].as_u64() > before["generation"].as_u64();
                assert_eq!(changed, listed.contains(&verb.name()) || verb == Verb::Gates, "{what}: {after}");
                done += 1;
                before = reach(admin, name, phase);
            } else {
                assert_eq!((status, said.as_str()), (409, listed.join(", ").as_str()), "{what}");
                assert_eq!(after["generation"], before["generation"], "{what}: refused and yet changed");
                refused += 1;
            }
        }
    }
    (done, refused)
}

/// The phases that a split without a plan has.
const PLAIN: [Phase; 4] = [Phase::Idle, Phase::Running, Phase::Paused, Phase::RolledBack];

#[test]
fn every_phase_takes_the_verbs_of_its_table_by_the_api_and_answers_409_to_all_others() {
    let _machine = shared();
    let (_server, house) = house("");
    let (mut admin, mut door) = (Admin::new(house.admin()), Admin::new(house.admin()));
    let staged = walk(&mut admin, &mut door, "staged", &PHASES);
    let plain = walk(&mut admin, &mut door, "plain", &PLAIN);
    println!("by the API: staged {staged:?}, plain {plain:?} done and refused");
}

#[test]
fn every_phase_takes_the_verbs_of_its_table_by_the_command_line_and_refuses_all_others() {
    let _machine = shared();
    let (_server, house) = house("");
    let mut admin = Admin::new(house.admin());
    let mut door = Terminal { admin: format!("http://{}", house.admin()), token: None };
    let staged = walk(&mut admin, &mut door, "staged", &PHASES);
    let plain = walk(&mut admin, &mut door, "plain", &PLAIN);
    println!("by the command line: staged {staged:?}, plain {plain:?} done and refused");
}

#[test]
fn every_role_may_ask_for_the_verbs_of_its_table_and_is_answered_403_to_all_others() {
    let _machine = shared();
    let dir = tempfile::tempdir().unwrap();
    let secret = |role: Role| format!("{}-secret-0123456789", role.as_str());
    let mut tokens = String::new();
    for role in Role::ALL {
        std::fs::write(dir.path().join(role.as_str()), secret(role)).unwrap();
        tokens += &format!(
            "[[admin.tokens]]\nname = \"{0}\"\nroles = [\"{0}\"]\nsecret = \"{1}\"\n",
            role.as_str(),
            secret(role)
        );
    }
    for role in Role::ALL {
        for by_hand in [false, true] {
            // One that is rolled back for the first time: a third rollback would want an owner's clear.
            let (_server, house) = house(&tokens);
            let mut owner = Admin::new(house.admin()).with_token(&secret(Role::Owner));
            let mut api = Admin::new(house.admin()).with_token(&secret(role));
            let file = dir.path().join(role.as_str());
            let mut terminal = Terminal { admin: format!("http://{}", house.admin()), token: Some(file) };
            let door: &mut dyn Door = if by_hand { &mut terminal } else { &mut api };
            for verb in std::iter::once(Verb::Clear).chain(verbs().filter(|verb| *verb != Verb::Clear)) {
                let before = reach(&mut owner, "staged", taking(verb));
                let (status, said) = door.ask("staged", verb);
                let may = Actor::new(role.as_str(), &[role]).may(verb);
                assert_eq!(status, if may { 200 } else { 403 }, "{role:?}, {verb:?}: {said}");
                let same = look(&mut owner, "staged")["generation"] == before["generation"];
                assert_eq!(same, !may, "{role:?}, {verb:?}: {said}");
            }
        }
    }
}

/// A phase that takes the verb, so that nothing but the role can refuse.
fn taking(verb: Verb) -> Phase {
    match verb {
        Verb::Start => Phase::Idle,
        Verb::Approve => Phase::Awaiting,
        Verb::Resume => Phase::Paused,
        Verb::Clear => Phase::RolledBack,
        _ => Phase::Running,
    }
}
