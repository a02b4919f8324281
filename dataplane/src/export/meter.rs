//! The bytes of a queue: how many there may be, and whether they still move.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Nobody waits for a full queue of which nothing has left for so long: its backend is down, and others do
/// their work. The 25 s in which a process ends leave time for them.
const STUCK: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    limit: u64,
    bytes: AtomicU64,
    since: Instant,
    /// When bytes left, or the first came after there were none: milliseconds after `since`.
    moved: AtomicU64,
}

// === impl Meter ===

impl Meter {
    pub(super) fn new(limit: u64) -> Self {
        let (bytes, moved) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { limit, bytes, since: Instant::now(), moved }
    }

    /// Takes a request in if it has room.
    pub(super) fn admit(&self, bytes: u64, now: Instant) -> bool {
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if before == 0 {
            self.note_move(now);
        }
        let fits = self.fits(before, bytes);
        if !fits {
            self.bytes.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Takes in what waits elsewhere already, whether it has room or not.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A request goes, wherever to.
    pub(super) fn leave(&self, bytes: u64, now: Instant) {
        self.note_move(now);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether a request of so many bytes has room now, or waiting does not help.
    pub(super) fn has_room(&self, bytes: u64, now: Instant) -> bool {
        self.fits(self.bytes(), bytes) || self.is_stuck(now)
    }

    /// So many bytes have room now, none while three quarters are taken; any number when nothing moves, so
    /// that waiting does not help.
    pub(super) fn room(&self, now: Instant) -> u64 {
        let bytes = self.bytes();
        if bytes > 0 && self.is_stuck(now) {
            return u64::MAX;
        }
        let free = self.limit.saturating_sub(bytes);
        if free < self.limit / 4 { 0 } else { free }
    }

    /// An empty queue takes a request of any size: otherwise one that is larger than the queue could never
    /// leave.
    pub(super) fn fits(&self, before: u64, bytes: u64) -> bool {
        before == 0 || before + bytes <= self.limit
    }

    fn is_stuck(&self, now: Instant) -> bool {
        now >= self.since + Duration::from_millis(self.moved.load(Relaxed)) + STUCK
    }

    fn note_move(&self, now: Instant) {
        let after = now.duration_since(self.since).as_millis();
        self.moved.store(u64::try_from(after).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_room_unless_it_is_alone() {
        let (meter, now) = (Meter::new(100), Instant::now());
        assert!(meter.admit(500, now), "nothing else waits");
        assert!(!meter.admit(1, now));
        meter.leave(500, now);
        assert!(meter.admit(60, now) && meter.admit(40, now) && !meter.admit(1, now));
        assert_eq!(meter.bytes(), 100, "what has no room leaves no trace");
    }

    #[test]
    fn who_makes_more_waits_for_a_queue_that_moves() {
        let (meter, start) = (Meter::new(100), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(meter.room(after(60)), 100, "nothing waits, so nothing is stuck");
        meter.admit(40, after(60));
        assert_eq!(meter.room(after(60)), 60);
        meter.admit(60, after(60));
        assert_eq!(meter.room(after(69)), 0);
        meter.leave(1, after(69));
        let room = |seconds| (meter.room(after(seconds)), meter.has_room(2, after(seconds)));
        assert_eq!(room(78), (0, false), "it moved 9 s ago");
        assert_eq!(room(80), (u64::MAX, true), "and now it does not");
        assert!(meter.has_room(1, after(78)));
    }
}
