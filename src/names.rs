//! Typed names, indices and points in time that every area shares.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which of the versions' slices served (or was to serve) an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The version everybody had before.
    Stable,
    /// A control slice of stable's units, as large as the canary.
    Baseline,
    /// The version under release.
    Canary,
}

impl Arm {
    /// All arms, in the order of their [`Arm::index`].
    pub const ALL: [Arm; 3] = [Arm::Stable, Arm::Baseline, Arm::Canary];

    /// Position in per-arm tables: 0 stable, 1 baseline, 2 canary.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Arm::Stable => 0,
            Arm::Baseline => 1,
            Arm::Canary => 2,
        }
    }

    /// The word used in headers, metric labels and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Arm::Stable => "stable",
            Arm::Baseline => "baseline",
            Arm::Canary => "canary",
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name; the caller has checked its form.
            #[must_use]
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A rollout's name: the key under `[rollouts]`.
    RolloutName
);
name_type!(
    /// The name of a model, prompt, agent or MCP server under release.
    VersionName
);

/// Classes that tools are sorted into, by a keyed hash of their names: which tool it is stays unknown.
pub const TOOL_CLASSES: u8 = 8;

/// The writing of an answer, and of the most written languages in Latin letters the language. New ones come last: their
/// places are in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Script {
    /// Latin letters in another language than those named here, or too few words to tell (or code, or JSON).
    Latin,
    /// Latin letters of which some carry marks. No longer told: for traces, gates and journals from before languages were.
    Accented,
    /// Cyrillic.
    Cyrillic,
    /// Arabic and Hebrew.
    Arabic,
    /// Devanagari and its kin.
    Indic,
    /// Han without kana.
    Han,
    /// Japanese.
    Kana,
    /// Korean.
    Hangul,
    /// Any other.
    Other,
    /// English.
    English,
    /// Spanish.
    Spanish,
    /// French.
    French,
    /// German.
    German,
    /// Portuguese.
    Portuguese,
    /// Italian.
    Italian,
    /// Dutch.
    Dutch,
}

impl Script {
    /// Those that are told of answers now, in the order of their gates.
    pub const ALL: [Script; 15] = [
        Script::English,
        Script::Spanish,
        Script::French,
        Script::German,
        Script::Portuguese,
        Script::Italian,
        Script::Dutch,
        Script::Latin,
        Script::Cyrillic,
        Script::Arabic,
        Script::Indic,
        Script::Han,
        Script::Kana,
        Script::Hangul,
        Script::Other,
    ];

    /// By its word in gates and traces, those of old too.
    #[must_use]
    pub fn named(word: &str) -> Option<Script> {
        Script::ALL.into_iter().chain([Script::Accented]).find(|script| script.as_str() == word)
    }

    /// The word in gates and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Script::English => "english",
            Script::Spanish => "spanish",
            Script::French => "french",
            Script::German => "german",
            Script::Portuguese => "portuguese",
            Script::Italian => "italian",
            Script::Dutch => "dutch",
            Script::Latin => "latin",
            Script::Accented => "accented",
            Script::Cyrillic => "cyrillic",
            Script::Arabic => "arabic",
            Script::Indic => "indic",
            Script::Han => "han",
            Script::Kana => "kana",
            Script::Hangul => "hangul",
            Script::Other => "other",
        }
    }
}

/// A point on the monotonic clock: nanoseconds since an origin (`clock::Clock` says which).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// Time passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This point moved on by `by`, saturating.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Mono {
        let nanos = by.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Mono(self.0.saturating_add(nanos))
    }

    /// Seconds since the origin.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The point `seconds` after the origin; negative becomes the origin.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Mono {
        Mono((seconds.max(0.0) * 1e9) as u64)
    }
}

/// A point on the wall clock: milliseconds since 1970-01-01T00:00:00Z. For people and records, never for durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// RFC 3339 in UTC with milliseconds, as records and the API show it.
    #[must_use]
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(|_| "invalid".to_owned(), |t| format!("{t:.3}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_its_word_in_traces_and_its_place_in_checkpoints() {
        let words = "latin accented cyrillic arabic indic han kana hangul other \
                     english spanish french german portuguese italian dutch";
        for (place, word) in words.split_whitespace().enumerate() {
            let script: Script = serde_json::from_value(word.into()).unwrap();
            assert_eq!((script.as_str(), Script::named(word)), (word, Some(script)));
            assert_eq!(postcard::to_stdvec(&script).unwrap(), [place as u8], "{word}");
        }
        assert_eq!(Script::named("klingon"), None);
    }
}
