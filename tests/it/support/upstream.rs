//! A server that does exactly what its script says and remembers what reached it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serin::names::Mono;

use super::strict::{Part, Request, find, read_request, show};
use super::{PATIENCE, now};

/// What an upstream saw on all its connections.
#[derive(Default)]
struct Log {
    connections: usize,
    requests: Vec<(usize, Request)>,
    /// Began and never ended.
    cut: Vec<Request>,
    /// What no strict reader accepts.
    malformed: Vec<String>,
    /// When connections were found closed by serin.
    closed: Vec<Mono>,
    notes: Vec<String>,
    /// Words of the test to its scripts, and how many were heeded.
    told: usize,
    heeded: usize,
}

/// A server that does exactly what its script says, connection by connection.
pub struct Upstream {
    pub addr: SocketAddr,
    log: Arc<(Mutex<Log>, Condvar)>,
}

/// One connection, in the hands of the script.
pub struct Peer {
    stream: TcpStream,
    seen: Vec<u8>,
    /// Which connection, from 0.
    pub number: usize,
    log: Arc<(Mutex<Log>, Condvar)>,
}

impl Upstream {
    /// Runs `script` for each connection, each on a thread of its own.
    pub fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let log: Arc<(Mutex<Log>, Condvar)> = Arc::default();
        let script = Arc::new(script);
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
                let number = {
                    let mut log = shared.0.lock().unwrap();
                    log.connections += 1;
                    shared.1.notify_all();
                    log.connections - 1
                };
                let mut peer = Peer { stream, seen: Vec::new(), number, log: Arc::clone(&shared) };
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut peer));
            }
        });
        Self { addr, log }
    }

    /// Answers every request with these bytes.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |peer| {
            while peer.request().is_some() {
                peer.send(&answer);
            }
        })
    }

    /// Answers every request with 200 and `ok`.
    pub fn ok() -> Self {
        Self::saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }

    /// All whole requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.0.lock().unwrap().requests.iter().map(|(_, r)| r.clone()).collect()
    }

    /// The connection on which each request came.
    pub fn carriers(&self) -> Vec<usize> {
        self.log.0.lock().unwrap().requests.iter().map(|(n, _)| *n).collect()
    }

    /// The newest request.
    pub fn last(&self) -> Request {
        self.requests().pop().unwrap_or_else(|| panic!("nothing reached upstream"))
    }

    /// What began and broke off.
    pub fn cut(&self) -> Vec<Request> {
        self.log.0.lock().unwrap().cut.clone()
    }

    /// What no strict reader accepts.
    pub fn malformed(&self) -> Vec<String> {
        self.log.0.lock().unwrap().malformed.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.log.0.lock().unwrap().connections
    }

    /// Waits until `enough` whole requests came.
    pub fn until_requests(&self, enough: usize) {
        self.until("requests", |log| log.requests.len() >= enough);
    }

    /// How often scripts have noted `text`.
    pub fn notes(&self, text: &str) -> usize {
        self.log.0.lock().unwrap().notes.iter().filter(|n| *n == text).count()
    }

    /// Waits until a script has noted `text`.
    pub fn until_note(&self, text: &str) {
        self.until(text, |log| log.notes.iter().any(|n| n == text));
    }

    /// Lets every script that waits in [`Peer::until_told`] go on, once.
    pub fn tell_all(&self) {
        self.log.0.lock().unwrap().told += 1;
        self.log.1.notify_all();
    }

    /// Waits until serin has closed a connection, and says when the first was.
    pub fn until_closed(&self) -> Mono {
        self.until("a closed connection", |log| !log.closed.is_empty());
        self.log.0.lock().unwrap().closed[0]
    }

    /// When each connection was found closed by serin.
    pub fn closed(&self) -> Vec<Mono> {
        self.log.0.lock().unwrap().closed.clone()
    }

    fn until(&self, what: &str, done: impl Fn(&Log) -> bool) {
        let log = self.log.0.lock().unwrap();
        let (log, late) = self.log.1.wait_timeout_while(log, PATIENCE, |log| !done(log)).unwrap();
        assert!(!late.timed_out(), "never came upstream: {what}; notes {:?}", log.notes);
    }
}

impl Peer {
    /// The next whole request, or `None` at the end.
    pub fn request(&mut self) -> Option<Request> {
        loop {
            match read_request(&self.seen) {
                Ok(Part::Whole(request, used)) => {
                    self.seen.drain(..used);
                    let number = self.number;
                    self.tell(|log| log.requests.push((number, request.clone())));
                    return Some(request);
                }
                Ok(Part::Partial(partial)) => {
                    if !self.more() {
                        if !self.seen.is_empty() {
                            self.tell(|log| log.cut.push(partial));
                        }
                        return None;
                    }
                }
                Err(why) => {
                    let seen = format!("{why}: {}", show(&self.seen));
                    self.tell(|log| log.malformed.push(seen));
                    return None;
                }
            }
        }
    }

    /// The next head alone; the body is left unread.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.seen, b"\r\n\r\n") {
                return Some(String::from_utf8(self.seen.drain(..at + 4).collect()).unwrap());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads what comes; `false` at the end.
    pub fn more(&mut self) -> bool {
        let mut buffer = [0u8; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.seen.extend_from_slice(&buffer[..n]);
                true
            }
            _ => {
                let at = now();
                self.tell(|log| log.closed.push(at));
                false
            }
        }
    }

    /// What came and was not read as a request.
    pub fn seen(&mut self) -> &mut Vec<u8> {
        &mut self.seen
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.stream.write_all(bytes.as_ref()));
    }

    /// Sends bytes; `false` when serin takes no more.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits for the test's [`Upstream::tell_all`].
    pub fn until_told(&self) {
        let log = self.log.0.lock().unwrap();
        let (mut log, _) = self.log.1.wait_timeout_while(log, PATIENCE, |log| log.told <= log.heeded).unwrap();
        log.heeded += 1;
    }

    /// Reads until these bytes came; `false` at the end.
    pub fn until_seen(&mut self, what: &[u8]) -> bool {
        loop {
            if let Some(at) = find(&self.seen, what) {
                self.seen.drain(..at + what.len());
                return true;
            }
            if !self.more() {
                return false;
            }
        }
    }

    /// Waits for serin to close, swallowing what comes.
    pub fn until_closed(&mut self) {
        while self.more() {}
    }

    /// Tells the test.
    pub fn note(&self, text: &str) {
        self.tell(|log| log.notes.push(text.to_owned()));
    }

    /// Ends with a reset.
    pub fn reset(&mut self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Ends the writing side and reads on.
    pub fn half_close(&self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    fn tell(&self, act: impl FnOnce(&mut Log)) {
        act(&mut self.log.0.lock().unwrap());
        self.log.1.notify_all();
    }
}
