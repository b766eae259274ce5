//! The golden corpus through the readers: whole, byte by byte, cut at every byte, in random chunks, packed with gzip;
//! and bytes that nobody would send. What is expected of `tests/corpus/NAME.sse` stands in `NAME.toml`, written by `make.py`.
//! The same corpus goes through the whole proxy in `tests/it/corpus.rs`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail loudly")]

use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use serin::names::Mono;
use serin::wire::{Dialect, Ending, Facts, Finish, Protocol, Reader};

/// What a reader may keep: a whole event or document twice over while its buffer grows, ends, name, gzip's window.
const KEPT_BYTES_MAX: usize = 2 * 256 * 1024 + 128 * 1024;

/// The same behind a decoder: twice its window, while its buffer grows.
fn kept_max(encoding: Option<&str>) -> usize {
    match encoding {
        Some("br") => KEPT_BYTES_MAX + 2 * 4 * 1024 * 1024,
        Some("zstd") => KEPT_BYTES_MAX + 2 * 8 * 1024 * 1024 + 512 * 1024,
        _ => KEPT_BYTES_MAX,
    }
}

struct Case {
    name: String,
    path: String,
    media: String,
    protocol: Protocol,
    ending: Ending,
    body: Vec<u8>,
    expect: Facts,
    /// First and last event that carry generated tokens, where events end in blank lines of LF.
    tokens: Option<(u64, u64)>,
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut told: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    told.sort();
    told.iter()
        .map(|path| read_case(&folder, &toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()))
        .collect()
}

fn read_case(folder: &Path, entry: &Value) -> Case {
    let word = |key: &str| entry[key].as_str().unwrap().to_owned();
    let body = std::fs::read(folder.join(word("file"))).unwrap();
    let tokens = entry["tokens"].as_array().map(|pair| (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap()));
    let mut expect = expected(entry["expect"].as_object().unwrap());
    expect.streamed &= !word("file").ends_with(".json");
    expect.bytes = body.len() as u64;
    let ending = match word("ending").as_str() {
        "clean" => Ending::Clean,
        "broken" => Ending::Broken,
        "cancelled" => Ending::Cancelled,
        other => panic!("ending {other}"),
    };
    let protocol = serde_json::from_value(entry["protocol"].clone()).unwrap();
    Case { name: word("file"), path: word("path"), media: word("media"), protocol, ending, body, expect, tokens }
}

/// What facts keep of a tool's name: FNV-1a, never 0.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        | 1
}

/// Every key sets one fact; what is not named is expected to be silent.
fn expected(told: &serde_json::Map<String, Value>) -> Facts {
    let mut facts = Facts { streamed: true, ..Facts::default() };
    for (key, value) in told {
        let (flag, count, word) = (value.as_bool(), value.as_u64(), value.as_str());
        let small = || u32::try_from(count.unwrap()).unwrap();
        match key.as_str() {
            "dialect" => {
                let all = [Dialect::Unknown, Dialect::Chat, Dialect::Completions, Dialect::Responses];
                let more = [Dialect::Embeddings, Dialect::Messages, Dialect::Mcp, Dialect::Gemini, Dialect::Converse];
                facts.dialect = *all.iter().chain(&more).find(|d| format!("{d:?}") == word.unwrap()).unwrap();
            }
            "finish" => {
                let all = [Finish::Stop, Finish::ToolCalls, Finish::Pause, Finish::Other, Finish::Length];
                let more = [Finish::Refusal, Finish::ContentFilter, Finish::Error];
                facts.finish = all.iter().chain(&more).copied().find(|f| format!("{f:?}") == word.unwrap());
                assert!(facts.finish.is_some(), "{value}");
            }
            "streamed" => facts.streamed = flag.unwrap(),
            "token_events" => facts.token_events = small(),
            "in" => facts.tokens_in = count,
            "out" => facts.tokens_out = count,
            "cached" => facts.tokens_cached = count,
            "written" => facts.tokens_cache_written = count,
            "reasoning" => facts.tokens_reasoning = count,
            "refusal" => facts.refusal = flag.unwrap(),
            "filtered" => facts.filtered = flag.unwrap(),
            "empty" => facts.empty = flag.unwrap(),
            "in_band_error" => facts.in_band_error = flag.unwrap(),
            "rpc_error" => facts.rpc_error = value.as_i64(),
            "cut" => facts.cut = flag.unwrap(),
            "truncated" => facts.truncated = flag.unwrap(),
            "malformed" => facts.malformed = flag.unwrap(),
            "tool_calls" => facts.tool_calls = small(),
            "tool" => facts.tool = word.map(fingerprint),
            "tool_errors" => facts.tool_errors = small(),
            "oversized" => facts.oversized = small(),
            "duplicates" => facts.duplicates = small(),
            "done" => facts.done = flag.unwrap(),
            "undecoded" => facts.undecoded = flag.unwrap(),
            other => panic!("no fact is called {other}"),
        }
    }
    facts
}

/// Reads `chunks`, all at one time, and takes the times out of the facts.
fn read<'a>(case: &Case, encoding: Option<&str>, chunks: impl Iterator<Item = &'a [u8]>) -> Facts {
    let mut reader = Reader::for_exchange(case.protocol, &case.path, Some(&case.media), encoding);
    for chunk in chunks {
        reader.chunk(chunk, Mono(1));
        assert!(reader.kept() <= kept_max(encoding), "{} keeps {}", case.name, reader.kept());
    }
    let facts = reader.finish(case.ending);
    let timed = facts.token_events > 0 && encoding != Some("zstd");
    assert_eq!(facts.first_token_at.is_some(), timed, "{}", case.name);
    Facts { first_byte_at: None, last_byte_at: None, first_token_at: None, last_token_at: None, ..facts }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    fn cut<'a>(&mut self, mut bytes: &'a [u8], chunk_max: usize) -> Vec<&'a [u8]> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(bytes.len().min(1 + self.below(chunk_max)));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }
}

#[test]
fn every_case_of_the_corpus_is_read_right_in_one_piece() {
    let corpus = corpus();
    assert!(corpus.len() >= 350, "{}", corpus.len());
    let mut wrong = Vec::new();
    for case in &corpus {
        let facts = read(case, None, std::iter::once(&case.body[..]));
        if facts != case.expect {
            wrong.push(format!("{}\n  found    {facts:?}\n  expected {:?}", case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn chunking_changes_nothing() {
    let mut random = Random(5);
    for case in &corpus() {
        assert_eq!(read(case, None, case.body.chunks(1)), case.expect, "{} byte by byte", case.name);
        for round in 0..20 {
            let chunks = random.cut(&case.body, [3, 40, 400, 5000, 100_000][round % 5]);
            assert_eq!(read(case, None, chunks.into_iter()), case.expect, "{} round {round}", case.name);
        }
        if case.body.len() < 8000 {
            for at in 0..case.body.len() {
                let (one, two) = case.body.split_at(at);
                assert_eq!(read(case, None, [one, two].into_iter()), case.expect, "{} at {at}", case.name);
            }
        }
    }
}

#[test]
fn packed_bodies_are_read_like_plain_ones() {
    let mut random = Random(6);
    for case in corpus().iter().filter(|case| !case.body.is_empty()) {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&case.body).unwrap();
        let packed = packer.finish().unwrap();
        let expect = Facts { bytes: packed.len() as u64, ..case.expect.clone() };
        assert_eq!(read(case, Some("gzip"), std::iter::once(&packed[..])), expect, "{}", case.name);
        let chunks = random.cut(&packed, 50);
        assert_eq!(read(case, Some("gzip"), chunks.into_iter()), expect, "{} in chunks", case.name);
    }
}

#[test]
fn an_encoding_that_is_not_ours_says_nothing_but_that() {
    for case in
        corpus().iter().filter(|case| case.protocol != Protocol::Http && case.expect.dialect != Dialect::Unknown)
    {
        for encoding in ["deflate", "compress", "gzip, br"] {
            let facts = read(case, Some(encoding), std::iter::once(&case.body[..]));
            assert_eq!(
                facts,
                Facts { undecoded: true, bytes: case.body.len() as u64, ..Facts::default() },
                "{}",
                case.name
            );
        }
        for encoding in ["gzip", "br", "zstd"].iter().filter(|_| case.body.len() > 20) {
            let facts = read(case, Some(encoding), std::iter::once(&case.body[..]));
            assert!(facts.undecoded && !facts.cut, "{}: plain bytes that call themselves {encoding}", case.name);
        }
    }
}

#[test]
fn tokens_are_timed_when_their_event_passes() {
    let mut timed = 0;
    for case in &corpus() {
        let Some((first, last)) = case.tokens else { continue };
        let mut reader = Reader::for_exchange(case.protocol, &case.path, Some(&case.media), None);
        let text = std::str::from_utf8(&case.body).unwrap();
        for (at, event) in text.split_inclusive("\n\n").enumerate() {
            reader.chunk(event.as_bytes(), Mono(at as u64));
        }
        let facts = reader.finish(case.ending);
        if facts.dialect == Dialect::Unknown {
            continue;
        }
        assert_eq!((facts.first_token_at, facts.last_token_at), (Some(Mono(first)), Some(Mono(last))), "{}", case.name);
        timed += 1;
    }
    assert!(timed > 60, "{timed}");
}

#[test]
fn a_packed_stream_shows_its_tokens_when_they_are_flushed() {
    let mut reader = Reader::for_exchange(Protocol::Auto, "/v1/messages", Some("text/event-stream"), Some("gzip"));
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for at in 0..4u64 {
        let data = format!(
            "data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{at}\"}}}}\n\n"
        );
        packer.write_all(data.as_bytes()).unwrap();
        packer.flush().unwrap();
        reader.chunk(&std::mem::take(packer.get_mut()), Mono(at));
    }
    let facts = reader.finish(false);
    assert_eq!((facts.first_token_at, facts.last_token_at, facts.token_events), (Some(Mono(0)), Some(Mono(3)), 4));
}

#[test]
fn a_bomb_is_given_up() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        packer.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let packed = packer.finish().unwrap();
    let mut reader = Reader::for_exchange(Protocol::Auto, "/v1/responses", Some("text/event-stream"), Some("gzip"));
    for chunk in packed.chunks(4096) {
        reader.chunk(chunk, Mono(1));
        assert!(reader.kept() <= KEPT_BYTES_MAX);
    }
    assert!(reader.finish(true).undecoded);
}

fn packed(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire").join(name)).unwrap()
}

#[test]
fn bodies_packed_with_br_and_zstd_are_read_like_plain_ones() {
    let mut random = Random(8);
    let mut read_so = 0;
    for case in &corpus() {
        for (encoding, kind) in [("br", "br"), ("zstd", "zst")] {
            let file = format!("{}.{kind}", case.name);
            if !Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire").join(&file).exists() {
                continue;
            }
            let body = packed(&file);
            let expect = Facts { bytes: body.len() as u64, ..case.expect.clone() };
            assert_eq!(read(case, Some(encoding), std::iter::once(&body[..])), expect, "{file}");
            assert_eq!(read(case, Some(encoding), body.chunks(1)), expect, "{file} byte by byte");
            let chunks = random.cut(&body, 50);
            assert_eq!(read(case, Some(encoding), chunks.into_iter()), expect, "{file} in chunks");
            read_so += 1;
        }
    }
    assert!(read_so >= 28, "{read_so}");
}

#[test]
fn a_stream_packed_with_br_shows_its_tokens_when_they_are_flushed() {
    let lengths: Value = serde_json::from_slice(&packed("flushed.json")).unwrap();
    for (encoding, kind) in [("br", "br"), ("zstd", "zst")] {
        let body = packed(&format!("flushed.{kind}"));
        let mut rest = body.as_slice();
        let mut reader =
            Reader::for_exchange(Protocol::Auto, "/v1/messages", Some("text/event-stream"), Some(encoding));
        for (at, length) in lengths[kind].as_array().unwrap().iter().enumerate() {
            let (part, after) = rest.split_at(usize::try_from(length.as_u64().unwrap()).unwrap());
            reader.chunk(part, Mono(at as u64));
            rest = after;
        }
        let facts = reader.finish(true);
        assert!(facts.done && facts.token_events == 3 && facts.tokens_out == Some(15), "{encoding}: {facts:?}");
        // Start, block, ping, then three deltas; zstd's text leaves its window too late to be timed.
        let times = if encoding == "br" { (Some(Mono(3)), Some(Mono(5))) } else { (None, None) };
        assert_eq!((facts.first_token_at, facts.last_token_at), times, "{encoding}");
    }
}

#[test]
fn bombs_and_windows_too_wide_are_given_up_and_frames_may_follow_each_other() {
    let ask = |name: &str, encoding: &str| {
        let body = packed(name);
        let mut reader =
            Reader::for_exchange(Protocol::Auto, "/v1/messages", Some("text/event-stream"), Some(encoding));
        for chunk in body.chunks(1_000) {
            reader.chunk(chunk, Mono(1));
            assert!(reader.kept() <= kept_max(Some(encoding)), "{name} keeps {}", reader.kept());
        }
        reader.finish(true)
    };
    for (name, encoding) in [("bomb.br", "br"), ("bomb.zst", "zstd"), ("window.br", "br"), ("window.zst", "zstd")] {
        assert!(ask(name, encoding).undecoded, "{name}");
    }
    assert!(ask("two-frames.zst", "zstd").done);
}

#[test]
fn an_end_of_a_stream_that_owes_no_answer_is_no_cut() {
    for path in ["/mcp", "/v1/responses"] {
        let mut reader = Reader::for_exchange(Protocol::Auto, path, Some("text/event-stream"), None);
        reader.open_ended();
        reader.chunk(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n", Mono(1));
        assert!(!reader.finish(true).cut, "{path}");
    }
}

/// The corpus, broken at random places: bytes replaced, doubled, taken out, and parts of other cases put in.
#[test]
fn broken_bytes_never_panic_never_grow_and_read_alike_in_any_chunks() {
    let corpus = corpus();
    let mut random = Random(11);
    for round in 0..6000 {
        let case = &corpus[random.below(corpus.len())];
        let mut body = case.body.clone();
        for _ in 0..=random.below(6) {
            mutate(&mut random, &mut body, &corpus);
        }
        let broken = Case {
            body,
            name: format!("{} in round {round}", case.name),
            path: case.path.clone(),
            media: case.media.clone(),
            expect: Facts::default(),
            ..*case
        };
        let facts = read(&broken, None, std::iter::once(&broken.body[..]));
        let chunks = random.cut(&broken.body, 60);
        assert_eq!(read(&broken, None, chunks.into_iter()), facts, "{}", broken.name);
        assert!(!(facts.cut && facts.empty), "{}: {facts:?}", broken.name);
    }
}

/// The same of packed bytes: a decoder that is lied to gives up, and says so.
#[test]
fn broken_packed_bytes_never_panic_and_never_grow() {
    let corpus = corpus();
    let mut random = Random(12);
    for (encoding, kind) in [("br", "br"), ("zstd", "zst")] {
        for name in ["messages-good.sse", "responses-doc-tool.json", "chat-doc-huge.json"] {
            let case = corpus.iter().find(|case| case.name == name).unwrap();
            let body = packed(&format!("{name}.{kind}"));
            for round in 0..1_500 {
                let mut broken = body.clone();
                for _ in 0..=random.below(3) {
                    mutate(&mut random, &mut broken, &corpus);
                }
                let broken = Case {
                    body: broken,
                    name: format!("{name}.{kind} in round {round}"),
                    path: case.path.clone(),
                    media: case.media.clone(),
                    expect: Facts::default(),
                    ..*case
                };
                let facts = read(&broken, Some(encoding), std::iter::once(&broken.body[..]));
                let chunks = random.cut(&broken.body, 60);
                let undecoded = read(&broken, Some(encoding), chunks.into_iter()).undecoded;
                assert_eq!(undecoded, facts.undecoded, "{}", broken.name);
            }
        }
    }
}

/// What an answer's text is to look like, told by its request.
#[test]
fn the_declared_shape_is_judged_in_every_dialect_however_it_is_streamed() {
    let schema = |name: &str| {
        let body = format!(
            "{{\"response_format\":{{\"type\":\"json_schema\",\"json_schema\":{{\"schema\":{{\"type\":\"object\",\"required\":[\"{name}\"]}}}}}}}}"
        );
        serin::wire::schema::Schema::of_request(body.as_bytes()).unwrap()
    };
    let chat =
        |text: &str| serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    let claude = |text: &str| serde_json::json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    let responses = |text: &str| serde_json::json!({"type": "response.output_text.delta", "delta": text});
    let stream =
        |parts: Vec<Value>, last: &str| parts.iter().map(|part| format!("data: {part}\n\n")).collect::<String>() + last;
    let parts = ["{\"ci", "ty\": \"Z\u{fc}rich \\n\"", "}"];
    let document = serde_json::json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": parts.concat()}, "finish_reason": "stop"}]});
    let cases = [
        ("/v1/chat/completions", "text/event-stream", stream(parts.map(chat).to_vec(), "data: [DONE]\n\n")),
        (
            "/v1/messages",
            "text/event-stream",
            stream(parts.map(claude).to_vec(), "data: {\"type\":\"message_stop\"}\n\n"),
        ),
        (
            "/v1/responses",
            "text/event-stream",
            stream(
                parts.map(responses).to_vec(),
                "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
            ),
        ),
        ("/v1/chat/completions", "application/json", document.to_string()),
    ];
    for (path, media, body) in &cases {
        for (name, expect) in [("city", Some(true)), ("town", Some(false)), ("", None)] {
            for size in [1, 7, body.len()] {
                let mut reader = Reader::for_exchange(Protocol::Auto, path, Some(media), None);
                if !name.is_empty() {
                    reader.expect(schema(name));
                }
                body.as_bytes().chunks(size).for_each(|chunk| reader.chunk(chunk, Mono(1)));
                assert_eq!(reader.finish(true).schema_valid, expect, "{path} {media} {name} by {size}");
            }
            let mut cut = Reader::for_exchange(Protocol::Auto, path, Some(media), None);
            cut.expect(schema("city"));
            cut.chunk(&body.as_bytes()[..body.len() - 20], Mono(1));
            assert_eq!(cut.finish(true).schema_valid, None, "{path} {media}: a cut answer is not judged besides");
        }
    }
}

fn mutate(random: &mut Random, body: &mut Vec<u8>, corpus: &[Case]) {
    let at = random.below(body.len() + 1);
    let to = (at + random.below(40)).min(body.len());
    match random.below(5) {
        0 => drop(body.drain(at..to)),
        1 => body.splice(at..at, *b"\"").for_each(drop),
        2 => {
            let byte = b"{}[]\",:\\\n\r d0\xff\x80"[random.below(15)];
            body.splice(at..to.min(at + 1), [byte]).for_each(drop);
        }
        3 => {
            let other = &corpus[random.below(corpus.len())].body;
            let from = random.below(other.len());
            let part = other[from..(from + 300).min(other.len())].to_vec();
            body.splice(at..to, part).for_each(drop);
        }
        _ => {
            let part = body[at..to].to_vec();
            body.splice(at..at, part).for_each(drop);
        }
    }
}

/// What a straight reading by serde_json finds in a chat document.
fn oracle(document: &Value) -> (Option<u64>, Option<u64>, bool, u32, u32) {
    let message = &document["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let bad = calls.iter().filter(|call| {
        let arguments = call["function"]["arguments"].as_str().unwrap();
        !arguments.trim_matches([' ', '\n', '\r', '\t']).is_empty() && serde_json::from_str::<Value>(arguments).is_err()
    });
    let empty = message["content"].as_str().unwrap_or_default().is_empty() && calls.is_empty();
    let used = &document["usage"];
    let count = |key: &str| used[key].as_u64();
    (count("prompt_tokens"), count("completion_tokens"), empty, calls.len() as u32, bad.count() as u32)
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        proptest::collection::vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect()),
        proptest::collection::vec(prop::sample::select(r#"{}[]":,\1a "usage""#.chars().collect::<Vec<_>>()), 0..30)
            .prop_map(|chars| chars.into_iter().collect()),
        Just(r#"{"a":[1,{"b":"\u00e9\n"}]}"#.to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..600), kind in 0..4usize, size in 1..50usize) {
        let path = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/mcp"][kind];
        for media in ["text/event-stream", "application/json"] {
            for encoding in [None, Some("gzip"), Some("br"), Some("zstd")] {
                for ending in [Ending::Clean, Ending::Broken, Ending::Cancelled] {
                    let mut reader = Reader::for_exchange(Protocol::Auto, path, Some(media), encoding);
                    body.chunks(size).for_each(|chunk| reader.chunk(chunk, Mono(1)));
                    prop_assert!(reader.kept() <= kept_max(encoding));
                    let facts = reader.finish(ending);
                    prop_assert_eq!(facts.bytes, body.len() as u64);
                }
            }
        }
    }

    #[test]
    fn chat_documents_are_read_as_serde_json_reads_them(
        content in any_text(), arguments in proptest::collection::vec(any_text(), 0..3), used in proptest::option::of((any::<u32>(), any::<u32>())),
        size in 1..400usize,
    ) {
        let calls: Vec<Value> = arguments.iter().map(|text| serde_json::json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": text}})).collect();
        let usage = used.map(|(prompt, completion)| serde_json::json!({"prompt_tokens": prompt, "completion_tokens": completion}));
        let document = serde_json::json!({"id": "x", "object": "chat.completion", "usage": usage,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content, "tool_calls": calls}, "finish_reason": "stop"}]});
        let body = document.to_string();
        let mut reader = Reader::for_exchange(Protocol::OpenAi, "/v1/chat/completions", Some("application/json"), None);
        body.as_bytes().chunks(size).for_each(|chunk| reader.chunk(chunk, Mono(1)));
        let facts = reader.finish(true);
        prop_assert_eq!((facts.tokens_in, facts.tokens_out, facts.empty, facts.tool_calls, facts.tool_errors), oracle(&document), "{}", body);
        prop_assert!(!facts.cut && !facts.malformed);
    }

    #[test]
    fn streamed_text_and_arguments_are_read_as_serde_json_reads_them(
        texts in proptest::collection::vec(any_text(), 0..6), arguments in any_text(), at in 0..40usize, size in 1..400usize,
    ) {
        let delta = |delta: Value| format!("data: {}\n\n", serde_json::json!({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]}));
        let call = |part: &str| delta(serde_json::json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}));
        let mut cut = at.min(arguments.len());
        while !arguments.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut body: String = texts.iter().map(|text| delta(serde_json::json!({"content": text}))).collect();
        body += &(call("") + &call(&arguments[..cut]) + &call(&arguments[cut..]) + "data: [DONE]\n\n");
        let mut reader = Reader::for_exchange(Protocol::OpenAi, "/v1/chat/completions", Some("text/event-stream"), None);
        body.as_bytes().chunks(size).for_each(|chunk| reader.chunk(chunk, Mono(1)));
        let facts = reader.finish(true);
        let bad = !arguments.trim_matches([' ', '\n', '\r', '\t']).is_empty() && serde_json::from_str::<Value>(&arguments).is_err();
        prop_assert_eq!(facts.tool_errors, u32::from(bad), "{}", body);
        let said = texts.iter().filter(|text| !text.is_empty()).count() as u32;
        prop_assert!(facts.token_events >= said && facts.token_events <= said + 3);
        prop_assert!(!facts.cut && facts.tool_calls == 1);
    }
}
