//! The golden corpus through the whole proxy: its bytes arrive as they were sent, however they are cut, and each exchange
//! has the one outcome class that stands in its `tests/corpus/NAME.toml`.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::support::{NoAnswer, Proxy, Upstream, chat, eventually, stable};

struct Case {
    name: String,
    path: String,
    media: String,
    protocol: String,
    ending: String,
    class: String,
    status: u16,
    body: Vec<u8>,
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut told: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    told.sort();
    let read = |path: &std::path::PathBuf| {
        let entry: Value = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let word = |key: &str| entry[key].as_str().unwrap().to_owned();
        Case {
            name: word("file"),
            path: word("path"),
            media: word("media"),
            protocol: word("protocol"),
            ending: word("ending"),
            class: word("class"),
            status: u16::try_from(entry["status"].as_u64().unwrap()).unwrap(),
            body: std::fs::read(folder.join(word("file"))).unwrap(),
        }
    };
    told.iter().map(read).collect()
}

/// How a body is cut into HTTP chunks.
#[derive(Clone, Copy, Debug)]
enum Cutting {
    Whole,
    Bytes,
    Random,
}

/// The answer as upstream sends it, without the end of its body where that never came.
fn answer(case: &Case, cutting: Cutting, mut seed: u64) -> Vec<u8> {
    let media = if case.media.is_empty() { String::new() } else { format!("content-type: {}\r\n", case.media) };
    let mut out = format!("HTTP/1.1 {} X\r\n{media}transfer-encoding: chunked\r\n\r\n", case.status).into_bytes();
    let mut rest = case.body.as_slice();
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = match cutting {
            Cutting::Whole => rest.len(),
            // The readers alone see every byte of the large ones by itself (`tests/wire_corpus.rs`).
            Cutting::Bytes => 1 + case.body.len() / 20_000,
            Cutting::Random => 1 + (seed >> 33) as usize % [3, 40, 400, 5_000][(seed >> 60) as usize % 4],
        };
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    if case.ending == "clean" {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    out
}

/// Upstream that says what the request's `x-say` header names by number and cutting.
fn upstream() -> Upstream {
    let corpus = corpus();
    Upstream::start(move |peer| {
        while let Some(request) = peer.request() {
            let said = request.headers.iter().find(|(name, _)| name == "x-say").unwrap().1.clone();
            let (number, cutting) = said.split_once(' ').unwrap();
            let case = &corpus[number.parse::<usize>().unwrap()];
            let cutting = match cutting {
                "Whole" => Cutting::Whole,
                "Bytes" => Cutting::Bytes,
                _ => Cutting::Random,
            };
            peer.send(answer(case, cutting, 7));
            match case.ending.as_str() {
                "broken" => return,
                "cancelled" => return peer.until_closed(),
                _ => {}
            }
        }
    })
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Asks for one case and checks its bytes.
fn ask(proxy: &Proxy, number: usize, case: &Case, cutting: Cutting) {
    let mut client = proxy.connect();
    client.send(format!(
        "POST {} HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\nx-say: {number} {cutting:?}\r\ncontent-length: 2\r\n\r\n{{}}",
        case.path
    ));
    let got = match (case.ending.as_str(), client.response()) {
        ("clean", Ok(response)) => response.body,
        ("broken", Err(NoAnswer::Truncated(response))) => response.body,
        // A body without a byte: the head may not have been sent before the break.
        ("broken", Err(NoAnswer::Reset | NoAnswer::Closed)) if case.body.is_empty() => Vec::new(),
        (_, other) => panic!("{} {cutting:?}: {other:?}", case.name),
    };
    assert_eq!(hash(&got), hash(&case.body), "{} {cutting:?}: {} bytes for {}", case.name, got.len(), case.body.len());
}

/// Reads all that comes of an answer that does not end, then leaves.
fn leave(proxy: &Proxy, number: usize, case: &Case, cutting: Cutting) {
    let mut client = proxy.connect();
    client.send(format!(
        "POST {} HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\nx-say: {number} {cutting:?}\r\ncontent-length: 2\r\n\r\n{{}}",
        case.path
    ));
    let head = client.until(b"\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", case.name);
    let mut body = Vec::new();
    while body.len() < case.body.len() {
        let line = String::from_utf8(client.until(b"\r\n")).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        while client.seen().len() < size + 2 {
            assert!(client.more().unwrap() > 0);
        }
        let mut seen = client.take();
        body.extend_from_slice(&seen[..size]);
        client.put_back(seen.split_off(size + 2));
    }
    assert_eq!(hash(&body), hash(&case.body), "{} {cutting:?}", case.name);
}

#[test]
fn the_corpus_passes_byte_for_byte_and_every_exchange_has_its_class() {
    let upstream = upstream();
    let corpus = corpus();
    for protocol in ["auto", "http", "openai", "anthropic", "mcp"] {
        let keys = format!("protocol = \"{protocol}\"");
        let proxy = Proxy::start(&chat(&keys, &stable(upstream.addr, "")));
        let mut counted = std::collections::BTreeMap::<&str, f64>::new();
        for (number, case) in corpus.iter().enumerate().filter(|(_, case)| case.protocol == protocol) {
            for cutting in [Cutting::Whole, Cutting::Bytes, Cutting::Random] {
                if case.ending == "cancelled" {
                    leave(&proxy, number, case, cutting);
                } else {
                    ask(&proxy, number, case, cutting);
                }
                let class = counted.entry(&case.class).or_default();
                *class += 1.0;
                let what = format!("{} {cutting:?} as {}", case.name, case.class);
                eventually(&what, || (proxy.outcome(&case.class) - *class).abs() < 0.5);
            }
        }
        let all: f64 = counted.values().sum();
        assert_eq!(proxy.metric("serin_requests_total", &[]), all, "{counted:?}");
    }
    assert_eq!(upstream.malformed(), Vec::<String>::new());
}
