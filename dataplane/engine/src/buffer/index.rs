//! Trace -> what the shard knows of it: facts, deadline and the chain of its spans.
//!
//! A decision reads nothing else. 128 bytes a trace, and 5 bytes a bucket of the table that finds it.

use hashbrown::HashTable;

use super::duplicates::Seen;
use super::segment::Chain;
use super::slab::Slab;
use super::{shrink, table_growth};
use crate::Millis;
use crate::facts::TraceFacts;
use crate::key::TraceKey;
use crate::scan::TraceId;
use crate::shard::Early;
use crate::shard::custody::Steady;

#[cfg(test)]
mod tests;

// What is said of its memory, here and in the limits of the gateway.
const _: () = assert!(size_of::<Entry>() == 128);

/// Entries a chunk: 128 KiB, the most that a shard with one trace pays in advance.
const CHUNK: usize = 1024;

/// Neighbours in a bucket of [`super::deadline::Deadlines`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

/// An undecided trace.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: TraceKey,
    pub(crate) facts: TraceFacts,
    pub(crate) chain: Chain,
    pub(crate) seen: Seen,
    pub(crate) first_seen: Millis,
    /// The bucket in which it is due.
    pub(crate) due: u64,
    pub(crate) links: Links,
    /// The generation of policies under which it was first seen.
    pub(crate) program: u32,
    pub(crate) steady: Steady,
    pub(crate) stage: Stage,
}

/// Where an undecided trace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits in a bucket.
    Open,
    /// It was judged, before its time for this reason, and is in no bucket.
    Judged(Option<Early>),
}

/// The undecided traces of a shard.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_key: HashTable<u32>,
    entries: Slab<Entry, CHUNK>,
    /// Whether there ever were two traces with one key.
    twins: bool,
}

impl Index {
    /// The slot of a trace. Traces whose IDs share a key live side by side: the ID is compared.
    #[inline]
    pub(crate) fn find(&self, key: TraceKey, id: &TraceId) -> Option<u32> {
        let same = |slot: &u32| {
            self.entries.get(*slot).is_some_and(|entry| entry.key == key && entry.facts.id == *id)
        };
        self.by_key.find(key.0, same).copied()
    }

    /// The slot of any trace with this key that is `wanted`.
    #[inline]
    pub(crate) fn find_key(&self, key: TraceKey, wanted: impl Fn(&Entry) -> bool) -> Option<u32> {
        let same = |slot: &u32| {
            self.entries.get(*slot).is_some_and(|entry| entry.key == key && wanted(entry))
        };
        self.by_key.find(key.0, same).copied()
    }

    /// Adds a trace that [`Index::find`] does not know.
    pub(crate) fn insert(&mut self, entry: Entry) -> u32 {
        let key = entry.key.0;
        self.twins |= self.find_key(entry.key, |_| true).is_some();
        let entries = &mut self.entries;
        let slot = entries.insert(entry);
        self.by_key
            .insert_unique(key, slot, |slot| entries.get(*slot).map_or(0, |entry| entry.key.0));
        slot
    }

    /// Takes a trace out; [`Index::unlink`] has to complete that before a trace is looked up or added.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Entry> {
        self.entries.remove(slot)
    }

    /// Makes a trace that was taken out impossible to find.
    pub(crate) fn unlink(&mut self, key: TraceKey, slot: u32) {
        if let Ok(found) = self.by_key.find_entry(key.0, |other| *other == slot) {
            found.remove();
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot)
    }

    /// Whether more than one trace may have a key.
    pub(crate) fn may_have_twins(&self) -> bool {
        self.twins
    }

    /// All traces.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// Traces held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives memory back after a peak.
    pub(crate) fn shrink(&mut self) {
        let entries = &self.entries;
        shrink(&mut self.by_key, |slot| entries.get(*slot).map_or(0, |entry| entry.key.0));
    }

    /// Capacity in bytes.
    pub(crate) fn footprint(&self) -> u64 {
        self.entries.footprint() + self.by_key.allocation_size() as u64
    }

    /// At most how much [`Index::footprint`] grows by `traces` more traces.
    pub(crate) fn worst_case(&self, traces: u64) -> u64 {
        self.entries.worst_case(traces) + table_growth(&self.by_key, traces)
    }
}
