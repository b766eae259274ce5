//! Gemini's generateContent, as a document (one object, or the list of chunks that streaming without SSE gives) and as a stream.
//!
//! Source: the Gemini API reference ("Generating content", `GenerateContentResponse`). A stream has no last word of its own: it is
//! whole when a chunk says why a candidate finished, or that the prompt was blocked. Thoughts are counted apart from the
//! candidates' tokens there; here they are part of the output, as everywhere.

use super::echo::{Echo, Said};
use super::facts::Finish;
use super::scan::{self, Fault};
use super::sse::{Event, Piece};
use super::tally::Tally;
use crate::names::Mono;

/// Takes an event of a stream in.
pub(crate) fn event(tally: &mut Tally, echo: &mut Echo, event: Event<'_>, now: Mono) {
    match event.data {
        Piece::Whole(b"") => (),
        Piece::Whole(data) => {
            if let Some(heard) = echo.heard(data)
                && heard.rest.is_none_or(|rest| echo.counts_on(rest))
            {
                tally.said(heard.said, heard.text);
                return tally.facts.token(now);
            }
            settle(tally, echo);
            if let Ok(told) = chunk(tally, data) {
                if let Some((at, said)) = told.only {
                    echo.learn_counting(data, at, said, told.count);
                }
                if told.token {
                    tally.facts.token(now);
                }
            }
        }
        Piece::Ends(_, tail) => {
            settle(tally, echo);
            tally.filled = true;
            tally.facts.token(now);
            ends(tally, tail);
        }
    }
}

/// Reads the usage that the last echo told.
pub(crate) fn settle(tally: &mut Tally, echo: &mut Echo) {
    if let Some(counted) = echo.counted() {
        usage(tally, scan::leading_value(counted));
    }
}

/// Reads a whole answer.
pub(crate) fn document(tally: &mut Tally, data: &[u8]) -> Result<(), Fault> {
    if !data.trim_ascii_start().starts_with(b"[") {
        return chunk(tally, data).map(|_| ());
    }
    let chunks: Vec<&serde_json::value::RawValue> = serde_json::from_slice(data)?;
    chunks.into_iter().try_for_each(|one| chunk(tally, one.get().as_bytes()).map(|_| ()))
}

/// What the end of an answer too large to be kept can tell.
pub(crate) fn ends(tally: &mut Tally, tail: &[u8]) {
    usage(tally, scan::after_last_key(tail, b"\"usageMetadata\"").and_then(scan::leading_value));
    finish(tally, scan::after_last_key(tail, b"\"finishReason\"").and_then(scan::leading_value));
}

/// What one response object is about.
#[derive(Default)]
struct Told {
    /// It carries generated tokens.
    token: bool,
    /// Beside its usage it says one text and nothing else: where that begins (after its quote), and what it is.
    only: Option<(usize, Said)>,
    /// Where its usage begins.
    count: Option<usize>,
}

/// Reads one response object.
fn chunk(tally: &mut Tally, data: &[u8]) -> Result<Told, Fault> {
    let [candidates, used, feedback, error] =
        scan::fields(data, &["candidates", "usageMetadata", "promptFeedback", "error"])?;
    if error.is_some() {
        tally.error();
    }
    usage(tally, used);
    let [blocked] = scan::inner(feedback, &["blockReason"]);
    if blocked.is_some() {
        tally.facts.finished(Finish::ContentFilter);
        tally.ended = true;
    }
    tally.answer |= candidates.is_some();
    let place = |inside: &str| inside.as_ptr().addr().checked_sub(data.as_ptr().addr());
    let mut told = Told { count: used.and_then(place), ..Told::default() };
    let (mut all, mut plain) = (0, error.is_none() && feedback.is_none());
    scan::elements(candidates, |candidate| {
        let [content, reason, index] = scan::inner(Some(candidate), &["content", "finishReason", "index"]);
        let [parts] = scan::inner(content, &["parts"]);
        scan::elements(parts, |one| {
            let candidate = scan::count(index).unwrap_or(0);
            let (token, text) = part(tally, candidate, one);
            told.token |= token;
            told.only = text.and_then(|(text, thought)| {
                Some((place(text)?, if thought { Said::Thought } else { Said::Answer(candidate) }))
            });
            all += 1;
        });
        plain &= reason.is_none();
        finish(tally, reason);
    });
    told.only = told.only.filter(|_| plain && all == 1);
    Ok(told)
}

/// Takes a part of a candidate's content in. Says whether it is generated, and if it is a text, the raw inside of that and
/// whether it is a thought.
fn part<'a>(tally: &mut Tally, candidate: u64, part: &'a str) -> (bool, Option<(&'a str, bool)>) {
    let [text, thought, call] = scan::inner(Some(part), &["text", "thought", "functionCall"]);
    if call.is_some() {
        let [name] = scan::inner(call, &["name"]);
        tally.named(scan::text(name));
        tally.call(); // its arguments are an object of the answer itself: JSON if that is
        return (true, None);
    }
    let Some(text) = scan::text(text) else {
        tally.filled = true; // a picture, code, or what is yet to be invented
        return (true, None);
    };
    if text.is_empty() {
        return (false, None);
    }
    let thought = thought == Some("true");
    if !thought {
        tally.filled = true;
        tally.text(candidate, Some(text.as_bytes()));
    }
    (true, Some((text, thought)))
}

fn finish(tally: &mut Tally, reason: Option<&str>) {
    let Some(reason) = scan::text(reason) else { return };
    let finish = match reason {
        "" | "FINISH_REASON_UNSPECIFIED" => return,
        "STOP" if tally.facts.tool_calls > 0 => Finish::ToolCalls,
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => Finish::ContentFilter,
        _ => Finish::Other,
    };
    if matches!(reason, "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL") {
        tally.call();
        tally.facts.tool_errors = tally.facts.tool_errors.saturating_add(1);
    }
    tally.facts.finished(finish);
    tally.ended = true;
    tally.answer = true;
}

/// Every chunk tells the usage so far; the last one counts.
fn usage(tally: &mut Tally, used: Option<&str>) {
    const NAMES: [&str; 4] =
        ["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount"];
    let [prompt, candidates, thoughts, cached] = scan::inner(used, &NAMES).map(scan::count);
    let facts = &mut tally.facts;
    facts.tokens_in = prompt.or(facts.tokens_in);
    if candidates.or(thoughts).is_some() {
        facts.tokens_out = Some(candidates.unwrap_or(0).saturating_add(thoughts.unwrap_or(0)));
    }
    facts.tokens_reasoning = thoughts.or(facts.tokens_reasoning);
    facts.tokens_cached = cached.or(facts.tokens_cached);
}
