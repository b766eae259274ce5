//! Unpacks gzip on the tap only: the caller gets the packed bytes, the reader sees the plain ones.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use super::facts::{Ending, Facts};
use super::reader::Plain;
use crate::names::Mono;

/// Plain bytes taken from one answer, at most: beyond it we stop looking (a bomb, or nothing for us).
const PLAIN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A reader behind a decoder. Holds the decoder's window and buffer (about 64 KiB) while the answer lasts.
#[derive(Debug)]
pub(crate) struct Gzip {
    decoder: MultiGzDecoder<Into>,
    failed: bool,
}

/// Where decoded bytes go.
#[derive(Debug)]
struct Into {
    plain: Plain,
    now: Mono,
    bytes: u64,
}

impl Write for Into {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > PLAIN_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.plain.chunk(bytes, self.now);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gzip {
    pub(crate) fn new(plain: Plain) -> Gzip {
        Gzip { decoder: MultiGzDecoder::new(Into { plain, now: Mono::default(), bytes: 0 }), failed: false }
    }

    /// What looks at the decoded bytes.
    pub(crate) fn plain(&self) -> &Plain {
        &self.decoder.get_ref().plain
    }

    pub(crate) fn kept(&self) -> usize {
        64 * 1024 + self.decoder.get_ref().plain.kept()
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8], now: Mono) {
        if self.failed {
            return;
        }
        self.decoder.get_mut().now = now;
        // The flush hands on what a server flushed at an event's end, so that tokens are seen when they pass.
        self.failed = self.decoder.write_all(bytes).and_then(|()| self.decoder.flush()).is_err();
    }

    pub(crate) fn finish(mut self, ending: Ending, owed: bool, now: Mono) -> Facts {
        if self.failed {
            return Facts { undecoded: true, ..Facts::default() };
        }
        let plain = std::mem::take(&mut self.decoder.get_mut().plain);
        plain.finish(ending, owed, now)
    }
}
