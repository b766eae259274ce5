//! HTTP/2 and TLS: by prior knowledge and by ALPN, towards callers and towards upstreams, and every way between the two versions.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};

use super::support::{Certificate, Client, H2, PATIENCE, Proxy, Upstream, Upstream2, chat, eventually, now, stable};

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://a.test{path}")).body(()).unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::builder().method("POST").uri(format!("http://a.test{path}")).body(()).unwrap()
}

fn trailers(name: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(name, HeaderValue::from_static("7"));
    map
}

fn over_h2(upstream: &Upstream2) -> Proxy {
    Proxy::start(&chat("", &stable(upstream.addr, "http = \"2\"")))
}

#[test]
fn prior_knowledge_speaks_http2_and_goes_up_as_http1() {
    let upstream = Upstream::saying(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 1\r\n\r\nok",
    );
    let proxy = Proxy::in_front_of(&upstream);
    let mut h2 = H2::plain(proxy.addr);
    for (body, length, coding) in [("", None, None), ("abc", None, Some("chunked"))] {
        let request = if body.is_empty() { get("/x?y") } else { post("/x?y") };
        let (head, answer) = h2.ask(request, body, None).unwrap();
        assert_eq!((head.status.as_u16(), answer.unwrap().0), (200, b"ok".to_vec()));
        assert_eq!(head.headers["serin-arm"], "stable");
        assert!(
            !["connection", "x-hop", "keep-alive", "transfer-encoding"].iter().any(|n| head.headers.contains_key(*n))
        );
        let seen = upstream.last();
        assert_eq!((seen.target.as_str(), seen.text().as_str()), ("/x?y", body));
        assert_eq!(seen.header("x-forwarded-host"), Some("a.test"));
        assert_eq!(seen.header("via"), Some("2 serin"));
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (length, coding));
    }
    let sized = Request::builder().method("POST").uri("http://a.test/").header("content-length", "3").body(()).unwrap();
    h2.ask(sized, "abc", None).unwrap().1.unwrap();
    assert_eq!(upstream.last().header("content-length"), Some("3"));
    proxy.until_outcome("success", 3.0);
}

#[test]
fn cookie_crumbs_of_http2_go_up_as_the_one_field_of_http1() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let crumbs = Request::builder().uri("http://a.test/").header("cookie", "a=1").header("cookie", "b=2; c=3");
    let crumbs = crumbs.header("x-many", "1").header("x-many", "2").body(()).unwrap();
    assert_eq!(H2::plain(proxy.addr).ask(crumbs, "", None).unwrap().0.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.all("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(seen.all("x-many"), ["1", "2"]);
    // Of HTTP/1.1 they stay as they came.
    proxy.ask("GET / HTTP/1.1\r\nhost: a.test\r\ncookie: a=1\r\ncookie: b=2\r\n\r\n");
    assert_eq!(upstream.last().all("cookie"), ["a=1", "b=2"]);
}

#[test]
fn http2_heads_that_mean_two_things_are_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut h2 = H2::plain(proxy.addr);
    let with = |fields: &[(&str, &str)]| {
        fields
            .iter()
            .fold(Request::builder().method("POST").uri("http://a.test/"), |b, (n, v)| b.header(*n, *v))
            .body(())
            .unwrap()
    };
    for (fields, body) in [
        (&[("host", "b.test")][..], ""),
        (&[("host", "a.test"), ("host", "a.test")], ""),
        (&[("content-length", "3"), ("content-length", "4")], "abc"),
        (&[("content-length", "9")], "abc"),
        (&[("content-length", "1")], "abc"),
    ] {
        let refused = match h2.ask(with(fields), body, None) {
            Ok((head, _)) => head.status.is_client_error(),
            Err(_) => true,
        };
        assert!(refused, "{fields:?}");
        h2 = H2::plain(proxy.addr);
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    let (head, _) = h2.ask(with(&[("host", "a.test")]), "", None).unwrap();
    assert_eq!(head.status, 200);
}

#[test]
fn trailers_pass_between_all_versions() {
    let (one, two) = (
        Upstream::saying(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
        ),
        Upstream2::start(None),
    );
    let (to_one, to_two) = (Proxy::in_front_of(&one), over_h2(&two));
    for proxy in [&to_one, &to_two] {
        let mut h2 = H2::plain(proxy.addr);
        let request = Request::builder()
            .method("POST")
            .uri("http://a.test/")
            .header("te", "trailers")
            .header("trailer", "x-up")
            .body(())
            .unwrap();
        let (body, down) = h2.ask(request, "up", Some(trailers("x-up"))).unwrap().1.unwrap();
        assert_eq!((body, down), (b"ok".to_vec(), Some(trailers("x-sum"))));
        let answer = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-up\r\ntransfer-encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nx-up: 7\r\n\r\n");
        assert_eq!(answer.text(), "ok");
        proxy.until_outcome("success", 2.0);
    }
    assert_eq!(
        one.requests().iter().map(|r| r.trailers.clone()).collect::<Vec<_>>(),
        vec![vec![("x-up".to_owned(), "7".to_owned())]; 2]
    );
    assert_eq!((two.last().body, two.last().trailers), (b"up".to_vec(), Some(trailers("x-up"))));
}

#[test]
fn forbidden_trailers_never_reach_an_http2_upstream() {
    let upstream = Upstream2::start(None);
    let proxy = over_h2(&upstream);
    let answer = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nx-up: 7\r\ncontent-length: 9\r\nhost: evil\r\nauthorization: evil\r\ntransfer-encoding: gzip\r\nconnection: close\r\nserin-arm: canary\r\n\r\n");
    if answer.status == 200 {
        assert_eq!(
            upstream.last().trailers.unwrap_or_default().keys().map(http::HeaderName::as_str).collect::<Vec<_>>(),
            ["x-up"]
        );
    }
}

#[test]
fn an_upstream_over_http2_gets_a_clean_head() {
    let upstream = Upstream2::start(None);
    let proxy = over_h2(&upstream);
    let answer = proxy.ask("POST /x?y HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: 1\r\nte: trailers, deflate\r\ntransfer-encoding: chunked\r\n\r\n2\r\nup\r\n0\r\n\r\n");
    assert_eq!((answer.status, answer.header("x-from"), answer.text().as_str()), (200, Some("h2"), "ok"));
    let seen = upstream.last();
    assert_eq!(seen.head.uri.to_string(), format!("http://{}/x?y", upstream.addr));
    assert_eq!(seen.body, b"up");
    assert_eq!(seen.head.headers["te"], "trailers");
    assert!(
        !["connection", "x-hop", "keep-alive", "transfer-encoding", "host"]
            .iter()
            .any(|n| seen.head.headers.contains_key(*n)),
        "{seen:?}"
    );
}

#[test]
fn a_truncated_answer_never_looks_whole_in_either_version() {
    let short = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok");
        }
    });
    let two = Upstream2::start(None);
    for (proxy, path) in [
        (Proxy::in_front_of(&short), "/"),
        (over_h2(&two), "/cut"),
        (over_h2(&two), "/cancel"),
        (over_h2(&two), "/no-error"),
        (over_h2(&two), "/close"),
    ] {
        let answer = H2::plain(proxy.addr).ask(get(path), "", None);
        assert!(!matches!(&answer, Ok((_, Ok(_)))), "{path}: {answer:?}");
        let mut client = proxy.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert!(client.response().is_err(), "{path}");
        proxy.until_outcome("upstream_error", 2.0);
    }
}

#[test]
fn a_cancelled_upload_never_looks_whole_upstream() {
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let upstream = Upstream::start(|peer| {
            if peer.until_seen(b"abc\r\n") {
                peer.note("under way");
                let whole = peer.until_seen(b"0\r\n\r\n");
                peer.note(if whole { "whole" } else { "cut" });
            }
        });
        let proxy = Proxy::in_front_of(&upstream);
        let mut h2 = H2::plain(proxy.addr);
        let (_answer, mut stream) = h2.begin(post("/"), "abc");
        upstream.until_note("under way");
        stream.send_reset(reason);
        upstream.until_note("cut");
        proxy.until_outcome("cancelled", 1.0);
        proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    }
}

#[test]
fn a_reset_stream_resets_upstreams_stream_at_once() {
    let upstream = Upstream2::start(None);
    let proxy = over_h2(&upstream);
    let mut h2 = H2::plain(proxy.addr);
    let (answer, mut stream) = h2.begin(get("/wait"), "");
    eventually("the request", || upstream.requests() == 1);
    let left = now();
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    eventually("the reset", || upstream.resets().len() == 1);
    assert!(upstream.resets()[0].since(left) < Duration::from_millis(50));
    proxy.until_outcome("cancelled", 1.0);
    // The connection serves on.
    assert_eq!(h2.ask(get("/"), "", None).unwrap().0.status, 200);
    // So it is when an HTTP/1.1 caller closes.
    let mut client = proxy.connect();
    client.send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request", || upstream.requests() == 3);
    let left = now();
    drop(client);
    eventually("the reset", || upstream.resets().len() == 2);
    assert!(upstream.resets()[1].since(left) < Duration::from_millis(50));
}

fn tls_listener(certificate: &Certificate, more: &str) -> String {
    format!(
        "[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\"{more} }}\n",
        certificate.pem.display(),
        certificate.key.display()
    )
}

#[test]
fn tls_chooses_the_version_by_alpn_and_by_handshake() {
    let certificate = Certificate::new();
    let upstream = Upstream::ok();
    let proxy = Proxy::start(&format!("{}{}", tls_listener(&certificate, ""), chat("", &stable(upstream.addr, ""))));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut h2 = H2::tls(proxy.addr, certificate.client(&["h2", "http/1.1"], &[version]));
        assert_eq!(h2.ask(get("/"), "", None).unwrap().0.status, 200);
        for alpn in [&["http/1.1"][..], &["http/1.0"], &[]] {
            let mut client = Client::tls(proxy.addr, certificate.client(alpn, &[version]));
            client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            assert_eq!(client.response().unwrap().status, 200);
            assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
            // In order, by TLS's own word for it: without that, an answer that ends with its connection may be cut.
            assert_eq!(client.more().unwrap(), 0);
        }
    }
    // Plain words to a TLS listener reach nobody.
    let before = upstream.requests().len();
    let mut plain = proxy.connect();
    plain.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(plain.ends(PATIENCE));
    assert_eq!(upstream.requests().len(), before);
}

#[test]
fn an_answer_that_ends_with_its_tls_connection_ends_by_close_notify_only_when_it_is_whole() {
    let certificate = Certificate::new();
    for (framing, body, whole) in [
        ("", "all of it", true),
        ("transfer-encoding: chunked\r\n", "3\r\nall\r\n0\r\n\r\n", true),
        ("transfer-encoding: chunked\r\n", "9\r\ncut", false),
    ] {
        let upstream = Upstream::start(move |peer| {
            if peer.head().is_some() {
                peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n{body}"));
            }
        });
        let proxy =
            Proxy::start(&format!("{}{}", tls_listener(&certificate, ""), chat("", &stable(upstream.addr, ""))));
        let mut client = Client::tls(proxy.addr, certificate.client(&[], &[&rustls::version::TLS13]));
        client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
        let end = loop {
            match client.more() {
                Ok(1..) => {}
                end => break end,
            }
        };
        assert_eq!(end.is_ok(), whole, "{body:?}: {end:?}");
    }
}

#[test]
fn upstreams_over_tls_are_verified_and_speak_http2_by_alpn() {
    let certificate = Certificate::new();
    let upstream = Upstream2::start(Some(&certificate));
    let version = |tls: &str| {
        format!(
            "[rollouts.chat.stable]\nversion = \"v1\"\nendpoints = [\"https://localhost:{}\"]\n{tls}\n",
            upstream.addr.port()
        )
    };
    let trusted = version(&format!("tls = {{ ca = \"{}\" }}", certificate.pem.display()));
    let proxy = Proxy::start(&chat("", &trusted));
    let answer = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nup");
    assert_eq!((answer.status, answer.header("x-from")), (200, Some("h2")), "{answer:?}");
    assert_eq!(upstream.last().body, b"up");
    let strange = Proxy::start(&chat("", &version("")));
    let answer = strange.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.header("proxy-status")), (502, Some("serin; error=tls_certificate_error")));
    assert_eq!(upstream.requests(), 1);
}
