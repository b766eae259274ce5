//! What a reader finds out about one answer.

use crate::names::{Mono, Script};

/// What the rollout's config says its endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Decide for each answer by request path, content type and the shape of its first bytes.
    #[default]
    Auto,
    /// Plain HTTP: bodies are not looked at.
    Http,
    /// OpenAI and what is compatible with it: chat completions, completions, responses, embeddings.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// Model Context Protocol: JSON-RPC over JSON or SSE, both eras.
    Mcp,
}

impl Protocol {
    /// What requests for this path speak, as far as a path tells.
    #[must_use]
    pub fn for_path(path: &str) -> Protocol {
        let path = path.trim_end_matches('/');
        let ends = |tails: &[&str]| tails.iter().any(|tail| path.ends_with(tail));
        if ends(&["/chat/completions", "/completions", "/responses", "/embeddings", "/v1/models"]) {
            Protocol::OpenAi
        } else if ends(&["/v1/messages", "/v1/complete"]) {
            Protocol::Anthropic
        } else if ends(&["/mcp"]) {
            Protocol::Mcp
        } else {
            Protocol::Http
        }
    }

    /// This protocol, or for `auto` what the path tells.
    #[must_use]
    pub fn or_for_path(self, path: &str) -> Protocol {
        if self == Protocol::Auto { Protocol::for_path(path) } else { self }
    }
}

/// The form of one answer, as far as it was recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Not recognised (yet), or nothing to recognise: plain HTTP.
    #[default]
    Unknown,
    /// OpenAI `/chat/completions`.
    Chat,
    /// OpenAI `/completions`.
    Completions,
    /// OpenAI `/responses`.
    Responses,
    /// OpenAI `/embeddings`.
    Embeddings,
    /// Anthropic `/messages`.
    Messages,
    /// MCP JSON-RPC.
    Mcp,
    /// Gemini `:generateContent`.
    Gemini,
    /// Bedrock `/converse` and `/converse-stream`.
    Converse,
}

/// Why the model stopped, from the mildest to the gravest: where an answer has several choices, the gravest is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Finish {
    /// A natural end (`stop`, `end_turn`, `stop_sequence`, `completed`).
    Stop,
    /// It wants tools called (`tool_calls`, `function_call`, `tool_use`).
    ToolCalls,
    /// The turn is paused and will be continued by the caller (`pause_turn`).
    Pause,
    /// A reason this reader has no name for.
    Other,
    /// Out of tokens (`length`, `max_tokens`, `max_output_tokens`, `model_context_window_exceeded`).
    Length,
    /// The model refused (`refusal`).
    Refusal,
    /// A content filter stopped it (`content_filter`).
    ContentFilter,
    /// Generation failed (`failed`, `error`).
    Error,
}

/// How an answer's body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Upstream ended it in good order (as far as HTTP can tell).
    Clean,
    /// Upstream broke it off: reset, time-out, wrong length.
    Broken,
    /// The caller went away: nothing that is missing is held against the model.
    Cancelled,
}

impl From<bool> for Ending {
    /// `true` is [`Ending::Clean`], `false` is [`Ending::Cancelled`].
    fn from(clean_end: bool) -> Self {
        if clean_end { Ending::Clean } else { Ending::Cancelled }
    }
}

/// The facts of one answer. All silent by default: `None` and `false` mean "not known to be so".
///
/// The reader is not told the status: `in_band_error`, `empty` and `malformed` speak of what the body says, and count as
/// failures only under a 2xx (under a 4xx or 5xx an error object is what is expected).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The form that was read; `Unknown` when the body was not looked at.
    pub dialect: Dialect,
    /// The answer came as a stream of events.
    pub streamed: bool,
    /// Body bytes shown to the reader, as on the wire (before decoding).
    pub bytes: u64,
    /// When the first body byte passed.
    pub first_byte_at: Option<Mono>,
    /// When the last body byte passed.
    pub last_byte_at: Option<Mono>,
    /// When the first generated token passed: text, reasoning, refusal or a tool call; not a role, not a comment. Streams only.
    pub first_token_at: Option<Mono>,
    /// When the last generated token passed. Streams only.
    pub last_token_at: Option<Mono>,
    /// Events that carried generated tokens (an estimate of `tokens_out` where no usage was sent). Streams only.
    pub token_events: u32,
    /// Input tokens as the provider reports them (`prompt_tokens`, `input_tokens`).
    pub tokens_in: Option<u64>,
    /// Output tokens as the provider reports them, reasoning included.
    pub tokens_out: Option<u64>,
    /// Input tokens read from the provider's cache.
    pub tokens_cached: Option<u64>,
    /// Input tokens written into the provider's cache (Anthropic, Bedrock).
    pub tokens_cache_written: Option<u64>,
    /// Output tokens spent on reasoning.
    pub tokens_reasoning: Option<u64>,
    /// Why the model stopped.
    pub finish: Option<Finish>,
    /// The model refused to answer.
    pub refusal: bool,
    /// A content filter stopped the answer or its prompt.
    pub filtered: bool,
    /// A safety rule of the rollout was broken by what the answer says.
    pub rule_broken: bool,
    /// The language or writing of what the answer says, where it was asked for and there were letters enough.
    pub script: Option<Script>,
    /// A whole answer without content, tool call or refusal.
    pub empty: bool,
    /// The body is, or ends in, an error.
    pub in_band_error: bool,
    /// The code of a JSON-RPC error (MCP).
    pub rpc_error: Option<i64>,
    /// The last word of a streamed answer was seen (`[DONE]`, `message_stop`, …): it is whole, however its body ends after that.
    pub done: bool,
    /// The answer stopped before its end: no `[DONE]`, `message_stop`, `response.completed`, no answer to the call, half a document.
    pub cut: bool,
    /// The model ran out of tokens.
    pub truncated: bool,
    /// The document is not JSON although it says so.
    pub malformed: bool,
    /// Tool calls the model made; for MCP, tool results in the answer.
    pub tool_calls: u32,
    /// Fingerprint of the name of the first tool that it calls; not for MCP, whose answers do not repeat it.
    pub tool: Option<u64>,
    /// Tool calls whose arguments are not JSON; for MCP, results with `isError`.
    pub tool_errors: u32,
    /// Whether the text of a whole answer has the shape that its request declared (`response_format`); `None` where it
    /// declared none, the reader was not told, or the text was too long to be kept.
    pub schema_valid: Option<bool>,
    /// Events beyond the size bound, of which only head and tail were looked at.
    pub oversized: u32,
    /// Events after the end of the answer, and second beginnings: a duplicated stream.
    pub duplicates: u32,
    /// The body is in an encoding that the tap does not decode, or did not decode, or its framing is damaged: nothing is known
    /// of it.
    pub undecoded: bool,
}

impl Facts {
    /// Input tokens that were neither read from nor written into a cache, whichever way the provider counts:
    /// OpenAI's and Gemini's input includes the cached tokens, Anthropic's and Bedrock's does not.
    #[must_use]
    pub fn tokens_in_fresh(&self) -> Option<u64> {
        match self.dialect {
            Dialect::Messages | Dialect::Converse => self.tokens_in,
            _ => self.tokens_in.map(|all| all.saturating_sub(self.tokens_cached.unwrap_or(0))),
        }
    }

    /// Tokens of every kind, each counted once: input, fresh or read from or written into a cache, and output.
    #[must_use]
    pub fn tokens_all(&self) -> u64 {
        let input = match self.dialect {
            Dialect::Messages | Dialect::Converse => [self.tokens_in, self.tokens_cached, self.tokens_cache_written],
            _ => [self.tokens_in, None, None],
        };
        input.into_iter().chain([self.tokens_out]).flatten().fold(0, u64::saturating_add)
    }

    /// Time per output token after the first, in nanoseconds: (last − first) / (tokens − 1). `None` below two tokens.
    #[must_use]
    pub fn tpot_ns(&self) -> Option<u64> {
        let (first, last) = (self.first_token_at?, self.last_token_at?);
        let tokens = self.tokens_out.unwrap_or(u64::from(self.token_events));
        let between = tokens.checked_sub(1).filter(|n| *n > 0)?;
        Some(last.0.saturating_sub(first.0) / between)
    }

    /// Takes a finish reason in; the gravest stays.
    pub fn finished(&mut self, finish: Finish) {
        self.truncated |= finish == Finish::Length;
        self.filtered |= finish == Finish::ContentFilter;
        self.refusal |= finish == Finish::Refusal;
        self.in_band_error |= finish == Finish::Error;
        self.finish = self.finish.max(Some(finish));
    }

    /// Notes that generated tokens passed at `now`.
    pub fn token(&mut self, now: Mono) {
        self.first_token_at.get_or_insert(now);
        self.last_token_at = Some(now);
        self.token_events = self.token_events.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finish_of_several_choices_is_kept() {
        let mut facts = Facts::default();
        facts.finished(Finish::Length);
        facts.finished(Finish::Stop);
        assert_eq!(facts.finish, Some(Finish::Length));
        assert!(facts.truncated && !facts.filtered);
    }

    #[test]
    fn time_per_output_token_leaves_the_first_token_out() {
        let mut facts = Facts::default();
        for at in [100, 150, 300] {
            facts.token(Mono(at));
        }
        assert_eq!(facts.tpot_ns(), Some(100));
        facts.tokens_out = Some(11);
        assert_eq!(facts.tpot_ns(), Some(20));
        facts.tokens_out = Some(1);
        assert_eq!(facts.tpot_ns(), None);
    }

    #[test]
    fn fresh_input_is_the_same_whichever_way_the_provider_counts() {
        let openai =
            Facts { dialect: Dialect::Chat, tokens_in: Some(100), tokens_cached: Some(60), ..Facts::default() };
        let anthropic =
            Facts { dialect: Dialect::Messages, tokens_in: Some(40), tokens_cached: Some(60), ..Facts::default() };
        assert_eq!(openai.tokens_in_fresh(), anthropic.tokens_in_fresh());
        let written = Facts { tokens_cache_written: Some(5), tokens_out: Some(3), ..anthropic };
        assert_eq!((openai.tokens_all(), anthropic.tokens_all(), written.tokens_all()), (100, 100, 108));
        assert_eq!(Facts::default().tokens_all(), 0);
    }
}
