//! The buffer's byte budget: what shards hold, and what requests under way may still add.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Above this share of the budget the oldest traces are decided early: 85 %.
const HIGH_PERCENT: u64 = 85;
/// Early decisions go on until this share is reached: 80 %, so that they come in groups and not one by one.
const LOW_PERCENT: u64 = 80;

/// The budget, shared by receivers and shards.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    held: AtomicU64,
    reserved: AtomicU64,
}

/// Bytes that a request may add; given back when dropped, after its shards have published what it really
/// took.
#[derive(Debug)]
pub struct Reservation {
    room: Arc<Room>,
    bytes: u64,
}

// === impl Room ===

impl Room {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, held: AtomicU64::new(0), reserved: AtomicU64::new(0) }
    }

    /// Reserves the most that a request can add; `None` when that may not fit.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let reserved = self.reserved.fetch_add(bytes, Relaxed) + bytes;
        // Made first, so that it gives the bytes back on the way out.
        let reservation = Reservation { room: Arc::clone(self), bytes };
        (reserved + self.held.load(Relaxed) <= self.limit).then_some(reservation)
    }

    /// A shard's holdings changed from `was` to `is` bytes.
    pub fn replace(&self, was: u64, is: u64) {
        self.held.fetch_add(is, Relaxed);
        self.held.fetch_sub(was, Relaxed);
    }

    /// How many bytes a shard that holds `own` of them should free now: its share of what is above the low
    /// mark, once the high mark is passed.
    pub fn excess(&self, own: u64) -> u64 {
        let held = self.held.load(Relaxed).max(1);
        let used = held + self.reserved.load(Relaxed);
        if used <= self.limit / 100 * HIGH_PERCENT {
            return 0;
        }
        let over = used - self.limit / 100 * LOW_PERCENT;
        let share = u128::from(over) * u128::from(own) / u128::from(held);
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// The budget in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes held and reserved.
    pub fn used(&self) -> u64 {
        self.held.load(Relaxed) + self.reserved.load(Relaxed)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.reserved.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reservation_takes_nothing() {
        let room = Arc::new(Room::new(100));
        let first = room.reserve(60).unwrap();
        assert!(room.reserve(41).is_none());
        assert_eq!(room.used(), 60);
        drop(first);
        assert!(room.reserve(100).is_some());
    }

    #[test]
    fn excess_is_shared_by_holdings() {
        let room = Room::new(1000);
        room.replace(0, 850);
        assert_eq!(room.excess(850), 0);
        room.replace(0, 50);
        // 900 used, low mark 800: 100 to free, three quarters of it by the shard that holds three quarters.
        assert_eq!(room.excess(675), 75);
        assert_eq!(room.excess(225), 25);
    }
}
