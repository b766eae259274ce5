//! Interim answers (1xx, RFC 9110 section 15.2): passed on as they come, bounded, and never taken for the answer.

use http::Request;

use super::support::{A_MOMENT, H2, NoAnswer, PATIENCE, Proxy, Upstream, chat, now, show, stable};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n";

/// Says `first`, and `OK` when it is told to.
fn in_two(first: impl Into<String>) -> Upstream {
    let first = first.into();
    Upstream::start(move |peer| {
        while peer.request().is_some() {
            peer.send(&first);
            peer.until_told();
            peer.send(OK);
        }
    })
}

#[test]
fn an_interim_answer_reaches_the_caller_before_the_answer_does() {
    let upstream = in_two(format!("HTTP/1.1 102 Processing\r\n\r\n{HINTS}"));
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    for request in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"] {
        client.send(request);
        assert_eq!(client.response().unwrap().status, 102);
        let hints = client.response().unwrap();
        assert_eq!((hints.status, hints.all("link")), (103, vec!["</a.css>; rel=preload", "</b.js>"]));
        assert_eq!(hints.header("serin-arm"), None, "who answers is said by the answer");
        upstream.tell_all();
        let answer = client.response().unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.header("serin-arm")), (200, "ok", Some("stable")));
    }
    proxy.until_outcome("success", 2.0);
    assert_eq!(proxy.metric("serin_requests_total", &["code=\"1xx\""]), 0.0);
    assert_eq!(upstream.connections(), 1, "the connection is good for the next request");
}

#[test]
fn what_names_a_connection_or_speaks_for_serin_is_taken_off_an_interim_answer() {
    let upstream = Upstream::saying(format!(
        "HTTP/1.1 103 Early Hints\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\ncontent-length: 9\r\nserin-arm: evil\r\nx: y\r\n\r\n{OK}"
    ));
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let hints = client.response().unwrap();
    assert_eq!((hints.status, hints.headers), (103, vec![("x".to_owned(), "y".to_owned())]));
    assert_eq!(client.response().unwrap().text(), "ok");
}

#[test]
fn callers_who_know_no_interim_answer_see_none() {
    let upstream = Upstream::saying(format!("HTTP/1.1 100 Continue\r\n\r\n{HINTS}{OK}"));
    let proxy = Proxy::in_front_of(&upstream);
    let mut h2 = H2::plain(proxy.addr);
    assert_eq!(h2.ask(Request::get("http://a.test/").body(()).unwrap(), "", None).unwrap().1.unwrap().0, b"ok");
    let mut old = proxy.connect();
    old.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    assert_eq!(old.response().unwrap().status, 200);
    // 100 is serin's own to say, when it wants the body.
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 100);
    client.send("hi");
    assert_eq!(client.response().unwrap().status, 103);
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn interim_answers_without_an_end_are_a_fault_of_the_version() {
    let short = "HTTP/1.1 102 Processing\r\n\r\n".to_owned();
    let long = format!("HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n", "x".repeat(10_000));
    for flood in [short.repeat(40), long.repeat(10)] {
        let upstream = Upstream::saying(format!("{flood}{OK}"));
        let proxy = Proxy::in_front_of(&upstream);
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let (mut seen, mut bytes) = (0, 0);
        let answer = loop {
            let answer = client.response().unwrap();
            if answer.status >= 200 {
                break answer;
            }
            seen += 1;
            bytes += answer.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        };
        assert_eq!(answer.status, 502);
        assert!(seen <= 32 && bytes <= 64 << 10, "{seen} of {bytes} bytes");
        proxy.until_outcome("upstream_error", 1.0);
    }
}

#[test]
fn interim_answers_do_not_begin_the_wait_for_the_answer_anew() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            for _ in 0..20 {
                peer.send(HINTS);
                std::thread::park_timeout(A_MOMENT);
            }
            peer.send(OK);
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "timeouts = { first_byte = \"200ms\" }")));
    let mut client = proxy.connect();
    let start = now();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = loop {
        let answer = client.response().unwrap();
        if answer.status >= 200 {
            break answer;
        }
    };
    assert_eq!(answer.status, 504);
    assert!(now().since(start) < PATIENCE / 2);
    proxy.until_outcome("timeout", 1.0);
}

#[test]
fn a_version_that_dies_behind_its_hints_is_a_502() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send(HINTS);
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 103);
    assert_eq!(client.response().unwrap().status, 502);
    assert_eq!(upstream.connections(), 1, "a request that was heard is not sent again");
}

#[test]
fn a_caller_who_leaves_behind_the_hints_is_a_cancel() {
    let upstream = in_two(HINTS);
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    match client.response() {
        Ok(hints) => assert_eq!(hints.status, 103),
        Err(NoAnswer::Waiting(seen)) => panic!("{}", show(&seen)),
        Err(other) => panic!("{other:?}"),
    }
    client.reset();
    proxy.until_outcome("cancelled", 1.0);
}
