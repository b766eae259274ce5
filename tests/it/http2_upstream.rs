//! Upstreams that speak HTTP/2 frame by frame: what they refuse, reset and say goodbye to, and how many streams they take.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::support::frames::*;
use super::support::{Certificate, H2, H2Peer, Proxy, Upstream, chat, eventually, now, stable};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 2\r\n\r\nup";
const POST_EMPTY: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n";
const INTERNAL_ERROR: u32 = 2;

fn over_h2(upstream: &Upstream) -> Proxy {
    Proxy::start(&chat("", &stable(upstream.addr, "http = \"2\"")))
}

/// An upstream whose first request of the connection is answered, and whose others are `scripted`.
fn warm(scripted: impl Fn(&mut H2Peer<'_>, u32, usize) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |peer| {
        let number = peer.number;
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        let Some(first) = h2.request() else { return };
        h2.answer(first, "200", "warm");
        while let Some(stream) = h2.request() {
            scripted(&mut h2, stream, number);
        }
    })
}

#[test]
fn a_request_that_upstream_resets_is_not_sent_again() {
    for code in [INTERNAL_ERROR, CANCEL, PROTOCOL_ERROR, NO_ERROR] {
        let upstream = warm(move |h2, stream, _| h2.reset(stream, code));
        let proxy = over_h2(&upstream);
        assert_eq!(proxy.ask(GET).text(), "warm");
        let answer = proxy.ask(GET);
        assert_eq!((answer.status, answer.header("proxy-status")), (502, Some("serin; error=connection_terminated")));
        assert_eq!(upstream.notes("request"), 2, "code {code}");
        proxy.until_outcome("upstream_error", 1.0);
    }
}

#[test]
fn a_request_that_upstream_refuses_unseen_is_sent_again_but_not_for_ever() {
    for request in [GET, POST_EMPTY] {
        let upstream = warm(|h2, stream, _| {
            if h2.peer().seen().is_empty() && stream == 3 {
                h2.reset(stream, REFUSED_STREAM);
            } else {
                h2.answer(stream, "200", "taken");
            }
        });
        let proxy = over_h2(&upstream);
        assert_eq!(proxy.ask(GET).text(), "warm");
        assert_eq!(proxy.ask(request).text(), "taken");
        proxy.until_outcome("success", 2.0);
        let upstream = warm(|h2, stream, _| h2.reset(stream, REFUSED_STREAM));
        let proxy = over_h2(&upstream);
        assert_eq!(proxy.ask(GET).text(), "warm");
        assert!(matches!(proxy.ask(request).status, 200 | 502));
        assert!(upstream.notes("request") <= 4, "{}", upstream.notes("request"));
    }
}

#[test]
fn a_request_above_the_last_of_a_farewell_is_sent_again() {
    for (request, status) in [(GET, 200), (POST_EMPTY, 200), (POST, 502)] {
        let upstream = warm(|h2, _, number| {
            if number == 0 {
                h2.goaway(1, NO_ERROR);
                h2.peer().until_closed();
            }
        });
        let proxy = over_h2(&upstream);
        assert_eq!(proxy.ask(GET).text(), "warm");
        let answer = proxy.ask(request);
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(upstream.connections(), if status == 200 { 2 } else { 1 });
    }
}

#[test]
fn a_farewell_lets_the_streams_below_its_last_end_and_takes_no_more() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        let Some(first) = h2.request() else { return };
        h2.head(first, END_HEADERS, &[(":status", "200")]);
        h2.goaway(first, NO_ERROR);
        h2.peer().until_told();
        h2.send(frame(DATA, END_STREAM, first, b"whole"));
        h2.serve();
    });
    let proxy = over_h2(&upstream);
    let mut first = proxy.connect();
    first.send(GET);
    first.wait_for(b"\r\n\r\n");
    let mut second = proxy.connect();
    second.send(POST);
    eventually("the second connection", || upstream.connections() == 2);
    upstream.tell_all();
    assert_eq!(first.response().unwrap().text(), "whole");
    upstream.tell_all();
    assert_eq!(second.response().unwrap().text(), "whole");
    proxy.until_outcome("success", 2.0);
}

#[test]
fn no_more_streams_than_upstream_allows_share_a_connection() {
    // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 section 6.5.2).
    const EIGHT: [u8; 6] = [0, 3, 0, 0, 0, 8];
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &EIGHT) else { return };
        let mut open = Vec::new();
        while let Some(stream) = h2.request() {
            if open.len() == 8 {
                h2.reset(stream, REFUSED_STREAM);
                h2.peer().note("refused");
                continue;
            }
            open.push(stream);
            h2.head(stream, END_HEADERS, &[(":status", "200")]);
        }
    });
    let proxy = over_h2(&upstream);
    let mut callers: Vec<_> = (0..20).map(|_| proxy.connect()).collect();
    for caller in &mut callers {
        caller.send(POST);
    }
    for caller in &mut callers {
        caller.wait_for(b"HTTP/1.1 200");
    }
    assert_eq!(upstream.notes("refused"), 0);
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn an_upstream_whose_answer_is_no_http2_is_named_so_and_asked_once() {
    let long = "x".repeat(300_000);
    for (what, fields) in [
        ("no status", vec![("x", "y")]),
        ("a connection's field", vec![(":status", "200"), ("connection", "close")]),
        ("an upper-case name", vec![(":status", "200"), ("X-Upper", "1")]),
        ("a length that is none", vec![(":status", "200"), ("content-length", "x")]),
        ("a head beyond the bound", vec![(":status", "200"), ("x", &long)]),
        ("101", vec![(":status", "101")]),
    ] {
        let block = block(&fields);
        let upstream = warm(move |h2, stream, number| {
            if number > 0 {
                return h2.answer(stream, "200", "another");
            }
            let mut parts = block.chunks(16 << 10).peekable();
            let mut kind = HEADERS;
            while let Some(part) = parts.next() {
                let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
                h2.send(frame(kind, flags, stream, part));
                kind = CONTINUATION;
            }
            h2.send(frame(DATA, END_STREAM, stream, b""));
        });
        let proxy = over_h2(&upstream);
        assert_eq!(proxy.ask(GET).text(), "warm");
        let answer = proxy.ask(GET);
        assert_eq!(
            (answer.status, answer.header("proxy-status")),
            (502, Some("serin; error=http_protocol_error")),
            "{what}"
        );
        assert_eq!(upstream.notes("request"), 2, "{what}");
        proxy.until_outcome("upstream_error", 1.0);
    }
}

#[test]
fn a_head_as_large_as_http1_may_have_passes() {
    let long = "x".repeat(40_000);
    let block = block(&[(":status", "200"), ("x-long", &long)]);
    let upstream = warm(move |h2, stream, _| {
        h2.send(frame(HEADERS, 0, stream, &block[..16_000]));
        h2.send(frame(CONTINUATION, 0, stream, &block[16_000..32_000]));
        h2.send(frame(CONTINUATION, END_HEADERS, stream, &block[32_000..]));
        h2.send(frame(DATA, END_STREAM, stream, b"ok"));
    });
    let proxy = over_h2(&upstream);
    assert_eq!(proxy.ask(GET).text(), "warm");
    let answer = proxy.ask(GET);
    assert_eq!((answer.status, answer.header("x-long").map(str::len)), (200, Some(40_000)));
}

#[test]
fn answers_without_a_body_say_of_their_length_what_upstream_said() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        for fields in [
            &[(":status", "204")][..],
            &[(":status", "304"), ("content-length", "9")],
            &[(":status", "304")],
            &[(":status", "200"), ("content-length", "9")],
            &[(":status", "200")],
        ] {
            let Some(stream) = h2.request() else { return };
            h2.head(stream, WHOLE, fields);
        }
    });
    let proxy = over_h2(&upstream);
    let mut h2 = H2::plain(proxy.addr);
    for (method, status, length) in
        [("GET", 204, None), ("GET", 304, Some("9")), ("GET", 304, None), ("HEAD", 200, Some("9")), ("HEAD", 200, None)]
    {
        let request = http::Request::builder().method(method).uri("http://a.test/").body(()).unwrap();
        let (head, body) = h2.ask(request, "", None).unwrap();
        assert_eq!(head.status, status);
        assert_eq!(head.headers.get("content-length").map(|v| v.to_str().unwrap()), length, "{method} {status}");
        assert!(body.unwrap().0.is_empty());
    }
    proxy.until_outcome("success", 5.0);
}

#[test]
fn an_early_answer_ends_the_exchange_on_both_sides() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        while let Some(stream) = h2.request() {
            h2.head(stream, END_HEADERS, &[(":status", "403")]);
            h2.send(frame(DATA, END_STREAM, stream, b"no"));
            h2.reset(stream, NO_ERROR);
        }
    });
    let proxy = over_h2(&upstream);
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/", &[]);
    frames.frame(DATA, 0, 1, b"some");
    assert_eq!(frames.verdict(1), Verdict::Status(403));
    assert_eq!(frames.verdict(0), Verdict::Reset(NO_ERROR), "the rest of the body is not wanted");
    proxy.until_outcome("client_error", 1.0);
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
}

#[test]
fn a_server_that_is_none_is_known_before_a_request_is_risked() {
    let upstream = Upstream::start(|peer| {
        peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        peer.until_closed();
    });
    let proxy = over_h2(&upstream);
    let answer = proxy.ask(POST);
    assert_eq!((answer.status, answer.header("proxy-status")), (502, Some("serin; error=http_protocol_error")));
    proxy.until_outcome("upstream_error", 1.0);
}

#[test]
fn an_answer_that_upstream_breaks_off_is_cut_in_either_version() {
    type Break = fn(&mut H2Peer<'_>, u32);
    let breaks: [(&str, Break); 8] = [
        ("reset", |h2, stream| h2.reset(stream, INTERNAL_ERROR)),
        ("reset without a reason", |h2, stream| h2.reset(stream, NO_ERROR)),
        ("refused", |h2, stream| h2.reset(stream, REFUSED_STREAM)),
        ("a farewell without it", |h2, _| h2.goaway(0, NO_ERROR)),
        ("less than its length", |h2, stream| h2.send(frame(DATA, END_STREAM, stream, b"y"))),
        ("more than its length", |h2, stream| h2.send(frame(DATA, END_STREAM, stream, &[b'y'; 99]))),
        ("trailers that are none", |h2, stream| h2.head(stream, WHOLE, &[("connection", "close")])),
        ("another frame of no stream", |h2, _| h2.send(frame(DATA, 0, 77, b"y"))),
    ];
    for (what, break_off) in breaks {
        let upstream = Upstream::start(move |peer| {
            let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
            while let Some(stream) = h2.request() {
                h2.head(stream, END_HEADERS, &[(":status", "200"), ("content-length", "9")]);
                h2.send(frame(DATA, 0, stream, b"part"));
                // What is queued must be there before a reset takes it back.
                h2.peer().until_told();
                break_off(&mut h2, stream);
            }
        });
        let proxy = over_h2(&upstream);
        let mut frames = Frames::open(proxy.addr, None);
        frames.request(1, WHOLE, "/", &[]);
        assert_eq!(frames.verdict(1), Verdict::Status(200), "{what}");
        assert_eq!(frames.next().unwrap().unwrap().payload, b"part", "{what}");
        upstream.tell_all();
        assert!(matches!(frames.verdict(0), Verdict::Reset(code) if code != NO_ERROR), "{what}");
        assert!(frames.round_trip(), "{what}: the caller's connection lives on");
        let mut client = proxy.connect();
        client.send(GET);
        client.wait_for(b"part");
        upstream.tell_all();
        assert!(client.response().is_err(), "{what}");
        proxy.until_outcome("upstream_error", 2.0);
    }
}

#[test]
fn a_caller_who_resets_within_an_answer_has_cancelled_it() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        while let Some(stream) = h2.request() {
            h2.head(stream, END_HEADERS, &[(":status", "200")]);
            h2.send(frame(DATA, 0, stream, b"part"));
            if h2.until(RST_STREAM).is_some_and(|reset| reset.stream == stream && reset.payload == CANCEL.to_be_bytes())
            {
                h2.peer().note("cancelled");
            }
        }
    });
    let proxy = over_h2(&upstream);
    let mut frames = Frames::open(proxy.addr, None);
    for stream in [1, 3] {
        frames.request(stream, WHOLE, "/", &[]);
        while frames.next().unwrap().unwrap().kind != DATA {}
        frames.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        eventually("the reset upstream", || upstream.notes("cancelled") == (stream as usize).div_ceil(2));
    }
    proxy.until_outcome("cancelled", 2.0);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn interim_answers_are_read_over_and_floods_of_them_end() {
    let upstream = Upstream::start(|peer| {
        let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
        while let Some(stream) = h2.request() {
            for _ in 0..20 {
                h2.head(stream, END_HEADERS, &[(":status", "103"), ("link", "</x>")]);
            }
            h2.answer(stream, "200", "ok");
        }
    });
    let proxy = over_h2(&upstream);
    for _ in 0..2 {
        let answer = proxy.ask(GET);
        assert_eq!((answer.status, answer.text().as_str(), answer.header("link")), (200, "ok", None));
    }
}

#[test]
fn floods_of_an_upstream_end_its_connection_and_nothing_else() {
    let floods: [(&str, Vec<u8>); 3] = [
        ("a head without an end", frame(CONTINUATION, 0, 1, &[0; 1_000])),
        ("pings", frame(PING, 0, 0, b"pingping")),
        ("settings", frame(SETTINGS, 0, 0, &[])),
    ];
    for (what, one) in floods {
        let upstream = Upstream::start(move |peer| {
            let Some(mut h2) = H2Peer::accept(peer, &[]) else { return };
            let Some(stream) = h2.request() else { return };
            if one[3] == CONTINUATION {
                h2.send(frame(HEADERS, 0, stream, &block(&[(":status", "200")])));
            }
            for _ in 0..200 {
                // Whether serin still listens is for the test to see.
                if !h2.peer().try_send(one.repeat(100)) {
                    return;
                }
            }
            if one[3] != CONTINUATION {
                h2.answer(stream, "200", "ok");
            }
            h2.peer().until_closed();
        });
        let proxy = over_h2(&upstream);
        let answer = proxy.ask(GET);
        assert_eq!(answer.status, if what == "a head without an end" { 502 } else { 200 }, "{what}");
        proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    }
}

#[test]
fn requests_do_not_wait_for_each_others_time_outs() {
    // The kernel takes the connections; nobody answers the handshakes.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let version = format!(
        "[rollouts.chat.stable]\nversion = \"v1\"\nendpoints = [\"https://{}\"]\ntimeouts = {{ connect = \"300ms\" }}\n",
        mute.local_addr().unwrap()
    );
    let proxy = Proxy::start(&chat("", &version));
    let start = now();
    let mut callers: Vec<_> = (0..20).map(|_| proxy.connect()).collect();
    for caller in &mut callers {
        caller.send(POST);
    }
    for caller in &mut callers {
        assert_eq!(caller.response().unwrap().status, 504);
    }
    assert!(now().since(start) < Duration::from_secs(3), "{:?}", now().since(start));
}

#[test]
fn connections_that_streams_do_not_share_are_opened_side_by_side() {
    let certificate = Certificate::new();
    let config = certificate.server("http/1.1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let version = format!(
        "[rollouts.chat.stable]\nversion = \"v1\"\nendpoints = [\"https://localhost:{}\"]\ntls = {{ ca = \"{}\" }}\ntimeouts = {{ connect = \"60s\" }}\n",
        listener.local_addr().unwrap().port(),
        certificate.pem.display()
    );
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for tcp in listener.incoming() {
            let tcp = tcp.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
            // The first is answered; of the others nobody takes the handshake.
            if held.is_empty() {
                let mut head = [0; 4 << 10];
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    assert!(stream.read(&mut head).unwrap() > 0);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").unwrap();
                stream.flush().unwrap();
            }
            held.push(stream);
        }
    });
    let proxy = Proxy::start(&chat("", &version));
    let mut callers: Vec<_> = (0..6).map(|_| proxy.connect()).collect();
    for caller in &mut callers {
        caller.send(GET);
    }
    eventually("all connections", || opened.load(Ordering::Relaxed) == 6);
}
