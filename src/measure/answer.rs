//! What is counted of what a model said: tokens, money, why it stopped, and what was found wrong with its answer.

use super::recorder::TOKEN_TYPES;
use crate::wire::{Dialect, Facts, Finish};

/// Something about an answer that people want to see counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It stopped before its end.
    Cut,
    /// A whole answer without content.
    Empty,
    /// A document that is no JSON although it says so.
    Malformed,
    /// An error in the body.
    InBandError,
    /// It refused.
    Refusal,
    /// A tool call whose arguments are no JSON, or that failed.
    ToolError,
    /// Its text has not the shape that its request declares.
    SchemaInvalid,
    /// A rule of the rollout's safety was broken.
    RuleBroken,
    /// Events came twice: a second beginning, or more after the end.
    Duplicate,
    /// Too large to be read whole: its head and tail were.
    Oversized,
    /// Packed in a way that is not read, or damaged: nothing is known of it.
    Undecoded,
}

impl Note {
    /// All of them, in the order of the counters.
    pub const ALL: [Note; 11] = [
        Note::Cut,
        Note::Empty,
        Note::Malformed,
        Note::InBandError,
        Note::Refusal,
        Note::ToolError,
        Note::SchemaInvalid,
        Note::RuleBroken,
        Note::Duplicate,
        Note::Oversized,
        Note::Undecoded,
    ];

    /// The word in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Note::Cut => "cut",
            Note::Empty => "empty",
            Note::Malformed => "malformed",
            Note::InBandError => "in_band_error",
            Note::Refusal => "refusal",
            Note::ToolError => "tool_error",
            Note::SchemaInvalid => "schema_invalid",
            Note::RuleBroken => "rule_broken",
            Note::Duplicate => "duplicate",
            Note::Oversized => "oversized",
            Note::Undecoded => "undecoded",
        }
    }

    fn is_in(self, facts: &Facts) -> bool {
        match self {
            Note::Cut => facts.cut,
            Note::Empty => facts.empty,
            Note::Malformed => facts.malformed,
            Note::InBandError => facts.in_band_error,
            Note::Refusal => facts.refusal,
            Note::ToolError => facts.tool_errors > 0,
            Note::SchemaInvalid => facts.schema_valid == Some(false),
            Note::RuleBroken => facts.rule_broken,
            Note::Duplicate => facts.duplicates > 0,
            Note::Oversized => facts.oversized > 0,
            Note::Undecoded => facts.undecoded,
        }
    }
}

/// The words for why answers ended, in the order of the counters; the last for those that did not say.
pub const FINISHES: [&str; 9] =
    ["stop", "tool_calls", "pause", "other", "length", "refusal", "content_filter", "error", "none"];

fn finish_index(finish: Option<Finish>) -> usize {
    match finish {
        Some(Finish::Stop) => 0,
        Some(Finish::ToolCalls) => 1,
        Some(Finish::Pause) => 2,
        Some(Finish::Other) => 3,
        Some(Finish::Length) => 4,
        Some(Finish::Refusal) => 5,
        Some(Finish::ContentFilter) => 6,
        Some(Finish::Error) => 7,
        None => 8,
    }
}

/// What one answer adds to the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// By [`TOKEN_TYPES`], as the provider tells them.
    pub tokens: [u64; TOKEN_TYPES.len()],
    /// Tokens of every kind, each counted once, whichever way the provider tells them.
    pub tokens_all: u64,
    /// Billionths of a dollar.
    pub cost_nano: u64,
    /// Place in [`FINISHES`]; absent where no model's answer was read.
    pub finish: Option<usize>,
    /// One bit for each of [`Note::ALL`].
    pub notes: u16,
}

impl Answer {
    /// Of an answer that was read, and what it cost, where that is known.
    #[must_use]
    pub fn of(facts: &Facts, cost_nano: Option<u64>) -> Self {
        let tokens = [
            facts.tokens_in,
            facts.tokens_out,
            facts.tokens_cached,
            facts.tokens_reasoning,
            facts.tokens_cache_written,
        ];
        // What is embedded is no answer that could have a reason to end.
        let speaks = !matches!(facts.dialect, Dialect::Unknown | Dialect::Embeddings | Dialect::Mcp);
        let noted = Note::ALL.iter().enumerate().filter(|(_, note)| note.is_in(facts));
        Self {
            tokens: tokens.map(Option::unwrap_or_default),
            tokens_all: facts.tokens_all(),
            cost_nano: cost_nano.unwrap_or(0),
            finish: speaks.then(|| finish_index(facts.finish)),
            notes: noted.fold(0, |notes, (bit, _)| notes | 1 << bit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_every_note_has_its_own_word() {
        let reasons = [
            Finish::Stop,
            Finish::ToolCalls,
            Finish::Pause,
            Finish::Other,
            Finish::Length,
            Finish::Refusal,
            Finish::ContentFilter,
            Finish::Error,
        ];
        let mut told: Vec<usize> = reasons.into_iter().map(Some).chain([None]).map(finish_index).collect();
        told.sort_unstable();
        assert_eq!(told, (0..FINISHES.len()).collect::<Vec<_>>());
        let mut words: Vec<&str> = Note::ALL.into_iter().map(Note::as_str).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Note::ALL.len());
    }

    #[test]
    fn an_answer_tells_why_it_ended_and_what_was_wrong_with_it() {
        let facts = Facts {
            dialect: Dialect::Messages,
            finish: Some(Finish::Length),
            tokens_in: Some(7),
            tokens_cached: Some(5),
            duplicates: 2,
            cut: true,
            ..Facts::default()
        };
        let answer = Answer::of(&facts, Some(9));
        assert_eq!((answer.tokens, answer.tokens_all, answer.cost_nano), ([7, 0, 5, 0, 0], 12, 9));
        assert_eq!(answer.finish.map(|at| FINISHES[at]), Some("length"));
        let noted: Vec<&str> = Note::ALL
            .iter()
            .enumerate()
            .filter(|(bit, _)| answer.notes & 1 << bit != 0)
            .map(|(_, note)| note.as_str())
            .collect();
        assert_eq!(noted, ["cut", "duplicate"]);
        let plain = Answer::of(&Facts { undecoded: true, ..Facts::default() }, None);
        assert_eq!((plain.finish, plain.notes), (None, 1 << 10));
    }
}
