//! Recognises a chunk that repeats the one before it in all but its text.
//!
//! The deltas of one stream differ in one string: id, model, time and the rest come again byte for byte. Once a chunk was
//! understood, another with the same bytes before and after that string means the same, and two comparisons are enough to
//! know it. Where servers pad each chunk differently (OpenAI's `obfuscation`), what follows the text is looked at again; where
//! they count on in each (Gemini's usage), the new count is kept as it stands and read once, when the last of them has come.

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
    /// Where in the frame a count stands that may go on (the frame's length: nowhere), and whether it has.
    count: usize,
    counted: bool,
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
        self.counted = false;
        if before.len() + after.len() <= FRAME_BYTES_MAX {
            self.frame.extend_from_slice(before);
            self.frame.extend_from_slice(after);
            self.after = before.len();
            self.count = self.frame.len();
            self.said = Some(said);
        }
    }

    /// The same where a count begins at `count`, behind the text, that the next chunks may tell anew.
    pub(crate) fn learn_counting(&mut self, data: &[u8], at: usize, said: Said, count: Option<usize>) {
        self.learn(data, at, said);
        if let Some(behind) = count.and_then(|count| data.len().checked_sub(count)) {
            self.count = self.frame.len().saturating_sub(behind).max(self.after);
        }
    }

    /// Whether `rest`, which stands after a text, is what stood there before but for the digits of the count; if so it is kept.
    pub(crate) fn counts_on(&mut self, rest: &[u8]) -> bool {
        let fixed = self.count.saturating_sub(self.after);
        let (Some((same, counts)), Some(frame)) = (rest.split_at_checked(fixed), self.frame.get(self.after..)) else {
            return false;
        };
        let Some((fixed, before)) = frame.split_at_checked(fixed) else { return false };
        if same != fixed || before.is_empty() || !same_but_for_digits(before, counts) {
            return false;
        }
        if counts.len() > FRAME_BYTES_MAX {
            return false;
        }
        self.frame.truncate(self.count);
        self.frame.extend_from_slice(counts);
        self.counted = true;
        true
    }

    /// The count that was kept last and not read yet.
    pub(crate) fn counted(&mut self) -> Option<&[u8]> {
        if std::mem::take(&mut self.counted) { self.frame.get(self.count..) } else { None }
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

/// Whether two texts differ in nothing but the digits of their numbers.
fn same_but_for_digits(mut one: &[u8], mut other: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut behind_digit = false;
    loop {
        let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
        if let Some(last) = same.checked_sub(1).and_then(|last| one.get(last)) {
            behind_digit = last.is_ascii_digit();
        }
        (one, other) = (one.get(same..).unwrap_or_default(), other.get(same..).unwrap_or_default());
        let (in_one, in_other) = (digits(one), digits(other));
        if in_one == 0 && in_other == 0 {
            return one.is_empty() && other.is_empty();
        }
        if (in_one == 0 || in_other == 0) && !behind_digit {
            return false;
        }
        (one, other) = (one.get(in_one..).unwrap_or_default(), other.get(in_other..).unwrap_or_default());
        behind_digit = true;
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
    fn a_count_goes_on_behind_the_text_and_nothing_else_may_differ() {
        let first = br#"{"a":"one","i":1,"u":{"n":9,"m":3},"v":"x2"}"#;
        let count = 21;
        assert_eq!(&first[count..count + 4], br#"{"n""#);
        let mut echo = Echo::default();
        echo.learn_counting(first, 6, Said::Answer(0), Some(count));
        let heard = |echo: &mut Echo, data: &[u8]| match echo.heard(data) {
            Some(Heard { rest: Some(rest), .. }) => echo.counts_on(rest),
            heard => heard.is_some(),
        };
        assert!(heard(&mut echo, first) && echo.counted().is_none(), "nothing new was told");
        assert!(heard(&mut echo, br#"{"a":"two","i":1,"u":{"n":10,"m":3},"v":"x2"}"#));
        assert!(heard(&mut echo, br#"{"a":"3","i":1,"u":{"n":111,"m":4},"v":"x3"}"#));
        assert_eq!(echo.counted(), Some(&br#"{"n":111,"m":4},"v":"x3"}"#[..]));
        assert_eq!(echo.counted(), None, "read once");
        for other in [
            &br#"{"a":"x","i":2,"u":{"n":111,"m":4},"v":"x3"}"#[..],
            br#"{"a":"x","i":1,"u":{"n":111,"m":4,"o":1},"v":"x3"}"#,
            br#"{"a":"x","i":1,"u":{"n":1.5,"m":4},"v":"x3"}"#,
            br#"{"a":"x","i":1,"u":{"n":-111,"m":4},"v":"x3"}"#,
            br#"{"a":"x","i":1,"u":{"n":,"m":4},"v":"x3"}"#,
            br#"{"a":"x","i":1,"u":{"n":111,"m":4},"v":"x3"},"#,
            br#"{"a":"x","i":1,"u":{"n":111"#,
            br#"{"a":"x","i":1"#,
        ] {
            assert!(!heard(&mut echo, other), "{}", String::from_utf8_lossy(other));
        }
        assert_eq!(echo.counted(), None);
    }

    #[test]
    fn a_frame_too_long_is_not_kept() {
        let mut echo = Echo::default();
        let data = format!("{{\"a\":\"one\",\"b\":\"{}\"}}", "x".repeat(FRAME_BYTES_MAX));
        echo.learn(data.as_bytes(), 6, Said::Answer(0));
        assert_eq!((echo.heard(data.as_bytes()), echo.kept()), (None, 0));
    }
}
