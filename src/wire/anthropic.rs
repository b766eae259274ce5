//! Anthropic messages, as a document and as a stream.
//!
//! Source: the Anthropic API reference ("Streaming messages", "Stop reasons", "Errors"). Input tokens there do not include
//! those read from or written into the cache; see [`Facts::tokens_in_fresh`](super::facts::Facts::tokens_in_fresh).

use super::facts::Finish;
use super::openai::kind_of;
use super::scan::{self, Fault, Validator, key};
use super::sse::{Event, Piece};
use super::tally::Tally;
use crate::names::Mono;

/// What a message stream needs besides its tally.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// The arguments of the tool call under way; blocks come one after the other.
    pub(super) arguments: Option<Validator>,
}

/// Takes an event of a message stream in.
pub(crate) fn event(tally: &mut Tally, blocks: &mut Blocks, event: Event<'_>, now: Mono) {
    let (data, whole) = match event.data {
        Piece::Whole(data) => (data, true),
        Piece::Ends(head, _) => (head, false),
    };
    if data.is_empty() {
        return;
    }
    let kind = kind_of(event.name, data);
    if tally.ended && kind != b"ping" {
        return tally.duplicate();
    }
    match kind {
        b"content_block_delta" => block_delta(tally, blocks, data, whole, now),
        b"ping" => (),
        b"message_start" => {
            if std::mem::replace(&mut tally.begun, true) {
                tally.duplicate();
            }
            let message = scan::fields(data, &["message"]).map_or(None, |[message]| message);
            let [used] = scan::inner(message, &["usage"]);
            usage(tally, used);
        }
        b"content_block_start" => {
            if let Ok([block]) = scan::fields(data, &["content_block"])
                && block_start(tally, blocks, block)
            {
                tally.facts.token(now);
            } else if !whole {
                tally.filled = true;
                tally.facts.token(now);
            }
        }
        b"content_block_stop" => {
            if let Some(arguments) = blocks.arguments.take() {
                tally.judge_arguments(&arguments);
            }
        }
        b"message_delta" => {
            if let Ok([delta, used]) = scan::fields(data, &["delta", "usage"]) {
                let [reason] = scan::inner(delta, &["stop_reason"]);
                finish(tally, reason);
                usage(tally, used);
            }
        }
        b"message_stop" => {
            tally.ended = true;
            tally.answer = true;
        }
        b"error" => tally.error(),
        _ => (),
    }
}

/// The hot path: decided by probes, since the kind of the event is known.
fn block_delta(tally: &mut Tally, blocks: &mut Blocks, data: &[u8], whole: bool, now: Mono) {
    if let Some(text) = scan::after_key(data, &key::TEXT).filter(|text| scan::begins_filled(text)) {
        tally.filled = true;
        tally.text(0, scan::leading_string(text).filter(|_| whole));
        return tally.facts.token(now);
    }
    if let Some(part) = scan::after_key(data, &key::PARTIAL_JSON) {
        if let (Some(arguments), Some(inside)) = (&mut blocks.arguments, scan::leading_string(part)) {
            arguments.push_escaped(inside);
        }
        if !whole {
            blocks.arguments = None; // its middle was not seen: nothing can be said of it
        }
        if scan::begins_filled(part) {
            tally.facts.token(now);
        }
        return;
    }
    if scan::after_key(data, &key::THINKING).is_some_and(scan::begins_filled) {
        tally.facts.token(now);
    }
}

/// Says whether the beginning of the block is itself generated content.
fn block_start(tally: &mut Tally, blocks: &mut Blocks, block: Option<&str>) -> bool {
    let [kind, text, name] = scan::inner(block, &["type", "text", "name"]);
    match scan::text(kind) {
        Some("tool_use") => {
            tally.named(scan::text(name));
            tally.call();
            blocks.arguments = Some(Validator::new());
            true
        }
        Some("text") => {
            if scan::filled(text) {
                tally.filled = true;
                tally.text(0, scan::text(text).map(str::as_bytes));
            }
            scan::filled(text)
        }
        Some("thinking" | "redacted_thinking") | None => false,
        Some(_) => {
            tally.filled = true; // a tool of the server's own, its result, or what is yet to be invented
            true
        }
    }
}

/// Reads a message document.
pub(crate) fn document(tally: &mut Tally, data: &[u8]) -> Result<(), Fault> {
    const NAMES: [&str; 5] = ["type", "content", "stop_reason", "usage", "error"];
    let [kind, content, reason, used, error] = scan::fields(data, &NAMES)?;
    if error.is_some() || scan::text(kind) == Some("error") {
        tally.error();
        return Ok(());
    }
    usage(tally, used);
    finish(tally, reason);
    tally.answer = content.is_some() && scan::text(kind) == Some("message");
    scan::elements(content, |block| {
        let _generated = block_start(tally, &mut Blocks::default(), Some(block));
    });
    Ok(())
}

/// What the ends of a message too large to be kept can tell.
pub(crate) fn document_ends(tally: &mut Tally, tail: &[u8]) {
    usage(tally, scan::after_last_key(tail, b"\"usage\"").and_then(scan::leading_value));
    finish(tally, scan::after_last_key(tail, b"\"stop_reason\"").and_then(scan::leading_value));
}

fn finish(tally: &mut Tally, reason: Option<&str>) {
    let Some(reason) = scan::text(reason) else { return };
    tally.facts.finished(match reason {
        "end_turn" | "stop_sequence" => Finish::Stop,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "pause_turn" => Finish::Pause,
        "refusal" => Finish::Refusal,
        _ => Finish::Other,
    });
}

/// Usage is told twice in a stream, the second time cumulative; a second telling of 0 or nothing takes nothing back.
fn usage(tally: &mut Tally, used: Option<&str>) {
    const NAMES: [&str; 4] =
        ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
    if used.is_none() {
        return;
    }
    let [input, output, read, written] = scan::inner(used, &NAMES);
    let later = |old: &mut Option<u64>, raw| match scan::count(raw) {
        Some(0) if old.is_some() => (),
        Some(new) => *old = Some(new),
        None => (),
    };
    let facts = &mut tally.facts;
    later(&mut facts.tokens_in, input);
    later(&mut facts.tokens_out, output);
    later(&mut facts.tokens_cached, read);
    later(&mut facts.tokens_cache_written, written);
}
