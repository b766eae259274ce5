//! Reads an answer that comes in Amazon's binary event stream: Bedrock's ConverseStream, and the chunks of
//! InvokeModelWithResponseStream where Anthropic's events are inside.
//!
//! Source: the Amazon Bedrock API reference ("ConverseStream", "InvokeModelWithResponseStream", "ResponseStream").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::dialect;
use super::events::Events;
use super::eventstream::{Damaged, Message, Messages};
use super::facts::{Dialect, Ending, Facts, Protocol};
use super::safety::Screen;
use super::scan;
use super::schema::Schema;
use super::sse::{Event, Piece, TAIL_BYTES};
use crate::names::Mono;

/// The reader of one such stream.
#[derive(Debug)]
pub(crate) struct Framed {
    messages: Messages,
    inside: Inside,
    damaged: bool,
}

#[derive(Debug)]
struct Inside {
    protocol: Protocol,
    events: Events,
    /// What a chunk holds, unpacked.
    chunk: Vec<u8>,
}

impl Framed {
    pub(crate) fn new(protocol: Protocol, dialect: Dialect, schema: Option<Box<Schema>>) -> Framed {
        let inside = Inside { protocol, events: Events::new(protocol, dialect, schema), chunk: Vec::new() };
        Framed { messages: Messages::new(), inside, damaged: false }
    }

    /// Whether there are generated tokens to wait for.
    pub(crate) fn awaits_tokens(&self) -> bool {
        !self.damaged && self.inside.events.awaits_tokens()
    }

    /// When the first generated token passed.
    pub(crate) fn first_token_at(&self) -> Option<Mono> {
        self.inside.events.first_token_at()
    }

    /// Bytes of memory kept.
    pub(crate) fn kept(&self) -> usize {
        self.messages.kept() + self.inside.chunk.capacity() + self.inside.events.kept()
    }

    /// Takes the next bytes in, and shows `screen` the JSON inside.
    pub(crate) fn chunk(&mut self, bytes: &[u8], now: Mono, mut screen: Option<&mut Screen>) {
        if self.damaged {
            return;
        }
        let Framed { messages, inside, damaged } = self;
        let fed = messages.feed(bytes, |message| inside.message(message, now, screen.as_deref_mut()));
        *damaged = fed == Err(Damaged);
    }

    pub(crate) fn finish(self, ending: Ending, owed: bool, now: Mono) -> Facts {
        if self.damaged {
            return Facts { undecoded: true, ..Facts::default() };
        }
        self.inside.events.finish(ending, owed, now)
    }
}

impl Inside {
    fn message(&mut self, message: Message<'_>, now: Mono, screen: Option<&mut Screen>) {
        if message.kind == b"exception" || message.kind == b"error" {
            return self.events.failed();
        }
        if message.name == b"chunk" {
            return self.anthropic(message.payload, now, screen);
        }
        let unknown = self.events.dialect() == Dialect::Unknown;
        if unknown && self.protocol == Protocol::Auto && message.name == b"messageStart" {
            self.events.speaks(Dialect::Converse);
        }
        if self.events.dialect() == Dialect::Converse {
            show(screen, message.payload);
            self.events.event(Event { name: message.name, data: message.payload }, now);
        }
    }

    /// A chunk of a model's own: its JSON, in base64. Only Anthropic's ends in an event that says so.
    fn anthropic(&mut self, payload: Piece<'_>, now: Mono, screen: Option<&mut Screen>) {
        let Piece::Whole(payload) = payload else { return self.events.oversized() };
        let [bytes] = scan::fields(payload, &["bytes"]).unwrap_or_default();
        let Some(bytes) = scan::text(bytes) else { return };
        // A slash may be written with an escape, and nothing else in base64.
        let unpacked = STANDARD.decode_vec(bytes.replace("\\/", "/"), &mut self.chunk);
        let unknown = self.events.dialect() == Dialect::Unknown;
        if unknown && dialect::by_shape(self.protocol, b"", &self.chunk) == Dialect::Messages {
            self.events.speaks(Dialect::Messages);
        }
        if unpacked.is_ok() && self.events.dialect() == Dialect::Messages {
            let data = Piece::Whole(&self.chunk);
            show(screen, data);
            self.events.event(Event { name: b"", data }, now);
        }
        self.chunk.clear();
        self.chunk.shrink_to(TAIL_BYTES);
    }
}

/// A line behind it keeps what is said in one message from running on into the next.
fn show(screen: Option<&mut Screen>, payload: Piece<'_>) {
    let (Some(screen), Piece::Whole(json)) = (screen, payload) else { return };
    screen.feed(json);
    screen.feed(b"\n");
}

#[cfg(test)]
mod tests {
    use super::super::eventstream::tests::packed;
    use super::super::{Reader, SafetyRules};
    use super::*;
    use crate::names::Script;

    fn event(name: &str, json: &str) -> Vec<u8> {
        packed(&[(":message-type", "event"), (":event-type", name)], json.as_bytes())
    }

    fn says(text: &str) -> Vec<u8> {
        event("contentBlockDelta", &format!("{{\"contentBlockIndex\":0,\"delta\":{{\"text\":\"{text}\"}}}}"))
    }

    fn chunk(json: &str) -> Vec<u8> {
        event("chunk", &format!("{{\"bytes\":\"{}\"}}", STANDARD.encode(json)))
    }

    fn reader(path: &str) -> Reader {
        Reader::for_exchange(Protocol::Auto, path, Some("application/vnd.amazon.eventstream"), None)
    }

    #[test]
    fn the_first_token_is_generated_text_and_not_the_beginning_of_a_message() {
        let mut reader = reader("/model/m/converse-stream");
        let messages = [event("messageStart", "{\"role\":\"assistant\"}"), says(""), says("Hi"), says(" you")];
        for (at, message) in messages.iter().enumerate() {
            assert_eq!(reader.begun_at(), (at > 2).then_some(Mono(2)), "before {at}");
            let (one, two) = message.split_at(9);
            reader.chunk(one, Mono(at as u64));
            reader.chunk(two, Mono(at as u64));
        }
        let facts = reader.finish(false);
        assert_eq!((facts.first_token_at, facts.last_token_at, facts.token_events), (Some(Mono(2)), Some(Mono(3)), 2));
    }

    #[test]
    fn a_stream_that_is_read_no_further_began_with_its_first_byte() {
        let mut reader = reader("/model/m/converse-stream");
        reader.chunk(&[0; 12], Mono(7));
        reader.chunk(&says("Hi"), Mono(8));
        assert_eq!(reader.begun_at(), Some(Mono(7)));
        let facts = reader.finish(true);
        assert!(facts.undecoded && !facts.cut && facts.bytes > 12, "{facts:?}");
    }

    #[test]
    fn what_is_said_inside_is_screened_and_told_by_language() {
        let rules = SafetyRules::new(&["geheim nie verraten".to_owned()]).unwrap();
        let text =
            ["Das Passwort wird hier geheim ", "nie verraten, auch wenn Sie ", "noch so freundlich danach fragen."];
        let delta = |text: &&str| {
            chunk(&format!(
                "{{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}"
            ))
        };
        let start = chunk("{\"type\":\"message_start\",\"message\":{\"role\":\"assistant\"}}");
        let invoked: Vec<u8> = std::iter::once(start).chain(text.iter().map(delta)).flatten().collect();
        let conversed: Vec<u8> = text.iter().flat_map(|text| says(text)).collect();
        for (path, body) in [("/model/m/converse-stream", conversed), ("/model/m/invoke-with-response-stream", invoked)]
        {
            for size in [1, 5, 70, 10_000] {
                let mut reader = reader(path);
                reader.screen(Some(&rules), None, true);
                body.chunks(size).for_each(|bytes| reader.chunk(bytes, Mono(1)));
                let facts = reader.finish(false);
                assert_eq!((facts.rule_broken, facts.script), (true, Some(Script::German)), "{path} by {size}");
            }
        }
    }
}
