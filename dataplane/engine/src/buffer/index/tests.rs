//! Traces are found by key and ID, and slots are their names while they are here.

use super::*;

impl Index {
    /// Takes a trace out, completely.
    pub(crate) fn remove_whole(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.remove(slot)?;
        self.unlink(entry.key, slot);
        Some(entry)
    }
}
use crate::buffer::deadline::UNLINKED;

fn entry(key: u64, id: u8) -> Entry {
    Entry {
        key: TraceKey(key),
        facts: TraceFacts::new([id; 16]),
        chain: Chain::EMPTY,
        seen: Seen::default(),
        first_seen: 0,
        due: 0,
        links: UNLINKED,
        program: 0,
        steady: Default::default(),
        stage: Stage::Open,
    }
}

#[test]
fn an_entry_is_128_bytes() {
    assert_eq!(size_of::<Option<Entry>>(), 128);
}

#[test]
fn traces_with_one_key_live_side_by_side() {
    let mut index = Index::default();
    let slots = [1, 2, 3].map(|id| index.insert(entry(42, id)));
    for (id, slot) in (1..).zip(slots) {
        assert_eq!(index.find(TraceKey(42), &[id; 16]), Some(slot));
    }
    assert_eq!(index.find(TraceKey(42), &[4; 16]), None);
    assert_eq!(index.find(TraceKey(43), &[1; 16]), None);
    assert_eq!(index.remove_whole(slots[1]).map(|entry| entry.facts.id), Some([2; 16]));
    assert_eq!(index.find(TraceKey(42), &[2; 16]), None);
    assert_eq!(index.find(TraceKey(42), &[3; 16]), Some(slots[2]));
    assert!(index.remove_whole(slots[1]).is_none());
    assert_eq!(index.len(), 2);
}

#[test]
fn memory_follows_the_traces_up_and_down() {
    let mut index = Index::default();
    let mut slots = Vec::new();
    for round in 0..50u64 {
        let bound = index.footprint() + index.worst_case(1_000);
        slots.extend((0..1_000).map(|n| {
            index.insert(entry((round * 1_000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15), 1))
        }));
        assert!(index.footprint() <= bound);
    }
    let full = index.footprint();
    assert!(full < 50_000 * 145, "{} bytes a trace", full / 50_000);
    slots.drain(1_000..).for_each(|slot| _ = index.remove_whole(slot));
    index.shrink();
    assert!(index.footprint() < full / 20, "{} of {full} left", index.footprint());
    slots.drain(..).for_each(|slot| _ = index.remove_whole(slot));
    index.shrink();
    assert_eq!(index.footprint(), 0);
}
