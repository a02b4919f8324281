//! Decisions that are remembered with their age, because a change of view may have to tell them again.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use super::message::{Decision, Verdict};
use crate::Millis;
use crate::key::TraceKey;

/// A table by trace key. Keys are keyed hashes already, so they are used as they are.
pub(super) type ByKey<T> = HashMap<TraceKey, T, BuildHasherDefault<KeyHasher>>;

/// See [`ByKey`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyHasher(u64);

/// What is remembered of a decided trace: with its key 16 bytes in the table, of which every decision of this
/// gateway and of those that it witnesses takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decided {
    /// In units of 16 ms, which last for two years; earlier rather than later.
    at: u32,
    /// The verdict's note in the lower bits, and the flags.
    rest: u32,
}

/// Units of time are so many milliseconds, as a power of two.
const UNIT: u32 = 4;
const KEEP: u32 = 1 << 31;
const EXPORTED: u32 = 1 << 30;
/// Made here while spans may have been missing, so that what comes later may be new to the backend.
const UNSURE: u32 = 1 << 29;
/// Notes are numbers of policies; a larger one is told as the largest.
const NOTE: u32 = UNSURE - 1;

impl Decided {
    fn new(decision: &Decision, now: Millis) -> Self {
        let at = now.saturating_sub(decision.age) >> UNIT;
        let Decision { verdict: Verdict { keep, note }, exported, .. } = *decision;
        let flags = if keep { KEEP } else { 0 } | if exported { EXPORTED } else { 0 };
        Self { at: u32::try_from(at).unwrap_or(u32::MAX), rest: flags | note.min(NOTE) }
    }

    pub(super) fn verdict(self) -> Verdict {
        Verdict { keep: self.has(KEEP), note: self.rest & NOTE }
    }

    fn has(self, flag: u32) -> bool {
        self.rest & flag != 0
    }

    fn at(self) -> Millis {
        Millis::from(self.at) << UNIT
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct DecidedTraces {
    by_key: ByKey<Decided>,
    /// In order of arrival, oldest first.
    order: VecDeque<(Millis, TraceKey)>,
    kept: Millis,
    max: usize,
}

/// What became of a decision that was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    New,
    Known,
    /// Another one stands already, and stays.
    Conflict,
}

impl DecidedTraces {
    /// Remembers for `kept` milliseconds, and at most the last `max` decisions.
    pub(super) fn new(kept: Millis, max: usize) -> Self {
        Self { by_key: ByKey::default(), order: VecDeque::new(), kept, max }
    }

    pub(super) fn find(&self, key: TraceKey) -> Option<Decided> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn learn(&mut self, decision: &Decision, now: Millis) -> Learned {
        let fresh = Decided::new(decision, now);
        if let Some(known) = self.by_key.get_mut(&decision.key) {
            if known.has(KEEP) != fresh.has(KEEP) {
                return Learned::Conflict;
            }
            known.rest |= fresh.rest & EXPORTED;
            return Learned::Known;
        }
        self.by_key.insert(decision.key, fresh);
        self.order.push_back((now, decision.key));
        Learned::New
    }

    /// The backend has it; whether that is news.
    pub(super) fn mark_exported(&mut self, key: TraceKey) -> bool {
        let news = |known: &&mut Decided| !known.has(UNSURE) && !known.has(EXPORTED);
        let known = self.by_key.get_mut(&key).filter(news);
        known.map(|known| known.rest |= EXPORTED).is_some()
    }

    /// The decision was made though spans may have been missing.
    pub(super) fn doubt(&mut self, key: TraceKey) {
        if let Some(known) = self.by_key.get_mut(&key) {
            known.rest |= UNSURE;
        }
    }

    /// As it is told.
    pub(super) fn decision(&self, key: TraceKey, now: Millis) -> Option<Decision> {
        let known = self.find(key)?;
        let age = now.saturating_sub(known.at());
        Some(Decision { key, verdict: known.verdict(), age, exported: known.has(EXPORTED) })
    }

    /// The keys, oldest first.
    pub(super) fn keys(&self) -> impl Iterator<Item = TraceKey> {
        self.order.iter().map(|(_, key)| *key)
    }

    /// Those that were learned after `since`, the newest first.
    pub(super) fn last(&self, since: Millis, now: Millis) -> impl Iterator<Item = Decision> {
        let last = self.order.iter().rev().take_while(move |(learned, _)| *learned >= since);
        last.filter_map(move |(_, key)| self.decision(*key, now))
    }

    /// Forgets what is old, and the oldest if there are too many; returns how many of those there were.
    pub(super) fn expire(&mut self, now: Millis) -> u64 {
        let mut early = 0;
        while let Some((learned, key)) = self.order.front().copied()
            && (learned + self.kept < now || self.order.len() > self.max)
        {
            early += u64::from(learned + self.kept >= now);
            self.order.pop_front();
            self.by_key.remove(&key);
        }
        early
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
