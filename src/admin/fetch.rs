//! One HTTP exchange with somebody outside (Prometheus, a scorer): one connection, a bounded answer. The caller has the time-out.

use std::fmt;

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::{HttpVersion, UpstreamTls};
use crate::tls;

/// Most bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;

/// Why there is no good answer; never holds the address, which may have a credential in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(why: impl fmt::Display) -> Failed {
    Failed(why.to_string())
}

/// Reads `path` (with its query) below the path of `base`; the query of `base` is kept behind it.
///
/// # Errors
/// No connection, no 2xx, or an answer that is too long.
pub async fn get(base: &str, path: &str) -> Result<Bytes, Failed> {
    let uri: Uri = base.parse().map_err(|_| failed("the url cannot be read"))?;
    let more = uri.query().map(|more| format!("&{more}")).unwrap_or_default();
    let target = format!("{}{path}{more}", uri.path().trim_end_matches('/'));
    send(&uri, Method::GET, &target, Bytes::new()).await
}

/// Sends JSON.
///
/// # Errors
/// As [`get`].
pub async fn post(url: &str, json: String) -> Result<Bytes, Failed> {
    let uri: Uri = url.parse().map_err(|_| failed("the url cannot be read"))?;
    let target = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    send(&uri, Method::POST, &target, Bytes::from(json)).await
}

async fn send(uri: &Uri, method: Method, target: &str, body: Bytes) -> Result<Bytes, Failed> {
    let host = uri.host().ok_or_else(|| failed("the url has no host"))?.trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, authority.rsplit('@').next().unwrap_or(authority))
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("serin/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(failed)?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
    if !secure {
        return converse(stream, request).await;
    }
    let name = ServerName::try_from(host).map_err(failed)?;
    let config = tls::client(&UpstreamTls::default(), HttpVersion::Http1).map_err(failed)?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
    converse(stream, request).await
}

async fn converse<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let bytes = body.map_err(|_| failed("the answer is too long, or broke off"))?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(failed(format!("the answer was {status}"))) }
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The other side has closed behind its answer, which is still to be read.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed(error)),
        },
    }
}
