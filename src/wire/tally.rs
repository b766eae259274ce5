//! The facts of an answer while it is being read, and what every dialect decides alike at its end.

use super::echo::Said;
use super::facts::{Dialect, Ending, Facts};
use super::scan::{Checked, Fault, Validator};
use super::schema::{Expected, Schema};

/// Tool calls whose arguments are followed at once; further ones are counted, not checked.
const OPEN_CALLS_MAX: usize = 64;

/// One tool call whose arguments are still coming.
#[derive(Debug)]
struct OpenCall {
    /// Choice and index within the choice.
    key: (u64, u64),
    /// Fingerprint of the call's id; 0 while unknown.
    id: u64,
    arguments: Validator,
}

/// The state of one answer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) facts: Facts,
    /// The end of the answer was seen (`[DONE]`, `message_stop`, …).
    pub(crate) ended: bool,
    /// The beginning was seen.
    pub(crate) begun: bool,
    /// It has content: text, a tool call, anything a caller can use.
    pub(crate) filled: bool,
    /// The dialect was seen to mean an answer that can be called empty.
    pub(crate) answer: bool,
    /// What the chunk at hand told of tool calls.
    pub(crate) parts: Parts,
    /// The answer's text, where the request declared its shape.
    expected: Option<Box<Expected>>,
    calls: Vec<OpenCall>,
}

/// The parts of tool calls in one chunk.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// How many.
    pub(crate) calls: u32,
    /// The last one's choice and index, if it had no id of its own.
    pub(crate) call: Option<(u64, u64)>,
}

impl Tally {
    pub(crate) fn new(dialect: Dialect, streamed: bool, schema: Option<Box<Schema>>) -> Tally {
        let expected = schema.map(|schema| Box::new(Expected::new(*schema)));
        Tally { facts: Facts { dialect, streamed, ..Facts::default() }, expected, ..Tally::default() }
    }

    /// Bytes of memory kept of the answer's text.
    pub(crate) fn kept(&self) -> usize {
        self.expected.as_ref().map_or(0, |expected| expected.kept())
    }

    /// The declared shape, for another attempt at the same document.
    pub(crate) fn into_schema(self) -> Option<Box<Schema>> {
        self.expected.map(|expected| Box::new(expected.into_schema()))
    }

    /// Takes in the answer's text of one choice, as the raw inside of a JSON string; `None` where it is told in another form.
    pub(crate) fn text(&mut self, choice: u64, inside: Option<&[u8]>) {
        if let Some(expected) = &mut self.expected {
            expected.push(choice, inside);
        }
    }

    pub(crate) fn error(&mut self) {
        self.facts.in_band_error = true;
    }

    pub(crate) fn duplicate(&mut self) {
        self.facts.duplicates = self.facts.duplicates.saturating_add(1);
    }

    /// Counts a tool call whose arguments are known whole, as the raw inside of a JSON string.
    pub(crate) fn whole_call(&mut self, arguments: &[u8]) {
        let mut validator = Validator::new();
        validator.push_escaped(arguments);
        self.call();
        self.judge_arguments(&validator);
    }

    /// Takes in a chunk of a known kind, by the raw inside of the one string that differs.
    pub(crate) fn said(&mut self, said: Said, inside: &[u8]) {
        match said {
            Said::Answer(choice) => {
                self.filled = true;
                self.text(choice, Some(inside));
            }
            Said::Thought => (),
            Said::Arguments(call) => self.part_of_call(call, None, inside),
        }
    }

    /// Counts a tool call.
    pub(crate) fn call(&mut self) {
        self.filled = true;
        self.facts.tool_calls = self.facts.tool_calls.saturating_add(1);
    }

    /// A tool of this name (as it stands in the JSON) is called.
    pub(crate) fn named(&mut self, tool: Option<&str>) {
        if let Some(name) = tool.filter(|name| !name.is_empty()) {
            self.facts.tool.get_or_insert(fingerprint(name.as_bytes()));
        }
    }

    /// Takes in a part of a tool call: a new one when `key` is new, or known with another `id`.
    pub(crate) fn part_of_call(&mut self, key: (u64, u64), id: Option<&[u8]>, arguments: &[u8]) {
        let id = id.map_or(0, fingerprint);
        let open = self.calls.iter_mut().find(|call| call.key == key);
        if let Some(call) = open {
            if id == 0 || call.id == 0 || call.id == id {
                call.id = call.id.max(id);
                call.arguments.push_escaped(arguments);
                return;
            }
            let before = std::mem::replace(&mut call.arguments, Validator::new());
            call.id = id;
            call.arguments.push_escaped(arguments);
            self.judge_arguments(&before);
            self.call();
            return;
        }
        if self.calls.len() == OPEN_CALLS_MAX {
            if id != 0 {
                self.call(); // cannot be followed; a call begins where its id is told
            }
            return;
        }
        let mut validator = Validator::new();
        validator.push_escaped(arguments);
        self.calls.push(OpenCall { key, id, arguments: validator });
        self.call();
    }

    pub(crate) fn judge_arguments(&mut self, arguments: &Validator) {
        if arguments.finish() == Checked::Invalid {
            self.facts.tool_errors = self.facts.tool_errors.saturating_add(1);
        }
    }

    /// Judges the arguments of all calls under way: no more of them comes.
    pub(crate) fn close_calls(&mut self) {
        for call in std::mem::take(&mut self.calls) {
            self.judge_arguments(&call.arguments);
        }
    }

    /// The document could not be read.
    pub(crate) fn fault(&mut self, fault: Fault, ending: Ending) {
        match (fault, ending) {
            (_, Ending::Cancelled) | (Fault::Shape, _) => (),
            (Fault::Cut, _) | (Fault::Syntax, Ending::Broken) => self.facts.cut = true,
            (Fault::Syntax, Ending::Clean) => self.facts.malformed = true,
        }
    }

    /// Judges what only the end can tell, for a stream: whole or cut, empty, arguments that are not JSON.
    /// A cut or failed answer is not called empty besides.
    pub(crate) fn close_stream(&mut self, ending: Ending) {
        if self.ended || self.facts.finish.is_some() {
            self.close_calls();
        }
        if self.ended {
            self.judge_whole();
        } else if !self.facts.in_band_error && ending != Ending::Cancelled {
            self.facts.cut = true;
        }
    }

    /// Judges a whole answer: whether anything is in it, and whether its text has the declared shape.
    pub(crate) fn judge_whole(&mut self) {
        let facts = &mut self.facts;
        let explained = facts.refusal || facts.filtered || facts.in_band_error || facts.cut;
        facts.empty = self.answer && !self.filled && !explained;
        // An answer that called tools, was stopped or has nothing to say owes no such text.
        if !explained && !facts.truncated && facts.tool_calls == 0 && self.answer && self.filled {
            facts.schema_valid = self.expected.as_ref().and_then(|expected| expected.holds());
        }
    }
}

/// FNV-1a, never 0: tells ids apart, nothing hangs on collisions but a count.
fn fingerprint(id: &[u8]) -> u64 {
    id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)) | 1
}
