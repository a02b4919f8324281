//! Traces go out: when they are due, when memory is needed, when the process stops.

use std::cmp::Reverse;

use super::{DYING_MAX, Dying, Early, Progress, SCRATCH_BYTES, Shard, TickLimit};
use crate::Millis;
use crate::batch::Batch;
use crate::buffer::deadline::{BUCKET_MS, Deadlines};
use crate::buffer::duplicates::CHAINED_SPANS;
use crate::buffer::index::Entry;
use crate::buffer::segment::{Location, SEGMENT_BYTES};

/// A closed segment with less live bytes than this is evacuated in passing.
const SPARSE_PERCENT: u64 = 30;

/// The same when memory is needed: two of them still give one back.
const SPARSE_PERCENT_UNDER_PRESSURE: u64 = 50;

/// Waste that is never worth moving spans for: the open segment and one that is dying anyway.
const WASTE_BYTES: u64 = 2 * SEGMENT_BYTES as u64;

/// Without pressure, evacuate once more than 1/8 of the reserved bytes is waste. With a fixed decision wait
/// the spans of a segment die within seconds of each other, so most sparse segments empty themselves if
/// they are left alone.
const WASTE_SHARE: u64 = 8;

/// Bytes that one turn moves in passing, about 0.1 ms: 1 MiB.
const EVACUATED_BYTES_PER_TURN: u64 = SEGMENT_BYTES as u64;

/// Early decisions under pressure stop when `out` has grown to this length, and go on when it has been sent.
const RELIEF_OUT_BYTES: u64 = 4 << 20;

/// No trace is decided for its memory before this share of its wait has passed: 1/4.
const RELIEF_AGE_SHARE: u64 = 4;

/// What relief frees at least, as a share of what is held: 1/64. Every call sorts a bucket of traces, so
/// room is made for many requests at a time.
const RELIEF_SHARE: u64 = 64;

/// What a decision came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub(super) kept: bool,
    pub(super) bytes: u64,
}

/// What [`Shard::relieve`] achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relief {
    /// Bytes that [`super::Held::bytes`] is smaller now.
    pub freed: u64,
    /// Traces decided early.
    pub decided: u64,
    /// `out` is full and more could be freed: call again when it has been sent.
    pub more: bool,
}

impl Shard {
    /// Decides traces that are due, kept ones go to `out`, and tidies up a little.
    pub fn decide_due(&mut self, now: Millis, limit: &TickLimit, out: &mut Batch) -> Progress {
        self.advance(now);
        self.headers.start_gathering();
        let mut progress = Progress::default();
        while progress.decided < limit.traces && (out.encoded_len_max() as u64) < limit.out_bytes {
            let Some(slot) = self.deadlines.pop_due(&mut self.index, self.now) else {
                break;
            };
            self.resolve(slot, None, out);
            progress.decided += 1;
        }
        self.bury();
        progress.more = self.deadlines.next().is_some_and(|due| due <= self.now);
        self.tidy();
        progress
    }

    /// Decides all traces, due or not, oldest first: the process stops.
    pub fn decide_all(&mut self, limit: &TickLimit, out: &mut Batch) -> Progress {
        self.headers.start_gathering();
        let mut progress = Progress::default();
        while progress.decided < limit.traces && (out.encoded_len_max() as u64) < limit.out_bytes {
            let Some(slot) = self.deadlines.pop(&mut self.index) else {
                break;
            };
            self.resolve(slot, Some(Early::Drain), out);
            progress.decided += 1;
        }
        self.bury();
        progress.more = self.index.len() > 0;
        self.tidy();
        progress
    }

    /// Makes `bytes` of room if it can, or somewhat more: spare segments first, then sparse ones are moved
    /// together, then traces are decided early, those of the oldest bucket first and the heaviest of them
    /// first, but none before a quarter of its wait has passed.
    pub fn relieve(&mut self, now: Millis, bytes: u64, out: &mut Batch) -> Relief {
        self.advance(now);
        self.headers.start_gathering();
        let before = self.resident();
        let goal = before.saturating_sub(bytes.max(before / RELIEF_SHARE));
        self.log.drop_spares();
        self.shrink();
        self.compact(goal);
        let mut relief = Relief::default();
        let mut slots = Vec::new();
        let mut from = 0;
        while self.resident() > goal && !relief.more && self.has_old_traces() {
            let Some(bucket) = self.old_traces(from, &mut slots) else {
                break;
            };
            from = bucket + 1;
            self.settle_until(goal, &slots, &mut relief, out);
        }
        self.shrink();
        relief.freed = before.saturating_sub(self.resident());
        relief
    }

    /// Takes a trace out of its bucket.
    pub(super) fn cancel(&mut self, slot: u32) {
        self.deadlines.remove(&mut self.index, slot);
    }

    /// Decides a trace that is in no bucket any more: the verdict is remembered, its spans go to `out` or
    /// nowhere.
    pub(super) fn settle(&mut self, slot: u32, early: Option<Early>, out: &mut Batch) -> Settled {
        let settled = self.resolve(slot, early, out);
        self.bury();
        settled
    }

    /// Does what [`Shard::settle`] does, but leaves part of it to [`Shard::bury`].
    fn resolve(&mut self, slot: u32, early: Option<Early>, out: &mut Batch) -> Settled {
        let Some(entry) = self.index.remove(slot) else {
            return Settled::default();
        };
        let kept = self.judge(&entry, early);
        self.programs.leave(entry.program);
        if kept {
            self.gather(&entry, out);
        }
        self.forget(slot, &entry, Some(kept));
        Settled { kept, bytes: entry.facts.bytes }
    }

    fn judge(&mut self, entry: &Entry, early: Option<Early>) -> bool {
        let occasion = self.occasion();
        let Self { programs, stats, .. } = self;
        let Some((program, rows)) = programs.find(entry.program) else {
            return false;
        };
        let (verdict, _) = program.decide_within(&entry.facts, occasion);
        let spans = u64::from(entry.facts.spans);
        if verdict.keep {
            stats.kept_spans += spans;
            stats.traces_kept += 1;
        } else {
            stats.sampled_away_spans += spans;
            stats.traces_dropped += 1;
        }
        stats.count_policies(&verdict, rows);
        if let Some(reason) = early {
            stats.early[reason as usize] += 1;
        }
        verdict.keep
    }

    /// Pushes the spans of a trace, oldest first.
    pub(super) fn gather(&mut self, entry: &Entry, out: &mut Batch) {
        let Self { log, headers, chain, .. } = self;
        let mut at = entry.chain.head;
        while !at.is_none() {
            chain.push(at);
            at = log.record(at).prev;
        }
        for at in chain.drain(..).rev() {
            let group = headers.gathered(log.record(at).headers, out);
            if let Some(group) = group {
                out.push(group, log.span(at));
            }
        }
    }

    /// Takes a trace and its spans out of all accounts; what touches memory far away waits for others.
    /// `kept` is the verdict, if there is one to remember.
    pub(super) fn forget(&mut self, slot: u32, entry: &Entry, kept: Option<bool>) {
        if entry.facts.spans > CHAINED_SPANS {
            let Self { log, duplicates, .. } = self;
            let mut at = entry.chain.head;
            while at != entry.chain.elders {
                duplicates.forget(slot, log.span(at));
                at = log.record(at).prev;
            }
        }
        if !entry.chain.head.is_none() {
            self.graves.push(entry.chain.head);
        }
        self.dying.push(Dying { key: entry.key, slot, kept });
        if self.dying.len() == DYING_MAX {
            self.bury();
        }
    }

    /// Completes what [`Shard::forget`] began: remembers verdicts, and takes spans out of the accounts, one
    /// of each trace in turn. All of that lies far apart: what belongs to many traces a processor fetches
    /// from memory at the same time, what belongs to one only step by step.
    pub(super) fn bury(&mut self) {
        let Self { log, headers, index, memory, dying, graves, .. } = self;
        for trace in &*dying {
            index.unlink(trace.key, trace.slot);
        }
        for trace in dying.drain(..) {
            if let Some(kept) = trace.kept {
                match memory.find_mut(trace.key) {
                    Some(known) => *known = kept,
                    None => memory.insert(trace.key, kept),
                }
            }
        }
        let mut ends = [(Location::NONE, 0, 0); DYING_MAX];
        while !graves.is_empty() {
            for (at, end) in graves.iter().zip(&mut ends) {
                let record = log.record(*at);
                *end = (record.prev, record.headers, log.len_of(*at));
            }
            let mut ends = ends.iter();
            graves.retain_mut(|at| {
                let Some((prev, group, len)) = ends.next() else { return false };
                log.discount(*at, *len);
                headers.release(*group);
                *at = *prev;
                !prev.is_none()
            });
        }
    }

    // === Room ===

    /// Whether the oldest trace may be old enough to be decided early; answered without a look at any trace.
    pub(super) fn has_old_traces(&self) -> bool {
        let young = self.config.decision_wait_ms - self.config.decision_wait_ms / RELIEF_AGE_SHARE;
        let oldest = self.deadlines.next().map(|due| due.saturating_sub(BUCKET_MS));
        oldest.is_some_and(|deadline| deadline <= self.now.saturating_add(young))
    }

    /// The traces of the oldest bucket from `from` on that are old enough to be decided early, heaviest
    /// first.
    pub(super) fn old_traces(&self, from: u64, slots: &mut Vec<u32>) -> Option<u64> {
        let bucket = self.deadlines.bucket(&self.index, from, slots)?;
        let age = self.config.decision_wait_ms / RELIEF_AGE_SHARE;
        let entry = |slot: &u32| self.index.get(*slot);
        let old = |entry: &Entry| self.now.saturating_sub(entry.first_seen) >= age;
        slots.retain(|slot| entry(slot).is_some_and(old));
        slots
            .sort_unstable_by_key(|slot| Reverse(entry(slot).map_or(0, |entry| entry.facts.bytes)));
        (!slots.is_empty()).then_some(bucket)
    }

    fn settle_until(&mut self, goal: u64, slots: &[u32], relief: &mut Relief, out: &mut Batch) {
        let mut dead = 0;
        for slot in slots {
            let excess = self.resident().saturating_sub(goal);
            if excess == 0 {
                return;
            }
            if out.encoded_len_max() as u64 >= RELIEF_OUT_BYTES {
                relief.more = true;
                return;
            }
            self.cancel(*slot);
            dead += self.settle(*slot, Some(Early::MemoryPressure), out).bytes;
            relief.decided += 1;
            // What died lies scattered: moving the rest together turns it into whole segments.
            if dead >= excess.max(WASTE_BYTES) {
                self.compact(goal);
                dead = 0;
            }
        }
        self.compact(goal);
    }

    /// Evacuates until the goal is reached or nothing sparse is left.
    pub(super) fn compact(&mut self, goal: u64) {
        while self.resident() > goal
            && self.evacuate(SPARSE_PERCENT_UNDER_PRESSURE, WASTE_BYTES).is_some()
        {
            self.log.drop_spares();
        }
    }

    pub(super) fn tidy(&mut self) {
        self.shrink();
        self.log.cool_down(self.now / BUCKET_MS);
        let mut moved = 0;
        while moved < EVACUATED_BYTES_PER_TURN {
            let slack = WASTE_BYTES.max(self.log.reserved() / WASTE_SHARE);
            match self.evacuate(SPARSE_PERCENT, slack) {
                Some(bytes) => moved += bytes,
                None => return,
            }
        }
    }

    pub(super) fn evacuate(&mut self, percent: u64, slack: u64) -> Option<u64> {
        let Self { log, index, stats, .. } = self;
        let segment = log.sparse(percent, slack)?;
        let moved = log.evacuate(segment, |slot, mover| {
            if let Some(entry) = index.get_mut(slot) {
                mover.walk(&mut entry.chain, entry.due);
            }
        });
        stats.segments_evacuated += 1;
        stats.evacuated_bytes += moved;
        Some(moved)
    }

    pub(super) fn shrink(&mut self) {
        if self.index.len() == 0 {
            self.deadlines = Deadlines::default();
        }
        self.chain.shrink_to(SCRATCH_BYTES / size_of::<Location>());
        self.index.shrink();
        self.headers.shrink();
        self.duplicates.shrink();
    }
}
