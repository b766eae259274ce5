//! What each user is expected to do, from stable's history; and who was counted as failing a moment ago.

use std::collections::BTreeMap;

use crate::stats::cluster::{self, SLOTS, Slots};

/// Length of the steps in which stable's rate is taken for the expectation: shorter than an incident, so that it is
/// expected of everybody.
const STEP_NS: u64 = 5_000_000_000;
/// A failure this soon after the same user's last counted one is a repeat: clients retry.
pub(super) const REPEAT_NS: u64 = 10_000_000_000;

/// The slot of a user: low bits of a keyed hash.
pub(super) fn slot(user: u64) -> u16 {
    (user % SLOTS as u64) as u16
}

/// Stable's history of one rule: each slot's bad events and how many were to be expected.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct History {
    /// Bad, expected.
    slots: Slots<2>,
    step: Vec<(u16, bool)>,
    since: u64,
    exposures: f64,
    bad: f64,
}

impl History {
    /// One exposure of stable.
    pub(super) fn add(&mut self, slot: u16, bad: bool) {
        self.step.push((slot, bad));
    }

    /// Closes the step when it is long enough.
    pub(super) fn tick(&mut self, now: u64) {
        if now.saturating_sub(self.since) >= STEP_NS {
            self.close(now);
        }
    }

    fn close(&mut self, now: u64) {
        self.since = now;
        if self.step.is_empty() {
            return;
        }
        let bad = self.step.iter().filter(|event| event.1).count() as f64;
        let rate = (bad / self.step.len() as f64) as f32;
        self.exposures += self.step.len() as f64;
        self.bad += bad;
        self.step.sort_unstable();
        let events: Vec<(u16, [f32; 2])> =
            self.step.drain(..).map(|(slot, bad)| (slot, [f32::from(u8::from(bad)), rate])).collect();
        self.slots.add(&events);
    }

    /// The offsets that this history gives, from now on fixed for a stage.
    pub(super) fn freeze(&mut self, now: u64) -> Offsets {
        self.close(now);
        let share = if self.exposures > 0.0 { self.bad / self.exposures } else { 0.0 };
        let (mut deviation, mut variance, mut squared) = (0.0, 0.0, 0.0);
        for (_, [bad, expected]) in self.slots.iter() {
            let (bad, expected) = (f64::from(*bad), f64::from(*expected));
            deviation += (bad - expected).powi(2);
            variance += expected * (1.0 - share);
            squared += expected * expected;
        }
        let kappa = cluster::shrinkage(deviation, variance, squared);
        // What is typical of a user: the mean weighted by what each one's history is worth (Bühlmann and Straub 1970), not by
        // exposures, which a whale dominates. Light users and new ones are then not expected to do as the whale did, who
        // may be in the other arm now. ONE keeps it near 1 while next to nothing is known.
        const ONE: f64 = 1.0;
        let (mut seen, mut awaited) = (ONE, ONE);
        for (_, [bad, expected]) in self.slots.iter() {
            seen += f64::from(*bad) / (kappa + f64::from(*expected));
            awaited += f64::from(*expected) / (kappa + f64::from(*expected));
        }
        let typical = (seen / awaited).clamp(0.1, 3.0);
        let offset = |bad: f32, expected: f32| {
            // κ times the typical user's rate stands in for history; `offset` adds κ times 1 itself.
            cluster::offset(f64::from(bad) + kappa * (typical - 1.0), f64::from(expected), kappa) as f32
        };
        let offsets: Vec<(u16, [f32; 1])> =
            self.slots.iter().map(|(slot, [bad, expected])| (*slot, [offset(*bad, *expected)])).collect();
        let mut slots = Slots::default();
        slots.add(&offsets);
        Offsets { slots, typical: typical as f32 }
    }
}

/// How much more often than the average each user meets bad events; as the typical user where nothing is known.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Offsets {
    slots: Slots<1>,
    typical: f32,
}

impl Default for Offsets {
    fn default() -> Self {
        Self { slots: Slots::default(), typical: 1.0 }
    }
}

impl Offsets {
    /// The offset ρ of a slot.
    pub(super) fn of(&self, slot: u16) -> f64 {
        f64::from(self.slots.get(slot).map_or(self.typical, |[rho]| rho))
    }
}

/// Users' last counted failures. Keyed by user, not slot: in a shared incident stable's many users would meet in slots,
/// and be counted less than the canary's few.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Repeats {
    last: BTreeMap<u64, u64>,
    swept: u64,
}

impl Repeats {
    /// Whether a failure of `user` at `at` counts; it then is the last counted one.
    pub(super) fn counts(&mut self, user: u64, at: u64) -> bool {
        match self.last.get(&user) {
            Some(last) if at < last.saturating_add(REPEAT_NS) => false,
            _ => {
                self.last.insert(user, at);
                true
            }
        }
    }

    /// Forgets what can repeat no more.
    pub(super) fn tick(&mut self, now: u64) {
        if now.saturating_sub(self.swept) >= REPEAT_NS {
            self.swept = now;
            self.last.retain(|_, last| now < last.saturating_add(REPEAT_NS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_storm_is_counted_once_in_ten_seconds() {
        let mut repeats = Repeats::default();
        let counted = (0..80).filter(|i| repeats.counts(7, i * 500_000_000)).count();
        assert_eq!(counted, 4);
        assert!(repeats.counts(8, 0));
        repeats.tick(100_000_000_000);
        assert!(repeats.last.is_empty());
    }

    #[test]
    fn a_shared_incident_is_no_user_s_own() {
        let mut history = History::default();
        for step in 1..=200u64 {
            let incident = (50..60).contains(&step);
            for user in 0..20u16 {
                history.add(user, incident || (user == 3 && step % 2 == 0));
            }
            history.tick(step * STEP_NS);
        }
        let offsets = history.freeze(201 * STEP_NS);
        assert!(offsets.of(3) > 4.0, "{}", offsets.of(3));
        assert!(offsets.of(4) < 1.0 && offsets.of(4) > 0.3, "{}", offsets.of(4));
        assert!(offsets.of(4_000) > 0.6 && offsets.of(4_000) < 1.1, "{}", offsets.of(4_000));
    }

    #[test]
    fn light_users_are_not_expected_to_do_as_a_whale_did() {
        let mut history = History::default();
        for step in 1..=400u64 {
            // The whale has a fifth of the traffic and nine tenths of the bad events; 500 users share the rest.
            for i in 0..10u64 {
                history.add(9_000, i < 5 && step % 4 == 0);
            }
            for i in 0..40u64 {
                history.add(((step * 40 + i) % 500) as u16, i == 0 && step % 8 == 0);
            }
            history.tick(step * STEP_NS);
        }
        let offsets = history.freeze(401 * STEP_NS);
        let light: f64 = (0..500).map(|slot| offsets.of(slot)).sum::<f64>() / 500.0;
        assert!(light < 0.3, "on average {light}, where 0.11 is true and shrinking to 1 gives about 0.6");
        assert!(offsets.of(7_000) < 0.4, "{}", offsets.of(7_000));
        assert!(offsets.of(9_000) > 3.0, "{}", offsets.of(9_000));
    }
}
