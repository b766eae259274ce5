//! Bedrock's Converse, as a document and as a stream (whose binary framing `framed` takes away). Models that are invoked
//! with their maker's body answer in their maker's dialect and are known by its shape.
//!
//! Source: the Amazon Bedrock API reference ("Converse", "ConverseStream"). Input tokens there do not include those of the
//! cache.

use super::anthropic::Blocks;
use super::facts::Finish;
use super::scan::{self, Fault, Validator};
use super::sse::{Event, Piece};
use super::tally::Tally;
use crate::names::Mono;

/// Takes an event of a stream in. Its usage comes last, behind the end of the message.
pub(crate) fn event(tally: &mut Tally, blocks: &mut Blocks, event: Event<'_>, now: Mono) {
    let (data, whole) = match event.data {
        Piece::Whole(data) => (data, true),
        Piece::Ends(head, _) => (head, false),
    };
    if tally.ended && event.name != b"metadata" {
        return tally.duplicate();
    }
    match event.name {
        b"contentBlockDelta" => block_delta(tally, blocks, data, whole, now),
        b"messageStart" if std::mem::replace(&mut tally.begun, true) => tally.duplicate(),
        b"contentBlockStart" => {
            let [start] = scan::fields(data, &["start"]).unwrap_or_default();
            let [call] = scan::inner(start, &["toolUse"]);
            if call.is_some() {
                let [name] = scan::inner(call, &["name"]);
                tally.named(scan::text(name));
                tally.call();
                blocks.arguments = Some(Validator::new());
                tally.facts.token(now);
            } else {
                tally.filled |= scan::filled(start); // an image, or what is yet to be invented
            }
        }
        b"contentBlockStop" => {
            if let Some(arguments) = blocks.arguments.take() {
                tally.judge_arguments(&arguments);
            }
        }
        b"messageStop" => {
            let [reason] = scan::fields(data, &["stopReason"]).unwrap_or_default();
            finish(tally, reason);
            tally.ended = true;
            tally.answer = true;
        }
        b"metadata" => {
            let [used] = scan::fields(data, &["usage"]).unwrap_or_default();
            usage(tally, used);
        }
        _ => (),
    }
}

fn block_delta(tally: &mut Tally, blocks: &mut Blocks, data: &[u8], whole: bool, now: Mono) {
    if !whole {
        // Its middle was not seen: nothing can be said of arguments, and the text has no known shape.
        blocks.arguments = None;
        tally.filled = true;
        tally.text(0, None);
        return tally.facts.token(now);
    }
    let [delta] = scan::fields(data, &["delta"]).unwrap_or_default();
    let [text, call, thought] = scan::inner(delta, &["text", "toolUse", "reasoningContent"]);
    if scan::filled(text) {
        tally.filled = true;
        tally.text(0, scan::text(text).map(str::as_bytes));
        tally.facts.token(now);
    } else if call.is_some() {
        let [part] = scan::inner(call, &["input"]);
        if let (Some(arguments), Some(inside)) = (&mut blocks.arguments, scan::text(part)) {
            arguments.push_escaped(inside.as_bytes());
        }
        if scan::filled(part) {
            tally.facts.token(now);
        }
    } else if thought.is_some() {
        let [text] = scan::inner(thought, &["text"]);
        if scan::filled(text) {
            tally.facts.token(now);
        }
    }
}

/// Reads a whole answer.
pub(crate) fn document(tally: &mut Tally, data: &[u8]) -> Result<(), Fault> {
    let [output, reason, used] = scan::fields(data, &["output", "stopReason", "usage"])?;
    let [message] = scan::inner(output, &["message"]);
    let [content] = scan::inner(message, &["content"]);
    tally.answer = message.is_some();
    usage(tally, used);
    scan::elements(content, |block| {
        let [text, call, thought] = scan::inner(Some(block), &["text", "toolUse", "reasoningContent"]);
        if call.is_some() {
            let [name] = scan::inner(call, &["name"]);
            tally.named(scan::text(name));
            tally.call();
        } else if let Some(text) = scan::text(text) {
            tally.filled |= !text.is_empty();
            tally.text(0, Some(text.as_bytes()));
        } else if thought.is_none() {
            tally.filled = true;
        }
    });
    finish(tally, reason);
    Ok(())
}

/// What the end of an answer too large to be kept can tell.
pub(crate) fn ends(tally: &mut Tally, tail: &[u8]) {
    usage(tally, scan::after_last_key(tail, b"\"usage\"").and_then(scan::leading_value));
    finish(tally, scan::after_last_key(tail, b"\"stopReason\"").and_then(scan::leading_value));
}

fn finish(tally: &mut Tally, reason: Option<&str>) {
    let Some(reason) = scan::text(reason) else { return };
    if reason == "malformed_tool_use" {
        tally.call();
        tally.facts.tool_errors = tally.facts.tool_errors.saturating_add(1);
    }
    tally.facts.finished(match reason {
        "end_turn" | "stop_sequence" => Finish::Stop,
        "tool_use" => Finish::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "guardrail_intervened" | "content_filtered" => Finish::ContentFilter,
        _ => Finish::Other,
    });
}

fn usage(tally: &mut Tally, used: Option<&str>) {
    const NAMES: [&str; 4] = ["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"];
    let [input, output, read, written] = scan::inner(used, &NAMES).map(scan::count);
    let facts = &mut tally.facts;
    facts.tokens_in = input.or(facts.tokens_in);
    facts.tokens_out = output.or(facts.tokens_out);
    facts.tokens_cached = read.or(facts.tokens_cached);
    facts.tokens_cache_written = written.or(facts.tokens_cache_written);
}
