//! Series by their keys, in a table of bounded size; what does not fit is one series more.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::histogram::Histogram;
use super::plan::Plan;
use crate::Millis;

/// Bytes of a series beside its key, its histogram and its exemplars: its place in a table that doubles, and
/// the allocator's part of three allocations.
pub const SERIES_BYTES: u64 = 2 * size_of::<Slot>() as u64 + 48;

/// A series that nobody has counted in for so long leaves a tally; it is in the totals.
const IDLE: Millis = 60_000;

/// How large a table may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Series, without the one for all others.
    pub series: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// One span as it is added to a series.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sample {
    pub(super) duration: f64,
    /// How many spans it stands for.
    pub(super) weight: u64,
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

/// A span of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its ID.
    pub span_id: [u8; 8],
    /// How long it took, in the unit.
    pub duration: f64,
    /// When it was counted.
    pub at: Millis,
}

/// Spans with the same labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels, see [`super::Labels::of`].
    pub key: Box<[u8]>,
    /// Spans, or events.
    pub calls: u64,
    /// How long they took.
    pub histogram: Histogram,
    /// Some of them.
    pub exemplars: Vec<Exemplar>,
    /// When the first was counted.
    pub first: Millis,
    /// When the last was.
    pub last: Millis,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    series: Series,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    /// Whether series have a histogram.
    timed: bool,
    slots: HashTable<Slot>,
    hasher: RandomState,
    overflow: Option<Series>,
    bytes: u64,
}

// === impl Table ===

impl Table {
    pub(super) fn new(limits: Limits, timed: bool) -> Self {
        let (slots, hasher) = (HashTable::new(), RandomState::default());
        Self { limits, timed, slots, hasher, overflow: None, bytes: 0 }
    }

    /// Adds a span; false when there is no room for a series of its own.
    #[inline]
    pub(super) fn count(&mut self, key: &[u8], sample: &Sample, plan: &Plan, now: Millis) -> bool {
        let hash = self.hasher.hash_one(key);
        let is = |slot: &Slot| slot.hash == hash && *slot.series.key == *key;
        if let Some(slot) = self.slots.find_mut(hash, is) {
            slot.series.add(sample, plan, now);
            return true;
        }
        let series = self.open(key, hash, plan, now);
        series.add(sample, plan, now);
        !series.key.is_empty()
    }

    /// Adds what another table has counted.
    pub(super) fn merge(&mut self, other: Series, plan: &Plan) {
        let hash = self.hasher.hash_one(&*other.key);
        let is = |slot: &Slot| slot.hash == hash && slot.series.key == other.key;
        match self.slots.find_mut(hash, is) {
            Some(slot) => slot.series.merge(other, plan),
            None => self.open(&other.key, hash, plan, other.first).merge(other, plan),
        }
    }

    /// A series for this key, which has none; the one for all others if there is no room.
    #[cold]
    fn open(&mut self, key: &[u8], hash: u64, plan: &Plan, now: Millis) -> &mut Series {
        let bytes = self.charge(key, plan);
        if key.is_empty()
            || self.slots.len() >= self.limits.series
            || self.bytes + bytes > self.limits.bytes
        {
            let timed = self.timed;
            return self.overflow.get_or_insert_with(|| Series::new(&[], plan, timed, now));
        }
        self.bytes += bytes;
        let series = Series::new(key, plan, self.timed, now);
        let slot = Slot { hash, series };
        &mut self.slots.insert_unique(hash, slot, |slot| slot.hash).into_mut().series
    }

    fn charge(&self, key: &[u8], plan: &Plan) -> u64 {
        let exemplars = 2 * plan.exemplars() * size_of::<Exemplar>();
        let histogram = if self.timed { Histogram::bytes_max(plan.buckets()) } else { 0 };
        SERIES_BYTES + (key.len() + exemplars) as u64 + histogram
    }

    /// What was counted since the last time.
    pub(super) fn drain(&mut self, plan: &Plan, now: Millis) -> Vec<Series> {
        let timed = self.timed;
        let mut drained = Vec::new();
        let mut hand_over = |series: &mut Series| {
            if series.calls > 0 {
                let empty = Series::new(&series.key, plan, timed, now);
                let last = series.last;
                drained.push(std::mem::replace(series, Series { last, ..empty }));
            }
        };
        self.slots.iter_mut().for_each(|slot| hand_over(&mut slot.series));
        self.overflow.iter_mut().for_each(hand_over);
        self.expire(IDLE, plan, now);
        drained
    }

    /// Forgets series that were idle for so long.
    pub(super) fn expire(&mut self, idle: Millis, plan: &Plan, now: Millis) {
        let mut freed = 0;
        let fresh = |series: &Series| series.last.saturating_add(idle) > now;
        let charge = self.charge(&[], plan);
        self.slots.retain(|slot| {
            let stays = fresh(&slot.series);
            freed += if stays { 0 } else { charge + slot.series.key.len() as u64 };
            stays
        });
        self.bytes = self.bytes.saturating_sub(freed);
        self.overflow.take_if(|series| !fresh(series));
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to_fit(|slot| slot.hash);
        }
    }

    /// All series.
    pub(super) fn rows(&self) -> Vec<Series> {
        self.slots.iter().map(|slot| &slot.series).chain(&self.overflow).cloned().collect()
    }

    /// Bytes that the series occupy, at most.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

// === impl Series ===

impl Series {
    fn new(key: &[u8], plan: &Plan, timed: bool, now: Millis) -> Self {
        let histogram = if timed { Histogram::new(plan) } else { Histogram::None };
        let (first, last) = (now, now);
        Self { key: key.into(), calls: 0, histogram, exemplars: Vec::new(), first, last }
    }

    fn merge(&mut self, other: Self, plan: &Plan) {
        self.calls += other.calls;
        self.histogram.merge(&other.histogram);
        self.last = self.last.max(other.last);
        self.first = self.first.min(other.first);
        // The latest are the ones that somebody looks for.
        self.exemplars.extend(other.exemplars);
        let surplus = self.exemplars.len().saturating_sub(plan.exemplars());
        self.exemplars.drain(..surplus);
    }

    #[inline]
    fn add(&mut self, sample: &Sample, plan: &Plan, now: Millis) {
        if self.calls == 0 {
            self.first = now;
        }
        self.calls += sample.weight;
        self.last = now;
        self.histogram.record(sample.duration, sample.weight, plan);
        // As in the connector the series of all others has none: they would tell nothing.
        if self.exemplars.len() < plan.exemplars() && !self.key.is_empty() {
            let Sample { trace_id, span_id, duration, .. } = *sample;
            self.exemplars.push(Exemplar { trace_id, span_id, duration, at: now });
        }
    }
}
