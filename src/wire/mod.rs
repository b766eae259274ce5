//! AI protocol readers: bytes in, facts out.
//!
//! A [`Reader`] is shown every body frame of an answer as it passes (a tap: the bytes are never changed and never
//! waited for) and says at the end what the model said: when the first token came, how many were spent, whether the
//! answer was whole, empty, refused, cut or an error in disguise. It is pure: time comes in as [`crate::names::Mono`].
//! Every reader is bounded in memory, never panics, and stays silent on what it does not understand.
//!
//! `reader` decides what to look with; `sse` and `eventstream` split streams, `framed` reads what Bedrock wraps, `document` collects documents, `decode` unpacks gzip, br and
//! zstd; `script` and `language` tell what a text is written in; `openai`, `anthropic`, `gemini`, `bedrock` and `mcp` know the dialects; `scan` looks into JSON, `walk` through what was checked; `echo` spares looking twice; `tally` keeps
//! what was found. Of requests, `schema` reads the shape that an answer is to have, `history` recognises a conversation that is
//! asked again, and `edit` puts other values into a body as it passes: those that `rewrite` chooses for a version.

mod anthropic;
mod bedrock;
mod decode;
mod decode_brotli;
mod decode_zstd;
mod dialect;
mod document;
mod echo;
pub mod edit;
mod events;
mod eventstream;
pub mod facts;
mod framed;
mod gemini;
pub mod history;
mod language;
mod mcp;
mod openai;
pub mod reader;
mod rewrite;
mod safety;
mod said;
mod scan;
pub mod schema;
mod script;
mod sse;
mod tally;
mod walk;

pub use facts::{Dialect, Ending, Facts, Finish, Protocol};
pub use reader::Reader;
pub use rewrite::Rewrite;
pub use safety::{RULES_MAX, SafetyRules, Transcript};
