//! A serin in this process, and its configuration in a few words.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;
use serin::app::{self, Serin};
use serin::config;

use super::{Client, PATIENCE, Response, Upstream, clock, eventually, now};

/// A serin in this process; stopped when dropped.
pub struct Proxy {
    /// Its `edge` listener.
    pub addr: SocketAddr,
    /// Its admin API.
    pub admin: SocketAddr,
    serin: Option<Serin>,
}

impl Proxy {
    /// Starts serin under `rest`, to which an admin address, one worker and the listener `edge` are added where it has none.
    pub fn start(rest: &str) -> Self {
        let mut text = String::from("[admin]\nlisten = \"127.0.0.1:0\"\n");
        if !rest.contains("[server]") {
            text.push_str("[server]\nworkers = 1\n");
        }
        if !rest.contains("[listeners.edge]") {
            text.push_str("[listeners.edge]\nlisten = \"127.0.0.1:0\"\n");
        }
        text.push_str(rest);
        let config = config::parse(&text, "it.toml", &|_| None).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        let serin = app::start(config, None, &clock()).unwrap_or_else(|e| panic!("{e}"));
        // The rise to a configured weight waits for its record, as every rise does.
        eventually("the configured weights", || {
            let snapshot = serin.live.load();
            snapshot.rollouts.iter().all(|r| r.fixed.config.weight.is_none_or(|weight| r.runtime.weight == weight))
        });
        Self { addr: serin.bound.listeners["edge"], admin: serin.bound.admin.unwrap(), serin: Some(serin) }
    }

    /// One rollout `chat` with this stable version and nothing else.
    pub fn in_front_of(upstream: &Upstream) -> Self {
        Self::start(&chat("", &stable(upstream.addr, "")))
    }

    /// The running parts.
    pub fn serin(&self) -> &Serin {
        self.serin.as_ref().unwrap()
    }

    /// A raw connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Sends one request on a connection of its own and reads the answer.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(request);
        client.response().unwrap_or_else(|e| panic!("no answer: {e:?}"))
    }

    /// Calls the admin API with a body (none where it is null), and reads the answer's.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut client = Client::connect(self.admin);
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.admin,
            body.len()
        ));
        serde_json::from_str(&client.response().unwrap().text()).unwrap()
    }

    /// The metrics as text.
    pub fn metrics(&self) -> String {
        let mut client = Client::connect(self.admin);
        client.send(format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin));
        client.response().unwrap().text()
    }

    /// The sum of a metric's samples whose labels contain all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics(), name, labels)
    }

    /// Waits until a metric has this value.
    pub fn until_metric(&self, name: &str, labels: &[&str], value: f64) {
        let what = format!("{name}{labels:?} = {value}");
        let mut last = String::new();
        let start = now();
        loop {
            let text = self.metrics();
            if (sum(&text, name, labels) - value).abs() < 1e-9 {
                return;
            }
            if now().since(start) > PATIENCE {
                for line in text.lines().filter(|l| l.starts_with(name)) {
                    last.push_str(line);
                    last.push('\n');
                }
                panic!("never came: {what}; there is\n{last}");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Requests that ended with this outcome.
    pub fn outcome(&self, outcome: &str) -> f64 {
        self.metric("serin_requests_total", &[&format!("outcome=\"{outcome}\"")])
    }

    /// Waits until requests ended with this outcome have been counted.
    pub fn until_outcome(&self, outcome: &str, count: f64) {
        self.until_metric("serin_requests_total", &[&format!("outcome=\"{outcome}\"")], count);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(serin) = self.serin.take() {
            serin.stop();
        }
    }
}

fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// `[rollouts.chat]` with `keys`, then `tables`.
pub fn chat(keys: &str, tables: &str) -> String {
    let unit = if keys.contains("unit =") { "" } else { "unit = [\"header:x-user-id\"]\n" };
    let judged = if tables.contains(".evaluator]") { "" } else { "[rollouts.chat.evaluator]\nenabled = false\n" };
    format!("[rollouts.chat]\nmatch = {{ host = \"*\", path_prefix = \"/\" }}\n{unit}{keys}\n{tables}\n{judged}")
}

/// The version `v1` as stable.
pub fn stable(addr: SocketAddr, keys: &str) -> String {
    format!("[rollouts.chat.stable]\nversion = \"v1\"\nendpoints = [\"http://{addr}\"]\n{keys}\n")
}

/// The version `v2` as canary.
pub fn canary(addr: SocketAddr, keys: &str) -> String {
    format!("[rollouts.chat.canary]\nversion = \"v2\"\nendpoints = [\"http://{addr}\"]\n{keys}\n")
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
