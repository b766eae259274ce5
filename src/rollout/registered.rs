//! The register under trial: frozen at the start, guarding what is released, and never holding up a fall.

use std::sync::Arc;
use std::time::Duration;

use super::testing::{Trial, terms};
use super::*;
use crate::judge::Verdict;
use crate::names::VersionName;

fn entry(version: &str, digest: &str) -> Arc<Registration> {
    Arc::new(Registration {
        version: VersionName::new(version),
        digest: format!("sha256:{digest}"),
        kind: ReleaseKind::Minor,
        risk: Some(RiskClass::Medium),
        owner: "ml-platform".to_owned(),
        contacts: vec!["#release".to_owned()],
        shadow_evidence: Vec::new(),
        thresholds: Vec::new(),
    })
}

fn entered(digest: &str) -> Trial {
    Trial::under(Terms { register: Some(entry("b", digest)), ..terms(Some(Plan::preset("gradual").unwrap())) })
}

impl Trial {
    /// An hour and a second pass, and the judge has its proof.
    fn proven(&mut self) -> Vec<Record> {
        self.passes(Duration::from_secs(3_601));
        self.recorded(Event::Judged(Verdict::Advance { reason: "proven".to_owned() })).unwrap()
    }

    fn digest(&mut self, digest: &str) {
        self.terms.register = Some(entry("b", digest));
    }

    fn frozen(&self) -> Option<&str> {
        self.state.register.as_ref().map(|entry| entry.digest.as_str())
    }
}

#[test]
fn the_entry_is_frozen_at_the_start_and_stands_in_its_record_alone() {
    let mut trial = entered("01");
    let start = trial.by(Role::Operator, Verb::Start).unwrap();
    assert_eq!(start[0].register.as_deref(), Some(&*entry("b", "01")));
    assert_eq!(trial.frozen(), Some("sha256:01"));
    let advance = trial.proven();
    assert_eq!((advance[0].decision, &advance[0].register), (Decision::Advance, &None));
    let back: State = serde_json::from_str(&serde_json::to_string(&trial.state).unwrap()).unwrap();
    assert_eq!(back.register, trial.state.register, "a restart has it");
    trial.by(Role::Operator, Verb::Abort).unwrap();
    trial.by(Role::Owner, Verb::Clear).unwrap();
    assert_eq!(trial.frozen(), None);
    let mut plain = entered("01");
    (plain.terms.plan, plain.terms.weight) = (None, None);
    let weight = crate::split::weight::Weight::from_percent(5.0).unwrap();
    let set = plain.by(Role::Operator, Verb::SetWeight(weight)).unwrap();
    assert!(set[0].register.is_some(), "a plain split begins by its weight");
}

#[test]
fn another_digest_under_the_same_name_lets_nothing_rise_and_everything_fall() {
    let mut trial = entered("01");
    trial.by(Role::Operator, Verb::Start).unwrap();
    trial.digest("02");
    assert!(trial.proven().is_empty(), "proof is not enough");
    assert_eq!((trial.waits_for(), trial.state.stage), (Some("register"), Some(0)));
    for role in [Role::Operator, Role::Owner] {
        let refused = trial.by(role, Verb::Promote { full: false }).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Conflict);
        for part in ["b was registered as sha256:01", "the file says sha256:02", "(gates)"] {
            assert!(refused.why.contains(part), "{part}: {}", refused.why);
        }
    }
    let refused = trial.by(Role::Operator, Verb::Register).unwrap_err();
    assert!(refused.why.contains("sha256:02"), "{}", refused.why);
    // The file has the old one again.
    trial.digest("01");
    assert_eq!(trial.proven()[0].decision, Decision::Advance);
    trial.digest("02");
    let fallen =
        trial.recorded(Event::Judged(Verdict::Rollback { rule: "e".to_owned(), reason: "9".to_owned() })).unwrap();
    assert_eq!(fallen[0].decision, Decision::Rollback, "a fall waits for nothing");
}

#[test]
fn an_owner_takes_another_digest_in_and_the_evidence_begins_anew() {
    let mut trial = entered("01");
    trial.by(Role::Operator, Verb::Start).unwrap();
    trial.digest("02");
    trial.proven();
    assert!(trial.by(Role::Operator, Verb::Gates).is_err());
    let taken = trial.by(Role::Owner, Verb::Gates).unwrap();
    assert_eq!(taken[0].register.as_ref().unwrap().digest, "sha256:02");
    assert_eq!((trial.frozen(), trial.state.resided), (Some("sha256:02"), Duration::ZERO));
    assert_eq!(trial.waits_for(), Some("residence"));
    assert_eq!(trial.proven()[0].decision, Decision::Advance);
}

#[test]
fn a_person_registers_before_the_start_and_what_is_no_digest_while_it_runs() {
    let mut trial = entered("01");
    let written = trial.by(Role::Operator, Verb::Register).unwrap();
    assert_eq!((written[0].decision, written[0].to), (Decision::Register, Phase::Idle));
    assert_eq!(written[0].register.as_ref().unwrap().digest, "sha256:01");
    trial.digest("02");
    trial.by(Role::Operator, Verb::Start).unwrap();
    assert_eq!(trial.frozen(), Some("sha256:02"), "before the start nothing is frozen");
    let mut other = (*entry("b", "02")).clone();
    other.owner = "somebody else".to_owned();
    trial.terms.register = Some(Arc::new(other));
    trial.proven();
    let (stage, weight) = (trial.state.stage, trial.state.weight);
    assert_eq!(stage, Some(1), "an owner's name is nothing that was proven");
    let written = trial.by(Role::Operator, Verb::Register).unwrap();
    assert_eq!(written[0].register.as_ref().unwrap().owner, "somebody else");
    assert_eq!((trial.state.stage, trial.state.weight), (stage, weight));
    assert!(trial.by(Role::Approver, Verb::Register).unwrap_err().why.contains("operator or owner"));
    trial.terms.register = None;
    let refused = trial.by(Role::Operator, Verb::Register).unwrap_err();
    assert!(refused.why.contains("[rollouts.NAME.register]"), "{}", refused.why);
}

#[test]
fn the_entry_of_a_version_that_waits_is_not_about_the_one_that_runs() {
    let mut trial = entered("01");
    let plan = Plan { second_version: SecondVersion::Queue, ..Plan::preset("gradual").unwrap() };
    trial.terms.plan = Some(Arc::new(plan));
    trial.by(Role::Operator, Verb::Start).unwrap();
    (trial.terms.canary, trial.terms.register) = (Some(VersionName::new("c")), Some(entry("c", "03")));
    trial.recorded(Event::NewVersion(VersionName::new("c"))).unwrap();
    assert_eq!(trial.proven()[0].decision, Decision::Advance);
    assert_eq!(trial.frozen(), Some("sha256:01"));
}
