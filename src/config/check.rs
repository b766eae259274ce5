//! From text to a valid `Config`: parse, read, check; every fault at once.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::duration::{parse_duration, parse_size, show_duration};
use super::fault::{Fault, Faults, Place, Show, Sink, nearest};
use super::model::Config;
use super::raw;
use super::read::{At, Later, Lookup, Raw as _, Reader, Text, read_text};

/// Most bytes of a configuration file.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// Reads and checks a configuration file; `${VAR}` is looked up in the environment.
///
/// # Errors
/// All faults of the file.
pub fn load(path: &Path) -> Result<Config, Faults> {
    let name = path.display().to_string();
    let text = read_text(path, CONFIG_BYTES_MAX)
        .map_err(|why| Faults::of_file(&name, why, "name a TOML file with -c or SERIN_CONFIG"))?;
    parse(&text, &name, &|variable| std::env::var(variable).ok())
}

/// Checks a configuration that is already in memory. `file` names it in faults, and relative paths start at its
/// folder; `lookup` stands for the environment.
///
/// # Errors
/// All faults of the text.
pub fn parse(text: &str, file: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let mut sink = Sink::new(file, text);
    let config = read(text, file, lookup, &mut sink).and_then(|root| {
        let mut check = Check { sink: &mut sink };
        check.config(root)
    });
    let warnings = sink.finish()?;
    match config {
        Some(config) => Ok(Config { warnings, ..config }),
        // Not reached: whatever yields no configuration has told a fault. Said, should it ever be.
        None => Err(Faults::of_file(file, "cannot be used, for a reason that serin failed to name", "tell its makers")),
    }
}

/// Syntax, unknown keys, wrong types, variables. `None` where the syntax is broken: what would be missing then says
/// nothing.
fn read(text: &str, file: &str, lookup: Lookup<'_>, sink: &mut Sink<'_>) -> Option<raw::Root> {
    let base = Path::new(file).parent().unwrap_or_else(|| Path::new(""));
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut spoiled = HashSet::new();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let place = Place { path: String::new(), span, show: Show::Nothing };
        let line = sink.fault_line(&place, format!("is not TOML: {}", error.message().replace('\n', ", ")));
        spoiled.insert(line);
    }
    let span = document.span();
    let node = toml::Spanned::new(span, DeValue::Table(document.into_inner()));
    let mut reader = Reader { sink, lookup, base };
    let root = raw::Root::read(&mut reader, &node, "");
    sink.forget(|line| spoiled.contains(&line));
    if errors.is_empty() { root } else { None }
}

/// The check of one file: where faults go, and where relative paths start.
pub(crate) struct Check<'a, 's> {
    pub(crate) sink: &'a mut Sink<'s>,
}

impl Check<'_, '_> {
    /// A duration of at least `least`; the default where none is written or after a fault.
    pub(crate) fn duration(&mut self, at: Option<&At<Text>>, least: Duration, default: Duration) -> Duration {
        self.duration_if(at, least).unwrap_or(default)
    }

    /// A duration of at least `least`, if one is written.
    pub(crate) fn duration_if(&mut self, at: Option<&At<Text>>, least: Duration) -> Option<Duration> {
        let at = at?;
        match parse_duration(&at.value.0) {
            Err(why) => self.sink.fault(&at.place, why, "write a duration, as \"250ms\", \"24h\" or \"1h30m\""),
            Ok(duration) if duration < least => {
                self.sink.fault(&at.place, "is too short", format!("write at least \"{}\"", show_duration(least)));
            }
            Ok(duration) => return Some(duration),
        }
        None
    }

    /// A size in bytes between bounds; the default where none is written or after a fault.
    pub(crate) fn size(&mut self, at: Option<&At<Text>>, least: u64, most: u64, default: u64) -> u64 {
        let Some(at) = at else { return default };
        match parse_size(&at.value.0) {
            Err(why) => self.sink.fault(&at.place, why, "write a size, as \"64KiB\" or \"100MiB\""),
            Ok(size) if size < least => {
                self.sink.fault(&at.place, "is too small", format!("write at least \"{least}B\""))
            }
            Ok(size) if size > most => self.sink.fault(&at.place, "is too large", format!("write at most \"{most}B\"")),
            Ok(size) => return size,
        }
        default
    }

    /// A whole number between bounds; the default where none is written or after a fault.
    pub(crate) fn count(&mut self, at: Option<&At<u64>>, least: u64, most: u64, default: u64) -> u64 {
        let Some(at) = at else { return default };
        if (least..=most).contains(&at.value) {
            return at.value;
        }
        self.sink.fault(&at.place, format!("is not between {least} and {most}"), "");
        default
    }

    /// Tells that something comes with later work.
    pub(crate) fn later(&mut self, at: Option<&Later>) {
        if let Some(Later(place)) = at {
            let version = env!("CARGO_PKG_VERSION");
            self.sink.fault(place, format!("is not yet available in serin {version}"), "take it out");
        }
    }

    /// One of some words; the default where none is written or after a fault.
    pub(crate) fn choice<T: Clone>(&mut self, at: Option<&At<Text>>, words: &[(&str, T)], default: T) -> T {
        let Some(at) = at else { return default };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == at.value.0) {
            return value.clone();
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.unknown_word(&at.place, &at.value.0, &known);
        default
    }

    /// Tells of a word that is none of those known.
    pub(crate) fn unknown_word(&mut self, place: &Place, word: &str, known: &[&str]) {
        let list = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let reason = format!("is none of {list}");
        let remedy = nearest(word, known.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        self.sink.fault(place, reason, remedy.unwrap_or_default());
    }

    /// A name in lists, headers and paths of URLs: letters, digits, `.`, `_`, `-`, at most 64.
    pub(crate) fn name(&mut self, place: &Place, name: &str) -> bool {
        let lawful = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = !name.is_empty() && name.len() <= 64 && name.bytes().all(lawful);
        if !good {
            self.sink.fault(place, "is no name", "use letters, digits, \".\", \"_\" and \"-\", at most 64 of them");
        }
        good
    }

    /// Whether a file is as it should be.
    pub(crate) fn file<T>(
        &mut self,
        at: &At<super::read::File>,
        read: impl FnOnce(&Path) -> Result<T, String>,
    ) -> Option<T> {
        match read(&at.value.0) {
            Ok(value) => Some(value),
            Err(why) => {
                self.sink.fault(
                    &at.place,
                    why,
                    "name a file that serin can read; relative paths start at the configuration's folder",
                );
                None
            }
        }
    }
}

/// As the JSON of a good file: `{"ok":true,"faults":[],"warnings":[…]}`.
#[must_use]
pub fn json_of(config: &Config) -> serde_json::Value {
    let faults: [Fault; 0] = [];
    serde_json::json!({"ok": true, "faults": faults, "warnings": config.warnings})
}

/// Every key that a file may have, by its path: `NAME` stands for the user's own names, `[]` for the items of a list.
#[must_use]
pub fn keys() -> Vec<String> {
    let mut out = Vec::new();
    raw::Root::keys("", &mut out);
    out
}
