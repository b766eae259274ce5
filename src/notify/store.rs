//! Where the outbox survives: a log of entries in the store's folder, one line each, written and synced by a thread of
//! its own, so that a hung disk delays neither the judge nor a delivery.
//!
//! A line is `check space JSON`, the check being the xxh3 of the JSON. A torn tail is cut off at the start; a line that
//! is wrong elsewhere is skipped and counted, because what follows it is still worth telling.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use xxhash_rust::xxh3::xxh3_64;

use super::outbox::{Entry, Outbox};

/// The log's name in the store's folder.
const NAME: &str = "outbox.log";
/// The longest line that is believed.
const LINE_MAX: usize = 1 << 20;
/// Changes on their way to the disk.
const QUEUE: usize = 4_096;
/// Changes that share one sync.
const BATCH: usize = 256;
/// Below that the log is not compacted.
pub const COMPACT_BYTES: u64 = 4 << 20;

/// The outbox as it was left, and the log to go on with; without a folder it lives in memory.
#[derive(Debug, Default)]
pub struct Opened {
    /// What was left to tell.
    pub outbox: Outbox,
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// Lines that could not be believed.
    pub bad_lines: u64,
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

/// Opens (or begins) the outbox of a folder.
///
/// # Errors
/// As the disk says.
pub fn open(dir: &Path) -> io::Result<Opened> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(NAME);
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
    let bytes = std::fs::read(&path)?;
    let (entries, good, bad_lines) = read(&bytes);
    let torn_bytes = (bytes.len() - good) as u64;
    if torn_bytes > 0 {
        file.set_len(good as u64)?;
        file.sync_all()?;
    }
    file.seek(SeekFrom::End(0))?;
    File::open(dir)?.sync_all()?;
    let log = Log { path, file, length: good as u64 };
    Ok(Opened { outbox: Outbox::replay(entries), torn_bytes, bad_lines, log: Some(log) })
}

/// The outbox of a folder as it stands there; nothing is mended, nothing written.
///
/// # Errors
/// As the disk says.
pub fn look(dir: &Path) -> io::Result<Outbox> {
    Ok(Outbox::replay(read(&std::fs::read(dir.join(NAME))?).0))
}

impl Opened {
    /// Writes where the journal stands, if the outbox begins now: before anything is decided that it may have to tell.
    ///
    /// # Errors
    /// As the disk says.
    pub fn begin(&mut self, after: u64) -> io::Result<()> {
        match (self.outbox.begin(after), &mut self.log) {
            (Some(entry), Some(log)) => log.append(&line(&entry)),
            _ => Ok(()),
        }
    }
}

/// The entries of a log, how many of its bytes are whole lines, and how many of those are wrong.
fn read(bytes: &[u8]) -> (Vec<Entry>, usize, u64) {
    let mut entries = Vec::new();
    let (mut at, mut bad) = (0, 0);
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
        match entry(&bytes[at..at + end]) {
            Some(entry) => entries.push(entry),
            None => bad += 1,
        }
        at += end + 1;
    }
    (entries, at, bad)
}

fn entry(line: &[u8]) -> Option<Entry> {
    if line.len() > LINE_MAX {
        return None;
    }
    let (check, json) = line.split_at_checked(17)?;
    let check = std::str::from_utf8(check).ok()?.strip_suffix(' ')?;
    (u64::from_str_radix(check, 16).ok()? == xxh3_64(json)).then(|| serde_json::from_slice(json).ok())?
}

fn line(entry: &Entry) -> Vec<u8> {
    let json = serde_json::to_vec(entry).unwrap_or_default();
    let mut line = format!("{:016x} ", xxh3_64(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

/// What the disk's thread is asked.
enum Job {
    Append(Vec<Entry>),
    Compact(Vec<Entry>),
}

/// The way to the disk's thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    length: AtomicU64,
    lost: AtomicU64,
}

impl Disk {
    /// Hands changes to the disk without waiting; where there is no room they live in memory alone, and are counted.
    pub fn append(&self, entries: Vec<Entry>) {
        self.hand(Job::Append(entries));
    }

    /// Replaces the log by these entries, which restore the outbox as it is now.
    pub fn compact(&self, entries: Vec<Entry>) {
        self.hand(Job::Compact(entries));
    }

    /// How long the log is, bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.shared.length.load(Ordering::Relaxed)
    }

    /// Changes that did not reach the disk.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn hand(&self, job: Job) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.jobs.try_send(job)
            && self.shared.lost.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::error!("the outbox of notices cannot be kept: the disk hangs; they are told from memory");
        }
    }
}

/// Starts the disk's thread; it ends with the last [`Disk`]. `None` where there is no folder.
///
/// # Errors
/// No thread could be started.
pub fn spawn(opened: &mut Opened) -> io::Result<Option<(Disk, JoinHandle<()>)>> {
    let Some(mut log) = opened.log.take() else { return Ok(None) };
    let (jobs, asked) = sync_channel(QUEUE);
    let shared = Arc::new(Shared::default());
    shared.length.store(log.length, Ordering::Relaxed);
    let seen = Arc::clone(&shared);
    let thread =
        std::thread::Builder::new().name("serin-outbox".to_owned()).spawn(move || run(&mut log, &asked, &seen))?;
    Ok(Some((Disk { jobs, shared }, thread)))
}

fn run(log: &mut Log, asked: &Receiver<Job>, shared: &Shared) {
    let mut failing = false;
    while let Ok(first) = asked.recv() {
        let mut jobs = vec![first];
        while jobs.len() < BATCH
            && let Ok(job) = asked.try_recv()
        {
            jobs.push(job);
        }
        let count = jobs.len() as u64;
        match log.write(jobs) {
            Ok(()) => failing = false,
            Err(error) => {
                shared.lost.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(error = %error, "the outbox of notices cannot be written; they are told from memory");
                }
            }
        }
        shared.length.store(log.length, Ordering::Relaxed);
    }
}

impl Log {
    fn write(&mut self, jobs: Vec<Job>) -> io::Result<()> {
        let mut lines = Vec::new();
        for job in jobs {
            match job {
                Job::Append(entries) => lines.extend(entries.iter().flat_map(line)),
                Job::Compact(entries) => {
                    self.append(&std::mem::take(&mut lines))?;
                    self.replace(&entries)?;
                }
            }
        }
        self.append(&lines)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += lines.len() as u64,
            Err(error) => {
                // What may stand there in part is cut off again, or the next line would be joined to it.
                self.file.set_len(self.length)?;
                self.file.seek(SeekFrom::Start(self.length))?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn replace(&mut self, entries: &[Entry]) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let lines: Vec<u8> = entries.iter().flat_map(line).collect();
        let mut file = File::create(&fresh)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        (self.file, self.length) = (file, lines.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Wall;
    use crate::notify::message::Kind;
    use crate::notify::outbox::Outcome;
    use crate::notify::testing::message;

    fn ids(outbox: &Outbox) -> Vec<String> {
        let mut ids = Vec::new();
        for entry in outbox.compact() {
            if let Entry::Put { message, .. } = entry {
                ids.push(message.id.clone());
            }
        }
        ids
    }

    fn write(dir: &Path, count: usize) -> Vec<u8> {
        let mut opened = open(dir).unwrap();
        let (disk, thread) = spawn(&mut opened).unwrap().unwrap();
        for n in 0..count {
            let entries =
                opened.outbox.put(message(&format!("m{n}"), Kind::Stage), |_| vec![("ops".into(), 99)], Wall(1));
            disk.append(entries);
        }
        drop(disk);
        thread.join().unwrap();
        std::fs::read(dir.join(NAME)).unwrap()
    }

    #[test]
    fn after_a_kill_at_any_byte_whole_messages_are_there_and_no_half_one() {
        let dir = tempfile::tempdir().unwrap();
        let whole = write(dir.path(), 3);
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(dir.path().join(NAME), &whole[..cut]).unwrap();
            let opened = open(dir.path()).unwrap();
            let lines = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(ids(&opened.outbox).len(), lines, "cut at {cut}");
            let good = ends.iter().rev().find(|end| **end <= cut).copied().unwrap_or(0);
            assert_eq!((opened.torn_bytes as usize, opened.bad_lines), (cut - good, 0), "cut at {cut}");
            assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().len() as usize, good, "repaired");
        }
    }

    #[test]
    fn a_flipped_byte_costs_its_own_message_alone() {
        let dir = tempfile::tempdir().unwrap();
        let whole = write(dir.path(), 3);
        for at in (0..whole.len()).filter(|at| whole[*at] != b'\n') {
            let mut spoiled = whole.clone();
            spoiled[at] ^= 0x01;
            if spoiled[at] == b'\n' {
                continue;
            }
            std::fs::write(dir.path().join(NAME), &spoiled).unwrap();
            let opened = open(dir.path()).unwrap();
            assert_eq!((ids(&opened.outbox).len(), opened.bad_lines), (2, 1), "byte {at}");
        }
    }

    #[test]
    fn a_compacted_log_restores_the_same_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let long = write(dir.path(), 40).len();
        let mut opened = open(dir.path()).unwrap();
        let (disk, thread) = spawn(&mut opened).unwrap().unwrap();
        for _ in 0..38 {
            let next = opened.outbox.next("ops").unwrap();
            disk.append(vec![opened.outbox.done("ops", &next, Wall(2), Outcome::Delivered, (1, String::new()))]);
        }
        disk.compact(opened.outbox.compact());
        let entries = opened.outbox.put(message("last", Kind::Rollback), |_| vec![("ops".into(), 99)], Wall(3));
        disk.append(entries);
        drop(disk);
        thread.join().unwrap();
        let again = open(dir.path()).unwrap();
        assert_eq!(ids(&again.outbox), ["m38", "m39", "last"]);
        assert_eq!(again.outbox.receipts().count(), 38);
        assert!(again.log.unwrap().length < long as u64);
    }
}
