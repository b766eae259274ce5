//! What serin does when a version cannot answer: time-outs, fallback, retries, ejection, and the words it finds for them.

use std::net::TcpListener;
use std::time::Duration;

use super::support::{NoAnswer, Proxy, Upstream, canary, chat, eventually, nobody, now, stable};

const GET: &str = "GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\n\r\n";
const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\ncontent-length: 3\r\n\r\nabc";

/// Reads requests and never answers.
fn silent() -> Upstream {
    Upstream::start(|peer| while peer.request().is_some() {})
}

/// Resets after the request.
fn resetting() -> Upstream {
    Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.reset();
        }
    })
}

#[test]
fn errors_have_the_protocols_shape_and_a_proxy_status() {
    let addr = nobody();
    for (protocol, pointer, content) in [
        ("openai", "/error/message", "application/json"),
        ("anthropic", "/error/message", "application/json"),
        ("mcp", "/error/message", "application/json"),
        ("http", "/detail", "application/problem+json"),
    ] {
        let proxy = Proxy::start(&chat(&format!("protocol = \"{protocol}\""), &stable(addr, "")));
        let answer = proxy.ask(GET);
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("proxy-status"), Some("serin; error=connection_refused"));
        assert_eq!(answer.header("content-type"), Some(content));
        assert_eq!(answer.header("serin-arm"), Some("stable"));
        assert!(answer.header("x-request-id").is_some());
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(body.pointer(pointer).is_some_and(serde_json::Value::is_string), "{protocol}: {body}");
        proxy.until_outcome("upstream_error", 1.0);
    }
}

#[test]
fn connecting_is_given_up_after_its_time() {
    // A full queue of a listener that never accepts drops what else comes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = socket2::SockRef::from(&listener);
    socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let held: Vec<_> =
        (0..4).filter_map(|_| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok()).collect();
    let proxy = Proxy::start(&chat("", &stable(addr, "timeouts = { connect = \"150ms\" }")));
    let start = now();
    let answer = proxy.ask(POST);
    assert_eq!((answer.status, answer.header("proxy-status")), (504, Some("serin; error=connection_timeout")));
    assert!(now().since(start) < Duration::from_secs(2));
    proxy.until_outcome("timeout", 1.0);
    drop(held);
}

#[test]
fn a_head_that_does_not_come_is_given_up_and_the_upstream_is_told() {
    let upstream = silent();
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "timeouts = { first_byte = \"150ms\" }")));
    let start = now();
    let answer = proxy.ask(POST);
    assert_eq!((answer.status, answer.header("proxy-status")), (504, Some("serin; error=http_response_timeout")));
    assert!((100..2_000).contains(&now().since(start).as_millis()));
    upstream.until_closed();
    proxy.until_outcome("timeout", 1.0);
}

#[test]
fn a_body_that_stands_still_is_cut_and_never_looks_whole() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
            peer.until_closed();
            peer.note("closed");
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "timeouts = { idle = \"150ms\" }")));
    let mut client = proxy.connect();
    client.send(GET);
    assert!(matches!(client.response(), Err(NoAnswer::Truncated(r)) if r.body == b"ok"));
    upstream.until_note("closed");
    proxy.until_outcome("upstream_error", 1.0);
}

/// All to the canary.
fn all_to(canary_version: String, stable_version: String, fallback: &str) -> Proxy {
    let keys = format!("weight = 100.0\nfallback = \"{fallback}\"");
    Proxy::start(&chat(&keys, &[stable_version, canary_version].concat()))
}

#[test]
fn fallback_is_as_configured_and_the_canary_is_charged() {
    let good = Upstream::ok();
    let (silent, resetting) = (silent(), resetting());
    let dead = nobody();
    for (fallback, addr, method, expect) in [
        ("none", dead, POST, Err((502, "upstream_error"))),
        ("none", resetting.addr, POST, Err((502, "upstream_error"))),
        ("connect", dead, POST, Ok("upstream_error")),
        ("connect", resetting.addr, POST, Err((502, "upstream_error"))),
        ("connect", silent.addr, POST, Err((504, "timeout"))),
        ("before_first_byte", dead, POST, Ok("upstream_error")),
        ("before_first_byte", resetting.addr, POST, Ok("upstream_error")),
        ("before_first_byte", silent.addr, POST, Ok("timeout")),
        ("before_first_byte", silent.addr, GET, Ok("timeout")),
    ] {
        let proxy = all_to(canary(addr, "timeouts = { first_byte = \"100ms\" }"), stable(good.addr, ""), fallback);
        let before = good.requests().len();
        let answer = proxy.ask(method);
        let tags = (answer.header("serin-arm"), answer.header("serin-version"), answer.header("serin-why"));
        let charged = match expect {
            Ok(charged) => {
                assert_eq!(answer.status, 200, "{fallback} {answer:?}");
                assert_eq!(tags, (Some("stable"), Some("v1"), Some("fallback")));
                assert_eq!(good.requests().len(), before + 1);
                assert_eq!(good.last().header("serin-arm"), Some("stable"));
                assert_eq!(good.last().text(), if method == POST { "abc" } else { "" });
                charged
            }
            Err((status, charged)) => {
                assert_eq!(answer.status, status, "{fallback}");
                assert_eq!(tags, (Some("canary"), Some("v2"), Some("bucket")));
                assert_eq!(good.requests().len(), before);
                charged
            }
        };
        let outcome = format!("outcome=\"{charged}\"");
        proxy.until_metric("serin_requests_total", &["arm=\"canary\"", "version=\"v2\"", &outcome], 1.0);
        assert_eq!(proxy.metric("serin_requests_total", &[]), 1.0, "counted once");
    }
}

#[test]
fn a_body_too_large_to_hold_is_not_sent_twice() {
    let (good, bad) = (Upstream::ok(), resetting());
    let proxy = all_to(canary(bad.addr, ""), stable(good.addr, ""), "before_first_byte");
    let body = "x".repeat(1_000_000);
    let answer =
        proxy.ask(format!("POST / HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\ncontent-length: 1000000\r\n\r\n{body}"));
    assert_eq!(answer.status, 502);
    assert!(good.requests().is_empty());
}

/// Answers once on each connection, then closes it when told.
fn closing_when_told() -> Upstream {
    Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            peer.until_told();
        }
    })
}

#[test]
fn a_kept_connection_that_died_costs_no_get_and_doubles_no_post() {
    let upstream = closing_when_told();
    let proxy = Proxy::in_front_of(&upstream);
    for _ in 0..20 {
        assert_eq!(proxy.ask(GET).status, 200);
        // The close races with the next request: whoever wins, a GET is answered.
        upstream.tell_all();
    }
    let answered = (0..20)
        .filter(|_| {
            let status = proxy.ask(POST).status;
            upstream.tell_all();
            assert!(matches!(status, 200 | 502));
            status == 200
        })
        .count();
    let posts = upstream.requests().iter().filter(|r| r.method == "POST").count();
    assert!(answered > 0 && posts == answered, "{posts} POSTs came for {answered} answers");
}

#[test]
fn a_post_that_may_have_been_received_is_never_sent_twice() {
    // The second request on a kept connection is read and then the connection is reset.
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            if peer.request().is_some() {
                peer.reset();
            }
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    assert_eq!(proxy.ask(POST).status, 200);
    let answer = proxy.ask(POST);
    assert_eq!((answer.status, answer.header("proxy-status")), (502, Some("serin; error=connection_terminated")));
    assert_eq!(upstream.requests().len(), 2);
    // A GET without a body may be sent again.
    assert_eq!(proxy.ask(GET).status, 200);
    assert_eq!(proxy.ask(GET).status, 200);
    assert_eq!(upstream.requests().len(), 5);
}

#[test]
fn an_endpoint_that_fails_is_left_alone_and_the_other_serves() {
    let good = Upstream::ok();
    let dead = nobody();
    let version = format!(
        "[rollouts.chat.stable]\nversion = \"v1\"\nendpoints = [\"http://{dead}\", \"http://{}\"]\nejection = {{ failures = 3, for = \"60s\" }}\n",
        good.addr
    );
    let proxy = Proxy::start(&chat("", &version));
    for _ in 0..40 {
        assert_eq!(proxy.ask(POST).status, 200, "connecting to the other endpoint is tried");
    }
    assert_eq!(good.requests().len(), 40);
    // One that answers 500 is ejected after its failures: no more than those are seen.
    let bad = Upstream::saying("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n");
    let version = version.replace(&dead.to_string(), &bad.addr.to_string());
    let proxy = Proxy::start(&chat("", &version));
    let errors = (0..100).filter(|_| proxy.ask(POST).status == 500).count();
    assert_eq!(errors, 3);
}

#[test]
fn over_its_concurrency_a_version_sheds_with_503() {
    let upstream = Upstream::start(|peer| {
        while peer.request().is_some() {
            peer.note("waiting");
            peer.until_told();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "concurrency = 1")));
    let mut first = proxy.connect();
    first.send(POST);
    upstream.until_note("waiting");
    let shed = proxy.ask(POST);
    assert_eq!((shed.status, shed.header("retry-after")), (503, Some("1")));
    assert_eq!(shed.header("proxy-status"), Some("serin; error=connection_limit_reached"));
    upstream.tell_all();
    assert_eq!(first.response().unwrap().status, 200);
    proxy.until_outcome("refused", 1.0);
    proxy.until_metric("serin_limit_hits_total", &["limit=\"concurrency\""], 1.0);
    let mut again = proxy.connect();
    again.send(POST);
    upstream.until_requests(2);
    upstream.tell_all();
    assert_eq!(again.response().unwrap().status, 200);
}

// --- callers who leave -----------------------------------------------------------------------------------------------

#[test]
fn a_caller_who_leaves_ends_the_upstream_request_at_once() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Phase {
        WaitingForTheHead,
        InTheStream,
        Uploading,
    }
    use Phase::{InTheStream, Uploading, WaitingForTheHead};
    for phase in [WaitingForTheHead, InTheStream, Uploading] {
        for reset in [false, true] {
            let upstream = Upstream::start(move |peer| {
                if peer.head().is_some() {
                    if phase == InTheStream {
                        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
                    }
                    peer.note("under way");
                    peer.until_closed();
                }
            });
            let proxy = Proxy::in_front_of(&upstream);
            let mut client = proxy.connect();
            client.send(match phase {
                Uploading => "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc",
                _ => POST,
            });
            upstream.until_note("under way");
            if phase == InTheStream {
                client.wait_for(b"ok");
            }
            let left = now();
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            let closed = upstream.until_closed();
            assert!(closed.since(left) < Duration::from_millis(50), "{phase:?} {reset}: {:?}", closed.since(left));
            let total = || proxy.metric("serin_requests_total", &[]);
            eventually("the request is counted", || total() == 1.0);
            assert_eq!(proxy.outcome("cancelled"), 1.0, "{phase:?} {reset}: {}", proxy.metrics());
            proxy.until_metric("serin_requests_in_flight", &[], 0.0);
            proxy.until_metric("serin_connections", &[], 0.0);
        }
    }
}

#[test]
fn what_stable_says_in_the_canarys_place_is_stables_own() {
    let body = "{\"object\":\"chat.completion\",\"choices\":[{\"message\":{\"content\":\"hm\"},\"finish_reason\":\"stop\"}],\
                \"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}";
    let good = Upstream::saying(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let keys = "weight = 50.0\nfallback = \"connect\"\nprotocol = \"openai\"";
    let prices = "prices = { input = 1.0, output = 2.0 }";
    let tables = [stable(good.addr, prices), canary(nobody(), prices)];
    let proxy = Proxy::start(&chat(keys, &tables.concat()));
    let mut instead = 0;
    for user in 0..12 {
        let answer = proxy.ask(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u{user}\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
        assert_eq!(answer.status, 200);
        instead += u32::from(answer.header("serin-why") == Some("fallback"));
    }
    assert!((2..8).contains(&instead), "{instead} of 12 users are the canary's");
    proxy.until_metric("serin_tokens_total", &["version=\"v1\"", "type=\"output\""], 60.0);
    for metric in ["serin_tokens_total", "serin_cost_usd_total"] {
        assert!(proxy.metric(metric, &["version=\"v2\""]).abs() < 1e-12, "{metric}");
    }
    assert!((proxy.metric("serin_cost_usd_total", &["version=\"v1\""]) - 12.0 * 17e-6).abs() < 1e-9);
}
