//! Checks a version's entry in the register: digest, kind, owner, and the risk class that picks the preset.

use super::check::Check;
use super::fault::Place;
use super::model_rollout::Version;
use super::raw;
use super::read::{At, Many, Text};
use crate::judge::Policy;
use crate::rollout::{Plan, Registration, ReleaseKind, RiskClass, Threshold};

/// Algorithms of a digest and how many hexadecimal digits each has.
const DIGESTS: [(&str, usize); 4] = [("sha256", 64), ("sha384", 96), ("sha512", 128), ("blake3", 64)];
/// Most contacts, and most references to evidence.
const ITEMS_MAX: usize = 20;
/// Most bytes of one of them, and of the owner.
const TEXT_MAX: usize = 500;

impl Check<'_, '_> {
    /// The risk class, which must be known before the plan.
    pub(crate) fn risk(&mut self, raw: Option<&raw::Register>) -> Option<RiskClass> {
        let at = raw?.risk.as_ref()?;
        let words = RiskClass::ALL.map(|risk| (risk.as_str(), Some(risk)));
        self.choice(Some(at), &words, None)
    }

    /// Tells where a plan's preset is not the one that the risk class picks.
    pub(crate) fn preset_of_risk(&mut self, place: &Place, risk: Option<RiskClass>, plan: Option<&Plan>) {
        let named = plan.and_then(|plan| plan.preset.as_deref());
        if let (Some(risk), Some(named)) = (risk, named)
            && named != risk.preset()
        {
            let reason =
                format!("picks the preset \"{}\", but the plan names \"{named}\", which is used", risk.preset());
            self.sink.warn(&place.child("risk"), reason, "take one of them out, or keep it as a decision of yours");
        }
    }

    /// The entry of the canary; `None` where there is none, or after a fault that leaves a hole.
    pub(crate) fn register(
        &mut self,
        raw: Option<raw::Register>,
        risk: Option<RiskClass>,
        canary: Option<&Version>,
        policy: &Policy,
    ) -> Option<Registration> {
        let raw = raw?;
        if canary.is_none() {
            let remedy = "write [rollouts.NAME.canary]";
            self.sink.warn(&raw.place, "has no canary to describe: it is not used", remedy);
        }
        let digest = match &raw.digest {
            Some(at) => self.digest(at),
            None => {
                self.sink.missing(&raw.place, "digest", "write \"sha256:\" and the digest of what is released");
                None
            }
        };
        if raw.kind.is_none() {
            self.sink.missing(&raw.place, "kind", "write \"major\", \"minor\" or \"patch\"");
        }
        let kinds = ReleaseKind::ALL.map(|kind| (kind.as_str(), kind));
        let kind = self.choice(raw.kind.as_ref(), &kinds, ReleaseKind::Major);
        let owner = match &raw.owner {
            Some(at) => self.words_of(at),
            None => {
                self.sink.missing(&raw.place, "owner", "write who answers for this version");
                None
            }
        };
        let contacts = self.list_of(raw.contacts);
        let shadow_evidence = self.list_of(raw.shadow_evidence);
        Some(Registration {
            version: canary?.name.clone(),
            digest: digest?,
            kind,
            risk,
            owner: owner?,
            contacts,
            shadow_evidence,
            thresholds: Threshold::of(policy),
        })
    }

    fn digest(&mut self, at: &At<Text>) -> Option<String> {
        let text = at.value.0.to_ascii_lowercase();
        let good = text.split_once(':').is_some_and(|(algorithm, hex)| {
            DIGESTS.iter().any(|(name, digits)| *name == algorithm && hex.len() == *digits)
                && hex.bytes().all(|b| b.is_ascii_hexdigit())
        });
        if !good {
            let known = DIGESTS.map(|(name, digits)| format!("\"{name}:\" and {digits}")).join(", ");
            self.sink.fault(&at.place, "is no digest", format!("write {known} hexadecimal digits"));
        }
        good.then_some(text)
    }

    /// A text that is not empty and not too long.
    fn words_of(&mut self, at: &At<Text>) -> Option<String> {
        let text = at.value.0.trim();
        if text.is_empty() {
            self.sink.fault(&at.place, "is empty", "write it, or take it out");
        } else if text.len() > TEXT_MAX {
            self.sink.fault(&at.place, "is too long", format!("write at most {TEXT_MAX} bytes"));
        } else {
            return Some(text.to_owned());
        }
        None
    }

    fn list_of(&mut self, raw: Option<Many<At<Text>>>) -> Vec<String> {
        let list = raw.map(|many| many.0).unwrap_or_default();
        if let Some(at) = list.get(ITEMS_MAX) {
            self.sink.fault(&at.place, "is one too many", format!("write at most {ITEMS_MAX}"));
        }
        list.iter().take(ITEMS_MAX).filter_map(|at| self.words_of(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Faults, parse};
    use crate::rollout::{ReleaseKind, RiskClass};

    fn read(register: &str, more: &str) -> Result<Config, Faults> {
        let text = format!(
            r#"
[listeners.e]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[rollouts.chat]
unit = ["ip"]
{more}
[rollouts.chat.stable]
version = "a"
endpoints = ["http://127.0.0.1:1"]
[rollouts.chat.canary]
version = "b"
endpoints = ["http://127.0.0.1:2"]
[rollouts.chat.register]
{register}
"#
        );
        parse(&text, "t", &|_| None)
    }

    fn whole(risk: &str) -> String {
        format!(
            "digest = \"SHA256:{}\"\nkind = \"minor\"\nowner = \"ml-platform\"\ncontacts = [\"#release\"]\nshadow_evidence = \"https://reports.example/0711\"\n{risk}",
            "0A".repeat(32)
        )
    }

    #[test]
    fn an_entry_is_of_the_canary_and_holds_the_margins_of_its_gates() {
        let config = read(&whole("risk = \"high\""), "").unwrap();
        let rollout = config.rollout("chat").unwrap();
        let entry = rollout.register.as_deref().unwrap();
        assert_eq!((entry.version.as_str(), entry.kind, entry.risk), ("b", ReleaseKind::Minor, Some(RiskClass::High)));
        assert_eq!(entry.digest, format!("sha256:{}", "0a".repeat(32)), "in one form");
        assert_eq!((entry.owner.as_str(), entry.contacts.len(), entry.shadow_evidence.len()), ("ml-platform", 1, 1));
        assert_eq!(entry.thresholds.len(), rollout.policy.rules.len());
    }

    #[test]
    fn the_risk_class_picks_the_preset_where_nothing_else_does() {
        let plan = |risk: &str, more: &str| {
            let config = read(&whole(risk), more).unwrap_or_else(|faults| panic!("{faults}"));
            let rollout = config.rollout("chat").unwrap();
            let said = config.warnings.iter().find(|fault| fault.to_string().contains("picks the preset"));
            (rollout.plan.as_ref().and_then(|plan| plan.preset.clone()), said.map(ToString::to_string))
        };
        for risk in RiskClass::ALL {
            let key = format!("risk = \"{}\"", risk.as_str());
            assert_eq!(plan(&key, "").0.as_deref(), Some(risk.preset()));
            assert_eq!(plan(&key, "plan = { soak = \"1h\" }").0.as_deref(), Some(risk.preset()));
        }
        assert_eq!(plan("risk = \"high\"", "").1, None);
        let (named, said) = plan("risk = \"high\"", "plan = { preset = \"gradual\" }");
        assert_eq!(named.as_deref(), Some("gradual"));
        assert!(
            said.as_ref().is_some_and(|said| said.contains("\"conservative\", but the plan names \"gradual\"")),
            "{said:?}"
        );
        assert_eq!(plan("risk = \"high\"", "weight = 5.0").0, None, "a plain split has no stages");
        assert_eq!(plan("", "").0, None);
    }

    #[test]
    fn every_fault_of_an_entry_is_named_with_its_remedy() {
        let faults =
            read("digest = \"sha256:12\"\nkind = \"big\"\nrisk = \"hihg\"\ncontacts = [\"\"]", "").unwrap_err();
        let text = faults.to_string();
        for part in [
            "rollouts.chat.register.digest",
            "is no digest",
            "\"sha256:\" and 64",
            "is none of \"major\", \"minor\", \"patch\"",
            "did you mean \"high\"?",
            "rollouts.chat.register.owner",
            "write who answers for this version",
            "is empty",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let faults = read("", "").unwrap_err().to_string();
        for key in ["register.digest", "register.kind", "register.owner"] {
            assert!(faults.contains(key), "{key}: {faults}");
        }
        let many = format!("contacts = [{}]", "\"a\", ".repeat(21));
        assert!(
            read(&format!("{}\n{many}", whole("").replace("contacts = [\"#release\"]\n", "")), "")
                .unwrap_err()
                .to_string()
                .contains("at most 20")
        );
    }
}
