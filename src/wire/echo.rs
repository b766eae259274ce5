//! Recognises a chunk that repeats the one before it in all but its text.
//!
//! The deltas of one stream differ in one string: id, model, time and the rest come again byte for byte. Once a chunk was
//! understood, another with the same bytes before and after that string means the same, and two comparisons are enough to
//! know it. Where servers pad each chunk differently nothing is ever recognised, and little is lost.

use super::scan;

/// Longest frame remembered, in bytes.
const FRAME_BYTES_MAX: usize = 2048;

/// What the differing string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Text of the answer.
    Answer,
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

    /// What `data` says, if it is the chunk before with another text, and not with none.
    pub(crate) fn heard<'a>(&self, data: &'a [u8]) -> Option<(Said, &'a [u8])> {
        let said = self.said?;
        let (before, after) = self.frame.split_at_checked(self.after)?;
        let text = data.strip_prefix(before)?.strip_suffix(after)?;
        // The text must not close its own quote, nor take the closing one away.
        let quote = self.after.checked_sub(1)?;
        let whole = scan::leading_string(data.get(quote..)?)?.len() == text.len();
        (whole && !text.is_empty()).then_some((said, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_text_in_the_same_frame_is_an_echo() {
        let mut echo = Echo::default();
        echo.learn(br#"{"a":"one","b":null}"#, 6, Said::Answer);
        let heard = |data: &[u8]| echo.heard(data).map(|(_, text)| text.to_vec());
        assert_eq!(heard(br#"{"a":"two \"2\" \n","b":null}"#), Some(br#"two \"2\" \n"#.to_vec()));
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
        echo.learn(data.as_bytes(), 6, Said::Answer);
        assert_eq!((echo.heard(data.as_bytes()), echo.kept()), (None, 0));
    }
}
