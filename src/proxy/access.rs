//! The access log: one JSON line an exchange (names, outcome, sizes, times; no unit, no body, no query), written by a
//! thread of its own. A worker never waits for it: a full queue drops the line and counts.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde::Serialize;

/// Lines on their way to the file.
const LINES: usize = 8_192;

/// One exchange.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// When it ended, RFC 3339.
    pub at: String,
    /// The rollout.
    pub rollout: String,
    /// The version charged or credited.
    pub version: String,
    /// Its arm.
    pub arm: &'static str,
    /// What became of it.
    pub outcome: &'static str,
    /// Status sent.
    pub status: Option<u16>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// To the response head, µs.
    pub ttfb_us: Option<u64>,
    /// To the first token, µs.
    pub ttft_us: Option<u64>,
    /// To the end, µs.
    pub total_us: u64,
    /// Output tokens.
    pub tokens_out: Option<u64>,
}

/// The way into the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    lines: SyncSender<Box<Line>>,
    dropped: Arc<AtomicU64>,
}

impl Access {
    /// Opens the file for appending and starts its thread, which ends when every [`Access`] is gone.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn open(path: &Path) -> io::Result<(Self, JoinHandle<()>)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (lines, taken) = sync_channel::<Box<Line>>(LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("serin-access".to_owned()).spawn(move || {
            let mut file = BufWriter::new(file);
            while let Ok(line) = taken.recv() {
                let mut next = Some(line);
                while let Some(line) = next {
                    write(&mut file, &line);
                    next = taken.try_recv().ok();
                }
                if let Err(error) = file.flush() {
                    tracing::warn!(error = %error, "the access log could not be written");
                }
            }
        })?;
        Ok((Self { lines, dropped }, thread))
    }

    /// Takes a line, or drops it.
    pub fn log(&self, line: Line) {
        if self.lines.try_send(Box::new(line)).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the access log is behind: lines are dropped");
        }
    }
}

fn write(file: &mut impl Write, line: &Line) {
    let Ok(mut text) = serde_json::to_vec(line) else { return };
    text.push(b'\n');
    if let Err(error) = file.write_all(&text) {
        tracing::warn!(error = %error, "the access log could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exchange_is_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (access, thread) = Access::open(&path).unwrap();
        for status in [200, 502] {
            access.log(Line {
                at: "2026-11-21T00:00:00.000Z".into(),
                rollout: "chat".into(),
                version: "a".into(),
                arm: "stable",
                outcome: "success",
                status: Some(status),
                bytes: 3,
                ttfb_us: Some(1),
                ttft_us: None,
                total_us: 2,
                tokens_out: None,
            });
        }
        drop(access);
        thread.join().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["status"], 502);
    }
}
