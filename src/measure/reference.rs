//! References by which feedback names an answer: the opaque `Serin-Ref`, and the keyed hash of a request id.
//!
//! A reference is 128 bits (time, arm, unit's key, release) sealed with AES-256-GCM-SIV (RFC 8452) under a key made of the
//! installation's secret, so that every replica can open it, nobody outside can make or read one, and nothing has to be
//! remembered. The nonce is fixed: GCM-SIV then is deterministic authenticated encryption, and the only thing that two
//! equal references tell is that they were equal, which time to the millisecond and the unit's key make rare.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::names::{Arm, Wall};

/// Bytes that are sealed.
const PLAIN: usize = 16;
/// Bytes of the authentication tag.
const TAG: usize = 16;
/// Letters of a reference: hexadecimal.
pub const REFERENCE_LENGTH: usize = 2 * (PLAIN + TAG);
/// Bits of a unit's key that a reference carries: enough for its slot in statistics and for limits by unit.
const USER_BITS: u32 = 56;
/// Bits of a release's number.
const RELEASE_BITS: u32 = 27;

/// What feedback must know of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which rollout and canary version.
    pub release: Release,
    /// The arm that is charged or credited.
    pub arm: Arm,
    /// Placed by chance.
    pub drawn: bool,
    /// The unit's key in statistics; 0 is unidentified.
    pub user: u64,
    /// Arrival of the request, to the millisecond.
    pub at: Wall,
}

/// The number of one rollout and canary version, the same on every replica and after every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Release(u32);

impl Release {
    /// Of these two names.
    #[must_use]
    pub fn new(rollout: &str, canary: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [rollout, canary] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let first = digest.finalize().iter().take(4).fold(0u32, |all, byte| (all << 8) | u32::from(*byte));
        Self(first >> (32 - RELEASE_BITS))
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// From [`Release::number`].
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// Seals and opens references, and hashes request ids. One for the process.
pub struct References {
    key: Option<LessSafeKey>,
    ids: u64,
}

impl std::fmt::Debug for References {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("References(…)")
    }
}

impl References {
    /// Under the secret of the store or the fleet. An empty secret would let anybody make references: give random bytes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let derived = |purpose: &str| {
            let mut digest = Sha256::new();
            digest.update((secret.len() as u64).to_be_bytes());
            digest.update(secret);
            digest.update(purpose);
            digest.finalize()
        };
        let ids = derived("request ids").iter().take(8).fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
        let key = UnboundKey::new(&AES_256_GCM_SIV, derived("references").as_slice()).ok().map(LessSafeKey::new);
        Self { key, ids }
    }

    /// The reference of an answer, as lower-case hexadecimal.
    #[must_use]
    pub fn seal(&self, mark: &Mark) -> Option<[u8; REFERENCE_LENGTH]> {
        let mut block = plain(mark).to_be_bytes();
        let tag = self.key.as_ref()?.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut block).ok()?;
        let mut text = [0u8; REFERENCE_LENGTH];
        for (two, byte) in text.chunks_exact_mut(2).zip(block.iter().chain(tag.as_ref())) {
            two.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Some(text)
    }

    /// What a reference says; `None` where it is none of ours.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<Mark> {
        let text = text.as_bytes();
        if text.len() != REFERENCE_LENGTH {
            return None;
        }
        let mut sealed = [0u8; PLAIN + TAG];
        for (byte, two) in sealed.iter_mut().zip(text.chunks_exact(2)) {
            *byte = (value(two[0])? << 4) | value(two[1])?;
        }
        let opened = self.key.as_ref()?.open_in_place(nonce(), Aad::empty(), &mut sealed).ok()?;
        mark(u128::from_be_bytes(opened.try_into().ok()?))
    }

    /// The key under which a request id is remembered; never 0.
    #[must_use]
    pub fn id(&self, request_id: &[u8]) -> u64 {
        xxh3_64_with_seed(request_id, self.ids).max(1)
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
}

const fn value(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

/// Time 42 bits, unit 56, release 27, arm 2, drawn 1.
fn plain(mark: &Mark) -> u128 {
    let at = u128::from(mark.at.0.max(0).unsigned_abs() & ((1 << 42) - 1));
    let user = u128::from(mark.user & ((1 << USER_BITS) - 1));
    let rest = (mark.release.0 << 3) | (mark.arm.index() as u32) << 1 | u32::from(mark.drawn);
    at << 86 | user << 30 | u128::from(rest)
}

fn mark(plain: u128) -> Option<Mark> {
    let rest = (plain & ((1 << 30) - 1)) as u32;
    Some(Mark {
        release: Release(rest >> 3),
        arm: Arm::ALL.get((rest >> 1 & 3) as usize).copied()?,
        drawn: rest & 1 == 1,
        user: (plain >> 30) as u64 & ((1 << USER_BITS) - 1),
        at: Wall((plain >> 86) as i64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(user: u64, at: i64) -> Mark {
        Mark { release: Release::new("chat", "b"), arm: Arm::Canary, drawn: true, user, at: Wall(at) }
    }

    #[test]
    fn a_reference_opens_on_another_replica_and_after_a_restart() {
        let (one, other) = (References::new(b"secret"), References::new(b"secret"));
        for arm in Arm::ALL {
            for (drawn, user) in [(true, u64::MAX), (false, 0), (true, 0x0123_4567_89ab_cdef)] {
                let mark = Mark { arm, drawn, ..some(user, 1_795_183_200_123) };
                let text = one.seal(&mark).unwrap();
                let back = other.open(std::str::from_utf8(&text).unwrap()).unwrap();
                assert_eq!(back, Mark { user: user & ((1 << USER_BITS) - 1), ..mark });
                assert_eq!(back.user % 8_192, user % 8_192, "the slot in statistics is kept");
            }
        }
    }

    #[test]
    fn a_reference_that_was_changed_or_made_elsewhere_does_not_open() {
        let references = References::new(b"secret");
        let text = references.seal(&some(7, 1_795_183_200_123)).unwrap();
        for at in 0..text.len() {
            let mut bent = text;
            bent[at] = if bent[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(references.open(std::str::from_utf8(&bent).unwrap()), None, "letter {at}");
        }
        assert_eq!(References::new(b"another").open(std::str::from_utf8(&text).unwrap()), None);
        for odd in ["", "zz", &"g".repeat(REFERENCE_LENGTH), &"0".repeat(REFERENCE_LENGTH), &"é".repeat(32)] {
            assert_eq!(references.open(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_reference_does_not_show_the_arm() {
        let references = References::new(b"secret");
        let canary = references.seal(&some(7, 1)).unwrap();
        let stable = references.seal(&Mark { arm: Arm::Stable, ..some(7, 1) }).unwrap();
        let same = canary.iter().zip(&stable).filter(|(a, b)| a == b).count();
        assert!(same < REFERENCE_LENGTH / 2, "one bit of the plain text changes all: {same} letters are alike");
    }

    #[test]
    fn releases_differ_by_rollout_and_by_version() {
        assert_eq!(Release::new("chat", "b"), Release::new("chat", "b"));
        assert_ne!(Release::new("chat", "b"), Release::new("chat", "c"));
        assert_ne!(Release::new("ab", "c"), Release::new("a", "bc"));
        assert!(Release::new("chat", "b").number() < 1 << RELEASE_BITS);
    }
}
