//! A raw client: sends exactly what it is told and reads answers strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::PATIENCE;
use super::strict::{Part, Response, find, read_response, show};

/// A byte stream of a test.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection that sends what it is told and reads answers strictly.
pub struct Client {
    stream: Box<dyn Stream>,
    tcp: TcpStream,
    seen: Vec<u8>,
}

/// Why no whole answer came.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection ended in good order before a byte.
    Closed,
    /// It was reset before a byte.
    Reset,
    /// It ended in the middle.
    Truncated(Box<Response>),
    /// Nothing more came in time.
    Waiting(Vec<u8>),
    /// What came is not HTTP/1.
    Garbage(String),
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let tcp = Self::socket(addr);
        Self { stream: Box::new(tcp.try_clone().unwrap()), tcp, seen: Vec::new() }
    }

    /// Puts another stream (TLS) over the same socket.
    pub fn over(tcp: TcpStream, stream: Box<dyn Stream>) -> Self {
        Self { stream, tcp, seen: Vec::new() }
    }

    /// Over TLS, to `localhost`.
    pub fn tls(addr: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let tcp = Self::socket(addr);
        let stream = Self::session(tcp.try_clone().unwrap(), config);
        Self::over(tcp, stream)
    }

    /// A socket that waits no longer than tests do.
    pub fn socket(addr: SocketAddr) -> TcpStream {
        let tcp = TcpStream::connect(addr).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp
    }

    /// TLS to `localhost` over a socket; the handshake happens with the first bytes.
    pub fn session(tcp: TcpStream, config: Arc<ClientConfig>) -> Box<dyn Stream> {
        let name = ServerName::try_from("localhost").unwrap();
        Box::new(StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp))
    }

    /// Sends bytes; a peer that has already closed is no fault here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()));
    }

    /// Sends bytes; `false` when the other side takes no more for as long as writes wait.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    /// How long writes wait.
    pub fn write_patience(&self, patience: Duration) {
        self.tcp.set_write_timeout(Some(patience)).unwrap();
    }

    /// How long reads wait.
    pub fn patience(&self, patience: Duration) {
        self.tcp.set_read_timeout(Some(patience)).unwrap();
    }

    /// Ends the writing side.
    pub fn half_close(&self) {
        drop(self.tcp.shutdown(Shutdown::Write));
    }

    /// Ends with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads more bytes; 0 is the end.
    pub fn more(&mut self) -> io::Result<usize> {
        let mut buffer = [0u8; 64 << 10];
        let n = self.stream.read(&mut buffer)?;
        self.seen.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// What was read and not yet taken.
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Forgets the first bytes of what was read.
    pub fn consume(&mut self, n: usize) {
        self.seen.drain(..n);
    }

    /// Takes what was read.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.seen)
    }

    /// Gives back what was taken too much.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        self.seen = bytes;
    }

    /// Reads until the bytes contain `what`, and takes nothing.
    pub fn wait_for(&mut self, what: &[u8]) {
        let taken = self.until(what);
        let rest = std::mem::replace(&mut self.seen, taken);
        self.seen.extend_from_slice(&rest);
    }

    /// Reads until the bytes contain `what`, and takes all up to its end.
    pub fn until(&mut self, what: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.seen, what) {
                return self.seen.drain(..at + what.len()).collect();
            }
            match self.more() {
                Ok(n) if n > 0 => {}
                other => panic!("{other:?} before {:?}; got {:?}", show(what), show(&self.seen)),
            }
        }
    }

    /// The next answer.
    pub fn response(&mut self) -> Result<Response, NoAnswer> {
        self.answer(false)
    }

    /// The next answer, to a HEAD.
    pub fn head_response(&mut self) -> Result<Response, NoAnswer> {
        self.answer(true)
    }

    fn answer(&mut self, to_head: bool) -> Result<Response, NoAnswer> {
        let mut ended = false;
        loop {
            match read_response(&self.seen, to_head, ended) {
                Ok(Part::Whole(response, used)) => {
                    self.seen.drain(..used);
                    return Ok(response);
                }
                Ok(Part::Partial(response)) if ended => {
                    return Err(NoAnswer::Truncated(Box::new(response)));
                }
                Ok(Part::Partial(_)) => {}
                Err(why) => return Err(NoAnswer::Garbage(format!("{why}: {}", show(&self.seen)))),
            }
            match self.more() {
                Ok(0) if self.seen.is_empty() => return Err(NoAnswer::Closed),
                Ok(0) => ended = true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(NoAnswer::Waiting(self.seen.clone()));
                }
                Err(_) => {
                    // A reset ends no body cleanly.
                    return match read_response(&self.seen, to_head, false) {
                        Ok(Part::Partial(response)) if !self.seen.is_empty() => {
                            Err(NoAnswer::Truncated(Box::new(response)))
                        }
                        _ => Err(NoAnswer::Reset),
                    };
                }
            }
        }
    }

    /// Whether the other side ends the connection, and with how many bytes before.
    pub fn ends(&mut self, within: Duration) -> bool {
        self.patience(within);
        let ended = loop {
            match self.more() {
                Ok(0) => break true,
                Ok(_) => {}
                Err(e) => break !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        };
        self.patience(PATIENCE);
        ended
    }
}
