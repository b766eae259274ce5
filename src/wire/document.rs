//! Reads an answer that comes as one JSON document.
//!
//! A document that comes in one piece is read where it lies; one in several pieces is collected up to a bound, and
//! of one beyond it only the ends are looked at.

use super::facts::{Dialect, Ending, Facts, Protocol};
use super::scan::Fault;
use super::schema::Schema;
use super::sse::{Hold, Piece, TAIL_BYTES, WHOLE_BYTES_MAX};
use super::tally::Tally;
use super::{anthropic, bedrock, dialect, gemini, mcp, openai};

/// How much of a document is looked at in search of its dialect.
const GUESS_BYTES: usize = 1024;

/// The reader of one document.
#[derive(Debug)]
pub(crate) struct Document {
    protocol: Protocol,
    dialect: Dialect,
    hold: Hold,
    /// The shape that the answer's text is to have.
    schema: Option<Box<Schema>>,
    /// The whole document was read in place.
    read: Option<Facts>,
    /// Something came after the end of the document.
    trailing: bool,
}

impl Document {
    pub(crate) fn new(protocol: Protocol, dialect: Dialect, schema: Option<Box<Schema>>) -> Document {
        Document { protocol, dialect, hold: Hold::new(bound(dialect)), schema, read: None, trailing: false }
    }

    /// Bytes of memory kept.
    pub(crate) fn kept(&self) -> usize {
        self.hold.kept()
    }

    /// Takes the next bytes in. Says whether there is any use in more of them.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> bool {
        if self.trailing {
            return true;
        }
        if self.read.is_some() {
            self.trailing = !bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
            return true;
        }
        if self.hold.is_empty() && self.in_one_piece(bytes) {
            return true;
        }
        self.hold.push(bytes);
        if self.dialect == Dialect::Unknown
            && let Piece::Whole(so_far) = self.hold.piece()
            && so_far.len() >= GUESS_BYTES
        {
            self.dialect = dialect::by_shape(self.protocol, b"", so_far.get(..GUESS_BYTES).unwrap_or(so_far));
            self.hold.narrow(bound(self.dialect));
            return self.dialect != Dialect::Unknown;
        }
        true
    }

    fn in_one_piece(&mut self, bytes: &[u8]) -> bool {
        let dialect = self.dialect_of(bytes);
        let closed = matches!(bytes.trim_ascii_end().last(), Some(b'}' | b']'));
        if !closed || bytes.len() > bound(dialect) || dialect == Dialect::Unknown {
            return false;
        }
        let mut tally = Tally::new(dialect, false, self.schema.take());
        if whole(&mut tally, bytes).is_err() {
            self.schema = tally.into_schema();
            return false;
        }
        tally.judge_whole();
        self.read = Some(tally.facts);
        true
    }

    fn dialect_of(&self, bytes: &[u8]) -> Dialect {
        match self.dialect {
            Dialect::Unknown => dialect::by_shape(self.protocol, b"", bytes.get(..GUESS_BYTES).unwrap_or(bytes)),
            told => told,
        }
    }

    pub(crate) fn finish(mut self, ending: Ending) -> Facts {
        if let Some(facts) = self.read.take() {
            if self.trailing {
                let mut tally = Tally::new(facts.dialect, false, None);
                tally.fault(Fault::Syntax, ending);
                return tally.facts;
            }
            return facts;
        }
        let piece = self.hold.piece();
        let (Piece::Whole(head) | Piece::Ends(head, _)) = piece;
        let mut tally = Tally::new(self.dialect_of(head), false, self.schema.take());
        match (tally.facts.dialect, piece) {
            (Dialect::Unknown, _) => (),
            (_, Piece::Whole(bytes)) if bytes.trim_ascii().is_empty() => {
                tally.facts.empty = ending == Ending::Clean && tally.facts.dialect != Dialect::Mcp;
                tally.facts.cut = ending == Ending::Broken;
            }
            (_, Piece::Whole(bytes)) => match whole(&mut tally, bytes) {
                Ok(()) => tally.judge_whole(),
                Err(fault) => tally.fault(fault, ending),
            },
            (_, Piece::Ends(head, tail)) => ends(&mut tally, head, tail, ending),
        }
        tally.facts
    }
}

/// Vectors are long and say nothing: of embeddings, only the ends.
fn bound(dialect: Dialect) -> usize {
    if dialect == Dialect::Embeddings { TAIL_BYTES } else { WHOLE_BYTES_MAX }
}

fn whole(tally: &mut Tally, bytes: &[u8]) -> Result<(), Fault> {
    match tally.facts.dialect {
        Dialect::Chat | Dialect::Completions => {
            openai::chat_parts(tally, bytes)?;
            tally.close_calls();
            Ok(())
        }
        Dialect::Responses => openai::response_object(tally, bytes, true),
        Dialect::Embeddings => openai::embeddings(tally, bytes),
        Dialect::Messages => anthropic::document(tally, bytes),
        Dialect::Mcp => mcp::document(tally, bytes),
        Dialect::Gemini => gemini::document(tally, bytes),
        Dialect::Converse => bedrock::document(tally, bytes),
        Dialect::Unknown => Ok(()),
    }
}

fn ends(tally: &mut Tally, head: &[u8], tail: &[u8], ending: Ending) {
    tally.facts.oversized = 1;
    tally.filled = true;
    if !matches!(tail.trim_ascii_end().last(), Some(b'}' | b']')) {
        return tally.fault(Fault::Cut, ending);
    }
    match tally.facts.dialect {
        Dialect::Messages => anthropic::document_ends(tally, tail),
        Dialect::Mcp => mcp::document_ends(tally, head, tail),
        Dialect::Gemini => gemini::ends(tally, tail),
        Dialect::Converse => bedrock::ends(tally, tail),
        _ => openai::document_ends(tally, head, tail),
    }
}
