//! Faults of a configuration: where, what, why, and what to do; for people and as JSON.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One fault (or warning) of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// Line from 1; 0 where the fault is the file itself.
    pub line: usize,
    /// Column from 1, in characters; 0 like `line`.
    pub column: usize,
    /// The key, as `rollouts.chat.plan.stages[2].weight`; empty for faults of syntax.
    pub path: String,
    /// The value as it stands in the file; never a secret.
    pub value: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, "\n  {}", self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All faults of a file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// What forbids the configuration.
    pub faults: Vec<Fault>,
    /// What would have been a warning.
    pub warnings: Vec<Fault>,
}

impl Faults {
    /// A single fault of the file as a whole.
    #[must_use]
    pub fn of_file(file: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        let fault = Fault {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            value: None,
            reason: reason.into(),
            remedy: remedy.into(),
        };
        Self { faults: vec![fault], warnings: Vec::new() }
    }

    /// As `serin check -o json` prints them: `{"ok":false,"faults":[…],"warnings":[…]}`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"ok": false, "faults": self.faults, "warnings": self.warnings})
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        let count = self.faults.len();
        write!(f, "{count} {}", if count == 1 { "fault" } else { "faults" })
    }
}

impl std::error::Error for Faults {}

/// How much of a value a fault may show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Show {
    /// What stands in the file (with `${…}` unreplaced).
    Source,
    /// Nothing: a table, or what is not there.
    #[default]
    Nothing,
    /// That there is one.
    Hidden,
}

/// Where a value stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The key's path.
    pub(crate) path: String,
    /// Bytes of the file.
    pub(crate) span: Range<usize>,
    /// What may be shown.
    pub(crate) show: Show,
}

impl Place {
    /// A key that should stand in the table at this place.
    pub(crate) fn child(&self, key: &str) -> Place {
        Place { path: join(&self.path, key), span: self.span.clone(), show: Show::Nothing }
    }
}

/// A key below a path, quoted where TOML would ask for it.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Collects faults of one file.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    file: &'a str,
    text: &'a str,
    faults: Vec<(usize, Fault)>,
    warnings: Vec<(usize, Fault)>,
    /// Keys that an unknown key was probably meant to be.
    misspelt: Vec<String>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, faults: Vec::new(), warnings: Vec::new(), misspelt: Vec::new() }
    }

    /// Remembers that this key is there under a wrong name.
    pub(crate) fn misspelt(&mut self, path: String) {
        self.misspelt.push(path);
    }

    /// A fault of the value at `place`.
    pub(crate) fn fault(&mut self, place: &Place, reason: impl Into<String>, remedy: impl Into<String>) {
        let value = self.source(place);
        self.push(place, value, reason.into(), remedy.into());
    }

    /// A fault of syntax; says on which line it stands.
    pub(crate) fn fault_line(&mut self, place: &Place, reason: String) -> usize {
        self.push(place, None, reason, String::new());
        self.position(place.span.start).0
    }

    /// A fault whose value is shown in serin's own words.
    pub(crate) fn fault_of(&mut self, place: &Place, value: String, reason: impl Into<String>, remedy: &str) {
        self.push(place, Some(value), reason.into(), remedy.to_owned());
    }

    /// A key that must be there; silent where what stands there was told of already.
    pub(crate) fn missing(&mut self, table: &Place, key: &str, remedy: impl Into<String>) {
        let place = table.child(key);
        let told = |(_, fault): &(usize, Fault)| {
            fault.path.strip_prefix(&place.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.faults.iter().any(told) && !self.misspelt.contains(&place.path) {
            self.fault(&place, "is missing", remedy);
        }
    }

    /// Something lawful that the operator should know.
    pub(crate) fn warn(&mut self, place: &Place, reason: impl Into<String>, remedy: impl Into<String>) {
        let value = self.source(place);
        let fault = self.make(place, value, reason.into(), remedy.into());
        self.warnings.push((place.span.start, fault));
    }

    /// Drops faults that stand on a line (from 1) for which `spoiled` says yes.
    pub(crate) fn forget(&mut self, spoiled: impl Fn(usize) -> bool) {
        self.faults.retain(|(_, fault)| fault.path.is_empty() || !spoiled(fault.line));
    }

    /// How many faults there are by now.
    pub(crate) fn count(&self) -> usize {
        self.faults.len()
    }

    /// Everything found: the warnings, or the faults with them.
    pub(crate) fn finish(mut self) -> Result<Vec<Fault>, Faults> {
        self.faults.sort_by_key(|(at, _)| *at);
        self.warnings.sort_by_key(|(at, _)| *at);
        let warnings = self.warnings.into_iter().map(|(_, fault)| fault).collect();
        if self.faults.is_empty() {
            return Ok(warnings);
        }
        Err(Faults { faults: self.faults.into_iter().map(|(_, fault)| fault).collect(), warnings })
    }

    fn push(&mut self, place: &Place, value: Option<String>, reason: String, remedy: String) {
        let fault = self.make(place, value, reason, remedy);
        if !self.faults.iter().any(|(_, known)| *known == fault) {
            self.faults.push((place.span.start, fault));
        }
    }

    fn make(&self, place: &Place, value: Option<String>, reason: String, remedy: String) -> Fault {
        let (line, column) = self.position(place.span.start);
        Fault { file: self.file.to_owned(), line, column, path: place.path.clone(), value, reason, remedy }
    }

    /// Line and column, both from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before.get(start..).map_or(0, |tail| tail.chars().count()) + 1)
    }

    fn source(&self, place: &Place) -> Option<String> {
        match place.show {
            Show::Nothing => None,
            Show::Hidden => Some("(hidden)".to_owned()),
            Show::Source => {
                let text = self.text.get(place.span.clone())?;
                let line = text.lines().next().unwrap_or_default();
                let short: String = line.chars().take(80).collect();
                Some(if short.len() < text.len() { format!("{short}…") } else { short })
            }
        }
    }
}

/// `; did you mean "…"?` in waiting: the nearest of `known`, if one is near.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = word.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.82)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `did you mean "x"?`, or the words that there are.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
