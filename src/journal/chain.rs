//! Frames: a payload with its length, the hash of the frame before, and its own hash.
//!
//! `length u32 LE · check 4 bytes · previous hash 32 bytes · hash 32 bytes · payload`. The check is the start of
//! SHA-256 over length and previous hash: it tells a torn tail (a true beginning of a frame) from a changed length,
//! which would otherwise look the same and let whole records vanish. The hash covers length, previous hash and payload.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hash before the first frame.
pub const GENESIS: Hash = [0; 32];
/// What stands before each payload.
pub const HEADER_BYTES: usize = 72;
/// The largest payload.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A whole frame that fits the chain.
    Frame {
        /// What it carries.
        payload: &'a [u8],
        /// The hash of the frame before, as written.
        previous: Hash,
        /// Its own hash.
        hash: Hash,
        /// Where the next one begins.
        next: usize,
    },
    /// Nothing: the segment ends here.
    End,
    /// The beginning of a frame whose rest was never written.
    Torn,
    /// Anything else.
    Broken(&'static str),
}

/// A frame around a payload, and its hash.
#[must_use]
pub fn seal(previous: &Hash, payload: &[u8]) -> (Vec<u8>, Hash) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let hash = hash_of(&length, previous, payload);
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&check_of(&length, previous));
    frame.extend_from_slice(previous);
    frame.extend_from_slice(&hash);
    frame.extend_from_slice(payload);
    (frame, hash)
}

/// What stands at `at`. With `previous`, the frame must follow that one.
#[must_use]
pub fn read<'a>(segment: &'a [u8], at: usize, previous: Option<&Hash>) -> Found<'a> {
    let rest = segment.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Found::End;
    }
    // A power cut can leave blocks that were never filled.
    if rest.iter().all(|b| *b == 0) {
        return Found::Torn;
    }
    let Some((header, body)) = rest.split_at_checked(HEADER_BYTES) else { return Found::Torn };
    let (length, check) = (array::<4>(header, 0), array::<4>(header, 4));
    let (before, hash) = (array::<32>(header, 8), array::<32>(header, 40));
    if check != check_of(&length, &before) {
        return Found::Broken("its length or its link to the record before was changed");
    }
    if previous.is_some_and(|p| *p != before) {
        return Found::Broken("it does not follow the record before it");
    }
    let length_bytes = u32::from_le_bytes(length) as usize;
    let Some(payload) = body.get(..length_bytes) else { return Found::Torn };
    if hash != hash_of(&length, &before, payload) {
        let unfilled = payload.last() == Some(&0) && body.len() == length_bytes;
        return if unfilled { Found::Torn } else { Found::Broken("its content was changed") };
    }
    Found::Frame { payload, previous: before, hash, next: at + HEADER_BYTES + length_bytes }
}

/// A hash in hexadecimal.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok());
        text
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

fn check_of(length: &[u8; 4], previous: &Hash) -> [u8; 4] {
    let digest: Hash =
        Sha256::new().chain_update(b"serin").chain_update(length).chain_update(previous).finalize().into();
    array(&digest, 0)
}

fn hash_of(length: &[u8; 4], previous: &Hash, payload: &[u8]) -> Hash {
    Sha256::new().chain_update(length).chain_update(previous).chain_update(payload).finalize().into()
}
