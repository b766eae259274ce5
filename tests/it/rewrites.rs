//! What a version puts into request bodies: short ones with their length, long ones as they pass.

use super::support::{H2, Proxy, Upstream, Upstream2, canary, chat, stable};

const KEYS: &str = "model = \"b\"\nsystem = \"Be brief.\"\nbody = { \"prompt.version\" = \"7\", temperature = 0.5 }\nheaders = { set = { x-prompt = \"p7\" } }";

/// Stable as it comes, the canary with all of it; everybody goes to the canary.
fn start(more: &str) -> (Upstream, Upstream, Proxy) {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let tables = [stable(a.addr, ""), canary(b.addr, KEYS)];
    let proxy = Proxy::start(&format!("{more}{}", chat("weight = 100.0", &tables.concat())));
    (a, b, proxy)
}

const BODY: &str = r#"{ "messages" : [{"role":"system","content":"Be long."}, {"role":"user","content":"é\u00e9"}],
  "model" : "a", "prompt": {"id":"p"}, "n": 1.50 }"#;
const EXPECT: &str = r#"{ "messages" : [{"content":"Be brief.","role":"system"}, {"role":"user","content":"é\u00e9"}],
  "model" : "b", "prompt": {"id":"p","version":"7"}, "n": 1.50 ,"temperature":0.5}"#;

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[test]
fn a_short_body_is_edited_and_its_length_told() {
    let (a, b, proxy) = start("");
    proxy.ask(post(BODY));
    let seen = b.last();
    assert_eq!((seen.text(), seen.header("x-prompt")), (EXPECT.to_owned(), Some("p7")));
    assert_eq!(seen.header("content-length"), Some(EXPECT.len().to_string().as_str()));
    // What cannot be JSON goes up as it is.
    for head in ["content-encoding: gzip\r\n", "content-type: multipart/form-data; boundary=x\r\n"] {
        proxy.ask(post(BODY).replacen("\r\n\r\n", &format!("\r\n{head}\r\n"), 1));
        assert_eq!((b.last().text(), b.last().header("transfer-encoding")), (BODY.to_owned(), None));
    }
    assert!(a.requests().is_empty());
}

#[test]
fn a_long_body_is_edited_as_it_passes() {
    let (_a, b, proxy) = start("[limits]\npeek_bytes = \"1KiB\"\n");
    let filler = "x\\\"]}".repeat(100_000);
    let (long, expect) = (BODY.replace("é", &filler), EXPECT.replace("é", &filler));
    proxy.ask(post(&long));
    let seen = b.last();
    assert!(seen.text() == expect, "{} bytes", seen.body.len());
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (Some("chunked"), None));
    // It is not waited for: upstream has its beginning before its end is sent.
    let slow = Upstream::start(|peer| {
        peer.head();
        assert!(peer.until_seen(b"\"content\":\"Be brief.\""));
        peer.note("begun");
        assert!(peer.until_seen(b"\r\n0\r\n\r\n"));
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start(&chat("", &stable(slow.addr, KEYS)));
    let mut client = proxy.connect();
    let (first, rest) = long.split_at(200_000);
    client.send(&post(&long)[..post(&long).len() - rest.len()]);
    assert_eq!(first.len() + rest.len(), long.len());
    slow.until_note("begun");
    client.send(rest);
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn a_body_in_chunks_is_edited_and_keeps_its_trailers() {
    let (_a, b, proxy) = start("");
    for size in [1, 7, 1_000] {
        let chunks: String = BODY
            .as_bytes()
            .chunks(size)
            .map(|piece| {
                format!("{:x}\r\n", piece.len()).into_bytes().into_iter().chain(piece.iter().copied()).chain(*b"\r\n")
            })
            .map(|bytes| bytes.map(char::from).collect::<String>())
            .collect();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
        let bytes: Vec<u8> = chunks.chars().map(|c| c as u8).collect();
        proxy.ask([head.as_bytes(), &bytes, b"0\r\nx-sum: 1\r\n\r\n"].concat());
        let seen = b.last();
        assert_eq!((seen.text(), seen.trailers.len()), (EXPECT.to_owned(), 1), "chunks of {size}");
    }
}

#[test]
fn half_a_body_passes_as_far_as_it_came() {
    let (_a, b, proxy) = start("");
    let half = r#"{"messages":[{"content":"half"#;
    proxy.ask(post(half));
    assert_eq!((b.last().text(), b.last().header("content-length")), (half.to_owned(), Some("29")));
    proxy.ask(
        post(half)
            .replace("content-length: 29", "transfer-encoding: chunked")
            .replace(half, &format!("1d\r\n{half}\r\n0\r\n\r\n")),
    );
    assert_eq!(b.last().text(), half);
}

#[test]
fn stable_gets_the_callers_own_words_where_it_answers_for_the_canary() {
    let a = Upstream::ok();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tables = [stable(a.addr, "model = \"s\""), canary(nobody, KEYS)];
    let more = "[limits]\npeek_bytes = \"1KiB\"\n";
    let proxy = Proxy::start(&format!("{more}{}", chat("weight = 100.0\nfallback = \"connect\"", &tables.concat())));
    for filler in ["", &"x".repeat(5_000)] {
        let body = BODY.replace("é", filler);
        let answer = proxy.ask(post(&body));
        assert_eq!((answer.status, answer.header("serin-why")), (200, Some("fallback")));
        assert_eq!(a.last().text(), body.replace("\"a\"", "\"s\""));
    }
}

#[test]
fn over_http2_a_body_is_edited_on_both_sides_and_its_length_fits() {
    let upstream = Upstream2::start(None);
    let keys = format!("http = \"2\"\n{KEYS}");
    let more = "[limits]\npeek_bytes = \"1KiB\"\n";
    let proxy = Proxy::start(&format!("{more}{}", chat("", &stable(upstream.addr, &keys))));
    let mut h2 = H2::plain(proxy.addr);
    for (filler, told) in [("", true), ("", false), (&*"x".repeat(200_000), true)] {
        let (body, expect) = (BODY.replace("é", filler), EXPECT.replace("é", filler));
        let request = http::Request::builder().method("POST").uri("http://a.test/v1/chat/completions");
        let request = if told { request.header("content-length", body.len()) } else { request };
        let (head, answer) = h2.ask(request.body(()).unwrap(), &body, None).unwrap();
        assert_eq!(head.status.as_u16(), 200);
        answer.unwrap();
        let seen = upstream.last();
        assert!(seen.body == expect.as_bytes(), "{} bytes", seen.body.len());
        let length = seen.head.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(length, (told && filler.is_empty()).then(|| expect.len().to_string()));
    }
}
