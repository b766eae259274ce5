//! What each user is expected to do, from stable's history; and who was counted as failing a moment ago.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::stats::cluster::{self, SLOTS};

use super::table::{Column, Row, Table};

/// Length of the steps in which stable's rate is taken for the expectation: shorter than an incident, so that it is
/// expected of everybody.
const STEP_NS: u64 = 5_000_000_000;
/// A failure this soon after the same user's last counted one is a repeat: clients retry.
pub(super) const REPEAT_NS: u64 = 10_000_000_000;

/// The slot of a user: low bits of a keyed hash.
pub(super) fn slot(user: u64) -> u16 {
    (user % SLOTS as u64) as u16
}

/// What is known of stable's users, for all rules of a rollout.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Users {
    /// Stable's history. Of shares: bad events, how many were to be expected, and how many were beyond the rollback margin too.
    /// Of means: scores, Σ (score − mean), and nothing.
    history: Table<3>,
    since: u64,
    offsets: Arc<Frozen>,
}

impl Users {
    /// Of whom nothing is known.
    pub(super) fn new(rules: usize) -> Self {
        let offsets = Frozen { table: Table::new(rules), typical: vec![1.0; rules] };
        Self { history: Table::new(rules), since: 0, offsets: Arc::new(offsets) }
    }

    /// Whether it is of so many rules: what a checkpoint says may be anything.
    pub(super) fn is_of(&self, rules: usize) -> bool {
        let offsets = &self.offsets;
        [self.history.columns(), offsets.table.columns(), offsets.typical.len()].iter().all(|of| *of == rules)
    }

    /// Closes the step of all rules when it is long enough.
    pub(super) fn tick<'a>(&mut self, now: u64, rules: impl Iterator<Item = &'a mut History>) {
        if now.saturating_sub(self.since) >= STEP_NS {
            self.close(now, rules);
        }
    }

    /// Closes the step of all rules.
    pub(super) fn close<'a>(&mut self, now: u64, rules: impl Iterator<Item = &'a mut History>) {
        self.since = now;
        for (rule, history) in rules.enumerate() {
            history.close(self.history.column(rule));
        }
    }

    /// One rule's history, to add to.
    pub(super) fn history(&mut self, rule: usize) -> Column<'_, 3> {
        self.history.column(rule)
    }

    /// Fixes the offsets of all rules for a stage: what is `expected` of the users of a rule's history.
    pub(super) fn freeze(&mut self, expected: impl Fn(usize, &[(u16, [f32; 3])]) -> Expected) {
        let rules = self.history.columns();
        let mut frozen = Frozen { table: Table::like(&self.history), typical: Vec::with_capacity(rules) };
        for rule in 0..rules {
            let users: Vec<(u16, [f32; 3])> = self.history.touched(rule).collect();
            let Expected { of_users, typical } = expected(rule, &users);
            frozen.typical.push(typical);
            frozen.table.fill(rule, [typical; 2]);
            for (slot, offsets) in of_users {
                if let Some(cell) = frozen.table.cell(slot, rule) {
                    *cell = offsets;
                }
            }
        }
        self.offsets = Arc::new(frozen);
    }

    /// One rule's offsets.
    pub(super) fn offsets(&self, rule: usize) -> Offsets {
        Offsets { all: Arc::clone(&self.offsets), rule }
    }

    /// Where the offsets of a slot are, of all rules.
    pub(super) fn row(&self, slot: u16) -> Row {
        self.offsets.table.row(slot)
    }
}

/// What is to be expected of users of whom something is known, by slot; and of all others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) of_users: Vec<(u16, [f32; 2])>,
    pub(super) typical: f32,
}

/// Stable's history of one rate or quantile: what came in this step, and the sums of all users.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct History {
    step: Vec<(u16, bool)>,
    far: Vec<u16>,
    exposures: f64,
    bad: f64,
    beyond: f64,
}

impl History {
    /// One exposure of stable.
    pub(super) fn add(&mut self, slot: u16, bad: bool) {
        self.step.push((slot, bad));
    }

    /// One of stable's bad events was beyond the rollback margin too.
    pub(super) fn add_far(&mut self, slot: u16) {
        self.far.push(slot);
    }

    fn close(&mut self, mut users: Column<'_, 3>) {
        if self.step.is_empty() && self.far.is_empty() {
            return;
        }
        let bad = self.step.iter().filter(|event| event.1).count() as f64;
        let rate = (bad / self.step.len().max(1) as f64) as f32;
        self.exposures += self.step.len() as f64;
        self.bad += bad;
        self.beyond += self.far.len() as f64;
        self.step.sort_unstable();
        for of_slot in self.step.chunk_by(|a, b| a.0 == b.0) {
            let bad = of_slot.iter().filter(|event| event.1).count();
            users.add(of_slot[0].0, [bad as f32, rate * of_slot.len() as f32, 0.0]);
        }
        self.step.clear();
        for slot in self.far.drain(..) {
            users.add(slot, [0.0, 0.0, 1.0]);
        }
    }

    /// The offsets that this history gives.
    pub(super) fn expected(&self, users: &[(u16, [f32; 3])]) -> Expected {
        let share = if self.exposures > 0.0 { self.bad / self.exposures } else { 0.0 };
        let users = || users.iter().map(|(slot, sums)| (*slot, sums.map(f64::from)));
        let kappa = kappa(users().map(|(_, [bad, expected, _])| (bad, expected)), share);
        // What is typical of a user: the mean weighted by what each one's history is worth (Bühlmann and Straub 1970), not by
        // exposures, which a whale dominates. Light users and new ones are then not expected to do as the whale did, who
        // may be in the other arm now. ONE keeps it near 1 while next to nothing is known.
        const ONE: f64 = 1.0;
        let (mut seen, mut awaited) = (ONE, ONE);
        for (_, [bad, expected, _]) in users() {
            seen += bad / (kappa + expected);
            awaited += expected / (kappa + expected);
        }
        let typical = (seen / awaited).clamp(0.1, 3.0);
        // κ times the typical user's rate stands in for history; `offset` adds κ times 1 itself.
        let near = |bad: f64, expected: f64| cluster::offset(bad + kappa * (typical - 1.0), expected, kappa);
        // Beyond the rollback margin a user is expected as often as his offset says, until his own history says otherwise.
        let awaited: f64 = users().map(|(_, [bad, expected, _])| near(bad, expected) * expected).sum();
        let kept = if awaited > 0.0 { self.beyond / awaited } else { 0.0 };
        let share = if self.exposures > 0.0 { self.beyond / self.exposures } else { 0.0 };
        let far = |[bad, expected, far]: [f64; 3]| (far, kept * near(bad, expected) * expected);
        let kappa = self::kappa(users().map(|(_, sums)| far(sums)), share);
        let offsets = users().map(|(slot, sums)| {
            let rho = near(sums[0], sums[1]);
            let (far, expected) = far(sums);
            (slot, [rho as f32, (rho * cluster::offset(far, expected, kappa)) as f32])
        });
        Expected { of_users: offsets.collect(), typical: typical as f32 }
    }
}

/// How much history is worth half of the truth about a user: from how far users' bad events lie from what was to be expected of them.
fn kappa(users: impl Iterator<Item = (f64, f64)>, share: f64) -> f64 {
    let (mut deviation, mut variance, mut squared) = (0.0, 0.0, 0.0);
    for (bad, expected) in users {
        deviation += (bad - expected).powi(2);
        variance += expected * (1.0 - share);
        squared += expected * expected;
    }
    cluster::shrinkage(deviation, variance, squared)
}

/// The offsets of all rules, fixed for a stage.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Frozen {
    /// Beyond stable's limit, and beyond the rollback margin.
    table: Table<2>,
    typical: Vec<f32>,
}

/// How much more often than the average each user meets bad events; as the typical user where nothing is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    all: Arc<Frozen>,
    rule: usize,
}

impl Offsets {
    /// The offset ρ of a slot.
    pub(super) fn of(&self, slot: u16) -> f64 {
        self.both(slot)[0]
    }

    /// The offset ρ of a slot, and what it is beyond the rollback margin: a slow user is slower than his fellows by a
    /// factor, and is found beyond a far limit more often still than beyond a near one.
    pub(super) fn both(&self, slot: u16) -> [f64; 2] {
        self.at(self.all.table.row(slot))
    }

    /// The same, where the row is known: [`Users::row`].
    pub(super) fn at(&self, row: Row) -> [f64; 2] {
        self.kept_at(row).map(f64::from)
    }

    /// The same of a slot, as it is kept.
    pub(super) fn kept(&self, slot: u16) -> [f32; 2] {
        self.kept_at(self.all.table.row(slot))
    }

    fn kept_at(&self, row: Row) -> [f32; 2] {
        let typical = || [self.all.typical.get(self.rule).copied().unwrap_or(1.0); 2];
        self.all.table.get(row, self.rule).copied().unwrap_or_else(typical)
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

/// The history of one rule alone.
#[cfg(test)]
pub(super) struct Alone {
    users: Users,
    history: History,
}

#[cfg(test)]
impl Default for Alone {
    fn default() -> Self {
        Self { users: Users::new(1), history: History::default() }
    }
}

#[cfg(test)]
impl Alone {
    pub(super) fn add(&mut self, slot: u16, bad: bool) {
        self.history.add(slot, bad);
    }

    pub(super) fn add_far(&mut self, slot: u16) {
        self.history.add_far(slot);
    }

    pub(super) fn tick(&mut self, now: u64) {
        self.users.tick(now, std::iter::once(&mut self.history));
    }

    pub(super) fn freeze(&mut self, now: u64) -> Offsets {
        self.users.close(now, std::iter::once(&mut self.history));
        self.users.freeze(|_, users| self.history.expected(users));
        self.users.offsets(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Alone as History;
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
    fn who_is_often_beyond_the_far_limit_is_expected_there_and_nobody_else() {
        let mut history = History::default();
        for step in 1..=400u64 {
            for user in 0..20u16 {
                let bad = (step + u64::from(user)) % 5 == 0;
                history.add(user, bad);
                // All are slow alike; of one user all slow answers are very slow, of the others a fifth.
                if bad && (user == 3 || step % 25 < 5) {
                    history.add_far(user);
                }
            }
            history.tick(step * STEP_NS);
        }
        let offsets = history.freeze(401 * STEP_NS);
        let [near, far] = offsets.both(3);
        assert!((near - 1.0).abs() < 0.1 && far > 3.0, "{near} {far}");
        let [near, far] = offsets.both(4);
        assert!((near - 1.0).abs() < 0.1 && (0.6..1.0).contains(&far), "{near} {far}");
        let [near, far] = offsets.both(400);
        assert_eq!(near, far, "of whom nothing is known");
    }

    #[test]
    fn light_users_are_not_expected_to_do_as_a_whale_did() {
        let mut history = History::default();
        for step in 1..=400u64 {
            // The whale has a fifth of the traffic and nine tenths of the bad events; 500 users share the rest.
            for i in 0..10u64 {
                history.add(8_000, i < 5 && step % 4 == 0);
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
        assert!(offsets.of(8_000) > 3.0, "{}", offsets.of(8_000));
    }
}
