//! What the parts of an agent share: the splitter, the ring, the links and the counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use prost::Message as _;
use ringtail_crds::logs::Signal;
use ringtail_engine::Millis;
use ringtail_engine::batch::Batch;
use ringtail_engine::key::KeySeed;
use ringtail_engine::rewrite::processing::Processing;
use ringtail_engine::scan::Shape;
use tokio::sync::{Notify, mpsc};

use super::frame::SPARE_BYTES;
use super::keeper::{self, News};
use super::link::Link;
use super::links::LinkTable;
use super::splitter::{BatchLimits, LinkIndex, Ring, Routed, Sealed, Splitter};
use crate::buffers::Buffers;
use crate::ledger::{Counters, Dropped};
use crate::membership::{Counts, Voice};
use crate::memory::MIB;
use crate::peer::{HelloRequest, Identity, State};
use crate::transport::Encoding;

/// The smallest batch that a tight budget may lead to: headers are repeated per batch, so smaller ones cost
/// bandwidth.
const BATCH_BYTES_MIN: u64 = 16 << 10;
/// All open batches together have about so many bytes: spans are then sent while they are still in the caches
/// that a processor shares with few others. With ten gateways, batches of 256 KiB instead of 0.9 MiB take
/// 30 MiB less memory at full load.
const OPEN_BYTES: u64 = 5 << 19;
/// But a batch has at least this, if the budget allows: 280 spans, over which a request's cost is spread.
const BATCH_BYTES_WANTED: u64 = 128 << 10;
/// One open batch, one being encoded and the frames under way: so many batches a link may exist at once on
/// average.
const BATCHES_PER_LINK: u64 = 4;
/// A link may take twice its even share of the send budget, but at least this, so that one slow gateway
/// cannot take all of it and two gateways can still use it fully.
const LINK_QUEUE_MIN: u64 = 4 * MIB;
/// What a batch stores beside the bytes of a span: a run, its trace, and their share of spare capacity.
const SPAN_OVERHEAD: u64 = 48;
/// What a batch stores beside the headers of a group: its place, its resource's, and two table slots.
const GROUP_OVERHEAD: u64 = 192;

/// Shared state of an agent.
#[derive(Debug)]
pub struct Core {
    /// Who the agent is.
    pub identity: Identity,
    /// Where every span went.
    pub counters: Counters,
    /// Compression of the hop.
    pub hop_encoding: Encoding,
    /// Bytes for spans on their way.
    pub send_budget: u64,
    /// Spans that went to a lower choice than their owner.
    pub rerouted_spans: AtomicU64,
    /// How often the published view changed.
    pub view_changes: AtomicU64,
    /// Candidates, for metrics and stats.
    pub counts: Arc<Counts>,
    /// The secret of the fleet.
    pub seed: KeySeed,
    /// What is kept of what was delivered.
    pub kept: Kept,
    /// What is done to spans before they are split.
    processing: Option<Processing>,
    /// Conditions of its filter that could not be answered.
    pub filter_failures: AtomicU64,
    keeper: Option<mpsc::UnboundedSender<News>>,
    /// What goes out: spans, or log records.
    pub signal: Signal,
    /// The same for log records, if any are taken.
    pub logs: Option<Arc<Core>>,
    started: Instant,
    /// What the manifest says of batches.
    wanted: BatchLimits,
    pub(super) buffers: Buffers,
    /// Bytes that fill a batch.
    batch_bytes: AtomicU64,
    splitter: Mutex<Splitter>,
    ring: ArcSwapOption<Ring>,
    /// Changed only under the splitter's lock.
    links: LinkTable,
    room: Notify,
}

/// What an agent keeps of what it has delivered, to send it again.
#[derive(Debug, Default)]
pub struct Kept {
    /// Bytes of it.
    pub bytes: AtomicU64,
    /// Traces of batches that were sent again.
    pub replayed: AtomicU64,
    /// Traces of batches that were let go early, for their bytes.
    pub unprotected: AtomicU64,
    /// Spans of those batches; of a batch that is let go in parts, each trace is taken to have as many.
    pub unprotected_spans: AtomicU64,
    /// Deliveries without an answer, or refused.
    pub retried: AtomicU64,
    /// Whether all of it is stored at a gateway.
    pub settled: AtomicBool,
}

/// What an agent answers to an offered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Everything that could be routed is in memory.
    Taken(Routed),
    /// Queues are full now.
    Full,
    /// No gateway is known.
    NoGateway,
}

/// What else an agent has to do with spans than send them by their trace.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    /// Who keeps what was delivered.
    pub(super) keeper: Option<mpsc::UnboundedSender<News>>,
    /// What is done to spans.
    pub(super) processing: Option<Processing>,
    /// Spans go by their service.
    pub(super) by_service: bool,
    /// The state for log records, if any are taken.
    pub(super) logs: Option<Arc<Core>>,
    /// This is that one, and this throws the dice for records without a trace.
    pub(super) dice: Option<fastrand::Rng>,
}

// === impl Core ===

impl Core {
    /// State without links.
    pub(super) fn new(
        identity: Identity,
        seed: KeySeed,
        wanted: BatchLimits,
        hop_encoding: Encoding,
        send_budget: u64,
        Wiring { keeper, processing, by_service, logs, dice }: Wiring,
    ) -> Self {
        let buffers = Buffers::new(SPARE_BYTES);
        let signal = if dice.is_some() { Signal::Logs } else { Signal::Traces };
        let splitter = Splitter::new(seed, wanted, buffers.clone()).by_service(by_service);
        let splitter = match dice {
            Some(dice) => splitter.of_logs(dice),
            None => splitter,
        };
        Self {
            seed,
            kept: Kept { settled: true.into(), ..Kept::default() },
            keeper,
            processing,
            filter_failures: AtomicU64::new(0),
            signal,
            logs,
            started: Instant::now(),
            identity,
            counters: Counters::default(),
            hop_encoding,
            send_budget,
            rerouted_spans: AtomicU64::new(0),
            view_changes: AtomicU64::new(0),
            counts: Arc::default(),
            wanted,
            batch_bytes: AtomicU64::new(wanted.bytes as u64),
            splitter: Mutex::new(splitter),
            buffers,
            ring: ArcSwapOption::empty(),
            links: LinkTable::default(),
            room: Notify::new(),
        }
    }

    /// Milliseconds of the agent's clock.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// The same for another time.
    pub fn at(&self, at: Instant) -> Millis {
        keeper::millis(self.started, at)
    }

    /// Whether delivered spans are kept, to be sent again after a loss.
    pub fn keeps(&self) -> bool {
        self.keeper.is_some()
    }

    /// Gateways hold traces that they see from now on for so long.
    pub fn set_decision_wait(&self, wait: Duration) {
        let wait = Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX);
        self.keep(|| News::Wait(wait));
    }

    /// Tells whoever keeps delivered spans, if anybody does.
    pub(super) fn keep(&self, news: impl FnOnce() -> News) {
        if let Some(keeper) = &self.keeper {
            // The task ends with the process.
            let _ = keeper.send(news());
        }
    }

    /// When the oldest span came that no gateway has acknowledged; the far future for none.
    pub(super) fn oldest(&self) -> Millis {
        // Under the lock: nothing moves from a link to a batch meanwhile.
        let splitter = self.lock();
        let open = splitter.oldest().map_or(Millis::MAX, |since| self.at(since));
        let links = self.links();
        let of_link = |link: &Arc<Link>| {
            // A batch that its task has not seen may be of any age.
            let seen = link.queued.load(SeqCst) == link.seen.load(SeqCst);
            if seen { link.oldest.load(SeqCst) } else { 0 }
        };
        links.iter().map(of_link).min().unwrap_or(Millis::MAX).min(open)
    }

    /// Makes a link, and the queue that its task reads.
    pub fn add_link(&self, endpoint: &str) -> (Arc<Link>, mpsc::UnboundedReceiver<Sealed>) {
        let mut splitter = self.lock();
        let added = self.links.add(endpoint);
        self.share_out(&mut splitter);
        added
    }

    /// The candidate of a link is gone: the published view does not have it any more, and nothing is queued
    /// for it from now on. What it still has goes to the next choice of each key.
    pub fn retire_link(&self, index: LinkIndex) {
        let Some(link) = self.links.at(index) else { return };
        let mut splitter = self.lock();
        splitter.seal(index);
        self.dispatch(&mut splitter);
        link.retired.store(true, Relaxed);
        link.changed.notify_one();
    }

    /// Frees the place of a retired link; false while something is left in it.
    pub fn forget_link(&self, link: &Link) -> bool {
        let mut splitter = self.lock();
        let empty = link.held_spans.load(Relaxed) == 0 && splitter.is_empty(link.index);
        if empty {
            self.links.remove(link.index);
            self.share_out(&mut splitter);
        }
        empty
    }

    /// Makes batches small enough for a budget that so many links share.
    fn share_out(&self, splitter: &mut Splitter) {
        let links = self.links.all().len().max(1) as u64;
        let share = self.send_budget / (BATCHES_PER_LINK * links);
        let cached = (OPEN_BYTES / links).max(BATCH_BYTES_WANTED);
        let bytes = (self.wanted.bytes as u64).min(share.max(BATCH_BYTES_MIN)).min(cached);
        self.batch_bytes.store(bytes, Relaxed);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        splitter.set_limits(BatchLimits { bytes, ..self.wanted });
    }

    /// The links there are.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.all()
    }

    /// The published view.
    pub fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.load_full()
    }

    /// Digest of the published view, 0 without one.
    pub fn digest(&self) -> u64 {
        self.ring.load().as_ref().map_or(0, |ring| ring.view.digest())
    }

    /// Whether any gateway is in the ring.
    pub fn has_members(&self) -> bool {
        self.ring.load().is_some()
    }

    /// Publishes a view; `None` when no gateway serves.
    pub fn publish(&self, ring: Option<Ring>) {
        for link in self.links() {
            let member = ring.as_ref().is_some_and(|ring| ring.links.contains(&link.index));
            if link.member.swap(member, Relaxed) != member {
                link.changed.notify_one();
            }
        }
        self.ring.store(ring.map(Arc::new));
        self.view_changes.fetch_add(1, Relaxed);
        self.room.notify_waiters();
    }

    /// Takes a checked request into the open batches: all of it, or nothing.
    pub fn offer(&self, request: &[u8], shape: &Shape) -> Offer {
        // Under the lock, so that nothing is queued by a view that a retired link was in.
        let mut splitter = self.lock();
        let Some(ring) = self.ring() else { return Offer::NoGateway };
        let need = self.need(shape, &ring);
        if splitter.held_bytes() + self.queued_bytes() + need > self.send_budget {
            return Offer::Full;
        }
        let accepting = self.accepting(need, &ring);
        let (arrived, processing) = ((request, Instant::now()), self.processing.as_ref());
        let routed = self.split(&mut splitter, arrived, shape, (&ring, &accepting), processing);
        routed.map_or(Offer::Full, Offer::Taken)
    }

    /// Splits what was taken before by the present view; false when no gateway takes spans now.
    ///
    /// Needs no admission: the bytes are in the budget already.
    /// `counted`: a gateway may have counted them.
    pub fn reroute(&self, spans: &[u8], born: Instant, counted: bool) -> bool {
        let mut splitter = self.lock();
        let Some(ring) = self.ring() else { return false };
        let accepting = self.by_place(|link| link.member.load(Relaxed));
        // A batch has one age: what is old gets batches of its own.
        splitter.set_counted(counted);
        let unknown = &Shape::UNKNOWN;
        // What was done to spans is not done again.
        let routed = self.split(&mut splitter, (spans, born), unknown, (&ring, &accepting), None);
        splitter.set_counted(false);
        self.dispatch(&mut splitter);
        if let Some(routed) = routed {
            self.rerouted_spans.fetch_add(routed.spans, Relaxed);
        }
        routed.is_some()
    }

    /// Seals and sends batches whose first span is older than `age`.
    pub fn flush(&self, age: Duration) {
        let mut splitter = self.lock();
        if let Some(deadline) = Instant::now().checked_sub(age) {
            splitter.seal_older(deadline);
        }
        self.dispatch(&mut splitter);
    }

    /// Takes back an emptied batch.
    pub fn recycle(&self, batch: Batch) {
        self.lock().recycle(batch);
    }

    /// Wakes requests that wait for room.
    pub fn room_freed(&self) {
        self.room.notify_waiters();
    }

    /// Resolves when room was freed since the future was made.
    pub fn room(&self) -> impl Future<Output = ()> + '_ {
        self.room.notified()
    }

    /// Spans in memory.
    pub fn held_spans(&self) -> u64 {
        let queued: u64 = self.links().iter().map(|link| link.held_spans.load(Relaxed)).sum();
        self.lock().held_spans() + queued
    }

    /// Gives up everything that is held and counts it as dropped; returns how many spans that was.
    pub fn abandon(&self) -> u64 {
        let mut left = self.lock().abandon();
        for link in self.links() {
            left += link.held_spans.swap(0, Relaxed);
        }
        self.counters.dropped.add(Dropped::Stopping, left);
        left
    }

    /// Bytes charged to the send budget.
    pub fn held_bytes(&self) -> u64 {
        self.lock().held_bytes() + self.queued_bytes()
    }

    /// The most that a request of `shape` can add to the batches: its headers may be repeated in every
    /// batch, but not in more batches than it has spans.
    fn need(&self, shape: &Shape, ring: &Ring) -> u64 {
        let copies = (ring.links.len() as u64).min(u64::from(shape.spans));
        let (span_growth, group_growth) = self
            .processing
            .as_ref()
            .map_or((0, 0), |processing| (processing.span_growth(), processing.resource_growth()));
        let headers =
            shape.header_bytes + u64::from(shape.groups) * (GROUP_OVERHEAD + group_growth);
        let span_bytes = shape.span_bytes + u64::from(shape.spans) * span_growth;
        // Batches that fill while the request is split repeat headers too; each is at least half spans.
        let batch_bytes = self.batch_bytes.load(Relaxed).max(1);
        let repeated = (headers * (span_bytes / batch_bytes)).min(span_bytes);
        span_bytes + headers * copies + repeated + u64::from(shape.spans) * SPAN_OVERHEAD
    }

    fn accepting(&self, need: u64, ring: &Ring) -> Vec<bool> {
        let share = 2 * self.send_budget / ring.links.len().max(1) as u64;
        let most = share.max(LINK_QUEUE_MIN);
        self.by_place(|link| {
            let queued = link.queued_bytes.load(Relaxed);
            link.member.load(Relaxed) && (queued == 0 || queued + need <= most)
        })
    }

    fn by_place(&self, accepts: impl Fn(&Link) -> bool) -> Vec<bool> {
        self.links.places().iter().map(|place| place.as_deref().is_some_and(&accepts)).collect()
    }

    /// Splits a request over the links that accept; `None` when none of the ring's does.
    fn split(
        &self,
        splitter: &mut Splitter,
        (request, born): (&[u8], Instant),
        shape: &Shape,
        (ring, accepting): (&Ring, &[bool]),
        processing: Option<&Processing>,
    ) -> Option<Routed> {
        if !ring.links.iter().any(|link| accepting.get(*link).copied().unwrap_or(false)) {
            return None;
        }
        let over = (ring, accepting);
        let routed = splitter.split(request, shape, over, processing, born).ok()?;
        self.filter_failures.fetch_add(routed.failures, Relaxed);
        self.rerouted_spans.fetch_add(routed.rerouted, Relaxed);
        self.dispatch(splitter);
        Some(routed)
    }

    fn dispatch(&self, splitter: &mut Splitter) {
        for sealed in splitter.take_sealed() {
            let spans = u64::from(sealed.batch.spans());
            if !self.links.at(sealed.link).is_some_and(|link| link.push(sealed)) {
                // Links end after the splitter is empty; this is for a bug, which must not go uncounted.
                self.counters.dropped.add(Dropped::Stopping, spans);
            }
        }
    }

    fn queued_bytes(&self) -> u64 {
        self.links().iter().map(|link| link.queued_bytes.load(Relaxed)).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Splitter> {
        // Held for one split, never across an await. A panic inside leaves whole batches behind, so going
        // on is right.
        self.splitter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Voice for Core {
    fn hello(&self) -> Vec<u8> {
        let unprotected_spans = self.kept.unprotected_spans.load(Relaxed);
        // A message that follows another adds its fields to it.
        let more = HelloRequest { unprotected_spans, ..HelloRequest::default() };
        [self.identity.hello(State::Serving, self.digest()), more.encode_to_vec()].concat()
    }
}
