//! Files that others replace while we run, such as Secrets: they are read again and again, and used when they
//! are new.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often they are read: a few small files, and certificates are renewed hours before they end.
pub(crate) const READ_EVERY: Duration = Duration::from_secs(1);

/// What came of new files.
#[derive(Debug, Default)]
pub struct Renewals {
    /// Those that were taken into use after the first.
    pub applied: AtomicU64,
    /// Those that cannot be used.
    pub refused: AtomicU64,
}

// === impl Renewals ===

impl Renewals {
    /// Counts what came of new files, and tells it.
    pub(crate) fn count(&self, what: &str, outcome: Result<(), impl Display>) {
        match outcome {
            Ok(()) => {
                self.applied.fetch_add(1, Relaxed);
                tracing::info!("new {what} are in use");
            }
            Err(why) => {
                self.refused.fetch_add(1, Relaxed);
                tracing::warn!(%why, "new {what} cannot be used; the old ones stay");
            }
        }
    }
}

/// Reads again and again, and hands over what differs from what was judged before; never ends.
///
/// What is read has a mark that tells it from others. Nothing is read while files are being replaced: they
/// may be away, or not fit together, for a moment.
pub(crate) async fn follow<M: PartialEq, T>(
    mut judged: Option<M>,
    mut read: impl FnMut() -> Option<(M, T)>,
    mut judge: impl FnMut(T),
) {
    let mut every = interval(READ_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some((mark, files)) = read() else { continue };
        if judged.as_ref() == Some(&mark) {
            continue;
        }
        judged = Some(mark);
        judge(files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_new_is_judged_once_and_what_is_away_not_at_all() {
        // A mark a second: what was judged before, nothing, something new twice, the old one again.
        let mut turns = [Some(1), None, Some(2), Some(2), None, Some(1)].into_iter();
        let mut judged = Vec::new();
        let read = || turns.next().flatten().map(|mark| (mark, mark * 10));
        let followed = follow(Some(1), read, |files| judged.push(files));
        let ended = tokio::time::timeout(READ_EVERY * 10, followed).await;
        assert!(ended.is_err(), "it never ends");
        assert_eq!(judged, [20, 10]);
    }
}
