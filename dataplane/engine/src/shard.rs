//! One shard of a gateway: spans go in, wait for the rest of their trace, and come out if the policies say
//! so.
//!
//! A shard is owned by one thread and does nothing by itself: the owner inserts requests, asks it to decide
//! what is due, and sends what came out. How much may be resident is the owner's to say; [`Shard::held`]
//! and [`Shard::worst_case`] tell it what is, and what a request can add at most, [`Shard::relieve`] makes
//! room.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::Millis;
use crate::buffer::deadline::{BUCKET_MS, Deadlines};
use crate::buffer::duplicates::Duplicates;
use crate::buffer::headers::HeaderTable;
use crate::buffer::index::Index;
use crate::buffer::segment::{Location, Log};
use crate::key::{KeySeed, TraceKey};
use crate::memory::DecisionMemory;
use crate::policy::{Occasion, Program, Receipt};
use crate::scan::{ScanError, Shape};
use crate::span_metrics::{Sighting, Tally};

mod arrival;
pub mod custody;
mod programs;
mod stats;
#[cfg(test)]
mod tests;
mod verdict;

use programs::Programs;
pub use stats::{Early, PolicyCount, ShardStats};
pub use verdict::Relief;

/// The longest decision wait: one hour, which bounds the ring of deadlines to 14,400 buckets.
pub const DECISION_WAIT_MS_MAX: Millis = 3_600_000;

/// Room that the scratch buffer keeps between calls: 64 KiB, a trace of 8,192 spans.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Traces that are buried together: more than a processor fetches at a time, few enough that
/// what they touch stays in its nearest cache.
const DYING_MAX: usize = 32;

/// What a receipt takes: its place in a tree that is two thirds full, and two amounts of 64 bytes.
const RECEIPT_BYTES: usize = 192;

/// What makes a shard.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The secret of the fleet; keys and all hashes derive from it.
    pub seed: KeySeed,
    /// Which shard of the process this is, below `shards`.
    pub shard: u32,
    /// How many shards the process has.
    pub shards: u32,
    /// How long after its first span a trace is decided; at most [`DECISION_WAIT_MS_MAX`].
    pub decision_wait_ms: Millis,
    /// How long after a span without a parent it is decided, if that is earlier.
    pub after_root_ms: Option<Millis>,
    /// A trace with more spans is decided at once.
    pub max_trace_spans: u32,
    /// A trace with more bytes of spans is decided at once.
    pub max_trace_bytes: u64,
    /// At least so many of the last decisions are remembered; nothing, if somebody else watches over the
    /// traces ([`custody`]).
    pub memory_keys: usize,
}

/// When traces are decided: what of a [`ShardConfig`] can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceLimits {
    /// See [`ShardConfig::decision_wait_ms`].
    pub decision_wait_ms: Millis,
    /// See [`ShardConfig::after_root_ms`].
    pub after_root_ms: Option<Millis>,
    /// See [`ShardConfig::max_trace_spans`].
    pub max_trace_spans: u32,
    /// See [`ShardConfig::max_trace_bytes`].
    pub max_trace_bytes: u64,
}

/// What became of the spans of a request. Every span with a valid trace ID is in one of the first five
/// counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Taken into the buffer. Those of them that a cap decided at once are in [`ShardStats`] too.
    pub stored: u64,
    /// In the buffer already.
    pub duplicates: u64,
    /// Of traces that were kept before: pushed to `out`.
    pub late_kept: u64,
    /// Of traces that were dropped before.
    pub late_dropped: u64,
    /// Of other shards.
    pub foreign: u64,
    /// Traces first seen in this request.
    pub traces_new: u64,
    /// Traces that passed a cap and were decided; kept ones are in `out`.
    pub traces_capped: u64,
    /// The request ended here; never of a request that passed [`crate::scan::check`].
    pub failed: Option<ScanError>,
}

/// How much one turn may do.
#[derive(Debug, Clone, Copy)]
pub struct TickLimit {
    /// Traces to decide.
    pub traces: u64,
    /// Stop when `out` has grown to this length; the last trace may take it over by its own size.
    pub out_bytes: u64,
}

/// What one turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Traces decided.
    pub decided: u64,
    /// More of the same is waiting: call again when `out` has been sent.
    pub more: bool,
}

/// What a shard holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Everything resident: segments with what is dead in them, index, headers, duplicates, deadlines,
    /// memory.
    pub bytes: u64,
    /// Undecided spans.
    pub spans: u64,
    /// Undecided traces.
    pub traces: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    programs: Programs,
    log: Log,
    index: Index,
    headers: HeaderTable,
    duplicates: Duplicates,
    deadlines: Deadlines,
    /// Of traces that nobody else watches over: whether they were kept.
    memory: DecisionMemory<bool>,
    stats: ShardStats,
    /// The latest `now`: time does not run backwards here.
    now: Millis,
    /// The chain of the trace that is gathered; empty between calls.
    chain: Vec<Location>,
    /// Traces that were decided but not yet buried; empty between calls.
    dying: Vec<Dying>,
    /// Their chains, as far as their spans are still in the accounts.
    graves: Vec<Location>,
    /// Bytes of traces that were judged and are not settled.
    judged_bytes: u64,
    /// Where they are: the verdict comes while their entries are still in the processor's caches.
    judged: HashTable<(TraceKey, u32)>,
    /// What judged traces took from budgets, by slot.
    receipts: BTreeMap<u32, Receipt>,
    /// Among how many gateways budgets are shared.
    members: u32,
    /// Counts spans as they come in, if anybody wants to know.
    metrics: Option<Box<Tally>>,
    /// Spans that were passed on, by the place that the guide gave them: to be counted when somebody has
    /// stored them.
    sightings: Vec<(usize, Sighting)>,
}

/// A trace that was decided.
#[derive(Debug, Clone, Copy)]
struct Dying {
    key: TraceKey,
    slot: u32,
    /// The verdict, if it is to be remembered here.
    kept: Option<bool>,
}

impl Shard {
    /// An empty shard. The memory of decisions is all allocated here.
    pub fn new(config: ShardConfig, program: Arc<Program>) -> Self {
        let mut stats = ShardStats::default();
        let rows = rows(&mut stats, &program);
        let config = ShardConfig {
            decision_wait_ms: config.decision_wait_ms.min(DECISION_WAIT_MS_MAX),
            ..config
        };
        Self {
            programs: Programs::new(program, rows),
            log: Log::new(config.decision_wait_ms.div_ceil(BUCKET_MS)),
            index: Index::default(),
            headers: HeaderTable::default(),
            duplicates: Duplicates::new(&config.seed),
            deadlines: Deadlines::default(),
            memory: DecisionMemory::new(config.memory_keys),
            stats,
            now: 0,
            chain: Vec::new(),
            dying: Vec::with_capacity(DYING_MAX),
            graves: Vec::with_capacity(DYING_MAX),
            judged_bytes: 0,
            judged: HashTable::new(),
            receipts: BTreeMap::new(),
            members: 1,
            metrics: None,
            sightings: Vec::new(),
            config,
        }
    }

    /// Has spans counted from now on.
    pub fn set_metrics(&mut self, tally: Tally) {
        self.metrics = Some(Box::new(tally));
    }

    /// Who counts spans.
    pub fn metrics(&mut self) -> Option<&mut Tally> {
        self.metrics.as_deref_mut()
    }

    /// The spans that went to [`custody::Guide::pass`] since the last call and are to be counted, each with
    /// the place that it was passed to.
    pub fn take_sightings(&mut self) -> Vec<(usize, Sighting)> {
        std::mem::take(&mut self.sightings)
    }

    /// Uses a program for traces first seen from now on; those here already follow the one they began with.
    pub fn set_program(&mut self, program: Arc<Program>) {
        let rows = rows(&mut self.stats, &program);
        self.programs.push(program, rows);
    }

    /// Changes how long traces first seen from now on are held, how long any trace waits after its root, and
    /// with how many spans or bytes any trace is decided at once.
    pub fn set_limits(&mut self, limits: &TraceLimits) {
        self.config.decision_wait_ms = limits.decision_wait_ms.min(DECISION_WAIT_MS_MAX);
        self.config.after_root_ms = limits.after_root_ms;
        self.config.max_trace_spans = limits.max_trace_spans;
        self.config.max_trace_bytes = limits.max_trace_bytes;
        self.log.set_wait(self.config.decision_wait_ms.div_ceil(BUCKET_MS));
    }

    /// Shares the budgets of policies among so many gateways from now on.
    pub fn set_members(&mut self, members: u32) {
        self.members = members.max(1);
    }

    /// What is held now. Cheap enough to ask before every request.
    pub fn held(&self) -> Held {
        Held {
            bytes: self.resident(),
            spans: self.log.live_records(),
            traces: self.index.len() as u64,
        }
    }

    /// At most how much [`Held::bytes`] grows, while and after a request of this shape goes in, whatever is
    /// in it: every span may open a trace, every group bring a new resource. It is the sum of the parts'
    /// own bounds.
    pub fn worst_case(&self, shape: &Shape) -> u64 {
        let spans = u64::from(shape.spans);
        let headers = self.headers.worst_case(u64::from(shape.groups), shape.header_bytes);
        self.log.worst_case(spans, shape.span_bytes)
            + self.index.worst_case(spans)
            + self.duplicates.worst_case(spans)
            + self
                .deadlines
                .worst_case(self.now, self.now.saturating_add(self.config.decision_wait_ms))
            + headers
    }

    /// What was counted since the start.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }

    /// When the next trace is due; `None` when there is none.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.next()
    }

    fn resident(&self) -> u64 {
        let locations = self.chain.capacity() + self.graves.capacity();
        let scratch =
            locations * size_of::<Location>() + self.dying.capacity() * size_of::<Dying>();
        (size_of::<Self>() + scratch) as u64
            + self.log.footprint()
            + self.index.footprint()
            + self.headers.footprint()
            + self.duplicates.footprint()
            + self.deadlines.footprint()
            + self.memory.bytes()
            + self.judged.allocation_size() as u64
            + (self.receipts.len() * RECEIPT_BYTES) as u64
    }

    fn occasion(&self) -> Occasion {
        Occasion { now: self.now, members: self.members }
    }

    fn advance(&mut self, now: Millis) {
        self.now = self.now.max(now);
        self.log.advance(self.now / BUCKET_MS);
    }
}

/// For each policy of the program, its row in the statistics.
fn rows(stats: &mut ShardStats, program: &Program) -> Vec<usize> {
    program.names().iter().map(|name| stats.row(name)).collect()
}
