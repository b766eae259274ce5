//! HTTP/2 floods, and connections that hold what they took: each is bounded, answered, counted, and the next caller is
//! served.

use std::time::Duration;

use super::support::frames::*;
use super::support::{Proxy, Upstream, chat, eventually, now, stable};

fn bounded(limits: &str, upstream: &Upstream) -> Proxy {
    // Hundreds of connections are opened at once: on a busy machine the kernel drops some first attempts, and repeats them after a second.
    let patient = "timeouts = { connect = \"30s\" }";
    Proxy::start(&format!("[limits]\n{limits}\n{}", chat("", &stable(upstream.addr, patient))))
}

fn is_alive(proxy: &Proxy) {
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, WHOLE, "/alive", &[]);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
}

fn ends_empty(proxy: &Proxy) {
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    proxy.until_metric("serin_connections", &[], 0.0);
}

/// Answers requests for `/alive`, and nothing else.
fn slow() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.request() {
            if request.target == "/alive" {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            } else {
                // Counted once: a look for another request would find the end again.
                return peer.until_closed();
            }
        }
    })
}

#[test]
fn a_head_without_an_end_is_ended_soon() {
    let upstream = Upstream::ok();
    let proxy = bounded("", &upstream);
    for piece in [&b""[..], b"x", &[0; 1_000]] {
        let mut frames = Frames::open(proxy.addr, None);
        frames.frame(HEADERS, 0, 1, &head(WHOLE, "/never", &[]));
        frames.send(frame(CONTINUATION, 0, 1, piece).repeat(2_000));
        let verdict = frames.verdict(1);
        assert!(
            matches!(verdict, Verdict::Goaway(ENHANCE_YOUR_CALM | COMPRESSION_ERROR | PROTOCOL_ERROR)),
            "{verdict:?}"
        );
        assert!(frames.ends());
        is_alive(&proxy);
    }
    assert!(upstream.requests().iter().all(|r| r.target == "/alive"));
    ends_empty(&proxy);
}

#[test]
fn a_burst_of_resets_ends_the_connection_and_reaches_no_upstream() {
    let upstream = slow();
    let proxy = bounded("", &upstream);
    let mut frames = Frames::open(proxy.addr, None);
    let mut burst = Vec::new();
    for i in 0..2_000 {
        burst.extend_from_slice(&frame(HEADERS, WHOLE, 2 * i + 1, &head(WHOLE, "/reset", &[])));
        burst.extend_from_slice(&frame(RST_STREAM, 0, 2 * i + 1, &CANCEL.to_be_bytes()));
    }
    frames.send(&burst);
    assert_eq!(frames.verdict(u32::MAX), Verdict::Goaway(ENHANCE_YOUR_CALM));
    assert!(frames.ends());
    is_alive(&proxy);
    ends_empty(&proxy);
    assert!(upstream.connections() < 200, "{}", upstream.connections());
}

#[test]
fn resets_one_by_one_are_cancels_and_leave_nothing_behind() {
    let upstream = slow();
    let proxy = bounded("", &upstream);
    let mut frames = Frames::open(proxy.addr, None);
    for i in 0..300 {
        frames.request(2 * i + 1, WHOLE, "/reset", &[]);
        assert!(frames.round_trip());
        frames.frame(RST_STREAM, 0, 2 * i + 1, &CANCEL.to_be_bytes());
    }
    proxy.until_outcome("cancelled", 300.0);
    frames.request(601, WHOLE, "/alive", &[]);
    assert_eq!(frames.verdict(601), Verdict::Status(200));
    frames.close();
    ends_empty(&proxy);
}

#[test]
fn resets_that_the_server_is_brought_to_are_bounded() {
    let upstream = slow();
    let proxy = bounded("", &upstream);
    let mut frames = Frames::open(proxy.addr, None);
    let mut burst = Vec::new();
    for i in 0..4_000 {
        // A window that overflows is the server's to reset (the "MadeYouReset" of 2025).
        burst.extend_from_slice(&frame(HEADERS, WHOLE, 2 * i + 1, &head(WHOLE, "/reset", &[])));
        burst.extend_from_slice(&frame(WINDOW_UPDATE, 0, 2 * i + 1, &0x7fff_ffff_u32.to_be_bytes()));
    }
    frames.send(&burst);
    assert_eq!(frames.verdict(u32::MAX), Verdict::Goaway(ENHANCE_YOUR_CALM));
    assert!(frames.ends());
    is_alive(&proxy);
    ends_empty(&proxy);
}

#[test]
fn floods_of_settings_and_pings_are_answered_or_ended() {
    let upstream = Upstream::ok();
    let proxy = bounded("", &upstream);
    for (name, one) in [
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("empty settings", frame(SETTINGS, 0, 0, &[])),
        ("pings", frame(PING, 0, 0, b"pingping")),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 7, 1])),
        ("unknown frames", frame(0xfa, 0, 0, &[])),
    ] {
        let mut frames = Frames::open(proxy.addr, None);
        for _ in 0..200 {
            frames.send(one.repeat(100));
            assert!(frames.round_trip(), "{name}");
        }
        frames.request(1, WHOLE, "/alive", &[]);
        assert_eq!(frames.verdict(1), Verdict::Status(200), "{name}");
        frames.close();
        is_alive(&proxy);
    }
    ends_empty(&proxy);
}

#[test]
fn who_does_not_take_the_answers_to_his_flood_is_read_no_further() {
    const MOST: usize = 64 << 20;
    let upstream = Upstream::ok();
    let proxy = bounded("body_progress = \"500ms\"", &upstream);
    for (name, one) in [("settings", frame(SETTINGS, 0, 0, &[])), ("pings", frame(PING, 0, 0, b"pingping"))] {
        let mut frames = Frames::open(proxy.addr, None);
        frames.write_patience(Duration::from_millis(300));
        let chunk = one.repeat(1_000);
        let mut sent = 0;
        while sent < MOST && frames.try_send(&chunk) {
            sent += chunk.len();
        }
        assert!(sent < MOST, "{name}: serin has taken {sent} bytes");
        is_alive(&proxy);
        // Nothing moves any more, and that is bounded in time.
        proxy.until_metric("serin_connections", &[], 0.0);
    }
    assert!(proxy.metric("serin_limit_hits_total", &["limit=\"body_progress\""]) >= 2.0);
}

#[test]
fn data_of_nothing_is_bounded_and_padding_is_given_back() {
    let upstream = slow();
    let proxy = bounded("", &upstream);
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/never", &[]);
    for _ in 0..50 {
        frames.send(frame(DATA, 0, 1, &[]).repeat(1_000));
    }
    let verdict = frames.verdict(1);
    assert!(matches!(verdict, Verdict::Goaway(ENHANCE_YOUR_CALM) | Verdict::Reset(_)), "{verdict:?}");
    frames.close();
    is_alive(&proxy);
    // Four times the stream's window of padding: what carries nothing must be given back, or the body never ends.
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, END_HEADERS, "/alive", &[]);
    let padding = frame(DATA, PADDED, 1, &[&[255u8][..], b"x", &[0; 255]].concat());
    for _ in 0..64 {
        frames.send(padding.repeat(64));
        assert!(frames.round_trip());
    }
    frames.frame(DATA, END_STREAM, 1, b"end");
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    assert_eq!(upstream.last().body.len(), 64 * 64 + 3);
    frames.close();
    ends_empty(&proxy);
}

#[test]
fn a_connection_that_says_nothing_is_closed_whatever_it_began_with() {
    let upstream = Upstream::ok();
    let proxy = bounded("idle = \"300ms\"\nheader_read = \"300ms\"", &upstream);
    let settings = frame(SETTINGS, 0, 0, &[]);
    let half_a_head = frame(HEADERS, END_STREAM, 1, &head(WHOLE, "/never", &[]));
    for (name, beginning) in [
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface", PREFACE.to_vec()),
        ("settings", [PREFACE, &settings].concat()),
        ("half a head", [PREFACE, &settings, &half_a_head].concat()),
        ("half a frame", [PREFACE, &settings, &half_a_head[..20]].concat()),
    ] {
        let mut frames = Frames::connect(proxy.addr, None);
        frames.send(&beginning);
        // Not even the farewell's ping is answered.
        assert!(frames.ends(), "{name}");
    }
    is_alive(&proxy);
    ends_empty(&proxy);
    assert!(upstream.requests().iter().all(|r| r.target == "/alive"));
}

#[test]
fn every_stream_of_a_caller_who_leaves_is_closed_upstream_within_50_ms() {
    for hard in [false, true] {
        let upstream = slow();
        let proxy = bounded("", &upstream);
        let mut frames = Frames::open(proxy.addr, None);
        for i in 0..20 {
            frames.request(2 * i + 1, WHOLE, "/held", &[]);
        }
        upstream.until_requests(20);
        // One of them alone.
        let start = now();
        frames.frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
        assert!(upstream.until_closed().since(start) < Duration::from_millis(50));
        proxy.until_outcome("cancelled", 1.0);
        // Then all the others.
        let start = now();
        if hard {
            frames.reset();
        } else {
            frames.close();
        }
        eventually("all are closed", || upstream.closed().len() == 20);
        let last = upstream.closed().into_iter().max().unwrap();
        assert!(last.since(start) < Duration::from_millis(50), "{:?}", last.since(start));
        proxy.until_outcome("cancelled", 20.0);
        ends_empty(&proxy);
    }
}

#[test]
fn a_callers_farewell_lets_his_answers_come() {
    let upstream = Upstream::start(|peer| {
        while peer.request().is_some() {
            peer.until_told();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = bounded("", &upstream);
    let mut frames = Frames::open(proxy.addr, None);
    frames.request(1, WHOLE, "/", &[]);
    upstream.until_requests(1);
    frames.frame(GOAWAY, 0, 0, &[0; 8]);
    upstream.tell_all();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    frames.close();
    proxy.until_outcome("success", 1.0);
    ends_empty(&proxy);
}

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
fn window(size: u32) -> Vec<u8> {
    [&4u16.to_be_bytes()[..], &size.to_be_bytes()].concat()
}

#[test]
fn a_caller_who_opens_no_window_holds_no_answer_for_ever() {
    let upstream = Upstream::ok();
    let proxy = bounded("body_progress = \"300ms\"", &upstream);
    let mut frames = Frames::open_with(proxy.addr, None, &window(0));
    frames.request(1, WHOLE, "/alive", &[]);
    assert_eq!(frames.verdict(1), Verdict::Status(200), "the head needs no window");
    assert!(matches!(frames.verdict(0), Verdict::Reset(_)), "the rest is given up");
    proxy.until_metric("serin_requests_in_flight", &[], 0.0);
    assert!((proxy.metric("serin_limit_hits_total", &["limit=\"body_progress\""]) - 1.0).abs() < 0.1);
    frames.frame(SETTINGS, 0, 0, &window(65_535));
    frames.request(3, WHOLE, "/alive", &[]);
    assert_eq!(frames.verdict(3), Verdict::Status(200), "the connection lives on");
}
