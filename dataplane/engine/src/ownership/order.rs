//! Decisions in the order in which they came.
//!
//! Thousands come together and with the same verdict, so that all but their keys is noted once for a row of
//! them: memory that is written once and read when somebody is lost costs as much as deciding does.

use std::collections::VecDeque;
use std::iter::repeat_n;

use super::decided::Decided;
use crate::key::TraceKey;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    keys: VecDeque<TraceKey>,
    /// What is the same of keys that follow each other. None is of no key.
    rows: VecDeque<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// When, in the unit of the caller.
    learned: u32,
    decided: Decided,
    keys: u32,
}

/// A decision as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) key: TraceKey,
    pub(super) learned: u32,
    pub(super) decided: Decided,
}

impl Order {
    /// Room for so many, of which each is a row of its own at worst.
    pub(super) fn with_capacity(max: usize) -> Self {
        Self { keys: VecDeque::with_capacity(max), rows: VecDeque::with_capacity(max) }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn push(&mut self, told: Told) {
        let Told { key, learned, decided } = told;
        self.keys.push_back(key);
        match self.rows.back_mut() {
            Some(row) if row.learned == learned && row.decided == decided => row.keys += 1,
            _ => self.rows.push_back(Row { learned, decided, keys: 1 }),
        }
    }

    pub(super) fn pop_oldest(&mut self) {
        self.keys.pop_front();
        if let Some(row) = self.rows.front_mut() {
            row.keys -= 1;
            if row.keys == 0 {
                self.rows.pop_front();
            }
        }
    }

    /// When the oldest came.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.rows.front().map(|row| row.learned)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = TraceKey> {
        self.keys.iter().copied()
    }

    /// The oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Told> {
        self.rows.iter().flat_map(Row::each).zip(&self.keys).map(Row::told)
    }

    /// The newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = Told> {
        self.rows.iter().rev().flat_map(Row::each).zip(self.keys.iter().rev()).map(Row::told)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<TraceKey>() + self.rows.capacity() * size_of::<Row>()
    }
}

impl Row {
    fn each(&self) -> impl Iterator<Item = &Self> {
        repeat_n(self, self.keys as usize)
    }

    fn told((row, key): (&Self, &TraceKey)) -> Told {
        Told { key: *key, learned: row.learned, decided: row.decided }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::message::{Decision, Verdict};

    #[test]
    fn what_comes_together_is_told_as_it_came() {
        let mut order = Order::default();
        let decided = |key, keep| {
            let verdict = Verdict { keep, note: 1 };
            Decided::new(&Decision { key, verdict, age: 0, exported: false }, 0)
        };
        let came: Vec<(u64, u32, bool)> =
            (0..40).map(|key| (key, u32::try_from(key / 10).unwrap(), key % 7 > 4)).collect();
        for (key, learned, keep) in &came {
            let key = TraceKey(*key);
            order.push(Told { key, learned: *learned, decided: decided(key, *keep) });
        }
        let plain = |told: Told| (told.key.0, told.learned, told.decided.verdict().keep);
        for left in (0..=40).rev() {
            let told: Vec<_> = order.iter().map(plain).collect();
            assert_eq!(told, came[40 - left..]);
            let mut newest: Vec<_> = order.newest().map(plain).collect();
            newest.reverse();
            assert_eq!(newest, told);
            assert_eq!(order.oldest(), told.first().map(|(_, learned, _)| *learned));
            assert_eq!((order.len(), order.keys().count()), (left, left));
            order.pop_oldest();
        }
        assert!(order.rows.is_empty(), "a row of no key is none");
    }
}
