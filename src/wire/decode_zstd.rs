//! Unpacks zstd (RFC 8878) as it passes, block by block.
//!
//! The library hands on what leaves the window, and the rest at the frame's end: its text comes late, so nothing is timed by it.

use std::fmt;
use std::io;

use ruzstd::decoding::FrameDecoder;

use super::decode::Sink;

/// Largest window: what RFC 9659 allows in HTTP.
const WINDOW_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest block, packed or not.
const BLOCK_BYTES_MAX: usize = 128 * 1024;
const BLOCK_HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;
/// What is unpacked in one step.
const STEP_BYTES: usize = 8 * 1024;

/// A decoder at work.
pub(crate) struct Zstd {
    frame: Box<FrameDecoder>,
    /// What came and is not yet a whole header or block.
    pending: Vec<u8>,
    part: Part,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    FrameHeader,
    /// Blocks; `true` where a checksum follows the last.
    Blocks(bool),
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("pending", &self.pending.len()).field("part", &self.part).finish_non_exhaustive()
    }
}

impl Zstd {
    pub(crate) fn new() -> Zstd {
        let mut frame = Box::new(FrameDecoder::new());
        frame.set_max_window_size(WINDOW_BYTES_MAX as u64);
        Zstd { frame, pending: Vec::new(), part: Part::FrameHeader }
    }

    /// Bytes of memory kept once so many were unpacked.
    pub(crate) fn kept(&self, unpacked: usize) -> usize {
        let window = unpacked.saturating_add(2 * BLOCK_BYTES_MAX).saturating_mul(2);
        self.pending.capacity() + 2 * BLOCK_BYTES_MAX + window.min(2 * WINDOW_BYTES_MAX)
    }

    /// Unpacks the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], sink: &mut Sink) -> io::Result<()> {
        // Larger pieces than a block would be held for nothing.
        for piece in bytes.chunks(BLOCK_BYTES_MAX) {
            self.pending.extend_from_slice(piece);
            let pending = std::mem::take(&mut self.pending);
            let mut rest = pending.as_slice();
            while let Some(size) = self.next_size(rest)? {
                let (next, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
                if next.len() < size {
                    break;
                }
                self.unpack(next, sink)?;
                rest = after;
            }
            let used = pending.len() - rest.len();
            self.pending = pending;
            self.pending.drain(..used);
        }
        Ok(())
    }

    /// How many bytes the next part takes; `None` while that cannot be told.
    fn next_size(&self, rest: &[u8]) -> io::Result<Option<usize>> {
        match self.part {
            Part::FrameHeader => Ok(rest.get(4).map(|descriptor| frame_header_bytes(*descriptor))),
            Part::Blocks(checksum) => {
                let Some(block) = block_header(rest) else { return Ok(None) };
                if block.unpacked_max > BLOCK_BYTES_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let after = if block.last && checksum { CHECKSUM_BYTES } else { 0 };
                Ok(Some(BLOCK_HEADER_BYTES + block.bytes + after))
            }
        }
    }

    fn unpack(&mut self, next: &[u8], sink: &mut Sink) -> io::Result<()> {
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
        match self.part {
            Part::FrameHeader => {
                let mut header = next;
                self.frame.reset(&mut header).map_err(wrong)?;
                let checksum = next.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
                self.part = Part::Blocks(checksum);
            }
            Part::Blocks(_) => {
                let last = block_header(next).is_some_and(|block| block.last);
                let mut out = [0; STEP_BYTES];
                let (_, mut filled) = self.frame.decode_from_to(next, &mut out).map_err(wrong)?;
                while filled > 0 {
                    sink.take(out.get(..filled).unwrap_or_default())?;
                    filled = io::Read::read(&mut self.frame, &mut out)?;
                }
                if last {
                    self.part = Part::FrameHeader;
                }
            }
        }
        Ok(())
    }
}

struct Block {
    last: bool,
    /// Behind its header.
    bytes: usize,
    /// What its header says: its bytes, or how often its one byte is repeated.
    unpacked_max: usize,
}

/// RFC 8878, section 3.1.1.2.
fn block_header(bytes: &[u8]) -> Option<Block> {
    let [a, b, c] = *bytes.first_chunk::<BLOCK_HEADER_BYTES>()?;
    let header = u32::from_le_bytes([a, b, c, 0]);
    let size = usize::try_from(header >> 3).unwrap_or(usize::MAX);
    let repeats = header >> 1 & 3 == 1;
    Some(Block { last: header & 1 == 1, bytes: if repeats { 1 } else { size }, unpacked_max: size })
}

/// RFC 8878, section 3.1.1.1: magic number, descriptor, window, dictionary, content size.
fn frame_header_bytes(descriptor: u8) -> usize {
    let single = descriptor >> 5 & 1 == 1;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = match descriptor >> 6 {
        0 => usize::from(single),
        flag => 1 << flag,
    };
    5 + usize::from(!single) + dictionary + size
}
