//! Opens a connection to an endpoint: TCP, TLS where asked for, and the HTTP handshake, under one deadline.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::pool::H2_STREAMS;
use crate::config::{HttpVersion, Scheme};
use crate::http1::{Io, RESPONSE_BYTES};

/// What upstream may send of an answer before it is taken.
const STREAM_WINDOW: u32 = 256 << 10;
/// How long an upstream's settings are waited for before a request is risked without them.
const SETTINGS_WITHIN: Duration = Duration::from_millis(200);
/// What stands for the number of streams that upstream allows until it has said it.
const UNSAID: usize = usize::MAX - 1;

/// Why no connection came about. The RFC 9209 word is [`ConnectError::proxy_status`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has never resolved.
    #[error("the endpoint's name does not resolve")]
    Unresolved,
    /// Refused, unreachable, reset.
    #[error("connecting failed: {0}")]
    Tcp(#[source] io::Error),
    /// No connection within the deadline.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// TLS could not be agreed or the certificate is not trusted.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The HTTP handshake failed.
    #[error("the HTTP handshake failed: {0}")]
    Http(#[source] io::Error),
}

impl ConnectError {
    /// The error type of RFC 9209, section 2.3.
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        match self {
            ConnectError::Unresolved => "dns_error",
            ConnectError::Tcp(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection_refused",
            ConnectError::Tcp(_) => "destination_unavailable",
            ConnectError::TimedOut(_) => "connection_timeout",
            ConnectError::Tls(error) if error.to_string().contains("certificate") => "tls_certificate_error",
            ConnectError::Tls(_) => "tls_protocol_error",
            ConnectError::Http(_) => "http_protocol_error",
        }
    }
}

/// A fresh connection, ready for requests.
pub enum Connection<B> {
    /// HTTP/1.1, one exchange at a time.
    H1(Io),
    /// Many streams.
    H2(Http2<B>),
}

/// What sends on an HTTP/2 connection, and how many streams upstream allows on it (`SETTINGS_MAX_CONCURRENT_STREAMS`).
pub struct Http2<B> {
    /// Sends.
    pub sender: http2::SendRequest<B>,
    allowed: Box<dyn Fn() -> usize>,
}

impl<B> Http2<B> {
    /// How many streams upstream allows at once; 0 when the connection has ended.
    #[must_use]
    pub fn allowed(&self) -> usize {
        (self.allowed)()
    }
}

/// Spawns hyper's tasks on the worker that they were made on, and tells when the first of them, which reads the connection,
/// has done so.
#[derive(Clone, Debug, Default)]
pub struct LocalExecutor {
    read: Rc<Notify>,
    begun: Rc<Cell<bool>>,
}

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        if self.begun.replace(true) {
            return drop(tokio::task::spawn_local(future));
        }
        let read = Rc::clone(&self.read);
        drop(tokio::task::spawn_local(async move {
            let mut reading = std::pin::pin!(future);
            std::future::poll_fn(|cx| {
                let polled = reading.as_mut().poll(cx);
                read.notify_waiters();
                polled
            })
            .await;
        }));
    }
}

/// Connects to `endpoint` within the cluster's deadline.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect<B>(cluster: &Cluster, endpoint: &Arc<Endpoint>) -> Result<Connection<B>, ConnectError>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let deadline = cluster.timeouts.connect;
    match tokio::time::timeout(deadline, open(cluster, endpoint)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut(deadline)),
    }
}

async fn open<B>(cluster: &Cluster, endpoint: &Arc<Endpoint>) -> Result<Connection<B>, ConnectError>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let address = endpoint.socket_addr().ok_or(ConnectError::Unresolved)?;
    let tcp = TcpStream::connect(address).await.map_err(ConnectError::Tcp)?;
    // A first token must not wait for an acknowledgement (40 ms without this).
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let (io, h2) = match (endpoint.address.scheme, &cluster.tls) {
        (Scheme::Https, Some(connector)) => {
            let name = cluster.server_name.as_ref().unwrap_or(&endpoint.address.host).clone();
            let name = ServerName::try_from(name).map_err(|e| ConnectError::Tls(io::Error::other(e)))?;
            let stream = connector.connect(name, tcp).await.map_err(ConnectError::Tls)?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2") || cluster.http == HttpVersion::Http2;
            (Io::Tls(Box::new(stream.into())), h2)
        }
        _ => (Io::Tcp(tcp), cluster.http == HttpVersion::Http2),
    };
    if h2 { handshake_h2(io).await } else { Ok(Connection::H1(io)) }
}

async fn handshake_h2<B>(io: Io) -> Result<Connection<B>, ConnectError>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let executor = LocalExecutor::default();
    let read = Rc::clone(&executor.read);
    let (sender, connection) = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        // One for each stream: answers that a caller does not take must not hold up those of others.
        .initial_connection_window_size(STREAM_WINDOW * H2_STREAMS)
        .max_header_list_size(u32::try_from(RESPONSE_BYTES).unwrap_or(u32::MAX))
        .initial_max_send_streams(UNSAID)
        // An idle h2 connection can be dead yet "ready" (hyperium/hyper #4186): ping it.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ConnectError::Http(io::Error::other(error)))?;
    // Of its task while that runs it, and asked in between.
    let connection = Rc::new(RefCell::new(Some(connection)));
    let (running, ended) = (Rc::clone(&connection), Rc::clone(&read));
    drop(tokio::task::spawn_local(async move {
        let end = std::future::poll_fn(|cx| match running.borrow_mut().as_mut() {
            Some(connection) => Pin::new(connection).poll(cx),
            None => std::task::Poll::Ready(Ok(())),
        });
        if let Err(error) = end.await {
            tracing::debug!(error = %error, "an upstream h2 connection ended");
        }
        running.replace(None);
        ended.notify_waiters();
    }));
    let allowed = move || connection.borrow().as_ref().map_or(0, |connection| connection.current_max_send_streams());
    let said = async {
        while allowed() == UNSAID {
            read.notified().await;
        }
    };
    // A burst of requests would overrun a bound that is not known yet, and what is no server of HTTP/2 shows itself here.
    drop(tokio::time::timeout(SETTINGS_WITHIN, said).await);
    if sender.is_closed() {
        return Err(ConnectError::Http(io::Error::other("the connection ended before its settings came")));
    }
    Ok(Connection::H2(Http2 { sender, allowed: Box::new(allowed) }))
}
