//! Which traces are due: buckets of 250 ms, each a list through the entries of the index.
//!
//! Adding, moving and cancelling take a few steps and no memory. A trace is due when its bucket has ended:
//! never before its deadline, and at most one bucket after it.

use std::collections::VecDeque;

use super::index::{Index, Links};
use crate::Millis;

#[cfg(test)]
mod tests;

/// How finely deadlines are told apart.
pub(crate) const BUCKET_MS: Millis = 250;

/// Buckets in advance of the oldest: 65,536 x 250 ms = 4.5 h, with waits up to one hour. A deadline beyond
/// waits in the last bucket and is put off again when that is reached.
const BUCKETS_MAX: u64 = 1 << 16;

/// Ends a list.
const NIL: u32 = u32::MAX;

/// Entries without a bucket.
pub(crate) const UNLINKED: Links = Links { prev: NIL, next: NIL };

/// The deadlines of the traces in an [`Index`].
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// The newest trace of each bucket.
    heads: VecDeque<u32>,
    /// The number of the first bucket; bucket `n` is due at `n` x 250 ms.
    first: u64,
}

impl Deadlines {
    /// Puts a trace that is in no bucket where it is due.
    pub(crate) fn insert(&mut self, index: &mut Index, slot: u32, now: Millis, deadline: Millis) {
        if self.heads.is_empty() {
            self.first = now / BUCKET_MS;
        }
        let due = deadline.div_ceil(BUCKET_MS);
        if let Some(entry) = index.get_mut(slot) {
            entry.due = due;
            self.link(index, slot, due);
        }
    }

    /// Takes a trace out of its bucket.
    pub(crate) fn remove(&mut self, index: &mut Index, slot: u32) {
        let Some(entry) = index.get_mut(slot) else {
            return;
        };
        let (due, links) = (entry.due, entry.links);
        entry.links = UNLINKED;
        if let Some(next) = index.get_mut(links.next) {
            next.links.prev = links.prev;
        }
        match index.get_mut(links.prev) {
            Some(prev) => prev.links.next = links.next,
            None => self.replace_head(due, slot, links.next),
        }
    }

    /// Takes out a trace that is due.
    pub(crate) fn pop_due(&mut self, index: &mut Index, now: Millis) -> Option<u32> {
        let current = now / BUCKET_MS;
        while self.first <= current {
            match self.heads.front() {
                None => return None,
                Some(&NIL) => self.advance(),
                Some(&slot) => {
                    self.remove(index, slot);
                    let due = index.get(slot)?.due;
                    if due <= current {
                        return Some(slot);
                    }
                    self.link(index, slot, due);
                }
            }
        }
        None
    }

    /// Takes out a trace of the oldest bucket, due or not. Buckets that are not due yet stay, for what may
    /// still come.
    pub(crate) fn pop(&mut self, index: &mut Index) -> Option<u32> {
        let slot = *self.heads.iter().find(|head| **head != NIL)?;
        self.remove(index, slot);
        Some(slot)
    }

    /// The traces of the first bucket from number `from` on that has any, and its number.
    pub(crate) fn bucket(&self, index: &Index, from: u64, slots: &mut Vec<u32>) -> Option<u64> {
        slots.clear();
        let skip = from.saturating_sub(self.first) as usize;
        let at = skip + self.heads.iter().skip(skip).position(|head| *head != NIL)?;
        let mut slot = self.heads[at];
        while let Some(entry) = index.get(slot) {
            slots.push(slot);
            slot = entry.links.next;
        }
        Some(self.first + at as u64)
    }

    /// When the next trace is due.
    pub(crate) fn next(&self) -> Option<Millis> {
        let at = self.heads.iter().position(|head| *head != NIL)?;
        Some((self.first + at as u64) * BUCKET_MS)
    }

    /// Capacity in bytes.
    pub(crate) fn footprint(&self) -> u64 {
        (self.heads.capacity() * size_of::<u32>()) as u64
    }

    /// At most how much [`Deadlines::footprint`] grows by deadlines up to `last`: the list of buckets
    /// doubles.
    pub(crate) fn worst_case(&self, now: Millis, last: Millis) -> u64 {
        let first = if self.heads.is_empty() { now / BUCKET_MS } else { self.first };
        let ahead =
            (last.div_ceil(BUCKET_MS) + 1).saturating_sub(first).max(self.heads.len() as u64);
        2 * ahead.clamp(4, BUCKETS_MAX) * size_of::<u32>() as u64
    }

    fn link(&mut self, index: &mut Index, slot: u32, due: u64) {
        let at = self.place(due);
        let next = std::mem::replace(&mut self.heads[at], slot);
        if let Some(entry) = index.get_mut(slot) {
            entry.links = Links { prev: NIL, next };
        }
        if let Some(next) = index.get_mut(next) {
            next.links.prev = slot;
        }
    }

    /// Where the bucket with number `due` is; it is made if it is not there. What should have been due
    /// before the first is due with it.
    fn place(&mut self, due: u64) -> usize {
        let at = due.saturating_sub(self.first).min(BUCKETS_MAX - 1) as usize;
        if at >= self.heads.len() {
            self.heads.resize(at + 1, NIL);
        }
        at
    }

    fn replace_head(&mut self, due: u64, slot: u32, next: u32) {
        let expected = due.saturating_sub(self.first) as usize;
        let at = match self.heads.get(expected) {
            Some(head) if *head == slot => Some(expected),
            // It was put off from a bucket too far ahead.
            _ => self.heads.iter().position(|head| *head == slot),
        };
        if let Some(head) = at.and_then(|at| self.heads.get_mut(at)) {
            *head = next;
        }
    }

    fn advance(&mut self) {
        self.heads.pop_front();
        self.first += 1;
        if self.heads.is_empty() {
            self.heads = VecDeque::new();
        }
    }
}
