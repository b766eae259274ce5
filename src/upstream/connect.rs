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
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::pool::H2_STREAMS;
use crate::config::{HttpVersion, Scheme};
use crate::http1::{Io, RESPONSE_BYTES};

/// Streams share a connection, so that one whose other end is gone must be noticed: by the kernel, which is answered by the
/// other's. Pings of HTTP/2 are answered by the program, which may be busy with its model for longer than any time-out, and
/// gRPC's servers end connections for them ("too_many_pings").
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(20)).with_interval(Duration::from_secs(5)).with_retries(3);
/// How long what was sent may wait for the other kernel's acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
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
            let (tcp, session) = stream.get_ref();
            let h2 = session.alpn_protocol() == Some(b"h2") || cluster.http == HttpVersion::Http2;
            if h2 {
                notice_death(tcp).map_err(ConnectError::Tcp)?;
            }
            (Io::Tls(Box::new(stream.into())), h2)
        }
        _ => {
            let h2 = cluster.http == HttpVersion::Http2;
            if h2 {
                notice_death(&tcp).map_err(ConnectError::Tcp)?;
            }
            (Io::Tcp(tcp), h2)
        }
    };
    if h2 { handshake_h2(io).await } else { Ok(Connection::H1(io)) }
}

/// Lets the kernel end the connection when the other side's kernel is silent.
fn notice_death(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_busy_for_minutes_is_not_taken_for_dead() {
        let within = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            notice_death(&tcp).unwrap();
            assert!(SockRef::from(&tcp).keepalive().unwrap());
            assert_eq!(SockRef::from(&tcp).tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
            let (mut server, _) = listener.accept().await.unwrap();
            // Its settings, and not another word.
            server.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7]).await.unwrap();
            let Ok(Connection::H2(h2)) = handshake_h2::<Empty<Bytes>>(Io::Tcp(tcp)).await else {
                panic!("no connection")
            };
            let asked = http::Request::get("http://a.test/").body(Empty::new()).unwrap();
            let mut sender = h2.sender.clone();
            let answer = tokio::task::spawn_local(async move { sender.send_request(asked).await });
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert!(!h2.sender.is_closed() && !answer.is_finished());
            assert_eq!(h2.allowed(), 7);
            let mut seen = vec![0; 64 << 10];
            let length = server.read(&mut seen).await.unwrap();
            let (mut kinds, mut at) = (Vec::new(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len());
            while at < length {
                kinds.push(seen[at + 3]);
                at += 9 + u32::from_be_bytes([0, seen[at], seen[at + 1], seen[at + 2]]) as usize;
            }
            assert!(kinds.contains(&1) && !kinds.contains(&6), "a head and no ping: {kinds:?}");
            drop(server);
            assert!(answer.await.unwrap().is_err());
            assert!(h2.sender.is_closed() && h2.allowed() == 0);
        };
        tokio::task::LocalSet::new().run_until(within).await;
    }
}
