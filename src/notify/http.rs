//! One POST on a connection of its own: bounded in time and size, redirects not followed, nothing secret in its errors.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Secret;
use crate::names::Wall;

/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;
/// The longest wait that a receiver can ask for.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// A POST to be made.
#[derive(Debug)]
pub struct Call {
    /// Where to; may be a secret itself.
    pub url: Secret,
    /// Beside host, length and user agent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is sent.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// Why nothing came back. Names neither address nor secret.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address cannot be used.
    #[error("its address cannot be used")]
    Address,
    /// No connection.
    #[error("connecting failed: {0}")]
    Connect(#[source] io::Error),
    /// TLS could not be agreed, or the certificate is not trusted.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The exchange broke off.
    #[error("the exchange broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Posts, and waits for the answer's head; its body is read to an end or a bound, and thrown away.
///
/// # Errors
/// See [`CallError`].
pub async fn post(tls: &Arc<ClientConfig>, call: Call, timeout: Duration, now: Wall) -> Result<Answer, CallError> {
    match tokio::time::timeout(timeout, exchange(tls, call, now)).await {
        Ok(result) => result,
        Err(_) => Err(CallError::TimedOut(timeout)),
    }
}

async fn exchange(tls: &Arc<ClientConfig>, call: Call, now: Wall) -> Result<Answer, CallError> {
    let uri: Uri = call.url.expose().parse().map_err(|_| CallError::Address)?;
    let host = uri.host().ok_or(CallError::Address)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let request = request(&uri, call)?;
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(CallError::Connect)?;
    tcp.set_nodelay(true).map_err(CallError::Connect)?;
    if !secure {
        return converse(tcp, request, now).await;
    }
    let name = ServerName::try_from(host).map_err(|_| CallError::Address)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(CallError::Tls)?;
    converse(stream, request, now).await
}

fn request(uri: &Uri, call: Call) -> Result<Request<Full<Bytes>>, CallError> {
    let authority = uri.authority().ok_or(CallError::Address)?;
    // What stands before an @ is a user and his password, not a part of the host.
    let (user, host) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("serin/", env!("CARGO_PKG_VERSION")));
    if !user.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(user)));
    }
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(call.body)).map_err(|_| CallError::Address)
}

async fn converse<S>(stream: S, request: Request<Full<Bytes>>, now: Wall) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(CallError::Broken)?;
    let conversation = async {
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        let answer = Answer { status: response.status(), retry_after: retry_after(response.headers(), now) };
        let mut body = response.into_body();
        let mut read = 0;
        // The status has been given: whatever becomes of the body changes nothing.
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > ANSWER_MAX {
                break;
            }
        }
        Ok(answer)
    };
    // The connection ends with the conversation: both live in this future and nowhere else.
    tokio::pin!(connection);
    tokio::pin!(conversation);
    tokio::select! {
        answer = &mut conversation => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(CallError::Broken(error)),
            Ok(()) => conversation.await,
        },
    }
}

/// `Retry-After` in seconds or as a date, an hour at most.
fn retry_after(headers: &HeaderMap, now: Wall) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            until.saturating_sub(Duration::from_millis(u64::try_from(now.0).unwrap_or(0)))
        }
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_and_has_a_bound() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, Wall(784_111_777_000)).map(|d| d.as_secs())
        };
        assert_eq!(read("7"), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0), "a date that has passed");
        assert_eq!(read("999999"), Some(3_600));
        assert_eq!(read("soon"), None);
    }
}
