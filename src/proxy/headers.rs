//! Heads on their way: hop-by-hop fields off (RFC 9110 section 7.6.1), serin's own fields on.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::http1::Outbox;

/// Which fields of interest a head has: found in one pass, so that a field that is not there costs no look-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present(u32);

impl Present {
    /// `Connection`.
    pub const CONNECTION: u32 = 1;
    /// `Keep-Alive`, `Proxy-Connection`, `HTTP2-Settings` or `Proxy-Authorization`.
    pub const HOP_RARE: u32 = 1 << 1;
    /// `Transfer-Encoding`.
    pub const TRANSFER_ENCODING: u32 = 1 << 2;
    /// `Upgrade`.
    pub const UPGRADE: u32 = 1 << 3;
    /// `TE`.
    pub const TE: u32 = 1 << 4;
    /// `Expect`.
    pub const EXPECT: u32 = 1 << 5;
    /// Anything that begins with `serin-`.
    pub const SERIN: u32 = 1 << 6;
    /// `X-Forwarded-For`, `-Proto` or `-Host`, `Forwarded` or `X-Real-IP`.
    pub const FORWARDED: u32 = 1 << 7;
    /// `X-Request-Id`.
    pub const REQUEST_ID: u32 = 1 << 9;
    /// `Traceparent`.
    pub const TRACEPARENT: u32 = 1 << 10;
    /// `Host`.
    pub const HOST: u32 = 1 << 11;
    /// `Host` more than once.
    pub const HOST_AGAIN: u32 = 1 << 12;
    /// `Content-Length`.
    pub const CONTENT_LENGTH: u32 = 1 << 13;
    /// `Trailer`.
    pub const TRAILER: u32 = 1 << 14;
    /// `Server-Timing`.
    pub const SERVER_TIMING: u32 = 1 << 15;
    /// `Content-Type`.
    pub const CONTENT_TYPE: u32 = 1 << 16;
    /// `Content-Encoding`.
    pub const CONTENT_ENCODING: u32 = 1 << 17;

    /// Looks once at every field.
    #[must_use]
    pub fn scan(headers: &HeaderMap) -> Self {
        let mut bits = 0;
        // Every value, not only every name, so that a second Host is seen.
        for (name, _) in headers {
            bits |= match name.as_str() {
                "host" if bits & Self::HOST != 0 => Self::HOST_AGAIN,
                "host" => Self::HOST,
                "content-length" => Self::CONTENT_LENGTH,
                "content-type" => Self::CONTENT_TYPE,
                "connection" => Self::CONNECTION,
                "content-encoding" => Self::CONTENT_ENCODING,
                "transfer-encoding" => Self::TRANSFER_ENCODING,
                "x-request-id" => Self::REQUEST_ID,
                "traceparent" => Self::TRACEPARENT,
                "keep-alive" | "proxy-connection" | "http2-settings" | "proxy-authorization" => Self::HOP_RARE,
                "upgrade" => Self::UPGRADE,
                "te" => Self::TE,
                "expect" => Self::EXPECT,
                "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "forwarded" | "x-real-ip" => {
                    Self::FORWARDED
                }
                "trailer" => Self::TRAILER,
                "server-timing" => Self::SERVER_TIMING,
                other if other.starts_with("serin-") => Self::SERIN,
                _ => 0,
            };
        }
        Self(bits)
    }

    /// Whether any of `bits` is there.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    const HOP_BY_HOP: u32 = Self::CONNECTION | Self::HOP_RARE | Self::TRANSFER_ENCODING | Self::UPGRADE;
}

/// Fields that name a connection, not a message, and that hardly anybody sends; beside `Connection`, what that names,
/// `Transfer-Encoding` and `Upgrade`.
const HOP_RARE: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHORIZATION,
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
/// `Via`.
pub static VIA: HeaderName = header::VIA;
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Other words for the same, which serin does not say itself.
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields that `Connection` may not take away: they are the message's own.
fn is_message_field(name: &HeaderName) -> bool {
    [header::HOST, header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE, header::CACHE_CONTROL, header::TE]
        .contains(name)
        || name == "x-api-key"
        || name == "api-key"
        || name == FORWARDED_FOR
        || name == FORWARDED_PROTO
        || name == FORWARDED_HOST
        || name == REAL_IP
        || name == header::FORWARDED
        || name == REQUEST_ID
        || name == TRACEPARENT
        || ["serin-", "content-", "sec-"].iter().any(|front| name.as_str().starts_with(front))
}

/// Takes the hop-by-hop fields off.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, present: Present) {
    if !present.has(Present::HOP_BY_HOP) {
        return;
    }
    if present.has(Present::CONNECTION) {
        remove_connection(headers);
    }
    if present.has(Present::TRANSFER_ENCODING) {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if present.has(Present::UPGRADE) {
        headers.remove(header::UPGRADE);
    }
    if present.has(Present::HOP_RARE) {
        for name in &HOP_RARE {
            headers.remove(name);
        }
    }
}

/// Takes `Connection` off, and the fields that it names unless they are the message's own.
fn remove_connection(headers: &mut HeaderMap) {
    let plain = |value: &HeaderValue| {
        value.as_bytes().eq_ignore_ascii_case(b"keep-alive") || value.as_bytes().eq_ignore_ascii_case(b"close")
    };
    if !headers.get_all(header::CONNECTION).iter().all(plain) {
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
    }
    headers.remove(header::CONNECTION);
}

/// Takes out of a trailer section what may not change a message that has already been acted on (RFC 9110 section
/// 6.5.1): framing, routing, credentials, what names a connection, and what serin itself says.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            is_message_field(name)
                || matches!(
                    name.as_str(),
                    "connection"
                        | "keep-alive"
                        | "proxy-connection"
                        | "proxy-authorization"
                        | "transfer-encoding"
                        | "upgrade"
                        | "trailer"
                        | "expect"
                        | "via"
                        | "location"
                        | "retry-after"
                        | "vary"
                )
        })
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
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

/// Where serin puts its own fields: into a map for HTTP/2, straight into the bytes for HTTP/1.1, where an entry in a map
/// would cost five times as much.
pub trait Fields {
    /// Sets a field that is not there yet.
    fn set(&mut self, name: &'static HeaderName, value: &HeaderValue);
    /// Adds a line to a field that is a list.
    fn add(&mut self, name: &'static HeaderName, value: &[u8]);
}

impl Fields for HeaderMap {
    fn set(&mut self, name: &'static HeaderName, value: &HeaderValue) {
        self.insert(name.clone(), value.clone());
    }

    fn add(&mut self, name: &'static HeaderName, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(name.clone(), value);
        }
    }
}

impl Fields for Outbox {
    fn set(&mut self, name: &'static HeaderName, value: &HeaderValue) {
        self.put_field(name, value.as_bytes());
    }

    fn add(&mut self, name: &'static HeaderName, value: &[u8]) {
        self.put_field(name, value);
    }
}

/// What a request head gets on its way up, beside what its version adds.
pub struct Upward<'a> {
    hop: &'a Hop,
    host: Option<&'a HeaderValue>,
    /// `X-Forwarded-*` are to be set; where a trusted peer sent some, they have been put right in place.
    forwarded: bool,
    /// `TE: trailers` goes up; over HTTP/1.1 `Connection` must name it (RFC 9110 section 10.1.4).
    pub takes_trailers: bool,
    via: &'static [u8],
}

impl Upward<'_> {
    /// Puts the fields.
    pub fn put(&self, out: &mut impl Fields) {
        if self.forwarded {
            out.set(&FORWARDED_FOR, &self.hop.peer);
            out.set(&FORWARDED_PROTO, &self.hop.scheme);
            if let Some(host) = self.host {
                out.set(&FORWARDED_HOST, host);
            }
        }
        out.add(&VIA, self.via);
    }
}

/// Cleans a request head for upstream: hop-by-hop off, what outsiders may not say off. What serin says itself is told by
/// the answer.
pub fn towards_upstream<'a>(
    headers: &mut HeaderMap,
    present: Present,
    hop: &'a Hop,
    host: Option<&'a HeaderValue>,
    version: Version,
) -> Upward<'a> {
    let te_trailers = present.has(Present::TE)
        && headers.get(header::TE).is_some_and(|te| {
            te.to_str().is_ok_and(|t| t.split(',').any(|c| c.trim().eq_ignore_ascii_case("trailers")))
        });
    remove_hop_by_hop(headers, present);
    if present.has(Present::TE) {
        headers.remove(header::TE);
        if te_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    if present.has(Present::EXPECT) {
        // serin answers 100-continue itself, by reading the body.
        headers.remove(header::EXPECT);
    }
    if present.has(Present::SERIN) {
        for name in [&SERIN_ROLLOUT, &SERIN_WHY, &SERIN_REF, &SERIN_VERSION, &SERIN_ARM] {
            headers.remove(name);
        }
    }
    let believed = hop.trusted && present.has(Present::FORWARDED);
    if believed {
        forwarded_on(headers, hop, host);
    } else if present.has(Present::FORWARDED) {
        for name in [&FORWARDED_FOR, &FORWARDED_PROTO, &FORWARDED_HOST, &header::FORWARDED, &REAL_IP] {
            headers.remove(name);
        }
    }
    Upward { hop, host, forwarded: !believed, takes_trailers: te_trailers, via: via(version) }
}

/// How often the request may still be forwarded, where OPTIONS says so (RFC 9110 section 7.6.2).
#[must_use]
pub fn hops_left(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::MAX_FORWARDS)?.to_str().ok()?;
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Counts this hop.
pub fn count_hop(headers: &mut HeaderMap) {
    if let Some(left) = hops_left(headers) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
    }
}

/// What a trusted peer says of its callers is kept, and the peer itself added.
fn forwarded_on(headers: &mut HeaderMap, hop: &Hop, host: Option<&HeaderValue>) {
    let chain = match joined(headers, &FORWARDED_FOR, b", ") {
        None => hop.peer.clone(),
        Some(mut prior) => {
            prior.extend_from_slice(b", ");
            prior.extend_from_slice(hop.peer.as_bytes());
            HeaderValue::from_bytes(&prior).unwrap_or_else(|_| hop.peer.clone())
        }
    };
    headers.insert(FORWARDED_FOR.clone(), chain);
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO.clone(), hop.scheme.clone());
    }
    if let Some(host) = host
        && !headers.contains_key(&FORWARDED_HOST)
    {
        headers.insert(FORWARDED_HOST.clone(), host.clone());
    }
}

/// The crumbs into which HTTP/2 may cut a cookie, in one field again (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    if let Some(cookies) = joined(headers, &header::COOKIE, b"; ")
        && let Ok(cookies) = HeaderValue::from_bytes(&cookies)
    {
        headers.insert(header::COOKIE, cookies);
    }
}

/// All values of a field in one, in their order, with `between` between them.
fn joined(headers: &HeaderMap, name: &HeaderName, between: &[u8]) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter();
    let mut all = values.next()?.as_bytes().to_vec();
    for value in values {
        all.extend_from_slice(between);
        all.extend_from_slice(value.as_bytes());
    }
    Some(all)
}

/// Cleans a response head for the caller: hop-by-hop off, and what only serin may say.
pub fn towards_downstream(headers: &mut HeaderMap, present: Present) {
    remove_hop_by_hop(headers, present);
    if present.has(Present::SERIN) {
        for name in [&SERIN_ROLLOUT, &SERIN_VERSION, &SERIN_ARM, &SERIN_WHY, &SERIN_REF] {
            headers.remove(name);
        }
    }
    if present.has(Present::REQUEST_ID) {
        headers.remove(&REQUEST_ID);
    }
}

/// Serin's own line of `Via` for a message that came by `version`.
#[must_use]
pub fn via(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_2 => b"2 serin",
        Version::HTTP_10 => b"1.0 serin",
        _ => b"1.1 serin",
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
        let present = Present::scan(&headers);
        remove_hop_by_hop(&mut headers, present);
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
            let present = Present::scan(&headers);
            let hop = Hop::new(ip, true, trusted);
            towards_upstream(&mut headers, present, &hop, None, Version::HTTP_2).put(&mut headers);
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
