//! How long to leave a pipeline alone after failures in a row.

use std::time::Duration;

/// Short enough that a lost race is made good before anybody looks.
const FIRST: Duration = Duration::from_secs(1);
/// Long enough that a hundred broken pipelines cost less than one request a second.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after `failures` in a row. `jitter` from 0 to 1 takes up to half of it away, so that pipelines
/// that failed together do not come back together.
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0).max(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_five_minutes_and_stays_there() {
        let cases = [
            (0, 0.0, 1.0),
            (1, 0.0, 1.0),
            (1, 1.0, 1.0),
            (2, 0.0, 2.0),
            (2, 0.5, 1.5),
            (5, 0.0, 16.0),
            (9, 0.0, 256.0),
            (10, 0.0, 300.0),
            (10, 1.0, 150.0),
            (u32::MAX, 0.0, 300.0),
        ];
        for (failures, jitter, seconds) in cases {
            let wanted = Duration::from_secs_f64(seconds);
            assert_eq!(delay(failures, jitter), wanted, "{failures} failures, jitter {jitter}");
        }
    }
}
