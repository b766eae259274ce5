//! Heads of messages: found, read strictly, and what they say of framing.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};
use httparse::Status;
use std::mem::MaybeUninit;

use super::body::Decoder;

/// Fields that fit into the array on the stack; a head with more is read with one on the heap.
const FIELDS_INLINE: usize = 64;
/// Empty lines before a request that are forgiven (RFC 9112 section 2.2 asks for at least one).
const EMPTY_LINES: usize = 4;
/// What every head that is read says, or is read as saying where it says 1.2 or later, but for those of HTTP/1.0.
const VERSION: &[u8] = b"HTTP/1.1";
/// Longest head of a response.
pub const RESPONSE_BYTES: usize = 256 << 10;
/// Most fields of a response.
pub const RESPONSE_FIELDS: usize = 256;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// More bytes than allowed.
    #[error("the head is longer than the limit")]
    TooLong,
    /// More fields than allowed.
    #[error("the head has more fields than the limit")]
    TooManyFields,
    /// Not HTTP/1.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A transfer coding that is not known, below `chunked`.
    #[error("of transfer codings only chunked is known here")]
    UnknownCoding,
    /// Not a head.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Bounds on a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Most bytes, from the first of the request line to the empty line.
    pub bytes: usize,
    /// Most fields.
    pub fields: usize,
}

/// A request's head and what it says of its body and its connection.
#[derive(Debug)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Target, in origin or absolute form (others are the caller's to refuse).
    pub uri: Uri,
    /// 1.0 or 1.1.
    pub version: Version,
    /// All fields.
    pub headers: HeaderMap,
    /// How its body is delimited.
    pub body: Decoder,
    /// Whether the connection may serve another request.
    pub keep_alive: bool,
    /// `Expect: 100-continue` from an HTTP/1.1 client.
    pub expects_continue: bool,
    /// `TE: trailers`.
    pub takes_trailers: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// 1.0 or 1.1.
    pub version: Version,
    /// All fields.
    pub headers: HeaderMap,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    framing: Framing,
}

/// Looks for the end of a head from byte `from` on: `Some(n)` when the first `n` bytes are a whole head.
///
/// # Errors
/// A line that ends without a carriage return: another server might see the head end elsewhere.
pub fn find_end(input: &[u8], from: usize) -> Result<Option<usize>, HeadError> {
    for at in memchr::memchr_iter(b'\n', &input[from..]).map(|at| at + from) {
        if at == 0 || input[at - 1] != b'\r' {
            return Err(HeadError::Malformed("a line does not end with carriage return and line feed"));
        }
        if at >= 3 && input[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Takes a request head off the front of `input`, if it is whole. `scanned` remembers where to go on looking.
///
/// # Errors
/// It is too long, ambiguous, or none at all.
pub fn take_request(
    input: &mut BytesMut,
    scanned: &mut usize,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, HeadError> {
    if *scanned == 0 {
        skip_empty_lines(input)?;
        if input[..] == *b"\r" {
            return Ok(None); // the rest of another empty line may follow
        }
    }
    let Some(end) = find_end(input, *scanned)? else {
        if input.first().is_some_and(|b| !b.is_ascii_graphic() && *b != b'\r') {
            // TLS to a plain port, mostly: it would wait for us as we for it.
            return Err(HeadError::Malformed("the request line is none"));
        }
        *scanned = input.len();
        return if input.len() > limits.bytes { Err(HeadError::TooLong) } else { Ok(None) };
    };
    *scanned = 0;
    if end > limits.bytes {
        return Err(HeadError::TooLong);
    }
    let head = input.split_to(end).freeze();
    read_request(&head, limits.fields).map(Some)
}

fn skip_empty_lines(input: &mut BytesMut) -> Result<(), HeadError> {
    let mut lines = 0;
    while input.starts_with(b"\r\n") {
        lines += 1;
        if lines > EMPTY_LINES {
            return Err(HeadError::Malformed("empty lines in place of a request"));
        }
        drop(input.split_to(2));
    }
    Ok(())
}

fn read_request(head: &Bytes, most: usize) -> Result<RequestHead, HeadError> {
    let mut inline = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
    let mut heap = Vec::new();
    let mut request = httparse::Request::new(&mut []);
    let parsed = match request.parse_with_uninit_headers(head, &mut inline) {
        Err(httparse::Error::TooManyHeaders) => {
            heap.resize_with(most.saturating_add(1), MaybeUninit::uninit);
            request = httparse::Request::new(&mut []);
            request.parse_with_uninit_headers(head, &mut heap)
        }
        other => other,
    };
    match parsed {
        Ok(Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(HeadError::Malformed("the head ends before its end")),
        Err(httparse::Error::Version) => {
            let line = memchr::memchr(b'\r', head).unwrap_or_default();
            let known = as_1_1(head, line.saturating_sub(VERSION.len()))
                .ok_or_else(|| refused(httparse::Error::Version, head))?;
            return read_request(&known, most);
        }
        Err(error) => return Err(refused(error, head)),
    }
    if request.headers.len() > most {
        return Err(HeadError::TooManyFields);
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed("the request line is not whole"));
    };
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed("the method is not a token"))?;
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
        .map_err(|_| HeadError::Malformed("the request target is not a URI"))?;
    let uri = if method == Method::OPTIONS { asks_the_server(uri, target) } else { uri };
    let (headers, framing) = fields(head, request.headers)?;
    Ok(RequestHead {
        body: framing.request(version)?,
        keep_alive: framing.keep_alive(version),
        expects_continue: framing.expects_continue && version == Version::HTTP_11,
        takes_trailers: framing.takes_trailers,
        method,
        uri,
        version,
        headers,
    })
}

/// OPTIONS of an absolute target without path and query is of the server as a whole: `*` (RFC 9112 section 3.2.4).
fn asks_the_server(uri: Uri, target: &str) -> Uri {
    if !target.split_once("://").is_some_and(|(_, authority)| uri.authority().is_some_and(|a| a == authority)) {
        return uri;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("*"));
    Uri::from_parts(parts).unwrap_or(uri)
}

fn refused(error: httparse::Error, head: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version if names_another_version(head) => HeadError::Version,
        httparse::Error::Version => HeadError::Malformed("the request line does not end with an HTTP version"),
        httparse::Error::HeaderName => HeadError::Malformed("a field's name is not a token"),
        httparse::Error::HeaderValue => HeadError::Malformed("a field's value has bytes that none may have"),
        httparse::Error::Status => HeadError::Malformed("the status line is none"),
        _ => HeadError::Malformed("the request line is none"),
    }
}

/// The same head in HTTP/1.1, where the version at byte `at` is a later one of the same major number: whoever speaks it
/// understands the one that we know (RFC 9110 section 2.5).
fn as_1_1(head: &Bytes, at: usize) -> Option<Bytes> {
    match head.get(at..at + VERSION.len())? {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => {}
        _ => return None,
    }
    let mut known = BytesMut::from(&head[..]);
    known[at..at + VERSION.len()].copy_from_slice(VERSION);
    Some(known.freeze())
}

/// A request line that is whole but for its version, `HTTP/d.d` of another major number.
fn names_another_version(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (Some(_), Some(_), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return false;
    };
    let Some([major, b'.', minor]) = version.strip_prefix(b"HTTP/") else { return false };
    major.is_ascii_digit() && minor.is_ascii_digit() && *major != b'1'
}

/// Takes a response head off the front of `input`, if it is whole.
///
/// # Errors
/// It is too long or no head.
pub fn take_response(input: &mut BytesMut, scanned: &mut usize) -> Result<Option<ResponseHead>, HeadError> {
    // Whatever does not begin like an answer will not become one.
    const BEGINS: &[u8] = b"HTTP/1.";
    let begun = input.len().min(BEGINS.len());
    if input[..begun] != BEGINS[..begun] {
        return Err(HeadError::Malformed("what came is no answer of HTTP/1"));
    }
    let from = scanned.saturating_sub(3);
    let Some(end) = response_end(input, from) else {
        *scanned = input.len();
        return if input.len() > RESPONSE_BYTES { Err(HeadError::TooLong) } else { Ok(None) };
    };
    *scanned = 0;
    let head = input.split_to(end).freeze();
    read_response(&head).map(Some)
}

/// A model server may end its lines with a line feed alone; what goes down is written anew.
fn response_end(input: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &input[from..])
        .map(|at| at + from)
        .find(|at| matches!(input[..*at], [.., b'\n', b'\r'] | [.., b'\n']))
        .map(|at| at + 1)
}

fn read_response(head: &Bytes) -> Result<ResponseHead, HeadError> {
    let mut inline = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
    let mut heap = Vec::new();
    let config = httparse::ParserConfig::default();
    let mut response = httparse::Response::new(&mut []);
    let parsed = match config.parse_response_with_uninit_headers(&mut response, head, &mut inline) {
        Err(httparse::Error::TooManyHeaders) => {
            heap.resize_with(RESPONSE_FIELDS, MaybeUninit::uninit);
            response = httparse::Response::new(&mut []);
            config.parse_response_with_uninit_headers(&mut response, head, &mut heap)
        }
        other => other,
    };
    match parsed {
        Ok(Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(HeadError::Malformed("the head ends before its end")),
        Err(httparse::Error::Version) => {
            let known = as_1_1(head, 0).ok_or_else(|| refused(httparse::Error::Version, head))?;
            return read_response(&known);
        }
        Err(error) => return Err(refused(error, head)),
    }
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed("the status line is not whole"));
    };
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("the status is no number of HTTP"))?;
    let (headers, framing) = fields(head, response.headers)?;
    let keep_alive = framing.keep_alive(version);
    Ok(ResponseHead { status, version, headers, keep_alive, framing })
}

impl ResponseHead {
    /// How the body of the answer to a request with `method` is delimited (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// It says two things at once.
    pub fn body(&self, method: &Method) -> Result<Decoder, HeadError> {
        let none = *method == Method::HEAD
            || self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED;
        match self.framing {
            Framing { coding: Coding::Inner | Coding::Unknown | Coding::Other, .. } => {
                Err(HeadError::Malformed("the only transfer coding is chunked, once"))
            }
            Framing { coding: Coding::Chunked, .. } if self.version == Version::HTTP_10 => {
                Err(HeadError::Malformed("HTTP/1.0 has no transfer codings"))
            }
            Framing { coding: Coding::Chunked, length: Some(_), .. } => {
                Err(HeadError::Malformed("Transfer-Encoding and Content-Length are there both"))
            }
            _ if none => Ok(Decoder::Done),
            Framing { coding: Coding::Chunked, .. } => Ok(Decoder::chunked_answer()),
            Framing { length: Some(length), .. } => Ok(Decoder::exact(length)),
            _ => Ok(Decoder::UntilClose),
        }
    }
}

/// What the fields say of framing and of the connection.
#[derive(Clone, Copy, Debug, Default)]
struct Framing {
    length: Option<u64>,
    length_again: bool,
    coding: Coding,
    close: bool,
    keep: bool,
    expects_continue: bool,
    takes_trailers: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Codings that are not known, and nothing yet that ends them.
    Inner,
    /// The same below `chunked`: the length is known and the content is not.
    Unknown,
    /// No list of codings, or one that says of no length.
    Other,
}

impl Coding {
    /// With the codings of another `Transfer-Encoding`, from the content outwards.
    fn with(self, value: &[u8]) -> Self {
        value.split(|b| *b == b',').map(<[u8]>::trim_ascii).fold(self, |known, coding| {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            let token = !coding.is_empty() && coding.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
            match known {
                Coding::None if chunked => Coding::Chunked,
                Coding::Inner if chunked => Coding::Unknown,
                Coding::None | Coding::Inner if token => Coding::Inner,
                _ => Coding::Other,
            }
        })
    }
}

fn fields(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<(HeaderMap, Framing), HeadError> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    let mut framing = Framing::default();
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadError::Malformed("a field's name is not a token"))?;
        let Some(value) = framing.note(&name, field.value)? else { continue };
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
            .map_err(|_| HeadError::Malformed("a field's value has bytes that none may have"))?;
        headers.append(name, value);
    }
    Ok((headers, framing))
}

impl Framing {
    /// Heeds a field; what of its value stays, or nothing where it says again what is known.
    fn note<'v>(&mut self, name: &HeaderName, value: &'v [u8]) -> Result<Option<&'v [u8]>, HeadError> {
        if *name == header::CONTENT_LENGTH {
            return self.note_length(value);
        } else if *name == header::TRANSFER_ENCODING {
            self.coding = self.coding.with(value);
        } else if *name == header::CONNECTION {
            for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == header::EXPECT {
            self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
        } else if *name == header::TE {
            let mut tokens = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            self.takes_trailers |= tokens.any(|token| token.eq_ignore_ascii_case(b"trailers"));
        }
        Ok(Some(value))
    }

    /// One length, or the same one several times, in one field or in many (RFC 9110 section 8.6); one of them stays.
    fn note_length<'v>(&mut self, value: &'v [u8]) -> Result<Option<&'v [u8]>, HeadError> {
        let mut kept = None;
        for part in value.split(|b| *b == b',') {
            let part = part.trim_ascii();
            let length = length(part).ok_or(HeadError::Malformed("Content-Length is not a number"))?;
            match self.length {
                None => (self.length, kept) = (Some(length), Some(part)),
                Some(known) if known == length => self.length_again = true,
                Some(_) => return Err(HeadError::Malformed("Content-Length is there twice and not the same")),
            }
        }
        Ok(kept)
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep)
    }

    /// RFC 9112 section 6.3 and, where that leaves a choice, the one that cannot be used to smuggle (section 11.2).
    fn request(&self, version: Version) -> Result<Decoder, HeadError> {
        match (self.coding, self.length) {
            (Coding::Inner | Coding::Other, _) => {
                Err(HeadError::Malformed("the only transfer coding is chunked, once"))
            }
            (Coding::Chunked | Coding::Unknown, Some(_)) => {
                Err(HeadError::Malformed("Transfer-Encoding and Content-Length are there both"))
            }
            (Coding::Chunked | Coding::Unknown, None) if version == Version::HTTP_10 => {
                Err(HeadError::Malformed("HTTP/1.0 has no transfer codings"))
            }
            (Coding::Unknown, None) => Err(HeadError::UnknownCoding),
            (Coding::Chunked, None) => Ok(Decoder::chunked()),
            (Coding::None, Some(_)) if self.length_again => {
                Err(HeadError::Malformed("Content-Length is there more than once"))
            }
            (Coding::None, Some(length)) => Ok(Decoder::exact(length)),
            (Coding::None, None) => Ok(Decoder::Done),
        }
    }
}

/// Digits alone, below 2^63.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Option<RequestHead>, HeadError> {
        let mut input = BytesMut::from(text);
        take_request(&mut input, &mut 0, HeadLimits { bytes: 1_000, fields: 100 })
    }

    #[test]
    fn a_head_in_single_bytes_is_the_same_head() {
        let text = b"\r\n\r\n\r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let (mut input, mut scanned) = (BytesMut::new(), 0);
        let mut found = None;
        for byte in text {
            input.extend_from_slice(&[*byte]);
            if found.is_none() {
                found = take_request(&mut input, &mut scanned, HeadLimits { bytes: 1_000, fields: 9 }).unwrap();
            }
        }
        let head = found.unwrap();
        assert_eq!((head.method, head.uri.to_string().as_str()), (Method::POST, "/a?b=c"));
        assert_eq!(head.headers["host"], "x");
        assert_eq!(head.body.remaining(), Some(3));
        assert_eq!(&input[..], b"abc");
    }

    #[test]
    fn what_two_servers_might_read_differently_is_refused() {
        for (text, expect) in [
            ("GET / HTTP/1.1\nHost: x\n\n", "a line does not end with carriage return and line feed"),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding and Content-Length are there both",
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
                "Content-Length is there more than once",
            ),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 has no transfer codings"),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                "of transfer codings only chunked is known here",
            ),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", "the only transfer coding is chunked, once"),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "the only transfer coding is chunked, once"),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", "a field's name is not a token"),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "a field's name is not a token"),
            ("GET / HTTP/2.0\r\n\r\n", "the version is not HTTP/1.0 or HTTP/1.1"),
            ("GET / HTTP/1.22\r\n\r\n", "the request line does not end with an HTTP version"),
            ("GET / XHTTP/1.2\r\n\r\n", "the request line does not end with an HTTP version"),
            ("GET /\r\n\r\n", "the request line is none"),
            ("GET / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", "Content-Length is not a number"),
        ] {
            match request(text) {
                Err(error) => assert_eq!(error.to_string(), expect, "{text:?}"),
                Ok(head) => panic!("{text:?} was read: {head:?}"),
            }
        }
    }

    #[test]
    fn a_later_minor_version_is_read_as_the_one_that_is_known() {
        let head = request("POST /p HTTP/1.7\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.version, head.uri.path(), head.keep_alive), (Version::HTTP_11, "/p", true));
        assert_eq!(head.body, Decoder::chunked());
        let mut answer = BytesMut::from("HTTP/1.2 204 Fine\r\nX: y\r\n\r\n");
        let head = take_response(&mut answer, &mut 0).unwrap().unwrap();
        assert_eq!((head.version, head.status, head.keep_alive), (Version::HTTP_11, StatusCode::NO_CONTENT, true));
    }

    #[test]
    fn a_head_has_a_bound_on_its_bytes_and_on_its_fields() {
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(1_000));
        assert_eq!(request(&long).unwrap_err(), HeadError::TooLong);
        assert_eq!(request(&long[..1_005]).unwrap_err(), HeadError::TooLong, "even before it is whole");
        for (fields, good) in [(100, true), (101, false)] {
            let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(fields));
            assert_eq!(request(&many).is_ok(), good, "{fields}");
        }
    }

    #[test]
    fn keep_alive_is_the_default_of_http_1_1_alone() {
        for (text, keep) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(request(text).unwrap().unwrap().keep_alive, keep, "{text:?}");
        }
    }

    #[test]
    fn an_answers_body_ends_where_its_head_says() {
        let body = |text: &str, method: Method| {
            let head = take_response(&mut BytesMut::from(text), &mut 0).unwrap().unwrap();
            head.body(&method)
        };
        let exact = |n| Ok(Some(n));
        for (text, method, expect) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, exact(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Method::GET, exact(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5 ,5\r\n\r\n", Method::GET, exact(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD, exact(0)),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Method::GET, exact(0)),
            ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", Method::GET, exact(5)),
            ("HTTP/1.0 200 OK\r\n\r\n", Method::GET, Ok(None)),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::GET, Err(())),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", Method::GET, Err(())),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Method::GET, Err(())),
        ] {
            assert_eq!(body(text, method).map(|b| b.remaining()).map_err(drop), expect, "{text:?}");
        }
        for lengths in ["5, 6", "5,", ",5", "5 5", "5\r\nContent-Length: 6", "5, 5\r\nContent-Length: 6"] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\n");
            assert!(take_response(&mut BytesMut::from(text.as_str()), &mut 0).is_err(), "{lengths:?}");
        }
    }
}
