//! Latches that were set past the judge: what of them a start finds, in whatever order they and its records came.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::trials::{Source, write};
use super::*;
use crate::names::{RolloutName, Wall};
use crate::rollout::Latch;

fn chat() -> RolloutName {
    RolloutName::new("chat")
}

fn latch(reason: &str) -> Latch {
    Latch { at: Wall(5), actor: "alice".to_owned(), reason: reason.to_owned() }
}

fn append(journal: &Journal, rollouts: &[&str], reason: &str) -> u64 {
    let latched = |name: &&str| Latched { rollout: RolloutName::new(*name), latch: latch(reason) };
    let (told, answer) = sync_channel(1);
    let done = Box::new(move |result| told.send(result).unwrap());
    journal.append_latches(rollouts.iter().map(latched).collect(), Some(done)).unwrap();
    answer.recv().unwrap().unwrap()
}

/// What a start finds behind `story`: `s`tart, `p`romote, p`a`use, a`b`ort and `c`lear by the judge, in that order and over
/// again; `L` is a latch past him.
fn found(story: &str, options: &Options) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_with(dir.path(), options.clone()).unwrap();
    let mut source = Source::new("chat");
    for (at, letter) in story.chars().enumerate() {
        match letter {
            'L' => append(&journal, &["chat"], &format!("no. {at}")),
            _ => write(&journal, source.next()).unwrap(),
        };
    }
    drop(journal);
    verify(dir.path()).unwrap();
    let (_, recovered) = Journal::open_with(dir.path(), options.clone()).unwrap();
    recovered.latches.get(&chat()).map(|latch| latch.reason.clone())
}

#[test]
fn a_start_finds_the_latch_that_no_record_has_taken_up_and_no_other() {
    let small = Options { segment_bytes: 1, retention: Duration::ZERO, ..Options::default() };
    for options in [Options::default(), small] {
        for (story, expect) in [
            ("", None),
            ("sp", None),
            ("spL", Some("no. 2")),
            // The judge's pause was on its way when it was set.
            ("spLa", Some("no. 2")),
            // The first one stands.
            ("spLaL", Some("no. 2")),
            // Taken up by the judge, before or behind it.
            ("spLab", None),
            ("spabL", None),
            ("spLabc", None),
            ("spLabcs", None),
            ("spLabcsL", Some("no. 7")),
            // Idle in the judge's eyes: nothing ran that could fall.
            ("L", Some("no. 0")),
            ("Ls", None),
        ] {
            assert_eq!(found(story, &options).as_deref(), expect, "{story} {options:?}");
        }
    }
}

#[test]
fn all_that_fell_together_is_durable_together_and_says_who_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let mut source = Source::new("chat");
    write(&journal, source.next()).unwrap();
    assert_eq!(append(&journal, &["chat", "tools"], "it burns"), 3, "the number of the last of them");
    write(&journal, source.next()).unwrap();
    drop(journal);
    let (journal, recovered) = Journal::open(dir.path()).unwrap();
    assert_eq!(recovered.last, 4);
    assert_eq!(recovered.latches.values().collect::<Vec<_>>(), [&latch("it burns"), &latch("it burns")]);
    let entry = journal.after(1, 1).remove(0);
    let said = serde_json::to_value(&*entry).unwrap();
    let expect = serde_json::json!({"rollout": "chat", "at": 5, "actor": "alice", "reason": "it burns"});
    assert_eq!(said["body"]["latch"], expect);
    assert_eq!(entry.at(), Wall(5));
}

#[test]
fn a_latch_that_the_disk_refuses_is_tried_again_and_a_queue_for_the_judge_is_not_filled_by_it() {
    let (journal, faults) = Journal::faulty().unwrap();
    faults.room(Some(0));
    let (told, answer) = sync_channel(1);
    let done: Done = Box::new(move |result| told.send(result).unwrap());
    let latched = vec![Latched { rollout: chat(), latch: latch("now") }];
    journal.append_latches(latched, Some(done)).unwrap();
    assert!(answer.recv().unwrap().is_err());
    assert_eq!((journal.health().backlog, journal.health().last), (1, 0));
    faults.room(None);
    write(&journal, Source::new("tools").next()).unwrap();
    assert_eq!((journal.health().backlog, journal.health().last), (0, 2));
    assert!(!journal.has_room(writer::ROOM + 1), "some places are for latches");
}
