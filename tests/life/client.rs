//! Raw HTTP/1.1 clients: one that blocks, for the admin API, and one that keeps a connection busy, for load.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The admin API over one kept connection.
pub struct Admin {
    addr: SocketAddr,
    stream: BufReader<std::net::TcpStream>,
    /// The line that says who asks, or nothing.
    token: String,
}

impl Admin {
    pub fn new(addr: SocketAddr) -> Self {
        let stream = std::net::TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { addr, stream: BufReader::new(stream), token: String::new() }
    }

    /// Asks with a token from now on.
    pub fn with_token(mut self, secret: &str) -> Self {
        self.token = format!("authorization: Bearer {secret}\r\n");
        self
    }

    /// One call: the status and the JSON of the answer.
    pub fn call(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.exchange(method, path, body);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The text of a page.
    pub fn text(&mut self, path: &str) -> String {
        let (status, body) = self.exchange("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}");
        String::from_utf8(body).unwrap()
    }

    fn exchange(&mut self, method: &str, path: &str, body: &Value) -> (u16, Vec<u8>) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.addr,
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all(head.as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, body)
    }

    /// One call that must succeed.
    pub fn must(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, said) = self.call(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {said}");
        said
    }

    /// A verb of a rollout, which must succeed.
    pub fn verb(&mut self, name: &str, verb: &str) -> Value {
        self.must("POST", &format!("/api/v1/rollouts/{name}/{verb}"), &serde_json::json!({"reason": "test"}))
    }

    /// Sets the weight, which must succeed.
    pub fn weight(&mut self, name: &str, percent: f64) -> Value {
        let body = serde_json::json!({"weight": percent, "reason": "test"});
        self.must("PUT", &format!("/api/v1/rollouts/{name}/weight"), &body)
    }
}

/// What came back for one request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub canary: bool,
    pub why: String,
    /// The connection ends after it.
    pub closes: bool,
}

/// One connection of a caller.
pub struct Caller {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Caller {
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: Vec::with_capacity(4_096) })
    }

    /// A GET of `path` by `user`, read to its end.
    pub async fn get(&mut self, path: &str, user: &str) -> io::Result<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: serin.test\r\nx-user-id: {user}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.bytes.clear();
        let end = loop {
            if let Some(at) = self.bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase();
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        let bad = |what: &str| io::Error::other(format!("{what}: {head}"));
        let length: usize =
            field("content-length").and_then(|n| n.parse().ok()).ok_or_else(|| bad("an answer without a length"))?;
        let status = head.get(9..12).and_then(|s| s.parse().ok()).ok_or_else(|| bad("no status"))?;
        let canary = field("serin-arm").is_some_and(|arm| arm == "canary");
        let (why, closes) = (field("serin-why").unwrap_or_default(), field("connection").is_some_and(|c| c == "close"));
        while self.bytes.len() < end + length {
            self.more().await?;
        }
        Ok(Answer { status, canary, why, closes })
    }

    async fn more(&mut self) -> io::Result<()> {
        let read = self.stream.read_buf(&mut self.bytes).await?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
