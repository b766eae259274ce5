//! Several replicas, one judge: what each of them knew is put in order and told as if one process had seen it all.
//!
//! The judge's sums add up because its facts do: a stratum of the fleet is made of the exposures of all replicas, slot by
//! slot, whoever took the request. A replica sends what became known since its last tick; the fleet's time goes on to what
//! every replica has sent, and waits for none longer than [`LATE`]. What comes within that joins its own stratum, in its own
//! order; what comes later is dropped and counted, and the judge holds for a minute as it does for any record lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::Mono;

use super::events::order;
use super::facts::Fact;

/// A replica's tick is waited for so long.
pub const LATE: Duration = Duration::from_secs(5);
/// Facts that wait for a slow replica: above it they go on without it. Five seconds of a fleet at 60,000 requests a second.
pub const MOST_HELD: usize = 1_000_000;
/// Replicas are told apart in the upper bits of an exchange's id, where no worker's number reaches.
const REPLICA_SHIFT: u32 = 56;

/// What one replica came to know since its last tick, on the fleet's clock.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tick {
    /// Which: its place in the fleet, not used again while exchanges of it are in flight.
    pub replica: u8,
    /// Everything that it knew by then is in this tick or one before.
    pub until: Mono,
    /// In any order.
    pub facts: Vec<Fact>,
}

/// Puts the ticks of a fleet in order. Pure: time is an argument.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    /// How far each replica has told.
    told: BTreeMap<u8, Mono>,
    waiting: Vec<Fact>,
    /// The fleet's time: what became known by then has been handed on.
    until: Mono,
    late: u64,
}

impl Merge {
    /// A replica joins: from `at` on it is waited for.
    pub fn join(&mut self, replica: u8, at: Mono) {
        self.told.insert(replica, at);
    }

    /// A replica is gone: nobody waits for it.
    pub fn leave(&mut self, replica: u8) {
        self.told.remove(&replica);
    }

    /// Takes a tick in. Returns how many of its facts came too late and were dropped.
    pub fn take(&mut self, tick: Tick) -> u64 {
        let told = self.told.entry(tick.replica).or_insert(tick.until);
        *told = (*told).max(tick.until);
        let before = self.waiting.len();
        let all = tick.facts.len();
        let until = self.until;
        // Before anything was handed on nothing is late, not even what became known at the very start.
        let in_time = |fact: &Fact| fact.known() > until || until == Mono(0);
        let own = u64::from(tick.replica) << REPLICA_SHIFT;
        self.waiting.extend(tick.facts.into_iter().filter(in_time).map(|fact| named(fact, own)));
        let late = (all - (self.waiting.len() - before)) as u64;
        self.late += late;
        late
    }

    /// Hands on what became known by the fleet's new time, and that time: the judge's next tick. It is what every replica
    /// has told, or five seconds ago.
    pub fn go_on(&mut self, now: Mono) -> (Vec<Fact>, Mono) {
        let slowest = self.told.values().copied().min().unwrap_or(now);
        let patience = Mono(now.0.saturating_sub(LATE.as_nanos() as u64));
        let all = self.waiting.len() >= MOST_HELD;
        let until = if all { now } else { slowest.max(patience).min(now) };
        self.until = self.until.max(until);
        self.waiting.sort_unstable_by_key(order);
        let ready = self.waiting.partition_point(|fact| fact.known() <= self.until);
        (self.waiting.drain(..ready).collect(), self.until)
    }

    /// Facts that came too late, ever.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }
}

/// The fact with its exchange named apart from those of other replicas.
fn named(mut fact: Fact, own: u64) -> Fact {
    match &mut fact {
        Fact::Start { id, .. } | Fact::FirstByte { id, .. } | Fact::End { id, .. } => *id ^= own,
        Fact::Score { .. } | Fact::Query { .. } => {}
    }
    fact
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_byte(id: u64, at: f64) -> Fact {
        Fact::FirstByte { id, at: Mono::from_seconds(at) }
    }

    fn tick(replica: u8, until: f64, facts: &[Fact]) -> Tick {
        Tick { replica, until: Mono::from_seconds(until), facts: facts.to_vec() }
    }

    #[test]
    fn the_fleet_goes_on_with_its_slowest_replica_and_without_one_that_is_five_seconds_late() {
        let mut merge = Merge::default();
        merge.join(0, Mono::from_seconds(0.0));
        merge.join(1, Mono::from_seconds(0.0));
        merge.take(tick(0, 2.0, &[first_byte(1, 1.5), first_byte(2, 0.5)]));
        let (facts, until) = merge.go_on(Mono::from_seconds(2.0));
        assert!(facts.is_empty() && until == Mono(0), "the other has told nothing yet");
        merge.take(tick(1, 1.0, &[first_byte(1, 0.7)]));
        let (facts, until) = merge.go_on(Mono::from_seconds(2.0));
        let own = 1 << REPLICA_SHIFT;
        assert_eq!(facts, [first_byte(2, 0.5), first_byte(1 ^ own, 0.7)]);
        assert_eq!(until, Mono::from_seconds(1.0));
        let (facts, until) = merge.go_on(Mono::from_seconds(8.0));
        assert_eq!((facts, until), (vec![first_byte(1, 1.5)], Mono::from_seconds(3.0)));
        assert_eq!(merge.take(tick(1, 4.0, &[first_byte(3, 2.9), first_byte(4, 3.1)])), 1);
        assert_eq!(merge.late(), 1);
        merge.leave(1);
        merge.leave(0);
        let (facts, _) = merge.go_on(Mono::from_seconds(9.0));
        assert_eq!(facts, [first_byte(4 ^ own, 3.1)]);
    }
}
