//! Traces that are here and others' to decide, by whose they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::key::TraceKey;

/// What a key takes: its 8 bytes in a node that is half full.
const KEY_BYTES: usize = 24;

/// By the owner's place in the view of now; by none while nobody owns anything.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    by_owner: BTreeMap<Option<usize>, BTreeSet<TraceKey>>,
}

impl Foreign {
    pub(super) fn insert(&mut self, owner: Option<usize>, key: TraceKey) {
        self.by_owner.entry(owner).or_default().insert(key);
    }

    pub(super) fn remove(&mut self, key: TraceKey) {
        let found = self
            .by_owner
            .iter_mut()
            .find_map(|(owner, keys)| keys.remove(&key).then_some((*owner, keys.is_empty())));
        if let Some((owner, true)) = found {
            self.by_owner.remove(&owner);
        }
    }

    /// The places of all owners.
    pub(super) fn owners(&self) -> Vec<usize> {
        self.by_owner.keys().copied().flatten().collect()
    }

    /// What this owner is to get.
    pub(super) fn of(&self, owner: usize) -> impl Iterator<Item = TraceKey> {
        self.by_owner.get(&Some(owner)).into_iter().flatten().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }

    pub(super) fn allocation_size(&self) -> usize {
        self.by_owner.values().map(|keys| keys.len() * KEY_BYTES).sum()
    }
}
