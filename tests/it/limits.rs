//! Every bound of `[limits]`: what is over it is refused or closed, and counted.

use std::time::Duration;

use super::support::{
    A_MOMENT, Certificate, Client, NoAnswer, PATIENCE, Proxy, Upstream, canary, chat, eventually, now, stable,
};

fn bounded(limits: &str, upstream: &Upstream) -> Proxy {
    Proxy::start(&format!("[limits]\n{limits}\n{}", chat("", &stable(upstream.addr, ""))))
}

fn hits(proxy: &Proxy, limit: &str, count: f64) {
    proxy.until_metric("serin_limit_hits_total", &[&format!("limit=\"{limit}\"")], count);
}

#[test]
fn heads_and_targets_have_a_size() {
    let upstream = Upstream::ok();
    let proxy = bounded("header_bytes = \"8KiB\"\nheaders = 20\nuri_bytes = \"100B\"", &upstream);
    let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    assert_eq!(proxy.ask(get("/", &format!("x: {}\r\n", "y".repeat(9_000)))).status, 431);
    hits(&proxy, "header_bytes", 1.0);
    assert_eq!(proxy.ask(get("/", &"x: y\r\n".repeat(21))).status, 431);
    hits(&proxy, "headers", 1.0);
    let answer = proxy.ask(get(&format!("/{}", "x".repeat(100)), ""));
    assert_eq!(answer.status, 414);
    hits(&proxy, "uri_bytes", 1.0);
    assert!(upstream.requests().is_empty());
    assert_eq!(proxy.ask(get(&format!("/{}", "x".repeat(99)), &"x: y\r\n".repeat(19))).status, 200);
}

#[test]
fn a_body_has_a_size_whether_or_not_it_says_so() {
    let upstream = Upstream::ok();
    let proxy = bounded("body_bytes = \"1KiB\"", &upstream);
    let body = |n: usize| "x".repeat(n);
    assert_eq!(
        proxy.ask(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1024\r\n\r\n{}", body(1024))).status,
        200
    );
    let answer = proxy.ask(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n{}", body(1025)));
    assert_eq!((answer.status, answer.header("proxy-status")), (413, Some("serin; error=http_request_error")));
    assert_eq!(upstream.requests().len(), 1);
    let mut client = proxy.connect();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n400\r\n{}\r\n", body(1024)));
    client.send("1\r\nx\r\n0\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 413);
    assert_eq!(upstream.requests().len(), 1, "nothing whole went up");
    hits(&proxy, "body_bytes", 2.0);
    proxy.until_outcome("refused", 2.0);
}

#[test]
fn a_chunk_that_would_be_too_large_is_refused_before_it_comes() {
    let upstream = Upstream::ok();
    let proxy = bounded("body_bytes = \"1KiB\"", &upstream);
    for body in ["401\r\n", "401\r\nbegun", "7fffffffffffffff\r\n", "400\r\nx", "2\r\nok\r\n3ff\r\n"] {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"));
        if body.starts_with("400") {
            client.patience(A_MOMENT);
            assert!(matches!(client.response(), Err(NoAnswer::Waiting(_))), "as much as is allowed");
        } else {
            assert_eq!(client.response().unwrap().status, 413, "{body:?}");
        }
    }
    hits(&proxy, "body_bytes", 4.0);
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_body_that_is_held_whole_has_the_same_size() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let keys = "weight = 0.0\nfallback = \"before_first_byte\"";
    let versions = [stable(a.addr, ""), canary(b.addr, "")].concat();
    let proxy = Proxy::start(&format!("[limits]\nbody_bytes = \"1KiB\"\n{}", chat(keys, &versions)));
    let body = |n: usize| {
        let body = "x".repeat(n);
        format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{n:x}\r\n{body}\r\n0\r\n\r\n")
    };
    assert_eq!(proxy.ask(body(1024)).status, 200);
    assert_eq!(proxy.ask(body(1025)).status, 413);
    assert_eq!(a.requests().len(), 1);
}

#[test]
fn a_head_that_trickles_is_cut() {
    let upstream = Upstream::ok();
    let proxy = bounded("header_read = \"300ms\"", &upstream);
    for beginning in ["G", "GET / HTTP/1.1\r\nhost: a\r\nx:"] {
        let mut client = proxy.connect();
        let start = now();
        client.patience(Duration::from_millis(20));
        // A byte now and then does not help.
        client.send(beginning);
        let answer = loop {
            match client.response() {
                Err(NoAnswer::Waiting(_)) if now().since(start) < PATIENCE => client.send("y"),
                other => break other,
            }
        };
        assert!(!answer.is_ok_and(|r| r.status < 400));
        assert!(now().since(start) < Duration::from_secs(3), "{:?}", now().since(start));
    }
    hits(&proxy, "header_read", 2.0);
    // Also between two requests.
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 200);
    client.send("GET / HT");
    assert!(client.ends(PATIENCE));
    hits(&proxy, "header_read", 3.0);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let upstream = Upstream::start(|peer| {
        while peer.request().is_some() {
            peer.until_told();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = bounded("idle = \"300ms\"", &upstream);
    let (mut idle, mut busy) = (proxy.connect(), proxy.connect());
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(idle.ends(PATIENCE));
    busy.patience(Duration::from_millis(800));
    assert!(matches!(busy.response(), Err(NoAnswer::Waiting(seen)) if seen.is_empty()));
    busy.patience(PATIENCE);
    upstream.tell_all();
    assert_eq!(busy.response().unwrap().status, 200);
    assert!(busy.ends(PATIENCE));
}

#[test]
fn an_idle_connection_over_tls_ends_by_close_notify() {
    let (certificate, upstream) = (Certificate::new(), Upstream::ok());
    let proxy = Proxy::start(&format!(
        "[limits]\nidle = \"200ms\"\n[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n{}",
        certificate.pem.display(),
        certificate.key.display(),
        chat("", &stable(upstream.addr, ""))
    ));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = Client::tls(proxy.addr, certificate.client(&["http/1.1"], &[version]));
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.response().unwrap().status, 200);
        // Without it rustls says that the end was unexpected.
        assert_eq!(client.more().unwrap(), 0);
    }
    hits(&proxy, "idle", 2.0);
}

#[test]
fn a_body_that_stands_still_is_given_up_on_both_sides() {
    let upstream = Upstream::ok();
    for unit in ["\"header:x-user-id\"", "\"body:/user\""] {
        let text = format!(
            "[limits]\nbody_progress = \"200ms\"\n{}",
            chat(&format!("unit = [{unit}]"), &stable(upstream.addr, ""))
        );
        let proxy = Proxy::start(&text);
        let mut client = proxy.connect();
        let start = now();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc");
        assert_eq!(client.response().unwrap().status, 408, "{unit}");
        assert!(client.ends(PATIENCE));
        assert!(now().since(start) < Duration::from_secs(3));
        hits(&proxy, "body_progress", 1.0);
        proxy.until_outcome("client_error", 1.0);
        proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_caller_who_leaves_while_his_body_is_looked_at_is_counted_once() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(&chat("unit = [\"body:/user\"]", &stable(upstream.addr, "")));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n");
    let answer = client.response();
    assert!(matches!(&answer, Ok(r) if r.status == 400), "{answer:?}");
    eventually("the request is counted", || proxy.metric("serin_requests_total", &[]) == 1.0);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc");
    client.patience(A_MOMENT);
    assert!(client.response().is_err());
    drop(client);
    eventually("the request is counted", || proxy.metric("serin_requests_total", &[]) == 2.0);
    proxy.until_outcome("cancelled", 1.0);
}

#[test]
fn a_caller_who_does_not_read_is_given_up() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
            while peer.try_send(vec![b'x'; 1 << 16]) {}
            peer.note("closed");
        }
    });
    let proxy = bounded("body_progress = \"300ms\"", &upstream);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    upstream.until_note("closed");
    hits(&proxy, "body_progress", 1.0);
    eventually("the request is counted", || proxy.metric("serin_requests_total", &[]) == 1.0);
    assert!(client.response().is_err());
}

#[test]
fn connections_and_requests_on_them_are_counted() {
    let upstream = Upstream::ok();
    let proxy = bounded("connections = 2\nrequests_per_connection = 3", &upstream);
    let (mut first, _second) = (proxy.connect(), proxy.connect());
    proxy.until_metric("serin_connections", &[], 2.0);
    let mut third = proxy.connect();
    assert!(third.ends(PATIENCE));
    hits(&proxy, "connections", 1.0);
    for i in 1..=3 {
        first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = first.response().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, (i == 3).then_some("close")));
    }
    assert!(first.ends(PATIENCE));
    hits(&proxy, "requests_per_connection", 1.0);
    proxy.until_metric("serin_connections", &[], 1.0);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
}
