//! Reads an answer that comes as a stream of events.

use super::echo::Echo;
use super::facts::{Dialect, Ending, Facts, Protocol};
use super::schema::Schema;
use super::sse::{Event, Piece, Splitter};
use super::tally::Tally;
use super::{anthropic, bedrock, dialect, gemini, mcp, openai, scan};
use crate::names::Mono;

/// Events looked at in search of a dialect before giving up.
const GUESSES_MAX: u32 = 8;

/// The reader of one stream.
#[derive(Debug)]
pub(crate) struct Events {
    protocol: Protocol,
    splitter: Splitter,
    seen: Seen,
}

#[derive(Debug)]
struct Seen {
    tally: Tally,
    blocks: anthropic::Blocks,
    echo: Echo,
    guesses: u32,
}

impl Events {
    pub(crate) fn new(protocol: Protocol, dialect: Dialect, schema: Option<Box<Schema>>) -> Events {
        let seen = Seen {
            tally: Tally::new(dialect, true, schema),
            blocks: anthropic::Blocks::default(),
            echo: Echo::default(),
            guesses: 0,
        };
        Events { protocol, splitter: Splitter::new(), seen }
    }

    /// Whether this dialect's events carry generated tokens.
    pub(crate) fn awaits_tokens(&self) -> bool {
        let dialect = self.seen.tally.facts.dialect;
        matches!(
            dialect,
            Dialect::Chat
                | Dialect::Completions
                | Dialect::Responses
                | Dialect::Messages
                | Dialect::Gemini
                | Dialect::Converse
        )
    }

    /// When the first generated token passed.
    pub(crate) fn first_token_at(&self) -> Option<Mono> {
        self.seen.tally.facts.first_token_at
    }

    /// Bytes of memory kept for an event under way.
    pub(crate) fn kept(&self) -> usize {
        self.splitter.kept() + self.seen.echo.kept() + self.seen.tally.kept()
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8], now: Mono) {
        let Events { protocol, splitter, seen } = self;
        if seen.given_up() {
            return;
        }
        splitter.feed(bytes, |event| seen.event(*protocol, event, now));
    }

    /// The dialect, as far as it is known.
    pub(crate) fn dialect(&self) -> Dialect {
        self.seen.tally.facts.dialect
    }

    /// The dialect is this one.
    pub(crate) fn speaks(&mut self, dialect: Dialect) {
        self.seen.tally.facts.dialect = dialect;
    }

    /// Takes in an event that another splitter found.
    pub(crate) fn event(&mut self, event: Event<'_>, now: Mono) {
        self.seen.event(self.protocol, event, now);
    }

    /// An event passed that was too large to be looked into at all.
    pub(crate) fn oversized(&mut self) {
        self.seen.tally.facts.oversized = self.seen.tally.facts.oversized.saturating_add(1);
    }

    /// The stream itself says that it failed.
    pub(crate) fn failed(&mut self) {
        self.seen.tally.error();
    }

    /// What was found, given how the stream ended; `owed` when an answer was to come at all.
    pub(crate) fn finish(mut self, ending: Ending, owed: bool, now: Mono) -> Facts {
        let Events { protocol, splitter, seen } = &mut self;
        if !seen.given_up()
            && let Some(event) = splitter.rest()
            && let Piece::Whole(data) = event.data
            && (data.trim_ascii() == b"[DONE]" || scan::is_json(data))
        {
            seen.event(*protocol, event, now);
        }
        let Seen { mut tally, mut echo, .. } = self.seen;
        gemini::settle(&mut tally, &mut echo);
        tally.facts.done = tally.ended;
        match tally.facts.dialect {
            Dialect::Unknown => tally.facts.streamed = true,
            Dialect::Mcp => mcp::close(&mut tally, self.splitter.resumable || !owed, ending),
            _ if owed => tally.close_stream(ending),
            _ => (),
        }
        tally.facts
    }
}

impl Seen {
    fn given_up(&self) -> bool {
        self.guesses > GUESSES_MAX
    }

    fn event(&mut self, protocol: Protocol, event: Event<'_>, now: Mono) {
        if let Piece::Ends(..) = event.data {
            self.tally.facts.oversized = self.tally.facts.oversized.saturating_add(1);
        }
        if self.tally.facts.dialect == Dialect::Unknown {
            if self.given_up() {
                return;
            }
            self.guesses += 1;
            let (Piece::Whole(head) | Piece::Ends(head, _)) = event.data;
            self.tally.facts.dialect = dialect::by_shape(protocol, event.name, head);
        }
        match self.tally.facts.dialect {
            Dialect::Chat | Dialect::Completions => openai::chat_event(&mut self.tally, &mut self.echo, event, now),
            Dialect::Responses => openai::responses_event(&mut self.tally, event, now),
            Dialect::Messages => anthropic::event(&mut self.tally, &mut self.blocks, event, now),
            Dialect::Mcp => mcp::event(&mut self.tally, event),
            Dialect::Gemini => gemini::event(&mut self.tally, &mut self.echo, event, now),
            Dialect::Converse => bedrock::event(&mut self.tally, &mut self.blocks, event, now),
            Dialect::Unknown | Dialect::Embeddings => (),
        }
        if self.tally.facts.dialect != Dialect::Unknown {
            self.guesses = 0;
        }
    }
}
