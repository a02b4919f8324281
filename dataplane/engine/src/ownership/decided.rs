//! Decisions that are remembered with their age, because a change of view may have to tell them again.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use super::message::{Decision, Verdict};
use super::order::{Order, Told};
use crate::Millis;
use crate::key::TraceKey;
use crate::memory::DecisionMemory;

/// What a remembered decision takes at most: in each of two generations 17 bytes a slot of a table whose
/// slots are a power of two, of which 7/8 are used (so up to 16/7 slots a decision), and 24 in the order of
/// arrival (of many that come together, 8).
pub const DECISION_BYTES_MAX: u64 = 2 * (17 * 16_u64).div_ceil(7) + 24;

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

fn units(at: Millis) -> u32 {
    u32::try_from(at >> UNIT).unwrap_or(u32::MAX)
}

impl Decided {
    pub(super) fn new(decision: &Decision, now: Millis) -> Self {
        let at = units(now.saturating_sub(decision.age));
        let Decision { verdict: Verdict { keep, note }, exported, .. } = *decision;
        let flags = if keep { KEEP } else { 0 } | if exported { EXPORTED } else { 0 };
        Self { at, rest: flags | note.min(NOTE) }
    }

    pub(super) fn verdict(self) -> Verdict {
        Verdict { keep: self.has(KEEP), note: self.rest & NOTE }
    }

    /// The decision on `key` as it is told.
    pub(super) fn told(self, key: TraceKey, now: Millis) -> Decision {
        let age = now.saturating_sub(self.at());
        Decision { key, verdict: self.verdict(), age, exported: self.has(EXPORTED) }
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
    memory: DecisionMemory<Decided>,
    /// The last ones, which may be told again, in order of arrival, oldest first.
    order: Order,
    /// The first of `order` that may not be in the table: decisions of others' traces, of which nobody asks
    /// us as long as they stay others'.
    heard_from: usize,
    kept: Millis,
    max: usize,
    /// Those that gave way to others before their time.
    crowded_out: u64,
    /// Decisions that are not in the table yet, told by others and made here; empty between calls of the
    /// state machine, and never more than one message or one turn of judging has.
    fresh: Vec<(TraceKey, Decided)>,
    made: Vec<(TraceKey, Decided)>,
    /// How many were put into the table ever, ...
    entered: u64,
    /// ... and from which number on none of others' traces is in it: each went out by then.
    own_from: u64,
}

/// Decisions that go into the table together. Each touches memory far from that of the others, which a
/// processor fetches at the same time if nothing else is done in between: 32 are more than it can.
const TOGETHER: usize = 32;

/// What became of a decision that was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    New,
    Known,
    /// Another one stands already, and stays.
    Conflict,
}

impl DecidedTraces {
    /// Knows at least the last `max` decisions, and tells them again for `kept` milliseconds. All the memory
    /// that this takes is allocated here.
    pub(super) fn new(kept: Millis, max: usize) -> Self {
        Self {
            memory: DecisionMemory::new(max),
            order: Order::with_capacity(max),
            heard_from: 0,
            kept,
            max,
            crowded_out: 0,
            fresh: Vec::new(),
            made: Vec::new(),
            entered: 0,
            own_from: 0,
        }
    }

    pub(super) fn find(&self, key: TraceKey) -> Option<Decided> {
        let entered = self.fresh.is_empty() && self.made.is_empty();
        debug_assert!(entered, "decisions are not in the table yet");
        self.memory.find(key).copied()
    }

    pub(super) fn learn(&mut self, decision: &Decision, now: Millis) -> Learned {
        let fresh = Decided::new(decision, now);
        if let Some(known) = self.memory.find_mut(decision.key) {
            if known.has(KEEP) != fresh.has(KEEP) {
                return Learned::Conflict;
            }
            known.rest |= fresh.rest & EXPORTED;
            return Learned::Known;
        }
        self.push(decision.key, fresh, now);
        self.enter();
        self.mix();
        Learned::New
    }

    /// The same of a decision on a trace of which none is known. To be followed by [`Self::enter`].
    pub(super) fn learn_new(&mut self, decision: &Decision, now: Millis) {
        self.mix();
        self.push(decision.key, Decided::new(decision, now), now);
    }

    /// The same of a trace of somebody else. It is noted, and found after [`Self::recollect`] only.
    pub(super) fn overhear(&mut self, decision: &Decision, now: Millis) {
        self.note(decision.key, Decided::new(decision, now), now);
    }

    /// Whether a decision on a trace that is not ours to decide may be found. Without any change of view and
    /// long after one it is not, and nobody need look: each look is a place in memory that lies apart.
    pub(super) fn may_know_others(&self) -> bool {
        self.entered < self.own_from
    }

    /// Others' decisions are in the table, or come into it now.
    fn mix(&mut self) {
        let coming = self.fresh.len() + 1;
        // Two generations later all that is there now is forgotten.
        self.own_from = self.entered + (2 * self.memory.generation() + coming) as u64;
    }

    /// From now on all that was heard is found: others' traces may have become ours, and ours others'.
    pub(super) fn recollect(&mut self) {
        if self.heard_from < self.order.len() || !self.memory.is_empty() {
            self.mix();
        }
        let order = std::mem::take(&mut self.order);
        for told in order.iter().skip(self.heard_from) {
            self.fresh.push((told.key, told.decided));
            if self.fresh.len() == TOGETHER {
                self.enter();
            }
        }
        self.enter();
        self.heard_from = order.len();
        self.order = order;
    }

    /// A decision on a trace of which none is known was made here; `unsure`: spans may have been missing.
    /// To be followed by [`Self::enter`].
    pub(super) fn make(&mut self, key: TraceKey, verdict: Verdict, unsure: bool, now: Millis) {
        debug_assert!(self.memory.find(key).is_none(), "a decision is made a second time");
        let mut fresh = Decided::new(&Decision { key, verdict, age: 0, exported: false }, now);
        fresh.rest |= if unsure { UNSURE } else { 0 };
        self.made.push((key, fresh));
        self.note(key, fresh, now);
    }

    /// Puts into the table what was made or learned last.
    pub(super) fn enter(&mut self) {
        let Self { memory, fresh, made, .. } = self;
        // Whatever is made here was looked up before.
        for made in made.chunks(TOGETHER) {
            memory.approach(made.iter().map(|(key, _)| *key));
            made.iter().for_each(|(key, decided)| memory.insert(*key, *decided));
        }
        self.entered += made.len() as u64 + fresh.len() as u64;
        made.clear();
        for fresh in fresh.chunks(TOGETHER) {
            memory.approach(fresh.iter().map(|(key, _)| *key));
            for (key, decided) in fresh {
                // It may have been told twice, the second time with news.
                match memory.find_mut(*key) {
                    Some(known) => known.rest |= decided.rest & EXPORTED,
                    None => memory.insert(*key, *decided),
                }
            }
        }
        fresh.clear();
    }

    fn push(&mut self, key: TraceKey, decided: Decided, now: Millis) {
        self.fresh.push((key, decided));
        self.note(key, decided, now);
    }

    fn note(&mut self, key: TraceKey, decided: Decided, now: Millis) {
        if self.order.len() >= self.max {
            self.forget_oldest();
            self.crowded_out += 1;
        }
        if self.max > 0 {
            self.order.push(Told { key, learned: units(now), decided });
        }
    }

    fn forget_oldest(&mut self) {
        self.order.pop_oldest();
        self.heard_from = self.heard_from.saturating_sub(1);
    }

    /// The backend has these; those of which that is news.
    pub(super) fn mark_exported(&mut self, keys: &[TraceKey]) -> Vec<TraceKey> {
        let is_news = |known: &&mut Decided| !known.has(UNSURE) && !known.has(EXPORTED);
        let mut news = Vec::new();
        for keys in keys.chunks(TOGETHER) {
            self.memory.approach(keys.iter().copied());
            for key in keys {
                if let Some(known) = self.memory.find_mut(*key).filter(is_news) {
                    known.rest |= EXPORTED;
                    news.push(*key);
                }
            }
        }
        news
    }

    /// As it is told.
    pub(super) fn decision(&self, key: TraceKey, now: Millis) -> Option<Decision> {
        self.find(key).map(|known| known.told(key, now))
    }

    /// Those of these that a backend has, as they are told.
    pub(super) fn exported(
        &self,
        keys: &[TraceKey],
        now: Millis,
    ) -> impl Iterator<Item = Decision> {
        let near = keys.chunks(TOGETHER).flat_map(|keys| {
            self.memory.approach(keys.iter().copied());
            keys
        });
        near.filter_map(move |key| self.decision(*key, now)).filter(|decision| decision.exported)
    }

    /// The keys that may be told again, oldest first.
    pub(super) fn keys(&self) -> impl Iterator<Item = TraceKey> {
        self.order.keys()
    }

    /// Those that were learned after `since`, the newest first.
    pub(super) fn last(&self, since: Millis, now: Millis) -> impl Iterator<Item = Decision> {
        let is_late = move |told: &Told| (Millis::from(told.learned) + 1) << UNIT > since;
        let last = self.order.newest().take_while(is_late);
        // What was only heard is not in the table yet, and agents have to know it as well.
        last.map(move |told| {
            let heard = || told.decided.told(told.key, now);
            self.decision(told.key, now).unwrap_or_else(heard)
        })
    }

    /// What is old is told no more; returns how many had to give way before that, since the last time.
    pub(super) fn expire(&mut self, now: Millis) -> u64 {
        let kept = self.kept;
        let old = |learned| (Millis::from(learned) << UNIT) + kept < now;
        while self.order.oldest().is_some_and(old) {
            self.forget_oldest();
        }
        std::mem::take(&mut self.crowded_out)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(key: u64, keep: bool) -> Decision {
        let verdict = Verdict { keep, note: 3 };
        Decision { key: TraceKey(key), verdict, age: 100, exported: false }
    }

    #[test]
    fn a_decision_takes_at_most_what_is_planned() {
        for max in (10_000..100_000).step_by(997) {
            let decided = DecidedTraces::new(1_000, max);
            let bytes = decided.memory.bytes() + decided.order.bytes() as u64;
            assert!(bytes <= max as u64 * DECISION_BYTES_MAX, "{bytes} for {max}");
        }
    }

    #[test]
    fn what_is_too_old_to_be_told_again_is_followed_all_the_same() {
        let mut decided = DecidedTraces::new(1_000, 8);
        assert_eq!(decided.learn(&decision(1, true), 10_000), Learned::New);
        assert_eq!(decided.learn(&decision(1, false), 10_000), Learned::Conflict);
        assert_eq!(decided.expire(11_001), 0);
        assert_eq!(decided.keys().count(), 0);
        let told = decided.decision(TraceKey(1), 11_001).unwrap();
        assert!(told.verdict.keep && (1_101..1_117).contains(&told.age), "{told:?}");
    }

    #[test]
    fn what_was_heard_of_others_traces_is_found_when_they_may_be_ours() {
        let mut decided = DecidedTraces::new(1_000, 100);
        let heard = |key| decision(key, key % 3 == 0);
        for key in 0..70 {
            decided.overhear(&heard(key), 500);
            decided.overhear(&heard(key / 2), 500);
        }
        assert_eq!(decided.find(TraceKey(5)), None);
        assert_eq!(decided.learn(&Decision { exported: true, ..heard(60) }, 600), Learned::New);
        decided.recollect();
        for key in 20..70 {
            let found = decided.decision(TraceKey(key), 600).unwrap();
            assert_eq!((found.verdict.keep, found.exported), (key % 3 == 0, key == 60), "{key}");
        }
        decided.overhear(&heard(200), 600);
        assert_eq!(decided.expire(500 + 1_000 + 16), 42);
        assert_eq!(decided.keys().map(|key| key.0).collect::<Vec<_>>(), [60, 200]);
        decided.recollect();
        assert!(decided.find(TraceKey(200)).is_some());
    }

    #[test]
    fn the_last_ones_are_told_again_and_those_that_gave_way_are_counted() {
        let mut decided = DecidedTraces::new(1_000, 8);
        for key in 0..11 {
            decided.make(TraceKey(key), Verdict { keep: true, note: 0 }, key == 9, 0);
        }
        decided.enter();
        assert_eq!(
            decided.keys().map(|key| key.0).collect::<Vec<_>>(),
            (3..11).collect::<Vec<_>>()
        );
        assert_eq!((decided.expire(500), decided.expire(500)), (3, 0));
        let keys = [8, 9].map(TraceKey);
        assert_eq!(decided.mark_exported(&keys), [TraceKey(8)], "9 was made without all spans");
        assert_eq!(decided.mark_exported(&keys), []);
    }
}
