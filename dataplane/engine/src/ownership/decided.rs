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

/// What is remembered of a decided trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) at: Millis,
    pub(super) exported: bool,
    /// Made here while spans may have been missing, so that what comes later may be new to the backend.
    pub(super) unsure: bool,
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

    pub(super) fn find(&self, key: TraceKey) -> Option<&Decided> {
        self.by_key.get(&key)
    }

    pub(super) fn learn(&mut self, decision: &Decision, now: Millis) -> Learned {
        let at = now.saturating_sub(decision.age);
        let Decision { key, verdict, exported, .. } = *decision;
        if let Some(known) = self.by_key.get_mut(&key) {
            if known.verdict.keep != verdict.keep {
                return Learned::Conflict;
            }
            known.exported |= exported;
            return Learned::Known;
        }
        self.by_key.insert(key, Decided { verdict, at, exported, unsure: false });
        self.order.push_back((now, key));
        Learned::New
    }

    /// The backend has it; whether that is news.
    pub(super) fn mark_exported(&mut self, key: TraceKey) -> bool {
        let known = self.by_key.get_mut(&key).filter(|known| !known.unsure);
        known.is_some_and(|known| !std::mem::replace(&mut known.exported, true))
    }

    /// The decision was made though spans may have been missing.
    pub(super) fn doubt(&mut self, key: TraceKey) {
        if let Some(known) = self.by_key.get_mut(&key) {
            known.unsure = true;
        }
    }

    /// As it is told.
    pub(super) fn decision(&self, key: TraceKey, now: Millis) -> Option<Decision> {
        let known = self.by_key.get(&key)?;
        let age = now.saturating_sub(known.at);
        Some(Decision { key, verdict: known.verdict, age, exported: known.exported })
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
