//! Who was told what of a rollout, and when: read from the outbox's receipts, and from what still waits in it.

use std::io;
use std::path::Path;

use super::message::Kind;
use super::outbox::{Outbox, Outcome};
use super::store;
use crate::names::{RolloutName, Wall};

/// What became of a notice at one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The generation of the decision that it tells of; limits that came near are of none.
    pub generation: Option<u64>,
    /// The kind of notice.
    pub kind: Kind,
    /// The receiver.
    pub target: String,
    /// When the receiver had it, or it was given up; for what still waits, when it happened.
    pub at: Wall,
    /// What became of it; `None`: it still waits.
    pub result: Option<Outcome>,
    /// How often it was tried.
    pub attempts: u32,
    /// What the receiver said, where it was not delivered.
    pub why: String,
}

/// Reads the outbox of a store's folder and changes nothing; the process that it belongs to may be writing it.
///
/// # Errors
/// As the disk says; there is none where nobody is told.
pub fn read(outbox: &Path, rollout: &RolloutName) -> io::Result<Vec<Heard>> {
    Ok(heard(&store::look(outbox)?, rollout))
}

/// What an outbox knows of one rollout: receipts in their order, then what waits.
#[must_use]
pub fn heard(outbox: &Outbox, rollout: &RolloutName) -> Vec<Heard> {
    let receipts = outbox.receipts().filter_map(|receipt| {
        Some(Heard {
            generation: told_of(&receipt.id, receipt.kind, rollout)?,
            kind: receipt.kind,
            target: receipt.target.clone(),
            at: receipt.at,
            result: Some(receipt.result),
            attempts: receipt.attempts,
            why: receipt.why.clone(),
        })
    });
    let waiting = outbox.waiting().filter_map(|(target, message)| {
        Some(Heard {
            generation: told_of(&message.id, message.kind, rollout)?,
            kind: message.kind,
            target: target.to_owned(),
            at: message.at,
            result: None,
            attempts: 0,
            why: String::new(),
        })
    });
    receipts.chain(waiting).collect()
}

/// Whether an id is of this rollout, and of which generation: `chat-41-rollback`, `chat-41-reminder-1795183200000`,
/// `chat-limit-latency_p99-…`. The name of one rollout may begin another's, so the rest must be whole.
fn told_of(id: &str, kind: Kind, rollout: &RolloutName) -> Option<Option<u64>> {
    let rest = id.strip_prefix(rollout.as_str())?.strip_prefix('-')?;
    if kind == Kind::Limit {
        return rest.starts_with("limit-").then_some(None);
    }
    let (generation, rest) = rest.split_once('-')?;
    let whole = rest.strip_prefix(kind.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    whole.then_some(Some(generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::message;
    use super::*;

    #[test]
    fn an_id_is_of_the_rollout_whose_name_it_begins_with_and_of_no_other() {
        let of = |id: &str, kind| told_of(id, kind, &RolloutName::new("chat"));
        assert_eq!(of("chat-41-rollback", Kind::Rollback), Some(Some(41)));
        assert_eq!(of("chat-3-reminder-1795183200000", Kind::Reminder), Some(Some(3)));
        assert_eq!(of("chat-limit-latency_p99-2026-near", Kind::Limit), Some(None));
        for (id, kind) in [
            ("chat-2-41-rollback", Kind::Rollback),
            ("chatty-41-rollback", Kind::Rollback),
            ("chat-41-rollback", Kind::Started),
            ("chat-x-rollback", Kind::Rollback),
            ("heartbeat-1-stale", Kind::Heartbeat),
        ] {
            assert_eq!(of(id, kind), None, "{id}");
        }
        let other = RolloutName::new("chat-2");
        assert_eq!(told_of("chat-2-41-rollback", Kind::Rollback, &other), Some(Some(41)));
    }

    #[test]
    fn an_outbox_on_the_disk_is_read_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let chat = RolloutName::new("chat");
        assert!(read(dir.path(), &chat).is_err(), "there is none");
        let mut opened = store::open(dir.path()).unwrap();
        let (disk, thread) = store::spawn(&mut opened).unwrap().unwrap();
        for (id, kind) in
            [("chat-1-started", Kind::Started), ("chat-2-rollback", Kind::Rollback), ("other-1-started", Kind::Started)]
        {
            let entries =
                opened.outbox.put(message(id, kind), |_| vec![("ops".into(), 99), ("desk".into(), 99)], Wall(1));
            disk.append(entries);
        }
        let next = opened.outbox.next("ops").unwrap();
        disk.append(vec![opened.outbox.done("ops", &next, Wall(7_000), Outcome::Delivered, (2, String::new()))]);
        let next = opened.outbox.next("ops").unwrap();
        let why = "it answered 422".to_owned();
        disk.append(vec![opened.outbox.done("ops", &next, Wall(8_000), Outcome::Refused, (1, why.clone()))]);
        drop(disk);
        thread.join().unwrap();
        let log = dir.path().join("outbox.log");
        let mut torn = std::fs::read(&log).unwrap();
        torn.extend_from_slice(b"half a line");
        std::fs::write(&log, &torn).unwrap();
        let all = read(dir.path(), &chat).unwrap();
        let shown: Vec<_> =
            all.iter().map(|h| (h.generation, h.target.as_str(), h.result, h.attempts, h.at.0)).collect();
        assert_eq!(
            shown,
            [
                (Some(1), "ops", Some(Outcome::Delivered), 2, 7_000),
                (Some(2), "ops", Some(Outcome::Refused), 1, 8_000),
                (Some(1), "desk", None, 0, all[2].at.0),
                (Some(2), "desk", None, 0, all[3].at.0),
            ]
        );
        assert_eq!(all[1].why, why);
        assert_eq!(std::fs::read(&log).unwrap(), torn, "it may be another process's");
    }
}
