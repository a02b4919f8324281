//! How long to wait before the next attempt: doubling, capped, with full jitter.

use std::time::Duration;

/// The pauses of one thing that keeps failing.
///
/// The jitter is an argument: `random` is a number in `0.0..1.0`, so that the type is a pure function of
/// its history.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses of up to `first` after one failure, then twice as long each time, up to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failures: 0 }
    }

    /// Counts a failure and says how long to pause: anything between nothing and the ceiling, so that
    /// many clients of one server that went away do not come back as one.
    pub fn fail(&mut self, random: f64) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// It worked: the next failure pauses shortly again.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.fail(1.0).as_millis() as u64).collect()
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(ceilings(&mut backoff, 6), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.failures(), 6);
        backoff.succeed();
        assert_eq!(ceilings(&mut backoff, 1), [100]);
    }

    #[test]
    fn jitter_takes_any_part_of_the_pause() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(backoff.fail(0.0), Duration::ZERO);
        assert_eq!(backoff.fail(0.5), Duration::from_millis(100));
        assert_eq!(backoff.fail(7.0), Duration::from_millis(400));
    }

    #[test]
    fn failing_for_ever_stays_at_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(5));
        let last = ceilings(&mut backoff, 200);
        assert!(last[20..].iter().all(|pause| *pause == 5000));
    }
}
