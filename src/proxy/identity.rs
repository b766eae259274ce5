//! Who is calling: the unit, from the first source that is present, and what cohorts may ask of a request.

use std::net::IpAddr;

use http::HeaderName;
use http::request::Parts;

use super::claims::Claims;
use crate::config::UnitSource;
use crate::split::{Ask, Unit};

/// A request as cohorts and unit sources see it. Borrowed, looked at only where a rule asks.
pub struct Caller<'a> {
    /// The head.
    pub parts: &'a Parts,
    /// The caller's address: the peer's, or of the forwarded chain where the peer is trusted.
    pub ip: IpAddr,
    /// The address as text, for the "ip" unit.
    pub ip_text: &'a str,
    /// Claims of the bearer's token, where the rollout uses any.
    pub claims: Option<&'a Claims>,
    /// A field of the body, where one was peeked at.
    pub body_unit: Option<&'a str>,
    /// The unit, once found.
    pub unit: Option<&'a str>,
}

/// Whether a source can only be answered by looking into the body.
#[must_use]
pub fn needs_body(sources: &[UnitSource], caller: &Caller<'_>) -> Option<String> {
    for source in sources {
        match source {
            UnitSource::Body(pointer) => return Some(pointer.clone()),
            other if find(other, caller).is_some() => return None,
            _ => {}
        }
    }
    None
}

/// The unit's text: of the first source that is present and not empty.
#[must_use]
pub fn unit<'a>(sources: &[UnitSource], caller: &Caller<'a>) -> Option<&'a str> {
    sources.iter().find_map(|source| find(source, caller))
}

fn find<'a>(source: &UnitSource, caller: &Caller<'a>) -> Option<&'a str> {
    let found = match source {
        UnitSource::Header(name) => header(caller.parts, name),
        UnitSource::Cookie(name) => cookie(caller.parts, name),
        UnitSource::Query(name) => query(caller.parts, name),
        UnitSource::Jwt(name) => caller.claims.and_then(|claims| claims.get(name)),
        UnitSource::Body(_) => caller.body_unit,
        UnitSource::Ip => Some(caller.ip_text),
    };
    found.map(str::trim).filter(|text| !text.is_empty())
}

impl<'a> Caller<'a> {
    /// The unit as bytes for the hash.
    #[must_use]
    pub fn split_unit(&self) -> Option<Unit<'a>> {
        self.unit.and_then(|text| Unit::new(text.as_bytes()))
    }
}

impl Ask for Caller<'_> {
    fn header(&self, name: &HeaderName) -> Option<&str> {
        header(self.parts, name)
    }
    fn cookie(&self, name: &str) -> Option<&str> {
        cookie(self.parts, name)
    }
    fn claim(&self, name: &str) -> Option<&str> {
        self.claims.and_then(|claims| claims.get(name))
    }
    fn query(&self, name: &str) -> Option<&str> {
        query(self.parts, name)
    }
    fn path(&self) -> &str {
        self.parts.uri.path()
    }
    fn ip(&self) -> IpAddr {
        self.ip
    }
    fn unit(&self) -> Option<&str> {
        self.unit
    }
}

fn header<'a>(parts: &'a Parts, name: &HeaderName) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

fn cookie<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts
        .headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

fn query<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts
        .uri
        .query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The bearer's token of a head.
#[must_use]
pub fn bearer(parts: &Parts) -> Option<&str> {
    let value = header(parts, &http::header::AUTHORIZATION)?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller's address: where the peer is trusted, the rightmost address of `X-Forwarded-For` that is not itself a
/// trusted proxy; otherwise the peer.
#[must_use]
pub fn client_ip(parts: &Parts, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !trusts(peer) {
        return peer;
    }
    let mut client = peer;
    let chain: Vec<&str> = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in chain.into_iter().rev() {
        let Ok(address) = hop.trim().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else { break };
        client = address;
        if !trusts(address) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(fields: &[(&str, &str)], uri: &str) -> Parts {
        let mut builder = Request::builder().uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn caller<'a>(parts: &'a Parts, body: Option<&'a str>) -> Caller<'a> {
        Caller { parts, ip: [10, 0, 0, 1].into(), ip_text: "10.0.0.1", claims: None, body_unit: body, unit: None }
    }

    #[test]
    fn the_first_source_that_is_present_names_the_unit() {
        let chain = [
            UnitSource::Header(HeaderName::from_static("x-user-id")),
            UnitSource::Cookie("uid".into()),
            UnitSource::Body("/user".into()),
            UnitSource::Query("u".into()),
            UnitSource::Ip,
        ];
        for (fields, uri, body, expect) in [
            (vec![("x-user-id", "h"), ("cookie", "uid=c")], "/?u=q", Some("b"), "h"),
            (vec![("x-user-id", " "), ("cookie", "a=1; uid=c; b=2")], "/?u=q", Some("b"), "c"),
            (vec![], "/?x=1&u=q", Some("b"), "b"),
            (vec![], "/?x=1&u=q", None, "q"),
            (vec![], "/", None, "10.0.0.1"),
        ] {
            let parts = parts(&fields, uri);
            assert_eq!(unit(&chain, &caller(&parts, body)), Some(expect));
        }
        assert_eq!(unit(&chain[..1], &caller(&parts(&[], "/"), None)), None);
    }

    #[test]
    fn the_body_is_looked_at_only_when_nothing_before_it_is_present() {
        let chain = [
            UnitSource::Header(HeaderName::from_static("x-user-id")),
            UnitSource::Body("/user".into()),
            UnitSource::Ip,
        ];
        assert_eq!(needs_body(&chain, &caller(&parts(&[("x-user-id", "h")], "/"), None)), None);
        assert_eq!(needs_body(&chain, &caller(&parts(&[], "/"), None)).as_deref(), Some("/user"));
    }

    #[test]
    fn the_forwarded_chain_is_believed_as_far_as_it_is_trusted() {
        let trusts = |ip: IpAddr| ip.to_string().starts_with("10.");
        for (peer, chain, expect) in [
            ("203.0.113.1", "198.51.100.7", "203.0.113.1"),
            ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
            ("10.0.0.1", "garbage", "10.0.0.1"),
        ] {
            let parts = parts(&[("x-forwarded-for", chain)], "/");
            assert_eq!(client_ip(&parts, peer.parse().unwrap(), trusts).to_string(), expect);
        }
    }
}
