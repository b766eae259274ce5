//! Messages for tests, and receivers that do what a test wants.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::message::{Kind, Message, Severity};
use crate::names::{RolloutName, VersionName, Wall};

/// A message of rollout `chat`.
pub fn message(id: &str, kind: Kind) -> Message {
    Message {
        id: id.to_owned(),
        at: Wall(1_795_183_200_000),
        kind,
        severity: Severity::Info,
        rollout: Some(RolloutName::new("chat")),
        version: Some(VersionName::new("b")),
        title: format!("chat: {}", kind.as_str()),
        text: format!("b is told of {id} & <more>"),
        actor: "judge".to_owned(),
        weight: Some(5.0),
        generation: None,
        facts: Vec::new(),
        gates: Vec::new(),
        raises: None,
        clears: Vec::new(),
    }
}

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers so, with these further header lines.
    Answer(u16, &'static str),
    /// Answers 200, after so long.
    Slow(Duration),
    /// Never answers.
    Hang,
    /// Resets the connection.
    Reset,
    /// Answers without end.
    Flood,
}

/// A request that a receiver has taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `POST /path`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Taken {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver on loopback: acts as told, one act a request, then answers 200.
pub struct Receiver {
    pub addr: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    acts: Arc<Mutex<VecDeque<Act>>>,
    always: Arc<Mutex<Option<Act>>>,
}

impl Receiver {
    pub fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), acts)
    }

    /// At this address, where nobody was before.
    pub fn at(addr: SocketAddr, acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
        let acts = Arc::new(Mutex::new(acts.into_iter().collect::<VecDeque<_>>()));
        let always: Arc<Mutex<Option<Act>>> = Arc::default();
        let (t, a, w) = (Arc::clone(&taken), Arc::clone(&acts), Arc::clone(&always));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (t, a, w) = (Arc::clone(&t), Arc::clone(&a), Arc::clone(&w));
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, &t, &a, &w));
            }
        });
        Self { addr, taken, acts, always }
    }

    /// From now on it always does this.
    pub fn always(&self, act: Option<Act>) {
        *self.always.lock().unwrap() = act;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// What it has taken, the refused too.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits until it has taken so many.
    pub fn wait(&self, count: usize) -> Vec<Taken> {
        eventually(&format!("{count} requests"), || self.taken.lock().unwrap().len() >= count);
        self.taken()
    }

    pub fn acts_left(&self) -> usize {
        self.acts.lock().unwrap().len()
    }
}

fn serve(
    mut stream: TcpStream,
    taken: &Mutex<Vec<Taken>>,
    acts: &Mutex<VecDeque<Act>>,
    always: &Mutex<Option<Act>>,
) -> Option<()> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 8_192];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let pair = |l: &str| l.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    let headers: Vec<_> = lines.filter_map(pair).collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    while bytes.len() < end + length {
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    }
    let body = String::from_utf8(bytes[end..].to_vec()).unwrap();
    let act = always.lock().unwrap().clone().or_else(|| acts.lock().unwrap().pop_front());
    taken.lock().unwrap().push(Taken { line, headers, body });
    match act.unwrap_or(Act::Answer(200, "")) {
        Act::Answer(status, more) => {
            let answer = format!("HTTP/1.1 {status} X\r\n{more}content-length: 2\r\nconnection: close\r\n\r\nok");
            stream.write_all(answer.as_bytes()).ok()
        }
        Act::Slow(wait) => {
            std::thread::park_timeout(wait);
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").ok()
        }
        Act::Hang => stream.read(&mut chunk).ok().map(|_| ()),
        Act::Reset => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok(),
        Act::Flood => {
            stream.write_all(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n").ok()?;
            loop {
                stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(4_096)).as_bytes()).ok()?;
            }
        }
    }
}

/// Waits for something that another thread brings about.
pub fn eventually(what: &str, mut there: impl FnMut() -> bool) {
    let clock = crate::clock::Clock::system();
    let start = clock.now();
    while !there() {
        assert!(clock.now().since(start) < Duration::from_secs(60), "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
