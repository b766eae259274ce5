//! Users are clusters: sparse sums by user slot, how many users traffic is worth, how much less than independent it is.

/// How many slots users hash to: enough that two heavy users seldom meet, few enough for dense tables.
pub const SLOTS: usize = 8_192;

/// Sums by slot, sorted by slot, only those touched. Addition is what merges workers, replicas and spans of time.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Slots<const N: usize> {
    #[serde(with = "cells")]
    cells: Vec<(u16, [f32; N])>,
}

impl<const N: usize> Slots<N> {
    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// How many slots were touched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Slots and their sums, by rising slot.
    pub fn iter(&self) -> impl Iterator<Item = &(u16, [f32; N])> {
        self.cells.iter()
    }

    /// A slot's sums, if it was touched.
    #[must_use]
    pub fn get(&self, slot: u16) -> Option<[f32; N]> {
        self.cells.binary_search_by_key(&slot, |cell| cell.0).ok().map(|index| self.cells[index].1)
    }

    /// Adds to slots in any order; the sums of a slot are added in the order given.
    pub fn add(&mut self, events: &[(u16, [f32; N])]) {
        if events.is_sorted_by_key(|event| event.0) {
            self.add_rising(events, plus);
        } else {
            let mut rising = events.to_vec();
            rising.sort_by_key(|event| event.0); // stable: a slot's events keep their order
            self.add_rising(&rising, plus);
        }
    }

    /// Adds to slots that do not fall, by `join` (sum so far, or zeros; what comes). What it costs is what comes, and the
    /// moving of what lies behind a slot touched for the first time: not a search through all slots for each.
    pub fn add_rising(&mut self, events: &[(u16, [f32; N])], mut join: impl FnMut(&mut [f32; N], &[f32; N])) {
        let mut fresh: Vec<(u16, [f32; N])> = Vec::new();
        let mut at = 0;
        for (slot, more) in events {
            at += steps_to(&self.cells[at..], *slot);
            match self.cells.get_mut(at) {
                Some(cell) if cell.0 == *slot => join(&mut cell.1, more),
                _ => {
                    if fresh.last().is_none_or(|cell| cell.0 != *slot) {
                        fresh.push((*slot, [0.0; N]));
                    }
                    if let Some(cell) = fresh.last_mut() {
                        join(&mut cell.1, more);
                    }
                }
            }
        }
        self.insert(&fresh);
    }

    /// Puts in slots that rise and are not there yet: one merge, from the back.
    fn insert(&mut self, fresh: &[(u16, [f32; N])]) {
        let (mut old, mut new) = (self.cells.len(), fresh.len());
        self.cells.extend_from_slice(fresh);
        while new > 0 {
            let to = old + new - 1;
            if old > 0 && self.cells[old - 1].0 > fresh[new - 1].0 {
                old -= 1;
                self.cells[to] = self.cells[old];
            } else {
                new -= 1;
                self.cells[to] = fresh[new];
            }
        }
    }

    /// Adds another's sums; `other` may be a mere list made by [`Slots::append`].
    pub fn merge(&mut self, other: &Slots<N>) {
        self.add(&other.cells);
    }

    /// The same, and leaves the other empty, with its memory.
    pub fn take_in(&mut self, other: &mut Slots<N>) {
        other.cells.sort_by_key(|cell| cell.0); // stable: a slot's events keep their order
        self.add_rising(&other.cells, plus);
        other.cells.clear();
    }

    /// The sums of a mere list.
    #[must_use]
    pub fn summed(&self) -> Self {
        let mut sum = Self::default();
        sum.merge(self);
        sum
    }

    /// Puts events at the end without sorting or summing them: only good for being merged into another later.
    pub fn append(&mut self, events: impl IntoIterator<Item = (u16, [f32; N])>) {
        self.cells.extend(events);
    }
}

/// How many slots were touched in any of these.
pub fn touched<'a, const N: usize>(parts: impl Iterator<Item = &'a Slots<N>>) -> usize {
    let mut seen = [0u64; SLOTS / 64];
    for (slot, _) in parts.flat_map(Slots::iter) {
        seen[usize::from(slot / 64) % seen.len()] |= 1 << (slot % 64);
    }
    seen.iter().map(|slots| slots.count_ones() as usize).sum()
}

/// How many cells lie before `slot`: doubling steps, then halving ones (Bentley and Yao 1976), for it is mostly near.
fn steps_to<const N: usize>(cells: &[(u16, [f32; N])], slot: u16) -> usize {
    let mut reach = 1;
    while cells.get(reach - 1).is_some_and(|cell| cell.0 < slot) {
        reach *= 2;
    }
    let from = reach / 2;
    let to = (reach - 1).min(cells.len());
    from + cells[from.min(to)..to].partition_point(|cell| cell.0 < slot)
}

fn plus<const N: usize>(sum: &mut [f32; N], more: &[f32; N]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// serde knows no arrays of generic length: they travel as flat lists.
mod cells {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        cells: &[(u16, [f32; N])],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let slots: Vec<u16> = cells.iter().map(|cell| cell.0).collect();
        let sums: Vec<f32> = cells.iter().flat_map(|cell| cell.1).collect();
        (slots, sums).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<Vec<(u16, [f32; N])>, D::Error> {
        let (slots, sums) = <(Vec<u16>, Vec<f32>)>::deserialize(deserializer)?;
        if sums.len() != slots.len() * N {
            return Err(D::Error::custom("slots and sums differ in number"));
        }
        let rows = sums.chunks_exact(N.max(1)).map(|row| {
            let mut sum = [0.0; N];
            sum.copy_from_slice(row);
            sum
        });
        Ok(slots.into_iter().zip(rows).collect())
    }
}

/// How many equal users these are worth, (Σn)²/Σn² (Kish 1965).
#[must_use]
pub fn effective(sum: f64, sum_of_squares: f64) -> f64 {
    if sum_of_squares > 0.0 { sum * sum / sum_of_squares } else { 0.0 }
}

/// φ = max(1, (Σr² + 6.5)/(v + 5)): the users' squared residuals over what independent events would have; with
/// little seen 1.3, which is what sticky users usually turn out to be. Likelihoods raised to 1/φ allow for the clustering
/// (Kish's design effect; the moment form of McCullagh and Nelder 1989, section 4.5).
#[must_use]
pub fn design_effect(residuals_squared: f64, variance: f64) -> f64 {
    ((residuals_squared + 6.5) / (variance + 5.0)).max(1.0)
}

/// τ² of users' offsets by the method of moments, (Σ(k−E)² − ΣE(1−p̄))/ΣE², clipped to 10⁻⁴..3; and from it the
/// weight κ = 1/τ² of "like everybody".
#[must_use]
pub fn shrinkage(deviation_squared: f64, expected_variance: f64, expected_squared: f64) -> f64 {
    if expected_squared <= 0.0 {
        return 1e4;
    }
    1.0 / ((deviation_squared - expected_variance) / expected_squared).clamp(1e-4, 3.0)
}

/// A user's offset ρ = max((k + κ)/(E + κ), 0.1): how much more often than the average this one meets bad events.
#[must_use]
pub fn offset(bad: f64, expected: f64, kappa: f64) -> f64 {
    ((bad + kappa) / (expected + kappa)).max(0.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_add_up_in_any_order() {
        let parts = [
            vec![(5, [1.0, 0.0]), (1, [2.0, 1.0]), (5, [1.0, 1.0])],
            vec![(8_191, [1.0, 0.0])],
            vec![(1, [1.0, 0.0]), (0, [3.0, 3.0])],
        ];
        let join = |order: [usize; 3]| {
            let mut sum = Slots::<2>::default();
            order.iter().for_each(|i| sum.add(&parts[*i]));
            sum
        };
        let expect = join([0, 1, 2]);
        assert_eq!(
            expect.iter().copied().collect::<Vec<_>>(),
            [(0, [3.0, 3.0]), (1, [3.0, 1.0]), (5, [2.0, 1.0]), (8_191, [1.0, 0.0])]
        );
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(join(order), expect);
        }
    }

    #[test]
    fn slots_are_what_a_map_would_be_whatever_comes() {
        let (mut slots, mut map) = (Slots::<1>::default(), std::collections::BTreeMap::new());
        let mut state = 1u64;
        for round in 0..200 {
            let batch: Vec<(u16, [f32; 1])> = (0..round % 37)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    ((state >> 40) as u16 % if round < 100 { 50 } else { 8_192 }, [(state >> 60) as f32])
                })
                .collect();
            for (slot, [more]) in &batch {
                *map.entry(*slot).or_insert(0.0) += more;
            }
            slots.add(&batch);
            let expect: Vec<(u16, [f32; 1])> = map.iter().map(|(slot, sum)| (*slot, [*sum])).collect();
            assert_eq!(slots.cells, expect, "round {round}");
        }
    }

    #[test]
    fn slots_survive_a_checkpoint() {
        let mut sum = Slots::<3>::default();
        sum.add(&[(7, [1.0, 0.1, -2.5]), (3, [0.0, f32::MIN_POSITIVE, 4.0])]);
        let bytes = postcard::to_stdvec(&sum).unwrap();
        assert_eq!(postcard::from_bytes::<Slots<3>>(&bytes).unwrap(), sum);
    }

    #[test]
    fn a_user_without_history_is_like_everybody_and_one_who_always_fails_is_expected_to() {
        assert!((offset(0.0, 0.0, 5.0) - 1.0).abs() < 1e-12);
        assert!(offset(100.0, 1.0, 0.4) > 50.0);
        assert!((offset(0.0, 1_000.0, 0.4) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn little_data_counts_as_somewhat_clustered() {
        assert!((design_effect(0.0, 0.0) - 1.3).abs() < 1e-12);
        assert!((design_effect(0.0, 1_000.0) - 1.0).abs() < 1e-12);
        assert!(design_effect(400.0, 100.0) > 3.5);
    }
}
