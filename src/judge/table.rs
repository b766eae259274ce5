//! A row for each user, a column for each rule: what a fact asks of its user lies side by side, and is looked up once.
//!
//! A list of users for each rule is as small, but a search in it meets memory that is out of cache a dozen times, and so
//! for every rule again. Rows are given in the order in which users first come, so that few users need little memory.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stats::cluster::SLOTS;

/// What a cell holds before anything is added: −0 + x is x for every x, and −0 + 0 is +0. So what was touched is told from
/// what was not, though all that was added were zeros.
const UNTOUCHED: f32 = -0.0;

/// Where a user's row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row(u16);

impl Row {
    /// Of a user without one: beyond every table.
    const NOWHERE: Row = Row(u16::MAX);
}

/// Sums by user slot and rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table<const N: usize> {
    columns: usize,
    /// Of every slot; empty until the first user comes.
    rows: Vec<u16>,
    /// Of every row.
    slots: Vec<u16>,
    cells: Vec<[f32; N]>,
}

impl<const N: usize> Table<N> {
    /// Without users.
    pub(super) fn new(columns: usize) -> Self {
        Self { columns, ..Self::default() }
    }

    /// Rows and columns like another's, untouched.
    pub(super) fn like<const M: usize>(other: &Table<M>) -> Self {
        let cells = vec![[UNTOUCHED; N]; other.cells.len()];
        Self { columns: other.columns, rows: other.rows.clone(), slots: other.slots.clone(), cells }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The row of a slot.
    pub(super) fn row(&self, slot: u16) -> Row {
        self.rows.get(usize::from(slot)).map_or(Row::NOWHERE, |row| Row(*row))
    }

    /// A cell; none of a user without a row.
    pub(super) fn get(&self, row: Row, column: usize) -> Option<&[f32; N]> {
        self.cells.get(usize::from(row.0) * self.columns + column)
    }

    /// A cell, in a new row where the slot has none.
    pub(super) fn cell(&mut self, slot: u16, column: usize) -> Option<&mut [f32; N]> {
        let row = match self.row(slot) {
            Row::NOWHERE => self.add_row(slot),
            row => row,
        };
        self.cells.get_mut(usize::from(row.0) * self.columns + column)
    }

    fn add_row(&mut self, slot: u16) -> Row {
        debug_assert!(usize::from(slot) < SLOTS);
        let row = self.slots.len() as u16; // no more rows than slots
        self.rows.resize(SLOTS, Row::NOWHERE.0);
        if let Some(of_slot) = self.rows.get_mut(usize::from(slot)) {
            *of_slot = row;
            self.slots.push(slot);
            self.cells.resize(self.slots.len() * self.columns, [UNTOUCHED; N]);
        }
        Row(row)
    }

    /// A column, to add to.
    pub(super) fn column(&mut self, column: usize) -> Column<'_, N> {
        Column { table: self, column }
    }

    /// What was added to in a column, by rising slot.
    pub(super) fn touched(&self, column: usize) -> impl Iterator<Item = (u16, [f32; N])> {
        let cells = self.rows.iter().zip(0u16..);
        let cells = cells.filter_map(move |(row, slot)| Some((slot, *self.get(Row(*row), column)?)));
        cells.filter(|(_, cell)| cell[0].to_bits() != UNTOUCHED.to_bits())
    }

    /// Puts the same into every row of a column.
    pub(super) fn fill(&mut self, column: usize, with: [f32; N]) {
        self.cells.iter_mut().skip(column).step_by(self.columns.max(1)).for_each(|cell| *cell = with);
    }
}

/// One rule's part of a table.
pub(super) struct Column<'a, const N: usize> {
    table: &'a mut Table<N>,
    column: usize,
}

impl<const N: usize> Column<'_, N> {
    /// Adds to a slot.
    pub(super) fn add(&mut self, slot: u16, more: [f32; N]) {
        if let Some(cell) = self.table.cell(slot, self.column) {
            cell.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
}

impl<const N: usize> Serialize for Table<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.columns, &self.slots, self.cells.as_flattened()).serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Table<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (columns, slots, flat) = <(usize, Vec<u16>, Vec<f32>)>::deserialize(deserializer)?;
        let mut table = Self::new(columns);
        for slot in &slots {
            if usize::from(*slot) >= SLOTS || table.row(*slot) != Row::NOWHERE {
                return Err(D::Error::custom("a slot that is none, or twice"));
            }
            // Of a checkpoint that lies about its columns: no memory before they are seen to be there.
            if (table.slots.len() + 1).saturating_mul(columns).saturating_mul(N) > flat.len() {
                return Err(D::Error::custom("fewer cells than slots and columns"));
            }
            table.add_row(*slot);
        }
        if table.cells.len() * N != flat.len() {
            return Err(D::Error::custom("more cells than slots and columns"));
        }
        table.cells.as_flattened_mut().copy_from_slice(&flat);
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_what_a_map_for_each_rule_would_be() {
        let (mut table, mut maps) = (Table::<2>::new(3), [(); 3].map(|()| std::collections::BTreeMap::new()));
        let mut state = 1u64;
        for round in 0..4_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (slot, rule) =
                ((state >> 40) as u16 % if round < 1_000 { 50 } else { 8_192 }, (state >> 33) as usize % 3);
            let more = [(state >> 60) as f32, 0.1 * (state >> 61) as f32];
            table.column(rule).add(slot, more);
            let sum = maps[rule].entry(slot).or_insert([0.0f32; 2]);
            *sum = [sum[0] + more[0], sum[1] + more[1]];
        }
        for (rule, map) in maps.iter().enumerate() {
            let expect: Vec<_> = map.iter().map(|(slot, sums)| (*slot, *sums)).collect();
            assert_eq!(table.touched(rule).collect::<Vec<_>>(), expect);
            assert!(map.len() > 500, "too few to say so");
        }
    }

    #[test]
    fn zeros_that_were_added_are_told_from_nothing() {
        let mut table = Table::<1>::new(2);
        table.column(1).add(7, [0.0]);
        assert_eq!(table.touched(0).count(), 0);
        assert_eq!(table.touched(1).collect::<Vec<_>>(), [(7, [0.0])]);
        assert_eq!(table.get(table.row(8), 1), None, "of whom nothing is known");
    }

    #[test]
    fn a_table_survives_a_checkpoint_and_a_lying_one_is_refused() {
        let mut table = Table::<3>::new(2);
        table.column(1).add(300, [1.0, 0.1, -2.5]);
        table.column(0).add(3, [0.0, f32::MIN_POSITIVE, 4.0]);
        let bytes = postcard::to_stdvec(&table).unwrap();
        let again = postcard::from_bytes::<Table<3>>(&bytes).unwrap();
        assert_eq!(again, table);
        assert_eq!(again.touched(0).count(), 1, "what was untouched is so after it");
        for lie in [
            (2usize, vec![3u16, 3], vec![0f32; 12]),
            (2, vec![9_000], vec![0.0; 6]),
            (usize::MAX, vec![3], vec![]),
            (2, vec![3], vec![0.0; 9]),
        ] {
            let bytes = postcard::to_stdvec(&lie).unwrap();
            assert!(postcard::from_bytes::<Table<3>>(&bytes).is_err(), "{lie:?}");
        }
    }
}
