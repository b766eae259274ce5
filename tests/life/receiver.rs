//! A receiver of notices: takes every webhook that comes, and says yes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::fixture::until;

/// A webhook's receiver on loopback.
#[derive(Clone)]
pub struct Receiver {
    addr: SocketAddr,
    /// Whole requests, heads too, in the order in which they came.
    taken: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { addr: listener.local_addr().unwrap(), taken: Arc::default() };
        let receiver = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                receiver.serve(stream.unwrap());
            }
        });
        this
    }

    /// The receiver `NAME` of a configuration.
    pub fn config(&self, name: &str) -> String {
        format!("[notify.{name}]\nkind = \"webhook\"\nurl = \"http://{}/\"\n", self.addr)
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4_096]);
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() >= length? {
                    self.taken.lock().unwrap().push(text);
                    break;
                }
            }
            let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            bytes.extend_from_slice(&chunk[..n]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()
    }

    /// All that came, as it came.
    pub fn raw(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    /// The messages of one kind, in order: `started`, `limit`, `heartbeat`, and so on.
    pub fn told(&self, kind: &str) -> Vec<Value> {
        let body = |text: &String| serde_json::from_str::<Value>(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let all = self.raw();
        all.iter().map(body).filter(|message| message["type"] == format!("serin.{kind}")).collect()
    }

    /// Waits until so many of that kind have come.
    pub fn wait(&self, kind: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} notices of {kind}"), || Some(self.told(kind)).filter(|told| told.len() >= count))
    }
}
