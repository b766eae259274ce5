//! Answers packed with gzip, br and zstd through the whole proxy: the caller gets the bytes that upstream sent, and what the
//! model said is counted as if they were plain. In one piece, in several members, and flushed event by event.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::support::{Proxy, Upstream, chat, eventually, stable};

const KINDS: [&str; 5] = ["input", "output", "cached_input", "reasoning", "cache_write"];
/// Where a case of the corpus tells what serin must count, in the order of `KINDS`.
const EXPECT: [&str; 5] = ["in", "out", "cached", "reasoning", "written"];

/// One answer as upstream sends it.
struct Answer {
    name: String,
    path: String,
    media: String,
    encoding: &'static str,
    body: Vec<u8>,
    /// Bytes of one HTTP chunk.
    cut: usize,
    class: String,
    tokens: [u64; 5],
}

fn file(path: &str) -> Option<Vec<u8>> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

fn member(part: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(part).unwrap();
    packer.finish().unwrap()
}

/// One member, flushed wherever an event ends.
fn flushed(body: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        packer.write_all(line).unwrap();
        if line == b"\n" {
            packer.flush().unwrap();
        }
    }
    packer.finish().unwrap()
}

/// Every way in which one body is packed; those of br and zstd were packed before, by the reference implementations.
fn packings(name: &str, plain: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let members = plain.chunks(plain.len() / 5 + 1).flat_map(member).collect();
    let mut all = vec![("gzip", member(plain)), ("gzip", members), ("x-gzip", flushed(plain))];
    for (encoding, kind) in [("br", "br"), ("zstd", "zst")] {
        let mut names = vec![format!("{name}.{kind}")];
        if name == "messages-good.sse" {
            names.extend([format!("flushed.{kind}"), "two-frames.zst".to_owned()]);
        }
        let own = names.iter().filter(|name| name.ends_with(kind));
        all.extend(own.filter_map(|name| file(&format!("tests/fixtures/wire/{name}"))).map(|body| (encoding, body)));
    }
    all
}

fn answers() -> Vec<Answer> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".br").map(str::to_owned))
        .collect();
    names.sort();
    let mut all = Vec::new();
    for name in &names {
        let case = format!("tests/corpus/{}", name.rsplit_once('.').map_or("", |(stem, _)| stem));
        let (Some(told), Some(plain)) = (file(&format!("{case}.toml")), file(&format!("tests/corpus/{name}"))) else {
            continue; // a bomb, or a window too wide
        };
        let told: Value = toml::from_str(&String::from_utf8(told).unwrap()).unwrap();
        let word = |key: &str| told[key].as_str().unwrap().to_owned();
        for (encoding, body) in packings(name, &plain) {
            for cut in [body.len(), 7] {
                all.push(Answer {
                    name: format!("{name}, {encoding} of {} bytes by {cut}", body.len()),
                    path: word("path"),
                    media: word("media"),
                    encoding,
                    body: body.clone(),
                    cut,
                    class: word("class"),
                    tokens: EXPECT.map(|key| told["expect"][key].as_u64().unwrap_or(0)),
                });
            }
        }
    }
    all
}

fn on_the_wire(answer: &Answer) -> Vec<u8> {
    let Answer { media, encoding, .. } = answer;
    let mut out = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-encoding: {encoding}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in answer.body.chunks(answer.cut) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn packed_answers_pass_as_they_are_and_their_tokens_are_counted() {
    let said: Vec<Vec<u8>> = answers().iter().map(on_the_wire).collect();
    let upstream = Upstream::start(move |peer| {
        while let Some(request) = peer.request() {
            let number = request.headers.iter().find(|(name, _)| name == "x-say").unwrap().1.parse::<usize>().unwrap();
            peer.send(&said[number]);
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "")));
    let mut client = proxy.connect();
    let (mut tokens, mut classes) = ([0; KINDS.len()], std::collections::BTreeMap::<String, f64>::new());
    for (number, answer) in answers().iter().enumerate() {
        client.send(format!(
            "POST {} HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\naccept-encoding: gzip, br, zstd\r\nx-say: {number}\r\n\
             content-length: 2\r\n\r\n{{}}",
            answer.path
        ));
        let got = client.response().unwrap();
        assert_eq!(got.header("content-encoding"), Some(answer.encoding), "{}", answer.name);
        assert!(got.body == answer.body, "{}: other bytes than were sent", answer.name);
        tokens.iter_mut().zip(answer.tokens).for_each(|(sum, more)| *sum += more);
        *classes.entry(answer.class.clone()).or_default() += 1.0;
        eventually(&answer.name, || proxy.metric("serin_requests_total", &[]) as usize == number + 1);
        let counted = KINDS.map(|kind| proxy.metric("serin_tokens_total", &[&format!("type=\"{kind}\"")]) as u64);
        assert_eq!(counted, tokens, "{}", answer.name);
    }
    for (class, count) in &classes {
        assert!((proxy.outcome(class) - count).abs() < 0.5, "{class}: {classes:?}");
    }
    assert!(tokens.iter().all(|sum| *sum > 0) && classes.len() > 1, "{tokens:?} {classes:?}");
    let asked = upstream.last();
    assert!(
        asked.headers.contains(&("accept-encoding".to_owned(), "gzip, br, zstd".to_owned())),
        "{:?}",
        asked.headers
    );
    assert_eq!(upstream.malformed(), Vec::<String>::new());
}

#[test]
fn a_bomb_passes_and_says_nothing() {
    let body = file("tests/fixtures/wire/bomb.br").unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\n";
    let said = [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let upstream = Upstream::saying(said);
    let proxy = Proxy::in_front_of(&upstream);
    let got = proxy.ask("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\ncontent-length: 2\r\n\r\n{}");
    assert!(got.body == body);
    proxy.until_outcome("success", 1.0);
    assert_eq!(proxy.metric("serin_tokens_total", &[]), 0.0);
}
