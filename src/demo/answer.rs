//! The bodies that a scripted model server sends: OpenAI and Anthropic, JSON and server-sent events. Values in, bytes out.

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::Fate;

/// The protocol of a model path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/messages`
    Messages,
    /// Any other path: a line of plain text.
    Plain,
}

impl Dialect {
    /// The dialect that `path` is spoken in; prefixes before `/v1` do not matter.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.ends_with("/chat/completions") {
            Self::Chat
        } else if path.ends_with("/responses") {
            Self::Responses
        } else if path.ends_with("/messages") {
            Self::Messages
        } else {
            Self::Plain
        }
    }
}

/// What the caller asked for, as far as the answer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `stream: true`
    pub stream: bool,
    /// OpenAI's `stream_options.include_usage`
    pub include_usage: bool,
    /// `max_tokens`, `max_completion_tokens` or `max_output_tokens`
    pub tokens_max: Option<usize>,
    /// Length of the prompt in words, which stand for tokens.
    pub prompt_tokens: usize,
}

impl Asked {
    /// Reads a request's body; what it does not understand it takes as the default.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let most =
            ["max_completion_tokens", "max_output_tokens", "max_tokens"].iter().find_map(|key| value[key].as_u64());
        Self {
            stream: value["stream"].as_bool().unwrap_or(false),
            include_usage: value["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            tokens_max: most.and_then(|n| usize::try_from(n).ok()),
            prompt_tokens: words_in(&value["messages"]) + words_in(&value["input"]) + words_in(&value["system"]),
        }
    }
}

fn words_in(value: &Value) -> usize {
    match value {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(items) => items.iter().map(words_in).sum(),
        Value::Object(fields) => {
            words_in(&fields.get("content").or_else(|| fields.get("text")).cloned().unwrap_or_default())
        }
        _ => 0,
    }
}

/// One answer to be said in some dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The model that answers.
    pub version: String,
    /// Number of the request; makes ids unique.
    pub number: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// What was asked.
    pub asked: Asked,
    /// Output tokens, before the caller's bound.
    pub tokens: usize,
    /// How the answer is.
    pub fate: Fate,
    /// It tells of caches and reasoning.
    pub caches: bool,
}

/// A stream's frames: those before the first token, one a token, and those after the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Sent with the head.
    pub open: Vec<Bytes>,
    /// One a token.
    pub tokens: Vec<Bytes>,
    /// The last words.
    pub close: Vec<Bytes>,
}

const WORDS: [&str; 12] =
    ["the", "canary", "sings", "a", "small", "clear", "song", "and", "everyone", "keeps", "listening", "still"];
const REFUSAL: &str = "I'm sorry, but I can't help with that.";
const TROUBLE: &str = "The server had an error while processing your request";

impl Reply {
    fn count(&self) -> usize {
        match self.fate {
            Fate::Empty => 0,
            Fate::Refusal => REFUSAL.split(' ').count(),
            _ => self.tokens.min(self.asked.tokens_max.unwrap_or(usize::MAX)),
        }
    }

    fn word(&self, index: usize) -> String {
        let word = match self.fate {
            Fate::Refusal => REFUSAL.split(' ').nth(index).unwrap_or_default(),
            _ => WORDS[index % WORDS.len()],
        };
        if index == 0 { word.to_owned() } else { format!(" {word}") }
    }

    fn text(&self) -> String {
        (0..self.count()).map(|index| self.word(index)).collect()
    }

    fn is_truncated(&self) -> bool {
        self.fate != Fate::Refusal && self.asked.tokens_max.is_some_and(|most| most < self.tokens)
    }

    fn finish(&self) -> &'static str {
        if self.is_truncated() { "length" } else { "stop" }
    }

    fn stop_reason(&self) -> &'static str {
        match (self.fate, self.is_truncated()) {
            (Fate::Refusal, _) => "refusal",
            (_, true) => "max_tokens",
            (_, false) => "end_turn",
        }
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:024x}", self.number)
    }

    /// `0` to `parts - 1` of so many parts of `whole`, by the number of the request.
    fn some_of(&self, whole: usize, parts: u64) -> usize {
        let share = if self.caches { self.number % parts } else { 0 };
        usize::try_from(whole as u64 * share / parts).unwrap_or(0)
    }

    fn cached(&self) -> usize {
        self.some_of(self.asked.prompt_tokens, 5)
    }

    fn reasoning(&self) -> usize {
        self.some_of(self.count(), 4)
    }

    fn chat_usage(&self) -> Value {
        let (input, output) = (self.asked.prompt_tokens, self.count());
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
               "prompt_tokens_details": {"cached_tokens": self.cached(), "audio_tokens": 0},
               "completion_tokens_details": {"reasoning_tokens": self.reasoning(), "audio_tokens": 0,
                   "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
    }

    fn responses_usage(&self) -> Value {
        let (input, output) = (self.asked.prompt_tokens, self.count());
        json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": self.cached()}, "output_tokens": output,
               "output_tokens_details": {"reasoning_tokens": self.reasoning()}, "total_tokens": input + output})
    }

    /// Anthropic counts what is read from a cache and what is written into one apart from the input.
    fn messages_usage(&self, output: usize) -> Value {
        let (prompt, read) = (self.asked.prompt_tokens, self.cached());
        let written = self.some_of(prompt - read, 3);
        json!({"input_tokens": prompt - read - written, "cache_creation_input_tokens": written,
               "cache_read_input_tokens": read, "output_tokens": output})
    }

    fn responses_object(&self, status: &str, output: Value, usage: Value) -> Value {
        json!({"id": self.id("resp_"), "object": "response", "created_at": self.created, "status": status,
               "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "model": self.version,
               "output": output, "parallel_tool_calls": true, "previous_response_id": null, "temperature": 1.0,
               "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "usage": usage})
    }

    fn responses_message(&self, status: &str, content: Value) -> Value {
        json!({"type": "message", "id": self.id("msg_"), "status": status, "role": "assistant", "content": content})
    }

    /// The whole answer in one body.
    #[must_use]
    pub fn json(&self, dialect: Dialect) -> Bytes {
        if self.fate == Fate::InBandError {
            return trouble(dialect, 500);
        }
        let value = match dialect {
            Dialect::Chat => {
                let refused = self.fate == Fate::Refusal;
                let (content, refusal) =
                    if refused { (Value::Null, json!(REFUSAL)) } else { (json!(self.text()), Value::Null) };
                json!({"id": self.id("chatcmpl-"), "object": "chat.completion", "created": self.created, "model": self.version,
                       "choices": [{"index": 0, "logprobs": null, "finish_reason": self.finish(),
                                    "message": {"role": "assistant", "content": content, "refusal": refusal, "annotations": []}}],
                       "usage": self.chat_usage(), "service_tier": "default", "system_fingerprint": null})
            }
            Dialect::Responses => {
                let content = json!([{"type": "output_text", "text": self.text(), "annotations": []}]);
                self.responses_object(
                    "completed",
                    json!([self.responses_message("completed", content)]),
                    self.responses_usage(),
                )
            }
            Dialect::Messages => {
                let content =
                    if self.count() == 0 { json!([]) } else { json!([{"type": "text", "text": self.text()}]) };
                json!({"id": self.id("msg_"), "type": "message", "role": "assistant", "model": self.version, "content": content,
                       "stop_reason": self.stop_reason(), "stop_sequence": null,
                       "usage": self.messages_usage(self.count())})
            }
            Dialect::Plain => return Bytes::from(format!("{}: {}\n", self.version, self.text())),
        };
        Bytes::from(value.to_string())
    }

    /// The answer as server-sent events.
    #[must_use]
    pub fn frames(&self, dialect: Dialect) -> Frames {
        let mut frames = match dialect {
            Dialect::Chat => self.chat_frames(),
            Dialect::Responses => self.responses_frames(),
            Dialect::Messages => self.messages_frames(),
            Dialect::Plain => Frames {
                tokens: (0..self.count()).map(|index| Bytes::from(self.word(index))).collect(),
                ..Frames::default()
            },
        };
        if self.fate == Fate::InBandError {
            frames.tokens.truncate(frames.tokens.len() / 2);
            frames.close = vec![match dialect {
                Dialect::Messages => event("error", &trouble_value(dialect, 529)),
                Dialect::Responses => event(
                    "error",
                    &json!({"type": "error", "code": "server_error", "message": TROUBLE, "param": null, "sequence_number": 99}),
                ),
                Dialect::Chat | Dialect::Plain => data(&trouble_value(dialect, 500)),
            }];
        }
        frames
    }

    fn chat_frames(&self) -> Frames {
        let chunk = |choices: Value, usage: Value| {
            let mut value = json!({"id": self.id("chatcmpl-"), "object": "chat.completion.chunk", "created": self.created,
                                   "model": self.version, "system_fingerprint": null, "choices": choices});
            if self.asked.include_usage {
                value["usage"] = usage;
            }
            data(&value)
        };
        let delta = |delta: Value, finish: Value| {
            chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]), Value::Null)
        };
        let said = if self.fate == Fate::Refusal { "refusal" } else { "content" };
        let mut close = vec![delta(json!({}), json!(self.finish()))];
        if self.asked.include_usage {
            close.push(chunk(json!([]), self.chat_usage()));
        }
        close.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Frames {
            open: vec![delta(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)],
            tokens: (0..self.count()).map(|index| delta(json!({said: self.word(index)}), Value::Null)).collect(),
            close,
        }
    }

    fn responses_frames(&self) -> Frames {
        let mut sequence = 0;
        let mut say = |kind: &str, mut value: Value| {
            value["type"] = json!(kind);
            value["sequence_number"] = json!(sequence);
            sequence += 1;
            event(kind, &value)
        };
        let begun = self.responses_object("in_progress", json!([]), Value::Null);
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        let at = json!({"item_id": self.id("msg_"), "output_index": 0, "content_index": 0});
        let with = |key: &str, value: Value| {
            let mut whole = at.clone();
            whole[key] = value;
            whole
        };
        let open = vec![
            say("response.created", json!({"response": begun})),
            say(
                "response.output_item.added",
                json!({"output_index": 0, "item": self.responses_message("in_progress", json!([]))}),
            ),
            say("response.content_part.added", with("part", part(""))),
        ];
        let tokens = (0..self.count())
            .map(|index| {
                let mut value = with("delta", json!(self.word(index)));
                value["logprobs"] = json!([]);
                say("response.output_text.delta", value)
            })
            .collect();
        let text = self.text();
        let mut text_done = with("text", json!(text));
        text_done["logprobs"] = json!([]);
        let message = self.responses_message("completed", json!([part(&text)]));
        let close = vec![
            say("response.output_text.done", text_done),
            say("response.content_part.done", with("part", part(&text))),
            say("response.output_item.done", json!({"output_index": 0, "item": message})),
            say(
                "response.completed",
                json!({"response": self.responses_object("completed", json!([message]), self.responses_usage())}),
            ),
        ];
        Frames { open, tokens, close }
    }

    fn messages_frames(&self) -> Frames {
        let say = |kind: &str, mut value: Value| {
            value["type"] = json!(kind);
            event(kind, &value)
        };
        let message = json!({"id": self.id("msg_"), "type": "message", "role": "assistant", "model": self.version, "content": [],
                             "stop_reason": null, "stop_sequence": null,
                             "usage": self.messages_usage(1)});
        let delta = |index: usize| json!({"index": 0, "delta": {"type": "text_delta", "text": self.word(index)}});
        Frames {
            open: vec![
                say("message_start", json!({"message": message})),
                say("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
                say("ping", json!({})),
            ],
            tokens: (0..self.count()).map(|index| say("content_block_delta", delta(index))).collect(),
            close: vec![
                say("content_block_stop", json!({"index": 0})),
                say(
                    "message_delta",
                    json!({"delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
                                            "usage": {"output_tokens": self.count()}}),
                ),
                say("message_stop", json!({})),
            ],
        }
    }
}

fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn event(kind: &str, value: &Value) -> Bytes {
    Bytes::from(format!("event: {kind}\ndata: {value}\n\n"))
}

fn trouble_value(dialect: Dialect, status: u16) -> Value {
    match dialect {
        Dialect::Messages => {
            let kind = match status {
                429 => "rate_limit_error",
                529 => "overloaded_error",
                400..=499 => "invalid_request_error",
                _ => "api_error",
            };
            json!({"type": "error", "error": {"type": kind, "message": TROUBLE}})
        }
        _ => {
            let kind = match status {
                429 => "rate_limit_exceeded",
                400..=499 => "invalid_request_error",
                _ => "server_error",
            };
            json!({"error": {"message": TROUBLE, "type": kind, "param": null, "code": kind}})
        }
    }
}

/// An error's body as the dialect has it.
#[must_use]
pub fn trouble(dialect: Dialect, status: u16) -> Bytes {
    match dialect {
        Dialect::Plain => Bytes::from(format!("{TROUBLE}\n")),
        _ => Bytes::from(trouble_value(dialect, status).to_string()),
    }
}

/// The body of `GET /v1/models`.
#[must_use]
pub fn models(version: &str, created: i64) -> Bytes {
    let model = json!({"id": version, "object": "model", "created": created, "owned_by": "serin-demo"});
    Bytes::from(json!({"object": "list", "data": [model]}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(fate: Fate, body: &str) -> Reply {
        Reply {
            version: "m-2".into(),
            number: 3,
            created: 1_700_000_000,
            asked: Asked::read(body.as_bytes()),
            tokens: 4,
            fate,
            caches: false,
        }
    }

    fn payloads(frames: &[Bytes]) -> Vec<Value> {
        let text: Vec<String> = frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect();
        let lines = text.iter().filter_map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[test]
    fn a_request_is_read_for_stream_usage_bound_and_prompt() {
        let body = r#"{"stream":true,"stream_options":{"include_usage":true},"max_tokens":2,
                       "messages":[{"role":"user","content":"one two"},{"role":"user","content":[{"type":"text","text":"three"}]}]}"#;
        let asked = Asked { stream: true, include_usage: true, tokens_max: Some(2), prompt_tokens: 3 };
        assert_eq!(Asked::read(body.as_bytes()), asked);
        assert_eq!(Asked::read(b"no json"), Asked::default());
    }

    #[test]
    fn a_chat_answer_names_its_version_and_counts_its_tokens() {
        let value: Value = serde_json::from_slice(&reply(Fate::Good, "{}").json(Dialect::Chat)).unwrap();
        assert_eq!(value["model"], "m-2");
        assert_eq!(value["choices"][0]["message"]["content"], "the canary sings a");
        assert_eq!(value["choices"][0]["finish_reason"], "stop");
        assert_eq!(value["usage"]["completion_tokens"], 4);
    }

    #[test]
    fn an_answer_longer_than_the_bound_is_cut_to_it_and_says_so() {
        let short = reply(Fate::Good, r#"{"max_tokens":2}"#);
        let chat: Value = serde_json::from_slice(&short.json(Dialect::Chat)).unwrap();
        assert_eq!(
            (&chat["choices"][0]["finish_reason"], &chat["usage"]["completion_tokens"]),
            (&json!("length"), &json!(2))
        );
        let messages: Value = serde_json::from_slice(&short.json(Dialect::Messages)).unwrap();
        assert_eq!(messages["stop_reason"], "max_tokens");
    }

    #[test]
    fn a_chat_stream_says_the_same_as_the_whole_answer_and_usage_only_where_asked() {
        for (body, usages) in [("{}", 0), (r#"{"stream_options":{"include_usage":true}}"#, 1)] {
            let frames = reply(Fate::Good, body).frames(Dialect::Chat);
            let text: String = payloads(&frames.tokens)
                .iter()
                .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(text, "the canary sings a");
            assert_eq!(frames.close.last().unwrap().as_ref(), b"data: [DONE]\n\n");
            assert_eq!(payloads(&frames.close).iter().filter(|chunk| chunk["usage"].is_object()).count(), usages);
        }
    }

    #[test]
    fn an_anthropic_stream_has_its_events_in_order() {
        let frames = reply(Fate::Good, "{}").frames(Dialect::Messages);
        let all: Vec<Bytes> = [frames.open, frames.tokens, frames.close].concat();
        let kinds: Vec<String> =
            payloads(&all).iter().map(|value| value["type"].as_str().unwrap().to_owned()).collect();
        let deltas = ["content_block_delta"; 4];
        let expected: Vec<&str> = ["message_start", "content_block_start", "ping"]
            .into_iter()
            .chain(deltas)
            .chain(["content_block_stop", "message_delta", "message_stop"])
            .collect();
        assert_eq!(kinds, expected);
    }

    #[test]
    fn caches_and_reasoning_are_told_in_parts_of_what_is_there_and_differ_from_answer_to_answer() {
        let prompt = "one two three four five six seven eight nine ten eleven twelve";
        let mut told = Vec::new();
        for number in 0..60 {
            let body = json!({"messages": [{"role": "user", "content": prompt}]}).to_string();
            let reply = Reply { number, caches: true, ..reply(Fate::Good, &body) };
            let value: Value = serde_json::from_slice(&reply.json(Dialect::Messages)).unwrap();
            let of = |key: &str| value["usage"][key].as_u64().unwrap();
            let (read, written) = (of("cache_read_input_tokens"), of("cache_creation_input_tokens"));
            assert_eq!(of("input_tokens") + read + written, 12);
            let value: Value = serde_json::from_slice(&reply.json(Dialect::Chat)).unwrap();
            assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], read);
            assert!(reply.reasoning() < 4);
            told.push((read, written, reply.reasoning()));
        }
        told.sort_unstable();
        told.dedup();
        assert!(told.len() > 20, "{told:?}");
    }

    #[test]
    fn an_error_inside_a_stream_ends_it_without_its_last_words() {
        for (dialect, last_words) in
            [(Dialect::Chat, "[DONE]"), (Dialect::Messages, "message_stop"), (Dialect::Responses, "response.completed")]
        {
            let frames = reply(Fate::InBandError, "{}").frames(dialect);
            let close = String::from_utf8(frames.close.concat()).unwrap();
            assert!(close.contains("\"error\"") && !close.contains(last_words), "{dialect:?}: {close}");
            assert!(frames.tokens.len() < 4);
        }
    }

    #[test]
    fn an_empty_answer_has_no_token_and_a_refusal_says_so() {
        assert!(reply(Fate::Empty, "{}").frames(Dialect::Chat).tokens.is_empty());
        let refusal: Value = serde_json::from_slice(&reply(Fate::Refusal, "{}").json(Dialect::Chat)).unwrap();
        assert_eq!(refusal["choices"][0]["message"]["refusal"], REFUSAL);
        let refusal: Value = serde_json::from_slice(&reply(Fate::Refusal, "{}").json(Dialect::Messages)).unwrap();
        assert_eq!(refusal["stop_reason"], "refusal");
    }
}
