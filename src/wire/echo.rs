//! Recognises a chunk that repeats the one before it in all but its text.
//!
//! The deltas of one stream differ in one string: id, model, time and the rest come again byte for byte. Once a chunk was
//! understood, another with the same bytes before and after that string means the same, and two comparisons are enough to
//! know it. Where servers pad each chunk differently (OpenAI's `obfuscation`), what follows the text is looked at again.

use super::scan;

/// Longest frame remembered, in bytes.
const FRAME_BYTES_MAX: usize = 2048;

/// What the differing string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Text of the answer, in this choice.
    Answer(u64),
    /// Reasoning.
    Thought,
    /// A part of the arguments of the tool call with this choice and index.
    Arguments((u64, u64)),
}

/// The chunk before, without its text.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    /// What stood before the text (its quote included), then what stood after it (the same).
    frame: Vec<u8>,
    /// Where the second part begins.
    after: usize,
    said: Option<Said>,
}

impl Echo {
    /// Bytes of memory kept.
    pub(crate) fn kept(&self) -> usize {
        self.frame.capacity()
    }

    /// Remembers `data`, whose text begins at `at` (after its quote) and is all that matters in it.
    pub(crate) fn learn(&mut self, data: &[u8], at: usize, said: Said) {
        let inside = at.checked_sub(1).and_then(|quote| scan::leading_string(data.get(quote..)?));
        let (Some(inside), Some(before)) = (inside, data.get(..at)) else { return };
        let after = data.get(at + inside.len()..).unwrap_or_default();
        self.frame.clear();
        self.said = None;
        if before.len() + after.len() <= FRAME_BYTES_MAX {
            self.frame.extend_from_slice(before);
            self.frame.extend_from_slice(after);
            self.after = before.len();
            self.said = Some(said);
        }
    }

    /// What `data` says, if it begins like the chunk before and its text is not empty.
    pub(crate) fn heard<'a>(&self, data: &'a [u8]) -> Option<Heard<'a>> {
        let said = self.said?;
        let (before, after) = self.frame.split_at_checked(self.after)?;
        let rest = data.strip_prefix(before)?;
        let text = scan::leading_string(data.get(self.after.checked_sub(1)?..)?).filter(|text| !text.is_empty())?;
        let rest = rest.get(text.len()..)?;
        Some(Heard { said, text, rest: Some(rest).filter(|rest| *rest != after) })
    }
}

/// A chunk that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard<'a> {
    /// What its text is.
    pub(crate) said: Said,
    /// The raw text.
    pub(crate) text: &'a [u8],
    /// What stands after the text, where that is not as it was: it may tell something else and must be looked at.
    pub(crate) rest: Option<&'a [u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_in_the_same_frame_is_an_echo_and_what_differs_after_it_is_told() {
        let mut echo = Echo::default();
        echo.learn(br#"{"a":"one","b":null}"#, 6, Said::Answer(0));
        let heard =
            |data: &[u8]| echo.heard(data).filter(|heard| heard.rest.is_none()).map(|heard| heard.text.to_vec());
        assert_eq!(heard(br#"{"a":"two \"2\" \n","b":null}"#), Some(br#"two \"2\" \n"#.to_vec()));
        let padded = echo.heard(br#"{"a":"two","b":1}"#);
        assert_eq!(padded, Some(Heard { said: Said::Answer(0), text: b"two", rest: Some(br#"","b":1}"#) }));
        for other in [
            &br#"{"a":"","b":null}"#[..],
            br#"{"a":"two","b":1}"#,
            br#"{"a":"two","b":1,"c":"","b":null}"#,
            br#"{"a":"two\","b":null}"#,
            br#"{"c":"two","b":null}"#,
            br#"{"a":"#,
            b"",
        ] {
            assert_eq!(heard(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn a_frame_too_long_is_not_kept() {
        let mut echo = Echo::default();
        let data = format!("{{\"a\":\"one\",\"b\":\"{}\"}}", "x".repeat(FRAME_BYTES_MAX));
        echo.learn(data.as_bytes(), 6, Said::Answer(0));
        assert_eq!((echo.heard(data.as_bytes()), echo.kept()), (None, 0));
    }
}
