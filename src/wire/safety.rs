//! Local safety rules: a set of regular expressions over what answers say, the same for both arms.
//!
//! Text is gathered to blocks and each block searched once, with the end of the one before in front of it, so that the
//! cost is linear in the text (the regex crate promises linear time) and the memory bounded: [`BLOCK`] and [`OVERLAP`]
//! bytes an answer. A match that is longer than the overlap may be missed where it lies across a block's end.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::said::Said;
use super::script::Letters;
use crate::names::Script;

/// Bytes of text that are searched at once.
const BLOCK: usize = 4 << 10;
/// Bytes of the block before that are searched again.
const OVERLAP: usize = 512;
/// Rules of one rollout.
pub const RULES_MAX: usize = 1_000;
/// Memory of all compiled rules of a rollout, bytes.
const SIZE_MAX: usize = 16 << 20;

/// A list of rules, compiled.
#[derive(Clone)]
pub struct SafetyRules {
    set: Arc<RegexSet>,
}

impl PartialEq for SafetyRules {
    fn eq(&self, other: &Self) -> bool {
        self.set.patterns() == other.set.patterns()
    }
}

impl fmt::Debug for SafetyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetyRules({})", self.set.len())
    }
}

impl SafetyRules {
    /// Compiles a list.
    ///
    /// # Errors
    /// What is no regular expression, or too large all together.
    pub fn new(rules: &[String]) -> Result<Self, String> {
        if rules.len() > RULES_MAX {
            return Err(format!("{} rules, at most {RULES_MAX}", rules.len()));
        }
        let set = RegexSetBuilder::new(rules).size_limit(SIZE_MAX).dfa_size_limit(SIZE_MAX).build();
        set.map(|set| Self { set: Arc::new(set) }).map_err(|error| error.to_string())
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.set.len()
    }
}

/// What an answer has said so far, up to a bound; shared between its reader and who keeps it.
#[derive(Clone, Debug)]
pub struct Transcript {
    text: Rc<RefCell<Vec<u8>>>,
    most: usize,
}

impl Transcript {
    /// Of at most `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { text: Rc::default(), most }
    }

    fn push(&self, text: &[u8]) {
        let mut all = self.text.borrow_mut();
        let room = self.most.saturating_sub(all.len());
        all.extend_from_slice(text.get(..room).unwrap_or(text));
    }

    /// The text, and whether there may have been more.
    #[must_use]
    pub fn take(&self) -> (Vec<u8>, bool) {
        let text = self.text.take();
        let full = text.len() >= self.most;
        (text, full)
    }
}

/// Watches what one answer says.
#[derive(Debug)]
pub(crate) struct Screen {
    rules: Option<SafetyRules>,
    transcript: Option<Transcript>,
    /// Where the language or writing is to be told.
    letters: Option<Letters>,
    said: Said,
    block: Vec<u8>,
    violated: bool,
}

impl Screen {
    pub(crate) fn new(rules: Option<SafetyRules>, transcript: Option<Transcript>, letters: bool) -> Self {
        let letters = letters.then(Letters::default);
        Self { rules, transcript, letters, said: Said::default(), block: Vec::new(), violated: false }
    }

    /// Bytes of memory kept.
    pub(crate) fn kept(&self) -> usize {
        size_of::<Self>() + self.block.capacity() + self.letters.as_ref().map_or(0, Letters::kept)
    }

    /// Plain bytes of the answer pass. After a violation there is nothing more to find.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let Self { rules, transcript, letters, said, block, violated } = self;
        let rules = rules.as_ref().filter(|_| !*violated);
        if rules.is_none() && transcript.is_none() && letters.is_none() {
            return;
        }
        said.feed(bytes, |mut text| {
            if let Some(transcript) = transcript {
                transcript.push(text);
            }
            if let Some(letters) = letters {
                letters.feed(text);
            }
            let Some(rules) = rules else { return };
            while !text.is_empty() {
                let (now, later) = text.split_at(text.len().min((BLOCK + OVERLAP).saturating_sub(block.len()).max(1)));
                block.extend_from_slice(now);
                text = later;
                if block.len() >= BLOCK + OVERLAP {
                    *violated |= rules.set.is_match(block);
                    block.drain(..block.len() - OVERLAP);
                }
            }
        });
    }

    /// Whether the answer broke a rule, and its language or writing.
    pub(crate) fn finish(mut self) -> (bool, Option<Script>) {
        self.violated |= self.rules.is_some_and(|rules| !self.block.is_empty() && rules.set.is_match(&self.block));
        (self.violated, self.letters.and_then(|letters| letters.script()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> SafetyRules {
        SafetyRules::new(&[r"(?i)\bssn:? \d{3}-\d{2}-\d{4}\b".to_owned(), "verboten".to_owned()]).unwrap()
    }

    fn broken(text: &str, event_letters: usize, chunk: usize) -> bool {
        let letters: Vec<char> = text.chars().collect();
        let stream: String = letters
            .chunks(event_letters)
            .map(|part| {
                let part = serde_json::to_string(&part.iter().collect::<String>()).unwrap();
                format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{part}}}}}]}}\n\n")
            })
            .collect();
        let mut screen = Screen::new(Some(rules()), None, false);
        stream.as_bytes().chunks(chunk).for_each(|bytes| screen.feed(bytes));
        assert!(screen.kept() < 16 << 10, "{}", screen.kept());
        screen.finish().0
    }

    #[test]
    fn a_rule_is_broken_across_events_and_chunks() {
        for (event, chunk) in [(1, 1), (1, 1_000), (3, 5), (50, 7), (1_000, 64)] {
            assert!(broken("so the SSN: 123-45-6789 is his", event, chunk), "{event} {chunk}");
            assert!(!broken("so the SSN: 123-45-678 is his", event, chunk), "{event} {chunk}");
            assert!(broken("das ist ver\u{62}oten", event, chunk));
        }
    }

    #[test]
    fn a_rule_is_found_wherever_it_lies_in_a_long_answer() {
        for before in [0, 4_000, 4_090, 4_096, 4_600, 4_608, 20_000] {
            let text = format!("{}verboten{}", "a".repeat(before), "b".repeat(9_000));
            assert!(broken(&text, 40, 900), "behind {before}");
        }
        assert!(!broken(&"a verb ".repeat(5_000), 40, 900));
    }

    #[test]
    fn only_what_is_said_is_looked_at() {
        let mut screen = Screen::new(Some(rules()), None, false);
        screen.feed(b"data: {\"model\":\"verboten\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n");
        assert!(!screen.finish().0);
    }

    #[test]
    fn a_list_that_cannot_be_compiled_is_refused() {
        assert!(SafetyRules::new(&["(".to_owned()]).is_err());
        assert!(SafetyRules::new(&["(?=x)".to_owned()]).is_err(), "nothing that could take more than linear time");
        assert!(SafetyRules::new(&[r"\w{1000}{1000}".to_owned()]).is_err(), "nor without bound in memory");
    }
}
