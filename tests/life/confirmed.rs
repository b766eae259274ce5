//! The hooks of Flagger's names through a whole serin: a gate holds until its receiver says yes, a rollback hook takes
//! the canary to 0, and a receiver that hangs holds up neither evaluator nor fall.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serin::clock::Clock;
use serin::evaluator::{Command, Refused, RolloutView};
use serin::names::RolloutName;
use serin::rollout::{Actor, Role, Verb};

use crate::fixture::{House, head, rollout, shared, until};

/// A receiver that answers each path with the status that is set for it; 0 never answers.
#[derive(Clone)]
struct Receiver {
    addr: SocketAddr,
    open: Arc<Mutex<Vec<(&'static str, u16)>>>,
    taken: Arc<Mutex<Vec<(String, String)>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { addr: listener.local_addr().unwrap(), open: Arc::default(), taken: Arc::default() };
        let receiver = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let receiver = receiver.clone();
                std::thread::spawn(move || receiver.serve(stream.unwrap()));
            }
        });
        this
    }

    fn answers(&self, path: &'static str, status: u16) {
        let mut open = self.open.lock().unwrap();
        open.retain(|(known, _)| *known != path);
        open.push((path, status));
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4_096];
        let whole = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
            (body.len() >= length).then(|| (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned()))
        };
        let (path, body) = loop {
            if let Some(request) = whole(&bytes) {
                break request;
            }
            let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            bytes.extend_from_slice(&chunk[..n]);
        };
        let status =
            self.open.lock().unwrap().iter().find(|(known, _)| *known == path).map_or(200, |(_, status)| *status);
        self.taken.lock().unwrap().push((path, body));
        if status == 0 {
            return stream.read(&mut chunk).ok().map(|_| ());
        }
        stream
            .write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
            .ok()
    }
}

fn ask(house: &House, verb: Verb) -> Result<Arc<RolloutView>, Refused> {
    let (rollout, actor) = (RolloutName::new("chat"), Actor::new("alice", &[Role::Owner]));
    house.serin().command(Command { rollout, verb, actor, reason: "a test".to_owned(), if_match: None })
}

#[test]
fn a_rollout_waits_for_its_gates_and_falls_by_its_hook() {
    let _shared = shared();
    let receiver = Receiver::start();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let hook = |kind: &str, name: &str| {
        let url = format!("http://{}/{name}", receiver.addr);
        format!(
            "[rollouts.chat.confirm.{name}]\ntype = \"{kind}\"\nurl = \"{url}\"\nevery = \"1s\"\ntimeout = \"500ms\"\n"
        )
    };
    let text = head(1, false)
        + &rollout("chat", nowhere, nowhere, "")
        + "[rollouts.chat.plan]\npreset = \"gradual\"\n"
        + &hook("confirm-rollout", "board")
        + &hook("confirm-traffic-increase", "rise")
        + &hook("rollback", "oncall")
        + &hook("event", "log");
    receiver.answers("/board", 403);
    receiver.answers("/rise", 0);
    receiver.answers("/oncall", 403);
    let house = House::start(&text, &Clock::system());
    let view = || house.serin().board.rollout("chat").unwrap();
    let held = || view().confirm.as_ref().map(|c| c.holds.iter().map(|h| h.why.clone()).collect::<Vec<_>>());
    until("the first answer", || (held()? == ["answered 403"]).then_some(()));
    assert!(view().why.contains("confirm-rollout holds: board answered 403 (asked since "), "{}", view().why);
    let refused = ask(&house, Verb::Start).unwrap_err().to_string();
    assert_eq!(refused, "confirm-rollout holds: board answered 403; start again when it opens");
    receiver.answers("/board", 200);
    until("the yes", || held()?.is_empty().then_some(()));
    ask(&house, Verb::Start).unwrap();
    // A receiver that hangs is no yes; the evaluator goes on meanwhile.
    ask(&house, Verb::Promote { full: false }).unwrap();
    until("no answer", || held()?.first()?.starts_with("did not answer: no answer within 500ms").then_some(()));
    let waits = view().stage.as_ref().unwrap().waits_for;
    assert_eq!((view().phase, waits, view().weight), ("awaiting", Some("confirm"), 10.0));
    receiver.answers("/rise", 200);
    until("the rise", || (view().weight == 25.0).then_some(()));
    receiver.answers("/oncall", 200);
    let latch = until("the fall", || view().latch.clone());
    assert_eq!((latch.actor.as_str(), latch.reason.as_str()), ("hook:oncall", "the hook oncall asked for a rollback"));
    let told = until("the event of the fall", || {
        let taken = receiver.taken.lock().unwrap().clone();
        let events: Vec<String> = taken.into_iter().filter(|(path, _)| path == "/log").map(|(_, body)| body).collect();
        events.last()?.contains("\"phase\":\"Failed\"").then_some(events)
    });
    assert!(told.len() >= 4 && told[0].contains("b starts at 10 %"), "{told:?}");
    let asked = receiver.taken.lock().unwrap().iter().find(|(path, _)| path == "/board").unwrap().1.clone();
    assert_eq!(
        asked,
        "{\"checksum\":\"b\",\"metadata\":{},\"name\":\"chat\",\"namespace\":\"default\",\"phase\":\"Waiting\"}"
    );
}
