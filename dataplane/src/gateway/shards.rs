//! Shard threads: each owns one `Shard` of the engine, alone; others send it bounded messages and read its
//! gauges.
//!
//! A turn takes what has arrived (at most [`INSERTS_PER_TURN`] requests), then decides a bounded number of
//! traces, so that neither ingest can starve decisions nor the other way round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ringtail_engine::batch::Batch;
use ringtail_engine::policy::Program;
use ringtail_engine::scan::Shape;
use ringtail_engine::shard::{Early, PolicyCount, Shard, ShardConfig, ShardStats, TickLimit};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::output::Output;
use super::room::{Reservation, Room};
use crate::ledger::Counters;
use crate::transport::Permit;

/// Requests that wait for one shard. Their bytes are charged to the receive budget, so this bounds only the
/// queue's own memory and the time that a request waits behind others.
const QUEUE_MAX: usize = 256;
/// Requests inserted before the shard looks at its deadlines again.
const INSERTS_PER_TURN: usize = 16;
/// Traces decided before the shard looks at its queue again: at about 1 µs a trace and 10 µs a kept one,
/// well under the time of a request.
const DECISIONS_PER_TURN: u64 = 2048;
/// How often deadlines are looked at; half of the engine's bucket of 250 ms.
const TICK: Duration = Duration::from_millis(125);
/// A batch of kept spans is sent when it has this many bytes, under the 4 MiB that OTLP receivers take by
/// default.
const EXPORT_BYTES: u64 = 1 << 20;
/// A batch of kept spans is sent when its first span has waited for so long.
const EXPORT_AGE: Duration = Duration::from_millis(200);

/// What a shard is asked to do.
pub enum Ask {
    /// Store the shard's part of a checked request, then answer.
    Insert {
        /// The whole request; the shard takes the spans whose keys are its own.
        work: Arc<Work>,
        /// Dropped unanswered if the shard ends.
        done: oneshot::Sender<()>,
    },
    /// Decide traces first seen from now on in a new way.
    Reload(Arc<Sampling>),
    /// Decide everything that is held, export it, answer and end.
    Finish(oneshot::Sender<()>),
}

/// How traces are decided: what of a manifest can change while a gateway runs.
#[derive(Debug)]
pub struct Sampling {
    /// The policies, compiled.
    pub program: Arc<Program>,
    /// How long a trace is held.
    pub decision_wait: Duration,
    /// Past it a trace is decided at once.
    pub max_trace_spans: u32,
}

/// A checked request on its way through the shards, with what it is charged for: given back when the last
/// shard is done.
#[derive(Debug)]
pub struct Work {
    /// The request.
    pub request: Bytes,
    /// What the check found in it.
    pub shape: Shape,
    /// Its room in the buffer, until the shards have published what they really took.
    pub _reservation: Reservation,
    /// Its room among the requests being received.
    pub _permit: Permit,
}

/// A place in the queue of a shard.
#[derive(Debug)]
pub struct Slot<'a>(mpsc::Permit<'a, Ask>);

/// What others may know of a shard.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Resident bytes, index and slack included.
    pub bytes: AtomicU64,
    /// Undecided spans.
    pub spans: AtomicU64,
    /// Undecided traces.
    pub traces: AtomicU64,
    /// Traces kept and dropped.
    pub traces_kept: AtomicU64,
    /// Traces decided against.
    pub traces_dropped: AtomicU64,
    /// Traces first seen.
    pub traces_new: AtomicU64,
    /// Traces decided before their time, for lack of room.
    pub early_pressure: AtomicU64,
    /// Traces decided before their time because of their size.
    pub early_size: AtomicU64,
    /// Spans that came after the decision on their trace and followed it: kept.
    pub late_kept: AtomicU64,
    /// Spans that came after the decision on their trace and followed it: dropped.
    pub late_dropped: AtomicU64,
    /// Segments that were evacuated.
    pub evacuated: AtomicU64,
    /// Microseconds that the last turn of decisions took.
    pub turn_us: AtomicU64,
    /// By name of a policy: traces that it kept (a Drop policy: that it dropped). Policies of earlier
    /// manifests stay.
    pub by_policy: ArcSwap<Vec<(String, AtomicU64)>>,
}

/// A shard's address.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    asks: mpsc::Sender<Ask>,
    /// What it tells about itself.
    pub gauges: Arc<Gauges>,
}

/// How much of the shard's own counts is in the ledger of the process already.
#[derive(Debug, Default)]
struct Counted {
    kept: u64,
    sampled_away: u64,
    duplicates: u64,
}

/// What a shard's thread owns.
struct Worker {
    shard: Shard,
    started: Instant,
    asks: mpsc::Receiver<Ask>,
    gauges: Arc<Gauges>,
    counters: Arc<Counters>,
    room: Arc<Room>,
    output: Output,
    kept: Batch,
    kept_since: Option<Instant>,
    /// Bytes last published to `room`.
    published: u64,
    counted: Counted,
}

// === impl ShardHandle ===

impl ShardHandle {
    /// Starts a shard on a thread of its own.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn(
        config: ShardConfig,
        program: &Arc<Program>,
        counters: Arc<Counters>,
        room: Arc<Room>,
        output: Output,
    ) -> std::io::Result<Self> {
        let (asks, inbox) = mpsc::channel(QUEUE_MAX);
        let gauges = Arc::<Gauges>::default();
        let name = format!("shard-{}", config.shard);
        let worker = Worker {
            shard: Shard::new(config, Arc::clone(program)),
            started: Instant::now(),
            asks: inbox,
            gauges: Arc::clone(&gauges),
            counters,
            room,
            output,
            kept: Batch::default(),
            kept_since: None,
            published: 0,
            counted: Counted::default(),
        };
        // A runtime of its own, so that waiting for requests and for the next tick is one wait.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name(name).spawn(move || runtime.block_on(worker.run()))?;
        Ok(Self { asks, gauges })
    }

    /// Waits for a place in the shard's queue; `None` when the shard has ended.
    pub async fn slot(&self) -> Option<Slot<'_>> {
        self.asks.reserve().await.ok().map(Slot)
    }

    /// Has the shard decide in a new way whatever comes after this; false when the shard has ended.
    pub async fn reload(&self, sampling: Arc<Sampling>) -> bool {
        self.asks.send(Ask::Reload(sampling)).await.is_ok()
    }

    /// Decides and exports everything, and ends the shard.
    pub async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        if self.asks.send(Ask::Finish(done)).await.is_ok() {
            // An error means that the thread is gone already, which is what was asked for.
            let _ = finished.await;
        }
    }
}

// === impl Slot ===

impl Slot<'_> {
    /// Has the shard store its part of a request; the answer comes when that is done.
    pub fn insert(self, work: &Arc<Work>) -> oneshot::Receiver<()> {
        let (done, stored) = oneshot::channel();
        self.0.send(Ask::Insert { work: Arc::clone(work), done });
        stored
    }
}

// === impl Counted ===

impl Counted {
    fn publish(&mut self, stats: &ShardStats, counters: &Counters) {
        let kept = stats.kept_spans + stats.late_kept;
        let sampled_away = stats.sampled_away_spans + stats.late_dropped;
        counters.kept.fetch_add(kept - self.kept, Relaxed);
        counters.sampled_away.fetch_add(sampled_away - self.sampled_away, Relaxed);
        counters.duplicate.fetch_add(stats.duplicates - self.duplicates, Relaxed);
        *self = Self { kept, sampled_away, duplicates: stats.duplicates };
    }
}

// === impl Worker ===

impl Worker {
    async fn run(mut self) {
        let mut more = false;
        loop {
            let ask = if more {
                self.asks.try_recv().ok()
            } else {
                match tokio::time::timeout(TICK, self.asks.recv()).await {
                    Ok(None) => return self.finish(),
                    Ok(ask) => ask,
                    Err(_elapsed) => None,
                }
            };
            if let Some(done) = self.take(ask) {
                self.finish();
                let _ = done.send(());
                return;
            }
            more = self.turn();
            if more {
                // Lets the timer and the senders on this thread's runtime see the clock.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Inserts what has arrived; returns the sender of a `Finish`.
    fn take(&mut self, first: Option<Ask>) -> Option<oneshot::Sender<()>> {
        let mut next = first;
        for taken in 0..=INSERTS_PER_TURN {
            match next {
                Some(Ask::Insert { work, done }) => self.insert(work, done),
                Some(Ask::Reload(sampling)) => self.reload(&sampling),
                Some(Ask::Finish(done)) => return Some(done),
                None => return None,
            }
            next = if taken < INSERTS_PER_TURN { self.asks.try_recv().ok() } else { None };
        }
        None
    }

    fn reload(&mut self, sampling: &Sampling) {
        let wait = u64::try_from(sampling.decision_wait.as_millis()).unwrap_or(u64::MAX);
        self.shard.set_limits(wait, sampling.max_trace_spans);
        self.shard.set_program(Arc::clone(&sampling.program));
        self.publish();
    }

    fn insert(&mut self, work: Arc<Work>, done: oneshot::Sender<()>) {
        let now = self.now();
        let inserted = self.shard.insert(&work.request, &work.shape, now, &mut self.kept);
        if let Some(error) = inserted.failed {
            tracing::error!(%error, "a request that was checked does not parse; please report this");
        }
        self.publish();
        drop(work);
        // The requester may have given up; the spans are stored all the same.
        let _ = done.send(());
        self.flush(EXPORT_BYTES);
    }

    /// One bounded turn of decisions; true when there is more to do at once.
    fn turn(&mut self) -> bool {
        let before = Instant::now();
        let limit = TickLimit { traces: DECISIONS_PER_TURN, out_bytes: EXPORT_BYTES };
        let now = self.now();
        let mut more = self.shard.decide_due(now, &limit, &mut self.kept).more;
        let excess = self.room.excess(self.shard.held().bytes);
        if excess > 0 {
            more |= self.shard.relieve(now, excess, &mut self.kept).more;
        }
        self.publish();
        self.flush(EXPORT_BYTES);
        if self.kept_since.is_some_and(|since| since.elapsed() >= EXPORT_AGE) {
            self.flush(0);
        }
        let took = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.gauges.turn_us.store(took, Relaxed);
        more
    }

    fn finish(&mut self) {
        let limit = TickLimit { traces: DECISIONS_PER_TURN, out_bytes: EXPORT_BYTES };
        loop {
            let progress = self.shard.decide_all(&limit, &mut self.kept);
            self.flush(0);
            if !progress.more {
                break;
            }
        }
        self.publish();
    }

    /// Hands kept spans to the exporters once they are at least `bytes`.
    fn flush(&mut self, bytes: u64) {
        if self.kept.is_empty() {
            return;
        }
        self.kept_since.get_or_insert_with(Instant::now);
        if self.kept.encoded_len_max() as u64 >= bytes {
            self.output.export(&self.kept);
            self.kept.clear();
            self.kept_since = None;
        }
    }

    fn publish(&mut self) {
        let held = self.shard.held();
        let bytes = held.bytes + self.kept.held_bytes() as u64;
        self.room.replace(self.published, bytes);
        self.published = bytes;
        let stats = self.shard.stats();
        self.counted.publish(stats, &self.counters);
        let gauges = &self.gauges;
        let pairs = [
            (&gauges.bytes, bytes),
            (&gauges.spans, held.spans),
            (&gauges.traces, held.traces),
            (&gauges.traces_kept, stats.traces_kept),
            (&gauges.traces_dropped, stats.traces_dropped),
            (&gauges.traces_new, stats.traces),
            (&gauges.early_pressure, stats.early(Early::MemoryPressure)),
            (&gauges.early_size, stats.early(Early::TraceTooLarge)),
            (&gauges.late_kept, stats.late_kept),
            (&gauges.late_dropped, stats.late_dropped),
            (&gauges.evacuated, stats.segments_evacuated),
        ];
        for (gauge, value) in pairs {
            gauge.store(value, Relaxed);
        }
        let counted = |policy: &PolicyCount| policy.kept + policy.dropped;
        let by_policy = gauges.by_policy.load();
        if by_policy.len() == stats.policies.len() {
            for ((_, gauge), policy) in by_policy.iter().zip(&stats.policies) {
                gauge.store(counted(policy), Relaxed);
            }
        } else {
            let row = |policy: &PolicyCount| (policy.name.clone(), counted(policy).into());
            gauges.by_policy.store(Arc::new(stats.policies.iter().map(row).collect()));
        }
    }

    /// Milliseconds since the shard began, on a clock that only runs forward.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
