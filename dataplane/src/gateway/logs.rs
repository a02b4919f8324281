//! Log records at a gateway: forwarded at once, or once the trace that they belong to is decided.
//!
//! What waits lies in one hold, behind a lock that is taken for one request or one round of verdicts. Shards
//! say what they decide, and are asked about traces whose records come after the decision; both answers
//! come the same way, so that none is missed: records are held before the shard is asked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ringtail_crds::logs::Undecided;
use ringtail_engine::Millis;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::hold::{Heading, Hold, Piece};
use ringtail_engine::key::{KeySeed, TraceKey, shard_of};
use ringtail_engine::rewrite::outgoing::Outgoing;
use ringtail_engine::rewrite::redaction::Redaction;
use ringtail_engine::scan::{self, Group, Shape, TraceId, Visit};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Gateway;
use super::clock::Clock;
use super::output::Output;
use super::refusals::stopping;
use super::shards::Slot;
use crate::export::ExporterHandle;
use crate::ledger::{Counters, Refused};
use crate::otlp::{self, CheckedLogs};
use crate::stats::LedgerReport;
use crate::transport::{Call, Method, Refusal, Reply};

/// How long a record waits beyond decisionWait. A trace is decided so long after its first span came, and
/// that comes after the record: SDKs send a record a second after it was made and a span five seconds after
/// it has ended; two seconds are for batches on the way, one for the decision itself, and two for spans that
/// last.
const SLACK: Millis = 10_000;
/// How often it is looked what has waited too long, and what is kept is sent.
const TICK: Duration = Duration::from_millis(200);
/// Kept records are sent when they have this many bytes, as spans are.
const EXPORT_BYTES: usize = 1 << 20;
/// Bytes of buffers that wait for the next requests: what one takes. They are in the slack of a budget, which
/// is 3.75 MiB at least, half of it for those of spans.
const SPARE_BYTES: u64 = 1 << 20;
/// Verdicts that are followed under one lock.
const VERDICTS_MAX: usize = 1024;
/// Verdicts that wait to be followed: 4 MiB, as many as a full turn of 64 shards. They are followed faster
/// than traces are decided, so more of them wait only where this process gets no processor.
const TOLD_MAX: usize = 1 << 18;
/// A process that ends waits so long for the verdicts that shards told at last.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// A trace, and whether it is kept.
type Told = (TraceKey, bool);

/// How shards tell verdicts.
#[derive(Clone, Debug)]
pub struct Verdicts(mpsc::Sender<Told>);

/// What becomes of log records.
#[derive(Clone, Debug)]
pub struct Config {
    /// Backends.
    pub exporters: Vec<ExporterHandle>,
    /// What becomes of records of undecided traces, if those of traces wait for the decision.
    pub undecided: Option<Undecided>,
    /// Bytes that may wait.
    pub hold_bytes: u64,
}

/// The log records of a gateway.
#[derive(Debug)]
pub struct Logs {
    /// Where every record went.
    pub counters: Counters,
    /// Backends.
    pub exporters: Arc<[ExporterHandle]>,
    /// Those that wait, if any do.
    pub waiting: Option<Waiting>,
    output: Output,
    redaction: Option<Arc<Redaction>>,
    seed: KeySeed,
    clock: Clock,
    follower: Mutex<Option<JoinHandle<()>>>,
}

/// Records that wait for a decision.
#[derive(Debug)]
pub struct Waiting {
    undecided: Undecided,
    /// Bytes that may wait.
    pub limit: u64,
    wait: AtomicU64,
    state: Mutex<State>,
    /// Records of traces of which no decision was known in time, and that were kept.
    pub undecided_kept: AtomicU64,
    /// Records that were taken for undecided before their time: there was no room, or the process ended.
    pub early: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    hold: Hold,
    /// Those that are to be sent.
    kept: Batch,
}

/// How a piece came out of the hold without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    InTime,
    Early,
}

// === impl Logs ===

impl Logs {
    /// The records of a gateway; what comes through `told` are the verdicts of its shards. Must be called
    /// inside a tokio runtime.
    pub(super) fn start(
        config: &Config,
        (seed, redaction): (KeySeed, Option<Arc<Redaction>>),
        (clock, decision_wait): (Clock, Duration),
        told: Receiver<Told>,
    ) -> Arc<Self> {
        let exporters: Arc<[ExporterHandle]> = config.exporters.clone().into();
        let waiting = config.undecided.map(|undecided| Waiting {
            undecided,
            limit: config.hold_bytes,
            wait: AtomicU64::new(0),
            state: Mutex::default(),
            undecided_kept: AtomicU64::new(0),
            early: AtomicU64::new(0),
        });
        let logs = Arc::new(Self {
            counters: Counters::default(),
            output: Output::new(Arc::clone(&exporters), SPARE_BYTES),
            exporters,
            waiting,
            redaction,
            seed,
            clock,
            follower: Mutex::new(None),
        });
        logs.set_decision_wait(decision_wait);
        if logs.waiting.is_some() {
            let follower = tokio::spawn(Arc::clone(&logs).follow(told));
            *lock(&logs.follower) = Some(follower);
        }
        logs
    }

    /// Traces are held for so long from now on.
    pub(super) fn set_decision_wait(&self, wait: Duration) {
        if let Some(waiting) = &self.waiting {
            let wait = Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX / 4);
            waiting.wait.store(wait.saturating_add(SLACK), Relaxed);
        }
    }

    /// The ledger of log records.
    pub fn report(&self) -> LedgerReport {
        let lines = self.exporters.iter().map(|one| (one.name(), one.report()));
        self.counters.report(self.waiting.as_ref().map_or(0, Waiting::records), lines)
    }

    /// Forwards all records of a request.
    fn forward(&self, checked: &CheckedLogs) {
        let CheckedLogs { request, records, .. } = checked;
        let Shape { spans, legacy_fields, unknown_request_fields, .. } = records.shape;
        let spans = u64::from(spans);
        if let Some(redaction) = self.redaction.as_deref().filter(|_| spans > 0) {
            self.counters.kept.fetch_add(spans, Relaxed);
            return self.rewrite(request, redaction);
        }
        if legacy_fields == 0 && unknown_request_fields == 0 {
            self.counters.kept.fetch_add(spans, Relaxed);
            self.output.forward_logs(request.clone(), spans);
            return;
        }
        let mut gather = Gather { batch: Batch::new(), group: None };
        if let Err(error) = scan::walk_logs(request, &mut gather) {
            tracing::error!(%error, "a checked request does not parse; please report this");
        }
        self.send(&gather.batch);
    }

    /// Gives kept records to the exporters.
    fn send(&self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        self.counters.kept.fetch_add(u64::from(batch.spans()), Relaxed);
        let Some(redaction) = &self.redaction else { return self.output.export_logs(batch) };
        let mut request = Vec::with_capacity(batch.encoded_len());
        batch.encode(&mut request);
        self.rewrite(&request, redaction);
    }

    /// Gives the records of a request to the exporters, redacted.
    fn rewrite(&self, request: &[u8], redaction: &Redaction) {
        let mut outgoing = Outgoing::default();
        if let Err(error) = outgoing.add_logs(request, redaction) {
            tracing::error!(%error, "a batch of our own does not parse; please report this");
        }
        self.output.export_logs(outgoing.ready());
    }

    /// Holds the records of a request that belong to traces, and keeps the others. The traces.
    fn hold(&self, waiting: &Waiting, request: &Bytes) -> Vec<TraceKey> {
        let mut state = lock(&waiting.state);
        let now = self.clock.now();
        let mut sorter =
            Sorter { state: &mut state, seed: self.seed, now, group: None, keys: Vec::new() };
        if let Err(error) = scan::walk_logs(request, &mut sorter) {
            tracing::error!(%error, "a checked request does not parse; please report this");
        }
        let mut keys = sorter.keys;
        keys.sort_unstable();
        keys.dedup();
        while state.hold.bytes() > waiting.limit {
            let Some(piece) = state.hold.expire(Millis::MAX) else { break };
            self.give_up(waiting, &piece, Out::Early, &mut state.kept);
        }
        self.flush(&mut state, EXPORT_BYTES);
        keys
    }

    /// Follows verdicts until no shard is left that could tell one.
    async fn follow(self: Arc<Self>, mut told: Receiver<Told>) {
        let Some(waiting) = &self.waiting else { return };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut verdicts = Vec::with_capacity(VERDICTS_MAX);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.sweep(waiting),
                count = told.recv_many(&mut verdicts, VERDICTS_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.conclude(waiting, &mut verdicts);
                }
            }
        }
    }

    /// Takes out the records of decided traces.
    fn conclude(&self, waiting: &Waiting, verdicts: &mut Vec<Told>) {
        let mut state = lock(&waiting.state);
        let State { hold, kept } = &mut *state;
        for (key, keep) in verdicts.drain(..) {
            for piece in hold.release(key) {
                if keep {
                    piece.put(kept);
                } else {
                    self.counters.sampled_away.fetch_add(piece.records(), Relaxed);
                }
            }
        }
        self.flush(&mut state, EXPORT_BYTES);
    }

    /// Gives up waiting where it took too long, and sends what is kept.
    fn sweep(&self, waiting: &Waiting) {
        let mut state = lock(&waiting.state);
        let wait = waiting.wait.load(Relaxed);
        if let Some(until) = self.clock.now().checked_sub(wait) {
            while let Some(piece) = state.hold.expire(until) {
                self.give_up(waiting, &piece, Out::InTime, &mut state.kept);
            }
        }
        self.flush(&mut state, 0);
    }

    fn give_up(&self, waiting: &Waiting, piece: &Piece, out: Out, kept: &mut Batch) {
        let records = piece.records();
        if out == Out::Early {
            waiting.early.fetch_add(records, Relaxed);
        }
        match waiting.undecided {
            Undecided::Keep => {
                waiting.undecided_kept.fetch_add(records, Relaxed);
                piece.put(kept);
            }
            Undecided::Drop => {
                self.counters.dropped.add(crate::ledger::Dropped::Undecided, records);
            }
        }
    }

    fn flush(&self, state: &mut State, bytes: usize) {
        if !state.kept.is_empty() && state.kept.encoded_len_max() >= bytes {
            self.send(&state.kept);
            state.kept.clear();
        }
    }

    /// Follows the last verdicts, then decides what still waits early, as fast as exporters have room until
    /// `by`. The shards must have ended.
    pub(super) async fn finish(&self, by: Instant) {
        let follower = lock(&self.follower).take();
        if let (Some(follower), Some(waiting)) = (follower, &self.waiting) {
            // Late verdicts are none: what they are about is undecided then.
            let _ = tokio::time::timeout(FINISH_WITHIN, follower).await;
            while self.give_up_some(waiting) {
                // The next request may be a piece larger than it need be.
                self.output.await_room(2 * EXPORT_BYTES as u64, by).await;
            }
        }
    }

    /// Gives up on as much as a request has; whether more is left.
    fn give_up_some(&self, waiting: &Waiting) -> bool {
        let mut state = lock(&waiting.state);
        while state.kept.encoded_len_max() < EXPORT_BYTES {
            let Some(piece) = state.hold.expire(Millis::MAX) else {
                self.flush(&mut state, 0);
                return false;
            };
            self.give_up(waiting, &piece, Out::Early, &mut state.kept);
        }
        self.flush(&mut state, 0);
        true
    }
}

// === impl Verdicts ===

impl Verdicts {
    /// Tells a verdict. Where too many wait, and at the end, it is not heard: records of the trace then are
    /// undecided once they have waited long enough, and counted so.
    pub(super) fn tell(&self, key: TraceKey, keep: bool) {
        let _ = self.0.try_send((key, keep));
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // Never held across an await. A panic inside leaves whole pieces behind, so going on is right.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Waiting ===

impl Waiting {
    /// Records that wait, or are kept and not sent.
    pub fn records(&self) -> u64 {
        let state = lock(&self.state);
        state.hold.records() + u64::from(state.kept.spans())
    }

    /// Bytes of those that wait.
    pub fn bytes(&self) -> u64 {
        lock(&self.state).hold.bytes()
    }
}

// === impl Gateway ===

impl Gateway {
    /// Takes log records.
    pub(super) async fn export_logs(&self, call: Call) -> Result<Reply, Refusal> {
        let Some(logs) = &self.logs else { return Err(Method::ExportLogs.unserved()) };
        let mut permit = call.permit;
        let checked = otlp::check_logs(call.message, &mut permit, call.left_out, &self.scan)?;
        // Slots first: until all are there, the sender may go away and nothing has happened.
        let slots = if logs.waiting.is_some() { self.slots().await } else { Some(Vec::new()) };
        let (records, malformed) = (u64::from(checked.records.shape.spans), &checked.malformed);
        let counters = &logs.counters;
        counters.from_clients.fetch_add(records + malformed.spans, Relaxed);
        counters.refused.add(Refused::Malformed, malformed.spans);
        let Some(slots) = slots.filter(|_| !self.stopped.load(Relaxed)) else {
            counters.refused.add(Refused::Stopping, records);
            return Err(stopping());
        };
        counters.left_out.add(&checked.records.shape);
        match &logs.waiting {
            None => logs.forward(&checked),
            Some(waiting) => recall(&logs.hold(waiting, &checked.request), slots),
        }
        Ok(otlp::logs_reply(malformed))
    }
}

/// Asks the shards for verdicts that they have given.
fn recall(keys: &[TraceKey], slots: Vec<Slot<'_>>) {
    let shards = u32::try_from(slots.len()).unwrap_or(1);
    for (index, slot) in (0..).zip(slots) {
        let own = keys.iter().copied().filter(|key| shard_of(*key, shards) == index);
        let own: Vec<TraceKey> = own.collect();
        if !own.is_empty() {
            slot.recall(own);
        }
    }
}

/// What shards tell verdicts with, if anybody waits for them.
pub(super) fn channel(config: Option<&Config>) -> (Option<Verdicts>, Receiver<Told>) {
    let (sender, told) = mpsc::channel(TOLD_MAX);
    let awaited = config.is_some_and(|config| config.undecided.is_some());
    (awaited.then_some(Verdicts(sender)), told)
}

// === walks ===

/// Gathers all records.
struct Gather {
    batch: Batch,
    group: Option<GroupRef>,
}

impl Visit for Gather {
    fn group(&mut self, group: &Group<'_>) {
        self.group = Some(self.batch.intern(&group.resource, &group.scope));
    }

    fn span(&mut self, group: &Group<'_>, _id: &TraceId, record: &[u8]) {
        self.stray(group, record);
    }

    fn stray(&mut self, _group: &Group<'_>, record: &[u8]) {
        if let Some(group) = self.group {
            self.batch.push(group, record);
        }
    }
}

/// Holds records of traces, and keeps the others.
struct Sorter<'a> {
    state: &'a mut State,
    seed: KeySeed,
    now: Millis,
    group: Option<(Arc<Heading>, Option<GroupRef>)>,
    keys: Vec<TraceKey>,
}

impl Visit for Sorter<'_> {
    fn group(&mut self, group: &Group<'_>) {
        self.group = Some((Heading::of(group), None));
    }

    fn span(&mut self, _group: &Group<'_>, id: &TraceId, record: &[u8]) {
        let Some((heading, _)) = &self.group else { return };
        let key = self.seed.key(id);
        self.state.hold.insert(key, heading, record, self.now);
        if self.keys.last() != Some(&key) {
            self.keys.push(key);
        }
    }

    fn stray(&mut self, group: &Group<'_>, record: &[u8]) {
        let Some((_, place)) = &mut self.group else { return };
        let kept = &mut self.state.kept;
        let place = *place.get_or_insert_with(|| kept.intern(&group.resource, &group.scope));
        kept.push(place, record);
    }
}

#[cfg(test)]
mod tests;
