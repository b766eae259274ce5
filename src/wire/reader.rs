//! The tap itself: shown every frame of one answer, asked for its facts at the end.

use super::decode::{Encoding, Packed};
use super::dialect;
use super::document::Document;
use super::events::Events;
use super::facts::{Dialect, Ending, Facts, Protocol};
use super::framed::Framed;
use super::safety::{SafetyRules, Screen, Transcript};
use super::schema::Schema;
use crate::names::Mono;

/// Reads one answer. Small while idle; what a dialect needs is boxed and born with the first byte.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: u64,
    first_byte_at: Option<Mono>,
    last_byte_at: Option<Mono>,
    open_ended: bool,
    tap: Tap,
}

/// What looks at the bytes as they come over the wire.
#[derive(Debug, Default)]
enum Tap {
    /// Nothing.
    #[default]
    Silent,
    /// Nothing, because the encoding is not ours to decode.
    Undecoded,
    /// A reader of plain bytes.
    Plain(Plain),
    /// The same behind a decoder, not yet built.
    Waiting(Plain, Encoding),
    /// The same, at work.
    Packed(Box<Packed>),
}

/// What looks at plain bytes.
#[derive(Debug, Default)]
pub(crate) enum Plain {
    /// No more of it.
    #[default]
    Silent,
    /// To be chosen by the first byte (`None`), or of a form that it may still correct.
    Waiting(Protocol, Dialect, Option<Form>, Option<Box<Schema>>),
    /// A stream.
    Events(Box<Events>),
    /// A stream in Amazon's framing.
    Framed(Box<Framed>),
    /// A document.
    Document(Box<Document>),
    /// Any of them, and safety rules beside it.
    Screened(Box<(Screen, Plain)>),
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Events,
    Framed,
    Document,
}

impl Plain {
    fn bare(&self) -> &Plain {
        if let Plain::Screened(both) = self { both.1.bare() } else { self }
    }

    fn bare_mut(&mut self) -> &mut Plain {
        if let Plain::Screened(both) = self { both.1.bare_mut() } else { self }
    }
}

impl Reader {
    /// A reader for the answer to a request for `request_path` (with or without query), by the answer's own headers.
    #[must_use]
    pub fn for_exchange(
        protocol: Protocol,
        request_path: &str,
        content_type: Option<&str>,
        content_encoding: Option<&str>,
    ) -> Reader {
        let plain = Plain::choose(protocol, request_path, content_type);
        let encoding = content_encoding.map(str::trim).unwrap_or_default();
        let tap = match (plain, Encoding::of(encoding)) {
            (Plain::Silent, _) => Tap::Silent,
            (plain, Some(encoding)) => Tap::Waiting(plain, encoding),
            (plain, None) if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") => Tap::Plain(plain),
            (_, None) => Tap::Undecoded,
        };
        Reader { tap, ..Reader::default() }
    }

    /// Says that no answer is owed (the request was a GET): an end of the stream is not a cut.
    pub fn open_ended(&mut self) {
        self.open_ended = true;
    }

    /// Says what shape the request wants the answer's text to have. To be told before the first byte.
    pub fn expect(&mut self, schema: Schema) {
        if let Tap::Plain(plain) | Tap::Waiting(plain, _) = &mut self.tap
            && let Plain::Waiting(_, _, _, expected) = plain.bare_mut()
        {
            *expected = Some(Box::new(schema));
        }
    }

    /// Watches what the answer says for broken rules, writes it down, and tells its language or writing (`script`), where
    /// this reader looks at the bytes at all.
    pub fn screen(&mut self, rules: Option<&SafetyRules>, transcript: Option<Transcript>, script: bool) {
        if rules.is_none() && transcript.is_none() && !script {
            return;
        }
        if let Tap::Plain(plain) | Tap::Waiting(plain, _) = &mut self.tap {
            let screen = Screen::new(rules.cloned(), transcript, script);
            *plain = Plain::Screened(Box::new((screen, std::mem::take(plain))));
        }
    }

    /// Whether this reader looks at the bytes at all; if not, only their number and times are taken.
    #[must_use]
    pub fn looks(&self) -> bool {
        matches!(self.tap, Tap::Plain(_) | Tap::Waiting(..) | Tap::Packed(_))
    }

    /// Bytes of memory kept beyond the reader itself; bounded whatever passes.
    #[must_use]
    pub fn kept(&self) -> usize {
        match &self.tap {
            Tap::Silent | Tap::Undecoded | Tap::Waiting(..) => 0,
            Tap::Plain(plain) => plain.kept(),
            Tap::Packed(packed) => packed.kept(),
        }
    }

    /// Shows the next body bytes, which passed at `now`. Never fails, keeps no more than a bounded part.
    pub fn chunk(&mut self, bytes: &[u8], now: Mono) {
        if bytes.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.first_byte_at.get_or_insert(now);
        self.last_byte_at = Some(now);
        if let Tap::Waiting(plain, encoding) = &mut self.tap {
            self.tap = Tap::Packed(Box::new(Packed::new(*encoding, std::mem::take(plain))));
        }
        match &mut self.tap {
            Tap::Plain(plain) => plain.chunk(bytes, now),
            Tap::Packed(packed) => packed.chunk(bytes, now),
            Tap::Silent | Tap::Undecoded | Tap::Waiting(..) => (),
        }
    }

    /// When the answer began: its first generated token, or its first byte where no tokens are read.
    #[must_use]
    pub fn begun_at(&self) -> Option<Mono> {
        let plain = match &self.tap {
            Tap::Plain(plain) => Some(plain),
            Tap::Packed(packed) => packed.timed(),
            Tap::Silent | Tap::Undecoded | Tap::Waiting(..) => None,
        };
        match plain.map(Plain::bare) {
            Some(Plain::Events(events)) if events.awaits_tokens() => events.first_token_at(),
            Some(Plain::Framed(framed)) if framed.awaits_tokens() => framed.first_token_at(),
            _ => self.first_byte_at,
        }
    }

    /// The facts, given how the body ended: `true` in good order, `false` cancelled by the caller, or an [`Ending`].
    /// To be called once; a second call knows only the byte counts.
    pub fn finish(&mut self, end: impl Into<Ending>) -> Facts {
        let (ending, owed) = (end.into(), !self.open_ended);
        let now = self.last_byte_at.unwrap_or_default();
        let facts = match std::mem::take(&mut self.tap) {
            Tap::Silent => Facts::default(),
            Tap::Undecoded => Facts { undecoded: true, ..Facts::default() },
            Tap::Plain(plain) | Tap::Waiting(plain, _) => plain.finish(ending, owed, now),
            Tap::Packed(packed) => packed.finish(ending, owed, now),
        };
        Facts { bytes: self.bytes, first_byte_at: self.first_byte_at, last_byte_at: self.last_byte_at, ..facts }
    }
}

impl Plain {
    /// By protocol, path and content type; nothing to look at unless both may be ours.
    fn choose(protocol: Protocol, path: &str, content_type: Option<&str>) -> Plain {
        if protocol == Protocol::Http {
            return Plain::Silent;
        }
        let dialect = dialect::by_path(protocol, path);
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let is = |name: &str| media.eq_ignore_ascii_case(name);
        let json = media.len().checked_sub(5).and_then(|at| media.get(at..));
        if is("text/event-stream") {
            Plain::Waiting(protocol, dialect, Some(Form::Events), None)
        } else if is("application/vnd.amazon.eventstream") && matches!(protocol, Protocol::Auto | Protocol::Anthropic) {
            Plain::Waiting(protocol, dialect, Some(Form::Framed), None)
        } else if is("application/json") || json.is_some_and(|end| end.eq_ignore_ascii_case("+json")) {
            Plain::Waiting(protocol, dialect, Some(Form::Document), None)
        } else if dialect != Dialect::Unknown && (media.is_empty() || is("text/plain")) {
            Plain::Waiting(protocol, dialect, None, None)
        } else {
            Plain::Silent
        }
    }

    pub(crate) fn kept(&self) -> usize {
        match self {
            Plain::Silent | Plain::Waiting(..) => 0,
            Plain::Events(events) => size_of::<Events>() + events.kept(),
            Plain::Framed(framed) => size_of::<Framed>() + framed.kept(),
            Plain::Document(document) => size_of::<Document>() + document.kept(),
            Plain::Screened(both) => both.0.kept() + both.1.kept(),
        }
    }

    /// Becomes what reads a body that begins with `bytes`. A decoder may begin with none at all.
    fn born(&mut self, bytes: &[u8]) {
        let (Plain::Waiting(protocol, dialect, form, schema), false) = (&mut *self, bytes.is_empty()) else { return };
        let (protocol, dialect, schema) = (*protocol, *dialect, schema.take());
        // Some announce one and send the other (an error document for a stream): the first byte knows better.
        let form = match bytes.first() {
            Some(b'{' | b'[') => Some(Form::Document),
            Some(b'd' | b'e' | b'i' | b'r' | b':') if dialect != Dialect::Unknown => Some(Form::Events),
            _ => *form,
        };
        *self = match form {
            Some(Form::Events) => Plain::Events(Box::new(Events::new(protocol, dialect, schema))),
            Some(Form::Framed) => Plain::Framed(Box::new(Framed::new(protocol, dialect, schema))),
            Some(Form::Document) => Plain::Document(Box::new(Document::new(protocol, dialect, schema))),
            None => Plain::Silent,
        };
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8], now: Mono) {
        self.born(bytes);
        match self {
            Plain::Events(events) => events.chunk(bytes, now),
            Plain::Framed(framed) => framed.chunk(bytes, now, None),
            Plain::Document(document) => {
                if !document.chunk(bytes) {
                    *self = Plain::Silent;
                }
            }
            Plain::Screened(both) => {
                let (screen, plain) = &mut **both;
                plain.born(bytes);
                if let Plain::Framed(framed) = plain {
                    return framed.chunk(bytes, now, Some(screen));
                }
                screen.feed(bytes);
                plain.chunk(bytes, now);
            }
            Plain::Silent | Plain::Waiting(..) => (),
        }
    }

    pub(crate) fn finish(self, ending: Ending, owed: bool, now: Mono) -> Facts {
        match self {
            Plain::Silent | Plain::Waiting(_, _, None, _) => Facts::default(),
            // Not a byte came.
            Plain::Waiting(protocol, dialect, Some(Form::Events | Form::Framed), _) => {
                Events::new(protocol, dialect, None).finish(ending, owed, now)
            }
            Plain::Waiting(protocol, dialect, Some(Form::Document), _) => {
                if owed {
                    Document::new(protocol, dialect, None).finish(ending)
                } else {
                    Facts::default()
                }
            }
            Plain::Events(events) => events.finish(ending, owed, now),
            Plain::Framed(framed) => framed.finish(ending, owed, now),
            Plain::Document(document) => document.finish(ending),
            Plain::Screened(both) => {
                let (screen, plain) = *both;
                let (rule_broken, script) = screen.finish();
                Facts { rule_broken, script, ..plain.finish(ending, owed, now) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_begins_with_its_first_token_and_not_with_a_role() {
        let mut reader =
            Reader::for_exchange(Protocol::OpenAi, "/v1/chat/completions", Some("text/event-stream"), None);
        reader.chunk(b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n", Mono(5));
        assert_eq!(reader.begun_at(), None);
        reader.chunk(b"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n", Mono(9));
        assert_eq!(reader.begun_at(), Some(Mono(9)));
        let mut plain = Reader::for_exchange(Protocol::Http, "/", None, None);
        plain.chunk(b"x", Mono(3));
        assert_eq!(plain.begun_at(), Some(Mono(3)));
    }

    #[test]
    fn a_plain_body_is_counted_and_not_looked_at() {
        let mut reader = Reader::for_exchange(Protocol::Http, "/", Some("text/html"), None);
        reader.chunk(b"", Mono(3));
        reader.chunk(b"abc", Mono(5));
        reader.chunk(b"de", Mono(9));
        let facts = reader.finish(true);
        let expect = Facts { bytes: 5, first_byte_at: Some(Mono(5)), last_byte_at: Some(Mono(9)), ..Facts::default() };
        assert_eq!(facts, expect);
    }

    #[test]
    fn a_reader_is_small_while_nothing_passes() {
        assert!(size_of::<Reader>() <= 72, "{}", size_of::<Reader>());
        let reader =
            Reader::for_exchange(Protocol::Auto, "/v1/chat/completions", Some("text/event-stream"), Some("gzip"));
        assert_eq!(reader.kept(), 0);
    }

    #[test]
    fn time_to_first_token_starts_at_generated_text_not_at_comment_role_or_empty_content() {
        let mut reader =
            Reader::for_exchange(Protocol::OpenAi, "/v1/chat/completions", Some("text/event-stream"), None);
        let events = [
            ": OPENROUTER PROCESSING\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" you\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: [DONE]\n\n",
        ];
        for (at, event) in events.iter().enumerate() {
            reader.chunk(event.as_bytes(), Mono(at as u64 * 10));
        }
        let facts = reader.finish(true);
        assert_eq!(
            (facts.first_token_at, facts.last_token_at, facts.token_events),
            (Some(Mono(20)), Some(Mono(30)), 2)
        );
        assert_eq!((facts.first_byte_at, facts.last_byte_at), (Some(Mono(0)), Some(Mono(50))));
        assert!(!facts.cut && !facts.empty);
    }
}
