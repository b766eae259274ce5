//! What an answer says, taken out of its JSON as the bytes pass: whatever the dialect, streamed or whole, cut anywhere.
//!
//! Inside JSON a quote always begins or ends a string, and what is not JSON in an event stream (`data:`, `event:`, comments)
//! holds none. So strings can be followed without following events: a string behind which a colon comes is a key, and the
//! string behind that colon is its value. Linear in the bytes, and no memory but the key at hand.

/// Keys whose strings are said to the caller, in any dialect.
const SPOKEN: [&[u8]; 6] = [b"content", b"text", b"delta", b"refusal", b"output_text", b"partial_json"];
/// Longest key that is told from others.
const KEY_MAX: usize = 16;

/// Follows the strings of one answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    state: State,
    key: [u8; KEY_MAX],
    /// Bytes of the string at hand, as far as it may be a key.
    length: usize,
    /// The string at hand is a value that is said.
    spoken: bool,
    /// The upper half of a surrogate pair.
    high: u16,
    unit: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Outside a string; `true` where a key with its colon came before.
    #[default]
    Outside,
    /// Behind the string that may be a key.
    Behind,
    /// Behind a key and its colon.
    Awaiting,
    /// In a string.
    Inside,
    /// Behind a backslash.
    Escape,
    /// In the digits of `\uXXXX`; how many are left.
    Hex(u8),
}

impl Said {
    /// Follows the next bytes; `say` is given what is said, as it should be read, piece by piece.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut say: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            if self.state == State::Inside {
                // The common case in one step: all up to the next quote or backslash.
                let end = rest.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(rest.len());
                let (plain, tail) = rest.split_at(end);
                self.plain(plain, &mut say);
                rest = tail;
                if let Some((&byte, tail)) = rest.split_first() {
                    self.state = if byte == b'"' { State::Behind } else { State::Escape };
                    rest = tail;
                }
                continue;
            }
            rest = tail;
            self.step(byte, &mut say);
        }
    }

    fn plain(&mut self, bytes: &[u8], say: &mut impl FnMut(&[u8])) {
        if self.spoken && !bytes.is_empty() {
            say(bytes);
        }
        for byte in bytes.iter().take(KEY_MAX + 1 - self.length.min(KEY_MAX)) {
            if let Some(place) = self.key.get_mut(self.length) {
                *place = *byte;
            }
            self.length += 1;
        }
    }

    fn step(&mut self, byte: u8, say: &mut impl FnMut(&[u8])) {
        match (self.state, byte) {
            (State::Outside | State::Behind, b'"') => self.open(false),
            (State::Awaiting, b'"') => {
                let key = self.key.get(..self.length).unwrap_or_default();
                let spoken = SPOKEN.contains(&key);
                self.open(spoken);
            }
            (State::Behind, b':') => self.state = State::Awaiting,
            (State::Behind | State::Awaiting, b' ' | b'\t') => {}
            (State::Outside | State::Behind | State::Awaiting, _) => self.state = State::Outside,
            (State::Escape, b'u') => {
                self.unit = 0;
                self.state = State::Hex(4);
            }
            (State::Escape, byte) => {
                let meant = match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' | b'f' => b' ',
                    other => other,
                };
                self.state = State::Inside;
                self.plain(&[meant], say);
            }
            (State::Hex(left), byte) => self.hex(left, byte, say),
            (State::Inside, _) => {}
        }
    }

    fn open(&mut self, spoken: bool) {
        self.state = State::Inside;
        self.spoken = spoken;
        self.length = 0;
        self.high = 0;
    }

    fn hex(&mut self, left: u8, byte: u8, say: &mut impl FnMut(&[u8])) {
        let digit = char::from(byte).to_digit(16).unwrap_or(0) as u16;
        self.unit = self.unit << 4 | digit;
        if left > 1 {
            self.state = State::Hex(left - 1);
            return;
        }
        self.state = State::Inside;
        let pair = match (std::mem::take(&mut self.high), self.unit) {
            (_, 0xD800..=0xDBFF) => {
                self.high = self.unit;
                return;
            }
            (high @ 0xD800..=0xDBFF, 0xDC00..=0xDFFF) => {
                0x1_0000 + ((u32::from(high) & 0x3FF) << 10 | u32::from(self.unit) & 0x3FF)
            }
            (_, unit) => u32::from(unit),
        };
        let letter = char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.plain(letter.encode_utf8(&mut [0; 4]).as_bytes(), say);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str, pieces: usize) -> String {
        let (mut said, mut all) = (Said::default(), Vec::new());
        for piece in text.as_bytes().chunks(pieces) {
            said.feed(piece, |bytes| all.extend_from_slice(bytes));
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn what_is_said_is_heard_in_every_dialect_and_cut_anywhere() {
        let chat = "data: {\"id\":\"content\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"Hé\"}}]}\n\n\
                    : ping \ndata: {\"choices\":[{\"delta\":{\"content\":\"l\\\"l\\u00f6 \\ud83d\\ude00\"}}]}\n\ndata: [DONE]\n\n";
        let anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\" : \"Hél\\\"lö 😀\"}}\n\n";
        let whole = "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hél\\\"l\\u00F6 \\uD83D\\uDE00\"}}],\"usage\":{\"total\":3}}";
        let parts = "{\"content\":[{\"type\":\"text\",\"text\":\"Hél\\\"lö 😀\"}],\"model\":\"text\"}";
        let responses = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hél\\\"lö 😀\"}\n\n";
        for text in [chat, anthropic, whole, parts, responses] {
            for pieces in [1, 2, 3, 7, 1_000] {
                assert_eq!(heard(text, pieces), "Hél\"lö 😀", "{pieces}: {text}");
            }
        }
    }

    #[test]
    fn keys_that_only_begin_like_one_and_values_that_look_like_one_are_not_said() {
        let text = "{\"content_filter\":\"no\",\"contents_of_a_very_long_key\":\"no\",\"x\":\"content\",\"y\":[\"text\",\"no\"],\"content\":7,\"z\":\"no\"}";
        assert_eq!(heard(text, 1), "");
        assert_eq!(heard(text, 100), "");
    }
}
