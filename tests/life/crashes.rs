//! kill -9 at random moments while people start, promote, approve, abort and clear: what was acknowledged is kept, and
//! nothing comes back higher than the last durable record allows.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};
use serin::journal::{Body, verify, visit};
use serin::rollout::{Phase, State};
use serin::split::Weight;

use crate::client::{Admin, Caller};
use crate::fixture::{head, rollout, shared, until};
use crate::process::Process;

/// Kills of an ordinary run; `SERIN_KILLS` asks for another number (`tests/run --full` for 200).
const KILLS: usize = 40;
/// Every so manieth kill comes while the process is still starting.
const STARTING: usize = 5;
/// A process is killed after fewer answers than that, and so many microseconds at most after the last of them; on a machine
/// that has no time for it, it lives until then.
const ANSWERS: u64 = 12;
const LAST: u64 = 6_000;
/// The longest life of one that is killed while it starts, in microseconds.
const BIRTH: u64 = 60_000;
/// What leads upwards.
const UP: [&str; 4] = ["start", "promote", "approve", "clear"];
/// What must have been acknowledged at least once, or the trial has shown nothing.
const MUST: [&str; 5] = ["start", "promote", "approve", "abort", "clear"];

/// A small generator (Knuth's MMIX constants); a failure prints the round.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What an answer said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    generation: u64,
    weight: f64,
    latched: bool,
}

impl Told {
    fn of(said: &Value) -> Self {
        Self {
            generation: said["generation"].as_u64().unwrap(),
            weight: said["weight"].as_f64().unwrap(),
            latched: said["latch"].is_object(),
        }
    }

    fn durable(state: &State) -> Self {
        Self { generation: state.generation, weight: state.weight.percent(), latched: state.latch.is_some() }
    }
}

/// What became of a call.
enum Heard {
    /// 200, whole.
    Said(Value),
    /// Another status, with what is possible.
    Refused(Value),
    /// No whole answer: the process is gone, and nothing was acknowledged.
    Gone,
}

/// One verb, on a connection of its own.
fn ask(admin: SocketAddr, verb: &str) -> Heard {
    let body = json!({"reason": "a crash may come"}).to_string();
    let head = format!(
        "POST /api/v1/rollouts/staged/{verb} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let call = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let Ok(answer) = call() else { return Heard::Gone };
    let text = String::from_utf8_lossy(&answer);
    match text.split_once("\r\n\r\n") {
        Some((head, body)) => match serde_json::from_str(body) {
            Ok(said) if head.starts_with("HTTP/1.1 200") => Heard::Said(said),
            Ok(said) => Heard::Refused(said),
            Err(_) => Heard::Gone,
        },
        None => Heard::Gone,
    }
}

/// What people have been told by the processes up to now.
#[derive(Default)]
struct People {
    last: Told,
    /// Answers of any kind.
    heard: u64,
    acknowledged: BTreeMap<String, usize>,
}

/// Asks for one possible thing after the other until the process is gone; three times of four for what goes up.
fn work(admin: SocketAddr, seed: u64, people: &Mutex<People>) {
    let mut dice = Dice(seed);
    let mut possible: Vec<String> = MUST.map(str::to_owned).to_vec();
    loop {
        let up = possible.iter().find(|verb| UP.contains(&verb.as_str())).filter(|_| dice.roll(4) > 0);
        let any = &possible[usize::try_from(dice.roll(possible.len() as u64)).unwrap()];
        let verb = up.unwrap_or(any).clone();
        let said = match ask(admin, &verb) {
            Heard::Said(said) => {
                let mut people = people.lock().unwrap();
                people.last = Told::of(&said);
                *people.acknowledged.entry(verb).or_default() += 1;
                said
            }
            Heard::Refused(said) => said,
            Heard::Gone => return,
        };
        people.lock().unwrap().heard += 1;
        if let Some(words) = said["allowed"].as_array() {
            // Weights by hand and drills are others' trials.
            let words =
                words.iter().filter_map(Value::as_str).filter(|w| !["set weight", "extend", "drill"].contains(w));
            possible = words.map(str::to_owned).collect();
        }
    }
}

/// What the files have as the crash left them; a torn tail is none. A latch that no record has taken up yet counts as taken
/// up: the next start does so.
fn durable(dir: &Path) -> Option<State> {
    let mut last: Option<State> = None;
    let read = visit(&dir.join("state"), &mut |entry| match entry.body {
        Body::Record(record) if record.rollout.as_str() == "staged" => {
            // A record that was on its way when the latch was set does not lift it.
            let fallen = last.take().and_then(|state| state.latch).filter(|_| record.from != Phase::RolledBack);
            last = Some(fallen.filter(|_| record.state.latch.is_none()).map_or(record.state.clone(), |latch| State {
                latch: Some(latch),
                weight: Weight::ZERO,
                generation: record.generation + 1,
                ..record.state
            }));
        }
        Body::Latch(latched) => {
            if let Some(state) = last.as_mut().filter(|state| state.latch.is_none()) {
                (state.latch, state.weight) = (Some(latched.latch), Weight::ZERO);
                state.generation += 1;
            }
        }
        _ => {}
    });
    // Whether what lies behind it is a torn tail and nothing worse is said by the next start, which refuses all else.
    drop(read);
    last
}

fn config(dir: &Path, server: SocketAddr) -> String {
    let plan = "[[rollouts.staged.plan.stages]]\nweight = 1.0\nresidence = \"24h\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 10.0\nresidence = \"24h\"\napproval = \"one\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 100.0\n";
    (head(1, true) + &rollout("staged", server, server, "") + plan).replace("DIR", dir.to_str().unwrap())
}

/// What a process that came back after a crash must say and do.
fn came_back(process: &Process, dir: &Path, state: &State, round: usize) {
    let said = Admin::new(process.admin).must("GET", "/api/v1/rollouts/staged", &json!(null));
    assert_eq!(Told::of(&said), Told::durable(state), "round {round}: the last durable record, no more and no less");
    verify(&dir.join("state")).unwrap_or_else(|broken| panic!("round {round}: {broken}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let mut caller = Caller::connect(process.edge).await.unwrap();
        caller.get("/staged/x", "u").await.unwrap()
    });
    assert_eq!(answer.why == "latched", state.latch.is_some(), "round {round}: what callers meet: {answer:?}");
    assert!(!answer.canary || state.weight.buckets() > 0, "round {round}: {answer:?}");
}

#[test]
fn kills_at_random_moments_lose_nothing_that_was_acknowledged_and_raise_nothing() {
    let _machine = shared();
    let kills = std::env::var("SERIN_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let server = ModelServer::start(Script::named("a"), 21, Clock::system()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serin.toml");
    std::fs::write(&file, config(dir.path(), server.addr())).unwrap();
    let people = Arc::new(Mutex::new(People::default()));
    let (mut dice, mut latches, mut ahead) = (Dice(4), 0, 0);
    let mut left = None;
    for round in 0..kills {
        if round % STARTING == STARTING - 1 {
            Process::crash_young(&file, Duration::from_micros(dice.roll(BIRTH)));
            let (now, before) = (durable(dir.path()), left.as_ref().map(Told::durable));
            assert_eq!(
                now.as_ref().map(Told::durable),
                before,
                "round {round}: a start that is killed changes nothing"
            );
            continue;
        }
        let process = Process::start(&file);
        if let Some(state) = &left {
            came_back(&process, dir.path(), state, round);
        }
        let (admin, seed) = (process.admin, dice.roll(u64::from(u32::MAX)));
        let enough = people.lock().unwrap().heard + dice.roll(ANSWERS);
        let person = std::thread::spawn({
            let people = Arc::clone(&people);
            move || work(admin, seed, &people)
        });
        until("some answers", || (people.lock().unwrap().heard >= enough).then_some(()));
        std::thread::park_timeout(Duration::from_micros(dice.roll(LAST)));
        process.crash();
        person.join().unwrap();
        left = durable(dir.path());
        let told = people.lock().unwrap().last;
        match left.as_ref().map(Told::durable) {
            None => assert_eq!(told, Told::default(), "round {round}: acknowledged and not in the journal"),
            Some(kept) => {
                assert!(kept.generation >= told.generation, "round {round}: {told:?} was lost, {kept:?} is kept");
                assert!(kept.generation > told.generation || kept == told, "round {round}: {told:?}, kept {kept:?}");
                latches += usize::from(kept.latched);
                ahead += usize::from(kept.generation > told.generation);
            }
        }
    }
    let acknowledged = &people.lock().unwrap().acknowledged;
    println!(
        "{kills} kills; acknowledged {acknowledged:?}; latched after {latches}, a change durable and not yet answered after {ahead}"
    );
    assert!(MUST.iter().all(|verb| acknowledged.contains_key(*verb)), "{acknowledged:?}");
    assert!(latches > 0, "no crash met a latch");
}
