//! Waits for a condition, and gives up early when a process that it depends on has ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::process::Process;

/// Between two looks: short against anything that is waited for, long against a request on loopback.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks `probe` until it gives a value. `what` completes the sentence "... did not happen".
pub(crate) async fn until<T>(
    within: Duration,
    what: &str,
    processes: &[&Process],
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Error> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe().await {
            return Ok(value);
        }
        for process in processes {
            process.check()?;
        }
        if Instant::now() > deadline {
            return Err(Error::Timeout { what: what.to_owned(), seconds: within.as_secs() });
        }
        sleep(PAUSE).await;
    }
}
