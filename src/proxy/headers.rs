//! Heads on their way: hop-by-hop fields off (RFC 9110 section 7.6.1), serin's own fields on.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

/// Fields that name a connection, not a message; beside those that `Connection` itself names.
const HOP_BY_HOP: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Names that serin itself sets; from outside they are stripped.
pub static SERIN_ROLLOUT: HeaderName = HeaderName::from_static("serin-rollout");
/// The version.
pub static SERIN_VERSION: HeaderName = HeaderName::from_static("serin-version");
/// The arm.
pub static SERIN_ARM: HeaderName = HeaderName::from_static("serin-arm");
/// Why this arm.
pub static SERIN_WHY: HeaderName = HeaderName::from_static("serin-why");
/// The reference for feedback.
pub static SERIN_REF: HeaderName = HeaderName::from_static("serin-ref");
/// The request's name in logs and feedback.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C trace context.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `Server-Timing`.
pub static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that `Connection` may not take away: they are the message's own.
fn is_message_field(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::AUTHORIZATION, header::COOKIE, header::TE]
        .contains(name)
        || name == FORWARDED_FOR
        || name == FORWARDED_PROTO
        || name == FORWARDED_HOST
        || name == REQUEST_ID
        || name == TRACEPARENT
        || name.as_str().starts_with("serin-")
}

/// Takes the hop-by-hop fields off.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !is_message_field(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the request asks for a WebSocket (RFC 6455 section 4.1): the only protocol that is tunnelled.
#[must_use]
pub fn wants_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let lists = |name: HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    };
    headers.contains_key(header::UPGRADE)
        && method == Method::GET
        && version == Version::HTTP_11
        && lists(header::UPGRADE, "websocket")
        && lists(header::CONNECTION, "upgrade")
}

/// What serin knows of the connection that a request came on, as header values made once a connection.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The peer, for `X-Forwarded-For`.
    pub peer: HeaderValue,
    /// `http` or `https`.
    pub scheme: HeaderValue,
    /// Whether what the peer says of its own callers is believed.
    pub trusted: bool,
}

impl Hop {
    /// Of a connection from `peer`.
    #[must_use]
    pub fn new(peer: IpAddr, tls: bool, trusted: bool) -> Self {
        let text = peer.to_canonical().to_string();
        Self {
            peer: HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown")),
            scheme: HeaderValue::from_static(if tls { "https" } else { "http" }),
            trusted,
        }
    }
}

/// Cleans a request head for upstream: hop-by-hop off, what outsiders may not say off, forwarding fields on.
pub fn towards_upstream(headers: &mut HeaderMap, hop: &Hop, host: Option<&HeaderValue>, version: Version) {
    let te_trailers = headers
        .get(header::TE)
        .is_some_and(|te| te.to_str().is_ok_and(|t| t.split(',').any(|c| c.trim().eq_ignore_ascii_case("trailers"))));
    remove_hop_by_hop(headers);
    headers.remove(header::TE);
    if te_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // serin answers 100-continue itself, by reading the body.
    headers.remove(header::EXPECT);
    for name in [&SERIN_ROLLOUT, &SERIN_WHY, &SERIN_REF] {
        headers.remove(name);
    }
    let prior = if hop.trusted { headers.remove(&FORWARDED_FOR) } else { None };
    let chain = match prior {
        None => hop.peer.clone(),
        Some(prior) => {
            let mut joined = prior.as_bytes().to_vec();
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(hop.peer.as_bytes());
            HeaderValue::from_bytes(&joined).unwrap_or_else(|_| hop.peer.clone())
        }
    };
    headers.insert(FORWARDED_FOR.clone(), chain);
    if !(hop.trusted && headers.contains_key(&FORWARDED_PROTO)) {
        headers.insert(FORWARDED_PROTO.clone(), hop.scheme.clone());
    }
    if let Some(host) = host
        && !(hop.trusted && headers.contains_key(&FORWARDED_HOST))
    {
        headers.insert(FORWARDED_HOST.clone(), host.clone());
    }
    append_via(headers, version);
}

/// Cleans a response head for the caller.
pub fn towards_downstream(headers: &mut HeaderMap, version: Version) {
    // A message with both is one re-framed by serin: the length is dropped (RFC 9112 section 6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    append_via(headers, version);
}

fn append_via(headers: &mut HeaderMap, version: Version) {
    let ours = match version {
        Version::HTTP_2 => "2 serin",
        Version::HTTP_10 => "1.0 serin",
        _ => "1.1 serin",
    };
    match headers.get(header::VIA) {
        None => {
            headers.insert(header::VIA, HeaderValue::from_static(ours));
        }
        Some(_) => {
            headers.append(header::VIA, HeaderValue::from_static(ours));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_are_taken_off() {
        let mut headers = map(&[
            ("connection", "close, x-hop, host, authorization"),
            ("x-hop", "1"),
            ("host", "h"),
            ("authorization", "Bearer k"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-stays", "1"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host", "x-stays"]);
    }

    #[test]
    fn what_an_untrusted_peer_says_of_its_callers_is_replaced() {
        let ip = IpAddr::from([203, 0, 113, 9]);
        for (trusted, expect) in [(false, "203.0.113.9"), (true, "198.51.100.1, 203.0.113.9")] {
            let mut headers =
                map(&[("x-forwarded-for", "198.51.100.1"), ("serin-why", "override"), ("te", "trailers, deflate")]);
            towards_upstream(&mut headers, &Hop::new(ip, true, trusted), None, Version::HTTP_2);
            assert_eq!(headers["x-forwarded-for"], expect);
            assert_eq!(headers["x-forwarded-proto"], "https");
            assert_eq!(headers["via"], "2 serin");
            assert_eq!(headers["te"], "trailers");
            assert!(!headers.contains_key("serin-why"));
        }
    }

    #[test]
    fn only_a_websocket_is_tunnelled() {
        let ask = |upgrade: &'static str, connection: &'static str| {
            wants_websocket(&Method::GET, Version::HTTP_11, &map(&[("upgrade", upgrade), ("connection", connection)]))
        };
        assert!(ask("websocket", "keep-alive, Upgrade"));
        assert!(!ask("h2c", "Upgrade"));
        assert!(!ask("websocket", "keep-alive"));
    }
}
