//! Failures that are told now and then: whoever is away must not fill a disk with that, or the pipe of
//! somebody who does not read, which would stop the process.

use std::time::{Duration, Instant};

/// A failure is told when the last one that was is older than this.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Which failures of one place are told.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

// === impl Seldom ===

impl Seldom {
    /// Something failed at `now`: whether that is told, and how many were not since the last one.
    pub(crate) fn tells(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < TOLD_EVERY) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_ten_seconds() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let told = [0, 1, 9, 10, 11, 25, 40].map(|second| {
            let at = start + Duration::from_secs(second);
            seldom.tells(at)
        });
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}
