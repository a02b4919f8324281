//! Remembered decisions, so that spans which come after their trace was decided follow the verdict.
//!
//! Two generations of keys: new verdicts go to the current one; when it is full it becomes the previous one
//! and the one before is forgotten at once. So at least the last [`DecisionMemory::generation`] keys are
//! known, at most twice as many, and nothing is ever searched for what is oldest.

use hashbrown::HashTable;

use crate::key::{TraceKey, mix};

/// The bit of an entry that holds the verdict; the other 63 are the key's. Two keys that differ in this bit
/// alone share an entry: among 100 million remembered keys a new one meets such a neighbour once in 10^11
/// times.
const KEPT: u64 = 1;

/// The verdicts of the traces that were decided last, 8 bytes a key plus one control byte of the table.
#[derive(Debug)]
pub struct DecisionMemory {
    current: HashTable<u64>,
    previous: HashTable<u64>,
    generation: usize,
}

impl DecisionMemory {
    /// A memory for the last `keys_per_generation` keys or somewhat more: the tables have the next size
    /// that is a power of two, and the memory uses all of it (7/8 of the slots). All of it is allocated
    /// here, nothing later.
    pub fn new(keys_per_generation: usize) -> Self {
        let current = HashTable::with_capacity(keys_per_generation.max(1));
        let previous = HashTable::with_capacity(keys_per_generation.max(1));
        let generation = current.capacity();
        Self { current, previous, generation }
    }

    /// How many keys fill a generation: this many last ones are known for certain.
    pub fn generation(&self) -> usize {
        self.generation
    }

    /// Remembers the verdict on a key, in place of an earlier one.
    pub fn remember(&mut self, key: TraceKey, kept: bool) {
        let entry = (key.0 & !KEPT) | u64::from(kept);
        let hash = hash(entry);
        if let Some(known) = self.current.find_mut(hash, |known| same_key(*known, entry)) {
            *known = entry;
            return;
        }
        if self.current.len() >= self.generation {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
        }
        self.current.insert_unique(hash, entry, |known| self::hash(*known));
    }

    /// Whether the key's trace was kept; `None` when the key is not remembered.
    #[inline]
    pub fn recall(&self, key: TraceKey) -> Option<bool> {
        let hash = hash(key.0);
        let find = |table: &HashTable<u64>| {
            table.find(hash, |known| same_key(*known, key.0)).map(|known| known & KEPT != 0)
        };
        find(&self.current).or_else(|| find(&self.previous))
    }

    /// How many entries there are, a key in both generations counted twice.
    pub fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All the memory this holds, used or not; it never changes.
    pub fn bytes(&self) -> u64 {
        let tables = self.current.allocation_size() + self.previous.allocation_size();
        (tables + size_of::<Self>()) as u64
    }
}

/// The place of an entry, which must not depend on the verdict.
#[inline]
const fn hash(entry: u64) -> u64 {
    mix(entry | KEPT)
}

#[inline]
const fn same_key(a: u64, b: u64) -> bool {
    a | KEPT == b | KEPT
}

#[cfg(test)]
mod tests;
