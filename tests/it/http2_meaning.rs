//! What a message means is the same on both sides of serin, whichever versions of HTTP they speak.

use std::collections::HashMap;

use http::{HeaderMap, HeaderValue, Request};

use super::support::frames::*;
use super::support::{A_MOMENT, H2, H2Peer, Proxy, Upstream, Upstream2, canary, chat, stable};

fn over_h2(upstream: &Upstream2, keys: &str) -> Proxy {
    Proxy::start(&chat("", &stable(upstream.addr, &format!("http = \"2\"\n{keys}"))))
}

fn ask(h2: &mut H2, request: http::request::Builder) -> (http::response::Parts, String, Option<HeaderMap>) {
    let (head, body) = h2.ask(request.body(()).unwrap(), "", None).unwrap();
    let (body, trailers) = body.unwrap();
    (head, String::from_utf8(body).unwrap(), trailers)
}

#[test]
fn the_authority_becomes_host_and_back() {
    let (one, two) = (Upstream::ok(), Upstream2::start(None));
    let (to_one, to_two) =
        (Proxy::start(&chat("", &stable(one.addr, "host = \"pass\""))), over_h2(&two, "host = \"pass\""));
    // :authority alone, Host alone, both.
    for (authority, host) in
        [(Some("a.test:81"), None), (None, Some("a.test:81")), (Some("a.test:81"), Some("a.test:81"))]
    {
        for proxy in [&to_one, &to_two] {
            let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/x?y")];
            fields.extend(authority.map(|a| (":authority", a)));
            fields.extend(host.map(|h| ("host", h)));
            let mut frames = Frames::open(proxy.addr, None);
            frames.frame(HEADERS, WHOLE, 1, &block(&fields));
            assert_eq!(frames.verdict(1), Verdict::Status(200), "{authority:?} {host:?}");
        }
        assert_eq!(one.last().all("host"), ["a.test:81"]);
        assert_eq!(one.last().header("x-forwarded-host"), Some("a.test:81"));
        let seen = two.last().head;
        assert_eq!(seen.uri.to_string(), "http://a.test:81/x?y");
        assert!(!seen.headers.contains_key("host"));
        assert_eq!(seen.headers["x-forwarded-host"], "a.test:81");
    }
    // Neither names nobody.
    let mut frames = Frames::open(to_one.addr, None);
    frames.frame(HEADERS, WHOLE, 1, &block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]));
    assert_eq!(frames.verdict(1), Verdict::Status(400));
    // A caller of HTTP/1.0 need not.
    for request in ["GET /x?y HTTP/1.0\r\n\r\n", "GET /x?y HTTP/1.1\r\nhost:\r\n\r\n"] {
        assert_eq!(to_two.ask(request).status, 200, "{request}");
        assert_eq!(two.last().head.uri.path(), "/x");
    }
}

#[test]
fn options_of_a_server_pass_between_all_versions() {
    let (one, two) = (Upstream::ok(), Upstream2::start(None));
    for proxy in [Proxy::in_front_of(&one), over_h2(&two, "")] {
        let mut frames = Frames::open(proxy.addr, None);
        let fields = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a.test")];
        frames.frame(HEADERS, WHOLE, 1, &block(&fields));
        assert_eq!(frames.verdict(1), Verdict::Status(200));
        assert_eq!(proxy.ask("OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 200);
    }
    assert_eq!(one.requests().iter().map(|r| r.target.clone()).collect::<Vec<_>>(), ["*", "*"]);
    assert_eq!(two.requests(), 2);
    assert_eq!(two.last().head.uri.path(), "*");
}

#[test]
fn connect_is_refused_in_words_and_extended_connect_too() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut frames = Frames::open(proxy.addr, None);
    frames.frame(HEADERS, END_HEADERS, 1, &block(&[(":method", "CONNECT"), (":authority", "b.test:443")]));
    assert_eq!(frames.verdict(1), Verdict::Status(405));
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ];
    // SETTINGS_ENABLE_CONNECT_PROTOCOL was not said (RFC 8441 section 3).
    let mut frames = Frames::open(proxy.addr, None);
    frames.frame(HEADERS, END_HEADERS, 1, &block(&fields));
    assert_eq!(frames.verdict(1), Verdict::Reset(PROTOCOL_ERROR));
    frames.request(3, WHOLE, "/", &[]);
    assert_eq!(frames.verdict(3), Verdict::Status(200));
    let mut frames = Frames::open(proxy.addr, None);
    let trace = [(":method", "TRACE"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
    frames.frame(HEADERS, WHOLE, 1, &block(&trace));
    assert_eq!(frames.verdict(1), Verdict::Status(405));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn duplicates_and_their_order_are_kept_both_ways() {
    let one = Upstream::saying(
        "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nx-many: 1\r\nset-cookie: b=2, c\r\nx-many: 2\r\ncontent-length: 2\r\n\r\nok",
    );
    let two = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        while let Some(stream) = h2.request() {
            let fields =
                [(":status", "200"), ("set-cookie", "a=1"), ("x-many", "1"), ("set-cookie", "b=2, c"), ("x-many", "2")];
            h2.head(stream, END_HEADERS, &fields);
            h2.send(frame(DATA, END_STREAM, stream, b"ok"));
        }
    });
    for (upstream, keys) in [(&one, ""), (&two, "http = \"2\"")] {
        let proxy = Proxy::start(&chat("", &stable(upstream.addr, keys)));
        let (head, body, _) = ask(&mut H2::plain(proxy.addr), Request::get("http://a.test/"));
        assert_eq!(body, "ok");
        let all = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("set-cookie"), all("x-many")), (vec!["a=1", "b=2, c"], vec!["1", "2"]));
        let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
        assert_eq!((answer.all("set-cookie"), answer.all("x-many")), (vec!["a=1", "b=2, c"], vec!["1", "2"]));
    }
}

#[test]
fn cookies_reach_an_http2_upstream_whole() {
    let upstream = Upstream2::start(None);
    let proxy = over_h2(&upstream, "");
    let crumbs = Request::get("http://a.test/").header("cookie", "a=1").header("cookie", "b=2");
    ask(&mut H2::plain(proxy.addr), crumbs);
    let seen = upstream.last().head.headers;
    let crumbs: Vec<_> = seen.get_all("cookie").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(crumbs.join("; "), "a=1; b=2");
    proxy.ask("GET / HTTP/1.1\r\nhost: a.test\r\ncookie: a=1; b=2\r\n\r\n");
    assert_eq!(upstream.last().head.headers["cookie"], "a=1; b=2");
}

#[test]
fn grpc_answers_of_trailers_alone_and_of_trailers_behind_a_body_pass() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        while let Some(stream) = h2.request() {
            if stream == 1 {
                h2.head(stream, WHOLE, &[&head[..], &[("grpc-status", "12")]].concat());
                continue;
            }
            h2.head(stream, END_HEADERS, &head);
            h2.send(frame(DATA, 0, stream, b"\0\0\0\0\x01x"));
            h2.head(stream, WHOLE, &[("grpc-status", "0"), ("grpc-message", "fine")]);
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "http = \"2\"")));
    let mut h2 = H2::plain(proxy.addr);
    let call = || Request::post("http://a.test/m").header("content-type", "application/grpc").header("te", "trailers");
    let (head, body, trailers) = ask(&mut h2, call());
    assert_eq!((head.headers["grpc-status"].to_str().unwrap(), body.as_str(), trailers), ("12", "", None));
    assert!(!head.headers.contains_key("content-length"));
    let (head, body, trailers) = ask(&mut h2, call());
    assert_eq!((head.status.as_u16(), body.len()), (200, 6));
    let trailers = trailers.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&HeaderValue::from_static("0"), &HeaderValue::from_static("fine"))
    );
}

#[test]
fn answers_of_http1_without_a_body_have_none_in_http2() {
    for (method, answer, length) in [
        ("GET", "204 No Content\r\n", None),
        ("GET", "304 Not Modified\r\ncontent-length: 9\r\n", Some("9")),
        ("GET", "304 Not Modified\r\n", None),
        ("HEAD", "200 OK\r\ncontent-length: 9\r\n", Some("9")),
        ("HEAD", "200 OK\r\ntransfer-encoding: chunked\r\n", None),
        ("GET", "200 OK\r\ncontent-length: 0\r\n", Some("0")),
    ] {
        let upstream = Upstream::saying(format!("HTTP/1.1 {answer}\r\n"));
        let proxy = Proxy::in_front_of(&upstream);
        let mut h2 = H2::plain(proxy.addr);
        for _ in 0..2 {
            let (head, body, _) = ask(&mut h2, Request::builder().method(method).uri("http://a.test/"));
            assert_eq!(head.headers.get("content-length").map(|v| v.to_str().unwrap()), length, "{answer}");
            assert_eq!(body, "");
        }
        assert_eq!(upstream.connections(), 1, "{answer}");
        proxy.until_outcome("success", 2.0);
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_has_an_end_in_http2() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\n\r\nall of it");
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let (head, body, _) = ask(&mut H2::plain(proxy.addr), Request::get("http://a.test/"));
    assert_eq!((head.headers.get("content-length"), body.as_str()), (None, "all of it"));
}

#[test]
fn events_pass_as_they_come() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for _ in 0..3 {
                peer.until_told();
                peer.send("9\r\ndata: x\n\n\r\n");
            }
            peer.until_told();
            peer.send("0\r\n\r\n");
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, WHOLE, "/", &[]);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let mut data = || loop {
        let found = frames.next().unwrap().unwrap();
        if found.kind == DATA {
            return (found.payload, found.flags & END_STREAM != 0);
        }
    };
    for _ in 0..3 {
        upstream.tell_all();
        assert_eq!(data(), (b"data: x\n\n".to_vec(), false));
    }
    upstream.tell_all();
    assert_eq!(data(), (Vec::new(), true));
}

#[test]
fn who_expects_a_100_is_answered_all_the_same() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/", &[("expect", "100-continue")]);
    assert!(frames.round_trip());
    frames.frame(DATA, END_STREAM, 1, b"up");
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    assert_eq!((upstream.last().text().as_str(), upstream.last().header("expect")), ("up", None));
}

#[test]
fn an_answer_that_comes_before_the_body_has_ended_is_whole() {
    let upstream = Upstream::start(|peer| {
        if peer.head().is_some() {
            peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
            peer.until_closed();
        }
    });
    let proxy = Proxy::start(&format!("[limits]\nbody_bytes = \"100KiB\"\n{}", chat("", &stable(upstream.addr, ""))));
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/", &[]);
    frames.frame(DATA, 0, 1, b"some");
    assert_eq!(frames.verdict(1), Verdict::Status(403));
    assert_eq!(frames.verdict(0), Verdict::Reset(NO_ERROR));
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/", &[("content-length", "200000")]);
    assert_eq!(frames.verdict(1), Verdict::Status(413), "before any of it comes");
    assert_eq!(frames.verdict(0), Verdict::Reset(NO_ERROR));
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/", &[]);
    for _ in 0..7 {
        frames.frame(DATA, 0, 1, &[0; 16 << 10]);
    }
    assert_eq!(frames.verdict(1), Verdict::Status(413));
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
}

#[test]
fn errors_over_http2_say_the_same_as_over_http1() {
    let upstream = Upstream::ok();
    let proxy =
        Proxy::start(&chat("", &stable(upstream.addr, "")).replace("path_prefix = \"/\"", "path_prefix = \"/v1\""));
    let (head, body, _) = ask(&mut H2::plain(proxy.addr), Request::get("http://a.test/none"));
    assert_eq!(head.status, 404);
    assert_eq!(head.headers["proxy-status"], "serin; error=destination_not_found");
    assert_eq!(head.headers["content-length"], body.len().to_string());
    assert!(!head.headers.contains_key("connection"));
    let (head, body, _) = ask(&mut H2::plain(proxy.addr), Request::head("http://a.test/none"));
    assert_eq!((head.status.as_u16(), body.as_str()), (404, ""));
}

/// Credit to send data (RFC 9113 section 5.2): of the connection, and of each stream.
struct Credit {
    first: i64,
    connection: i64,
    streams: HashMap<u32, i64>,
}

impl Credit {
    fn new() -> Self {
        Self { first: 65_535, connection: 65_535, streams: HashMap::new() }
    }

    fn heed(&mut self, found: &Frame) {
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        match found.kind {
            SETTINGS if found.flags & ACK == 0 => {
                for setting in found.payload.chunks(6).filter(|s| s[..2] == [0, 4]) {
                    self.first = number(&setting[2..]);
                }
            }
            WINDOW_UPDATE if found.stream == 0 => self.connection += number(&found.payload),
            WINDOW_UPDATE => *self.streams.entry(found.stream).or_insert(self.first) += number(&found.payload),
            _ => {}
        }
    }

    /// All the data that may be sent on a stream now, or `most` of it.
    fn spend(&mut self, stream: u32, most: i64) -> Vec<u8> {
        let left = self.streams.entry(stream).or_insert(self.first);
        let size = most.min(*left).min(self.connection);
        *left -= size;
        self.connection -= size;
        let all = vec![b'x'; usize::try_from(size).unwrap()];
        all.chunks(16_000).flat_map(|chunk| frame(DATA, 0, stream, chunk)).collect()
    }
}

#[test]
fn bodies_that_a_version_does_not_take_hold_up_no_others() {
    let upstream = Upstream::start(|peer| {
        let Some(head) = peer.head() else { return };
        if head.starts_with("POST /stuck") {
            // Read no further.
            return peer.until_told();
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        peer.until_closed();
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut frames = Frames::connect(proxy.addr, None);
    let mut credit = Credit::new();
    frames.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    for stream in [1, 3, 5, 7, 9, 11] {
        frames.request(stream, END_HEADERS, "/stuck", &[]);
        // Until neither serin nor the kernel takes more.
        let mut quiet = 0;
        while quiet < 3 {
            frames.frame(PING, 0, 0, b"whatelse");
            loop {
                let found = frames.next().unwrap().unwrap();
                credit.heed(&found);
                if found.kind == PING {
                    break;
                }
            }
            let data = credit.spend(stream, i64::MAX);
            quiet = if data.is_empty() { quiet + 1 } else { 0 };
            frames.send(data);
            if quiet > 0 {
                std::thread::park_timeout(A_MOMENT);
            }
        }
    }
    frames.request(99, END_HEADERS, "/", &[]);
    let data = credit.spend(99, 1_000);
    assert!(data.len() > 1_000, "the connection's window is used up");
    frames.send(data);
    frames.frame(DATA, END_STREAM, 99, b"");
    assert_eq!(frames.verdict(99), Verdict::Status(200));
}

#[test]
fn answers_that_a_caller_does_not_take_hold_up_no_others() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        let (mut credit, mut long) = (Credit::new(), Vec::new());
        while let Some(found) = h2.next() {
            credit.heed(&found);
            if found.kind == HEADERS {
                h2.head(found.stream, END_HEADERS, &[(":status", "200")]);
                if long.len() < 8 {
                    long.push(found.stream);
                } else {
                    h2.send(credit.spend(found.stream, 1_000));
                    h2.send(frame(DATA, END_STREAM, found.stream, b""));
                }
            }
            for stream in &long {
                let data = credit.spend(*stream, i64::MAX);
                if !data.is_empty() {
                    h2.send(data);
                    h2.peer().note("more");
                }
            }
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "http = \"2\"")));
    let mut slow: Vec<_> = (0..8).map(|_| proxy.connect()).collect();
    for caller in &mut slow {
        caller.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
        caller.wait_for(b"\r\n\r\n");
    }
    // Until neither serin nor the kernel takes more.
    let mut sent = 0;
    while sent != upstream.notes("more") {
        sent = upstream.notes("more");
        std::thread::park_timeout(A_MOMENT * 3);
    }
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!((answer.status, answer.body.len()), (200, 1_000));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn the_length_of_a_body_is_told_alike_in_all_versions() {
    let (one, two) = (Upstream::ok(), Upstream2::start(None));
    let (to_one, to_two) = (Proxy::in_front_of(&one), over_h2(&two, ""));
    for (method, body, said, h1, h2) in [
        ("GET", None, None, (None, None), None),
        ("GET", Some("abc"), Some("3"), (Some("3"), None), Some("3")),
        ("GET", Some("abc"), None, (None, Some("chunked")), None),
        ("POST", None, None, (Some("0"), None), Some("0")),
        ("POST", None, Some("0"), (Some("0"), None), Some("0")),
        ("POST", Some(""), None, (None, Some("chunked")), None),
        ("DELETE", None, None, (Some("0"), None), Some("0")),
        ("BREW", Some("abc"), Some("3"), (Some("3"), None), Some("3")),
    ] {
        for proxy in [&to_one, &to_two] {
            let mut fields = vec![(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
            fields.extend(said.map(|length| ("content-length", length)));
            let mut frames = Frames::open(proxy.addr, None);
            frames.frame(HEADERS, if body.is_none() { WHOLE } else { END_HEADERS }, 1, &block(&fields));
            if let Some(body) = body {
                frames.frame(DATA, END_STREAM, 1, body.as_bytes());
            }
            assert_eq!(frames.verdict(1), Verdict::Status(200), "{method} {body:?} {said:?}");
        }
        let (seen, name) = (one.last(), format!("{method} {body:?} {said:?}"));
        assert_eq!((seen.method.as_str(), seen.text().as_str()), (method, body.unwrap_or_default()));
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), h1, "{name}");
        let seen = two.last();
        assert_eq!((seen.head.method.as_str(), seen.body), (method, body.unwrap_or_default().as_bytes().to_vec()));
        assert_eq!(seen.head.headers.get("content-length").map(|v| v.to_str().unwrap()), h2, "{name}");
    }
}

#[test]
fn what_serin_says_of_the_way_is_said_over_http2_too() {
    let upstream = Upstream2::start(None);
    let edge = "[listeners.edge]\nlisten = \"127.0.0.1:0\"\n";
    let trusting = format!("{edge}trusted_proxies = [\"127.0.0.0/8\"]\n");
    for (listener, chain, forwarded) in
        [(edge, "127.0.0.1", None), (trusting.as_str(), "192.0.2.1, 192.0.2.2, 127.0.0.1", Some("for=192.0.2.1"))]
    {
        let proxy = Proxy::start(&format!("{listener}{}", chat("", &stable(upstream.addr, "http = \"2\""))));
        let request = Request::get("http://a.test/")
            .header("x-forwarded-for", "192.0.2.1")
            .header("x-forwarded-for", "192.0.2.2")
            .header("forwarded", "for=192.0.2.1")
            .header("via", "1.1 before")
            .header("serin-arm", "canary")
            .header("x-request-id", "mine");
        let (head, ..) = ask(&mut H2::plain(proxy.addr), request);
        assert!(head.headers["serin-arm"] == "stable" && head.headers["x-request-id"] == "mine");
        let seen = upstream.last().head.headers;
        let all = |name: &str| seen.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), [chain]);
        assert_eq!((all("x-forwarded-host"), all("x-forwarded-proto")), (vec!["a.test"], vec!["http"]));
        assert_eq!(all("forwarded"), forwarded.into_iter().collect::<Vec<_>>());
        assert_eq!(all("via"), ["1.1 before", "2 serin"]);
        assert_eq!((all("serin-arm"), all("serin-version")), (vec!["stable"], vec!["v1"]));
        assert_eq!((all("x-request-id"), all("traceparent").len()), (vec!["mine"], 1));
        // And by HTTP/1.1.
        proxy.ask("GET / HTTP/1.1\r\nhost: a.test\r\nvia: 1.1 before\r\n\r\n");
        let seen = upstream.last().head.headers;
        let via: Vec<_> = seen.get_all("via").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        assert_eq!(via, ["1.1 before", "1.1 serin"]);
    }
}

#[test]
fn a_unit_in_a_crumb_of_a_cookie_is_found() {
    let (one, two) = (Upstream::ok(), Upstream::saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv2"));
    let tables = format!("{}{}", stable(one.addr, ""), canary(two.addr, ""));
    let proxy = Proxy::start(&chat("unit = [\"cookie:uid\"]\nweight = 50.0\n", &tables));
    let (mut h2, mut arms) = (H2::plain(proxy.addr), Vec::new());
    for user in 0..20 {
        let crumbs = Request::get("http://a.test/").header("cookie", "a=1").header("cookie", format!("uid={user}"));
        let (head, ..) = ask(&mut h2, crumbs);
        let answer = proxy.ask(format!("GET / HTTP/1.1\r\nhost: a.test\r\ncookie: a=1; uid={user}\r\n\r\n"));
        assert_eq!(head.headers["serin-why"], "bucket");
        assert_eq!(answer.header("serin-arm"), head.headers["serin-arm"].to_str().ok());
        arms.push(head.headers["serin-arm"].clone());
    }
    arms.sort();
    arms.dedup();
    assert_eq!(arms.len(), 2);
}
