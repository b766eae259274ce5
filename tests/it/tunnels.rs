//! Upgrades: a WebSocket that both sides want is a tunnel, nothing else is.

use super::support::{PATIENCE, Proxy, Upstream};

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn agreeing() -> Upstream {
    Upstream::start(|peer| {
        let Some(head) = peer.head() else { return };
        if head.contains("upgrade: websocket") {
            peer.send(AGREE);
            peer.send("first");
            while peer.until_seen(b"ping") {
                peer.send("pong");
            }
        } else {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nplain");
        }
    })
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_one_side_ends() {
    let upstream = agreeing();
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    // Bytes that follow the request at once belong to the tunnel.
    client.send([ASK.as_bytes(), b"ping"].concat());
    let head = client.response().unwrap();
    assert_eq!(
        (head.status, head.header("upgrade"), head.header("connection")),
        (101, Some("websocket"), Some("upgrade"))
    );
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(head.header("serin-arm"), Some("stable"));
    client.until(b"firstpong");
    for _ in 0..100 {
        client.send("ping");
        client.until(b"pong");
    }
    assert_eq!(proxy.metric("serin_requests_in_flight", &[]), 1.0);
    drop(client);
    upstream.until_closed();
    proxy.until_outcome("success", 1.0);
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    proxy.until_metric("serin_connections", &[], 0.0);
}

#[test]
fn an_upgrade_that_upstream_declines_is_an_ordinary_answer() {
    let upstream = Upstream::saying("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno");
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send(ASK);
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 426);
}

#[test]
fn other_upgrades_are_not_passed_on() {
    let upstream = agreeing();
    let proxy = Proxy::in_front_of(&upstream);
    for request in [
        ASK.replace("websocket\r\nsec", "h2c\r\nsec"),
        ASK.replace("websocket\r\nsec", "TLS/1.0\r\nsec"),
        ASK.replace("keep-alive, Upgrade", "keep-alive"),
        ASK.replace("GET", "POST"),
        ASK.replace("HTTP/1.1", "HTTP/1.0"),
        ASK.replace("sec-websocket-version", "content-length: 4\r\nsec-websocket-version") + "ping",
    ] {
        let answer = proxy.ask(&request);
        assert!(answer.status == 400 || (answer.status == 200 && answer.text() == "plain"), "{request}: {answer:?}");
    }
}

#[test]
fn an_agreement_to_another_protocol_is_no_tunnel() {
    for answer in [AGREE.replace("upgrade: websocket", "upgrade: h2c"), AGREE.replace("upgrade: websocket\r\n", "")] {
        let upstream = Upstream::saying(answer);
        let proxy = Proxy::in_front_of(&upstream);
        let mut client = proxy.connect();
        client.send(ASK);
        assert_eq!(client.response().unwrap().status, 502);
        upstream.until_closed();
        proxy.until_outcome("upstream_error", 1.0);
    }
}

#[test]
fn an_upstream_that_ends_ends_the_caller() {
    let upstream = Upstream::start(|peer| {
        if peer.head().is_some() {
            peer.send(AGREE);
            peer.send("bye");
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send(ASK);
    assert_eq!(client.response().unwrap().status, 101);
    client.until(b"bye");
    assert!(client.ends(PATIENCE));
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    assert_eq!(proxy.metric("serin_requests_total", &[]), 1.0);
}
