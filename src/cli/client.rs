//! A small client of the admin API: one request, one connection, over TCP, TLS or a Unix socket.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::args::{Globals, Token};
use super::place::Place;
use crate::config::{HttpVersion, Secret, UpstreamTls};
use crate::tls;

/// Longest wait for a whole answer; a rise waits for a disk on the other side.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;

/// A client of one serin.
pub struct Client {
    place: Place,
    token: Option<Secret>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why there is no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What was typed cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers there.
    #[error("{place} does not answer: {why}\n  is serin running, and is --admin (or SERIN_ADMIN) its address?")]
    Unreachable {
        /// Where.
        place: String,
        /// Why not.
        why: String,
    },
    /// serin said no.
    #[error("{0}")]
    Refused(Refusal),
}

/// What serin says when it says no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.detail)?;
        // What the sentence has said already is not said again below it.
        let told = self.remedy.strip_prefix("allowed now: ").is_some_and(|list| self.detail.ends_with(list));
        if !self.remedy.is_empty() && !told {
            write!(f, "\n  {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Failure {
    /// The exit code: 2 usage, 5 refused (auth, conflict, policy), 1 everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Refused(refusal) if matches!(refusal.status, 401 | 403 | 409 | 412 | 422) => 5,
            Failure::Refused(_) | Failure::Unreachable { .. } => 1,
        }
    }
}

impl Client {
    /// A client for what the command line names.
    ///
    /// # Errors
    /// An address, token file or authority that cannot be used.
    pub fn new(globals: &Globals) -> Result<Self, Failure> {
        let place = Place::parse(&globals.admin).map_err(Failure::Usage)?;
        let token = match &globals.token {
            Token::None => None,
            Token::Given(secret) => Some(secret.clone()),
            Token::File(path) => Some(read_token(path)?),
        };
        let tls = if matches!(place, Place::Tcp { tls: true, .. }) {
            let wanted = UpstreamTls { ca: globals.ca.clone(), ..UpstreamTls::default() };
            Some(tls::client(&wanted, HttpVersion::Http1).map_err(|error| Failure::Usage(error.to_string()))?)
        } else {
            None
        };
        Ok(Self { place, token, tls })
    }

    /// Reads something.
    ///
    /// # Errors
    /// Nobody answers, or serin says no.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Reads something that is no JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn text(&self, path: &str) -> Result<Bytes, Failure> {
        match tokio::time::timeout(ANSWER_WAIT, self.ask(Method::GET, path, None)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", ANSWER_WAIT.as_secs()))),
        }
    }

    /// Changes something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        match tokio::time::timeout(ANSWER_WAIT, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", ANSWER_WAIT.as_secs()))),
        }
    }

    fn unreachable(&self, why: impl ToString) -> Failure {
        Failure::Unreachable { place: self.place.to_string(), why: why.to_string() }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let bytes = self.ask(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.unreachable(format!("the answer is no JSON: {error}")))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.place.authority());
        request = request.header(header::USER_AGENT, concat!("serin/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let body = match body {
            None => Full::default(),
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Full::from(json.to_string())
            }
        };
        let request = request.body(body).map_err(|error| Failure::Usage(error.to_string()))?;
        let (status, bytes) = self.connect_and_send(request).await?;
        if !status.is_success() {
            let mut refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
            refusal.status = status.as_u16();
            if refusal.detail.is_empty() {
                refusal.detail = format!("the answer was {status}");
            }
            return Err(Failure::Refused(refusal));
        }
        Ok(bytes)
    }

    async fn connect_and_send(&self, request: Request<Full<Bytes>>) -> Result<(http::StatusCode, Bytes), Failure> {
        match &self.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.unreachable(error))?;
                self.converse(stream, request).await
            }
            Place::Tcp { host, port, .. } => {
                let stream =
                    TcpStream::connect((host.as_str(), *port)).await.map_err(|error| self.unreachable(error))?;
                match &self.tls {
                    None => self.converse(stream, request).await,
                    Some(config) => {
                        let name = ServerName::try_from(host.clone()).map_err(|error| self.unreachable(error))?;
                        let connector = TlsConnector::from(Arc::clone(config));
                        let stream = connector.connect(name, stream).await.map_err(|error| self.unreachable(error))?;
                        self.converse(stream, request).await
                    }
                }
            }
        }
    }

    async fn converse<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<(http::StatusCode, Bytes), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.unreachable(error))?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let bytes = bytes.map_err(|error| self.unreachable(error))?.to_bytes();
        driver.abort();
        Ok((status, bytes))
    }
}

fn read_token(path: &Path) -> Result<Secret, Failure> {
    let wrong = |why: io::Error| Failure::Usage(format!("--token-file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong(io::Error::other("is empty")));
    }
    Ok(Secret::new(token))
}

/// A text as one segment of a path or one value of a query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else if write!(out, "%{byte:02X}").is_err() {
            break;
        }
    }
    out
}
