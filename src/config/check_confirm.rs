//! Checks the confirm gates and the other hooks that have Flagger's names.

use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::files;
use super::model_rollout::ConfirmHook;
use super::raw;
use super::read::{At, Named};
use crate::rollout::Hook;

/// Most hooks of a rollout.
const HOOKS_MAX: usize = 16;
const SECOND: Duration = Duration::from_secs(1);

impl Check<'_, '_> {
    /// All hooks of a rollout.
    pub(crate) fn confirms(&mut self, raw: Named<raw::Confirm>) -> Vec<Arc<ConfirmHook>> {
        if let Some((name, _)) = raw.0.get(HOOKS_MAX) {
            self.sink.fault(&name.place, "is one too many", format!("write at most {HOOKS_MAX} hooks for a rollout"));
        }
        let hooks = raw.0.into_iter().take(HOOKS_MAX);
        hooks.filter_map(|(name, raw)| self.confirm(&name, raw).map(Arc::new)).collect()
    }

    fn confirm(&mut self, name: &At<String>, raw: raw::Confirm) -> Option<ConfirmHook> {
        self.name(&name.place, &name.value);
        let words = Hook::ALL.map(|hook| (hook.as_str(), hook));
        if raw.r#type.is_none() {
            let known = words.map(|(word, _)| format!("\"{word}\"")).join(", ");
            self.sink.missing(&raw.place, "type", format!("write one of {known}"));
        }
        let hook = self.choice(raw.r#type.as_ref(), &words, Hook::Event);
        let url = match raw.url {
            None => {
                self.sink.missing(&raw.place, "url", "write an address that begins with http:// or https://");
                None
            }
            Some(at) => {
                let text = at.value.0.expose();
                let web = text.starts_with("http://") || text.starts_with("https://");
                let good = web && text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some());
                if !good {
                    self.sink.fault(&at.place, "is no web address", "begin with http:// or https:// and write a host");
                }
                good.then_some(at.value.0)
            }
        };
        if let Some(at) = &raw.ca {
            self.file(at, files::authorities);
        }
        let every = self.duration(raw.every.as_ref(), SECOND, 10 * SECOND);
        let metadata = raw.metadata.unwrap_or_default().0;
        Some(ConfirmHook {
            name: name.value.clone(),
            hook,
            url: url?,
            secret: raw.secret.map(|at| at.value.0),
            timeout: self.duration(raw.timeout.as_ref(), SECOND / 10, 10 * SECOND),
            every,
            namespace: raw.namespace.map_or_else(|| "default".to_owned(), |at| at.value.0),
            metadata: metadata.into_iter().map(|(name, at)| (name.value, at.value.0)).collect(),
            ca: raw.ca.map(|at| at.value.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(confirm: &str) -> Result<crate::config::Config, crate::config::Faults> {
        let text = format!(
            r#"
[listeners.e]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[rollouts.chat]
unit = ["ip"]
stable = {{ version = "a", endpoints = ["http://127.0.0.1:1"] }}
[rollouts.chat.confirm]
{confirm}
"#
        );
        crate::config::parse(&text, "t", &|_| None)
    }

    #[test]
    fn a_hook_has_flaggers_name_and_defaults_of_its_own() {
        for hook in Hook::ALL {
            let config =
                read(&format!("g = {{ type = \"{}\", url = \"http://gate:8080/gate/check\" }}", hook.as_str()));
            let config = config.unwrap_or_else(|faults| panic!("{faults}"));
            let known = &config.rollout("chat").unwrap().confirm[0];
            assert_eq!((known.hook, known.name.as_str(), known.namespace.as_str()), (hook, "g", "default"));
            assert_eq!((known.every, known.timeout, known.valid()), (10 * SECOND, 10 * SECOND, 40 * SECOND));
        }
        let token = "g = { type = \"event\", url = \"https://a.example/\", metadata = { token = \"hush-hush\" } }";
        let config = read(token).unwrap();
        assert!(!format!("{config:?}").contains("hush-hush"), "metadata may hold a token");
    }

    #[test]
    fn every_fault_of_a_hook_is_named() {
        let faults =
            read("a = {}\nb = { type = \"confirm-promotoin\", url = \"ftp://x\", every = \"1ms\" }").unwrap_err();
        let text = faults.to_string();
        for part in [
            "rollouts.chat.confirm.a.type",
            "write one of \"confirm-rollout\"",
            "rollouts.chat.confirm.a.url",
            "did you mean \"confirm-promotion\"?",
            "is no web address",
            "is too short",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let many: String = (0..17).map(|n| format!("h{n} = {{ type = \"event\", url = \"http://x\" }}\n")).collect();
        assert!(read(&many).unwrap_err().to_string().contains("at most 16 hooks"));
    }
}
