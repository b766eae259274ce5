//! HTTP/1 read with no leniency at all (RFC 9112): what it accepts has one meaning for everybody.

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.headers, name)
    }

    /// A field that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.all(name);
        assert!(found.len() <= 1, "{name} is there {} times", found.len());
        found.first().copied()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

fn all<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
}

type Fields = Vec<(String, String)>;

/// What a message's head says, read with no leniency at all (RFC 9112).
fn read_head(bytes: &[u8]) -> Result<Option<(String, Fields, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|e| e.to_string())?;
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    Ok(Some((start, read_fields(lines)?, end + 4)))
}

fn read_fields<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Fields, String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
        if name.is_empty() || !name.chars().all(token) {
            return Err(format!("field name {name:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        if value.chars().any(|c| (c.is_ascii_control() && c != '\t') || c == '\u{7f}') {
            return Err(format!("field value {value:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(fields)
}

enum Length {
    None,
    Exact(usize),
    Chunked,
    UntilEnd,
}

fn read_length(fields: &[(String, String)], request: bool) -> Result<Length, String> {
    let codings = all(fields, "transfer-encoding");
    let lengths = all(fields, "content-length");
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(if request { Length::None } else { Length::UntilEnd }),
        (["chunked"], []) => Ok(Length::Chunked),
        ([], [one]) if !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit()) => {
            one.parse().map(Length::Exact).map_err(|e| format!("{e}"))
        }
        _ => Err(format!("framing fields {codings:?} {lengths:?}")),
    }
}

/// Body, trailers, and whether it is whole; `None` where bytes are missing.
type Chunked = (Vec<u8>, Fields, Option<usize>);

fn read_chunked(bytes: &[u8]) -> Result<Chunked, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok((body, Vec::new(), None)) };
        let size = std::str::from_utf8(&bytes[at..at + line]).map_err(|e| e.to_string())?;
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("chunk size {size:?}"));
        }
        let size = usize::from_str_radix(size, 16).map_err(|e| e.to_string())?;
        at += line + 2;
        if size == 0 {
            break;
        }
        if bytes.len() < at + size + 2 {
            body.extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
            return Ok((body, Vec::new(), None));
        }
        body.extend_from_slice(&bytes[at..at + size]);
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err("no CRLF behind a chunk".into());
        }
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok((body, Vec::new(), Some(at + 2)));
    }
    let Some(end) = find(&bytes[at..], b"\r\n\r\n") else { return Ok((body, Vec::new(), None)) };
    let text = std::str::from_utf8(&bytes[at..at + end]).map_err(|e| e.to_string())?;
    Ok((body, read_fields(text.split("\r\n"))?, Some(at + end + 4)))
}

/// What a reader found.
pub enum Part<T> {
    Whole(T, usize),
    Partial(T),
}

pub fn read_response(bytes: &[u8], to_head: bool, ended: bool) -> Result<Part<Response>, String> {
    let Some((start, headers, used)) = read_head(bytes)? else { return Ok(Part::Partial(Response::default())) };
    let mut words = start.splitn(3, ' ');
    let version = words.next().unwrap_or_default().to_owned();
    if version != "HTTP/1.1" && version != "HTTP/1.0" {
        return Err(format!("status line {start:?}"));
    }
    let status: u16 = words.next().unwrap_or_default().parse().map_err(|_| format!("status line {start:?}"))?;
    let mut response = Response { status, version, headers, ..Response::default() };
    let rest = &bytes[used..];
    if to_head || status < 200 || status == 204 || status == 304 {
        if status == 204 && !(response.all("content-length").is_empty() && response.all("transfer-encoding").is_empty())
        {
            return Err("a 204 with a framing field".into());
        }
        return Ok(Part::Whole(response, used));
    }
    match read_length(&response.headers, false)? {
        Length::None | Length::UntilEnd => {
            response.body = rest.to_vec();
            Ok(if ended { Part::Whole(response, bytes.len()) } else { Part::Partial(response) })
        }
        Length::Exact(n) => {
            response.body = rest[..rest.len().min(n)].to_vec();
            Ok(if rest.len() >= n { Part::Whole(response, used + n) } else { Part::Partial(response) })
        }
        Length::Chunked => {
            let (body, trailers, end) = read_chunked(rest)?;
            (response.body, response.trailers) = (body, trailers);
            Ok(match end {
                Some(end) => Part::Whole(response, used + end),
                None => Part::Partial(response),
            })
        }
    }
}

/// A request as it reached an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Request {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.headers, name)
    }

    /// A field that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.all(name);
        assert!(found.len() <= 1, "{name} is there {} times: {found:?}", found.len());
        found.first().copied()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

pub fn read_request(bytes: &[u8]) -> Result<Part<Request>, String> {
    let Some((start, headers, used)) = read_head(bytes)? else { return Ok(Part::Partial(Request::default())) };
    let words: Vec<&str> = start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words.as_slice() else { return Err(format!("request line {start:?}")) };
    if all(&headers, "host").len() != 1 {
        return Err(format!("Host fields {:?}", all(&headers, "host")));
    }
    if !(target.starts_with('/') || *target == "*") || !target.bytes().all(|b| b > 0x20 && b != 0x7f) {
        return Err(format!("target {target:?}"));
    }
    let length = read_length(&headers, true)?;
    let mut request =
        Request { method: (*method).to_owned(), target: (*target).to_owned(), headers, ..Request::default() };
    let rest = &bytes[used..];
    match length {
        Length::None | Length::UntilEnd => Ok(Part::Whole(request, used)),
        Length::Exact(n) => {
            request.body = rest[..rest.len().min(n)].to_vec();
            Ok(if rest.len() >= n { Part::Whole(request, used + n) } else { Part::Partial(request) })
        }
        Length::Chunked => {
            let (body, trailers, end) = read_chunked(rest)?;
            (request.body, request.trailers) = (body, trailers);
            Ok(match end {
                Some(end) => Part::Whole(request, used + end),
                None => Part::Partial(request),
            })
        }
    }
}

/// Bytes for people.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]).escape_debug().to_string()
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}
