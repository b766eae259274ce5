//! Unpacks gzip, br and zstd on the tap only: the caller gets the packed bytes, the reader sees the plain ones.
//!
//! Everything is bounded: the plain bytes of one answer (a bomb, or nothing for us, beyond them), the window that the
//! packer may ask for, and what is unpacked in one step. What cannot be unpacked is said to be undecoded, never judged.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use super::decode_brotli::Brotli;
use super::decode_zstd::Zstd;
use super::facts::{Ending, Facts};
use super::reader::Plain;
use crate::names::Mono;

/// Plain bytes taken from one answer, at most.
const PLAIN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// An encoding that the tap unpacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// By its name in `Content-Encoding`.
    pub(crate) fn of(name: &str) -> Option<Encoding> {
        const NAMES: [(&str, Encoding); 4] =
            [("gzip", Encoding::Gzip), ("x-gzip", Encoding::Gzip), ("br", Encoding::Brotli), ("zstd", Encoding::Zstd)];
        NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, encoding)| *encoding)
    }
}

/// A reader behind a decoder.
#[derive(Debug)]
pub(crate) struct Packed {
    decoder: Decoder,
    failed: bool,
}

#[derive(Debug)]
enum Decoder {
    Gzip(MultiGzDecoder<Sink>),
    Brotli(Brotli, Sink),
    Zstd(Zstd, Sink),
}

/// Where decoded bytes go.
#[derive(Debug)]
pub(crate) struct Sink {
    plain: Plain,
    now: Mono,
    bytes: u64,
}

impl Sink {
    /// Takes plain bytes in; refuses more than may come of one answer.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > PLAIN_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.plain.chunk(bytes, self.now);
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Packed {
    pub(crate) fn new(encoding: Encoding, plain: Plain) -> Packed {
        let sink = Sink { plain, now: Mono::default(), bytes: 0 };
        let decoder = match encoding {
            Encoding::Gzip => Decoder::Gzip(MultiGzDecoder::new(sink)),
            Encoding::Brotli => Decoder::Brotli(Brotli::new(), sink),
            Encoding::Zstd => Decoder::Zstd(Zstd::new(), sink),
        };
        Packed { decoder, failed: false }
    }

    fn sink(&self) -> &Sink {
        match &self.decoder {
            Decoder::Gzip(gzip) => gzip.get_ref(),
            Decoder::Brotli(_, sink) | Decoder::Zstd(_, sink) => sink,
        }
    }

    fn sink_mut(&mut self) -> &mut Sink {
        match &mut self.decoder {
            Decoder::Gzip(gzip) => gzip.get_mut(),
            Decoder::Brotli(_, sink) | Decoder::Zstd(_, sink) => sink,
        }
    }

    /// What looks at the decoded bytes; `None` where they come too late to be timed.
    pub(crate) fn timed(&self) -> Option<&Plain> {
        if matches!(self.decoder, Decoder::Zstd(..)) { None } else { Some(&self.sink().plain) }
    }

    pub(crate) fn kept(&self) -> usize {
        let sink = self.sink();
        let unpacked = usize::try_from(sink.bytes).unwrap_or(usize::MAX);
        sink.plain.kept()
            + match &self.decoder {
                Decoder::Gzip(_) => 64 * 1024,
                Decoder::Brotli(brotli, _) => brotli.kept(unpacked),
                Decoder::Zstd(zstd, _) => zstd.kept(unpacked),
            }
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8], now: Mono) {
        if self.failed {
            return;
        }
        self.sink_mut().now = now;
        let taken = match &mut self.decoder {
            // The flush hands on what a server flushed at an event's end, so that tokens are seen when they pass.
            Decoder::Gzip(gzip) => gzip.write_all(bytes).and_then(|()| gzip.flush()),
            Decoder::Brotli(brotli, sink) => brotli.push(bytes, sink),
            Decoder::Zstd(zstd, sink) => zstd.push(bytes, sink),
        };
        self.failed = taken.is_err();
    }

    pub(crate) fn finish(mut self, ending: Ending, owed: bool, now: Mono) -> Facts {
        if self.failed {
            return Facts { undecoded: true, ..Facts::default() };
        }
        let timed = self.timed().is_some();
        let plain = std::mem::take(&mut self.sink_mut().plain);
        let facts = plain.finish(ending, owed, now);
        if timed { facts } else { Facts { first_token_at: None, last_token_at: None, ..facts } }
    }
}
