//! What callers saw is what was counted: every request once, under load, faults and cancels.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::support::{NoAnswer, Proxy, Upstream, canary, chat, eventually, stable};

/// Does what the path says.
fn obedient() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.request() {
            match request.target.as_str() {
                "/ok" => peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
                "/chunks" => peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
                "/500" => peer.send("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"),
                "/429" => peer.send("HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n"),
                "/404" => peer.send("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"),
                "/cut" => return peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"),
                "/reset" => return peer.reset(),
                "/garbage" => return peer.send("what?\r\n\r\n"),
                "/stream" => {
                    peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
                    return peer.until_closed();
                }
                // "/silent"
                _ => return peer.until_closed(),
            }
        }
    })
}

/// Asks, and says what a caller would call it.
fn asks(proxy: &Proxy, path: &str, user: usize) -> &'static str {
    let mut client = proxy.connect();
    let body = if path == "/large" { "x".repeat(2_000) } else { "abc".to_owned() };
    client.send(format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-user-id: u{user}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    if path == "/stream" {
        client.wait_for(b"ok");
        return "cancelled";
    }
    match client.response() {
        Ok(r) if r.status == 504 => "timeout",
        Ok(r) if r.status == 429 => "throttled",
        Ok(r) if r.status == 413 => "refused",
        Ok(r) if r.status >= 500 => "upstream_error",
        Ok(r) if r.status >= 400 => "client_error",
        Ok(_) => "success",
        Err(NoAnswer::Truncated(_) | NoAnswer::Reset | NoAnswer::Closed) => "upstream_error",
        Err(other) => panic!("{path}: {other:?}"),
    }
}

#[test]
fn every_request_is_counted_once_as_its_caller_saw_it() {
    let (a, b) = (obedient(), obedient());
    let keys = "weight = 30.0\nfallback = \"none\"\nlimits = { body_bytes = \"1KiB\" }";
    let fast = "timeouts = { first_byte = \"100ms\" }";
    let text =
        chat(keys, &[stable(a.addr, fast), canary(b.addr, fast)].concat()).replace("host = \"*\"", "host = \"a\"");
    let proxy = Proxy::start(&format!("[server]\nworkers = 2\n{text}"));
    let paths =
        ["/ok", "/chunks", "/500", "/429", "/404", "/cut", "/reset", "/garbage", "/stream", "/silent", "/large"];
    let seen = Mutex::new(BTreeMap::<&str, f64>::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (proxy, seen) = (&proxy, &seen);
            scope.spawn(move || {
                for i in 0..paths.len() * 4 {
                    let outcome = asks(proxy, paths[(i * 7 + thread) % paths.len()], thread * 1_000 + i);
                    *seen.lock().unwrap().entry(outcome).or_default() += 1.0;
                }
                // Nobody's host: no rollout takes it.
                assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: b\r\n\r\n").status, 404);
                *seen.lock().unwrap().entry("client_error").or_default() += 1.0;
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    let all: f64 = seen.values().sum();
    eventually("all are counted", || proxy.metric("serin_requests_total", &[]) >= all);
    for (outcome, count) in &seen {
        assert_eq!(proxy.outcome(outcome), *count, "{outcome} of {seen:?}\n{}", proxy.metrics());
    }
    assert_eq!(proxy.metric("serin_requests_total", &[]), all);
    assert_eq!(proxy.metric("serin_request_duration_seconds_count", &[]), all);
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    proxy.until_metric("serin_connections", &[], 0.0);
    assert!(proxy.metric("serin_requests_total", &["arm=\"canary\""]) > 0.0);
    assert!(a.malformed().is_empty() && b.malformed().is_empty());
}
