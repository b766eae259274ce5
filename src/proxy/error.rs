//! What serin answers itself: few typed errors, each with its side, status and outcome, in the shape of the protocol.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::DownBody;
use crate::measure::Outcome;
use crate::upstream::ConnectError;
use crate::wire::Protocol;

/// `Proxy-Status`, RFC 9209.
pub static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The usual ones of the methods that are forwarded: all but CONNECT and TRACE.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request was not answered by a version.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The caller closed its connection while its body was still coming.
    #[error("the caller left")]
    CallerLeft,
    /// The target is longer than `uri_bytes`.
    #[error("the request target is longer than the limit")]
    UriTooLong,
    /// The head is longer than `header_bytes`, or has more fields than `headers`.
    #[error("{0}")]
    HeadTooLarge(&'static str),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("this version of HTTP is not spoken here; send HTTP/1.1 or HTTP/2")]
    Version,
    /// A transfer coding that serin does not know (RFC 9112 section 6.1).
    #[error("of transfer codings only chunked is known here")]
    UnknownCoding,
    /// The body is longer than `body_bytes`.
    #[error("the request body is longer than the limit")]
    BodyTooLarge,
    /// The caller's body stood still.
    #[error("the request body stood still for too long")]
    BodyStalled,
    /// A method that serin does not forward.
    #[error("this method is not forwarded")]
    Method,
    /// No rollout takes this host and path.
    #[error("no rollout takes this host and path")]
    NoRoute,
    /// All of the version's places are taken.
    #[error("the version is at its bound of concurrent requests")]
    Overloaded,
    /// No connection to any endpoint of the version.
    #[error("the version cannot be reached: {0}")]
    Connect(ConnectError),
    /// The connection broke before the response head.
    #[error("the upstream connection ended before an answer")]
    Reset,
    /// What came is no HTTP.
    #[error("the upstream answered with something that is not HTTP")]
    Protocol,
    /// No response head within `first_byte`.
    #[error("the upstream did not begin its answer in time")]
    FirstByte,
    /// Our own fault.
    #[error("serin could not build the request for the upstream")]
    Local,
}

/// On which side of serin a failure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's.
    Downstream,
    /// The version's.
    Upstream,
    /// Ours.
    Local,
}

impl ProxyError {
    /// Who is to blame.
    #[must_use]
    pub const fn side(&self) -> Side {
        match self {
            ProxyError::Connect(_) | ProxyError::Reset | ProxyError::Protocol | ProxyError::FirstByte => Side::Upstream,
            ProxyError::Local => Side::Local,
            _ => Side::Downstream,
        }
    }

    /// The status sent.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            ProxyError::BadRequest(_) | ProxyError::CallerLeft => StatusCode::BAD_REQUEST,
            ProxyError::UriTooLong => StatusCode::URI_TOO_LONG,
            ProxyError::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ProxyError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            ProxyError::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            ProxyError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ProxyError::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            ProxyError::Method => StatusCode::METHOD_NOT_ALLOWED,
            ProxyError::NoRoute => StatusCode::NOT_FOUND,
            ProxyError::Overloaded | ProxyError::Connect(ConnectError::Unresolved) => StatusCode::SERVICE_UNAVAILABLE,
            ProxyError::Connect(ConnectError::TimedOut(_)) | ProxyError::FirstByte => StatusCode::GATEWAY_TIMEOUT,
            ProxyError::Connect(_) | ProxyError::Reset | ProxyError::Protocol => StatusCode::BAD_GATEWAY,
            ProxyError::Local => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How it is counted.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            ProxyError::Connect(ConnectError::TimedOut(_)) | ProxyError::FirstByte => Outcome::Timeout,
            ProxyError::Connect(_) | ProxyError::Reset | ProxyError::Protocol => Outcome::UpstreamError,
            ProxyError::BadRequest(_)
            | ProxyError::NoRoute
            | ProxyError::Method
            | ProxyError::Version
            | ProxyError::UnknownCoding
            | ProxyError::BodyStalled => Outcome::ClientError,
            ProxyError::UriTooLong
            | ProxyError::HeadTooLarge(_)
            | ProxyError::BodyTooLarge
            | ProxyError::Overloaded => Outcome::Refused,
            ProxyError::CallerLeft => Outcome::Cancelled,
            ProxyError::Local => Outcome::Local,
        }
    }

    /// RFC 9209's word, section 2.3.
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        match self {
            ProxyError::Connect(error) => error.proxy_status(),
            ProxyError::Reset => "connection_terminated",
            ProxyError::Protocol => "http_protocol_error",
            ProxyError::FirstByte => "http_response_timeout",
            ProxyError::NoRoute => "destination_not_found",
            ProxyError::Overloaded => "connection_limit_reached",
            ProxyError::Local => "proxy_internal_error",
            ProxyError::BodyTooLarge
            | ProxyError::UriTooLong
            | ProxyError::HeadTooLarge(_)
            | ProxyError::Version
            | ProxyError::UnknownCoding
            | ProxyError::Method
            | ProxyError::CallerLeft
            | ProxyError::BadRequest(_) => "http_request_error",
            ProxyError::BodyStalled => "http_request_error",
        }
    }

    /// The answer, with the body shape that callers of `protocol` know.
    #[must_use]
    pub fn response(&self, protocol: Protocol, request_id: Option<&HeaderValue>) -> Response<DownBody> {
        let status = self.status();
        let (kind, body) = self.shape(protocol);
        let mut response = Response::new(DownBody::full(body.clone()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_str(&format!("serin; error={}", self.proxy_status())) {
            headers.insert(PROXY_STATUS.clone(), value);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        if let Some(id) = request_id {
            headers.insert(HeaderName::from_static("x-request-id"), id.clone());
        }
        response
    }

    fn shape(&self, protocol: Protocol) -> (&'static str, Bytes) {
        let (status, message) = (self.status(), self.to_string());
        let server = status.is_server_error();
        let json = |value: serde_json::Value| Bytes::from(value.to_string());
        match protocol {
            Protocol::OpenAi => {
                let kind = if server { "server_error" } else { "invalid_request_error" };
                let error =
                    serde_json::json!({"message": message, "type": kind, "param": null, "code": self.proxy_status()});
                ("application/json", json(serde_json::json!({ "error": error })))
            }
            Protocol::Anthropic => {
                let kind = match status.as_u16() {
                    404 => "not_found_error",
                    413 => "request_too_large",
                    503 => "overloaded_error",
                    504 => "timeout_error",
                    _ if server => "api_error",
                    _ => "invalid_request_error",
                };
                let error = serde_json::json!({"type": kind, "message": message});
                ("application/json", json(serde_json::json!({"type": "error", "error": error})))
            }
            Protocol::Mcp => {
                let code = if server { -32603 } else { -32600 };
                let error = serde_json::json!({"code": code, "message": message});
                ("application/json", json(serde_json::json!({"jsonrpc": "2.0", "id": null, "error": error})))
            }
            Protocol::Auto | Protocol::Http => {
                let problem = serde_json::json!({
                    "type": "about:blank",
                    "title": status.canonical_reason().unwrap_or("error"),
                    "status": status.as_u16(),
                    "detail": message,
                });
                ("application/problem+json", json(problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    /// The error, its status, its `Proxy-Status`, and the kind that OpenAI's and Anthropic's clients are told.
    type Row = (ProxyError, u16, &'static str, &'static str, &'static str);

    fn all() -> Vec<Row> {
        let connect = |kind| ProxyError::Connect(ConnectError::Tcp(io::Error::from(kind)));
        let tls = |why: &str| ProxyError::Connect(ConnectError::Tls(io::Error::other(why.to_owned())));
        let (bad, server) = ("invalid_request_error", "server_error");
        vec![
            (ProxyError::BadRequest("why"), 400, "http_request_error", bad, bad),
            (ProxyError::CallerLeft, 400, "http_request_error", bad, bad),
            (ProxyError::HeadTooLarge("why"), 431, "http_request_error", bad, bad),
            (ProxyError::Version, 505, "http_request_error", server, "api_error"),
            (ProxyError::UriTooLong, 414, "http_request_error", bad, bad),
            (ProxyError::BodyTooLarge, 413, "http_request_error", bad, "request_too_large"),
            (ProxyError::BodyStalled, 408, "http_request_error", bad, bad),
            (ProxyError::Method, 405, "http_request_error", bad, bad),
            (ProxyError::NoRoute, 404, "destination_not_found", bad, "not_found_error"),
            (ProxyError::Overloaded, 503, "connection_limit_reached", server, "overloaded_error"),
            (ProxyError::Connect(ConnectError::Unresolved), 503, "dns_error", server, "overloaded_error"),
            (connect(io::ErrorKind::ConnectionRefused), 502, "connection_refused", server, "api_error"),
            (connect(io::ErrorKind::HostUnreachable), 502, "destination_unavailable", server, "api_error"),
            (tls("invalid peer certificate"), 502, "tls_certificate_error", server, "api_error"),
            (tls("no version in common"), 502, "tls_protocol_error", server, "api_error"),
            (
                ProxyError::Connect(ConnectError::TimedOut(Duration::from_secs(1))),
                504,
                "connection_timeout",
                server,
                "timeout_error",
            ),
            (ProxyError::Reset, 502, "connection_terminated", server, "api_error"),
            (ProxyError::Protocol, 502, "http_protocol_error", server, "api_error"),
            (ProxyError::FirstByte, 504, "http_response_timeout", server, "timeout_error"),
            (ProxyError::Local, 500, "proxy_internal_error", server, "api_error"),
        ]
    }

    #[test]
    fn every_error_has_its_status_headers_and_the_body_that_the_protocols_clients_read() {
        let id = HeaderValue::from_static("r-1");
        for (error, status, proxy_status, openai, anthropic) in all() {
            let message = error.to_string();
            let mcp = if status >= 500 { -32603 } else { -32600 };
            for (protocol, media, expect) in [
                (
                    Protocol::OpenAi,
                    "application/json",
                    json!({"error": {"message": message, "type": openai, "param": null, "code": proxy_status}}),
                ),
                (
                    Protocol::Anthropic,
                    "application/json",
                    json!({"type": "error", "error": {"type": anthropic, "message": message}}),
                ),
                (
                    Protocol::Mcp,
                    "application/json",
                    json!({"jsonrpc": "2.0", "id": null, "error": {"code": mcp, "message": message}}),
                ),
                (
                    Protocol::Http,
                    "application/problem+json",
                    json!({
                        "type": "about:blank",
                        "title": error.status().canonical_reason(),
                        "status": status,
                        "detail": message,
                    }),
                ),
            ] {
                let response = error.response(protocol, Some(&id));
                let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
                let (kind, body) = error.shape(protocol);
                assert_eq!((response.status().as_u16(), kind), (status, media), "{error:?}");
                assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expect, "{error:?}");
                assert_eq!(header("content-type"), Some(media));
                assert_eq!(header("content-length"), Some(body.len().to_string().as_str()));
                assert_eq!(header("proxy-status"), Some(format!("serin; error={proxy_status}").as_str()), "{error:?}");
                assert_eq!(header("retry-after"), (status == 503).then_some("1"), "{error:?}");
                assert_eq!(header("allow").is_some(), status == 405, "{error:?}");
                assert_eq!((header("cache-control"), header("x-request-id")), (Some("no-store"), Some("r-1")));
            }
            let blame = (error.side(), error.outcome());
            let fits = match blame.0 {
                Side::Upstream => matches!(blame.1, Outcome::UpstreamError | Outcome::Timeout),
                Side::Local => blame.1 == Outcome::Local,
                Side::Downstream => {
                    matches!(blame.1, Outcome::ClientError | Outcome::Refused | Outcome::Cancelled)
                }
            };
            assert!(fits, "{error:?}: {blame:?}");
        }
    }
}
