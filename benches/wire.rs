//! What reading costs: nanoseconds a streamed event and a JSON answer with the reader on.
//!
//! Budget (design section 9): at most 2,000 instructions an event, +15 % CPU of an event relayed (about 1.5 µs).
//! Each stream is fed event by event, one chunk each, as servers write them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serin::names::Mono;
use serin::wire::{Protocol, Reader};

const EVENTS: u64 = 1000;

/// Name, request path, and what writes the n-th event.
type Case = (&'static str, &'static str, fn(u64) -> String);

fn chat(index: u64) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-9zK3\",\"object\":\"chat.completion.chunk\",\"created\":1732190000,\"model\":\"gpt-large-0711\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" tok{index}\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    )
}

fn chat_usage_null(index: u64) -> String {
    chat(index).replace("null}]}", "null}],\"usage\":null}")
}

fn chat_reasoning(index: u64) -> String {
    chat(index).replace("\"content\":", "\"content\":null,\"reasoning_content\":")
}

/// As OpenAI sends it: padded with noise, so that no chunk echoes another.
fn chat_padded(index: u64) -> String {
    let noise = "aX3kd9Qz".get(..(index % 8) as usize).unwrap_or_default();
    chat(index).replace("null}]}", &format!("null}}],\"obfuscation\":\"{noise}{index}\"}}"))
}

fn chat_tool(index: u64) -> String {
    let part = if index == 0 { "[".to_owned() } else { format!("{index},\\\"a\\\",") };
    chat(index).replace(
        &format!("\"content\":\" tok{index}\""),
        &format!("\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":\"{part}\"}}}}]"),
    )
}

fn anthropic(index: u64) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" tok{index}\"}}}}\n\n"
    )
}

fn responses(index: u64) -> String {
    format!(
        "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":{index},\"item_id\":\"msg_67c9fdcf37fc8190\",\"output_index\":0,\"content_index\":0,\"delta\":\" tok{index}\",\"logprobs\":[],\"obfuscation\":\"aX3kd9\"}}\n\n"
    )
}

fn mcp(index: u64) -> String {
    format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":\"t\",\"progress\":{index},\"total\":1000}}}}\n\n"
    )
}

fn run<'a>(protocol: Protocol, path: &str, chunks: impl Iterator<Item = &'a [u8]>) -> serin::wire::Facts {
    let mut reader = Reader::for_exchange(protocol, path, Some("text/event-stream"), None);
    for (at, chunk) in chunks.enumerate() {
        reader.chunk(black_box(chunk), Mono(at as u64));
    }
    reader.finish(true)
}

fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/event");
    group.throughput(Throughput::Elements(EVENTS));
    let cases: [Case; 8] = [
        ("chat", "/v1/chat/completions", chat),
        ("chat_usage_null", "/v1/chat/completions", chat_usage_null),
        ("chat_reasoning", "/v1/chat/completions", chat_reasoning),
        ("chat_padded", "/v1/chat/completions", chat_padded),
        ("chat_tool", "/v1/chat/completions", chat_tool),
        ("responses", "/v1/responses", responses),
        ("anthropic", "/v1/messages", anthropic),
        ("mcp", "/mcp", mcp),
    ];
    for (name, path, event) in cases {
        let events: Vec<String> = (0..EVENTS).map(event).collect();
        let joined = events.concat();
        group.bench_function(name, |b| b.iter(|| run(Protocol::Auto, path, events.iter().map(String::as_bytes))));
        if name == "chat" {
            group.bench_function("chat_off", |b| {
                b.iter(|| run(Protocol::Http, path, events.iter().map(String::as_bytes)));
            });
            group.bench_function("chat_cut_at_1000_bytes", |b| {
                b.iter(|| run(Protocol::Auto, path, joined.as_bytes().chunks(1000)));
            });
        }
    }
    group.finish();
}

fn documents(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/document");
    for kib in [1, 2, 32, 1024] {
        let text = "The quick brown fox jumps over the lazy dog.\\n".repeat(kib * 1024 / 46);
        let body = format!(
            "{{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\"refusal\":null}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21,\"prompt_tokens_details\":{{\"cached_tokens\":0}}}}}}"
        );
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("chat_{kib}_kib"), |b| {
            b.iter(|| {
                let path = "/v1/chat/completions";
                let mut reader = Reader::for_exchange(Protocol::Auto, path, Some("application/json"), None);
                for chunk in body.as_bytes().chunks(16 * 1024) {
                    reader.chunk(black_box(chunk), Mono(1));
                }
                reader.finish(true)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, streams, documents);
criterion_main!(benches);
