//! Upstreams that misbehave: the caller sees a truncation or an error, never a clean end; a connection that said too much serves nobody else.

use std::collections::BTreeMap;

use super::support::{NoAnswer, PATIENCE, Proxy, Upstream, chat, now, show, stable};

/// What upstream does after its bytes.
#[derive(Clone, Copy)]
enum Then {
    Keep,
    Close,
    Reset,
}
use Then::{Close, Keep, Reset};

/// What the caller must see.
enum Sees {
    /// A whole answer.
    Whole(u16, &'static str),
    /// The beginning of an answer and then an end that is no end.
    Truncated,
    /// Serin's own 502.
    Bad,
}
use Sees::{Bad, Truncated, Whole};

struct Case {
    name: &'static str,
    answer: Vec<u8>,
    then: Then,
    sees: Sees,
    /// The connection may serve the next request.
    reused: bool,
    outcome: &'static str,
}

fn case(name: &'static str, answer: &str, then: Then, sees: Sees) -> Case {
    let outcome = match sees {
        Whole(500.., _) | Truncated | Bad => "upstream_error",
        Whole(400.., _) => "client_error",
        Whole(..) => "success",
    };
    Case { name, answer: answer.as_bytes().to_vec(), then, sees, reused: false, outcome }
}

fn kept(name: &'static str, answer: &str, status: u16, body: &'static str) -> Case {
    Case { reused: true, ..case(name, answer, Keep, Whole(status, body)) }
}

fn cases() -> Vec<Case> {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let head = "HTTP/1.1 200 OK\r\n";
    let with = |fields: &str, body: &str| format!("{head}{fields}\r\n\r\n{body}");
    let many = |line: &str, n: usize| format!("{head}{}content-length: 2\r\n\r\nok", line.repeat(n));
    vec![
        kept("good", ok, 200, "ok"),
        kept("good, chunked", &with("transfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"), 200, "ok"),
        kept("chunk extensions", &with("transfer-encoding: chunked", "2;a=b\r\nok\r\n0;c\r\n\r\n"), 200, "ok"),
        kept(
            "all that the grammar of chunks allows",
            &with(
                "transfer-encoding: chunked",
                "0000000000000000000001 ; a = \"x;\\\" y\" ;b\r\no\r\n1\t\r\nk\r\n000  ;c\r\n\r\n",
            ),
            200,
            "ok",
        ),
        kept("padded sizes", &with("transfer-encoding: chunked", "2   \r\nok\r\n0   \r\n\r\n"), 200, "ok"),
        kept("trailers", &with("transfer-encoding: chunked", "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"), 200, "ok"),
        kept("length 0", &with("content-length: 0", ""), 200, ""),
        kept("the same length twice", &with("content-length: 2\r\ncontent-length: 2", "ok"), 200, "ok"),
        kept("the same length in a list", &with("content-length: 2, 2", "ok"), 200, "ok"),
        kept("no reason phrase", "HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        kept("an unknown status", "HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok", 299, "ok"),
        kept("a later minor version", "HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        kept("204", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        kept("304", "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n", 304, ""),
        kept(
            "304 with the length of what is not sent",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
            304,
            "",
        ),
        kept("100, then 200", &format!("HTTP/1.1 100 Continue\r\n\r\n{ok}"), 200, "ok"),
        kept("103, then 200", &format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{ok}"), 200, "ok"),
        kept("a dozen 1xx, then 200", &format!("{}{ok}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(12)), 200, "ok"),
        case("bytes behind the end", &format!("{ok}EXTRA"), Keep, Whole(200, "ok")),
        case(
            "an answer behind the end",
            &format!("{ok}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
            Keep,
            Whole(200, "ok"),
        ),
        case(
            "bytes behind the last chunk",
            &with("transfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\nEXTRA"),
            Keep,
            Whole(200, "ok"),
        ),
        case("a body behind a 204", "HTTP/1.1 204 No Content\r\n\r\nbody", Keep, Whole(204, "")),
        case(
            "a 204 with a length and a body",
            "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nbody",
            Keep,
            Whole(204, ""),
        ),
        case(
            "a 204 in chunks",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            Keep,
            Whole(204, ""),
        ),
        case("a body behind a 304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nbody", Keep, Whole(304, "")),
        case("connection: close", &with("content-length: 2\r\nconnection: close", "ok"), Keep, Whole(200, "ok")),
        case("HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Keep, Whole(200, "ok")),
        case("until the end of the connection", &format!("{head}\r\nok"), Close, Whole(200, "ok")),
        case("until the end of the connection, reset", &format!("{head}\r\nok"), Reset, Truncated),
        case("too short for its length, closed", &with("content-length: 9", "ok"), Close, Truncated),
        case("too short for its length, reset", &with("content-length: 9", "ok"), Reset, Truncated),
        case("no body at all, closed", &with("content-length: 9", ""), Close, Truncated),
        case("chunks without an end, closed", &with("transfer-encoding: chunked", "2\r\nok\r\n"), Close, Truncated),
        case("chunks without an end, reset", &with("transfer-encoding: chunked", "2\r\nok\r\n"), Reset, Truncated),
        case("closed in a chunk", &with("transfer-encoding: chunked", "9\r\nok"), Close, Truncated),
        case("closed behind the last size", &with("transfer-encoding: chunked", "2\r\nok\r\n0\r\n"), Close, Truncated),
        case("closed in a trailer", &with("transfer-encoding: chunked", "2\r\nok\r\n0\r\nx: 1"), Close, Truncated),
        case("a bad first chunk", &with("transfer-encoding: chunked", "xyz\r\nok\r\n0\r\n\r\n"), Keep, Truncated),
        case(
            "a first chunk without a size",
            &with("transfer-encoding: chunked", "\r\nok\r\n0\r\n\r\n"),
            Keep,
            Truncated,
        ),
        case(
            "a first chunk that is no end",
            &with("transfer-encoding: chunked", "0\r\nnonsense\r\n\r\n"),
            Keep,
            Truncated,
        ),
        case("a bad chunk size", &with("transfer-encoding: chunked", "2\r\nok\r\nxyz\r\n"), Keep, Truncated),
        case(
            "a signed chunk size",
            &with("transfer-encoding: chunked", "2\r\nok\r\n+2\r\nok\r\n0\r\n\r\n"),
            Keep,
            Truncated,
        ),
        case(
            "an overflowing chunk size",
            &with("transfer-encoding: chunked", "2\r\nok\r\nfffffffffffffffff\r\n"),
            Keep,
            Truncated,
        ),
        case(
            "a chunk longer than its size",
            &with("transfer-encoding: chunked", "2\r\nokay\r\n0\r\n\r\n"),
            Keep,
            Truncated,
        ),
        case("a bad trailer", &with("transfer-encoding: chunked", "2\r\nok\r\n0\r\nnonsense\r\n\r\n"), Keep, Truncated),
        case(
            "coding and length",
            &with("transfer-encoding: chunked\r\ncontent-length: 2", "2\r\nok\r\n0\r\n\r\n"),
            Keep,
            Bad,
        ),
        case(
            "length and coding",
            &with("content-length: 2\r\ntransfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
            Keep,
            Bad,
        ),
        case("an unknown coding", &with("transfer-encoding: cow", "ok"), Close, Bad),
        case("gzip as coding", &with("transfer-encoding: gzip, chunked", "2\r\nok\r\n0\r\n\r\n"), Keep, Bad),
        case("chunked not last", &with("transfer-encoding: chunked, gzip", "ok"), Close, Bad),
        case(
            "chunked twice",
            &with("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
            Keep,
            Bad,
        ),
        case(
            "HTTP/1.0 with a coding",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Keep,
            Bad,
        ),
        case("two lengths", &with("content-length: 2\r\ncontent-length: 3", "ok"), Keep, Bad),
        case("a list of different lengths", &with("content-length: 2, 3", "ok"), Keep, Bad),
        case("a list with nothing in it", &with("content-length: 2,", "ok"), Keep, Bad),
        case(
            "two lengths, one of them with a coding",
            &with("content-length: 2, 2\r\ntransfer-encoding: chunked", "ok"),
            Keep,
            Bad,
        ),
        case("a signed length", &with("content-length: +2", "ok"), Keep, Bad),
        case("a negative length", &with("content-length: -2", "ok"), Keep, Bad),
        case("an overflowing length", &with("content-length: 18446744073709551616", "ok"), Keep, Bad),
        case("a length that is a word", &with("content-length: two", "ok"), Keep, Bad),
        case(
            "an unasked 101",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nframes",
            Keep,
            Bad,
        ),
        case("an unasked 101 and nothing else", "HTTP/1.1 101 Switching Protocols\r\n\r\n", Keep, Bad),
        case("garbage", "lorem ipsum dolor\r\n\r\n", Keep, Bad),
        case("another protocol", "220 mail.test ESMTP\r\n", Keep, Bad),
        case("a thousand 1xx", &format!("{}{ok}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000)), Keep, Bad),
        case("HTTP/0.9", "<html>hello</html>", Close, Bad),
        case("HTTP/2 frames", "\0\0\x12\x04\0\0\0\0\0", Keep, Bad),
        case("a status of two digits", "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", Keep, Bad),
        case("a status of four digits", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", Keep, Bad),
        case("status 0", "HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n", Keep, Bad),
        case("a bad version", "HTTP/3.1 200 OK\r\ncontent-length: 0\r\n\r\n", Keep, Bad),
        case("a space before the colon", &with("content-length : 2", "ok"), Keep, Bad),
        case("a folded field", &with("x: a\r\n b\r\ncontent-length: 2", "ok"), Keep, Bad),
        case("a NUL in a field", &with("x: a\0b\r\ncontent-length: 2", "ok"), Keep, Bad),
        case("a bare CR in a field", &with("x: a\rb\r\ncontent-length: 2", "ok"), Keep, Bad),
        case("a field without a colon", &with("nonsense\r\ncontent-length: 2", "ok"), Keep, Bad),
        case("too many fields", &many("x: 1\r\n", 500), Keep, Bad),
        case("an over-long head", &many(&format!("x: {}\r\n", "y".repeat(10_000)), 100), Keep, Bad),
        case("nothing, closed", "", Close, Bad),
        case("nothing, reset", "", Reset, Bad),
        case("half a head, closed", "HTTP/1.1 200 OK\r\ncontent-le", Close, Bad),
        case("half a head, reset", "HTTP/1.1 200 OK\r\ncontent-le", Reset, Bad),
        case("100 and then nothing", "HTTP/1.1 100 Continue\r\n\r\n", Close, Bad),
        case("its own 500", "HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\noh", Close, Whole(500, "oh")),
        case("its own 404", "HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno", Close, Whole(404, "no")),
    ]
}

#[test]
fn whatever_an_upstream_does_the_caller_learns_the_truth() {
    let script: Vec<_> = cases().into_iter().map(|c| (c.answer, c.then)).collect();
    let upstream = Upstream::start(move |peer| {
        while let Some(request) = peer.request() {
            let Some((answer, then)) = request.target[1..].parse::<usize>().ok().and_then(|i| script.get(i)) else {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nprobe");
                continue;
            };
            peer.send(answer);
            match then {
                Keep => {}
                Close => return,
                // The bytes must be read before a reset throws them away.
                Reset => {
                    peer.until_told();
                    return peer.reset();
                }
            }
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let (mut faults, mut outcomes) = (Vec::new(), BTreeMap::<&str, f64>::new());
    for (i, case) in cases().into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(format!("POST /{i} HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"));
        if matches!(case.then, Reset) {
            if matches!(case.sees, Truncated) {
                client.wait_for(b"ok");
            }
            upstream.tell_all();
        }
        let mut answer = client.response();
        while answer.as_ref().is_ok_and(|interim| interim.status < 200) {
            answer = client.response();
        }
        let right = match (&case.sees, &answer) {
            (Whole(status, body), Ok(r)) => {
                r.status == *status && r.body == body.as_bytes() && r.header("serin-arm").is_some()
            }
            (Truncated, Err(NoAnswer::Truncated(_) | NoAnswer::Reset | NoAnswer::Closed)) => true,
            (Bad, Ok(r)) => r.status == 502 && r.header("proxy-status").is_some_and(|s| s.starts_with("serin; error=")),
            _ => false,
        };
        if !right {
            faults.push(format!("{}: {answer:?} to {}", case.name, show(&case.answer)));
        }
        let before = upstream.connections();
        let next = proxy.ask("GET /probe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        if next.text() != "probe" {
            faults.push(format!("{}: the next request got {next:?}", case.name));
        }
        if (upstream.connections() == before) != case.reused {
            faults.push(format!("{}: reused: {}", case.name, !case.reused));
        }
        *outcomes.entry(case.outcome).or_default() += 1.0;
        *outcomes.entry("success").or_default() += 1.0;
        if proxy.outcome(case.outcome) != outcomes[case.outcome] {
            faults.push(format!("{}: {} counted {}", case.name, case.outcome, proxy.outcome(case.outcome)));
            outcomes.insert(case.outcome, proxy.outcome(case.outcome));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn an_endless_flood_of_1xx_is_given_up() {
    let upstream = Upstream::start(|peer| {
        if peer.request().is_some() {
            while peer.try_send("HTTP/1.1 102 Processing\r\n\r\n".repeat(100)) {}
            peer.note("closed");
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "timeouts = { first_byte = \"200ms\" }")));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answers: Vec<u16> = std::iter::from_fn(|| client.response().ok()).map(|r| r.status).take(33).collect();
    assert_eq!((&answers[..32], answers[32]), (&[102; 32][..], 502));
    upstream.until_note("closed");
}

#[test]
fn an_answer_before_the_end_of_the_upload_reaches_the_caller_and_ends_both_connections_in_order() {
    let upstream = Upstream::start(|peer| {
        while peer.head().is_some() {
            peer.send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig");
            peer.until_seen(b"the end");
        }
    });
    let proxy = Proxy::in_front_of(&upstream);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nbegin");
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    // Nobody else may get this upstream connection while the upload is not over.
    let before = upstream.connections();
    assert_eq!(proxy.ask("GET /x HTTP/1.1\r\nhost: a\r\n\r\n").status, 413);
    assert_eq!(upstream.connections(), before + 1);
    drop(client);
    assert!(now().since(upstream.until_closed()) < PATIENCE);
}
