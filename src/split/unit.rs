//! What is assigned: a unit's identity as two keyed hashes, never its text.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A user, session or tenant on its way through one request. Borrowed: the text stays in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'a>(&'a [u8]);

impl<'a> Unit<'a> {
    /// A unit of these bytes; empty text is no unit.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self(text)) }
    }

    /// The hash that the bucket is taken from: `xxh3_64(unit, seed)`.
    #[must_use]
    pub fn hash(self, seed: Seed) -> u64 {
        xxh3_64_with_seed(self.0, seed.0)
    }

    /// The key under which statistics know this unit: another seed of the same secret, so that it says nothing
    /// about the bucket. Never 0, which stands for "unidentified".
    #[must_use]
    pub fn key(self, seed: Seed) -> UnitKey {
        UnitKey(xxh3_64_with_seed(self.0, seed.0).max(1))
    }
}

/// A unit's name inside statistics and traces: a keyed hash. 0 is "unidentified".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnitKey(pub u64);

/// A 64-bit seed for xxh3. Secret where the installation has a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The seed of one release: mixes the installation's secret (or the rollout's `salt`), the rollout's name and the
    /// canary's version, so that every release draws new people and nobody without the secret can compute an arm.
    /// SHA-256 over length-prefixed parts, first eight bytes.
    #[must_use]
    pub fn derive(secret: &[u8], purpose: &str, rollout: &str, version: &str) -> Self {
        use sha2::{Digest, Sha256};
        let mut digest = Sha256::new();
        for part in [secret, purpose.as_bytes(), rollout.as_bytes(), version.as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let out = digest.finalize();
        let mut first = [0u8; 8];
        for (to, from) in first.iter_mut().zip(out.iter()) {
            *to = *from;
        }
        Self(u64::from_be_bytes(first))
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}
