//! Numbered slots in chunks: growing never moves what is there, and an empty chunk is given back.
//!
//! A `Vec` of a million entries doubles by copying, and holds both copies while it does; and it never
//! shrinks while one entry near its end lives. Chunks are filled lowest first, so that the highest empty
//! out after a peak.

use std::collections::BTreeSet;
use std::mem;

/// Ends the list of vacant slots of a chunk.
const NIL: u32 = u32::MAX;

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    Vacant(u32),
}

#[derive(Debug)]
struct Chunk<T> {
    slots: Vec<Slot<T>>,
    used: usize,
    vacant: u32,
}

/// See the module. `N` slots a chunk, a power of two.
#[derive(Debug)]
pub(crate) struct Slab<T, const N: usize> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with storage and a vacant slot.
    roomy: BTreeSet<u32>,
    /// Chunks without storage; used when no other has room, so that growth can be foretold.
    bare: BTreeSet<u32>,
    len: usize,
    allocated: usize,
}

impl<T, const N: usize> Default for Slab<T, N> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            roomy: BTreeSet::new(),
            bare: BTreeSet::new(),
            len: 0,
            allocated: 0,
        }
    }
}

impl<T, const N: usize> Slab<T, N> {
    const CHUNK_BYTES: usize = N * size_of::<Slot<T>>();

    /// Puts a value into a vacant slot and returns its number.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let number = self.roomy_chunk();
        let chunk = &mut self.chunks[number as usize];
        let offset = match chunk.vacant {
            NIL => {
                chunk.slots.push(Slot::Used(value));
                chunk.slots.len() as u32 - 1
            }
            offset => {
                let vacant = mem::replace(&mut chunk.slots[offset as usize], Slot::Used(value));
                chunk.vacant = match vacant {
                    Slot::Vacant(next) => next,
                    Slot::Used(_) => NIL,
                };
                offset
            }
        };
        chunk.used += 1;
        if chunk.used == N {
            self.roomy.remove(&number);
        }
        self.len += 1;
        number * N as u32 + offset
    }

    /// Takes the value out of a slot.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let (number, offset) = (slot / N as u32, slot % N as u32);
        let chunk = self.chunks.get_mut(number as usize)?;
        let place = chunk.slots.get_mut(offset as usize)?;
        if matches!(place, Slot::Vacant(_)) {
            return None;
        }
        let Slot::Used(value) = mem::replace(place, Slot::Vacant(chunk.vacant)) else {
            return None;
        };
        chunk.vacant = offset;
        if chunk.used == N {
            self.roomy.insert(number);
        }
        chunk.used -= 1;
        self.len -= 1;
        if chunk.used == 0 {
            (chunk.slots, chunk.vacant) = (Vec::new(), NIL);
            self.allocated -= 1;
            self.roomy.remove(&number);
            self.bare.insert(number);
            self.shorten();
        }
        Some(value)
    }

    /// The value in a slot, if there is one.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        match self.chunks.get(slot as usize / N)?.slots.get(slot as usize % N)? {
            Slot::Used(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// The value in a slot, if there is one, to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.chunks.get_mut(slot as usize / N)?.slots.get_mut(slot as usize % N)? {
            Slot::Used(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// Values held.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let slots = self.chunks.iter_mut().flat_map(|chunk| &mut chunk.slots);
        slots.filter_map(|slot| match slot {
            Slot::Used(value) => Some(value),
            Slot::Vacant(_) => None,
        })
    }

    /// Values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Capacity in bytes.
    pub(crate) fn footprint(&self) -> u64 {
        (self.allocated * Self::CHUNK_BYTES + self.chunks.capacity() * size_of::<Chunk<T>>()) as u64
    }

    /// At most how much [`Slab::footprint`] grows by `more` values.
    pub(crate) fn worst_case(&self, more: u64) -> u64 {
        let room = (self.allocated * N - self.len) as u64;
        let chunks = more.saturating_sub(room).div_ceil(N as u64);
        // The list of chunks doubles, from four.
        let list = 2 * (self.chunks.len() as u64 + chunks) + 4;
        chunks * Self::CHUNK_BYTES as u64 + list * size_of::<Chunk<T>>() as u64
    }

    fn roomy_chunk(&mut self) -> u32 {
        if let Some(&number) = self.roomy.first() {
            return number;
        }
        let number = self.bare.pop_first().unwrap_or(self.chunks.len() as u32);
        if number as usize == self.chunks.len() {
            self.chunks.push(Chunk { slots: Vec::new(), used: 0, vacant: NIL });
        }
        self.chunks[number as usize].slots.reserve_exact(N);
        self.allocated += 1;
        self.roomy.insert(number);
        number
    }

    fn shorten(&mut self) {
        while self.chunks.last().is_some_and(|chunk| chunk.used == 0) {
            self.chunks.pop();
            self.bare.remove(&(self.chunks.len() as u32));
        }
        if self.chunks.is_empty() {
            self.chunks = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn slots_are_reused_and_chunks_given_back() {
        let mut slab = Slab::<u64, 8>::default();
        let mut model = HashMap::new();
        let mut dice = 7_u64;
        for round in 0..20_000_u64 {
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let growing = round % 4_000 < 2_000;
            if model.is_empty() || (dice >> 33) % 10 < if growing { 7 } else { 3 } {
                let bound = slab.footprint() + slab.worst_case(1);
                let slot = slab.insert(round);
                assert!(slab.footprint() <= bound);
                assert!(model.insert(slot, round).is_none(), "slot {slot} handed out twice");
            } else {
                let slot = *model.keys().nth((dice >> 40) as usize % model.len()).unwrap();
                assert_eq!(slab.remove(slot), model.remove(&slot));
                assert_eq!(slab.remove(slot), None);
            }
            assert_eq!(slab.len(), model.len());
        }
        assert!(model.iter().all(|(slot, value)| slab.get(*slot) == Some(value)));
        for slot in model.into_keys() {
            slab.remove(slot);
        }
        assert_eq!(slab.footprint(), 0);
    }

    #[test]
    fn a_slot_that_never_was_is_empty() {
        let mut slab = Slab::<u8, 8>::default();
        assert_eq!(slab.get(3), None);
        assert_eq!(slab.remove(900), None);
    }
}
