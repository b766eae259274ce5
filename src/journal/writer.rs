//! The journal's own thread: takes records from a bounded queue, makes batches durable, says so, and keeps what is in force
//! already and a bad disk refused until it takes it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::journal::chain::{GENESIS, Hash, PAYLOAD_BYTES_MAX, seal};
use crate::journal::file::{Faults, Files, Medium, Memory};
use crate::journal::record::{Body, Checkpoint, Entry, Latched, Standing};
use crate::journal::recover::{AT_HAND, Broken, End, OpenError, Recovered, Summary, read_after, recover, visit};
use crate::journal::sign::Signer;
use crate::names::Wall;
use crate::rollout::Record;

/// How many records may wait for the disk.
pub const QUEUE: usize = 1_024;
/// How many go into one sync.
const BATCH: usize = 64;
/// How many records of what is in force are kept while the disk refuses them.
const BACKLOG: usize = 256;
/// How many the judge may count on: the other places are for latches that are set past it, by other threads.
pub const ROOM: usize = QUEUE - 64;
/// How often a backlog is tried again when nothing else comes.
const RETRY: Duration = Duration::from_secs(1);

/// Called on the journal's thread when the record is durable (its number), or when the disk has refused it.
pub type Done = Box<dyn FnOnce(Result<u64, Failure>) + Send>;

/// Why a record is not in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal could not be written: {0}")]
pub struct Failure(pub String);

/// The queue is full: the disk hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Sizes and ages.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is closed when it is larger than that.
    pub segment_bytes: u64,
    /// Closed segments are dropped when their last entry is older than that.
    pub retention: Duration,
    /// Signs every batch of records.
    pub signer: Option<Arc<Signer>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, retention: Duration::from_secs(90 * 24 * 3_600), signer: None }
    }
}

/// How the journal fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The number of the last durable entry.
    pub last: u64,
    /// What the disk said when the last attempt failed; `None` when it succeeded.
    pub failing: Option<String>,
    /// Records that wait for a disk that refused them.
    pub backlog: usize,
    /// Records that were given up since the start, because the backlog was full.
    pub lost: u64,
}

/// A handle to the journal; dropping it writes what is queued and ends its thread.
#[derive(Debug)]
pub struct Journal {
    queue: Option<SyncSender<Job>>,
    /// Jobs that were taken in and are neither durable nor given up.
    queued: Arc<AtomicUsize>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
    dir: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Shared {
    health: Health,
    at_hand: VecDeque<Arc<Entry>>,
}

struct Job {
    /// Written together or not at all.
    bodies: Vec<Body>,
    /// They tell of what is in force already: refused, they are tried again.
    in_force: bool,
    done: Option<Done>,
}

impl Journal {
    /// Opens (or begins) the journal of a directory: checks the whole chain, cuts off a torn tail. With a signer, what is
    /// not signed yet is signed then.
    ///
    /// # Errors
    /// The disk says no, another process has it open, or it is not as it was written.
    pub fn open(dir: &Path) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(dir, Options::default())
    }

    /// [`Journal::open`] with sizes and ages.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_with(dir: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        let io = |error| OpenError::Io { path: dir.to_owned(), error };
        let lock = Files::lock(dir).map_err(io)?;
        let end = recover(dir)?;
        let files = Files::open(dir, end.segment, lock).map_err(io)?;
        let recovered = end.recovered.clone();
        let journal = Self::spawn(Box::new(files), end, options, Some(dir.to_owned())).map_err(io)?;
        Ok((journal, recovered))
    }

    /// A journal in memory: nothing survives, but everything is chained and can be read while serin runs.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn memory() -> io::Result<Self> {
        Ok(Self::faulty()?.0)
    }

    /// A journal in memory with faults on demand.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn faulty() -> io::Result<(Self, Faults)> {
        let faults = Faults::default();
        let end = End {
            recovered: Recovered::default(),
            hash: GENESIS,
            segment: 1,
            ages: Vec::new(),
            at_hand: VecDeque::new(),
        };
        Ok((Self::spawn(Box::new(Memory(faults.clone())), end, Options::default(), None)?, faults))
    }

    fn spawn(medium: Box<dyn Medium>, end: End, options: Options, dir: Option<PathBuf>) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let health = Health { last: end.recovered.last, ..Health::default() };
        let last = end.at_hand.back();
        let unsigned = last.filter(|last| !signed_by(last, options.signer.as_deref())).map(|last| last.at());
        let shared = Arc::new(Mutex::new(Shared { health, at_hand: end.at_hand }));
        let durable = medium.length();
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            medium,
            options,
            queued: Arc::clone(&queued),
            shared: Arc::clone(&shared),
            last: end.recovered.last,
            hash: end.hash,
            standing: Standing { states: end.recovered.states, latches: end.recovered.latches },
            durable,
            dirty: false,
            segment: end.segment,
            ages: end.ages,
        };
        let thread =
            std::thread::Builder::new().name("serin-journal".to_owned()).spawn(move || writer.run(&jobs, unsigned))?;
        Ok(Self { queue: Some(queue), queued, shared, thread: Some(thread), dir })
    }

    /// Queues the record of what is in force already (a drop); never waits. Refused by the disk it is kept and tried
    /// again until it is durable; `done` hears of the first attempt.
    ///
    /// # Errors
    /// The queue is full: the disk hangs.
    pub fn append(&self, record: Box<Record>, done: Option<Done>) -> Result<(), Full> {
        self.queue(Job { bodies: vec![Body::Record(record)], in_force: true, done })
    }

    /// Queues latches that were set past the judge and are in force already; as [`Journal::append`] otherwise.
    ///
    /// # Errors
    /// The queue is full: the disk hangs.
    pub fn append_latches(&self, latches: Vec<Latched>, done: Option<Done>) -> Result<(), Full> {
        let bodies = latches.into_iter().map(|latched| Body::Latch(Box::new(latched))).collect();
        self.queue(Job { bodies, in_force: true, done })
    }

    /// Queues the records of what comes into force when they are durable (a rise), all of them or none; never waits. What
    /// the disk refuses is forgotten, and `done` hears of it.
    ///
    /// # Errors
    /// The queue is full: the disk hangs.
    pub fn append_first(&self, records: Vec<Record>, done: Done) -> Result<(), Full> {
        let bodies = records.into_iter().map(|record| Body::Record(Box::new(record))).collect();
        self.queue(Job { bodies, in_force: false, done: Some(done) })
    }

    fn queue(&self, job: Job) -> Result<(), Full> {
        self.queued.fetch_add(1, Ordering::AcqRel);
        match self.queue.as_ref().map(|queue| queue.try_send(job)) {
            Some(Ok(())) | None => Ok(()),
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {
                self.queued.fetch_sub(1, Ordering::AcqRel);
                Err(Full)
            }
        }
    }

    /// Whether so many records would surely be taken now. It stays true for the one thread that appends records until it
    /// has: beside it the queue only empties, but for the few latches that are set past it.
    #[must_use]
    pub fn has_room(&self, records: usize) -> bool {
        ROOM.saturating_sub(self.queued.load(Ordering::Acquire)) >= records
    }

    /// Entries with numbers above `after`, at most `limit`.
    #[must_use]
    pub fn after(&self, after: u64, limit: usize) -> Vec<Arc<Entry>> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = shared.at_hand.front().map_or(u64::MAX, |e| e.n);
        match &self.dir {
            Some(dir) if after.saturating_add(1) < oldest && shared.health.last > after => {
                drop(shared);
                read_after(dir, after, limit)
            }
            _ => shared.at_hand.iter().filter(|e| e.n > after).take(limit).cloned().collect(),
        }
    }

    /// Hands every entry to `take`, in order: those on the disk, or those at hand where nothing survives.
    ///
    /// # Errors
    /// The first entry that is not as it was written.
    pub fn visit(&self, take: &mut dyn FnMut(Entry)) -> Result<Summary, Broken> {
        if let Some(dir) = &self.dir {
            return visit(dir, take);
        }
        let at_hand: Vec<Arc<Entry>> =
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).at_hand.iter().cloned().collect();
        let (first, last) = (at_hand.first().map_or(0, |e| e.n), at_hand.last().map_or(0, |e| e.n));
        for entry in at_hand {
            take(Arc::unwrap_or_clone(entry));
        }
        Ok(Summary { first, last, hash: String::new() })
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).health.clone()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread ended by a fault of serin");
        }
    }
}

/// Whether an entry is a signature of this key; without a key nothing wants one.
fn signed_by(entry: &Entry, signer: Option<&Signer>) -> bool {
    let Some(signer) = signer else { return true };
    matches!(&entry.body, Body::Signature(signature) if signature.key == signer.name())
}

struct Writer {
    medium: Box<dyn Medium>,
    options: Options,
    queued: Arc<AtomicUsize>,
    shared: Arc<Mutex<Shared>>,
    last: u64,
    hash: Hash,
    standing: Standing,
    /// The length of the current segment that is durable.
    durable: u64,
    /// Whether something that is not durable may lie behind it.
    dirty: bool,
    segment: u64,
    ages: Vec<(u64, Wall)>,
}

impl Writer {
    /// `unsigned`: when the last entry was made, where no signature covers it.
    fn run(mut self, jobs: &Receiver<Job>, unsigned: Option<Wall>) {
        if let Some(at) = unsigned {
            self.sign_what_is_there(at);
        }
        let mut waiting: Vec<Job> = Vec::new();
        loop {
            match jobs.recv_timeout(RETRY) {
                Ok(job) => waiting.push(job),
                Err(RecvTimeoutError::Timeout) if waiting.is_empty() => continue,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let lost = if waiting.is_empty() { 0 } else { self.batch(waiting).len() };
                    if lost > 0 {
                        tracing::error!(
                            records = lost,
                            "the disk refuses what is in force to the end: the next start will not know of it"
                        );
                    }
                    return;
                }
            }
            let room = (waiting.len() + BATCH).min(BACKLOG + BATCH);
            while waiting.len() < room
                && let Ok(job) = jobs.try_recv()
            {
                waiting.push(job);
            }
            let before = waiting.len();
            waiting = self.batch(waiting);
            self.queued.fetch_sub(before - waiting.len(), Ordering::AcqRel);
        }
    }

    /// Writes a batch; gives back what must be tried again.
    fn batch(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let mark = (self.last, self.hash);
        match self.write(&jobs) {
            Ok(entries) => {
                for entry in &entries {
                    entry.replay(&mut self.standing);
                }
                self.medium.mark(self.last, &self.hash);
                let newest = entries.last().map(Entry::at);
                let checkpoint = entries.first().filter(|e| matches!(e.body, Body::Checkpoint(_))).map(Entry::at);
                let records = entries.iter().filter(|entry| matches!(entry.body, Body::Record(_) | Body::Latch(_)));
                let numbers: Vec<u64> = records.map(|entry| entry.n).collect();
                let mut numbers = numbers.into_iter();
                self.publish(entries);
                for job in jobs {
                    let last = numbers.by_ref().take(job.bodies.len()).last();
                    if let Some((done, n)) = job.done.zip(last) {
                        done(Ok(n));
                    }
                }
                if let Some(at) = checkpoint {
                    self.retire(at);
                }
                self.roll(newest);
                Vec::new()
            }
            Err(error) => {
                (self.last, self.hash) = mark;
                self.dirty = true;
                self.refuse(jobs, &error)
            }
        }
    }

    fn write(&mut self, jobs: &[Job]) -> io::Result<Vec<Entry>> {
        if self.dirty {
            self.medium.truncate(self.durable)?;
            self.dirty = false;
        }
        let mut entries = Vec::with_capacity(jobs.len() + 1);
        if self.durable == 0 && self.last > 0 {
            let at = jobs.iter().flat_map(|job| &job.bodies).next().map_or(Wall(0), Body::at);
            let Standing { states, latches } = self.standing.clone();
            let checkpoint = Checkpoint { at, states, latches };
            entries.push(self.frame(Body::Checkpoint(Box::new(checkpoint)))?);
        }
        for body in jobs.iter().flat_map(|job| &job.bodies) {
            entries.push(self.frame(body.clone())?);
        }
        if let Some(at) = entries.last().map(Entry::at) {
            entries.extend(self.signature(at)?);
        }
        self.medium.sync()?;
        self.durable = self.medium.length();
        Ok(entries)
    }

    /// A signature over everything up to the last entry; none without a key.
    fn signature(&mut self, at: Wall) -> io::Result<Option<Entry>> {
        let Some(signer) = &self.options.signer else { return Ok(None) };
        let signature = signer.sign(self.last, &self.hash, at);
        let signature = signature.ok_or_else(|| io::Error::other("the journal's key does not sign"))?;
        self.frame(Body::Signature(Box::new(signature))).map(Some)
    }

    /// Signs what was written without a key, with another one, or before a crash tore the signature off.
    fn sign_what_is_there(&mut self, at: Wall) {
        let mark = (self.last, self.hash);
        let done = self.signature(at).and_then(|entry| self.medium.sync().map(|()| entry));
        match done {
            Ok(entry) => {
                self.durable = self.medium.length();
                self.medium.mark(self.last, &self.hash);
                self.publish(entry.into_iter().collect());
            }
            Err(error) => {
                tracing::error!(error = %error, "what the journal holds could not be signed; the next record's signature covers it");
                (self.last, self.hash) = mark;
                self.dirty = true;
            }
        }
    }

    fn frame(&mut self, body: Body) -> io::Result<Entry> {
        let entry = Entry { n: self.last + 1, body };
        let payload = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(io::Error::other("a record is larger than 16 MiB"));
        }
        let (frame, hash) = seal(&self.hash, &payload);
        self.medium.append(&frame)?;
        (self.last, self.hash) = (entry.n, hash);
        Ok(entry)
    }

    fn refuse(&mut self, jobs: Vec<Job>, error: &io::Error) -> Vec<Job> {
        let failure = Failure(error.to_string());
        let (mut kept, rises): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.in_force);
        let lost = kept.len().saturating_sub(BACKLOG);
        // The newest say where each rollout stands.
        kept.drain(..lost);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.health.failing.is_none() {
            tracing::error!(error = %error, "the journal cannot be written: nothing rises until it can");
        }
        shared.health.failing = Some(failure.0.clone());
        shared.health.backlog = kept.len();
        shared.health.lost += lost as u64;
        drop(shared);
        let told = kept.iter_mut().filter_map(|job| job.done.take());
        for done in rises.into_iter().filter_map(|job| job.done).chain(told) {
            done(Err(failure.clone()));
        }
        kept
    }

    fn publish(&self, entries: Vec<Entry>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.health.failing.take().is_some() {
            tracing::info!("the journal can be written again");
        }
        shared.health.last = self.last;
        shared.health.backlog = 0;
        for entry in entries {
            if shared.at_hand.len() == AT_HAND {
                shared.at_hand.pop_front();
            }
            shared.at_hand.push_back(Arc::new(entry));
        }
    }

    /// Begins a new segment when the current one is full; its checkpoint comes with the next record.
    fn roll(&mut self, newest: Option<Wall>) {
        let Some(newest) = newest.filter(|_| self.durable >= self.options.segment_bytes) else { return };
        let first = self.last + 1;
        if let Err(error) = self.medium.roll(first) {
            tracing::warn!(error = %error, "no new journal segment could be begun; the old one goes on");
            return;
        }
        self.ages.retain(|(segment, _)| *segment != self.segment);
        self.ages.push((self.segment, newest));
        (self.segment, self.durable) = (first, 0);
    }

    fn retire(&mut self, now: Wall) {
        let age = i64::try_from(self.options.retention.as_millis()).unwrap_or(i64::MAX);
        let old = now.0.saturating_sub(age);
        let kept = self.ages.iter().position(|(_, newest)| newest.0 >= old).unwrap_or(self.ages.len());
        if kept == 0 {
            return;
        }
        let first = self.ages.get(kept).map_or(self.segment, |(segment, _)| *segment);
        if let Err(error) = self.medium.retire(first) {
            tracing::warn!(error = %error, "old journal segments could not be dropped");
            return;
        }
        self.ages.drain(..kept);
    }
}
