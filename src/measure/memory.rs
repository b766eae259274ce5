//! What feedback can still be matched to: request ids and units as keyed hashes, for a day, bounded.
//!
//! Both are set-associative tables (eight ways): the place of a hash is its set, a full set gives up its oldest. That costs
//! two cache misses an exchange on the guard's thread. A table begins small and doubles as it fills, so that it takes memory
//! only as far as it is used. An id is forgotten early only where eight younger ones fell into its set; that is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::reference::Release;
use super::ring::Record;
use crate::judge::Fact;
use crate::names::{Arm, Mono};

/// How long an exchange is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// Scores remembered as taken, where fewer exchanges are.
const TAKEN_LEAST: usize = 1 << 16;
/// Entries of a set.
const WAYS: usize = 8;
/// A table with fewer entries than one in so many places does not grow.
const SPARSE: usize = 16;
/// Sets of a fresh table.
const SETS_FIRST: usize = 128;

/// A hash, what is known of it, and when: all that a place holds. The first number is 0 where it is empty.
type Entry = [u64; 4];

/// An exchange that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its rollout and canary version.
    pub release: Release,
    /// The arm that is charged or credited.
    pub arm: Arm,
    /// Placed by chance.
    pub drawn: bool,
    /// The unit's key in statistics; 0 is unidentified.
    pub user: u64,
    /// Arrival of the request.
    pub arrived: Mono,
}

/// A bounded table of hashes.
#[derive(Debug)]
struct Table {
    entries: Vec<Entry>,
    /// A power of two, or 0.
    sets: usize,
    sets_most: usize,
    used: usize,
}

impl Table {
    fn new(most: usize) -> Self {
        let sets_most = if most == 0 { 0 } else { most.div_ceil(WAYS).next_power_of_two() };
        let sets = sets_most.min(SETS_FIRST);
        Self { entries: vec![[0; 4]; sets * WAYS], sets, sets_most, used: 0 }
    }

    fn set(&mut self, hash: u64) -> &mut [Entry] {
        let at = if self.sets == 0 { 0 } else { (hash >> 20) as usize & (self.sets - 1) };
        self.entries.get_mut(at * WAYS..(at + 1) * WAYS).unwrap_or_default()
    }

    fn find(&mut self, hash: u64) -> Option<&mut Entry> {
        self.set(hash).iter_mut().find(|entry| entry[0] == hash)
    }

    /// The place of a hash, which is to be filled: its own, an empty one, or that of its set's oldest where the table may not
    /// grow any more. Entries keep their time in `[3]`.
    fn place(&mut self, hash: u64) -> Option<&mut Entry> {
        loop {
            let set = self.set(hash);
            let free = || set.iter().position(|entry| entry[0] == 0);
            if let Some(at) = set.iter().position(|entry| entry[0] == hash).or_else(free) {
                self.used += usize::from(set[at][0] == 0);
                return self.set(hash).get_mut(at);
            }
            // Hashes that fall into one set of an empty table are no reason to double it.
            if self.sets == self.sets_most || self.used * SPARSE < self.entries.len() {
                return self.set(hash).iter_mut().min_by_key(|entry| entry[3]);
            }
            self.double();
        }
    }

    /// Each set becomes two.
    fn double(&mut self) {
        let old = std::mem::take(&mut self.entries);
        self.sets *= 2;
        // Written here and now, page after page: pages of zeros that are first read cost a second fault each.
        self.entries.reserve_exact(self.sets * WAYS);
        self.entries.resize(self.sets * WAYS, [0; 4]);
        for entry in old.into_iter().filter(|entry| entry[0] != 0) {
            if let Some(empty) = self.set(entry[0]).iter_mut().find(|place| place[0] == 0) {
                *empty = entry;
            }
        }
    }
}

/// Exchanges and units of the last day.
#[derive(Debug)]
pub struct Memory {
    /// Request id, release and arm, unit, arrival.
    ids: Table,
    /// Unit and release, arm now and before, since when it has this arm, last arrival.
    units: Table,
    /// Scores that were taken, so that none counts twice.
    taken: Table,
    forgotten: u64,
}

/// The memory as the guard writes and the admin side reads it.
#[derive(Clone, Debug)]
pub struct SharedMemory(Arc<Mutex<Memory>>);

impl SharedMemory {
    /// Of `most` exchanges and as many units.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Memory::new(most))))
    }

    /// The memory, for a moment: the guard waits for whoever holds it.
    pub fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Of `most` exchanges and as many units; 0 remembers nothing.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { ids: Table::new(most), units: Table::new(most), taken: Table::new(most.max(TAKEN_LEAST)), forgotten: 0 }
    }

    /// Whether exchanges and units are remembered at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.ids.sets > 0
    }

    /// Takes in the starts among these records. `release` knows a slot's release.
    pub fn take_in(&mut self, records: &[Record], release: impl Fn(u32) -> Option<Release>) {
        if !self.is_on() {
            return;
        }
        for record in records {
            let Fact::Start { at, arm, user, drawn, .. } = record.fact else { continue };
            let Some(release) = release(record.rollout) else { continue };
            let seen = Seen { release, arm, drawn, user, arrived: at };
            if record.request != 0 {
                self.remember(record.request, &seen);
            }
            if user != 0 {
                self.served(&seen);
            }
        }
    }

    fn remember(&mut self, id: u64, seen: &Seen) {
        let Some(place) = self.ids.place(id) else { return };
        if place[0] != 0 && place[0] != id && seen.arrived.since(Mono(place[3])) < REMEMBERED {
            self.forgotten += 1;
        }
        *place = [id, pack(seen), seen.user, seen.arrived.0];
    }

    fn served(&mut self, seen: &Seen) {
        let hash = unit(seen.user, seen.release);
        let Some(place) = self.units.place(hash) else { return };
        let arm = pack(seen) & 0xff;
        let [known, arms, since, last] = *place;
        *place = if known != hash {
            [hash, arm, seen.arrived.0, seen.arrived.0]
        } else if arms & 0xff == arm {
            [hash, arms, since, last.max(seen.arrived.0)]
        } else {
            // The arm changed (a weight rose, a latch fell): the one before is kept beside it.
            [hash, arm | (arms & 0xff) << 8 | 1 << 16, seen.arrived.0, seen.arrived.0]
        };
    }

    /// The exchange of this request id, as [`super::reference::References::id`] hashes it; `None` when it is unknown or
    /// more than a day old.
    #[must_use]
    pub fn find(&mut self, id: u64, now: Mono) -> Option<Seen> {
        let [_, packed, user, arrived] = *self.ids.find(id)?;
        let seen = unpack(packed, user, Mono(arrived))?;
        (now.since(seen.arrived) <= REMEMBERED).then_some(seen)
    }

    /// The arm that a unit had at `at`; `None` when it was not served in the day before, or that is forgotten.
    #[must_use]
    pub fn arm_of(&mut self, user: u64, release: Release, at: Mono) -> Option<(Arm, bool)> {
        let [_, arms, since, last] = *self.units.find(unit(user, release))?;
        let code = if at >= Mono(since) {
            arms & 0xff
        } else if arms & 1 << 16 != 0 {
            arms >> 8 & 0xff
        } else {
            return None;
        };
        let seen = unpack(code, user, Mono(last))?;
        (at.since(Mono(last)) <= REMEMBERED).then_some((seen.arm, seen.drawn))
    }

    /// Whether this is the first time in a day that a score of this hash comes; it is taken from now on.
    pub fn take(&mut self, hash: u64, now: Mono) -> bool {
        let Some(place) = self.taken.place(hash) else { return true };
        let again = place[0] == hash && now.since(Mono(place[3])) < REMEMBERED;
        if !again {
            *place = [hash, 0, 0, now.0];
        }
        !again
    }

    /// The score of this hash was not taken after all.
    pub fn give_back(&mut self, hash: u64) {
        if let Some(entry) = self.taken.find(hash) {
            *entry = [0; 4];
        }
    }

    /// Exchanges of the last day that had to make room for younger ones.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Release and unit in one hash, so that a unit of two rollouts is two units.
fn unit(user: u64, release: Release) -> u64 {
    let mixed =
        (user ^ u64::from(release.number()).wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 31)).max(1)
}

fn pack(seen: &Seen) -> u64 {
    u64::from(seen.release.number()) << 32 | (seen.arm.index() as u64) << 1 | u64::from(seen.drawn)
}

fn unpack(packed: u64, user: u64, arrived: Mono) -> Option<Seen> {
    Some(Seen {
        release: Release::from_number((packed >> 32) as u32),
        arm: Arm::ALL.get((packed >> 1 & 3) as usize).copied()?,
        drawn: packed & 1 == 1,
        user,
        arrived,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: Release = Release::from_number(77);

    fn start(request: u64, user: u64, arm: Arm, at: u64) -> Record {
        Record { rollout: 0, request, fact: Fact::Start { id: request, at: Mono(at), arm, user, drawn: true } }
    }

    fn of(most: usize, records: &[Record]) -> Memory {
        let mut memory = Memory::new(most);
        memory.take_in(records, |slot| (slot == 0).then_some(RELEASE));
        memory
    }

    #[test]
    fn an_exchange_is_found_by_its_id_for_a_day_and_no_longer() {
        let mut memory = of(100, &[start(5, 9, Arm::Canary, 1_000)]);
        let seen = Seen { release: RELEASE, arm: Arm::Canary, drawn: true, user: 9, arrived: Mono(1_000) };
        assert_eq!(memory.find(5, Mono(2_000)), Some(seen));
        assert_eq!(memory.find(6, Mono(2_000)), None);
        assert_eq!(memory.find(5, Mono(1_000).plus(REMEMBERED)), Some(seen));
        assert_eq!(memory.find(5, Mono(1_001).plus(REMEMBERED)), None);
    }

    #[test]
    fn a_full_memory_forgets_the_oldest_and_counts() {
        let hash = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1);
        let records: Vec<_> = (1..=10_000).map(|n| start(hash(n), 0, Arm::Stable, n)).collect();
        let mut memory = of(1_024, &records);
        let kept: Vec<u64> = (1..=10_000).filter(|n| memory.find(hash(*n), Mono(10_000)).is_some()).collect();
        assert_eq!(kept.len(), 1_024, "every place is used");
        assert_eq!(memory.forgotten(), 10_000 - 1_024);
        assert!(kept.iter().filter(|n| **n > 9_500).count() >= 450, "the youngest are kept");
        assert!(kept.iter().all(|n| *n > 7_000), "the oldest are gone: {:?}", kept.first());
    }

    #[test]
    fn a_unit_has_the_arm_that_it_had_then() {
        let mut memory = of(
            100,
            &[
                start(0, 9, Arm::Canary, 1_000),
                start(0, 9, Arm::Canary, 2_000),
                start(0, 9, Arm::Stable, 5_000),
                start(0, 9, Arm::Stable, 6_000),
            ],
        );
        let mut at = |at: u64| memory.arm_of(9, RELEASE, Mono(at)).map(|(arm, _)| arm);
        assert_eq!((at(1_500), at(4_999)), (Some(Arm::Canary), Some(Arm::Canary)));
        assert_eq!((at(5_000), at(9_000)), (Some(Arm::Stable), Some(Arm::Stable)));
        assert_eq!(memory.arm_of(8, RELEASE, Mono(9_000)), None);
        assert_eq!(memory.arm_of(9, Release::from_number(1), Mono(9_000)), None, "another release");
        assert_eq!(memory.arm_of(9, RELEASE, Mono(6_001).plus(REMEMBERED)), None, "too long ago");
    }

    #[test]
    fn before_its_first_request_nothing_is_known_of_a_unit() {
        let mut memory = of(100, &[start(0, 9, Arm::Canary, 1_000)]);
        assert_eq!(memory.arm_of(9, RELEASE, Mono(999)), None);
    }

    #[test]
    fn a_score_is_taken_once_a_day_unless_it_is_given_back() {
        let mut memory = Memory::new(0);
        assert!(memory.take(7, Mono(1)) && !memory.take(7, Mono(2)) && memory.take(8, Mono(2)));
        memory.give_back(7);
        assert!(memory.take(7, Mono(3)));
        assert!(memory.take(7, Mono(3).plus(REMEMBERED)), "a day later it is another one");
    }

    #[test]
    fn a_table_grows_as_it_fills_and_loses_nothing_by_it() {
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        let mut memory = Memory::new(1_000_000);
        assert_eq!(memory.ids.entries.len(), SETS_FIRST * WAYS, "an idle serin holds little");
        for n in 1..=20_000 {
            memory.take_in(&[start(hash(n), 0, Arm::Stable, n)], |_| Some(RELEASE));
        }
        assert!((1..=20_000).all(|n| memory.find(hash(n), Mono(20_000)).is_some()));
        assert!(memory.ids.entries.len() <= 131_072, "{}", memory.ids.entries.len());
    }

    #[test]
    fn a_memory_of_nothing_remembers_nothing() {
        let mut memory = of(0, &[start(5, 9, Arm::Canary, 1_000)]);
        assert_eq!((memory.find(5, Mono(1_000)), memory.arm_of(9, RELEASE, Mono(1_000))), (None, None));
    }
}
