//! Counters behind the ledger of a process: where every span went, by reason.
//!
//! Written with relaxed atomics, once a request or batch and never once a span; read when somebody asks.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ringtail_engine::scan::Shape;

use crate::stats::{ExporterLedger, LedgerReport, Reasons, Received};

/// Why a span was refused: the sender was told, and still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The trace ID is not 16 bytes, or all zero.
    InvalidTraceId,
    /// Something else in the span is wrong: a text that is not UTF-8, nesting without end, a cut field.
    Malformed,
    /// The memory budget is spent.
    NoRoom,
    /// No gateway is known, or none has room.
    NoGateway,
    /// The process is stopping.
    Stopping,
    /// The gateway is in no position to hold it, and reaches nobody who is.
    NoHolder,
}

/// Why a span that was taken left without reaching anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The receiver refused it for good (invalid, or too large for it).
    RefusedForGood,
    /// The queue of the exporter was full.
    QueueFull,
    /// Retried for as long as the manifest allows.
    RetriesExhausted,
    /// The process had to stop before anybody took it.
    Stopping,
    /// The receiver took the request but not this span (`partial_success`).
    PartialSuccess,
    /// The exporter's condition does not hold for it, or one of an agent's `filter` does.
    Filtered,
    /// The exporter's condition could not be asked about it.
    FilterFailed,
    /// The exporter printed enough in that second.
    NotPrinted,
    /// The exporter's file could not be written.
    WriteFailed,
    /// The exporter's queue on disk lost it.
    DiskLost,
    /// A log record of whose trace no decision is known, where the manifest says Drop.
    Undecided,
}

/// Why a field of a request is not passed on. No span that the ledger knows is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It held spans before 2022 and is reserved since: field 1000 of `ResourceSpans`.
    LegacySpans,
    /// OTLP does not know it, and no span owns it: an unknown field of the request itself.
    UnknownRequestField,
}

/// Counters by reasons of kind `R`.
#[derive(Debug)]
pub struct ByReason<R, const N: usize>([AtomicU64; N], PhantomData<R>);

/// The counters of one process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Spans received from clients, peers and as replays.
    pub from_clients: AtomicU64,
    /// Spans received from peers.
    pub from_peers: AtomicU64,
    /// Spans received again, flagged as such.
    pub from_replays: AtomicU64,
    /// Spans that a peer has acknowledged.
    pub out: AtomicU64,
    /// Spans of undecided traces that were put into parcels for their new owner, each time.
    pub handed_over: AtomicU64,
    /// Of the duplicates: replayed spans that were exported before.
    pub repeated: AtomicU64,
    /// Spans of kept traces.
    pub kept: AtomicU64,
    /// Spans of traces that were decided against.
    pub sampled_away: AtomicU64,
    /// Spans received before.
    pub duplicate: AtomicU64,
    /// Refused, by reason.
    pub refused: ByReason<Refused, { Refused::ALL.len() }>,
    /// Dropped, by reason.
    pub dropped: ByReason<Dropped, { Dropped::ALL.len() }>,
    /// Fields of requests that were taken without them, by reason.
    pub left_out: ByReason<LeftOut, { LeftOut::ALL.len() }>,
}

/// The counters of one exporter.
#[derive(Debug, Default)]
pub struct ExporterCounters {
    /// Spans handed to the exporter.
    pub taken: AtomicU64,
    /// Spans that the backend has acknowledged.
    pub sent: AtomicU64,
    /// Spans waiting or under way.
    pub held: AtomicU64,
    /// Requests that failed and were tried again.
    pub retries: AtomicU64,
    /// Dropped, by reason.
    pub dropped: ByReason<Dropped, { Dropped::ALL.len() }>,
}

// === impl Refused, Dropped, LeftOut ===

impl Refused {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 6] = [
        Self::InvalidTraceId,
        Self::Malformed,
        Self::NoRoom,
        Self::NoGateway,
        Self::Stopping,
        Self::NoHolder,
    ];

    /// The label in metrics and ledgers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::InvalidTraceId => "invalid_trace_id",
            Self::Malformed => "malformed",
            Self::NoRoom => "no_room",
            Self::NoGateway => "no_gateway",
            Self::Stopping => "stopping",
            Self::NoHolder => "no_holder",
        }
    }
}

impl Dropped {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::RefusedForGood,
        Self::QueueFull,
        Self::RetriesExhausted,
        Self::Stopping,
        Self::PartialSuccess,
        Self::Filtered,
        Self::FilterFailed,
        Self::NotPrinted,
        Self::WriteFailed,
        Self::DiskLost,
        Self::Undecided,
    ];

    /// The labels of what an exporter leaves out because it was told to: no failure to send.
    pub const LEFT_OUT: [&'static str; 3] = ["filtered", "filter_failed", "not_printed"];

    /// The label in metrics and ledgers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::RefusedForGood => "refused_for_good",
            Self::QueueFull => "queue_full",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Stopping => "stopping",
            Self::PartialSuccess => "partial_success",
            Self::Filtered => "filtered",
            Self::FilterFailed => "filter_failed",
            Self::NotPrinted => "not_printed",
            Self::WriteFailed => "write_failed",
            Self::DiskLost => "disk_lost",
            Self::Undecided => "undecided",
        }
    }
}

impl LeftOut {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 2] = [Self::LegacySpans, Self::UnknownRequestField];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LegacySpans => "legacy_spans",
            Self::UnknownRequestField => "unknown_request_field",
        }
    }
}

// === impl ByReason ===

impl<R, const N: usize> Default for ByReason<R, N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)), PhantomData)
    }
}

impl<R, const N: usize> ByReason<R, N> {
    fn add_at(&self, index: usize, spans: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(spans, Relaxed);
        }
    }

    fn report(&self, labels: impl Iterator<Item = &'static str>) -> Reasons {
        labels
            .zip(&self.0)
            .map(|(label, counter)| (label.to_owned(), counter.load(Relaxed)))
            .filter(|(_, spans)| *spans > 0)
            .collect()
    }
}

impl ByReason<Refused, { Refused::ALL.len() }> {
    /// Counts refused spans.
    pub fn add(&self, reason: Refused, spans: u64) {
        self.add_at(reason as usize, spans);
    }
}

impl ByReason<Dropped, { Dropped::ALL.len() }> {
    /// Counts dropped spans.
    pub fn add(&self, reason: Dropped, spans: u64) {
        self.add_at(reason as usize, spans);
    }
}

impl ByReason<LeftOut, { LeftOut::ALL.len() }> {
    /// Counts what a taken request of this shape loses.
    pub fn add(&self, shape: &Shape) {
        self.add_at(LeftOut::LegacySpans as usize, u64::from(shape.legacy_fields));
        self.add_at(LeftOut::UnknownRequestField as usize, u64::from(shape.unknown_request_fields));
    }

    /// The counts, all reasons included.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.0.iter().map(|counter| counter.load(Relaxed));
        LeftOut::ALL.into_iter().map(LeftOut::label).zip(counts)
    }
}

// === impl Counters ===

impl Counters {
    /// The ledger, given how many spans are in memory now.
    pub fn report<'a>(
        &self,
        held: u64,
        exporters: impl Iterator<Item = (&'a str, ExporterLedger)>,
    ) -> LedgerReport {
        LedgerReport {
            received: Received {
                clients: self.from_clients.load(Relaxed),
                peers: self.from_peers.load(Relaxed),
                replays: self.from_replays.load(Relaxed),
            },
            out: self.out.load(Relaxed),
            kept: self.kept.load(Relaxed),
            sampled_away: self.sampled_away.load(Relaxed),
            refused: self.refused.report(Refused::ALL.iter().map(|reason| reason.label())),
            duplicate: self.duplicate.load(Relaxed),
            dropped: self.dropped.report(Dropped::ALL.iter().map(|reason| reason.label())),
            held,
            exporters: exporters.map(|(name, line)| (name.to_owned(), line)).collect(),
            logs: None,
            balanced: false,
        }
        .settle()
    }
}

impl ExporterCounters {
    /// The exporter's line of the ledger, given how many spans an earlier process left on disk.
    pub fn report(&self, recovered: u64) -> ExporterLedger {
        ExporterLedger {
            received: self.taken.load(Relaxed),
            recovered,
            sent: self.sent.load(Relaxed),
            dropped: self.dropped.report(Dropped::ALL.iter().map(|reason| reason.label())),
            held: self.held.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringtail_engine::scan::{self, ScanLimits};

    use super::*;

    #[test]
    fn what_a_request_loses_is_counted_by_reason() {
        // A resource with two legacy fields of no bytes (number 1000), and an unknown field 2 of the request.
        let request = [&[0x0a, 6][..], &[0xc2, 0x3e, 0, 0xc2, 0x3e, 0], &[0x10, 7]].concat();
        let shape = scan::check(&request, &ScanLimits::default()).unwrap();
        let counters = Counters::default();
        counters.left_out.add(&shape);
        let counts: Vec<_> = counters.left_out.counts().collect();
        assert_eq!(counts, [("legacy_spans", 2), ("unknown_request_field", 1)]);
    }
}
