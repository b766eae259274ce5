//! Bedrock's Converse, as a document. Its streams are a binary framing of Amazon's own and pass unread; models that are
//! invoked with their maker's body answer in their maker's dialect and are known by its shape.
//!
//! Source: the Amazon Bedrock API reference ("Converse"). Input tokens there do not include those of the cache.

use super::facts::Finish;
use super::scan::{self, Fault};
use super::tally::Tally;

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
