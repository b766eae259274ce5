//! What changes too often for the journal: elapsed times and the judge's sums, one file a rollout, replaced whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::journal::chain::{Hash, hex};
use crate::journal::file::sync_dir;
use crate::names::RolloutName;
use crate::rollout::State;

/// A rollout's evidence at one moment. The journal stays the truth: take the times with [`State::catch_up`], and the
/// judge's sums only when that says `true`.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The state with its elapsed times.
    pub state: State,
    /// The judge's checkpoint.
    pub judge: Vec<u8>,
    /// What the evaluator counts for the ledger of exposure, in its own words.
    pub counts: Option<String>,
}

/// The directory of evidence.
#[derive(Clone, Debug)]
pub struct Evidence {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Head {
    rollout: RolloutName,
    state: State,
    judge_bytes: usize,
    sha256: String,
    #[serde(default)]
    counts: Option<String>,
}

impl Evidence {
    /// Uses (or makes) the directory.
    ///
    /// # Errors
    /// As the disk says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Replaces a rollout's evidence; a crash leaves the old or the new, never a mixture.
    ///
    /// # Errors
    /// As the disk says; the old evidence stays.
    pub fn save(&self, rollout: &RolloutName, kept: &Kept) -> io::Result<()> {
        let head = Head {
            rollout: rollout.clone(),
            state: kept.state.clone(),
            judge_bytes: kept.judge.len(),
            sha256: digest(&kept.judge),
            counts: kept.counts.clone(),
        };
        let mut bytes = serde_json::to_vec(&head).map_err(io::Error::other)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&kept.judge);
        let path = self.path(rollout);
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&fresh, &path)?;
        sync_dir(&self.dir)
    }

    /// A rollout's evidence; `None` when there is none, or none that can be read.
    #[must_use]
    pub fn load(&self, rollout: &RolloutName) -> Option<Kept> {
        let bytes = std::fs::read(self.path(rollout)).ok()?;
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let judge = &bytes[end + 1..];
        let whole = head.judge_bytes == judge.len() && head.sha256 == digest(judge) && head.rollout == *rollout;
        whole.then(|| Kept { state: head.state, judge: judge.to_vec(), counts: head.counts })
    }

    /// Names may hold anything: the file is called by their hash.
    fn path(&self, rollout: &RolloutName) -> PathBuf {
        self.dir.join(format!("{}.evidence", &digest(rollout.as_str().as_bytes())[..32]))
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash: Hash = Sha256::digest(bytes).into();
    hex(&hash)
}
