//! What serin refuses of a request head though the codec lets it through: whatever another server might read differently.

use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri, Version, header};

use super::error::ProxyError;
use super::headers::Present;

/// The host asked for, without its port.
///
/// # Errors
/// The head is ambiguous: its target, its host or its framing (RFC 9112 sections 3.2, 6.1 and 6.3).
pub fn check<B>(request: &Request<B>, present: Present) -> Result<&str, ProxyError> {
    target(request.uri(), request.method(), request.version())?;
    framing(request.headers(), present, request.version())?;
    host(request.uri(), request.headers(), present, request.version())
}

/// Origin form or absolute form; `*` for OPTIONS alone.
fn target(uri: &Uri, method: &Method, version: Version) -> Result<(), ProxyError> {
    if let Some(scheme) = uri.scheme_str()
        && scheme != "http"
        && scheme != "https"
    {
        return Err(ProxyError::BadRequest("the target's scheme is not http or https"));
    }
    let authority_form = version != Version::HTTP_2 && uri.authority().is_some() && uri.scheme().is_none();
    let rooted = uri.path().starts_with('/') || (uri.path() == "*" && method == Method::OPTIONS);
    if authority_form || !rooted {
        return Err(ProxyError::BadRequest("the request target is not a path or an absolute http URL"));
    }
    Ok(())
}

/// `chunked` and nothing else as transfer coding; one length at most.
fn framing(headers: &HeaderMap, present: Present, version: Version) -> Result<(), ProxyError> {
    if present.has(Present::TRANSFER_ENCODING) && !is_framed_once(headers) {
        return Err(ProxyError::BadRequest("the only transfer coding is chunked, once"));
    }
    // Of HTTP/1 the codec has seen to it.
    if version == Version::HTTP_2
        && present.has(Present::CONTENT_LENGTH)
        && headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some()
    {
        return Err(ProxyError::BadRequest("Content-Length is there more than once"));
    }
    Ok(())
}

/// Whether no transfer coding is named, or `chunked` alone and no length beside it. What a message with both means
/// depends on who reads it; of a request the codec has already taken the length off and will close the connection.
#[must_use]
pub fn is_framed_once(headers: &HeaderMap) -> bool {
    let Some(coding) = headers.get(header::TRANSFER_ENCODING) else { return true };
    coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        && headers.get_all(header::TRANSFER_ENCODING).iter().nth(1).is_none()
        && !headers.contains_key(header::CONTENT_LENGTH)
}

/// Of the one `Host` field, or of `:authority`; an absolute target must name the same (HTTP/1.1 sends both).
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap, present: Present, version: Version) -> Result<&'a str, ProxyError> {
    let field = match headers.get(header::HOST).map(|field| field.to_str()) {
        None => None,
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return Err(ProxyError::BadRequest("the Host field is not a host")),
    };
    if present.has(Present::HOST_AGAIN) {
        return Err(ProxyError::BadRequest("the Host field is there more than once"));
    }
    let text = match (uri.authority().map(Authority::as_str), field) {
        (Some(authority), Some(field)) if !same_host(authority, field, uri.scheme_str()) => {
            return Err(ProxyError::BadRequest("the Host field and the target name different hosts"));
        }
        (None, None) | (Some(_), None) if version == Version::HTTP_11 => {
            return Err(ProxyError::BadRequest("the Host field is missing"));
        }
        (Some(authority), _) => authority,
        (None, Some(field)) => field,
        (None, None) if version == Version::HTTP_10 => "",
        (None, None) => return Err(ProxyError::BadRequest("the request names no host")),
    };
    host_without_port(text).ok_or(ProxyError::BadRequest("the Host field is not a host"))
}

/// The same host, whether or not the scheme's own port is written out.
fn same_host(a: &str, b: &str, scheme: Option<&str>) -> bool {
    let port = if scheme == Some("https") { ":443" } else { ":80" };
    let (a, b) = (a.strip_suffix(port).unwrap_or(a), b.strip_suffix(port).unwrap_or(b));
    a.eq_ignore_ascii_case(b)
}

/// `host[:port]` without the port; nothing else may be in it.
fn host_without_port(text: &str) -> Option<&str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        if !inside.bytes().all(|c| c.is_ascii_hexdigit() || matches!(c, b':' | b'.')) {
            return None;
        }
        (inside, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        if !host.bytes().all(is_of_a_name) {
            return None;
        }
        (host, port)
    };
    match port {
        Some(port) if !is_port(port) => None,
        _ => Some(host),
    }
}

/// Empty, or a number of 16 bits.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.len() <= 5 && !text.starts_with('+') && text.parse::<u16>().is_ok())
}

/// RFC 3986's reg-name.
fn is_of_a_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for (text, expect) in [
            ("example.com", Some("example.com")),
            ("example.com:8080", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("[::1]:80", Some("::1")),
            ("[::1]", Some("::1")),
            ("", Some("")),
            ("a@b", None),
            ("a b", None),
            ("a/b", None),
            ("a:99999", None),
            ("a:8x", None),
            ("a:+8", None),
            ("a:1:2", None),
            ("[::1", None),
            ("[::1]x", None),
        ] {
            assert_eq!(host_without_port(text), expect, "{text:?}");
        }
    }

    #[test]
    fn the_port_of_the_scheme_may_be_left_out() {
        assert!(same_host("A.test:80", "a.test", Some("http")));
        assert!(same_host("a.test", "a.test:443", Some("https")));
        assert!(!same_host("a.test:8080", "a.test", Some("http")));
        assert!(!same_host("a.test", "b.test", None));
    }

    #[test]
    fn chunked_is_the_only_coding() {
        for (values, good) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["chunked", "chunked"], false),
            (&[",chunked"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::TRANSFER_ENCODING, http::HeaderValue::from_static(value));
            }
            assert_eq!(framing(&headers, Present::scan(&headers), Version::HTTP_11).is_ok(), good, "{values:?}");
        }
    }
}
