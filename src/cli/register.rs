//! `serin register`: writes a file's entries into the register of a running serin, or shows what it holds.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::config;
use crate::rollout::Registration;

/// The entries that a file has: of the rollout that is named, or of all that have one.
///
/// # Errors
/// The file cannot be taken, or has no such entry: a sentence.
pub fn entries(file: &Path, name: &str) -> Result<Vec<(String, Registration)>, String> {
    let config = config::load(file).map_err(|faults| faults.to_string())?;
    if !name.is_empty() && config.rollout(name).is_none() {
        return Err(format!("{} has no rollout {name:?}", file.display()));
    }
    let wanted = config.rollouts.iter().filter(|rollout| name.is_empty() || rollout.name.as_str() == name);
    let found: Vec<_> =
        wanted.filter_map(|rollout| Some((rollout.name.to_string(), rollout.register.as_deref()?.clone()))).collect();
    if found.is_empty() {
        let whose = if name.is_empty() { "NAME" } else { name };
        let why = "has no entry to write: add digest, kind, owner and risk of the canary";
        return Err(format!("{} {why} in [rollouts.{whose}.register]", file.display()));
    }
    Ok(found)
}

/// One line of what an entry says.
#[must_use]
pub fn line(entry: &Registration) -> String {
    let risk = entry.risk.map_or_else(String::new, |risk| format!(", {} risk", risk.as_str()));
    let contacts = if entry.contacts.is_empty() { String::new() } else { format!(" ({})", entry.contacts.join(", ")) };
    let (version, kind) = (&entry.version, entry.kind.as_str());
    format!("{version}: {kind}{risk}, {}, owner {}{contacts}", entry.digest, entry.owner)
}

#[derive(Deserialize)]
struct Shown {
    rollout: String,
    file: Option<Registration>,
    frozen: Option<Registration>,
    entries: Vec<Written>,
}

#[derive(Deserialize)]
struct Written {
    n: u64,
    at: String,
    decision: String,
    by: String,
    entry: Registration,
}

/// The register as people read it; `None` where the answer cannot be understood.
#[must_use]
pub fn screen(answer: &Value) -> Option<String> {
    let shown = Shown::deserialize(answer).ok()?;
    let mut out = format!("{}\n", shown.rollout);
    let mut say = |name: &str, entry: &Option<Registration>| {
        let text = entry.as_ref().map_or_else(|| "nothing".to_owned(), line);
        out.push_str(&format!("  {name:<8}{text}\n"));
    };
    say("file", &shown.file);
    say("frozen", &shown.frozen);
    if let Some(entry) = shown.frozen.as_ref().or(shown.file.as_ref()) {
        for evidence in &entry.shadow_evidence {
            out.push_str(&format!("  evidence  {evidence}\n"));
        }
        for threshold in &entry.thresholds {
            let limit = threshold.limit.as_ref().map_or_else(String::new, |limit| format!(", never above {limit}"));
            let (gate, promote, rollback) = (&threshold.gate, &threshold.promote, &threshold.rollback);
            out.push_str(&format!("  {gate}: fine up to {promote}, bad from {rollback}{limit}\n"));
        }
    }
    for written in &shown.entries {
        let Written { n, at, decision, by, entry } = written;
        out.push_str(&format!("  entry {n}  {at}  {decision} by {by}  {}\n", line(entry)));
    }
    Some(out)
}
