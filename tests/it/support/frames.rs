//! HTTP/2 frame by frame: a writer that sends what no client should, and a reader of what the server says to it
//! (RFC 9113, RFC 7541).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::{Client, PATIENCE};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;
/// A whole head without a body.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it stands on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without indexing, by no table and no Huffman code: any bytes at all.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            integer(text.len(), &mut out);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// RFC 7541 section 5.1, with seven bits of prefix and no Huffman flag.
fn integer(mut n: usize, out: &mut Vec<u8>) {
    if n < 127 {
        out.push(n as u8);
        return;
    }
    out.push(127);
    n -= 127;
    while n >= 128 {
        out.push((n % 128) as u8 | 128);
        n /= 128;
    }
    out.push(n as u8);
}

/// What the server made of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ended the connection with this code.
    Goaway(u32),
    /// It ended the stream with this code.
    Reset(u32),
    /// It answered.
    Status(u16),
    /// It closed the connection without a word.
    Closed,
    /// It said nothing in time.
    Silent,
}

/// One frame of the server's.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The first frame of these bytes, and how many of them are its.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[a, b, c, kind, flags, s, t, u, v], rest) = bytes.split_first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = rest.get(..length)?.to_vec();
        Some((Self { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload }, 9 + length))
    }

    /// Takes the first frame out of these bytes.
    pub fn cut(bytes: &mut Vec<u8>) -> Option<Self> {
        let (found, length) = Self::parse(bytes)?;
        bytes.drain(..length);
        Some(found)
    }
}

/// One connection, frame by frame.
pub struct Frames {
    client: Client,
}

impl Frames {
    /// With prior knowledge, or by ALPN where there is TLS; nothing is sent yet.
    pub fn connect(addr: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { client: tls.map_or_else(|| Client::connect(addr), |config| Client::tls(addr, config)) }
    }

    /// The same, past the exchange of settings.
    pub fn open(addr: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        Self::open_with(addr, tls, &[])
    }

    /// With these settings of ours.
    pub fn open_with(addr: SocketAddr, tls: Option<Arc<ClientConfig>>, settings: &[u8]) -> Self {
        let mut frames = Self::connect(addr, tls);
        frames.send(PREFACE);
        frames.send(frame(SETTINGS, 0, 0, settings));
        loop {
            match frames.next() {
                Ok(Some(f)) if f.kind == SETTINGS && f.flags & ACK != 0 => break,
                Ok(Some(_)) => {}
                other => panic!("no settings were agreed: {other:?}"),
            }
        }
        frames
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send(bytes);
    }

    /// Sends bytes; `false` when the server takes no more.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.client.try_send(bytes)
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(frame(kind, flags, stream, payload));
    }

    /// A GET (or a POST, where a body is to follow) of `path`, with more fields behind.
    pub fn request(&mut self, stream: u32, flags: u8, path: &str, fields: &[(&str, &str)]) {
        self.frame(HEADERS, flags, stream, &head(flags, path, fields));
    }

    /// How long reads wait.
    pub fn patience(&self, patience: Duration) {
        self.client.patience(patience);
    }

    /// The next frame; `None` at the end. Settings and pings are acknowledged.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((found, length)) = Frame::parse(self.client.seen()) {
                self.client.consume(length);
                self.acknowledge(&found);
                return Ok(Some(found));
            }
            match self.client.more() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Err(e),
                // A reset, or TLS cut off: an end all the same.
                Err(_) => return Ok(None),
            }
        }
    }

    fn acknowledge(&mut self, found: &Frame) {
        if matches!(found.kind, SETTINGS | PING) && found.flags & ACK == 0 {
            self.frame(found.kind, ACK, 0, if found.kind == PING { &found.payload } else { &[] });
        }
    }

    /// What the server makes of `stream`, or of the connection; 0: of stream 1, or the reset of any.
    pub fn verdict(&mut self, stream: u32) -> Verdict {
        loop {
            match self.next() {
                Err(_) => return Verdict::Silent,
                Ok(None) => return Verdict::Closed,
                Ok(Some(f)) => match f.kind {
                    GOAWAY if code(&f.payload, 4) != NO_ERROR => return Verdict::Goaway(code(&f.payload, 4)),
                    RST_STREAM if stream == 0 || f.stream == stream => return Verdict::Reset(code(&f.payload, 0)),
                    HEADERS if f.stream == stream.max(1) => return Verdict::Status(status(&f.payload)),
                    _ => {}
                },
            }
        }
    }

    /// Waits for the acknowledgement of a ping: the server has seen all that was sent before it, or has ended.
    pub fn round_trip(&mut self) -> bool {
        self.frame(PING, 0, 0, b"roundtri");
        loop {
            match self.next() {
                Ok(Some(f)) if f.kind == PING && f.flags & ACK != 0 => return true,
                Ok(Some(f)) if f.kind != GOAWAY => {}
                _ => return false,
            }
        }
    }

    /// How long writes wait.
    pub fn write_patience(&self, patience: Duration) {
        self.client.write_patience(patience);
    }

    /// Whether the server ends the connection.
    pub fn ends(&mut self) -> bool {
        // Silence is noticed by sweeps, which a crowded machine makes late.
        self.client.ends(PATIENCE * 6)
    }

    /// Ends it from this side.
    pub fn close(self) {
        drop(self);
    }

    /// Ends it with a reset.
    pub fn reset(self) {
        self.client.reset();
    }
}

/// The block of a request's head.
pub fn head(flags: u8, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let method = if flags & END_STREAM != 0 { "GET" } else { "POST" };
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.test")];
    block(&[&pseudo[..], fields].concat())
}

fn code(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

/// `:status`, the first field of the first answer on a connection: of the static table, or a literal of three digits.
fn status(block: &[u8]) -> u16 {
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        0x48 | 0x08 | 0x18 => {
            let length = usize::from(block[1] & 0x7f);
            let text = &block[2..2 + length];
            if block[1] & 0x80 == 0 { String::from_utf8_lossy(text).parse().unwrap() } else { digits(text) }
        }
        other => panic!("a head that begins with {other:#x}"),
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): 0 to 2 take five bits, the others six.
fn digits(text: &[u8]) -> u16 {
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |i| (byte >> i) & 1)).collect();
    let (mut at, mut n) = (0, 0u16);
    let take = |at: usize, n: usize| bits[at..at + n].iter().fold(0u16, |sum, bit| sum * 2 + u16::from(*bit));
    for _ in 0..3 {
        let short = take(at, 5);
        let (digit, used) = if short < 3 { (short, 5) } else { (take(at, 6) - 0x19 + 3, 6) };
        at += used;
        n = n * 10 + digit;
    }
    n
}
