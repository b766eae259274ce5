//! Heads on their way: routing, tags, names of a request, forwarding fields, answers without a body.

use super::support::{Client, Proxy, Upstream, canary, chat, find, now, stable};

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n")
}

#[test]
fn the_most_specific_route_takes_a_request_and_none_is_404() {
    let upstream = Upstream::ok();
    let rollout = |name: &str, host: &str, path: &str| {
        format!(
            "[rollouts.{name}]\nmatch = {{ host = \"{host}\", path_prefix = \"{path}\" }}\nunit = [\"ip\"]\n\
             [rollouts.{name}.stable]\nversion = \"of-{name}\"\nendpoints = [\"http://{}\"]\n",
            upstream.addr
        )
    };
    let proxy = Proxy::start(
        &[
            rollout("exact", "a.test", "/"),
            rollout("deep", "a.test", "/v1/chat"),
            rollout("wild", "*.b.test", "/"),
            rollout("any", "*", "/open"),
            rollout("dotted", "Whole.Test.", "/"),
        ]
        .concat(),
    );
    for (host, path, expect) in [
        ("a.test", "/", Some("exact")),
        ("A.TEST:8080", "/x", Some("exact")),
        ("a.test.", "/x", Some("exact")),
        ("A.Test.:443", "/v1/chat", Some("deep")),
        ("a.test..", "/x", None),
        ("x.b.test.:80", "/", Some("wild")),
        ("X.B.TEST", "/", Some("wild")),
        ("whole.test", "/", Some("dotted")),
        ("whole.test.", "/", Some("dotted")),
        ("a.test", "/v1/chat/completions?x=1", Some("deep")),
        ("a.test", "/v1/chatter", Some("exact")),
        ("x.b.test", "/", Some("wild")),
        ("b.test", "/", None),
        ("c.test", "/open/x", Some("any")),
        ("c.test", "/opened", None),
        ("c.test", "/", None),
    ] {
        let answer = proxy.ask(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(answer.header("serin-rollout"), expect, "{host}{path}");
        if let Some(name) = expect {
            assert_eq!(answer.header("serin-version"), Some(format!("of-{name}").as_str()));
        } else {
            assert_eq!(answer.status, 404);
            assert_eq!(answer.header("proxy-status"), Some("serin; error=destination_not_found"));
            assert!(answer.header("x-request-id").is_some());
        }
    }
    proxy.until_metric("serin_requests_total", &["rollout=\"\"", "code=\"4xx\""], 4.0);
}

#[test]
fn an_answer_says_who_gave_it_and_a_unit_keeps_its_version() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let proxy = Proxy::start(&chat("weight = 50.0\nsalt = \"s\"", &[stable(a.addr, ""), canary(b.addr, "")].concat()));
    let mut of_canary = 0;
    let mut client = proxy.connect();
    for user in 0..200 {
        let mut ask = || {
            client.send(get("/", &format!("x-user-id: u{user}\r\n")));
            let answer = client.response().unwrap();
            assert_eq!((answer.header("serin-rollout"), answer.header("serin-why")), (Some("chat"), Some("bucket")));
            answer
        };
        let (first, again) = (ask(), ask());
        assert_eq!(first.header("serin-arm"), again.header("serin-arm"));
        let version = if first.header("serin-arm") == Some("canary") { "v2" } else { "v1" };
        assert_eq!(first.header("serin-version"), Some(version));
        of_canary += usize::from(version == "v2");
    }
    assert!((70..130).contains(&of_canary), "{of_canary} of 200 at 50 %");
    assert_eq!(b.requests().len(), of_canary * 2);
    assert!(
        b.requests().iter().all(|r| r.header("serin-arm") == Some("canary") && r.header("serin-version") == Some("v2"))
    );
    let nobody = proxy.ask(get("/", ""));
    assert_eq!((nobody.header("serin-arm"), nobody.header("serin-why")), (Some("stable"), Some("unidentified")));
}

#[test]
fn tags_of_an_upstream_are_replaced_and_untagged_rollouts_show_none() {
    let upstream = Upstream::saying(
        "HTTP/1.1 200 OK\r\nserin-arm: evil\r\nserin-version: evil\r\nserin-rollout: evil\r\nserin-why: evil\r\nserin-ref: evil\r\nx-request-id: evil\r\ncontent-length: 0\r\n\r\n",
    );
    let proxy = Proxy::in_front_of(&upstream);
    let answer = proxy.ask(get("/", "x-request-id: mine\r\n"));
    assert_eq!(answer.header("serin-arm"), Some("stable"));
    assert_eq!(answer.header("serin-version"), Some("v1"));
    assert_eq!(answer.header("serin-ref"), None);
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    let quiet = Proxy::start(&chat("tag_responses = false", &stable(upstream.addr, "")));
    let answer = quiet.ask(get("/", "x-request-id: mine\r\n"));
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("serin-")), "{answer:?}");
    assert_eq!(answer.header("x-request-id"), Some("mine"));
}

#[test]
fn a_request_is_named_and_traced() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let kept = proxy.ask(get("/", &format!("x-request-id: r-1\r\ntraceparent: {trace}\r\ntracestate: a=b\r\n")));
    assert_eq!(kept.header("x-request-id"), Some("r-1"));
    let seen = upstream.last();
    assert_eq!((seen.header("x-request-id"), seen.header("traceparent")), (Some("r-1"), Some(trace)));
    assert_eq!(seen.header("tracestate"), Some("a=b"));
    for bad in ["", "x-request-id: a b\r\n", "traceparent: junk\r\n", "x-request-id:\r\n"] {
        let answer = proxy.ask(get("/", bad));
        let seen = upstream.last();
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(seen.header("x-request-id"), Some(id));
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(seen.header("traceparent").unwrap().split('-').nth(1), Some(id));
    }
    let twice = proxy.ask(get("/", "x-request-id: a\r\nx-request-id: b\r\n"));
    assert_eq!(upstream.last().header("x-request-id"), twice.header("x-request-id"));
}

#[test]
fn forwarding_fields_are_serins_own_unless_the_peer_is_trusted() {
    let upstream = Upstream::ok();
    let said = "forwarded: for=198.51.100.7\r\nx-real-ip: 198.51.100.7\r\nx-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil.test\r\nvia: 1.0 before\r\n";
    let proxy = Proxy::in_front_of(&upstream);
    let answer = proxy.ask(get("/", said));
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test"));
    assert_eq!((seen.header("forwarded"), seen.header("x-real-ip")), (None, None));
    assert_eq!(seen.all("via").join(", "), "1.0 before, 1.1 serin");
    assert_eq!(seen.header("host"), Some(upstream.addr.to_string().as_str()));
    assert_eq!(answer.header("via"), Some("1.1 serin"));
    let trusting = "[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let proxy = Proxy::start(&format!("{trusting}{}", chat("", &stable(upstream.addr, "host = \"pass\""))));
    proxy.ask(get("/", said));
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("198.51.100.7, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("evil.test"));
    assert_eq!((seen.header("forwarded"), seen.header("x-real-ip")), (Some("for=198.51.100.7"), Some("198.51.100.7")));
    assert_eq!(seen.header("host"), Some("a.test"));
}

#[test]
fn server_timing_is_appended_in_milliseconds() {
    let upstream = Upstream::saying("HTTP/1.1 200 OK\r\nserver-timing: db;dur=3\r\ncontent-length: 0\r\n\r\n");
    let proxy = Proxy::in_front_of(&upstream);
    let answer = proxy.ask(get("/", ""));
    let all = answer.all("server-timing").join(", ");
    let parts: Vec<&str> = all.split(", ").collect();
    let [first, upstream, serin] = parts.as_slice() else { panic!("{all}") };
    assert_eq!(*first, "db;dur=3");
    assert!(upstream.strip_prefix("upstream;dur=").unwrap().parse::<f64>().unwrap() > 0.0);
    assert!(serin.strip_prefix("serin;dur=").unwrap().parse::<f64>().unwrap() < 100.0);
}

#[test]
fn a_version_rewrites_path_and_fields() {
    let upstream = Upstream::ok();
    let keys = "strip_prefix = \"/v1x\"\nadd_prefix = \"/api\"\nheaders = { set = { x-key = \"k\" }, remove = [\"x-gone\"] }\nhost = \"model.test\"";
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, keys)));
    for (path, expect) in
        [("/v1x/a?b=c", "/api/a?b=c"), ("/v1x", "/api/"), ("/v1xy", "/api/v1xy"), ("/v1x?q", "/api/?q")]
    {
        proxy.ask(get(path, "x-gone: 1\r\nx-key: mine\r\n"));
        let seen = upstream.last();
        assert_eq!(seen.target, expect);
        assert_eq!((seen.header("x-key"), seen.header("x-gone")), (Some("k"), None));
        assert_eq!(seen.header("host"), Some("model.test"));
    }
}

#[test]
fn options_of_the_server_finds_its_rollout_and_keeps_its_star() {
    let upstream = Upstream::ok();
    let rollout = |name: &str, path: &str| {
        format!(
            "[rollouts.{name}]\nmatch = {{ host = \"a.test\", path_prefix = \"{path}\" }}\nunit = [\"ip\"]\n\
             [rollouts.{name}.stable]\nversion = \"1\"\nendpoints = [\"http://{}\"]\nadd_prefix = \"/api\"\n",
            upstream.addr
        )
    };
    let proxy = Proxy::start(&[rollout("root", "/"), rollout("deep", "/v1")].concat());
    for target in ["*", "http://a.test"] {
        let answer = proxy.ask(format!("OPTIONS {target} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        assert_eq!((answer.status, answer.header("serin-rollout")), (200, Some("root")), "{target}");
        assert_eq!(upstream.last().target, "*");
    }
}

#[test]
fn options_is_forwarded_as_often_as_it_may_be() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let ask = |method: &str, hops: &str| {
        proxy.ask(format!("{method} /x HTTP/1.1\r\nhost: a\r\nmax-forwards: {hops}\r\n\r\n"))
    };
    for (method, hops, expect) in [
        ("OPTIONS", "7", "6"),
        ("OPTIONS", "1", "0"),
        ("OPTIONS", "-1", "-1"),
        ("OPTIONS", "x", "x"),
        ("GET", "0", "0"),
    ] {
        assert_eq!(ask(method, hops).status, 200);
        assert_eq!(upstream.last().header("max-forwards"), Some(expect), "{method} {hops}");
    }
    let before = upstream.requests().len();
    let answer = ask("OPTIONS", "0");
    assert_eq!((answer.status, answer.text().as_str(), answer.header("serin-arm")), (200, "", None));
    assert!(answer.header("allow").unwrap().contains("POST"));
    assert_eq!(upstream.requests().len(), before, "it went no further");
    proxy.until_metric("serin_requests_total", &["rollout=\"\"", "outcome=\"success\""], 1.0);
}

#[test]
fn a_demand_for_another_protocol_names_it() {
    let upstream = Upstream::saying(
        "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nno",
    );
    let proxy = Proxy::in_front_of(&upstream);
    for fields in ["", "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 99\r\n"] {
        let answer = proxy.ask(get("/", fields));
        assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
        assert_eq!((answer.header("upgrade"), answer.header("connection")), (Some("websocket"), Some("upgrade")));
    }
    // Any other answer's Upgrade is of its own connection.
    let upstream =
        Upstream::saying("HTTP/1.1 200 OK\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nok");
    let answer = Proxy::in_front_of(&upstream).ask(get("/", ""));
    assert_eq!((answer.header("upgrade"), answer.header("connection")), (None, None));
}

#[test]
fn head_keeps_its_length_and_has_no_body() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.request() {
            let body = if request.method == "HEAD" { "" } else { "hello" };
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\n{body}"));
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
        let head = client.head_response().unwrap();
        assert_eq!((head.status, head.header("content-length"), head.header("x")), (200, Some("5"), Some("y")));
        client.send(get("/", ""));
        assert_eq!(client.response().unwrap().text(), "hello");
    }
    assert_eq!(upstream.connections(), 1);
    // Chunked, without a length.
    let chunked = Upstream::saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let proxy = Proxy::in_front_of(&chunked);
    let mut client = proxy.connect();
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.head_response().unwrap().status, 200);
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(client.head_response().unwrap().status, 200);
    assert!(client.ends(super::support::PATIENCE));
    proxy.until_outcome("success", 2.0);
}

#[test]
fn a_length_that_is_said_twice_is_said_once_to_the_caller() {
    for fields in
        ["content-length: 2\r\ncontent-length: 2", "content-length: 2, 2", "content-length: 2,2\r\ncontent-length: 2"]
    {
        let upstream = Upstream::start(move |peer| {
            while let Some(request) = peer.request() {
                let (status, body) = match request.target.as_str() {
                    "/none" => ("304 Not Modified", ""),
                    _ if request.method == "HEAD" => ("200 OK", ""),
                    _ => ("200 OK", "ok"),
                };
                peer.send(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}"));
            }
        });
        let proxy = Proxy::in_front_of(&upstream);
        let mut client = proxy.connect();
        client.send(get("/", ""));
        let answer = client.response().unwrap();
        assert_eq!((answer.text().as_str(), answer.all("content-length")), ("ok", vec!["2"]), "{fields:?}");
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.head_response().unwrap().all("content-length"), ["2"], "{fields:?}");
        client.send(get("/none", ""));
        assert_eq!(client.response().unwrap().all("content-length"), ["2"], "{fields:?}");
        assert_eq!(upstream.connections(), 1);
    }
}

#[test]
fn expect_100_continue_is_answered_when_the_body_is_wanted() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    client.until(b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.response().unwrap().status, 200);
    assert_eq!((upstream.last().text(), upstream.last().header("expect")), ("abc".to_owned(), None));
    // What is refused is refused before the body.
    let proxy = Proxy::start(&format!("[limits]\nbody_bytes = \"10B\"\n{}", chat("", &stable(upstream.addr, ""))));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 30\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 413);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_body_of_known_length_goes_up_with_that_length_and_another_in_chunks() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let large = "x".repeat(300_000);
    for method in ["POST", "PUT", "GET", "DELETE"] {
        proxy.ask(format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n{large}"));
        let seen = upstream.last();
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("300000"), None));
        assert!(seen.body == large.as_bytes());
        proxy.ask(format!(
            "{method} / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n493e0\r\n{large}\r\n0\r\n\r\n"
        ));
        let seen = upstream.last();
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (None, Some("chunked")));
        assert!(seen.body == large.as_bytes());
    }
    proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(upstream.last().header("content-length"), Some("0"));
    proxy.ask(get("/", ""));
    assert_eq!((upstream.last().header("content-length"), upstream.last().header("transfer-encoding")), (None, None));
}

#[test]
fn answers_keep_their_framing_and_old_callers_get_theirs_until_the_end() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.request() {
            peer.send(match request.target.as_str() {
                "/length" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                "/chunks" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                _ => return peer.send("HTTP/1.1 200 OK\r\n\r\nhello"),
            });
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    for (path, length, coding) in
        [("/length", Some("5"), None), ("/chunks", None, Some("chunked")), ("/end", None, Some("chunked"))]
    {
        let answer = proxy.ask(get(path, ""));
        assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (length, coding), "{path}");
        assert_eq!(answer.text(), "hello");
        let mut old = proxy.connect();
        old.send(format!("GET {path} HTTP/1.0\r\nhost: a\r\n\r\n"));
        let answer = old.response().unwrap();
        assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("hello", None), "{path}");
        assert!(old.ends(super::support::PATIENCE));
    }
}

#[test]
fn trailers_pass_from_http1_to_http1_where_both_sides_want_them() {
    let upstream = Upstream::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    );
    let proxy = Proxy::in_front_of(&upstream);
    let answer = proxy.ask(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-up\r\ntransfer-encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nx-up: 1\r\n\r\n",
    );
    let trailer = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!((answer.text().as_str(), answer.trailers), ("ok", trailer("x-sum", "7")));
    let seen = upstream.last();
    assert_eq!((seen.text().as_str(), &seen.trailers), ("up", &trailer("x-up", "1")));
    assert_eq!((seen.header("te"), seen.header("connection")), (Some("trailers"), Some("te")));
    proxy.until_outcome("success", 1.0);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    for i in 0..50 {
        client.send(get(&format!("/{i}"), ""));
        assert_eq!(client.response().unwrap().status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(proxy.metric("serin_connections", &[]), 1.0);
    client.send(get("/", "connection: close\r\n"));
    assert_eq!(client.response().unwrap().header("connection"), Some("close"));
    assert!(client.ends(super::support::PATIENCE));
    assert_eq!(upstream.last().header("connection"), None);
}

#[test]
fn the_health_path_is_answered_by_serin_itself() {
    let upstream = Upstream::ok();
    let listener = "[listeners.edge]\nlisten = \"127.0.0.1:0\"\nhealth = \"/healthz\"\n";
    let proxy = Proxy::start(&format!("{listener}{}", chat("", &stable(upstream.addr, ""))));
    let answer = proxy.ask(get("/healthz", ""));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
    assert!(upstream.requests().is_empty());
    let mut admin = Client::connect(proxy.admin);
    admin.send(format!("GET /readyz HTTP/1.1\r\nhost: {}\r\n\r\n", proxy.admin));
    assert_eq!(admin.response().unwrap().status, 200);
}

#[test]
fn a_stream_of_events_is_never_held_back() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for i in 0..20 {
                let event = format!("data: {i}\n\n");
                peer.send(format!("{:x}\r\n{event}\r\n", event.len()));
                // The next one leaves only when the caller has this one.
                peer.until_told();
            }
            peer.send("0\r\n\r\n");
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send(get("/", "accept: text/event-stream\r\n"));
    let start = now();
    for i in 0..20 {
        client.wait_for(format!("data: {i}\n\n").as_bytes());
        upstream.tell_all();
    }
    let answer = client.response().unwrap();
    assert!(find(&answer.body, b"data: 19\n\n").is_some());
    assert!(now().since(start).as_millis() < 2_000, "twenty events, each waiting for the one before");
}
