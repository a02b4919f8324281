//! Remembered decisions, so that spans which come after their trace was decided follow the verdict.
//!
//! Two generations of keys: new decisions go to the current one; when it is full it becomes the previous one
//! and the one before is forgotten at once. So at least the last [`DecisionMemory::generation`] keys are
//! known, at most twice as many, and nothing is ever searched for what is oldest.

use hashbrown::HashTable;

use crate::key::TraceKey;

/// The decisions on the traces that were decided last: for each its key and `T`, and one control byte of
/// the table.
#[derive(Debug)]
pub struct DecisionMemory<T> {
    current: HashTable<(TraceKey, T)>,
    previous: HashTable<(TraceKey, T)>,
    generation: usize,
}

impl<T> DecisionMemory<T> {
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

    /// Remembers the decision on a key that is not remembered.
    pub fn insert(&mut self, key: TraceKey, decision: T) {
        debug_assert!(self.find(key).is_none(), "a key is remembered twice");
        if self.current.len() >= self.generation {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
        }
        self.current.insert_unique(key.0, (key, decision), |(known, _)| known.0);
    }

    /// What is remembered of a key. Keys are keyed hashes already, so they are used as they are.
    #[inline]
    pub fn find(&self, key: TraceKey) -> Option<&T> {
        let same = |(known, _): &(TraceKey, T)| *known == key;
        let before = || self.previous.find(key.0, same);
        // A table looks into its memory even when nothing is in it.
        let before = || if self.previous.is_empty() { None } else { before() };
        let found = self.current.find(key.0, same).or_else(before);
        found.map(|(_, decision)| decision)
    }

    /// Looks at the places where keys would be inserted that are not remembered, so that they come closer:
    /// they lie apart, and a processor fetches many at a time when nothing else is done in between.
    pub fn approach(&self, keys: impl Iterator<Item = TraceKey>) {
        let taken =
            keys.filter(|key| self.current.find(key.0, |(known, _)| known == key).is_some());
        std::hint::black_box(taken.count());
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, key: TraceKey) -> Option<&mut T> {
        let same = |(known, _): &(TraceKey, T)| *known == key;
        let Self { current, previous, .. } = self;
        let found = current.find_mut(key.0, same).or_else(|| previous.find_mut(key.0, same));
        found.map(|(_, decision)| decision)
    }

    /// How many keys are remembered.
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

#[cfg(test)]
mod tests;
