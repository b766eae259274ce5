//! HTTP/2 frames that no good client sends, by prior knowledge and over TLS: the server answers as RFC 9113 says, sends
//! nothing of it up, and serves the next connection.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ClientConfig;

use super::support::frames::*;
use super::support::{Certificate, Proxy, Upstream, chat, stable};

/// What RFC 9113 asks for.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// A connection error with one of these codes (section 5.4.1); a stream may not survive it.
    Connection(&'static [u32]),
    /// A stream error with one of these codes, which a server may raise to the connection (section 5.4.2).
    Stream(&'static [u32]),
    /// A malformed message: a stream error, or an answer of 4xx (section 8.1.1).
    Malformed,
    /// Nothing: the request is answered.
    Served,
}

impl Want {
    fn is(self, verdict: Verdict) -> bool {
        match (self, verdict) {
            (Want::Connection(codes), Verdict::Goaway(code))
            | (Want::Stream(codes), Verdict::Reset(code) | Verdict::Goaway(code)) => codes.contains(&code),
            (Want::Malformed, Verdict::Reset(code) | Verdict::Goaway(code)) => code == PROTOCOL_ERROR,
            (Want::Malformed, Verdict::Status(status)) => (400..500).contains(&status),
            (Want::Served, Verdict::Status(200)) => true,
            _ => false,
        }
    }
}

struct Server {
    proxy: Proxy,
    upstream: Upstream,
    tls: Option<Arc<ClientConfig>>,
}

impl Server {
    fn new(tls: bool, limits: &str) -> Self {
        let upstream = Upstream::ok();
        Self::before(upstream.addr, upstream, tls, limits)
    }

    fn before(addr: SocketAddr, upstream: Upstream, tls: bool, limits: &str) -> Self {
        let certificate = Certificate::new();
        let mut text = limits.to_owned();
        if tls {
            text.push_str(&format!(
                "[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n",
                certificate.pem.display(),
                certificate.key.display()
            ));
        }
        let proxy = Proxy::start(&format!("{text}{}", chat("", &stable(addr, ""))));
        let tls = tls.then(|| certificate.client(&["h2"], &[&rustls::version::TLS13]));
        Self { proxy, upstream, tls }
    }

    fn open(&self) -> Frames {
        Frames::open(self.proxy.addr, self.tls.clone())
    }

    /// The next connection is served, and nothing but such requests has ever gone up.
    fn is_alive(&self, after: &str) {
        let mut frames = self.open();
        frames.request(1, WHOLE, "/alive", &[]);
        assert_eq!(frames.verdict(1), Verdict::Status(200), "after {after}");
    }

    fn ends_empty(&self) {
        self.proxy.until_metric("serin_requests_in_flight", &[], 0.0);
        self.proxy.until_metric("serin_connections", &[], 0.0);
    }
}

fn both(limits: &str, check: impl Fn(&Server)) {
    for tls in [false, true] {
        let server = Server::new(tls, limits);
        check(&server);
        server.ends_empty();
    }
}

/// A name, what is asked for, and what is sent.
type Case<'a> = (&'a str, Want, &'a dyn Fn(&mut Frames));

/// Sends what `speak` says on a fresh connection past the settings, and compares what comes of stream 1.
fn table(server: &Server, cases: &[Case<'_>]) {
    for (name, want, speak) in cases {
        let mut frames = server.open();
        speak(&mut frames);
        let verdict = frames.verdict(0);
        assert!(want.is(verdict), "{name}: {verdict:?} and not {want:?}");
        if matches!(verdict, Verdict::Goaway(_)) {
            assert!(frames.ends(), "{name}: the connection lives on behind its GOAWAY");
        }
        server.is_alive(name);
    }
}

// The codec says PROTOCOL_ERROR, the general word, where RFC 9113 has a narrower one for a broken frame (section 7).
const PROTOCOL: Want = Want::Connection(&[PROTOCOL_ERROR]);
const SIZE: Want = Want::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
const FLOW: Want = Want::Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]);
const COMPRESSION: Want = Want::Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);
const CLOSED: Want = Want::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]);

#[test]
fn a_connection_that_does_not_begin_as_http2_is_ended() {
    both("", |server| {
        for (name, beginning) in [
            ("another preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
            ("a preface of HTTP/3", "PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"),
        ] {
            let mut frames = Frames::connect(server.proxy.addr, server.tls.clone());
            frames.send(beginning);
            frames.frame(SETTINGS, 0, 0, &[]);
            let verdict = frames.verdict(1);
            assert!(matches!(verdict, Verdict::Goaway(PROTOCOL_ERROR) | Verdict::Closed), "{name}: {verdict:?}");
            assert!(frames.ends(), "{name}");
            server.is_alive(name);
        }
        assert!(server.upstream.requests().iter().all(|r| r.target == "/alive"));
    });
}

#[test]
fn frames_out_of_shape_end_the_connection() {
    let get = || head(WHOLE, "/", &[]);
    both("", |server| {
        let setting = |id: u16, value: u32| [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat();
        table(
            server,
            &[
                ("a frame too large", SIZE, &|f| f.frame(DATA, 0, 1, &[0; (16 << 10) + 1])),
                ("a head too large for a frame", SIZE, &|f| f.frame(HEADERS, WHOLE, 1, &[0; (16 << 10) + 1])),
                ("settings of five bytes", SIZE, &|f| f.frame(SETTINGS, 0, 0, &[0; 5])),
                ("an acknowledgement with content", SIZE, &|f| f.frame(SETTINGS, ACK, 0, &[0; 6])),
                ("settings on a stream", PROTOCOL, &|f| f.frame(SETTINGS, 0, 1, &[])),
                ("push neither on nor off", PROTOCOL, &|f| f.frame(SETTINGS, 0, 0, &setting(2, 2))),
                ("a window too large", FLOW, &|f| f.frame(SETTINGS, 0, 0, &setting(4, 1 << 31))),
                ("frames too small", PROTOCOL, &|f| f.frame(SETTINGS, 0, 0, &setting(5, 100))),
                ("frames too large", PROTOCOL, &|f| f.frame(SETTINGS, 0, 0, &setting(5, 1 << 24))),
                ("a ping of four bytes", SIZE, &|f| f.frame(PING, 0, 0, &[0; 4])),
                ("a ping on a stream", PROTOCOL, &|f| f.frame(PING, 0, 1, &[0; 8])),
                ("a reset of three bytes", SIZE, &|f| {
                    f.request(1, END_HEADERS, "/", &[]);
                    f.frame(RST_STREAM, 0, 1, &[0; 3]);
                }),
                ("a reset of nothing", PROTOCOL, &|f| f.frame(RST_STREAM, 0, 1, &[0; 4])),
                ("a reset of the connection", PROTOCOL, &|f| f.frame(RST_STREAM, 0, 0, &[0; 4])),
                ("a farewell on a stream", PROTOCOL, &|f| f.frame(GOAWAY, 0, 1, &[0; 8])),
                ("a window of three bytes", SIZE, &|f| f.frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
                ("data on the connection", PROTOCOL, &|f| f.frame(DATA, 0, 0, b"x")),
                ("data of nothing", PROTOCOL, &|f| f.frame(DATA, 0, 1, b"x")),
                ("a window for nothing", PROTOCOL, &|f| f.frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
                ("a head on the connection", PROTOCOL, &|f| f.frame(HEADERS, WHOLE, 0, &get())),
                ("an even stream", PROTOCOL, &|f| f.frame(HEADERS, WHOLE, 2, &get())),
                ("a promise", PROTOCOL, &|f| f.frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
                ("more padding than frame", PROTOCOL, &|f| {
                    f.request(1, END_HEADERS, "/", &[]);
                    f.frame(DATA, PADDED, 1, &[9, 0, 0]);
                }),
                ("a head of padding", PROTOCOL, &|f| f.frame(HEADERS, WHOLE | PADDED, 1, &[200, 0, 0])),
                ("a continuation of nothing", PROTOCOL, &|f| f.frame(CONTINUATION, END_HEADERS, 1, &[])),
                ("an index out of every table", COMPRESSION, &|f| {
                    f.frame(HEADERS, WHOLE, 1, &[0xff, 0x80, 0x01]);
                }),
                ("an index of zero", COMPRESSION, &|f| {
                    f.frame(HEADERS, WHOLE, 1, &[0x80]);
                }),
                ("a table larger than allowed", COMPRESSION, &|f| {
                    f.frame(HEADERS, WHOLE, 1, &[&[0x3f_u8, 0xe1, 0xff, 0x03][..], get().as_slice()].concat());
                }),
                ("a string that ends before its length", COMPRESSION, &|f| {
                    f.frame(HEADERS, WHOLE, 1, &[0x00, 0x7f, 0xff]);
                }),
            ],
        );
        assert!(server.upstream.requests().iter().all(|r| r.target == "/alive"));
    });
}

#[test]
fn more_data_than_the_window_ends_its_stream() {
    // Nobody accepts, so nobody reads: no window opens again once the kernel's buffers are full.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for tls in [false, true] {
        let server = Server::before(mute.local_addr().unwrap(), Upstream::ok(), tls, "");
        let mut frames = server.open();
        frames.request(1, END_HEADERS, "/never", &[]);
        let data = frame(DATA, 0, 1, &[b'x'; 16 << 10]).repeat(64);
        // Once the stream is ended, what still comes for it is thrown away.
        let taken = (0..64).take_while(|_| frames.try_send(&data)).count();
        // Bytes that nobody reads any more make a reset of the connection's end, and that may outrun the words.
        let verdict = frames.verdict(1);
        let codes = [FLOW_CONTROL_ERROR];
        let named = matches!(verdict, Verdict::Reset(code) | Verdict::Goaway(code) if codes.contains(&code));
        assert!(named || (verdict == Verdict::Closed && taken < 64), "{verdict:?} after {taken} MiB");
        frames.close();
        server.ends_empty();
    }
}

#[test]
fn streams_out_of_order_are_ended() {
    both("", |server| {
        // A body that is not over when its stream goes wrong reaches upstream as one that was cut.
        table(
            server,
            &[
                ("an id below one that was used", Want::Stream(&[PROTOCOL_ERROR, STREAM_CLOSED]), &|f| {
                    f.request(5, WHOLE, "/alive", &[]);
                    f.request(3, WHOLE, "/never", &[]);
                }),
                ("an id that was used", Want::Stream(&[PROTOCOL_ERROR, STREAM_CLOSED]), &|f| {
                    f.request(3, WHOLE, "/alive", &[]);
                    assert_eq!(f.verdict(3), Verdict::Status(200));
                    f.request(3, WHOLE, "/never", &[]);
                }),
                ("data behind the end", CLOSED, &|f| {
                    // In one breath, or the answer is there first.
                    let whole = frame(HEADERS, WHOLE, 1, &head(WHOLE, "/alive", &[]));
                    f.send([whole, frame(DATA, 0, 1, b"x")].concat());
                }),
                ("another head in the middle", Want::Malformed, &|f| {
                    f.request(1, END_HEADERS, "/never", &[]);
                    f.frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]));
                }),
                ("a frame between a head and its rest", PROTOCOL, &|f| {
                    f.frame(HEADERS, END_STREAM, 1, &head(WHOLE, "/never", &[]));
                    f.frame(PING, 0, 0, &[0; 8]);
                }),
                ("another stream's rest of a head", PROTOCOL, &|f| {
                    f.frame(HEADERS, END_STREAM, 1, &head(WHOLE, "/never", &[]));
                    f.frame(CONTINUATION, END_HEADERS, 3, &[]);
                }),
                ("another head between a head and its rest", PROTOCOL, &|f| {
                    f.frame(HEADERS, END_STREAM, 1, &head(WHOLE, "/never", &[]));
                    f.request(3, WHOLE, "/never", &[]);
                }),
                ("a stream that depends on itself", Want::Stream(&[PROTOCOL_ERROR]), &|f| {
                    let own = [0u8, 0, 0, 1, 16];
                    f.frame(
                        HEADERS,
                        WHOLE | WITH_PRIORITY,
                        1,
                        &[&own[..], head(WHOLE, "/never", &[]).as_slice()].concat(),
                    );
                }),
                ("a connection's window of nothing", PROTOCOL, &|f| f.frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
                ("a connection's window that overflows", FLOW, &|f| {
                    f.frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
                }),
                ("a stream's window of nothing", Want::Stream(&[PROTOCOL_ERROR]), &|f| {
                    f.request(1, END_HEADERS, "/never", &[]);
                    f.frame(WINDOW_UPDATE, 0, 1, &[0; 4]);
                }),
                ("a stream's window that overflows", Want::Stream(&[FLOW_CONTROL_ERROR]), &|f| {
                    f.request(1, END_HEADERS, "/never", &[]);
                    f.frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes());
                }),
                // What must be let through.
                ("a frame of a kind that nobody knows", Want::Served, &|f| {
                    f.frame(0xfa, 0xff, 0, b"grease");
                    f.request(1, WHOLE, "/alive", &[]);
                }),
                ("a setting that nobody knows", Want::Served, &|f| {
                    f.frame(SETTINGS, 0, 0, &[0xfa, 0xfa, 0, 0, 0, 1]);
                    f.request(1, WHOLE, "/alive", &[]);
                }),
                ("a priority of a stream that never was", Want::Served, &|f| {
                    f.frame(PRIORITY, 0, 9, &[0, 0, 0, 7, 1]);
                    f.request(1, WHOLE, "/alive", &[]);
                }),
                ("a head in three parts, with padding", Want::Served, &|f| {
                    let all = head(WHOLE, "/alive", &[("x", "y")]);
                    f.frame(HEADERS, END_STREAM | PADDED, 1, &[&[3u8][..], &all[..5], &[0; 3]].concat());
                    f.frame(CONTINUATION, 0, 1, &all[5..20]);
                    f.frame(CONTINUATION, END_HEADERS, 1, &all[20..]);
                }),
            ],
        );
        assert!(server.upstream.requests().iter().all(|r| r.target == "/alive"), "{:?}", server.upstream.requests());
    });
}

#[test]
fn malformed_messages_are_refused_and_never_go_up() {
    let block_of = |fields: &[(&str, &str)]| block(fields);
    let whole = [(":method", "GET"), (":scheme", "http"), (":path", "/never"), (":authority", "a.test")];
    let without = |name: &str| whole.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let with = |more: &[(&'static str, &'static str)]| [&whole[..], more].concat();
    let mut heads: Vec<(String, Vec<u8>)> = Vec::new();
    for missing in [":method", ":scheme", ":path"] {
        heads.push((format!("no {missing}"), block_of(&without(missing))));
    }
    for twice in whole {
        heads.push((format!("{} twice", twice.0), block_of(&with(&[twice]))));
    }
    for fields in [
        &[("X-Upper", "1")][..],
        &[("connection", "close")],
        &[("connection", "x-hop"), ("x-hop", "1")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("te", "trailers, gzip")],
        &[(":status", "200")],
        &[(":unknown", "1")],
        &[("x", "y"), (":path", "/again")],
        &[("x y", "1")],
        &[("x:y", "1")],
        &[("", "1")],
        &[("x", "a\r\nb: c")],
        &[("x", "a\nb")],
        &[("x", "a\0b")],
        &[("x\r\ny", "1")],
        &[("content-length", "3")],
        &[("content-length", "x")],
        &[("content-length", "-1")],
        &[("content-length", "+0")],
        &[("content-length", "0, 0")],
        &[("content-length", "0"), ("content-length", "0")],
        &[("content-length", "99999999999999999999")],
    ] {
        heads.push((format!("{fields:?}"), block_of(&with(fields))));
    }
    for (name, value) in [
        (":path", ""),
        (":path", "never"),
        (":path", "/ne ver"),
        (":path", "/never\r\nx: y"),
        (":path", "*"),
        (":path", "http://b.test/never"),
        (":method", ""),
        (":method", "G ET"),
        (":method", "GET / HTTP/1.1\r\nx: y"),
        (":scheme", ""),
        (":scheme", "ftp"),
        (":authority", "user@a.test"),
        (":authority", "a.test/never"),
        (":authority", "a b"),
        (":authority", ""),
    ] {
        let fields: Vec<_> = whole.into_iter().map(|(n, v)| (n, if n == name { value } else { v })).collect();
        heads.push((format!("{name} = {value:?}"), block_of(&fields)));
    }
    heads.push(("a CONNECT with a path".into(), {
        let fields: Vec<_> = whole.into_iter().map(|(n, v)| (n, if n == ":method" { "CONNECT" } else { v })).collect();
        block_of(&fields)
    }));
    both("", |server| {
        for (name, block) in &heads {
            let mut frames = server.open();
            frames.frame(HEADERS, WHOLE, 1, block);
            let verdict = frames.verdict(1);
            assert!(Want::Malformed.is(verdict), "{name}: {verdict:?}");
        }
        server.is_alive("malformed heads");
        table(
            server,
            &[
                ("less data than said", Want::Malformed, &|f| {
                    f.request(1, END_HEADERS, "/never", &[("content-length", "9")]);
                    f.frame(DATA, END_STREAM, 1, b"abc");
                }),
                ("more data than said", Want::Malformed, &|f| {
                    f.request(1, END_HEADERS, "/never", &[("content-length", "2")]);
                    f.frame(DATA, END_STREAM, 1, b"abc");
                }),
                ("less data than said, and trailers", Want::Malformed, &|f| {
                    f.request(1, END_HEADERS, "/never", &[("content-length", "9")]);
                    f.frame(DATA, 0, 1, b"abc");
                    f.frame(HEADERS, WHOLE, 1, &block(&[("x", "y")]));
                }),
                ("trailers that do not end the stream", Want::Malformed, &|f| {
                    f.request(1, END_HEADERS, "/never", &[]);
                    f.frame(DATA, 0, 1, b"abc");
                    f.frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]));
                }),
                // RFC 9113 section 8.1 calls these malformed; the codec drops the pseudo fields without a word, so that
                // the request is served and nothing of them goes up.
                ("trailers with a path", Want::Served, &|f| {
                    f.request(1, END_HEADERS, "/alive", &[]);
                    f.frame(DATA, 0, 1, b"abc");
                    f.frame(HEADERS, WHOLE, 1, &block(&[(":path", "/never")]));
                }),
                ("trailers with a status", Want::Served, &|f| {
                    f.request(1, END_HEADERS, "/alive", &[]);
                    f.frame(HEADERS, WHOLE, 1, &block(&[(":status", "200")]));
                }),
                ("trailers of a connection's", Want::Malformed, &|f| {
                    f.request(1, END_HEADERS, "/never", &[]);
                    f.frame(HEADERS, WHOLE, 1, &block(&[("transfer-encoding", "chunked")]));
                }),
                ("as much data as said, in parts and padded", Want::Served, &|f| {
                    f.request(1, END_HEADERS, "/alive", &[("content-length", "3"), ("te", "trailers")]);
                    f.frame(DATA, PADDED, 1, &[0, b'a', b'b']);
                    f.frame(DATA, PADDED, 1, &[4, b'c', 0, 0, 0, 0]);
                    f.frame(DATA, END_STREAM, 1, b"");
                }),
            ],
        );
        let up = server.upstream.requests();
        assert!(up.iter().all(|r| r.target == "/alive"), "{up:?}");
        assert!(server.upstream.malformed().is_empty(), "{:?}", server.upstream.malformed());
    });
}

#[test]
fn heads_have_a_size_in_http2_too() {
    both("[limits]\nheader_bytes = \"8KiB\"\nheaders = 20\nuri_bytes = \"100B\"\n", |server| {
        let long = "y".repeat(9_000);
        let many = vec![("x", "y"); 21];
        let path = format!("/{}", "x".repeat(100));
        for (path, fields, status, limit) in [
            ("/never", &[("x", long.as_str())][..], 431, None),
            ("/never", &many, 431, Some("headers")),
            (&path, &[], 414, Some("uri_bytes")),
            ("/alive", &many[..19], 200, None),
        ] {
            let mut frames = server.open();
            frames.request(1, WHOLE, path, fields);
            assert_eq!(frames.verdict(1), Verdict::Status(status), "{path}");
            if let Some(limit) = limit {
                server.proxy.until_metric("serin_limit_hits_total", &[&format!("limit=\"{limit}\"")], 1.0);
            }
        }
        assert!(server.upstream.requests().iter().all(|r| r.target == "/alive"));
    });
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_answered() {
    both("[limits]\nh2_streams = 3\n", |server| {
        let mut frames = server.open();
        for stream in [1, 3, 5] {
            frames.request(stream, END_HEADERS, "/alive", &[]);
        }
        frames.request(7, WHOLE, "/never", &[]);
        assert_eq!(frames.verdict(7), Verdict::Reset(REFUSED_STREAM));
        for stream in [1, 3, 5] {
            frames.frame(DATA, END_STREAM, stream, b"up");
        }
        assert!(frames.round_trip());
        server.proxy.until_outcome("success", 3.0);
        assert!(server.upstream.requests().iter().all(|r| r.target == "/alive" && r.text() == "up"));
    });
}
