//! How long gateways hold a trace, as far as an agent knows it: the manifest may change while traces are
//! held.

use crate::Millis;

/// A trace follows the wait with which it was first seen, so a longer one that was in force lately counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waits {
    current: Millis,
    /// One that was longer, and until when traces may still follow it.
    earlier: Option<(Millis, Millis)>,
}

impl Waits {
    pub(super) fn new(wait: Millis) -> Self {
        Self { current: wait, earlier: None }
    }

    /// Another wait is in force from now on. The last trace of the old one is of no interest `after` its
    /// decision.
    pub(super) fn set(&mut self, wait: Millis, after: Millis, now: Millis) {
        let longest = self.longest(now);
        if wait < longest {
            self.earlier = Some((longest, now + longest + after));
        }
        self.current = wait;
    }

    /// The longest that any trace may be held now.
    pub(super) fn longest(&self, now: Millis) -> Millis {
        let earlier = self.earlier.filter(|(_, until)| now < *until);
        earlier.map_or(0, |(wait, _)| wait).max(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_wait_counts_once_the_traces_of_the_longer_one_are_decided() {
        let mut waits = Waits::new(30_000);
        waits.set(5_000, 25_000, 100_000);
        assert_eq!(waits.longest(154_999), 30_000);
        assert_eq!(waits.longest(155_000), 5_000);
    }

    #[test]
    fn a_longer_wait_counts_at_once() {
        let mut waits = Waits::new(5_000);
        waits.set(30_000, 25_000, 0);
        assert_eq!(waits.longest(0), 30_000);
    }

    #[test]
    fn the_longest_of_several_changes_counts() {
        let mut waits = Waits::new(60_000);
        waits.set(10_000, 0, 0);
        waits.set(1_000, 0, 1_000);
        assert_eq!(waits.longest(59_999), 60_000);
        assert_eq!(waits.longest(61_000), 1_000);
    }
}
