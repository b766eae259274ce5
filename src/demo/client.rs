//! A small HTTP/1.1 client for users and tests: kept connections to one address, nothing clever.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Idle connections that are kept.
const IDLE_MAX: usize = 512;

/// Connections to one address. Cheap to clone; clones share.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    addr: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// Why no response head came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("connecting: {0}")]
    Connect(#[from] io::Error),
    /// The connection broke or spoke no HTTP.
    #[error("exchanging: {0}")]
    Exchange(#[from] hyper::Error),
}

/// The connection that an answer is still coming from.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    sender: SendRequest<Full<Bytes>>,
}

impl Lease {
    /// Keeps the connection for another request; call it when the answer was read to its end.
    pub fn give_back(self) {
        let mut idle = self.client.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !self.sender.is_closed() {
            idle.push(self.sender);
        }
    }
}

impl Client {
    /// A client of `addr`, without a connection yet.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self(Arc::new(Inner { addr, idle: Mutex::default() }))
    }

    /// The address that it sends to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Sends a request and waits for the head of its answer. Dropping the lease before the body's end closes the connection.
    ///
    /// # Errors
    /// When connecting fails, or the exchange breaks before the head. A request is sent again only when an idle connection
    /// turned out to be closed before anything of it was written.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Lease), ClientError> {
        let mut request = request;
        loop {
            let Some(mut sender) = self.take_idle() else { break };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease { client: self.clone(), sender })),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        Ok((response, Lease { client: self.clone(), sender }))
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = TcpStream::connect(self.0.addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if connection.await.is_err() {
                // The exchange on it has seen the same error.
            }
        });
        Ok(sender)
    }
}
