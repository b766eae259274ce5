//! OpenAI's dialects and what is compatible with them: chat completions, completions, responses, embeddings.
//!
//! Sources: the OpenAI API reference, and how vLLM, Azure, Mistral, DeepSeek and Gemini deviate from it (spaces after colons,
//! reasoning in `reasoning_content` or `reasoning`, content as parts, ids told only once or with every delta, several whole
//! calls under one index, usage in every chunk or in none).

use super::echo::{Echo, Said};
use super::facts::{Dialect, Finish};
use super::scan::{self, Fault, key};
use super::sse::{Event, Piece};
use super::tally::{Parts, Tally};
use crate::names::Mono;

/// Takes an event of a chat completion or completion stream in.
pub(crate) fn chat_event(tally: &mut Tally, echo: &mut Echo, event: Event<'_>, now: Mono) {
    let data = match event.data {
        Piece::Whole(data) => data,
        Piece::Ends(head, tail) => return chat_ends(tally, head, tail, now),
    };
    if data == b"[DONE]" || data.trim_ascii() == b"[DONE]" {
        if tally.ended {
            tally.duplicate();
        }
        tally.ended = true;
        tally.answer = true;
        return;
    }
    if tally.ended && !data.is_empty() {
        return tally.duplicate();
    }
    if let Some(heard) = echo.heard(data)
        && heard.rest.is_none_or(|rest| matches!(heard.said, Said::Answer(_)) && nothing_told(rest))
    {
        tally.said(heard.said, heard.text);
        return tally.facts.token(now);
    }
    if let Some((at, said)) = plain_delta(tally.facts.dialect, data) {
        echo.learn(data, at, said);
        let inside = data.get(at.saturating_sub(1)..).and_then(scan::leading_string);
        tally.said(said, inside.unwrap_or_default());
        return tally.facts.token(now);
    }
    if event.name == b"error" {
        tally.error();
    }
    tally.parts = Parts::default();
    if chat_parts(tally, data) == Ok(true) {
        tally.facts.token(now);
        if let (1, Some(call)) = (tally.parts.calls, tally.parts.call)
            && let Some(at) = only_arguments(data)
        {
            echo.learn(data, at, Said::Arguments(call));
        }
    }
}

/// A chunk that only carries on one tool call: where its arguments begin (after their quote).
fn only_arguments(data: &[u8]) -> Option<usize> {
    let value = scan::after_key(data, &key::ARGUMENTS).filter(|value| value.starts_with(b"\""))?;
    let nothing_said = [&key::CONTENT, &key::REASONING_CONTENT, &key::REASONING, &key::FUNCTION_CALL, &key::AUDIO]
        .iter()
        .all(|key| scan::absent_or_null(data, key));
    (nothing_said && no_end_told(data)).then_some(data.len() - value.len() + 1)
}

/// The hot path: a chunk that carries text and nothing else that we ask for, decided by probes alone.
/// Says where the text begins (after its quote), and whether it is of the answer or reasoning.
fn plain_delta(dialect: Dialect, data: &[u8]) -> Option<(usize, Said)> {
    let text = |key| scan::after_key(data, key).filter(|value| scan::begins_filled(value));
    let answer = text(if dialect == Dialect::Completions { &key::TEXT } else { &key::CONTENT });
    let (value, said) = match answer {
        Some(value) => (value, Said::Answer(choice_of(data))),
        None => (text(&key::REASONING_CONTENT).or_else(|| text(&key::REASONING))?, Said::Thought),
    };
    nothing_told(data).then_some((data.len() - value.len() + 1, said))
}

/// The choice that a chunk of one choice speaks of.
fn choice_of(data: &[u8]) -> u64 {
    let digits = scan::after_key(data, &key::INDEX).unwrap_or_default();
    digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .take(9)
        .fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
}

/// No end, usage, error, refusal or tool call is told in this chunk, or in this last part of one.
fn nothing_told(data: &[u8]) -> bool {
    no_end_told(data) && scan::absent_or_null(data, &key::TOOL_CALLS)
}

fn no_end_told(data: &[u8]) -> bool {
    data.last() == Some(&b'}')
        && scan::absent_or_null(data, &key::FINISH_REASON)
        && scan::absent_or_null(data, &key::USAGE)
        && scan::absent_or_null(data, &key::ERROR)
        && scan::absent_or_null(data, &key::REFUSAL)
}

/// A chunk too large to be kept: surely it has content; its usage and finish stand at its end.
fn chat_ends(tally: &mut Tally, head: &[u8], tail: &[u8], now: Mono) {
    tally.filled = true;
    tally.facts.token(now);
    if scan::has_pair(head, b"\"error\"", b"{") {
        tally.error();
    }
    finish_in_tail(tally, tail);
    usage_in_tail(tally, tail);
}

fn finish_in_tail(tally: &mut Tally, tail: &[u8]) {
    let reason = scan::after_last_key(tail, b"\"finish_reason\"").and_then(scan::leading_string);
    if let Some(reason) = reason.and_then(|raw| std::str::from_utf8(raw).ok()) {
        chat_finish(tally, reason);
    }
}

/// The usage object that stands last in the end of something large.
pub(crate) fn usage_in_tail(tally: &mut Tally, tail: &[u8]) {
    usage(tally, scan::after_last_key(tail, b"\"usage\"").and_then(scan::leading_value));
}

/// Reads one chat (or completion) object, chunk or whole. Says whether it carries generated tokens.
pub(crate) fn chat_parts(tally: &mut Tally, data: &[u8]) -> Result<bool, Fault> {
    const NAMES: [&str; 4] = ["choices", "usage", "error", "object"];
    let [choices, used, error, object] = scan::fields(data, &NAMES)?;
    if error.is_some() || scan::text(object) == Some("error") {
        tally.error();
    }
    usage(tally, used);
    tally.answer |= choices.is_some();
    let mut token = false;
    scan::elements(choices, |choice| token |= chat_choice(tally, choice));
    Ok(token)
}

fn chat_choice(tally: &mut Tally, choice: &str) -> bool {
    const NAMES: [&str; 5] = ["index", "delta", "message", "text", "finish_reason"];
    let [index, delta, message, text, finish] = scan::inner(Some(choice), &NAMES);
    if let Some(reason) = scan::text(finish).filter(|reason| !reason.is_empty()) {
        chat_finish(tally, reason);
    }
    const SAID: [&str; 7] =
        ["content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "audio"];
    let [content, thought, thought_too, refusal, calls, call, audio] = scan::inner(delta.or(message), &SAID);
    let said = scan::filled(content) || scan::filled(text) || scan::filled(audio);
    let refused = scan::filled(refusal);
    tally.filled |= said;
    tally.facts.refusal |= refused;
    let choice = scan::count(index).unwrap_or(0);
    if said {
        tally.text(choice, scan::text(content.or(text)).map(str::as_bytes));
    }
    let mut place = 0;
    scan::elements(calls, |part| {
        chat_call(tally, choice, place, part);
        place += 1;
    });
    if call.is_some() {
        let [name, arguments] = scan::inner(call, &["name", "arguments"]);
        tally.named(scan::text(name));
        tally.part_of_call((choice, u64::MAX), None, scan::text(arguments).unwrap_or_default().as_bytes());
    }
    said || refused || place > 0 || call.is_some() || scan::filled(thought) || scan::filled(thought_too)
}

fn chat_call(tally: &mut Tally, choice: u64, place: u64, part: &str) {
    let [index, id, function, custom] = scan::inner(Some(part), &["index", "id", "function", "custom"]);
    let [name, arguments] = scan::inner(function, &["name", "arguments"]);
    let [own] = scan::inner(custom, &["name"]);
    tally.named(scan::text(name.or(own)));
    let id = scan::text(id).filter(|id| !id.is_empty()).map(str::as_bytes);
    let key = (choice, scan::count(index).unwrap_or(place));
    tally.parts.calls += 1;
    tally.parts.call = id.is_none().then_some(key);
    tally.part_of_call(key, id, scan::text(arguments).unwrap_or_default().as_bytes());
}

fn chat_finish(tally: &mut Tally, reason: &str) {
    tally.facts.finished(match reason {
        "stop" | "eos" | "end_turn" | "stop_sequence" => Finish::Stop,
        "length" | "max_tokens" | "model_length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::ContentFilter,
        "refusal" => Finish::Refusal,
        "error" => Finish::Error,
        _ => Finish::Other,
    });
}

/// Usage in either of OpenAI's spellings; what is told later replaces what was told before.
fn usage(tally: &mut Tally, used: Option<&str>) {
    const NAMES: [&str; 8] = [
        "prompt_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "input_tokens",
        "output_tokens",
        "input_tokens_details",
        "output_tokens_details",
    ];
    if used.is_none() {
        return;
    }
    let [prompt, completion, prompt_more, completion_more, input, output, input_more, output_more] =
        scan::inner(used, &NAMES);
    let [cached] = scan::inner(prompt_more.or(input_more), &["cached_tokens"]);
    let [reasoning] = scan::inner(completion_more.or(output_more), &["reasoning_tokens"]);
    let facts = &mut tally.facts;
    facts.tokens_in = scan::count(prompt).or(scan::count(input)).or(facts.tokens_in);
    facts.tokens_out = scan::count(completion).or(scan::count(output)).or(facts.tokens_out);
    facts.tokens_cached = scan::count(cached).or(facts.tokens_cached);
    facts.tokens_reasoning = scan::count(reasoning).or(facts.tokens_reasoning);
}

/// Takes an event of a responses stream in. Its kind stands in the `event:` line and again in `type`.
pub(crate) fn responses_event(tally: &mut Tally, event: Event<'_>, now: Mono) {
    let (head, tail, whole) = match event.data {
        Piece::Whole(data) => (data, data, true),
        Piece::Ends(head, tail) => (head, tail, false),
    };
    if head.is_empty() || head == b"[DONE]" {
        return;
    }
    let kind = kind_of(event.name, head);
    if tally.ended {
        return tally.duplicate();
    }
    if kind.ends_with(b".delta") {
        if scan::after_key(head, &key::DELTA).is_some_and(|delta| scan::begins_filled(delta) || delta.starts_with(b"{"))
        {
            if kind == b"response.output_text.delta" {
                tally.filled = true;
                tally.text(0, scan::after_key(head, &key::DELTA).and_then(scan::leading_string).filter(|_| whole));
            }
            tally.filled |= kind == b"response.audio.delta";
            tally.facts.refusal |= kind == b"response.refusal.delta";
            tally.facts.token(now);
        }
        return;
    }
    match kind {
        b"response.created" if std::mem::replace(&mut tally.begun, true) => tally.duplicate(),
        b"response.output_item.done" if whole => {
            if let Ok([item]) = scan::fields(head, &["item"]) {
                output_item(tally, item.unwrap_or_default());
            }
        }
        b"response.output_item.done" => oversized_item(tally, head),
        b"response.completed" | b"response.incomplete" | b"response.failed" | b"response.cancelled" => {
            responses_end(tally, kind, head, tail, whole);
        }
        b"error" => tally.error(),
        b"" if scan::after_key(head, &key::ERROR).is_some_and(|error| error.starts_with(b"{")) => tally.error(),
        _ => (),
    }
}

/// The kind of an event: its name, or else the `type` of its data.
pub(crate) fn kind_of<'a>(name: &'a [u8], data: &'a [u8]) -> &'a [u8] {
    if !name.is_empty() && name != b"message" {
        return name;
    }
    if let Some(value) = data.trim_ascii_start().strip_prefix(b"{\"type\"").and_then(|rest| rest.strip_prefix(b":")) {
        return scan::leading_string(value.trim_ascii_start()).unwrap_or_default();
    }
    match scan::fields(data, &["type"]) {
        Ok([kind]) => scan::text(kind).unwrap_or_default().as_bytes(),
        Err(_) => scan::after_key(data, &key::TYPE).and_then(scan::leading_string).unwrap_or_default(),
    }
}

fn oversized_item(tally: &mut Tally, head: &[u8]) {
    if scan::has_pair(head, b"\"type\"", b"\"function_call\"")
        || scan::has_pair(head, b"\"type\"", b"\"custom_tool_call\"")
    {
        tally.call();
    }
    tally.filled = true;
}

fn responses_end(tally: &mut Tally, kind: &[u8], head: &[u8], tail: &[u8], whole: bool) {
    tally.ended = true;
    tally.answer = true;
    if whole && let Ok([Some(response)]) = scan::fields(head, &["response"]) {
        let streamed = tally.filled || tally.facts.tool_calls > 0 || tally.facts.refusal;
        let told = response_object(tally, response.as_bytes(), !streamed);
        debug_assert!(told.is_ok(), "it was checked as part of the event");
    } else if !whole {
        tally.filled = true;
        if scan::has_pair(head, b"\"reason\"", b"\"max_output_tokens\"") {
            tally.facts.finished(Finish::Length);
        } else if scan::has_pair(head, b"\"reason\"", b"\"content_filter\"") {
            tally.facts.finished(Finish::ContentFilter);
        }
        usage_in_tail(tally, tail);
    }
    if kind == b"response.failed" {
        tally.facts.finished(Finish::Error);
    } else if tally.facts.finish.is_none() {
        tally.facts.finished(if kind == b"response.completed" { Finish::Stop } else { Finish::Other });
    }
}

/// Reads a response object, whole or at the end of a stream. `output` is asked only where it was not streamed before.
pub(crate) fn response_object(tally: &mut Tally, data: &[u8], ask_output: bool) -> Result<(), Fault> {
    const NAMES: [&str; 6] = ["status", "error", "incomplete_details", "output", "usage", "object"];
    let [status, error, incomplete, output, used, object] = scan::fields(data, &NAMES)?;
    if error.is_some() || scan::text(object) == Some("error") {
        tally.error();
    }
    usage(tally, used);
    if ask_output {
        scan::elements(output, |item| output_item(tally, item));
    }
    let status = scan::text(status);
    // queued, in_progress: the answer is yet to come, somewhere else.
    tally.answer |= output.is_some() && matches!(status, None | Some("completed" | "incomplete" | "failed"));
    let [reason] = scan::inner(incomplete, &["reason"]);
    match (status, scan::text(reason)) {
        (_, Some("max_output_tokens" | "max_tokens")) => tally.facts.finished(Finish::Length),
        (_, Some("content_filter")) => tally.facts.finished(Finish::ContentFilter),
        (Some("failed"), _) => tally.facts.finished(Finish::Error),
        (Some("completed"), _) if tally.facts.tool_calls > 0 => tally.facts.finished(Finish::ToolCalls),
        (Some("completed"), _) => tally.facts.finished(Finish::Stop),
        (Some("incomplete" | "cancelled"), _) => tally.facts.finished(Finish::Other),
        _ => (),
    }
    Ok(())
}

/// One item of a response's output.
fn output_item(tally: &mut Tally, item: &str) {
    let [kind, content, arguments, name] = scan::inner(Some(item), &["type", "content", "arguments", "name"]);
    if matches!(scan::text(kind), Some("function_call" | "custom_tool_call")) {
        tally.named(scan::text(name));
    }
    match scan::text(kind) {
        Some("message") => scan::elements(content, |part| {
            let [text, refusal] = scan::inner(Some(part), &["text", "refusal"]);
            tally.facts.refusal |= scan::filled(refusal);
            if scan::filled(text) {
                tally.filled = true;
                tally.text(0, scan::text(text).map(str::as_bytes));
            }
        }),
        Some("function_call") => tally.whole_call(scan::text(arguments).unwrap_or_default().as_bytes()),
        Some("custom_tool_call") => tally.call(),
        Some("reasoning") | None => (),
        Some(_) => tally.filled = true,
    }
}

/// Reads an embeddings answer.
pub(crate) fn embeddings(tally: &mut Tally, data: &[u8]) -> Result<(), Fault> {
    let [vectors, used, error] = scan::fields(data, &["data", "usage", "error"])?;
    if error.is_some() {
        tally.error();
    }
    usage(tally, used);
    tally.answer = vectors.is_some();
    tally.filled = scan::filled(vectors);
    Ok(())
}

/// What the ends of a document too large to be kept can tell, in any of the dialects here.
pub(crate) fn document_ends(tally: &mut Tally, head: &[u8], tail: &[u8]) {
    usage_in_tail(tally, tail);
    match tally.facts.dialect {
        Dialect::Chat | Dialect::Completions => finish_in_tail(tally, tail),
        Dialect::Responses => {
            if let Some(status) = scan::after_key(head, &key::STATUS).and_then(scan::leading_string) {
                match status {
                    b"completed" => tally.facts.finished(Finish::Stop),
                    b"failed" => tally.facts.finished(Finish::Error),
                    _ if scan::has_pair(head, b"\"reason\"", b"\"max_output_tokens\"") => {
                        tally.facts.finished(Finish::Length);
                    }
                    _ => (),
                }
            }
        }
        _ => (),
    }
}
