//! HTTP/1 framing from outside: what is ambiguous is refused and its connection closed; what goes up is one well-formed request.

use super::support::{A_MOMENT, Client, NoAnswer, PATIENCE, Proxy, Request, Upstream, show};

/// What must come of a case.
enum Expect {
    /// This status, and the connection ends; nothing whole goes up.
    Status(u16),
    /// Any refusal (4xx, 5xx) or an end without words, and the connection ends; nothing whole goes up.
    Refused,
    /// A refusal after which the connection may live on; nothing goes up.
    Answered(u16),
    /// Exactly one request with this body, and the connection lives on.
    One(&'static str),
    /// Exactly one request with this body, and the connection ends after the answer.
    OneLast(&'static str),
    /// Refused, or exactly one request with this body and the end of the connection.
    RefusedOrOneLast(&'static str),
    /// Exactly one request that satisfies a condition.
    Such(fn(&Request) -> bool),
    /// No answer for as long as the rest is missing, and nothing whole goes up.
    Waits,
}
use Expect::{Answered, One, OneLast, Refused, RefusedOrOneLast, Status, Such, Waits};

/// A request whose head is `POST /p HTTP/1.1`, a Host and these bytes.
fn post(rest: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a.test\r\n{rest}").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"))
}

fn get(rest: &str) -> Vec<u8> {
    format!("GET /g HTTP/1.1\r\nHost: a.test\r\n{rest}\r\n").into_bytes()
}

fn raw(text: impl Into<Vec<u8>>) -> Vec<u8> {
    text.into()
}

type Case = (&'static str, Vec<u8>, Expect);

fn lengths() -> Vec<Case> {
    vec![
        ("a length", post("Content-Length: 3\r\n\r\nabc"), One("abc")),
        ("length 0", post("Content-Length: 0\r\n\r\n"), One("")),
        ("leading zeros", post("Content-Length: 0003\r\n\r\nabc"), One("abc")),
        ("no length: no body", post("\r\n"), One("")),
        ("two different lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), Status(400)),
        (
            "two different lengths, the other way",
            post("Content-Length: 4\r\nContent-Length: 3\r\n\r\nabcd"),
            Status(400),
        ),
        ("the same length twice", post("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), Status(400)),
        ("a list of lengths", post("Content-Length: 3, 3\r\n\r\nabc"), Status(400)),
        ("a list of different lengths", post("Content-Length: 3, 4\r\n\r\nabc"), Status(400)),
        ("a sign", post("Content-Length: +3\r\n\r\nabc"), Status(400)),
        ("negative", post("Content-Length: -3\r\n\r\nabc"), Status(400)),
        ("hexadecimal", post("Content-Length: 0x3\r\n\r\nabc"), Status(400)),
        ("a fraction", post("Content-Length: 3.0\r\n\r\nabc"), Status(400)),
        ("an exponent", post("Content-Length: 3e0\r\n\r\nabc"), Status(400)),
        ("underscores", post("Content-Length: 3_0\r\n\r\nabc"), Status(400)),
        ("a space inside", post("Content-Length: 3 3\r\n\r\nabc"), Status(400)),
        ("an empty length", post("Content-Length: \r\n\r\n"), Status(400)),
        ("a word", post("Content-Length: abc\r\n\r\nabc"), Status(400)),
        ("quotes", post("Content-Length: \"3\"\r\n\r\nabc"), Status(400)),
        ("u64 + 1", post("Content-Length: 18446744073709551616\r\n\r\nabc"), Status(400)),
        ("u64 max", post("Content-Length: 18446744073709551615\r\n\r\nabc"), Refused),
        ("hundred digits", post(&format!("Content-Length: {}\r\n\r\nabc", "9".repeat(100))), Status(400)),
        ("other digits", raw("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: \u{0663}\r\n\r\nabc"), Status(400)),
        ("a semicolon", post("Content-Length: 3; a\r\n\r\nabc"), Status(400)),
        ("a vertical tab", post("Content-Length: \x0b3\r\n\r\nabc"), Status(400)),
        ("too short a body", post("Content-Length: 5\r\n\r\nabc"), Waits),
        ("a space in the name", post("Content Length: 3\r\n\r\nabc"), Status(400)),
        ("length and an underscore twin", post("Content-Length: 3\r\nContent_Length: 9\r\n\r\nabc"), One("abc")),
    ]
}

fn codings() -> Vec<Case> {
    let te = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    vec![
        ("chunked", te("chunked"), One("abc")),
        ("CHUNKED", te("CHUNKED"), One("abc")),
        (
            "length, then chunked",
            post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            RefusedOrOneLast("abc"),
        ),
        (
            "chunked, then length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            RefusedOrOneLast("abc"),
        ),
        (
            "chunked and length with a smuggled request behind",
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            RefusedOrOneLast(""),
        ),
        (
            "chunked and a bad length",
            post("Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n"),
            RefusedOrOneLast(""),
        ),
        (
            "chunked twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            Status(400),
        ),
        ("chunked, chunked", te("chunked, chunked"), Status(400)),
        ("gzip, chunked", te("gzip, chunked"), Status(501)),
        ("chunked, gzip", te("chunked, gzip"), Status(400)),
        ("identity", te("identity"), Status(400)),
        ("identity, chunked", te("identity, chunked"), Status(501)),
        ("chunked, identity", te("chunked, identity"), Status(400)),
        (
            "a first line identity, a second chunked",
            post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Status(501),
        ),
        (
            "a first line chunked, a second identity",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
            Status(400),
        ),
        ("an unknown coding", te("xchunked"), Status(400)),
        ("cow", te("cow"), Status(400)),
        ("a trailing comma", te("chunked,"), Status(400)),
        ("a leading comma", te(",chunked"), Status(400)),
        ("quotes", te("\"chunked\""), Status(400)),
        ("a parameter", te("chunked;q=1"), Status(400)),
        ("empty", te(""), Status(400)),
        ("a tab in front", post("Transfer-Encoding:\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), One("abc")),
        ("a vertical tab in front", te("\x0bchunked"), Status(400)),
        ("a NUL behind", te("chunked\0"), Status(400)),
        ("a no-break space in front", te("\u{a0}chunked"), Status(400)),
        ("a space before the colon", post("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), Status(400)),
        ("a tab before the colon", post("Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"), Status(400)),
        ("a folded value", post("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), Status(400)),
        ("a folded second value", post("X: y\r\n Transfer-Encoding: chunked\r\n\r\n"), Status(400)),
        ("a space in front of the name", post(" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Status(400)),
        ("a bare CR in front of the name", post("X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Status(400)),
        ("a bare CR in the value", post("Transfer-Encoding: chun\rked\r\n\r\n0\r\n\r\n"), Status(400)),
        (
            "HTTP/1.0 with chunked",
            raw("POST /p HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Status(400),
        ),
        (
            "HTTP/1.0 keep-alive with chunked and length",
            raw(
                "POST /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            Status(400),
        ),
        (
            "GET with chunks",
            raw("GET /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            One("abc"),
        ),
        ("GET with a length", raw("GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), One("abc")),
        (
            "DELETE with chunks",
            raw("DELETE /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            One("abc"),
        ),
        ("OPTIONS with a length", raw("OPTIONS /g HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), One("abc")),
    ]
}

fn chunks() -> Vec<Case> {
    vec![
        ("one chunk", chunked("3\r\nabc\r\n0\r\n\r\n"), One("abc")),
        ("two chunks", chunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), One("abcde")),
        ("upper case size", chunked("A\r\n0123456789\r\n0\r\n\r\n"), One("0123456789")),
        ("zeros in front", chunked("0003\r\nabc\r\n0\r\n\r\n"), One("abc")),
        ("many zeros at the end", chunked("3\r\nabc\r\n0000\r\n\r\n"), One("abc")),
        ("an extension", chunked("3;a=b\r\nabc\r\n0;c\r\n\r\n"), One("abc")),
        ("a quoted extension", chunked("3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n"), One("abc")),
        ("white space around an extension", chunked("3 ; a = \"b\" ;c\r\nabc\r\n0 ;d\r\n\r\n"), One("abc")),
        ("many zeros in front", chunked(&format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(30))), One("abc")),
        ("zeros without an end", chunked(&format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(9_000))), Refused),
        ("white space behind the size", chunked("3 \r\nabc\r\n0\r\n\r\n"), Refused),
        ("a long extension", chunked(&format!("3;a={}\r\nabc\r\n0\r\n\r\n", "x".repeat(40_000))), Refused),
        ("a LF in an extension", chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a CR in an extension", chunked("3;a\rb\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a sign", chunked("+3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("negative", chunked("-3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a space in front", chunked(" 3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("an underscore", chunked("3_\r\nabc\r\n0\r\n\r\n"), Refused),
        ("not hexadecimal", chunked("g\r\nabc\r\n0\r\n\r\n"), Refused),
        ("no size", chunked("\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a comma", chunked("3,3\r\nabc\r\n0\r\n\r\n"), Refused),
        ("17 digits", chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a size that wraps to 3", chunked("100000000000000000003\r\nabc\r\n0\r\n\r\n"), Refused),
        ("the largest size", chunked("ffffffffffffffff\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a NUL behind the size", chunked("3\0\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a bare LF behind the size", chunked("3\nabc\r\n0\r\n\r\n"), Refused),
        ("a bare CR behind the size", chunked("3\rabc\r\n0\r\n\r\n"), Refused),
        ("a bare LF behind the data", chunked("3\r\nabc\n0\r\n\r\n"), Refused),
        ("no CRLF behind the data", chunked("3\r\nabc0\r\n\r\n"), Refused),
        ("data longer than its size", chunked("3\r\nabcd\r\n0\r\n\r\n"), Refused),
        ("data shorter than its size", chunked("5\r\nabc\r\n0\r\n\r\n"), Refused),
        ("a bare LF at the end", chunked("3\r\nabc\r\n0\n\n"), Refused),
        ("a bare LF behind the last size", chunked("3\r\nabc\r\n0\n\r\n"), Refused),
        ("a bare LF as the last line", chunked("3\r\nabc\r\n0\r\n\n"), Refused),
        ("CR CR LF at the end", chunked("3\r\nabc\r\n0\r\n\r\r\n"), Refused),
        ("no end", chunked("3\r\nabc\r\n"), Waits),
        ("no last line", chunked("3\r\nabc\r\n0\r\n"), Waits),
        (
            "a smuggled request behind the end is the next request, once",
            chunked("0\r\n\r\nX"),
            Such(|r| r.body.is_empty() && r.target == "/p"),
        ),
    ]
}

fn trailers() -> Vec<Case> {
    let with = |trailer: &str| chunked(&format!("3\r\nabc\r\n0\r\n{trailer}\r\n\r\n"));
    let drops = |r: &Request| {
        r.body == b"abc"
            && r.trailers.iter().all(|(n, _)| {
                ![
                    "content-length",
                    "transfer-encoding",
                    "host",
                    "authorization",
                    "connection",
                    "content-type",
                    "te",
                    "trailer",
                ]
                .contains(&n.as_str())
            })
            && r.all("content-length").is_empty()
            && r.all("authorization").is_empty()
    };
    vec![
        ("a trailer", with("X-Sum: 1"), One("abc")),
        ("a trailer Content-Length", with("Content-Length: 99"), Such(drops)),
        ("a trailer Transfer-Encoding", with("Transfer-Encoding: gzip"), Such(drops)),
        ("a trailer Host", with("Host: evil"), Such(drops)),
        ("a trailer Authorization", with("Authorization: Bearer evil"), Such(drops)),
        ("a trailer Connection", with("Connection: close"), Such(drops)),
        ("a trailer without a colon", with("nonsense"), Refused),
        ("a trailer with a space before the colon", with("X : 1"), Refused),
        ("a folded trailer", with("X: 1\r\n 2"), Refused),
        ("a trailer with a NUL", with("X: a\0b"), Refused),
        ("a trailer with a bare CR", with("X: a\rb"), Refused),
        ("a trailer without a name", with(": 1"), Refused),
        ("a trailer that looks like a request", with("GET /smuggled HTTP/1.1"), Refused),
        ("trailers too long", with(&format!("X: {}", "x".repeat(100_000))), Refused),
        ("too many trailers", with(&vec!["X: 1"; 500].join("\r\n")), Refused),
    ]
}

fn lines() -> Vec<Case> {
    let line = |line: &str| raw(format!("{line}\r\nHost: a.test\r\n\r\n"));
    vec![
        ("plain", line("GET /g HTTP/1.1"), One("")),
        ("an unknown method", line("BREW /g HTTP/1.1"), One("")),
        ("a lower case method", line("get /g HTTP/1.1"), Such(|r| r.method == "get")),
        ("two spaces before the target", line("GET  /g HTTP/1.1"), Status(400)),
        ("two spaces before the version", line("GET /g  HTTP/1.1"), Status(400)),
        ("a tab as separator", line("GET\t/g HTTP/1.1"), Status(400)),
        ("a space in front", line(" GET /g HTTP/1.1"), Status(400)),
        ("a space behind", line("GET /g HTTP/1.1 "), Status(400)),
        ("a space in the target", line("GET /g h HTTP/1.1"), Status(400)),
        ("a NUL in the target", line("GET /g\0 HTTP/1.1"), Status(400)),
        ("a control byte in the target", line("GET /g\x07 HTTP/1.1"), Status(400)),
        ("DEL in the target", line("GET /g\x7f HTTP/1.1"), Status(400)),
        ("a bare CR in the target", line("GET /g\rX HTTP/1.1"), Status(400)),
        ("no target", line("GET HTTP/1.1"), Status(400)),
        ("no version", line("GET /g"), Status(400)),
        ("HTTP/0.9", raw("GET /g\r\n\r\n"), Status(400)),
        ("HTTP/1.2", line("GET /g HTTP/1.2"), One("")),
        (
            "HTTP/1.9 with chunks",
            raw("POST /p HTTP/1.9\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            One("abc"),
        ),
        ("HTTP/1.2 without Host", raw("GET /g HTTP/1.2\r\n\r\n"), Status(400)),
        ("HTTP/2.0", line("GET /g HTTP/2.0"), Status(505)),
        ("HTTP/3.0", line("GET /g HTTP/3.0"), Status(505)),
        ("HTTP/0.9 by name", line("GET /g HTTP/0.9"), Status(505)),
        ("HTTP/1.", line("GET /g HTTP/1."), Status(400)),
        ("HTTP/1.x", line("GET /g HTTP/1.x"), Status(400)),
        ("HTTP/1.10", line("GET /g HTTP/1.10"), Status(400)),
        ("HTTP/01.1", line("GET /g HTTP/01.1"), Status(400)),
        ("http/1.1", line("GET /g http/1.1"), Status(400)),
        ("HTTP/1,1", line("GET /g HTTP/1,1"), Status(400)),
        ("ICAP", line("GET /g ICAP/1.0"), Status(400)),
        ("a method with a colon", line("GE:T /g HTTP/1.1"), Status(400)),
        ("a method with a NUL", line("GE\0T /g HTTP/1.1"), Status(400)),
        ("no method", line(" /g HTTP/1.1"), Status(400)),
        ("a target without a slash", line("GET g HTTP/1.1"), Status(400)),
        ("a target that is a port", line("GET :80 HTTP/1.1"), Status(400)),
        ("an authority as target", line("GET a.test:80 HTTP/1.1"), Status(400)),
        ("a star as target of GET", line("GET * HTTP/1.1"), Status(400)),
        ("a question mark as target", line("GET ?a HTTP/1.1"), Status(400)),
        ("CONNECT", line("CONNECT a.test:80 HTTP/1.1"), Answered(405)),
        ("TRACE", line("TRACE /g HTTP/1.1"), Answered(405)),
        ("empty lines in front", raw("\r\n\r\nGET /g HTTP/1.1\r\nHost: a\r\n\r\n"), One("")),
        ("garbage", raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".as_slice()), Refused),
        ("an h2 preface inside", line("PRI /x HTTP/2.0"), Refused),
        ("encoded CRLF stays encoded", line("GET /g%0d%0aX:y HTTP/1.1"), Such(|r| r.target == "/g%0d%0aX:y")),
        ("dot segments stay", line("GET /a/../b HTTP/1.1"), Such(|r| r.target == "/a/../b")),
        ("a backslash", line("GET /a\\b HTTP/1.1"), Such(|r| r.target == "/a\\b")),
        ("a fragment", line("GET /g#x HTTP/1.1"), Such(|r| r.target == "/g")),
        ("over-long", line(&format!("GET /{} HTTP/1.1", "x".repeat(20_000))), Status(414)),
        ("over-long beyond the buffer", line(&format!("GET /{} HTTP/1.1", "x".repeat(200_000))), Refused),
        ("an over-long method", line(&format!("{} / HTTP/1.1", "X".repeat(200_000))), Refused),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |fields: &str| raw(format!("GET /g HTTP/1.1\r\n{fields}\r\n"));
    let absolute_options =
        |target: &str, port: &str| raw(format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test{port}\r\n\r\n"));
    let absolute = |target: &str, fields: &str| raw(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
    vec![
        ("missing", host(""), Status(400)),
        ("twice", host("Host: a\r\nHost: a\r\n"), Status(400)),
        ("twice, different", host("Host: a\r\nHost: b\r\n"), Status(400)),
        ("empty", host("Host:\r\n"), One("")),
        ("a port", host("Host: a.test:8080\r\n"), One("")),
        ("an IPv6 address", host("Host: [::1]:8080\r\n"), One("")),
        ("a broken IPv6 address", host("Host: [::1\r\n"), Status(400)),
        ("userinfo", host("Host: user@a.test\r\n"), Status(400)),
        ("userinfo with a password", host("Host: user:pw@a.test\r\n"), Status(400)),
        ("a space inside", host("Host: a b\r\n"), Status(400)),
        ("a list", host("Host: a, b\r\n"), Status(400)),
        ("a path", host("Host: a/b\r\n"), Status(400)),
        ("a scheme", host("Host: http://a\r\n"), Status(400)),
        ("a query", host("Host: a?b\r\n"), Status(400)),
        ("a fragment", host("Host: a#b\r\n"), Status(400)),
        ("a backslash", host("Host: a\\b\r\n"), Status(400)),
        ("a port that is a word", host("Host: a:http\r\n"), Status(400)),
        ("a port too large", host("Host: a:99999\r\n"), Status(400)),
        ("two ports", host("Host: a:1:2\r\n"), Status(400)),
        ("a NUL", host("Host: a\0b\r\n"), Status(400)),
        ("high bytes", raw(b"GET /g HTTP/1.1\r\nHost: \xff\r\n\r\n".as_slice()), Status(400)),
        ("absolute, the same", absolute("http://a.test/g", "Host: a.test\r\n"), Such(|r| r.target == "/g")),
        ("absolute, no path", absolute("http://a.test", "Host: a.test\r\n"), Such(|r| r.target == "/")),
        ("absolute, only a query", absolute("http://a.test?x=1", "Host: a.test\r\n"), Such(|r| r.target == "/?x=1")),
        ("OPTIONS of a server", absolute_options("http://a.test", ""), Such(|r| r.target == "*")),
        ("OPTIONS of a server, its port said", absolute_options("http://a.test:80", ":80"), Such(|r| r.target == "*")),
        ("OPTIONS of its root", absolute_options("http://a.test/", ""), Such(|r| r.target == "/")),
        ("OPTIONS with a query", absolute_options("http://a.test?x", ""), Such(|r| r.target == "/?x")),
        ("OPTIONS *", raw("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"), Such(|r| r.target == "*")),
        ("absolute, another host", absolute("http://b.test/g", "Host: a.test\r\n"), Status(400)),
        ("absolute, without Host", absolute("http://a.test/g", ""), Status(400)),
        ("absolute, userinfo", absolute("http://user@a.test/g", "Host: a.test\r\n"), Status(400)),
        ("absolute, another scheme", absolute("ftp://a.test/g", "Host: a.test\r\n"), Status(400)),
        ("absolute, no host", absolute("http:///g", "Host: a.test\r\n"), Status(400)),
        ("absolute, two Hosts", absolute("http://a.test/g", "Host: a.test\r\nHost: a.test\r\n"), Status(400)),
        ("HTTP/1.0 without Host", raw("GET /g HTTP/1.0\r\n\r\n"), OneLast("")),
        ("HTTP/1.0 with two Hosts", raw("GET /g HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), Status(400)),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        ("a value with a tab", get("X: a\tb\r\n"), Such(|r| r.header("x") == Some("a\tb"))),
        ("no value", get("X:\r\n"), Such(|r| r.header("x") == Some(""))),
        ("no colon", get("X\r\n"), Status(400)),
        ("no name", get(": x\r\n"), Status(400)),
        ("a space before the colon", get("X : y\r\n"), Status(400)),
        ("a space inside the name", get("X Y: z\r\n"), Status(400)),
        ("a folded line", get("X: a\r\n b\r\n"), Status(400)),
        ("a folded line with a tab", get("X: a\r\n\tb\r\n"), Status(400)),
        ("a first line that begins with a space", raw("GET /g HTTP/1.1\r\n Host: a\r\n\r\n"), Status(400)),
        ("a NUL in a value", get("X: a\0b\r\n"), Status(400)),
        ("a NUL in a name", get("X\0: b\r\n"), Status(400)),
        ("a bell in a value", get("X: a\x07b\r\n"), Status(400)),
        ("DEL in a value", get("X: a\x7fb\r\n"), Status(400)),
        ("a bare CR in a value", get("X: a\rb\r\n"), Status(400)),
        ("a bare CR at the end", get("X: a\r\r\n"), Status(400)),
        ("a high byte in a name", raw(b"GET /g HTTP/1.1\r\nHost: a\r\nX\xff: b\r\n\r\n".as_slice()), Status(400)),
        ("brackets in a name", get("X(Y): b\r\n"), Status(400)),
        ("bare LF ends a line", raw("GET /g HTTP/1.1\nHost: a\n\n"), Status(400)),
        ("bare LF ends one line", raw("GET /g HTTP/1.1\r\nHost: a\r\nX: y\nZ: 1\r\n\r\n"), Status(400)),
        ("an over-long field", get(&format!("X: {}\r\n", "x".repeat(70_000))), Status(431)),
        ("an over-long head", get(&format!("X: {}\r\n", "x".repeat(1_000)).repeat(100)), Status(431)),
        ("too many fields", get(&"X: 1\r\n".repeat(200)), Status(431)),
        ("Expect: 100-continue without a body", get("Expect: 100-continue\r\n"), One("")),
        ("close", get("Connection: close\r\n"), OneLast("")),
        ("Close", get("Connection: Close\r\n"), OneLast("")),
        ("close in a list", get("Connection: x, close\r\n"), OneLast("")),
        ("close beside keep-alive", get("Connection: keep-alive\r\nConnection: close\r\n"), OneLast("")),
        ("HTTP/1.0", raw("GET /g HTTP/1.0\r\nHost: a\r\n\r\n"), OneLast("")),
        ("HTTP/1.0 keep-alive", raw("GET /g HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"), One("")),
        ("Connection names Host", get("Connection: host\r\n"), Such(|r| r.header("host").is_some())),
        (
            "Connection names what upstream relies on",
            get(
                "Connection: authorization, cookie, x-forwarded-for, x-request-id, serin-arm, content-type\r\nAuthorization: k\r\nCookie: c\r\nContent-Type: t\r\n",
            ),
            Such(|r| {
                ["authorization", "cookie", "x-forwarded-for", "x-request-id", "serin-arm", "content-type"]
                    .iter()
                    .all(|name| r.header(name).is_some())
            }),
        ),
        (
            "Connection names Content-Length",
            post("Connection: content-length\r\nContent-Length: 3\r\n\r\nabc"),
            One("abc"),
        ),
        (
            "Connection names Transfer-Encoding",
            post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            One("abc"),
        ),
        (
            "hop-by-hop fields stay here",
            get(
                "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
            ),
            Such(|r| {
                ["connection", "x-hop", "keep-alive", "proxy-connection", "upgrade", "http2-settings"]
                    .iter()
                    .all(|name| r.all(name).is_empty())
            }),
        ),
        (
            "Proxy-Authorization is for this proxy alone",
            get("Proxy-Authorization: Basic x\r\n"),
            Such(|r| r.all("proxy-authorization").is_empty()),
        ),
        (
            "what serin says of itself is not believed",
            get("Serin-Arm: canary\r\nSerin-Version: x\r\nSerin-Why: pin\r\nSerin-Rollout: y\r\nSerin-Ref: z\r\n"),
            Such(|r| {
                r.header("serin-arm") == Some("stable")
                    && r.header("serin-version") == Some("v1")
                    && ["serin-why", "serin-rollout", "serin-ref"].iter().all(|name| r.all(name).is_empty())
            }),
        ),
    ]
}

/// Runs a table; tells of every case that went wrong.
fn battery(cases: Vec<Case>) {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut faults = Vec::new();
    for (name, bytes, expect) in cases {
        let before = (upstream.requests().len(), upstream.malformed().len());
        if let Err(why) = run(&proxy, &upstream, &bytes, &expect, before.0) {
            faults.push(format!("{name}: {why}\n    sent {}", show(&bytes[..bytes.len().min(300)])));
        }
        if upstream.malformed().len() > before.1 {
            faults.push(format!("{name}: malformed upstream: {:?}", upstream.malformed().last()));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn run(proxy: &Proxy, upstream: &Upstream, bytes: &[u8], expect: &Expect, before: usize) -> Result<(), String> {
    let mut client = proxy.connect();
    client.send(bytes);
    if matches!(expect, Waits) {
        client.patience(A_MOMENT);
    }
    let answer = client.response();
    let fresh = || upstream.requests().split_off(before);
    let nothing = || match fresh().as_slice() {
        [] => Ok(()),
        some => Err(format!("went up: {some:?}")),
    };
    let ended = |client: &mut Client| if client.ends(PATIENCE) { Ok(()) } else { Err("stays open".to_owned()) };
    let one = |client: &mut Client, such: &dyn Fn(&Request) -> bool, last: Option<bool>| {
        match last {
            Some(true) => ended(client)?,
            Some(false) => probe(client)?,
            None => drop(probe(client)),
        }
        let mut requests = fresh();
        requests.retain(|r| r.target != "/probe");
        match requests.as_slice() {
            [one] if such(one) => Ok(()),
            other => Err(format!("went up: {other:?}")),
        }
    };
    let status = answer.as_ref().map(|r| r.status).map_err(|e| format!("{e:?}"));
    match expect {
        Status(wanted) => {
            if status.as_ref() != Ok(wanted) {
                return Err(format!("answered {status:?}, not {wanted}"));
            }
            ended(&mut client)?;
            nothing()
        }
        Refused => {
            match &answer {
                Ok(r) if r.status >= 400 => {}
                Err(NoAnswer::Closed | NoAnswer::Reset) => {}
                // HTTP/2's own words to whoever began with "PRI ".
                Err(NoAnswer::Truncated(r)) if r.status == 0 => {}
                _ => return Err(format!("answered {status:?}")),
            }
            ended(&mut client)?;
            nothing()
        }
        Answered(wanted) => {
            if status.as_ref() != Ok(wanted) {
                return Err(format!("answered {status:?}, not {wanted}"));
            }
            nothing()
        }
        Waits => match answer {
            Err(NoAnswer::Waiting(_)) => nothing(),
            _ => Err(format!("answered {status:?}")),
        },
        RefusedOrOneLast(_) if answer.as_ref().is_ok_and(|r| r.status >= 400) => {
            ended(&mut client)?;
            nothing()
        }
        One(_) | OneLast(_) | RefusedOrOneLast(_) | Such(_) if status != Ok(200) => Err(format!("answered {status:?}")),
        One(body) => one(&mut client, &|r| r.body == body.as_bytes(), Some(false)),
        OneLast(body) | RefusedOrOneLast(body) => one(&mut client, &|r| r.body == body.as_bytes(), Some(true)),
        Such(such) => one(&mut client, such, None),
    }
}

/// The connection still serves, and what came before was exactly one request.
fn probe(client: &mut Client) -> Result<(), String> {
    client.send("GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    match client.response() {
        Ok(r) if r.status == 200 => {}
        other => return Err(format!("the next request got {other:?}")),
    }
    if client.ends(PATIENCE) { Ok(()) } else { Err("stays open after Connection: close".into()) }
}

#[test]
fn content_lengths_have_one_meaning_or_none() {
    battery(lengths());
}

#[test]
fn transfer_codings_are_chunked_alone_or_refused() {
    battery(codings());
}

#[test]
fn chunks_are_read_strictly() {
    battery(chunks());
}

#[test]
fn trailers_cannot_change_a_message() {
    battery(trailers());
}

#[test]
fn request_lines_are_read_strictly() {
    battery(lines());
}

#[test]
fn a_request_names_its_host_once_and_properly() {
    battery(hosts());
}

#[test]
fn fields_are_read_strictly_and_hop_by_hop_ones_stay_here() {
    battery(fields());
}

#[test]
fn pipelined_requests_are_answered_in_order_one_each() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.request() {
            let body = request.target;
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    let mut bytes = Vec::new();
    for i in 0..20 {
        bytes.extend_from_slice(
            format!("POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n")
                .as_bytes(),
        );
    }
    client.send(&bytes);
    for i in 0..20 {
        assert_eq!(client.response().unwrap().text(), format!("/{i}"));
    }
    assert_eq!(upstream.requests().len(), 20);
}

#[test]
fn a_request_in_single_bytes_is_the_same_request() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    for byte in chunked("3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n") {
        client.send([byte]);
    }
    assert_eq!(client.response().unwrap().status, 200);
    assert_eq!(upstream.last().body, b"abcde");
}

#[test]
fn who_is_still_sending_when_his_connection_ends_is_not_reset() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let more = "x".repeat(100_000);
    for (head, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        ("GET / HTTP/1.0\r\n\r\n", 200),
    ] {
        let mut client = proxy.connect();
        client.send(format!("{head}{more}"));
        assert_eq!(client.response().unwrap().status, status, "{head}");
        let end = client.more();
        assert!(matches!(end, Ok(0)), "{head}: {end:?}");
    }
}

#[test]
fn who_sends_a_whole_upload_before_he_reads_learns_why_it_was_refused() {
    let proxy = Proxy::in_front_of(&Upstream::ok());
    let mut client = proxy.connect();
    let upload = vec![b'x'; 32 << 20];
    client.send(format!("POST / HTTP/1.1\r\nhost: a@b\r\ncontent-length: {}\r\n\r\n", upload.len()));
    assert!(client.try_send(&upload), "reset within the upload");
    assert_eq!(client.response().unwrap().status, 400);
    assert!(matches!(client.more(), Ok(0)));
}

#[test]
fn what_cannot_become_a_request_is_refused_without_waiting_for_its_end() {
    let proxy = Proxy::in_front_of(&Upstream::ok());
    for bytes in [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], b"\0", b"\xff\xfe", b"\r\n\x05\x01\0"] {
        let mut client = proxy.connect();
        client.send(bytes);
        assert_eq!(client.response().unwrap().status, 400, "{}", show(bytes));
        assert!(client.ends(A_MOMENT));
    }
    // A beginning that is still open waits.
    let mut client = proxy.connect();
    client.send("\r");
    client.send("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 200);
}
