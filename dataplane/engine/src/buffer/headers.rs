//! Resource and scope bytes, each stored once however many spans share them.
//!
//! Resources and scopes are stored apart: a request may hold one large resource with a hundred thousand
//! scopes, and storing the pair would multiply what came in.

use hashbrown::HashTable;

use super::slab::Slab;
use super::{shrink, table_growth};
use crate::batch::{Batch, GroupRef};
use crate::key::mix;
use crate::scan::Headers;

#[cfg(test)]
mod tests;

/// Slots a chunk: a shard sees tens to thousands of resources.
const CHUNK: usize = 64;

/// No generation of policies has this number.
const NO_PROGRAM: u32 = u32::MAX;

/// Bytes stored once.
#[derive(Debug)]
struct Text {
    bytes: Box<[u8]>,
    hash: u64,
    /// Groups that name it.
    users: u32,
    /// For a resource: what the predicates of two generations of policies say of it, each under its number.
    /// After a reload both are asked in turn, until the traces first seen before it are decided.
    bits: [(u32, u64); 2],
}

/// A table of texts.
#[derive(Debug, Default)]
struct Texts {
    slots: Slab<Text, CHUNK>,
    by_hash: HashTable<u32>,
    bytes: u64,
}

impl Texts {
    fn intern(&mut self, headers: &Headers<'_>) -> u32 {
        let (bytes, hash) = (headers.bytes(), headers.hash());
        let slots = &mut self.slots;
        let same = |slot: &u32| {
            slots.get(*slot).is_some_and(|text| text.hash == hash && *text.bytes == *bytes)
        };
        if let Some(slot) = self.by_hash.find(hash, same) {
            return *slot;
        }
        self.bytes += bytes.len() as u64;
        let slot =
            slots.insert(Text { bytes: bytes.into(), hash, users: 0, bits: [(NO_PROGRAM, 0); 2] });
        self.by_hash.insert_unique(hash, slot, |slot| slots.get(*slot).map_or(0, |text| text.hash));
        slot
    }

    fn retain(&mut self, slot: u32) {
        if let Some(text) = self.slots.get_mut(slot) {
            text.users += 1;
        }
    }

    fn release(&mut self, slot: u32) {
        let Some(text) = self.slots.get_mut(slot) else {
            return;
        };
        text.users -= 1;
        if text.users > 0 {
            return;
        }
        let hash = text.hash;
        if let Ok(entry) = self.by_hash.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        if let Some(text) = self.slots.remove(slot) {
            self.bytes -= text.bytes.len() as u64;
        }
    }

    fn headers(&self, slot: u32) -> Headers<'_> {
        let text = self.slots.get(slot);
        text.map_or(Headers::hashed(&[], 0), |text| Headers::hashed(&text.bytes, text.hash))
    }

    fn shrink(&mut self) {
        let slots = &self.slots;
        shrink(&mut self.by_hash, |slot| slots.get(*slot).map_or(0, |text| text.hash));
    }

    fn footprint(&self) -> u64 {
        self.bytes + self.slots.footprint() + self.by_hash.allocation_size() as u64
    }

    fn worst_case(&self, texts: u64) -> u64 {
        self.slots.worst_case(texts) + table_growth(&self.by_hash, texts)
    }
}

/// A resource with one of its scopes, as spans name them.
#[derive(Debug)]
struct Group {
    resource: u32,
    scope: u32,
    /// Spans that name it.
    spans: u64,
    /// Where the current gathering put it, under the number of that gathering.
    gathered: Option<(u64, GroupRef)>,
}

impl Group {
    fn hash(&self) -> u64 {
        pair_hash(self.resource, self.scope)
    }
}

/// Two slots are not a secret and not anybody's to choose, so this needs no seed.
fn pair_hash(resource: u32, scope: u32) -> u64 {
    mix(u64::from(resource) << 32 | u64::from(scope))
}

/// The resources and scopes of the spans that a shard holds.
#[derive(Debug, Default)]
pub(crate) struct HeaderTable {
    resources: Texts,
    scopes: Texts,
    groups: Slab<Group, CHUNK>,
    by_pair: HashTable<u32>,
    gathering: u64,
}

impl HeaderTable {
    // === A request comes in ===

    /// The number of a resource, held until [`HeaderTable::release_resource`].
    pub(crate) fn hold_resource(&mut self, resource: &Headers<'_>) -> u32 {
        let slot = self.resources.intern(resource);
        self.resources.retain(slot);
        slot
    }

    pub(crate) fn release_resource(&mut self, resource: u32) {
        self.resources.release(resource);
    }

    /// The number of a resource with a scope, held as if by a span until [`HeaderTable::release`].
    pub(crate) fn hold_group(&mut self, resource: u32, scope: &Headers<'_>) -> u32 {
        let scope = self.scopes.intern(scope);
        let hash = pair_hash(resource, scope);
        let groups = &mut self.groups;
        let same = |slot: &u32| {
            groups
                .get(*slot)
                .is_some_and(|group| (group.resource, group.scope) == (resource, scope))
        };
        let slot = match self.by_pair.find(hash, same) {
            Some(slot) => *slot,
            None => {
                self.resources.retain(resource);
                self.scopes.retain(scope);
                let slot = groups.insert(Group { resource, scope, spans: 0, gathered: None });
                self.by_pair
                    .insert_unique(hash, slot, |slot| groups.get(*slot).map_or(0, Group::hash));
                slot
            }
        };
        self.retain(slot);
        slot
    }

    /// One more span names the group.
    #[inline]
    pub(crate) fn retain(&mut self, group: u32) {
        if let Some(group) = self.groups.get_mut(group) {
            group.spans += 1;
        }
    }

    /// One span less names the group; without any it is forgotten.
    #[inline]
    pub(crate) fn release(&mut self, slot: u32) {
        let Some(group) = self.groups.get_mut(slot) else {
            return;
        };
        group.spans -= 1;
        if group.spans == 0 {
            self.forget(slot);
        }
    }

    /// What generation `program` says of a resource: asked once a resource and generation.
    #[inline]
    pub(crate) fn resource_bits(
        &mut self,
        group: u32,
        program: u32,
        ask: impl FnOnce(&Headers<'_>) -> u64,
    ) -> u64 {
        let Some(group) = self.groups.get(group) else {
            return 0;
        };
        let Some(text) = self.resources.slots.get_mut(group.resource) else {
            return 0;
        };
        let cached = &mut text.bits[program as usize % 2];
        if cached.0 != program {
            *cached = (program, ask(&Headers::hashed(&text.bytes, text.hash)));
        }
        cached.1
    }

    // === Kept traces go out ===

    /// Starts a gathering: what earlier ones noted of their batches is void.
    pub(crate) fn start_gathering(&mut self) {
        self.gathering += 1;
    }

    /// Where this gathering put a group in `out`, for its first span as for the others.
    #[inline]
    pub(crate) fn gathered(&mut self, group: u32, out: &mut Batch) -> Option<GroupRef> {
        let group = self.groups.get_mut(group)?;
        match group.gathered {
            Some((gathering, place)) if gathering == self.gathering => Some(place),
            _ => {
                let resource = self.resources.headers(group.resource);
                let place = out.intern(&resource, &self.scopes.headers(group.scope));
                group.gathered = Some((self.gathering, place));
                Some(place)
            }
        }
    }

    // === Accounts ===

    /// Gives memory back after a peak.
    pub(crate) fn shrink(&mut self) {
        self.resources.shrink();
        self.scopes.shrink();
        let groups = &self.groups;
        shrink(&mut self.by_pair, |slot| groups.get(*slot).map_or(0, Group::hash));
    }

    /// Capacity in bytes.
    pub(crate) fn footprint(&self) -> u64 {
        let pairs = self.groups.footprint() + self.by_pair.allocation_size() as u64;
        self.resources.footprint() + self.scopes.footprint() + pairs
    }

    /// At most how much [`HeaderTable::footprint`] grows by `groups` more groups with `bytes` of resources
    /// and scopes.
    pub(crate) fn worst_case(&self, groups: u64, bytes: u64) -> u64 {
        let pairs = self.groups.worst_case(groups) + table_growth(&self.by_pair, groups);
        // One more of each: a request holds a resource and a group while it goes in.
        self.resources.worst_case(groups + 1) + self.scopes.worst_case(groups + 1) + pairs + bytes
    }

    fn forget(&mut self, slot: u32) {
        let Some(group) = self.groups.remove(slot) else {
            return;
        };
        if let Ok(entry) = self.by_pair.find_entry(group.hash(), |other| *other == slot) {
            entry.remove();
        }
        self.resources.release(group.resource);
        self.scopes.release(group.scope);
    }
}
