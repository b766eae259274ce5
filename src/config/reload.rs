//! What of a new configuration needs a restart: refused, by name, so that nothing is half-applied.

use std::fmt;

use super::duration::show_duration;
use super::model::{Config, Listener};

/// A key whose change needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The key's path.
    pub key: String,
    /// What is in force.
    pub old: String,
    /// What the file says.
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in force, {} in the file; needs a restart", self.key, self.old, self.new)
    }
}

/// All keys that differ and cannot be changed while serin runs; empty when the new configuration can be taken.
///
/// Certificates, tokens, limits, rollouts and everything else not named here are taken by a reload.
#[must_use]
pub fn compare(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut differ = |key: String, old: String, new: String| {
        if old != new {
            changes.push(Change { key, old, new });
        }
    };
    differ("admin.listen".to_owned(), shown(old.admin.listen.as_ref()), shown(new.admin.listen.as_ref()));
    let path = |path: &Option<std::path::PathBuf>| shown(path.as_ref().map(|path| path.display()).as_ref());
    differ("admin.socket".to_owned(), path(&old.admin.socket), path(&new.admin.socket));
    differ("admin.probes".to_owned(), shown(old.admin.probes.as_ref()), shown(new.admin.probes.as_ref()));
    differ("admin.tls".to_owned(), whether(old.admin.tls.is_some()), whether(new.admin.tls.is_some()));
    for listener in &old.listeners {
        let key = format!("listeners.{}", listener.name);
        match new.listeners.iter().find(|other| other.name == listener.name) {
            None => differ(key, listener.listen.to_string(), "nothing".to_owned()),
            Some(other) => {
                differ(format!("{key}.listen"), listener.listen.to_string(), other.listen.to_string());
                differ(format!("{key}.tls"), whether(listener.tls.is_some()), whether(other.tls.is_some()));
                let protocol = |listener: &Listener| listener.proxy_protocol.to_string();
                differ(format!("{key}.proxy_protocol"), protocol(listener), protocol(other));
            }
        }
    }
    for listener in &new.listeners {
        if !old.listeners.iter().any(|other| other.name == listener.name) {
            differ(format!("listeners.{}", listener.name), "nothing".to_owned(), listener.listen.to_string());
        }
    }
    let workers = |config: &Config| config.server.workers.map_or_else(|| "auto".to_owned(), |count| count.to_string());
    differ("server.workers".to_owned(), workers(old), workers(new));
    let ids = |config: &Config| config.limits.feedback_ids.to_string();
    differ("limits.feedback_ids".to_owned(), ids(old), ids(new));
    let store = |config: &Config| shown(config.store.as_ref().map(|store| store.path.display()).as_ref());
    differ("store.path".to_owned(), store(old), store(new));
    let retention = |config: &Config| shown(config.store.as_ref().map(|store| show_duration(store.retention)).as_ref());
    differ("store.retention".to_owned(), retention(old), retention(new));
    let key = |config: &Config| {
        let key = config.store.as_ref().and_then(|store| store.signing_key.as_ref());
        shown(key.map(|key| key.path.display()).as_ref())
    };
    differ("store.signing_key".to_owned(), key(old), key(new));
    let format = |config: &Config| format!("{:?}", config.log.format).to_lowercase();
    differ("log.format".to_owned(), format(old), format(new));
    differ("log.access".to_owned(), path(&old.log.access), path(&new.log.access));
    changes
}

fn shown<T: fmt::Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

fn whether(there: bool) -> String {
    if there { "on" } else { "off" }.to_owned()
}
