//! The clock of a gateway: one for all of its threads, that never runs backwards.

use ringtail_engine::Millis;
use tokio::time::Instant;

/// What the clock shows at the start. Spans come with an age, and traces that are older than this process
/// have to have a time before it: the longest wait is an hour, and agents retain for two minutes more at
/// most.
const START: Millis = 2 * 3_600_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

// === impl Clock ===

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Milliseconds now.
    pub fn now(&self) -> Millis {
        START + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX / 2)
    }
}
