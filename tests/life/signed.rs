//! A journal that a running serin signs: good with the public half of its key, across a restart, and with no other.

use serin::clock::Clock;
use serin::evaluator::Command;
use serin::journal::{Verifier, verify_signed};
use serin::names::RolloutName;
use serin::rollout::{Actor, Role, Verb};

use crate::fixture::{House, head, rollout, shared};

#[test]
fn what_a_serin_decides_is_signed_with_its_key() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let file = dir.path().join("key.pem");
    std::fs::write(&file, pair.serialize_pem()).unwrap();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let key = format!("path = \"DIR/state\"\nsigning_key = \"{}\"\n", file.display());
    let text = head(1, true).replace("path = \"DIR/state\"\n", &key) + &rollout("chat", nowhere, nowhere, "");
    let mut house = House::start(&text, &Clock::system());
    for (verb, restarts) in
        [(Verb::SetWeight(serin::split::Weight::from_percent(5.0).unwrap()), true), (Verb::Abort, false)]
    {
        let actor = Actor::new("alice", &[Role::Owner]);
        let (rollout, reason) = (RolloutName::new("chat"), "a test".to_owned());
        house.serin().command(Command { rollout, verb, actor, reason, if_match: None }).unwrap();
        house.serin.take().unwrap().stop();
        if restarts {
            house.open();
        }
    }
    let journal = house.dir.path().join("state/journal");
    let good = Verifier::from_pem(pair.public_key_pem().as_bytes()).unwrap();
    let signed = verify_signed(&journal, &[good]).unwrap();
    assert!(signed.signatures >= 2 && signed.summary.last >= 4, "{signed:?}");
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = Verifier::from_pem(other.public_key_pem().as_bytes()).unwrap();
    let broken = verify_signed(&journal, &[other]).unwrap_err();
    assert_eq!(broken.at, 2, "the first signature: {broken}");
}
