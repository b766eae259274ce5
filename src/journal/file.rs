//! Where frames lie: segments in a directory, or memory with faults on demand.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::journal::chain::{Hash, hex};

/// The ending of a segment's name; before it stands the number of its first entry.
const ENDING: &str = "journal";
/// The file that names the last durable entry, so that a tail that was cut off is missed.
pub(crate) const HEAD: &str = "head";

/// Where frames are appended.
pub trait Medium: Send {
    /// Appends to the current segment; not durable before [`Medium::sync`].
    ///
    /// # Errors
    /// As the disk says; a part may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// As the disk says; nothing is known of what was appended since the last success.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the current segment to a length.
    ///
    /// # Errors
    /// As the disk says.
    fn truncate(&mut self, to: u64) -> io::Result<()>;
    /// The current segment's length in bytes.
    fn length(&self) -> u64;
    /// Begins a new segment whose first entry has this number.
    ///
    /// # Errors
    /// As the disk says; the old segment stays the current one.
    fn roll(&mut self, first: u64) -> io::Result<()>;
    /// Notes the last durable entry. May fail in silence: it only helps to notice what is missing.
    fn mark(&mut self, n: u64, hash: &Hash);
    /// Drops all segments before the one that begins with this entry.
    ///
    /// # Errors
    /// As the disk says.
    fn retire(&mut self, first: u64) -> io::Result<()>;
}

/// Segments in a directory.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    path: PathBuf,
    current: File,
    head: File,
    length: u64,
    /// Held for as long as the journal is open: one process a directory.
    _lock: File,
}

impl Files {
    /// Takes the directory's lock.
    pub(crate) fn lock(dir: &Path) -> io::Result<File> {
        std::fs::create_dir_all(dir)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "another process has this journal open"))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Opens the segment that begins with this entry, to append at its end.
    pub(crate) fn open(dir: &Path, first: u64, lock: File) -> io::Result<Self> {
        let path = segment(dir, first);
        let mut current = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let length = current.seek(SeekFrom::End(0))?;
        let head = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(HEAD))?;
        sync_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), path, current, head, length, _lock: lock })
    }

    fn still_there(&self) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the journal's file was removed while serin runs");
        let (named, open) = (std::fs::metadata(&self.path).map_err(|_| gone())?, self.current.metadata()?);
        if named.ino() == open.ino() && named.dev() == open.dev() { Ok(()) } else { Err(gone()) }
    }
}

impl Medium for Files {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.still_there()?;
        self.current.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current.sync_data()
    }

    fn truncate(&mut self, to: u64) -> io::Result<()> {
        self.current.set_len(to)?;
        self.current.seek(SeekFrom::Start(to))?;
        self.length = to;
        self.current.sync_data()
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn roll(&mut self, first: u64) -> io::Result<()> {
        let path = segment(&self.dir, first);
        // What a failed attempt left behind holds nothing durable.
        let next = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        sync_dir(&self.dir)?;
        (self.current, self.path, self.length) = (next, path, 0);
        Ok(())
    }

    fn mark(&mut self, n: u64, hash: &Hash) {
        let line = format!("{n:020} {}\n", hex(hash));
        let written = self.head.seek(SeekFrom::Start(0)).and_then(|_| self.head.write_all(line.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(error = %error, "the journal's head could not be written; its entries are not affected");
        }
    }

    fn retire(&mut self, first: u64) -> io::Result<()> {
        for (n, path) in segments(&self.dir)? {
            if n < first {
                std::fs::remove_file(path)?;
            }
        }
        sync_dir(&self.dir)
    }
}

/// The path of the segment that begins with this entry.
pub(crate) fn segment(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.{ENDING}"))
}

/// All segments of a directory, in order, with the numbers of their first entries.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir)? {
        let path = item?.path();
        if path.extension().is_some_and(|e| e == ENDING)
            && let Some(first) = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok())
        {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The entry and hash that the head names, when it can be read.
pub(crate) fn head(dir: &Path) -> Option<(u64, String)> {
    let text = std::fs::read_to_string(dir.join(HEAD)).ok()?;
    let (n, hash) = text.trim_end().split_once(' ')?;
    Some((n.parse().ok()?, hash.to_owned()))
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Faults on demand, for tests of what a bad disk does; a handle that may be kept.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Fault>>);

#[derive(Debug, Default)]
struct Fault {
    room: Option<usize>,
    read_only: bool,
    sync: bool,
    truncate: bool,
    bytes: Vec<u8>,
}

impl Fault {
    fn may_write(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Faults {
    /// The disk takes so many bytes more, then it is full; `None`: no bound.
    pub fn room(&self, bytes: Option<usize>) {
        self.with(|f| f.room = bytes);
    }

    /// Whether the disk has become one that is only read: no byte, no cut, no new segment.
    pub fn read_only(&self, is: bool) {
        self.with(|f| f.read_only = is);
    }

    /// Whether every sync fails.
    pub fn fail_sync(&self, fails: bool) {
        self.with(|f| f.sync = fails);
    }

    /// Whether every cut fails.
    pub fn fail_truncate(&self, fails: bool) {
        self.with(|f| f.truncate = fails);
    }

    /// What lies in memory now: the current segment.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.with(|f| f.bytes.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Fault) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One segment in memory. Rolling forgets the old one: nobody reads it again.
#[derive(Debug, Default)]
pub(crate) struct Memory(pub(crate) Faults);

impl Medium for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.with(|f| {
            f.may_write()?;
            let room = f.room.unwrap_or(usize::MAX).min(bytes.len());
            f.bytes.extend_from_slice(&bytes[..room]);
            f.room = f.room.map(|r| r - room);
            if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.with(|f| if f.sync { Err(io::Error::other("sync failed")) } else { Ok(()) })
    }

    fn truncate(&mut self, to: u64) -> io::Result<()> {
        self.0.with(|f| {
            f.may_write()?;
            if f.truncate {
                return Err(io::Error::other("cut failed"));
            }
            f.bytes.truncate(usize::try_from(to).unwrap_or(usize::MAX));
            Ok(())
        })
    }

    fn length(&self) -> u64 {
        self.0.with(|f| f.bytes.len() as u64)
    }

    fn roll(&mut self, _first: u64) -> io::Result<()> {
        self.0.with(|f| {
            f.may_write()?;
            f.bytes.clear();
            Ok(())
        })
    }

    fn mark(&mut self, _n: u64, _hash: &Hash) {}

    fn retire(&mut self, _first: u64) -> io::Result<()> {
        Ok(())
    }
}
