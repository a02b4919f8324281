//! Shard threads: each owns one `Shard` of the engine, alone; others send it bounded messages and read its
//! gauges.
//!
//! A turn takes what has arrived (at most [`INSERTS_PER_TURN`] requests), then decides a bounded number of
//! traces, so that neither ingest can starve decisions nor the other way round.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ringtail_engine::Millis;
use ringtail_engine::key::{TraceKey, shard_of};
use ringtail_engine::ownership::Stats;
use ringtail_engine::ownership::action::Failure;
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::message::{Agreement, Decision, Decisions, Outcome, Receipt, Req};
use ringtail_engine::policy::Program;
use ringtail_engine::scan::Shape;
use ringtail_engine::shard::{ShardConfig, TraceLimits};
use ringtail_engine::span_metrics::Drained;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::worker::Outside;
use self::worker::Worker;
use super::room::Reservation;
use crate::peer::messages::Manner;
use crate::transport::{Method, Permit, Pieces};

mod custody;
mod kept;
mod marked;
mod parcels;
mod way;
mod worker;

/// Requests that wait for one shard. Their bytes are charged to the receive budget, so this bounds only the
/// queue's own memory and the time that a request waits behind others.
const QUEUE_MAX: usize = 256;
/// What a shard is asked to do.
pub enum Ask {
    /// Take the shard's part of a checked request, then answer.
    Deliver {
        /// The whole request; the shard takes the spans whose keys are its own.
        work: Arc<Work>,
        /// Dropped unanswered if the shard ends.
        done: oneshot::Sender<Taken>,
    },
    /// Another gateway tells decisions on keys of this shard.
    Decisions(Decisions, oneshot::Sender<Agreement>),
    /// An agent remembers decisions on keys of this shard.
    Reminded(Vec<Decision>),
    /// Tell the decisions of the last so many milliseconds.
    Last(Millis, oneshot::Sender<Vec<Decision>>),
    /// What was sent is answered.
    Receipt(Req, Receipt),
    /// What was told is answered.
    Agreement(Req, Agreement),
    /// Another gateway, answering another shard, says what it has exported.
    News(Vec<Decision>),
    /// What was sent has no answer.
    Failed(Name, Req, Failure),
    /// Every backend has the spans with which these traces were decided here.
    Exported(Vec<TraceKey>),
    /// Say again which verdicts were given on these traces, to whoever waits for verdicts.
    Recall(Vec<TraceKey>),
    /// Hand over what span metrics have counted.
    Counted(oneshot::Sender<Drained>),
    /// Decide traces first seen from now on in a new way.
    Reload(Arc<Sampling>),
    /// Decide everything that is held, as fast as exporters take it until then and all the rest then; answer
    /// and end.
    Finish(Instant, oneshot::Sender<()>),
}

/// What became of a shard's part of a request.
#[derive(Debug, Default)]
pub struct Taken {
    /// Traces that are not simply held here.
    pub elsewhere: Vec<(TraceKey, Outcome)>,
    /// Spans of traces that nobody takes now.
    pub refused: u64,
}

/// Something for another gateway, ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: Name,
    /// The answer names it.
    pub req: Req,
    /// Which call.
    pub method: Method,
    /// The request.
    pub frame: Pieces,
    /// The traces of a delivery, in their order.
    pub keys: Vec<TraceKey>,
    /// When to give up.
    pub deadline: Millis,
}

/// How traces are decided: what of a manifest can change while a gateway runs.
#[derive(Debug)]
pub struct Sampling {
    /// The policies, compiled.
    pub program: Arc<Program>,
    /// When a trace is decided.
    pub limits: TraceLimits,
}

/// A checked request on its way through the shards, with what it is charged for: given back when the last
/// shard is done.
#[derive(Debug)]
pub struct Work {
    /// The request.
    pub request: Bytes,
    /// What the check found in it.
    pub shape: Shape,
    /// What its sender says of its traces.
    pub manner: Manner,
    /// Whether its sender is a peer.
    pub from_peer: bool,
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
    /// Conditions of policies that a span's values could not answer.
    pub condition_failures: AtomicU64,
    /// Segments that were evacuated.
    pub evacuated: AtomicU64,
    /// Microseconds that the last turn of decisions took.
    pub turn_us: AtomicU64,
    /// Traces whose decision was learned from another gateway.
    pub followed: AtomicU64,
    /// What the ownership of traces counts, as of the last turn.
    pub ownership: ArcSwap<Stats>,
    /// The epoch that the shard has followed, shifted by two; bit 1: nothing of others is here; bit 0:
    /// nothing at all is.
    pub progress: AtomicU64,
    /// When spans came in last.
    pub disturbed: AtomicU64,
    /// What each policy did. Policies of earlier manifests stay.
    pub by_policy: ArcSwap<Vec<PolicyGauge>>,
}

/// What others may know of a policy in a shard.
#[derive(Debug, Default)]
pub struct PolicyGauge {
    /// As the manifest names it.
    pub name: String,
    /// Traces that it kept; a Drop policy: that it dropped.
    pub decided: AtomicU64,
    /// Traces that it would have decided otherwise, had it a vote.
    pub changed: AtomicU64,
}

/// A shard's address.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    asks: mpsc::Sender<Ask>,
    /// What it tells about itself.
    pub gauges: Arc<Gauges>,
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
        outside: Outside,
    ) -> std::io::Result<Self> {
        let (asks, inbox) = mpsc::channel(QUEUE_MAX);
        let gauges = Arc::<Gauges>::default();
        let name = format!("shard-{}", config.shard);
        let handle = Self { asks, gauges };
        let worker = Worker::new(config, program, outside, inbox, &handle);
        // A runtime of its own, so that waiting for requests and for the next tick is one wait.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name(name).spawn(move || runtime.block_on(worker.run()))?;
        Ok(handle)
    }

    /// Waits for a place in the shard's queue; `None` when the shard has ended.
    pub async fn slot(&self) -> Option<Slot<'_>> {
        self.asks.reserve().await.ok().map(Slot)
    }

    /// Has the shard decide in a new way whatever comes after this; false when the shard has ended.
    pub async fn reload(&self, sampling: Arc<Sampling>) -> bool {
        self.asks.send(Ask::Reload(sampling)).await.is_ok()
    }

    /// Asks; false when the shard has ended.
    pub async fn ask(&self, ask: Ask) -> bool {
        self.asks.send(ask).await.is_ok()
    }

    /// Asks if there is room in the queue.
    pub fn mention(&self, ask: Ask) {
        // What is only mentioned makes things cheaper, never right.
        let _ = self.asks.try_send(ask);
    }

    /// Decides and exports everything, and ends the shard. Exporters that are slow get time until `by`.
    pub async fn finish(&self, by: Instant) {
        let (done, finished) = oneshot::channel();
        if self.asks.send(Ask::Finish(by, done)).await.is_ok() {
            // An error means that the thread is gone already, which is what was asked for.
            let _ = finished.await;
        }
    }
}

// === impl Slot ===

impl Slot<'_> {
    /// Has the shard take its part of a request; the answer comes when all of it has found its place.
    pub fn deliver(self, work: &Arc<Work>) -> oneshot::Receiver<Taken> {
        let (done, taken) = oneshot::channel();
        self.0.send(Ask::Deliver { work: Arc::clone(work), done });
        taken
    }

    /// Has the shard say again which verdicts were given on these traces.
    pub fn recall(self, keys: Vec<TraceKey>) {
        self.0.send(Ask::Recall(keys));
    }
}

/// What of these is each shard's, of so many.
pub fn by_shard(list: Vec<Decision>, shards: usize) -> Vec<Vec<Decision>> {
    if shards == 1 {
        return vec![list];
    }
    let mut parts = vec![Vec::new(); shards];
    let count = u32::try_from(shards).unwrap_or(1);
    for decision in list {
        if let Some(part) = parts.get_mut(shard_of(decision.key, count) as usize) {
            part.push(decision);
        }
    }
    parts
}
