//! Signed checkpoints under trial: everything that a forger without the key can do to the files is found, with its place.

use std::path::Path;
use std::sync::Arc;

use super::trials::{Source, frames, only_segment, write};
use super::*;
use crate::journal::chain::{Found, GENESIS, Hash, read, seal};

/// A seeded source of numbers (SplitMix64): the trials repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

struct Key {
    signer: Arc<Signer>,
    verifier: Verifier,
}

fn key() -> Key {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let signer = Arc::new(Signer::from_pem(pair.serialize_pem().as_bytes()).unwrap());
    Key { signer, verifier: Verifier::from_pem(pair.public_key_pem().as_bytes()).unwrap() }
}

fn options(key: &Key) -> Options {
    Options { signer: Some(Arc::clone(&key.signer)), ..Options::default() }
}

/// A journal with so many records, one batch each.
fn filled(dir: &Path, count: usize, options: Options) -> Source {
    let (journal, _) = Journal::open_with(dir, options).unwrap();
    let mut source = Source::new("chat");
    for _ in 0..count {
        write(&journal, source.next()).unwrap();
    }
    source
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    let starts = frames(bytes);
    let whole = &starts[..starts.len() - 1];
    whole
        .iter()
        .map(|at| match read(bytes, *at, None) {
            Found::Frame { payload, .. } => serde_json::from_slice(payload).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The segment that a forger makes of these entries: numbered and chained anew, whatever they say.
fn forged(entries: Vec<Entry>) -> Vec<u8> {
    let (mut bytes, mut hash): (Vec<u8>, Hash) = (Vec::new(), GENESIS);
    for (n, mut entry) in (1..).zip(entries) {
        entry.n = n;
        // He may as well make signatures name what they stand behind; he cannot make them good.
        if let Body::Signature(signature) = &mut entry.body {
            (signature.of, signature.hash) = (n - 1, chain::hex(&hash));
        }
        let (frame, next) = seal(&hash, &serde_json::to_vec(&entry).unwrap());
        bytes.extend(frame);
        hash = next;
    }
    bytes
}

fn is_signature(entry: &Entry) -> bool {
    matches!(entry.body, Body::Signature(_))
}

#[test]
fn every_batch_is_signed_and_whoever_waits_is_told_the_number_of_his_record() {
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    let mut source = Source::new("chat");
    for round in 0..3_u64 {
        let (journal, recovered) = Journal::open_with(dir.path(), options(&key)).unwrap();
        assert_eq!(recovered.last, round * 10);
        for n in 0..5 {
            assert_eq!(write(&journal, source.next()).unwrap(), round * 10 + 2 * n + 1, "its own, not the signature's");
        }
    }
    let signed = verify_signed(dir.path(), std::slice::from_ref(&key.verifier)).unwrap();
    assert_eq!((signed.summary.last, signed.signatures, signed.keys), (30, 15, vec![key.verifier.name().to_owned()]));
    assert_eq!(verify(dir.path()).unwrap().last, 30, "who has no key can still check the chain");
    let (journal, recovered) = Journal::open_with(dir.path(), options(&key)).unwrap();
    assert_eq!((recovered.last, recovered.states.len()), (30, 1), "nothing new to sign");
    for _ in 0..200 {
        journal.append(source.next(), None).unwrap();
    }
    drop(journal);
    let signed = verify_signed(dir.path(), std::slice::from_ref(&key.verifier)).unwrap();
    let of_many = signed.signatures - 15;
    assert!((4..=200).contains(&of_many) && signed.summary.last == 230 + of_many, "one a batch: {of_many}");
}

#[test]
fn a_forger_who_chains_anew_is_found_at_the_first_signature_behind_what_he_changed() {
    let (source_dir, key) = (tempfile::tempdir().unwrap(), key());
    filled(source_dir.path(), 20, options(&key));
    let whole = entries(&std::fs::read(only_segment(source_dir.path())).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(only_segment(source_dir.path()).file_name().unwrap());
    let keys = std::slice::from_ref(&key.verifier);
    std::fs::write(&path, forged(whole.clone())).unwrap();
    assert_eq!(verify_signed(&path, keys).unwrap().signatures, 20, "an honest copy is good");
    let mut dice = Dice(7);
    for trial in 0..300 {
        let mut entries = whole.clone();
        let at = 2 * dice.below(20);
        let Body::Record(record) = &mut entries[at].body else { panic!("a record stands at {at}") };
        let (what, first_bad) = match dice.below(4) {
            0 => {
                record.reason.push('.');
                ("a reason", at + 2)
            }
            1 => {
                record.actor = "mallory".to_owned();
                ("an actor", at + 2)
            }
            2 => {
                entries.remove(at);
                // The signature behind it stands behind another entry now; at the very front, behind none.
                ("a record gone", if at == 0 { 1 } else { at + 1 })
            }
            _ => {
                let copy = entries[at].clone();
                entries.insert(at, copy);
                ("a record twice", at + 3)
            }
        };
        std::fs::write(&path, forged(entries)).unwrap();
        let broken = verify_signed(&path, keys).unwrap_err();
        assert_eq!(broken.at, first_bad as u64, "trial {trial}: {what} at {at}: {broken}");
        assert!(broken.why.contains("its signature is wrong"), "trial {trial}: {what}: {broken}");
        assert!(broken.place.contains("journal, byte "), "{broken}");
    }
}

#[test]
fn a_missing_signature_is_named_with_its_place() {
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    filled(dir.path(), 6, options(&key));
    let path = only_segment(dir.path());
    let whole = entries(&std::fs::read(&path).unwrap());
    std::fs::remove_file(dir.path().join(file::HEAD)).unwrap();
    let keys = std::slice::from_ref(&key.verifier);
    // All of them stripped, and the chain made anew.
    std::fs::write(&path, forged(whole.iter().filter(|e| !is_signature(e)).cloned().collect())).unwrap();
    assert_eq!(verify(&path).unwrap().last, 6, "the chain alone does not show it");
    let broken = verify_signed(&path, keys).unwrap_err();
    assert_eq!((broken.at, broken.why.as_str()), (1, "no signature covers it, nor any entry of the journal"));
    // The last one stripped, and a record put behind.
    let mut short = whole[..whole.len() - 1].to_vec();
    short.push(whole[0].clone());
    std::fs::write(&path, forged(short)).unwrap();
    let broken = verify_signed(&path, keys).unwrap_err();
    assert_eq!((broken.at, broken.why.as_str()), (11, "no signature covers it: the last one is entry 10"));
    assert!(broken.place.ends_with(".journal"));
    // One in the middle stripped: the next one does not fit any more.
    let rest = whole.iter().enumerate().filter(|(at, _)| *at != 3).map(|(_, e)| e.clone()).collect();
    std::fs::write(&path, forged(rest)).unwrap();
    assert_eq!(verify_signed(&path, keys).unwrap_err().at, 5);
}

#[test]
fn a_signature_that_names_another_entry_is_found_without_any_key() {
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    filled(dir.path(), 3, options(&key));
    let path = only_segment(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let Found::Frame { payload, previous, .. } = read(&bytes, frames(&bytes)[5], None) else { panic!() };
    let mut entry: Entry = serde_json::from_slice(payload).unwrap();
    let Body::Signature(signature) = &mut entry.body else { panic!() };
    signature.of -= 1;
    let mut changed = bytes[..frames(&bytes)[5]].to_vec();
    changed.extend(seal(&previous, &serde_json::to_vec(&entry).unwrap()).0);
    std::fs::write(&path, changed).unwrap();
    std::fs::remove_file(dir.path().join(file::HEAD)).unwrap();
    let broken = verify(&path).unwrap_err();
    assert_eq!((broken.at, broken.why.as_str()), (6, "it is a signature over another entry than the one before it"));
    assert!(matches!(Journal::open(dir.path()), Err(OpenError::Broken(_))), "it is not taken up either");
}

#[test]
fn a_key_that_comes_later_or_changes_vouches_for_what_was_there() {
    let (dir, first, second) = (tempfile::tempdir().unwrap(), key(), key());
    let mut source = filled(dir.path(), 4, Options::default());
    let mut more = |key: &Key| {
        let (journal, _) = Journal::open_with(dir.path(), options(key)).unwrap();
        write(&journal, source.next()).unwrap();
    };
    more(&first);
    let both = [first.verifier.clone(), second.verifier.clone()];
    let signed = verify_signed(dir.path(), &both[..1]).unwrap();
    assert_eq!((signed.summary.last, signed.signatures), (7, 2), "four records, their signature, one more and its own");
    more(&second);
    let signed = verify_signed(dir.path(), &both).unwrap();
    assert_eq!((signed.signatures, signed.keys.len()), (4, 2), "the new key signs what the old one had signed");
    for (alone, at) in [(0, 8), (1, 5)] {
        let broken = verify_signed(dir.path(), &both[alone..=alone]).unwrap_err();
        assert_eq!(broken.at, at, "{broken}");
        let (by, given) = (both[1 - alone].name(), both[alone].name());
        assert_eq!(broken.why, format!("it is signed with the key {by}, and the keys given are {given}"));
    }
}

#[test]
fn a_signature_that_a_crash_tore_off_is_made_again_at_the_next_start() {
    let (source_dir, key) = (tempfile::tempdir().unwrap(), key());
    filled(source_dir.path(), 3, options(&key));
    let name = only_segment(source_dir.path()).file_name().unwrap().to_owned();
    let whole = std::fs::read(only_segment(source_dir.path())).unwrap();
    let starts = frames(&whole);
    let keys = std::slice::from_ref(&key.verifier);
    for cut in [starts[5], starts[5] + 1, starts[5] + 40, whole.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(&name), &whole[..cut]).unwrap();
        assert!(verify_signed(dir.path(), keys).is_err(), "cut at {cut}");
        let (journal, recovered) = Journal::open_with(dir.path(), options(&key)).unwrap();
        assert_eq!(recovered.last, 5, "the record is kept");
        drop(journal);
        assert_eq!(verify_signed(dir.path(), keys).unwrap().summary.last, 6, "cut at {cut}");
    }
}

#[test]
fn segments_that_are_dropped_take_no_signature_of_the_rest_with_them() {
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    let retention = std::time::Duration::from_secs(60);
    filled(dir.path(), 200, Options { segment_bytes: 20_000, retention, ..options(&key) });
    let signed = verify_signed(dir.path(), std::slice::from_ref(&key.verifier)).unwrap();
    assert!(signed.summary.first > 1 && signed.summary.last > 400, "{signed:?}");
    assert!(file::segments(dir.path()).unwrap().len() > 1);
}
