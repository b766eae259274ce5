//! Opens a connection to an endpoint: TCP, TLS where asked for, and the HTTP handshake, under one deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use crate::config::{HttpVersion, Scheme};
use crate::http1::Io;

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
    Http(#[source] hyper::Error),
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
    H2(http2::SendRequest<B>),
}

/// Spawns hyper's tasks on the worker that they were made on.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
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
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        // An idle h2 connection can be dead yet "ready" (hyperium/hyper #4186): ping it.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await
        .map_err(ConnectError::Http)?;
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "an upstream h2 connection ended");
        }
    }));
    Ok(Connection::H2(sender))
}
