//! What is fuzzed: each target takes any bytes and must not panic, must stay within its memory, and must agree with its oracle.
//!
//! Two ways lead here: `fuzz_targets/` under libFuzzer (`fuzz/run`, on stable), and `tests/fuzz.rs`, a seeded mutation run of the
//! same functions that every `cargo test` makes on stable.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::Value;
use serin::names::Mono;
use serin::wire::edit::{self, Edit, Editor};
use serin::wire::history::{Asked, Memory, Turn};
use serin::wire::schema::Schema;
use serin::wire::{Ending, Facts, Protocol, Reader};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 9] = [
    ("readers", readers),
    ("packed", packed),
    ("json", json),
    ("requests", requests),
    ("config", config),
    ("trace", trace),
    ("journal", journal),
    ("proxy_protocol", proxy_protocol),
    ("http1", http1),
];

const PATHS: [&str; 11] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/mcp",
    "/x",
    "/v1beta/models/x:streamGenerateContent?alt=sse",
    "/model/x/converse",
    "/model/x/converse-stream",
    "/model/x/invoke-with-response-stream",
];
/// The dialects of which a document tells its tokens: their path, and where input and output stand, the first that is there.
const TOLD: [(usize, [&[&str]; 2]); 6] = [
    (0, [&["/usage/prompt_tokens", "/usage/input_tokens"], &["/usage/completion_tokens", "/usage/output_tokens"]]),
    (1, [&["/usage/prompt_tokens", "/usage/input_tokens"], &["/usage/completion_tokens", "/usage/output_tokens"]]),
    (2, [&["/usage/prompt_tokens", "/usage/input_tokens"], &["/usage/completion_tokens", "/usage/output_tokens"]]),
    (3, [&["/usage/prompt_tokens", "/usage/input_tokens"], &["/usage/completion_tokens", "/usage/output_tokens"]]),
    (4, [&["/usage/input_tokens"], &["/usage/output_tokens"]]),
    (8, [&["/usage/inputTokens"], &["/usage/outputTokens"]]),
];
const PROTOCOLS: [Protocol; 5] = [Protocol::Auto, Protocol::Http, Protocol::OpenAi, Protocol::Anthropic, Protocol::Mcp];
const MEDIA: [&str; 4] = ["text/event-stream", "application/json", "text/plain", "application/vnd.amazon.eventstream"];
const ENDINGS: [Ending; 3] = [Ending::Clean, Ending::Broken, Ending::Cancelled];
/// Windows of the decoders twice over while they grow, an event, its ends.
const KEPT_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Four bytes that choose, then the body.
fn choices(data: &[u8]) -> Option<([usize; 4], &[u8])> {
    let (head, body) = data.split_first_chunk::<4>()?;
    Some((head.map(usize::from), body))
}

fn read(choice: [usize; 4], encoding: Option<&str>, body: &[u8], size: usize) -> Facts {
    let [path, protocol, media, ending] = choice;
    let mut reader = Reader::for_exchange(
        PROTOCOLS[protocol % PROTOCOLS.len()],
        PATHS[path % PATHS.len()],
        Some(MEDIA[media % MEDIA.len()]),
        encoding,
    );
    // Its language too, in half of all cases: that takes longer than all the rest.
    reader.screen(None, None, ending >= 128);
    for chunk in body.chunks(size.max(1)) {
        reader.chunk(chunk, Mono(1));
        assert!(reader.kept() <= KEPT_BYTES_MAX, "{} bytes kept", reader.kept());
    }
    reader.finish(ENDINGS[ending % ENDINGS.len()])
}

/// Streams and documents: however they are cut, the same is read.
pub fn readers(data: &[u8]) {
    let Some((choice, body)) = choices(data) else { return };
    let whole = read(choice, None, body, body.len());
    for size in [1, 2 + choice[3] % 61] {
        assert_eq!(read(choice, None, body, size), whole, "cut by {size}");
    }
    assert_eq!(whole.bytes, body.len() as u64);
}

/// The same behind each decoder; what was packed reads as what it was.
pub fn packed(data: &[u8]) {
    let Some((choice, body)) = choices(data) else { return };
    for encoding in ["gzip", "br", "zstd"] {
        let whole = read(choice, Some(encoding), body, body.len());
        assert_eq!(read(choice, Some(encoding), body, 1 + choice[3] % 61).undecoded, whole.undecoded, "{encoding}");
    }
    let facts = read(choice, Some("gzip"), &gzip(body, 1 + choice[2]), 1 + choice[3] % 61);
    let plain = read(choice, None, body, body.len());
    // Nothing at all is packed into some bytes.
    let Facts { bytes, first_byte_at, last_byte_at, .. } = plain;
    assert_eq!(Facts { bytes, first_byte_at, last_byte_at, ..facts }, plain, "packed, then unpacked");
}

/// Packed in members of so many bytes each.
fn gzip(body: &[u8], size: usize) -> Vec<u8> {
    use std::io::Write;
    let member = |part: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(part).and_then(|()| packer.finish()).unwrap_or_default()
    };
    if body.is_empty() { member(body) } else { body.chunks(size * 16).flat_map(member).collect() }
}

/// Documents against serde_json: what is no JSON is said to be none, what is JSON never is, and the tokens of every dialect
/// are those that its value has.
pub fn json(data: &[u8]) {
    if !data.starts_with(b"{") || data.len() > 200_000 {
        return;
    }
    let facts = read([0, 0, 1, 0], None, data, data.len());
    let wrong = facts.malformed || facts.cut;
    if serde_json::from_slice::<IgnoredAny>(data).is_err() {
        assert!(wrong, "not seen to be broken: {facts:?}");
    } else if serde_json::from_slice::<Value>(data).is_ok() {
        assert!(!wrong, "called broken: {facts:?}");
    }
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        TOLD.iter().for_each(|(path, told)| tokens(*path, *told, data, &value));
    }
}

fn tokens(path: usize, told: [&[&str]; 2], data: &[u8], value: &Value) {
    let facts = read([path, 0, 1, 0], None, data, data.len());
    // Of an error nothing more is asked, of what is too large only the ends are seen.
    if facts.in_band_error || facts.oversized > 0 {
        return;
    }
    let count = |pointer: &&str| {
        let number = value.pointer(pointer)?;
        let whole = |float: &f64| (0.0..9e15).contains(float) && float.fract() == 0.0;
        number.as_u64().or_else(|| number.as_f64().filter(whole).map(|float| float as u64))
    };
    let [input, output] = told.map(|pointers| pointers.iter().find_map(count));
    assert_eq!((facts.tokens_in, facts.tokens_out), (input, output), "tokens of {}: {facts:?}", PATHS[path]);
}

/// Request bodies: declared shapes, fingerprints, edits; the last against serde_json.
pub fn requests(data: &[u8]) {
    if let Some(schema) = Schema::of_request(data) {
        let _accepted = schema.accepts(&String::from_utf8_lossy(data));
    }
    if let Some(turn) = Turn::of_request(1, 2, data) {
        let memory = Memory::new(8, 60);
        assert_ne!(memory.asked(turn, 0, 1), Asked::Again, "the first time is no second");
        memory.answered(turn, 2);
        assert!(turn.before == Some(turn.asked) || memory.asked(turn, 0, 3) == Asked::Again, "the second time is one");
    }
    let edits: Arc<[Edit]> = Arc::new([
        Edit::text(&["model"], "é\""),
        Edit::text(&["prompt", "version"], "7"),
        Edit::set(&["added"], &1.into()),
    ]);
    let mut out = Vec::new();
    let mut editor = Editor::new(&edits);
    data.chunks(7).for_each(|chunk| editor.push(chunk, &mut out));
    editor.finish(&mut out);
    let mut at_once = Vec::new();
    let mut other = Editor::new(&edits);
    other.push(data, &mut at_once);
    other.finish(&mut at_once);
    assert!(out == at_once, "cut by 7");
    leads(data);
    let Ok(mut expect) = serde_json::from_slice::<Value>(data) else { return };
    if let Some(model) = expect.as_object_mut().and_then(|object| object.get_mut("model")) {
        *model = "é\"".into();
    }
    if let Some(object) = expect.as_object_mut() {
        object.insert("added".to_owned(), 1.into());
    }
    if let Some(version) =
        expect.get_mut("prompt").filter(|prompt| prompt.is_object()).and_then(|p| p.get_mut("version"))
    {
        *version = "7".into();
    }
    assert_eq!(serde_json::from_slice::<Value>(&out).ok(), Some(expect));
    assert_eq!(edit::whole(data, &edits).is_some(), editor.changed() > 0 && data.trim_ascii_start().starts_with(b"{"));
}

/// A system prompt in front of messages, against what serde_json makes of it.
fn leads(data: &[u8]) {
    let ours = serde_json::json!({"role": "system", "content": "S"});
    let edits: Arc<[Edit]> = Arc::new([Edit::lead(&["messages"], &ours)]);
    let mut out = Vec::new();
    let mut editor = Editor::new(&edits);
    data.chunks(3).for_each(|chunk| editor.push(chunk, &mut out));
    editor.finish(&mut out);
    let Ok(mut expect) = serde_json::from_slice::<Value>(data) else { return };
    // A role that is told twice, or with escapes, may be read either way.
    let roles = |text: &str| text.matches("\"role\"").count();
    if data.contains(&b'\\') || roles(&String::from_utf8_lossy(data)) != roles(&expect.to_string()) {
        return;
    }
    if let Some(messages) = expect.get_mut("messages").and_then(Value::as_array_mut) {
        if messages.first().is_some_and(|first| matches!(first["role"].as_str(), Some("system" | "developer"))) {
            messages.remove(0);
        }
        messages.insert(0, ours);
    }
    assert_eq!(serde_json::from_slice::<Value>(&out).ok(), Some(expect));
}

/// A configuration: faults are told, never a panic.
pub fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(serin::config::parse(text, "fuzz.toml", &|_| None));
    }
}

/// Lines of a trace.
pub fn trace(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(line) = serde_json::from_slice::<serin::judge::trace::Line<'_>>(line) {
            let mut facts = 0;
            let _told = line.facts(1, |_| facts += 1);
            assert!(facts <= 8, "{facts} facts of one line");
            for event in ["first_byte", "finish", "score", "query", "x"] {
                let _fact = line.fact(event, 5);
            }
        }
    }
}

/// Frames of a journal: each found frame ends inside the segment, and a walk comes to its end.
pub fn journal(data: &[u8]) {
    use serin::journal::chain::{Found, read};
    let (mut at, mut before) = (0, None);
    while let Found::Frame { next, hash, .. } = read(data, at, before.as_ref()) {
        assert!(next > at && next <= data.len());
        (at, before) = (next, Some(hash));
    }
}

/// HTTP/1.1 as both sides read it: heads and chunks are the same however they come, and what is chunked comes out whole.
pub fn http1(data: &[u8]) {
    let Some(([way, size], body)) = data.split_first_chunk::<2>() else { return };
    let size = 1 + usize::from(*size) % 61;
    match way % 4 {
        0 if !body.starts_with(b"\r\n\r\n\r\n") => {
            assert_eq!(request_head(body, size), request_head(body, body.len()), "a request cut by {size}");
        }
        1 => assert_eq!(response_head(body, size), response_head(body, body.len()), "an answer cut by {size}"),
        2 => assert_eq!(unchunked(body, size), unchunked(body, body.len()), "chunks cut by {size}"),
        _ => {
            let pieces = body.chunks(1 + usize::from(*way));
            let mut wire: Vec<u8> = pieces
                .flat_map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
                .collect();
            wire.extend_from_slice(b"0\r\n\r\nrest");
            assert_eq!(unchunked(&wire, size), Some((body.to_vec(), true)), "{size}");
        }
    }
}

/// The head at the front of `data` and how many bytes it took; `None` when it is refused, `Some(None)` when it is not whole.
fn request_head(data: &[u8], size: usize) -> Option<Option<(String, usize)>> {
    let limits = serin::http1::HeadLimits { bytes: 4096, fields: 20 };
    let (mut input, mut scanned) = (bytes::BytesMut::new(), 0);
    for (at, piece) in data.chunks(size.max(1)).enumerate() {
        input.extend_from_slice(piece);
        let head = serin::http1::head::take_request(&mut input, &mut scanned, limits).ok()?;
        if let Some(head) = head {
            return Some(Some((format!("{head:?}"), at * size + piece.len() - input.len())));
        }
    }
    Some(None)
}

fn response_head(data: &[u8], size: usize) -> Option<Option<(String, usize)>> {
    let (mut input, mut scanned) = (bytes::BytesMut::new(), 0);
    for (at, piece) in data.chunks(size.max(1)).enumerate() {
        input.extend_from_slice(piece);
        let head = serin::http1::head::take_response(&mut input, &mut scanned).ok()?;
        if let Some(head) = head {
            let bodies = [http::Method::GET, http::Method::HEAD].map(|method| head.body(&method));
            return Some(Some((format!("{head:?} {bodies:?}"), at * size + piece.len() - input.len())));
        }
    }
    Some(None)
}

/// The body in chunks at the front of `data`, and whether it is whole; `None` when it is refused.
fn unchunked(data: &[u8], size: usize) -> Option<(Vec<u8>, bool)> {
    use serin::http1::chunked::{Chunked, Step};
    let (mut input, mut chunked, mut body) = (bytes::BytesMut::new(), Chunked::default(), Vec::new());
    for piece in data.chunks(size.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match chunked.step(&mut input).ok()? {
                Step::Data(data) => body.extend_from_slice(&data),
                Step::End | Step::Trailers(_) => return Some((body, true)),
                Step::More => break,
            }
        }
    }
    Some((body, false))
}

/// The header in front of a connection.
pub fn proxy_protocol(data: &[u8]) {
    if let Ok(Some((_, length))) = serin::proxy::proxy_protocol::parse(data) {
        assert!(length <= data.len());
        let again = serin::proxy::proxy_protocol::parse(&data[..length]);
        assert!(matches!(again, Ok(Some((_, same))) if same == length), "a header is whole without what follows it");
    }
}
