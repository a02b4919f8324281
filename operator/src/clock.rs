//! The time twice: a process that was stopped is told by the steady clock, a machine that slept by the wall
//! clock.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    steady: Instant,
    wall: SystemTime,
}

// === impl Moment ===

impl Moment {
    /// The present.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// So much later.
    pub fn after(self, duration: Duration) -> Self {
        Self { steady: self.steady + duration, wall: self.wall + duration }
    }

    /// Whether either clock is past it. The steady clock stands still while a machine sleeps; the wall
    /// clock can be set back. Both at once is somebody's intent.
    pub fn is_past(self) -> bool {
        let now = Self::now();
        now.steady >= self.steady || now.wall >= self.wall
    }

    /// How long it is until then, on the clock that gets there first.
    pub fn remaining(self) -> Duration {
        let now = Self::now();
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        self.steady.saturating_duration_since(now.steady).min(wall)
    }
}
