//! The fuzz targets on stable: each of `fuzz/targets.rs` over seeds, what was once found (`fuzz/corpus/TARGET/`), and seeded
//! mutations of both. No coverage guides it, as it guides `fuzz/run`; what it finds, it finds again with the same seed.
//!
//! `SERIN_FUZZ_ROUNDS` (400) is the number of mutations of each target, `SERIN_FUZZ_SEED` (1) where they begin.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test's helpers may fail loudly, and say on what")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::io::Read;
use std::path::{Path, PathBuf};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a folder with one of these endings, in order, each up to `most` bytes.
fn files(path: &str, kinds: &[&str], most: usize) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder(path)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let wanted = paths.iter().filter(|path| {
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        path.is_file() && (kinds.is_empty() || kinds.contains(&kind.as_ref()))
    });
    wanted.map(|path| std::fs::read(path).unwrap()).filter(|bytes| bytes.len() <= most).collect()
}

/// The bytes that choose path, protocol, media and ending, in front of a body.
fn chosen(random: &mut Random, bodies: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let choose = |body: Vec<u8>| {
        let choice: Vec<u8> = (0..4).map(|_| random.below(256) as u8).collect();
        [choice, body].concat()
    };
    bodies.into_iter().map(choose).collect()
}

fn seeds(target: &str, random: &mut Random) -> Vec<Vec<u8>> {
    let own = files(&format!("fuzz/corpus/{target}"), &[], 1 << 20);
    let more = match target {
        "readers" => chosen(random, files("tests/corpus", &["sse", "json", "bin"], 4_000)),
        "packed" => chosen(random, files("tests/fixtures/wire", &["br", "zst"], 4_000)),
        "json" => files("tests/corpus", &["json"], 4_000),
        "requests" => [
            r#"{"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#,
            r#"{"prompt":{"id":"p","version":"3"},"input":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#,
            r##"{"input":"hi","text":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"anyOf":[{"type":"null"},{"const":1}]}}}}}}"##,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "config" => files("config", &["toml"], 40_000),
        "trace" => files("tests/fixtures/traces", &["gz"], 1 << 20).iter().map(|packed| lines(packed)).collect(),
        "journal" => {
            let mut segment = Vec::new();
            let mut before = [0; 32];
            for payload in [&b"{\"a\":1}"[..], b"", b"a longer record than the others"] {
                let (frame, hash) = serin::journal::chain::seal(&before, payload);
                segment.extend_from_slice(&frame);
                before = hash;
            }
            vec![segment]
        }
        "proxy_protocol" => vec![
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbbGET".to_vec(),
            b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec(),
        ],
        "http1" => [
            &b"\0\x07POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}"[..],
            b"\0\x01\r\n\r\nGET http://a/ HTTP/1.0\r\nConnection: keep-alive\r\nTE: trailers\r\n\r\n",
            b"\x01\x03HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\x01\x03HTTP/1.0 204\nContent-Length: 7, 7\nConnection: close\n\n",
            b"\x02\x05a;x=\"y\"\r\n0123456789\r\n0003\r\nabc\r\n0\r\nA: b\r\n\r\nrest",
            b"\x03\x02any body will do",
        ]
        .map(<[u8]>::to_vec)
        .to_vec(),
        _ => Vec::new(),
    };
    [own, more].concat()
}

/// The first lines of a recorded trace.
fn lines(packed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed).take(3_000).read_to_end(&mut text).unwrap();
    text
}

fn mutate(random: &mut Random, body: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(body.len() + 1);
    let to = (at + random.below(40)).min(body.len());
    match random.below(6) {
        0 => drop(body.drain(at..to)),
        1 => body.splice(at..to.min(at + 1), [random.below(256) as u8]).for_each(drop),
        2 => body.splice(at..at, [b"{}[]\",:\\\n\r d0\xff\x80.-"[random.below(17)]]).for_each(drop),
        3 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            body.splice(at..to, other[from..(from + 200).min(other.len())].to_vec()).for_each(drop);
        }
        4 => {
            let part = body[at..to].to_vec();
            body.splice(at..at, part).for_each(drop);
        }
        _ => body.truncate(at),
    }
}

/// Says on what a target failed: the bytes are the test's to be kept in `fuzz/corpus/`.
struct Witness<'a>(&'a str, &'a [u8]);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} failed on {:?}", self.0, String::from_utf8_lossy(self.1));
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn no_bytes_break_a_target_and_all_agree_with_their_oracles() {
    let rounds = number("SERIN_FUZZ_ROUNDS", 400);
    for (name, target) in targets::TARGETS {
        let mut random = Random(number("SERIN_FUZZ_SEED", 1));
        let seeds = seeds(name, &mut random);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            let _witness = Witness(name, seed);
            target(seed);
        }
        for _ in 0..rounds {
            let mut body = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(5) {
                mutate(&mut random, &mut body, &seeds);
            }
            let _witness = Witness(name, &body);
            target(&body);
        }
    }
}
