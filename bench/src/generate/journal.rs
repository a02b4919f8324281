//! When which request of a load was taken, told while the load runs.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::plan::Step;

/// Shared between a load and who watches it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    closed: AtomicBool,
    taken: Mutex<Vec<Taken>>,
}

/// One request that was answered OK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Which one.
    pub(crate) step: Step,
    /// When the answer came.
    pub(crate) at: Instant,
}

// === impl Journal ===

impl Journal {
    /// No further trace is begun.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub(super) fn note(&self, step: Step) {
        self.lock().push(Taken { step, at: Instant::now() });
    }

    /// Everything that was taken so far.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
