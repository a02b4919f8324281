//! Discovery: where gateways may be found. It yields candidates, which are addresses; who is a member they
//! say themselves (see [`crate::membership`]).
//!
//! A source that fails keeps its last list: no list is ever shorter because somebody could not be asked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub mod cluster;
pub mod dns;
pub mod slices;

/// Candidates that one process keeps in touch with: twice the 64 gateways that a pipeline may have, since
/// in a blue/green rollout both colours are there. Each costs two connections of some 45 KiB, a call every
/// 750 ms and two tasks: 12 MiB in all. Of more, the first in order are taken, by every process the same.
pub const CANDIDATES_MAX: usize = 128;

/// An address where a gateway may be, and what is said of it there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// `host:port`.
    pub address: String,
    /// How it stands, as far as others know.
    pub standing: Standing,
    /// The name of its pod, where there are pods.
    pub pod: Option<String>,
}

/// How a candidate stands in the eyes of the cluster; the more alive, the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It may serve, if it says so itself.
    Serving,
    /// It is not ready, yet or any more.
    Starting,
    /// It is being deleted.
    Draining,
}

/// A list of candidates, sorted; `None` until the source has yielded its first.
pub type Candidates = Option<Arc<[Candidate]>>;

/// A running source.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The newest list.
    pub candidates: watch::Receiver<Candidates>,
    /// How the source fares.
    pub health: Arc<Health>,
}

/// How a source fares, for metrics.
#[derive(Debug)]
pub struct Health {
    /// What kind of source it is, as the Collector's metrics call it.
    pub resolver: &'static str,
    /// Attempts to list, watch or resolve that failed.
    pub failures: AtomicU64,
    /// Attempts that succeeded.
    pub resolutions: AtomicU64,
    /// Requests sent to the API server.
    pub requests: AtomicU64,
    /// Candidates that were left out for [`CANDIDATES_MAX`].
    pub left_out: AtomicU64,
    /// Since when nothing could be learned; `None` while all is well.
    failing_since: Mutex<Option<Instant>>,
}

// === impl Discovery ===

impl Discovery {
    /// A fixed list.
    pub fn fixed(addresses: &[String]) -> Self {
        let (list, candidates) = watch::channel(None);
        let health = Arc::new(Health::new("static"));
        list.send_replace(Some(health.bounded(Self::serving(addresses))));
        Self { candidates, health }
    }

    /// Lists that somebody else sends, the newest one counts.
    pub fn told(mut lists: watch::Receiver<Option<Vec<String>>>) -> Self {
        let (list, candidates) = watch::channel(None);
        lists.mark_changed();
        let health = Arc::new(Health::new("static"));
        let bound = Arc::clone(&health);
        tokio::spawn(async move {
            while lists.changed().await.is_ok() {
                let told = lists.borrow_and_update().as_deref().map(Self::serving);
                if let Some(told) = told {
                    list.send_replace(Some(bound.bounded(told)));
                }
            }
            // Nobody tells any more: the last list stands.
            list.closed().await;
        });
        Self { candidates, health }
    }

    fn serving(addresses: &[String]) -> Vec<Candidate> {
        let candidate = |address: &String| Candidate {
            address: address.clone(),
            standing: Standing::Serving,
            pod: None,
        };
        let mut candidates: Vec<Candidate> = addresses.iter().map(candidate).collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }
}

// === impl Health ===

impl Health {
    /// Of a source that has not failed yet.
    pub fn new(resolver: &'static str) -> Self {
        Self {
            resolver,
            failures: AtomicU64::new(0),
            resolutions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            failing_since: Mutex::new(None),
        }
    }

    /// An attempt failed.
    pub fn fail(&self) {
        self.failures.fetch_add(1, Relaxed);
        self.since().get_or_insert_with(Instant::now);
    }

    /// The source answered.
    pub fn succeed(&self) {
        self.resolutions.fetch_add(1, Relaxed);
        *self.since() = None;
    }

    /// How long nothing could be learned; zero while all is well.
    pub fn failing_for(&self) -> Duration {
        self.since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The first [`CANDIDATES_MAX`] of a sorted list, those that may serve before the others.
    pub fn bounded(&self, mut candidates: Vec<Candidate>) -> Arc<[Candidate]> {
        let left_out = candidates.len().saturating_sub(CANDIDATES_MAX);
        if left_out > 0 {
            candidates.sort_by_key(|candidate| candidate.standing);
            candidates.truncate(CANDIDATES_MAX);
            candidates.sort_unstable();
            tracing::warn!(left_out, "more gateways are listed than can be kept in touch with");
        }
        self.left_out.store(left_out as u64, Relaxed);
        candidates.into()
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
