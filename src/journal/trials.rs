//! The journal under trial: torn at every byte, tampered with a thousand times, on a disk that fails, and reopened.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::*;
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::rollout::{Actor, Effect, Event, Now, Plan, Record, Role, State, Terms, Verb, step};

/// Records of a rollout that is started, promoted, aborted and cleared for ever.
pub(super) struct Source {
    terms: Terms,
    state: State,
    at: u64,
}

impl Source {
    pub(super) fn new(name: &str) -> Self {
        let terms = Terms {
            rollout: RolloutName::new(name),
            stable: VersionName::new("a"),
            canary: Some(VersionName::new("b")),
            plan: Some(Arc::new(Plan::preset("gradual").unwrap())),
            weight: None,
            gates: "g".to_owned(),
            policy: None,
            drill_every: None,
            confirm: std::sync::Arc::default(),
            register: None,
        };
        Self { state: State::initial(&terms), terms, at: 0 }
    }

    pub(super) fn next(&mut self) -> Box<Record> {
        let verbs = [Verb::Start, Verb::Promote { full: false }, Verb::Pause, Verb::Abort, Verb::Clear];
        let verb = verbs[usize::try_from(self.at % 5).unwrap()];
        self.at += 1;
        let now = Now { mono: Mono(self.at), wall: Wall(i64::try_from(self.at).unwrap() * 1_000) };
        let event =
            Event::Command { verb, actor: Actor::new("olga", &[Role::Owner]), reason: format!("no. {}", self.at) };
        let (state, effects) = step(&self.terms, &self.state, event, now).unwrap();
        self.state = state;
        let record = effects.into_iter().find_map(|e| if let Effect::Record(r) = e { Some(r) } else { None });
        record.unwrap()
    }
}

pub(super) fn write(journal: &Journal, record: Box<Record>) -> Result<u64, Failure> {
    let (told, answer) = sync_channel(1);
    journal.append_first(vec![*record], Box::new(move |result| told.send(result).unwrap())).unwrap();
    answer.recv().unwrap()
}

fn filled(dir: &Path, count: u64, options: Options) -> Source {
    let (journal, _) = Journal::open_with(dir, options).unwrap();
    let mut source = Source::new("chat");
    for n in 0..count {
        assert!(write(&journal, source.next()).unwrap() > n);
    }
    source
}

pub(super) fn only_segment(dir: &Path) -> std::path::PathBuf {
    let files = file::segments(dir).unwrap();
    assert_eq!(files.len(), 1);
    files[0].1.clone()
}

/// Where each frame of a segment begins, and where the last one ends.
pub(super) fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let chain::Found::Frame { next, .. } = chain::read(bytes, *starts.last().unwrap(), None) {
        starts.push(next);
    }
    starts
}

fn stored(state: &State) -> State {
    State { last: None, lacking: None, ..state.clone() }
}

#[test]
fn a_reopened_journal_restores_every_rollout_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chat, mut tools) = (Source::new("chat"), Source::new("tools"));
    for round in 0..5 {
        let (journal, recovered) = Journal::open(dir.path()).unwrap();
        assert_eq!(recovered.last, round * 14);
        assert_eq!(recovered.torn, None);
        if round > 0 {
            assert_eq!(recovered.states[&chat.terms.rollout], stored(&chat.state));
            assert_eq!(recovered.states[&tools.terms.rollout], stored(&tools.state));
        }
        for _ in 0..7 {
            write(&journal, chat.next()).unwrap();
            journal.append(tools.next(), None).unwrap();
        }
        assert!(Journal::open(dir.path()).is_err(), "one process a journal");
        drop(journal);
        assert_eq!(verify(dir.path()).unwrap().last, (round + 1) * 14);
        assert_eq!(verify(&only_segment(dir.path())).unwrap().last, (round + 1) * 14);
        // Beside it there is none, which is not a good one; the store's folder leads to its own.
        let store = tempfile::tempdir().unwrap();
        assert_eq!(verify(store.path()).unwrap_err().why, "there is no journal");
        let inner = store.path().join("journal");
        std::fs::create_dir(&inner).unwrap();
        std::fs::copy(only_segment(dir.path()), inner.join(only_segment(dir.path()).file_name().unwrap())).unwrap();
        assert_eq!(verify(store.path()).unwrap().last, (round + 1) * 14);
    }
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let numbers: Vec<u64> = journal.after(60, 5).iter().map(|e| e.n).collect();
    assert_eq!(numbers, [61, 62, 63, 64, 65]);
    assert_eq!(read_numbers(dir.path(), 60), (61..=70).collect::<Vec<u64>>());
}

fn read_numbers(dir: &Path, after: u64) -> Vec<u64> {
    recover::read_after(dir, after, 100).iter().map(|e| e.n).collect()
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_reported() {
    let source_dir = tempfile::tempdir().unwrap();
    filled(source_dir.path(), 4, Options::default());
    let whole = std::fs::read(only_segment(source_dir.path())).unwrap();
    let starts = frames(&whole);
    let (begin, end) = (starts[3], starts[4]);
    assert_eq!(end, whole.len());
    let mut before = Source::new("chat");
    for _ in 0..3 {
        before.next();
    }
    for cut in begin..end {
        let dir = tempfile::tempdir().unwrap();
        let path = file::segment(dir.path(), 1);
        std::fs::write(&path, &whole[..cut]).unwrap();
        std::fs::copy(source_dir.path().join(file::HEAD), dir.path().join(file::HEAD)).unwrap();
        assert_eq!(verify(&path).unwrap_err().at, 4, "cut at {cut}");
        let end = recover::recover(dir.path()).unwrap();
        assert_eq!(end.recovered.last, 3, "cut at {cut}");
        assert_eq!(end.recovered.states[&before.terms.rollout], stored(&before.state));
        let torn = end.recovered.torn.map(|t| (t.n, t.bytes));
        assert_eq!(torn, Some((4, (cut - begin) as u64)), "cut at {cut}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), begin as u64);
    }
    // What came back takes new records, and is whole again.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(file::segment(dir.path(), 1), &whole[..end - 1]).unwrap();
    let (journal, recovered) = Journal::open(dir.path()).unwrap();
    assert_eq!(recovered.torn.as_ref().map(|t| t.n), Some(4));
    assert_eq!(write(&journal, before.next()), Ok(4));
    drop(journal);
    assert_eq!(verify(dir.path()).unwrap(), verify(source_dir.path()).unwrap());
}

/// All files of a journal's directory.
fn files_of(dir: &Path) -> std::collections::BTreeMap<std::ffi::OsString, Vec<u8>> {
    let items = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap());
    let files = items.map(|item| (item.file_name(), std::fs::read(item.path()).unwrap()));
    files.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

#[test]
fn a_kill_at_every_byte_of_a_small_journal_comes_back_to_the_last_whole_record() {
    let dir = tempfile::tempdir().unwrap();
    // So small that a later record begins a second segment, with its checkpoint.
    let options = Options { segment_bytes: 4_000, ..Options::default() };
    let mut source = Source::new("chat");
    let mut lives = vec![(files_of(dir.path()), None, 0)];
    let (journal, _) = Journal::open_with(dir.path(), options).unwrap();
    for _ in 0..4 {
        let n = write(&journal, source.next()).unwrap();
        lives.push((files_of(dir.path()), Some(stored(&source.state)), n));
    }
    drop(journal);
    let (mut kills, mut segments) = (0, 0);
    for pair in lives.windows(2) {
        let ((before, state, last), (after, _, next)) = (&pair[0], &pair[1]);
        // The file that was being written: the newest segment of the later life.
        let (name, whole) = after.iter().rfind(|(name, _)| *name != file::HEAD).unwrap();
        let from = before.get(name).map_or(0, Vec::len);
        segments += usize::from(from == 0);
        let ends = frames(whole);
        for cut in from..whole.len() {
            kills += 1;
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in before {
                std::fs::write(dir.path().join(name), bytes).unwrap();
            }
            std::fs::write(dir.path().join(name), &whole[..cut]).unwrap();
            let end = recover::recover(dir.path()).unwrap_or_else(|error| panic!("killed at {cut}: {error}"));
            assert_eq!(end.recovered.states.get(&source.terms.rollout), state.as_ref(), "killed at {cut}");
            let found = end.recovered.last;
            assert!((*last..*next).contains(&found), "killed at {cut}: entry {found}, not {last} to {next}");
            assert_eq!(end.recovered.torn.is_some(), !ends.contains(&cut), "killed at {cut}");
        }
    }
    assert!(kills > 4_000 && segments >= 2, "{kills} kills, {segments} segments");
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn a_thousand_tamperings_are_found_with_the_first_bad_record_named() {
    const COUNT: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), COUNT as u64, Options::default());
    let path = only_segment(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let starts = frames(&whole);
    let frame = |i: usize| &whole[starts[i]..starts[i + 1]];
    let mut dice = Dice(7);
    for round in 0..1_000 {
        let (a, b) = (dice.roll(COUNT), dice.roll(COUNT));
        let order: Vec<usize> = (0..COUNT).collect();
        let join = |order: &[usize]| order.iter().flat_map(|i| frame(*i).to_vec()).collect::<Vec<u8>>();
        let (kind, bytes, first_bad) = match dice.roll(5) {
            0 => {
                let at = dice.roll(whole.len());
                let mut bytes = whole.clone();
                bytes[at] ^= u8::try_from(1 + dice.roll(255)).unwrap();
                ("flip", bytes, starts.iter().rposition(|s| *s <= at).unwrap())
            }
            1 => {
                let mut order = order;
                order.remove(a);
                ("drop", join(&order), a)
            }
            2 if a != b => {
                let mut order = order;
                order.swap(a, b);
                ("swap", join(&order), a.min(b))
            }
            3 => {
                let mut order = order;
                order.insert(a, a);
                ("double", join(&order), a + 1)
            }
            _ => {
                // A forger who knows the format writes another payload with a right hash: its successor gives it away,
                // or for the last one the head.
                let chain::Found::Frame { payload, previous, .. } = chain::read(&whole, starts[a], None) else {
                    panic!()
                };
                let forged = String::from_utf8(payload.to_vec()).unwrap().replace("olga", "paul");
                let (frame, _) = chain::seal(&previous, forged.as_bytes());
                let bytes = [&whole[..starts[a]], &frame, &whole[starts[a + 1]..]].concat();
                ("forge", bytes, (a + 1).min(COUNT - 1))
            }
        };
        std::fs::write(&path, &bytes).unwrap();
        let broken = verify(&path).unwrap_err();
        assert_eq!(broken.at, first_bad as u64 + 1, "round {round}: {kind} {a} {b}: {broken}");
        // Opening never repairs more than a tail: it refuses, or what is left is a true beginning.
        let refused = recover::recover(dir.path());
        let tail = first_bad >= COUNT - 1 && kind != "forge";
        assert!(refused.is_err() || tail, "round {round}: {kind} {a} {b}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(verify(&path).unwrap().last, COUNT as u64);
}

#[test]
fn segments_are_closed_by_size_carry_a_checkpoint_and_are_dropped_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 20_000, retention: Duration::from_secs(60), signer: None };
    let mut source = filled(dir.path(), 200, options.clone());
    let files = file::segments(dir.path()).unwrap();
    assert!(files.len() > 1 && files[0].0 > 1, "{files:?}");
    let summary = verify(dir.path()).unwrap();
    assert_eq!(summary.first, files[0].0);
    let (journal, recovered) = Journal::open_with(dir.path(), options).unwrap();
    assert_eq!(recovered.states[&source.terms.rollout], stored(&source.state));
    assert_eq!(write(&journal, source.next()).unwrap(), journal.health().last);
    drop(journal);
    // A segment in the middle is missed; so is the newest one.
    let files = file::segments(dir.path()).unwrap();
    let (first, last) = (files[1].0, files.last().unwrap().0);
    let hidden = dir.path().join("hidden");
    std::fs::rename(&files.last().unwrap().1, &hidden).unwrap();
    assert_eq!(verify(dir.path()).unwrap_err().at, last);
    assert!(matches!(recover::recover(dir.path()), Err(OpenError::Broken(b)) if b.at == last));
    std::fs::rename(&hidden, &files.last().unwrap().1).unwrap();
    if files.len() > 2 {
        std::fs::remove_file(&files[1].1).unwrap();
        assert_eq!(verify(dir.path()).unwrap_err().at, first);
    }
}

#[test]
fn a_crash_between_two_segments_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = filled(dir.path(), 6, Options::default());
    std::fs::write(file::segment(dir.path(), 7), b"").unwrap();
    let (journal, recovered) = Journal::open(dir.path()).unwrap();
    assert_eq!((recovered.last, recovered.torn), (6, None));
    assert_eq!(recovered.states[&source.terms.rollout], stored(&source.state));
    drop(journal);
    assert_eq!(verify(dir.path()).unwrap().last, 6);
}

#[test]
fn a_full_disk_refuses_rises_keeps_drops_and_is_written_when_there_is_room() {
    let (journal, faults) = Journal::faulty().unwrap();
    let mut source = Source::new("chat");
    write(&journal, source.next()).unwrap();
    faults.room(Some(100));
    assert!(write(&journal, source.next()).is_err());
    let drop_record = source.next();
    let (told, answer) = sync_channel(1);
    journal.append(drop_record.clone(), Some(Box::new(move |result| told.send(result).unwrap()))).unwrap();
    assert!(answer.recv().unwrap().is_err(), "who waits for a drop's record hears that the disk refuses it");
    assert!(write(&journal, source.next()).is_err());
    assert_eq!((journal.health().last, journal.health().backlog), (1, 1));
    assert!(journal.health().failing.is_some());
    faults.room(None);
    faults.fail_truncate(true);
    assert!(write(&journal, source.next()).is_err(), "half a frame lies there and cannot be cut off");
    faults.fail_truncate(false);
    faults.fail_sync(true);
    assert!(write(&journal, source.next()).is_err());
    faults.fail_sync(false);
    let rise = source.next();
    assert_eq!(write(&journal, rise.clone()), Ok(3));
    assert_eq!(journal.health(), Health { last: 3, ..Health::default() });
    let entries = journal.after(1, 10);
    assert_eq!(entries[0].body, Body::Record(drop_record));
    assert_eq!(entries[1].body, Body::Record(rise));
    let bytes = faults.bytes();
    assert_eq!(frames(&bytes).len(), 4, "three whole frames and nothing else");
    assert_eq!(*frames(&bytes).last().unwrap(), bytes.len());
}

#[test]
fn records_that_belong_together_are_all_refused_or_all_durable() {
    let (journal, faults) = Journal::faulty().unwrap();
    let mut source = Source::new("chat");
    let first = source.next();
    let length = serde_json::to_vec(&Entry { n: 1, body: Body::Record(first.clone()) }).unwrap().len();
    // Room for the first of three, and for a part of the second.
    faults.room(Some(length + length / 2));
    let three = vec![*first, *source.next(), *source.next()];
    let all = |records| {
        let (told, answer) = sync_channel(1);
        journal.append_first(records, Box::new(move |result| told.send(result).unwrap())).unwrap();
        answer.recv().unwrap()
    };
    assert!(all(three.clone()).is_err());
    assert_eq!((journal.health().last, journal.health().backlog), (0, 0));
    faults.room(None);
    assert_eq!(all(three), Ok(3), "the number of the last of them");
    assert_eq!(journal.after(0, 10).iter().map(|e| e.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(frames(&faults.bytes()).len(), 4, "three whole frames and nothing else");
}

#[test]
fn a_journal_that_is_deleted_while_serin_runs_refuses_rises() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let mut source = Source::new("chat");
    write(&journal, source.next()).unwrap();
    std::fs::remove_file(only_segment(dir.path())).unwrap();
    assert!(write(&journal, source.next()).unwrap_err().0.contains("removed"));
}

#[test]
fn evidence_is_replaced_whole_and_never_believed_when_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let evidence = Evidence::open(dir.path()).unwrap();
    let mut source = Source::new("../chat");
    let name = source.terms.rollout.clone();
    assert_eq!(evidence.load(&name), None);
    for round in 0..3_u8 {
        source.next();
        let kept =
            Kept { state: stored(&source.state), judge: vec![b'\n', round, 0, 255], counts: Some("7 0 x".to_owned()) };
        evidence.save(&name, &kept).unwrap();
        assert_eq!(evidence.load(&name), Some(kept));
    }
    let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(evidence.load(&name), None);
    }
    assert_eq!(evidence.load(&RolloutName::new("other")), None);
}

#[test]
fn a_folder_that_takes_no_new_segment_leaves_the_journal_in_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { segment_bytes: 1, ..Options::default() };
    let (journal, _) = Journal::open_with(dir.path(), small.clone()).unwrap();
    let mut source = Source::new("chat");
    // What has the next segment's name is no file: nobody, root neither, can begin one there.
    std::fs::create_dir(file::segment(dir.path(), 2)).unwrap();
    assert_eq!((write(&journal, source.next()), write(&journal, source.next())), (Ok(1), Ok(2)));
    assert_eq!(journal.health().failing, None);
    std::fs::remove_dir(file::segment(dir.path(), 2)).unwrap();
    assert_eq!((write(&journal, source.next()), write(&journal, source.next())), (Ok(4), Ok(6)), "with checkpoints");
    drop(journal);
    assert_eq!(verify(dir.path()).unwrap().last, 6);
    let (_, recovered) = Journal::open_with(dir.path(), small).unwrap();
    assert_eq!(recovered.states[&source.terms.rollout], stored(&source.state));
}

#[test]
fn records_are_kept_for_ninety_days_unless_somebody_says_otherwise() {
    let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
    assert_eq!(Options::default().retention, days(90));
    let text = "[admin]\nlisten = \"127.0.0.1:0\"\n[listeners.e]\nlisten = \"127.0.0.1:0\"\n\
                [rollouts.x]\nmatch = { host = \"*\", path_prefix = \"/\" }\nunit = [\"ip\"]\nweight = 0.0\n\
                stable = { version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }\n\
                canary = { version = \"b\", endpoints = [\"http://127.0.0.1:2\"] }\n[store]\npath = \"state\"\n";
    let config = |more: &str| crate::config::parse(&format!("{text}{more}"), "t", &|_| None).unwrap();
    let (unsaid, thirty) = (config(""), config("retention = \"30d\"\n"));
    assert_eq!(unsaid.store.as_ref().unwrap().retention, days(90));
    let changes = crate::config::reload::compare(&unsaid, &thirty);
    let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["store.retention: 90d in force, 30d in the file; needs a restart"]);
}
