//! How HTTP/2 connections of callers end: in good order when serin does, and by their bounds.

use super::support::frames::*;
use super::support::{Proxy, Upstream, chat, stable};

fn told() -> Upstream {
    Upstream::start(|peer| {
        while peer.request().is_some() {
            peer.until_told();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    })
}

/// The frames until the connection's end.
fn rest(frames: &mut Frames) -> Vec<Frame> {
    std::iter::from_fn(|| frames.next().unwrap()).collect()
}

fn is_whole(seen: &[Frame], stream: u32) -> bool {
    let data: Vec<u8> =
        seen.iter().filter(|f| f.kind == DATA && f.stream == stream).flat_map(|f| f.payload.clone()).collect();
    data == b"ok" && seen.iter().any(|f| f.stream == stream && f.flags & END_STREAM != 0 && f.kind <= HEADERS)
}

#[test]
fn a_drain_says_goodbye_and_lets_open_streams_end() {
    let upstream = told();
    let proxy = Proxy::in_front_of(&upstream);
    let (mut busy, mut idle) = (Frames::open(proxy.addr, None), Frames::open(proxy.addr, None));
    busy.request(1, WHOLE, "/", &[]);
    busy.request(3, WHOLE, "/", &[]);
    upstream.until_requests(2);
    proxy.serin().drain();
    assert!(rest(&mut idle).iter().any(|f| f.kind == GOAWAY && f.payload[4..8] == [0; 4]));
    let mut seen = Vec::new();
    // The first farewell still lets streams in that were on their way; the second, behind a round trip, names the last.
    while seen.iter().filter(|f: &&Frame| f.kind == GOAWAY).count() < 2 {
        seen.push(busy.next().unwrap().unwrap());
    }
    assert_eq!(seen.iter().rfind(|f| f.kind == GOAWAY).unwrap().payload[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    upstream.tell_all();
    upstream.tell_all();
    seen.extend(rest(&mut busy));
    assert!(is_whole(&seen, 1) && is_whole(&seen, 3), "{seen:?}");
    proxy.until_outcome("success", 2.0);
}

#[test]
fn announcing_the_end_says_goodbye_with_the_next_answer() {
    let upstream = Upstream::ok();
    let proxy = Proxy::in_front_of(&upstream);
    let mut frames = Frames::open(proxy.addr, None);
    proxy.serin().announce_end();
    // Told to the workers a moment later: those who come before are served on.
    let mut stream = 1;
    loop {
        frames.request(stream, WHOLE, "/", &[]);
        let mut seen = Vec::new();
        while !is_whole(&seen, stream) {
            seen.push(frames.next().unwrap().unwrap());
        }
        if seen.iter().any(|f| f.kind == GOAWAY) {
            break;
        }
        stream += 2;
    }
    rest(&mut frames);
    let mut another = Frames::open(proxy.addr, None);
    another.request(1, WHOLE, "/", &[]);
    assert_eq!(another.verdict(1), Verdict::Status(200));
}

#[test]
fn the_last_request_of_a_connection_is_answered_and_named() {
    let upstream = Upstream::ok();
    let proxy =
        Proxy::start(&format!("[limits]\nrequests_per_connection = 3\n{}", chat("", &stable(upstream.addr, ""))));
    let mut frames = Frames::open(proxy.addr, None);
    for stream in [1, 3, 5] {
        frames.request(stream, WHOLE, "/", &[]);
    }
    let seen = rest(&mut frames);
    assert!([1, 3, 5].iter().all(|stream| is_whole(&seen, *stream)), "{seen:?}");
    assert!(seen.iter().any(|f| f.kind == GOAWAY && f.payload[4..8] == [0; 4]));
}

#[test]
fn an_idle_connection_is_told_goodbye_and_a_busy_one_is_not_idle() {
    let upstream = told();
    let proxy = Proxy::start(&format!("[limits]\nidle = \"300ms\"\n{}", chat("", &stable(upstream.addr, ""))));
    let (mut busy, mut idle) = (Frames::open(proxy.addr, None), Frames::open(proxy.addr, None));
    busy.request(1, WHOLE, "/", &[]);
    upstream.until_requests(1);
    let seen = rest(&mut idle);
    assert!(seen.iter().any(|f| f.kind == GOAWAY && f.payload[4..8] == [0; 4]), "{seen:?}");
    upstream.tell_all();
    assert_eq!(busy.verdict(1), Verdict::Status(200));
    assert!(rest(&mut busy).iter().any(|f| f.kind == GOAWAY));
}
