//! Reading a journal back: the chain checked from its first entry, a torn tail cut off, anything else refused by name.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::journal::chain::{Found, GENESIS, Hash, hex, read};
use crate::journal::file;
use crate::journal::record::{Body, Entry, Standing};
use crate::journal::sign::{self, Verifier};
use crate::names::{RolloutName, Wall};
use crate::rollout::{Latch, State};

/// How many of the last entries are kept at hand for readers.
pub(crate) const AT_HAND: usize = 4_096;

/// What a journal held when it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Every rollout's last state; take each up with [`State::resume`].
    pub states: BTreeMap<RolloutName, State>,
    /// Latches that the guard or an abort has set and that no record has taken up: serin ended before that.
    pub latches: BTreeMap<RolloutName, Latch>,
    /// The number of the last entry; 0 when there was none.
    pub last: u64,
    /// A torn tail that was cut off: tell people.
    pub torn: Option<Torn>,
}

/// A tail whose writing was interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// The entry that it would have been.
    pub n: u64,
    /// How many bytes were cut off; 0 when all of it is gone and only the journal's head names it.
    pub bytes: u64,
}

/// What `verify` found good.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// The number of the first entry; above 1 where older segments were dropped.
    pub first: u64,
    /// The number of the last entry; 0 when there is none.
    pub last: u64,
    /// The hash of the last entry, in hexadecimal: compare it with a copy kept elsewhere.
    pub hash: String,
}

/// What `verify_signed` found good.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Signed {
    /// The chain.
    #[serde(flatten)]
    pub summary: Summary,
    /// How many signatures there are, all of them good.
    pub signatures: u64,
    /// The keys that made them, by name, in the order in which they were first used.
    pub keys: Vec<String>,
}

/// The first entry that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("entry {at} is not as it was written: {why} ({place})")]
pub struct Broken {
    /// Its number.
    pub at: u64,
    /// What is wrong.
    pub why: String,
    /// File and offset.
    pub place: String,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk says no.
    #[error("the journal in {path} cannot be opened: {error}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// It is not as it was written; nothing was changed.
    #[error("the journal is refused: {0}; keep the files, and start with an empty store or restore a copy")]
    Broken(#[from] Broken),
}

/// Everything about a journal's end that appending needs.
#[derive(Debug)]
pub(crate) struct End {
    pub recovered: Recovered,
    pub hash: Hash,
    /// The first entry of the segment to append to.
    pub segment: u64,
    /// When each segment's last entry was made, by its first entry's number.
    pub ages: Vec<(u64, Wall)>,
    pub at_hand: VecDeque<Arc<Entry>>,
}

/// Checks a journal's directory, or a single segment.
///
/// # Errors
/// The first entry that is not as it was written: changed, dropped, doubled, moved, or torn.
pub fn verify(path: &Path) -> Result<Summary, Broken> {
    verify_each(path, &mut |_| Ok(()))
}

/// [`verify`], and every signature against these keys; the last entry must be one. A journal that was not signed from
/// its beginning is vouched for as a whole by the first signature that it got.
///
/// # Errors
/// As [`verify`]; or the first signature that is wrong or by another key; or what comes behind the last one.
pub fn verify_signed(path: &Path, keys: &[Verifier]) -> Result<Signed, Broken> {
    let (mut signatures, mut last, mut used) = (0, 0, Vec::<String>::new());
    let summary = verify_each(path, &mut |entry| {
        if let Body::Signature(signature) = &entry.body {
            sign::check(signature, keys)?;
            (signatures, last) = (signatures + 1, entry.n);
            if !used.contains(&signature.key) {
                used.push(signature.key.clone());
            }
        }
        Ok(())
    })?;
    if last != summary.last {
        let why = if signatures == 0 {
            "no signature covers it, nor any entry of the journal".to_owned()
        } else {
            format!("no signature covers it: the last one is entry {last}")
        };
        let at = if signatures == 0 { summary.first } else { last + 1 };
        return Err(Broken { at, why, place: path.display().to_string() });
    }
    Ok(Signed { summary, signatures, keys: used })
}

fn verify_each(path: &Path, take: &mut Take<'_>) -> Result<Summary, Broken> {
    let unreadable = |error: io::Error| Broken { at: 0, why: error.to_string(), place: path.display().to_string() };
    // A store's own folder is meant, too.
    let inner = path.join("journal");
    let path = if inner.is_dir() { inner.as_path() } else { path };
    let dir = if path.is_dir() { Some(path) } else { path.parent() };
    let files = parts(path).map_err(unreadable)?;
    if files.is_empty() {
        return Err(unreadable(io::Error::new(io::ErrorKind::NotFound, "there is no journal")));
    }
    let mut walk = Walk::default();
    for (first, path) in &files {
        let bytes = std::fs::read(path).map_err(unreadable)?;
        if let Some(torn) = walk.segment(*first, path, &bytes, take)? {
            let place = path.display().to_string();
            return Err(Broken { at: torn.n, why: format!("torn: {} bytes of it are there", torn.bytes), place });
        }
    }
    let newest = dir.and_then(|d| file::segments(d).ok()).and_then(|s| s.last().map(|(n, _)| *n));
    let whole = newest.is_none() || newest == files.last().map(|(n, _)| *n);
    if let (true, Some((n, hash))) = (whole, dir.and_then(file::head)) {
        walk.against_head(n, &hash, path)?;
    }
    Ok(Summary { first: walk.first, last: walk.last, hash: hex(&walk.hash) })
}

/// Hands every entry of a journal to `take`, in order, checking the chain on the way; changes nothing and takes no
/// lock, so it may be another process's. A torn tail is where it ends: that process may be writing it.
///
/// # Errors
/// The first entry that is not as it was written; those before it have been handed over.
pub fn visit(path: &Path, take: &mut dyn FnMut(Entry)) -> Result<Summary, Broken> {
    let unreadable = |error: io::Error| Broken { at: 0, why: error.to_string(), place: path.display().to_string() };
    let below = path.join("journal");
    let path = if below.is_dir() { &below } else { path };
    let mut walk = Walk::default();
    for (first, path) in &parts(path).map_err(unreadable)? {
        let bytes = std::fs::read(path).map_err(unreadable)?;
        walk.segment(*first, path, &bytes, &mut |entry| {
            take(entry);
            Ok(())
        })?;
    }
    Ok(Summary { first: walk.first, last: walk.last, hash: hex(&walk.hash) })
}

/// The segments of a directory, or the one that is named.
fn parts(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    if path.is_dir() {
        return file::segments(path);
    }
    let named = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
    Ok(vec![(named.unwrap_or(0), path.to_owned())])
}

/// Reads a directory back, cutting off a torn tail of its last segment.
pub(crate) fn recover(dir: &Path) -> Result<End, OpenError> {
    let io = |error| OpenError::Io { path: dir.to_owned(), error };
    let mut files = file::segments(dir).map_err(io)?;
    let mut walk = Walk::default();
    let (mut standing, mut ages, mut at_hand) = (Standing::default(), Vec::new(), VecDeque::new());
    let mut torn = None;
    let count = files.len();
    for (index, (first, path)) in files.iter().enumerate() {
        let bytes = std::fs::read(path).map_err(io)?;
        let mut newest = None;
        let found = walk.segment(*first, path, &bytes, &mut |entry: Entry| {
            newest = Some(entry.at());
            entry.replay(&mut standing);
            if at_hand.len() == AT_HAND {
                at_hand.pop_front();
            }
            at_hand.push_back(Arc::new(entry));
            Ok(())
        })?;
        ages.extend(newest.map(|at| (*first, at)));
        if let Some(found) = found {
            if index + 1 < count {
                let why = "it ends in the middle, and more segments follow".to_owned();
                return Err(Broken { at: found.n, why, place: path.display().to_string() }.into());
            }
            torn = Some(found);
        }
    }
    if let Some((n, hash)) = file::head(dir) {
        // An entry is marked after its sync. One that is missing may be the torn one: cut off and reported. More, or
        // another hash, is no accident of writing.
        if n == walk.last + 1 && torn.is_none() {
            let path = files.last().map_or_else(|| dir.to_owned(), |(_, path)| path.clone());
            torn = Some(Torn { path, n, bytes: 0 });
        }
        if n > walk.last + 1 || (n == walk.last && hash != hex(&walk.hash)) {
            walk.against_head(n, &hash, dir)?;
        }
    }
    if let Some(torn) = torn.as_ref().filter(|t| t.bytes > 0) {
        let kept = std::fs::metadata(&torn.path).map_err(io)?.len().saturating_sub(torn.bytes);
        let tail = std::fs::OpenOptions::new().write(true).open(&torn.path).map_err(io)?;
        tail.set_len(kept).and_then(|()| tail.sync_all()).map_err(io)?;
    }
    // A segment that was begun and never got its first entry.
    if let Some((first, path)) = files.last()
        && *first > walk.last
        && files.len() > 1
    {
        std::fs::remove_file(path).and_then(|()| file::sync_dir(dir)).map_err(io)?;
        files.pop();
    }
    let segment = files.last().map_or(1, |(first, _)| *first);
    let Standing { states, latches } = standing;
    let recovered = Recovered { states, latches, last: walk.last, torn };
    Ok(End { recovered, hash: walk.hash, segment, ages, at_hand })
}

/// Entries with numbers above `after`, from the files.
pub(crate) fn read_after(dir: &Path, after: u64, limit: usize) -> Vec<Arc<Entry>> {
    let mut found = Vec::new();
    let Ok(files) = file::segments(dir) else { return found };
    let from = files.iter().rposition(|(first, _)| *first <= after.saturating_add(1)).unwrap_or(0);
    for (_, path) in files.iter().skip(from) {
        let Ok(bytes) = std::fs::read(path) else { break };
        let mut at = 0;
        while let Found::Frame { payload, next, .. } = read(&bytes, at, None) {
            at = next;
            let Ok(entry) = serde_json::from_slice::<Entry>(payload) else { return found };
            if entry.n > after {
                found.push(Arc::new(entry));
            }
            if found.len() >= limit {
                return found;
            }
        }
    }
    found
}

/// Takes an entry; what it finds wrong with it is told with the entry's place.
type Take<'a> = dyn FnMut(Entry) -> Result<(), String> + 'a;

/// A walk along the chain.
#[derive(Default)]
struct Walk {
    first: u64,
    last: u64,
    hash: Hash,
}

impl Walk {
    /// Walks one segment; a torn tail is given back, everything else that is wrong is an error.
    fn segment(&mut self, first: u64, path: &Path, bytes: &[u8], take: &mut Take<'_>) -> Result<Option<Torn>, Broken> {
        let mut at = 0;
        loop {
            let fresh = self.first == 0;
            let n = if fresh && first > 0 { first } else { self.last + 1 };
            let broken =
                |why: &str| Err(Broken { at: n, why: why.to_owned(), place: format!("{}, byte {at}", path.display()) });
            if at == 0 && !fresh && first != n {
                return broken("entries before the segment are missing or too many");
            }
            // The oldest segment that is kept begins with a checkpoint whose predecessor is gone.
            let previous = if fresh && first > 1 { None } else { Some(if fresh { GENESIS } else { self.hash }) };
            match read(bytes, at, previous.as_ref()) {
                Found::End => return Ok(None),
                Found::Torn => {
                    let bytes = (bytes.len() - at) as u64;
                    return Ok(Some(Torn { path: path.to_owned(), n, bytes }));
                }
                Found::Broken(why) => return broken(why),
                Found::Frame { payload, hash, next, .. } => {
                    let Ok(entry) = serde_json::from_slice::<Entry>(payload) else {
                        return broken("it cannot be read: written by another version of serin?");
                    };
                    if entry.n != n {
                        return broken("its number is not the next one");
                    }
                    if let (Body::Signature(signature), Some(before)) = (&entry.body, &previous)
                        && (signature.of.saturating_add(1) != n || signature.hash != hex(before))
                    {
                        return broken("it is a signature over another entry than the one before it");
                    }
                    if let Err(why) = take(entry) {
                        return broken(&why);
                    }
                    if fresh {
                        self.first = n;
                    }
                    (self.last, self.hash, at) = (n, hash, next);
                }
            }
        }
    }

    fn against_head(&self, n: u64, hash: &str, path: &Path) -> Result<(), Broken> {
        let place = path.display().to_string();
        if n > self.last {
            let why = format!("it is missing: the journal ends before it, but its head names entry {n}");
            return Err(Broken { at: self.last + 1, why, place });
        }
        if n == self.last && hash != hex(&self.hash) {
            return Err(Broken { at: n, why: "its hash is not the one in the journal's head".to_owned(), place });
        }
        Ok(())
    }
}
