//! Unpacks br (RFC 7932) as it passes.

use std::fmt;
use std::io;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::decode::Sink;

/// Largest window, as a power of two: 4 MiB, which encoders use unless told otherwise. The format's own bound is 16 MiB.
const WINDOW_BITS_MAX: u32 = 22;
/// What is unpacked in one step.
const STEP_BYTES: usize = 8 * 1024;

/// A decoder at work. Its ring buffer grows with what was unpacked, up to the window.
pub(crate) struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    begun: bool,
    ended: bool,
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli").field("begun", &self.begun).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Brotli {
    pub(crate) fn new() -> Brotli {
        let alloc = StandardAlloc::default;
        // Strict: no windows beyond the format's own.
        Brotli { state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), begun: false, ended: false }
    }

    /// Bytes of memory kept once so many were unpacked.
    pub(crate) fn kept(&self, unpacked: usize) -> usize {
        size_of_val(&*self.state) + 64 * 1024 + unpacked.saturating_mul(2).min(1 << (WINDOW_BITS_MAX + 1))
    }

    /// Unpacks the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], sink: &mut Sink) -> io::Result<()> {
        if let (false, Some(first)) = (self.begun, bytes.first()) {
            self.begun = true;
            if window_bits(*first) > WINDOW_BITS_MAX {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        let (mut left, mut at, mut all) = (bytes.len(), 0, 0);
        let mut out = [0; STEP_BYTES];
        while !self.ended {
            let (mut room, mut filled) = (out.len(), 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut at,
                bytes,
                &mut room,
                &mut filled,
                &mut out,
                &mut all,
                &mut self.state,
            );
            sink.take(out.get(..filled).unwrap_or_default())?;
            match result {
                BrotliResult::ResultSuccess => self.ended = true,
                BrotliResult::NeedsMoreOutput => (),
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }
}

/// The window that a stream asks for in its first byte (RFC 7932, section 9.1).
fn window_bits(first: u8) -> u32 {
    match (first & 1, first >> 1 & 7) {
        (0, _) => 16,
        (_, 0) => 17, // or less
        (_, more) => 17 + u32::from(more),
    }
}
