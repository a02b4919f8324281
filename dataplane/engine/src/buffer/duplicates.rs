//! Which spans of a trace are already here, for a few bytes a trace.
//!
//! Retries and replays deliver spans twice. The first [`CHAINED_SPANS`] spans of a trace are compared byte
//! by byte, but only when a filter of 128 bits in the trace's entry says that the span may be known: for
//! new spans it says so about once in seventeen. Most traces end there. The spans after those, of large
//! traces, are found by a 64-bit keyed hash in one table of the shard, because a chain of a hundred
//! thousand spans cannot be walked for each new one.

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use super::segment::{Chain, Location, Log};
use super::{shrink, table_growth};
use crate::key::KeySeed;

#[cfg(test)]
mod tests;

/// Spans of a trace that are found by walking. With 16 spans an eighth of the filter's bits is set, so even
/// the walks for nothing cost two steps a span at most.
pub(crate) const CHAINED_SPANS: u32 = 16;

/// The filter looks at the beginning of a span, where encoders put both IDs: 64 bytes hold them with room for
/// more. Spans that differ only after that are told apart by comparing, like any that the filter may know.
const FILTERED_BYTES: usize = 64;

/// What the seeds of the hash are derived from, under the fleet's secret: nobody outside can aim two spans
/// at one hash.
const LABEL: &[u8] = b"ringtail.dev/span-bytes";
const SHARED_LABEL: &[u8] = b"ringtail.dev/span-bytes/shared";

/// The hashes of a span on its way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Of its beginning, for the filter.
    beginning: u64,
    /// Of all of it, if the trace has so many spans that it is needed; it is ten times as dear.
    whole: u64,
}

/// Which hashes the first spans of a trace may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen([u64; 2]);

impl Seen {
    fn add(&mut self, hash: u64) {
        self.0[word(hash)] |= bit(hash);
    }

    fn may_have(self, hash: u64) -> bool {
        self.0[word(hash)] & bit(hash) != 0
    }
}

fn word(hash: u64) -> usize {
    (hash >> 6) as usize & 1
}

fn bit(hash: u64) -> u64 {
    1 << (hash & 63)
}

/// Finds duplicates among the spans of each trace.
#[derive(Debug)]
pub(crate) struct Duplicates {
    hasher: SeedableRandomState,
    /// Hashes of the spans of large traces, past the first few, each mixed with the slot of its trace.
    later: HashTable<u64>,
}

impl Duplicates {
    pub(crate) fn new(seed: &KeySeed) -> Self {
        // foldhash wants the larger part of its seed to live for ever. There is one seed a process; tests
        // with several share the first one here and differ by the other part.
        static SHARED: OnceLock<SharedSeed> = OnceLock::new();
        let shared = SHARED.get_or_init(|| SharedSeed::from_u64(seed.hash(SHARED_LABEL)));
        Self {
            hasher: SeedableRandomState::with_seed(seed.hash(LABEL), shared),
            later: HashTable::new(),
        }
    }

    /// The hashes of a span, its ID among what is hashed, for a trace with `spans` spans so far.
    #[inline]
    pub(crate) fn hashes(&self, span: &[u8], spans: u32) -> Hashes {
        let beginning = span.get(..FILTERED_BYTES).unwrap_or(span);
        let whole = if spans < CHAINED_SPANS { 0 } else { self.hash(span) };
        Hashes { beginning: self.hash(beginning), whole }
    }

    #[inline]
    fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    /// Whether the trace in `slot`, with `spans` spans so far, has this span already.
    #[inline]
    pub(crate) fn has(&self, trace: Known<'_>, hashes: Hashes, span: &[u8]) -> bool {
        if trace.seen.may_have(hashes.beginning) && chained(trace.log, trace.chain.elders, span) {
            return true;
        }
        let mixed = mixed(trace.slot, hashes.whole);
        trace.spans > CHAINED_SPANS && self.later.find(mixed, |known| *known == mixed).is_some()
    }

    /// Notes a span that is the `nth` of its trace, counted from one, and was just appended to the chain.
    #[inline]
    pub(crate) fn note(
        &mut self,
        nth: u32,
        slot: u32,
        hashes: Hashes,
        seen: &mut Seen,
        chain: &mut Chain,
    ) {
        if nth <= CHAINED_SPANS {
            seen.add(hashes.beginning);
            chain.elders = chain.head;
        } else {
            let mixed = mixed(slot, hashes.whole);
            self.later.insert_unique(mixed, mixed, |known| *known);
        }
    }

    /// Forgets a span that came after the first few of its trace.
    pub(crate) fn forget(&mut self, slot: u32, span: &[u8]) {
        let mixed = mixed(slot, self.hash(span));
        if let Ok(entry) = self.later.find_entry(mixed, |known| *known == mixed) {
            entry.remove();
        }
    }

    /// Gives memory back after a peak.
    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.later, |known| *known);
    }

    /// Capacity in bytes.
    pub(crate) fn footprint(&self) -> u64 {
        self.later.allocation_size() as u64
    }

    /// At most how much [`Duplicates::footprint`] grows by `spans` more spans.
    pub(crate) fn worst_case(&self, spans: u64) -> u64 {
        table_growth(&self.later, spans)
    }
}

/// What is known of a trace when one more span arrives.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) log: &'a Log,
    pub(crate) chain: Chain,
    pub(crate) seen: Seen,
    pub(crate) slot: u32,
    pub(crate) spans: u32,
}

fn chained(log: &Log, mut at: Location, span: &[u8]) -> bool {
    while !at.is_none() {
        if log.len_of(at) == span.len() && log.span(at) == span {
            return true;
        }
        at = log.record(at).prev;
    }
    false
}

/// Two traces may hold equal bytes in different slots only in theory (a span names its trace), but
/// forgetting the spans of one must not touch the other's either way.
fn mixed(slot: u32, hash: u64) -> u64 {
    hash ^ u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
