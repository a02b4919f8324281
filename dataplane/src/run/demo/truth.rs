//! Whether traces arrive whole, while the demo runs: what the shop has sent beside what the backend has got.

use std::time::Duration;

use tokio::time::Instant;

use super::journey::Sent;
use super::sink::Arrivals;
use crate::run::table::Truth;

/// The spans of a kept trace come in a few requests within a second. A gateway that is lost in between costs
/// up to ten until the others have its part.
const REST_WITHIN: Duration = Duration::from_secs(15);
/// A trace of which nothing has come by then was sampled away: decision wait, fence and more.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Traces that may still become whole.
#[derive(Debug, Default)]
pub struct Watching {
    open: Vec<(Sent, Instant)>,
    seen: usize,
    truth: Truth,
}

// === impl Watching ===

impl Watching {
    /// Looks at what has changed.
    pub fn look(&mut self, sent: &[Sent], arrivals: &Arrivals, now: Instant) -> Truth {
        let new = sent.get(self.seen..).unwrap_or_default();
        self.open.extend(new.iter().map(|sent| (*sent, now)));
        self.seen = sent.len();
        let Self { open, truth, .. } = self;
        truth.split = 0;
        open.retain(|(sent, noticed)| {
            let Some(arrived) = arrivals.traces.get(&sent.id) else {
                return now < *noticed + FORGET_AFTER;
            };
            let whole = arrived.distinct() >= sent.spans as usize;
            truth.whole += u64::from(whole);
            truth.split += u64::from(!whole && now >= arrived.since + REST_WITHIN);
            !whole
        });
        *truth
    }
}
