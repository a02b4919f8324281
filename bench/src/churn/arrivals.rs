//! The backend of a fleet: every span that arrives is checked byte by byte, and remembered with its time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ringtail_engine::scan::{self, Group, Shape, Visit};

use crate::check::Check;
use crate::failure::Result;
use crate::grpc::code;
use crate::server::{Received, Refusal};
use crate::truth::{SPANS, TraceId, World};

/// What a trace's spans did: milliseconds since the start of the fleet, `None` for what never came.
pub(super) type Times = [Option<u32>; SPANS];

/// Everything that arrived.
pub(super) struct Arrivals {
    epoch: Instant,
    check: Check,
    /// By index of the trace.
    first: Vec<Times>,
    /// Spans that arrived, each counted as often as it did.
    spans: u64,
    /// Of those, the ones that had arrived before.
    repeated: u64,
}

/// Shared between the server and who judges.
pub(super) type Shared = Arc<Mutex<Arrivals>>;

// === impl Arrivals ===

impl Arrivals {
    pub(super) fn new(world: World, epoch: Instant) -> Result<Self> {
        let check = Check::new(world)?;
        Ok(Self { epoch, check, first: Vec::new(), spans: 0, repeated: 0 })
    }

    /// When the spans of a trace arrived for the first time.
    pub(super) fn of(&self, index: u64) -> Times {
        self.first.get(index as usize).copied().unwrap_or_default()
    }

    /// Indices of traces that arrived end below this.
    pub(super) fn end(&self) -> u64 {
        self.first.len() as u64
    }

    pub(super) fn spans(&self) -> u64 {
        self.spans
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The check of the bytes.
    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    pub(super) fn note(&mut self, id: &TraceId, span: &[u8]) {
        self.spans += 1;
        let Some((index, number)) = self.check.note(id, span) else { return };
        let now = millis(self.epoch, Instant::now());
        if self.first.len() <= index as usize {
            self.first.resize(index as usize + 1, Times::default());
        }
        match &mut self.first[index as usize][number] {
            Some(_) => self.repeated += 1,
            time => *time = Some(now),
        }
    }
}

/// Milliseconds from the start of a fleet.
pub(super) fn millis(epoch: Instant, at: Instant) -> u32 {
    u32::try_from(at.saturating_duration_since(epoch).as_millis()).unwrap_or(u32::MAX)
}

/// Takes one request of an exporter.
pub(super) fn take(shared: &Shared, received: &Received) -> std::result::Result<(), Refusal> {
    let mut arrivals = shared.lock().unwrap_or_else(PoisonError::into_inner);
    scan::walk(&received.payload, &Shape::UNKNOWN, &mut Noting(&mut arrivals))
        .map_err(|error| Refusal(code::INVALID_ARGUMENT, error.to_string()))
}

struct Noting<'a>(&'a mut Arrivals);

impl Visit for Noting<'_> {
    fn group(&mut self, _: &Group<'_>) {}

    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        self.0.note(id, span);
    }

    fn invalid_span(&mut self, _: &[u8]) {
        self.0.check.note_foreign();
    }
}
