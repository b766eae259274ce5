//! Maps and sets by exchange id: ids are numbers of ours, so one multiplication spreads them well enough.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by exchange id.
pub(super) type ById<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// A set of exchange ids.
pub(crate) type Ids = HashSet<u64, BuildHasherDefault<IdHasher>>;

/// Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4): nobody outside chooses the keys, so no
/// keyed hash is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The map takes its bucket from the low bits and its tag from the high ones: fold both in.
        let spread = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = spread ^ (spread >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_several_workers_do_not_meet_in_few_buckets() {
        let mut buckets = [0u32; 256];
        for worker in 0..4u64 {
            for n in 0..1_024u64 {
                let mut hasher = IdHasher::default();
                hasher.write_u64((worker << 48) | n);
                buckets[(hasher.finish() & 255) as usize] += 1;
            }
        }
        assert!(buckets.iter().all(|n| *n < 64), "16 in each by chance: {buckets:?}");
    }
}
