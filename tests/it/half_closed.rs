//! Callers who end their side behind their request and wait for the answer (`nc`, scripts), and callers who left.

use std::time::Duration;

use super::support::{A_MOMENT, Certificate, Client, NoAnswer, PATIENCE, Proxy, Upstream, chat, now, stable};

/// Answers by target when it is told to: `/whole` at once, the others in two parts.
fn slow() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.request() {
            peer.note(&request.target);
            peer.until_told();
            peer.send(match request.target.as_str() {
                "/chunks" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n",
                "/length" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe",
                "/end" => "HTTP/1.1 200 OK\r\n\r\nhe",
                _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello",
            });
            if request.target == "/whole" {
                continue;
            }
            peer.until_told();
            if request.target == "/chunks" {
                peer.send("3\r\nllo\r\n0\r\n\r\n");
            } else {
                peer.send("llo");
            }
            if request.target == "/end" {
                return;
            }
        }
    })
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")
}

#[test]
fn who_ends_his_side_behind_his_request_is_answered() {
    let upstream = slow();
    let proxy = Proxy::in_front_of(&upstream);
    for (target, status) in [("/whole", 404), ("/chunks", 200), ("/length", 200), ("/end", 200)] {
        for version in ["1.1", "1.0"] {
            // When he ends his side: with the request, or behind the answer's head.
            for late in [false, true] {
                if late && target == "/whole" {
                    continue;
                }
                let case = format!("{target} {version} {late}");
                let mut client = proxy.connect();
                client.send(format!("GET {target} HTTP/{version}\r\nhost: a\r\n\r\n"));
                if !late {
                    client.half_close();
                    client.wait_for(b"HTTP/1.1 ");
                }
                upstream.tell_all();
                if target != "/whole" {
                    client.wait_for(b"he");
                    if late {
                        client.half_close();
                        // The end of his side is seen before the rest comes.
                        client.patience(A_MOMENT);
                        drop(client.more());
                        client.patience(PATIENCE);
                    }
                    upstream.tell_all();
                }
                let answer = client.response().unwrap_or_else(|e| panic!("{case}: {e:?}"));
                assert_eq!((answer.status, answer.text().as_str()), (status, "hello"), "{case}");
                assert!(matches!(client.more(), Ok(0)), "{case}: the connection ends in order");
            }
        }
    }
    proxy.until_outcome("success", 12.0);
    proxy.until_outcome("client_error", 2.0);
    assert_eq!(proxy.outcome("cancelled"), 0.0);
    proxy.until_metric("serin_connections", &[], 0.0);
}

#[test]
fn who_ends_his_side_behind_several_requests_or_a_body_is_answered_to_all() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client
        .send([get("/1"), "POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi".to_owned(), get("/3")].concat());
    client.half_close();
    for _ in 0..3 {
        assert_eq!(client.response().unwrap().text(), "ok");
    }
    assert!(matches!(client.more(), Ok(0)));
    // A body that ends before its end is none.
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhi");
    client.half_close();
    assert!(!matches!(client.response(), Ok(r) if r.status < 400));
    proxy.until_outcome("cancelled", 1.0);
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn over_tls_a_close_notify_alone_ends_ones_side() {
    let (certificate, upstream) = (Certificate::new(), slow());
    let proxy = Proxy::start(&format!(
        "[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n{}",
        certificate.pem.display(),
        certificate.key.display(),
        chat("", &stable(upstream.addr, ""))
    ));
    let tcp = Client::socket(proxy.addr);
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let config = certificate.client(&["http/1.1"], &[&rustls::version::TLS13]);
    let mut session = rustls::ClientConnection::new(config, name).unwrap();
    std::io::Write::write_all(&mut session.writer(), get("/whole").as_bytes()).unwrap();
    let mut writing = tcp.try_clone().unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut writing).unwrap();
    }
    session.send_close_notify();
    while session.wants_write() {
        session.write_tls(&mut writing).unwrap();
    }
    upstream.until_note("/whole");
    upstream.tell_all();
    let mut client = Client::over(tcp.try_clone().unwrap(), Box::new(rustls::StreamOwned::new(session, tcp)));
    assert_eq!(client.response().unwrap().text(), "hello");
    assert_eq!(client.more().unwrap(), 0, "ended by close_notify");
}

#[test]
fn who_has_left_is_told_from_who_waits_and_cancels_at_once() {
    for target in ["/chunks", "/whole"] {
        let upstream = Upstream::start(|peer| {
            if let Some(request) = peer.request() {
                if request.target == "/chunks" {
                    peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n");
                }
                peer.note("under way");
                peer.until_closed();
            }
        });
        let proxy = Proxy::in_front_of(&upstream);
        let mut client = proxy.connect();
        client.send(get(target));
        upstream.until_note("under way");
        if target == "/chunks" {
            client.wait_for(b"he");
        }
        let left = now();
        drop(client);
        let closed = upstream.until_closed();
        assert!(closed.since(left) < Duration::from_millis(50), "{target}: {:?}", closed.since(left));
        proxy.until_outcome("cancelled", 1.0);
        proxy.until_metric("serin_connections", &[], 0.0);
    }
}

#[test]
fn who_ends_his_side_and_then_leaves_is_a_cancel_too() {
    let upstream = slow();
    let proxy = Proxy::in_front_of(&upstream);
    // By a reset, while the answer is waited for.
    let mut client = proxy.connect();
    client.send(get("/whole"));
    client.half_close();
    client.wait_for(b"HTTP/1.1 ");
    client.reset();
    proxy.until_outcome("cancelled", 1.0);
    // In a stream, by the next write.
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while peer.try_send("2\r\nhe\r\n") {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            peer.note("closed");
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send(get("/chunks"));
    client.half_close();
    client.wait_for(b"he");
    drop(client);
    upstream.until_note("closed");
    proxy.until_outcome("cancelled", 1.0);
}

#[test]
fn who_only_begins_a_request_and_ends_his_side_is_closed() {
    let proxy = Proxy::in_front_of(&Upstream::ok());
    for beginning in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        let mut client = proxy.connect();
        client.send(beginning);
        client.half_close();
        assert!(matches!(client.response(), Err(NoAnswer::Closed)), "{beginning:?}");
    }
    proxy.until_metric("serin_connections", &[], 0.0);
}
