//! The tap itself: shown every frame of one answer, asked for its facts at the end.

use super::facts::{Ending, Facts, Protocol};
use crate::names::Mono;

/// Reads one answer. Small while idle; what a dialect needs is boxed and born with the first byte.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: u64,
    first_byte_at: Option<Mono>,
    last_byte_at: Option<Mono>,
}

impl Reader {
    /// A reader for the answer to a request for `request_path` (with or without query), by the answer's own headers.
    #[must_use]
    pub fn for_exchange(
        _protocol: Protocol,
        _request_path: &str,
        _content_type: Option<&str>,
        _content_encoding: Option<&str>,
    ) -> Reader {
        Reader::default()
    }

    /// Says that no answer is owed (the request was a GET): an end of the stream is not a cut.
    pub fn open_ended(&mut self) {}

    /// Shows the next body bytes, which passed at `now`. Never fails, keeps no more than a bounded part.
    pub fn chunk(&mut self, bytes: &[u8], now: Mono) {
        if bytes.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.first_byte_at.get_or_insert(now);
        self.last_byte_at = Some(now);
    }

    /// The facts, given how the body ended: `true` in good order, `false` cancelled by the caller, or an [`Ending`].
    /// To be called once; a second call knows only the byte counts.
    pub fn finish(&mut self, end: impl Into<Ending>) -> Facts {
        let _end: Ending = end.into();
        Facts {
            bytes: self.bytes,
            first_byte_at: self.first_byte_at,
            last_byte_at: self.last_byte_at,
            ..Facts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
