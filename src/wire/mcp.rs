//! MCP: JSON-RPC messages as a document or as a stream, with sessions (up to 2025-11-25) and without (2026-07-28).
//!
//! The reader does not see the request, so a result is taken for a tool's when it has a tool result's shape. A stream that
//! ends without an answer is cut, unless its events bore ids: then the client may resume it elsewhere (SEP-1699).

use super::facts::Ending;
use super::scan::{self, Fault, key};
use super::sse::{Event, Piece};
use super::tally::Tally;

/// Takes an event of a stream in.
pub(crate) fn event(tally: &mut Tally, event: Event<'_>) {
    match event.data {
        // Notifications and requests of the server are many; only answers have one of these keys. Events without a message
        // only set the id or the retry time; what is not JSON is none of ours.
        Piece::Whole(data) if !scan::has(data, &key::RESULT) && !scan::has(data, &key::ERROR) => (),
        Piece::Whole(data) => drop(document(tally, data)),
        Piece::Ends(head, tail) => document_ends(tally, head, tail),
    }
}

/// Reads one message or a batch.
pub(crate) fn document(tally: &mut Tally, data: &[u8]) -> Result<(), Fault> {
    if !data.trim_ascii_start().starts_with(b"[") {
        return message(tally, data);
    }
    let batch: &serde_json::value::RawValue = serde_json::from_slice(data).map_err(Fault::from)?;
    let mut read = Ok(());
    scan::elements(Some(batch.get()), |one| {
        if let Err(fault) = message(tally, one.as_bytes()) {
            read = Err(fault);
        }
    });
    read
}

fn message(tally: &mut Tally, data: &[u8]) -> Result<(), Fault> {
    let [result, error, method] = scan::fields(data, &["result", "error", "method"])?;
    if method.is_some() || (result.is_none() && error.is_none()) {
        return Ok(());
    }
    tally.ended = true;
    if error.is_some() {
        let [code] = scan::inner(error, &["code"]);
        tally.facts.rpc_error = code.and_then(|code| code.parse().ok()).or(tally.facts.rpc_error);
        tally.error();
    }
    let [content, structured, failed] = scan::inner(result, &["content", "structuredContent", "isError"]);
    if content.is_some_and(|list| list.starts_with('[')) || structured.is_some() || failed.is_some() {
        tool_result(tally, failed == Some("true"));
    }
    Ok(())
}

fn tool_result(tally: &mut Tally, failed: bool) {
    tally.call();
    tally.facts.tool_errors = tally.facts.tool_errors.saturating_add(u32::from(failed));
}

/// What the ends of a message too large to be kept can tell.
pub(crate) fn document_ends(tally: &mut Tally, head: &[u8], tail: &[u8]) {
    let either = |key: &scan::Key| scan::has(head, key) || scan::has(tail, key);
    if scan::has(head, &key::METHOD) && !either(&key::RESULT) {
        return;
    }
    tally.ended = true;
    let failed = [head, tail].iter().any(|part| scan::has_pair(part, b"\"isError\"", b"true"));
    if failed || either(&key::CONTENT) || either(&key::STRUCTURED_CONTENT) {
        tool_result(tally, failed);
    }
}

/// Judges the end of a stream.
pub(crate) fn close(tally: &mut Tally, resumable: bool, ending: Ending) {
    tally.facts.cut = !tally.ended && !resumable && ending != Ending::Cancelled;
}
