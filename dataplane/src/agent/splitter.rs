//! Splits requests by trace: every span is appended to the open batch of the gateway that owns its key.

use std::time::Instant;

use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::rewrite::processing::{Done, Processing, Processor};
use ringtail_engine::ring::View;
use ringtail_engine::scan::{self, Group, ScanError, Shape, TraceId, Visit};
use ringtail_engine::service;

use crate::buffers::Buffers;

/// Emptied batches that are kept for reuse, so that their memory is not faulted in anew for every batch. A
/// batch holds about 1 MiB; eight cover a burst in which every gateway of a small fleet seals at once.
const SPARE_BATCHES: usize = 8;

/// A batch is full when its last span has passed the limit: a new buffer has room for that one, 1/8 of the
/// limit, which is 32 KiB of 256.
const ROOM_DEN: usize = 8;

/// Places of traces that are remembered while a request is split: four times the traces of a request of a
/// thousand spans, in 16 KiB, which is half of a processor's nearest cache.
const PLACES: usize = 512;

/// What is known of a trace of a batch.
const TRACE_BYTES: usize = size_of::<(TraceKey, u32)>();

/// Position of a link in the agent's list of links.
pub type LinkIndex = usize;

/// The view of the ring by which an agent routes, with the link of each member.
#[derive(Debug)]
pub struct Ring {
    /// Serving members.
    pub view: View,
    /// The link to each member, in the order of `view.members()`.
    pub links: Vec<LinkIndex>,
}

/// When an open batch is full.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Encoded bytes.
    pub bytes: usize,
    /// Spans.
    pub spans: usize,
}

/// A batch on its way from the splitter to a link.
#[derive(Debug)]
pub struct Sealed {
    /// Where to.
    pub link: LinkIndex,
    /// What.
    pub batch: Batch,
    /// Its traces, each with bytes of its spans; a trace may be there more than once.
    pub traces: Vec<(TraceKey, u32)>,
    /// When its first span came.
    pub born: Instant,
    /// Whether a gateway may have counted its spans.
    pub counted: bool,
}

/// The open batches of an agent, one a link.
#[derive(Debug)]
pub struct Splitter {
    seed: KeySeed,
    /// Whether spans go by their service.
    by_service: bool,
    limits: BatchLimits,
    open: Vec<Open>,
    spare: Vec<Batch>,
    sealed: Vec<Sealed>,
    buffers: Buffers,
    places: Places,
    /// Whether a gateway may have counted what is split now.
    counted: bool,
    /// Where records without a trace go, where log records are split and not spans.
    dice: Option<fastrand::Rng>,
}

/// The links of the traces that were met last, for the request under way: its spans of one trace are often
/// far apart, and to hash an ID and to score every member takes longer than to look here.
#[derive(Debug)]
struct Places {
    /// Which request is under way; what earlier ones left, when gateways may have been others, is void.
    request: u32,
    slots: Vec<Place>,
}

/// Two in a line of a cache: each span looks at one, and between them the batches want that room.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Place {
    id: TraceId,
    /// The request that left it; none has the number 0.
    request: u32,
    /// The link, and whether it is that of a lower choice.
    link: u32,
    /// Where the trace is in the list of the link's open batch, if that is the one with this number.
    entry: u32,
    batch: u32,
}

/// Marks the link of a lower choice.
const LOWER: u32 = 1 << 31;

/// What became of the spans of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Appended to batches.
    pub spans: u64,
    /// Of these, appended to the batch of a lower choice, because the first one takes no spans now.
    pub rerouted: u64,
    /// Dropped by the manifest's filter.
    pub filtered: u64,
    /// Conditions of the filter that could not be answered.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Open {
    batch: Batch,
    since: Option<Instant>,
    /// The current group of the request being split, once this batch knows it.
    group: Option<GroupRef>,
    /// Grows with every batch that is sealed here. It may begin anew, but never within one request.
    number: u32,
    traces: Vec<(TraceKey, u32)>,
}

struct Router<'a> {
    splitter: &'a mut Splitter,
    ring: &'a Ring,
    /// By link: whether it takes spans now.
    accepting: &'a [bool],
    now: Instant,
    routed: Routed,
    /// The link of the service whose spans follow, and whether it is that of a lower choice, when spans go by
    /// their service.
    service: Option<(LinkIndex, bool)>,
    /// The trace of the records of the request that have none.
    no_trace: TraceId,
}

// === impl Splitter ===

impl Splitter {
    /// A splitter without any link, whose batches gather spans in these buffers.
    pub(super) fn new(seed: KeySeed, limits: BatchLimits, buffers: Buffers) -> Self {
        let places = Places { request: 0, slots: vec![Place::default(); PLACES] };
        let (open, spare, sealed) = (Vec::new(), Vec::new(), Vec::new());
        let (by_service, counted, dice) = (false, false, None);
        Self { seed, by_service, limits, open, spare, sealed, buffers, places, counted, dice }
    }

    /// Splits log records. Those of a request that belong to no trace go to one gateway together, by a throw
    /// of these dice.
    pub(super) fn of_logs(self, dice: fastrand::Rng) -> Self {
        Self { dice: Some(dice), ..self }
    }

    /// Sends spans by their service, or by their trace.
    pub(super) fn by_service(self, by_service: bool) -> Self {
        Self { by_service, ..self }
    }

    /// Appends every span of `request` to the batch of its gateway, changed by `processing` if there is any.
    /// Batches that are full move to [`Self::take_sealed`].
    ///
    /// `accepting` says by link whether it takes spans now; at least one member of `ring` must.
    ///
    /// # Errors
    /// When the request is malformed; a request that passed [`scan::check`] never is.
    pub fn split(
        &mut self,
        request: &[u8],
        shape: &Shape,
        (ring, accepting): (&Ring, &[bool]),
        processing: Option<&Processing>,
        now: Instant,
    ) -> Result<Routed, ScanError> {
        if self.open.len() < accepting.len() {
            self.open.resize_with(accepting.len(), Open::default);
        }
        self.places.begin();
        let (routed, service) = (Routed::default(), None);
        let no_trace = self.dice.as_mut().map(|dice| dice.u128(1..).to_be_bytes());
        let (is_logs, no_trace) = (no_trace.is_some(), no_trace.unwrap_or_default());
        let mut router = Router { splitter: self, ring, accepting, now, routed, service, no_trace };
        if is_logs {
            scan::walk_logs(request, &mut router)?;
            return Ok(router.routed);
        }
        let Some(processing) = processing else {
            scan::walk(request, shape, &mut router)?;
            return Ok(router.routed);
        };
        let mut processor = Processor::new(processing, &mut router);
        scan::walk(request, shape, &mut processor)?;
        let Done { filtered, failures } = processor.done();
        Ok(Routed { filtered, failures, ..router.routed })
    }

    /// Whether a gateway may have counted the spans that are split from now on. Open batches hold none of
    /// the other kind: what was there is sealed, by what it is.
    pub fn set_counted(&mut self, counted: bool) {
        self.seal_older(Instant::now());
        self.counted = counted;
    }

    /// Changes when a batch is full; open ones follow with their next span.
    pub fn set_limits(&mut self, limits: BatchLimits) {
        self.limits = limits;
    }

    /// Seals every batch whose first span was appended at or before `deadline`.
    pub fn seal_older(&mut self, deadline: Instant) {
        for link in 0..self.open.len() {
            if self.open[link].since.is_some_and(|since| since <= deadline) {
                self.seal(link);
            }
        }
    }

    /// When the first span came that is in an open batch.
    pub fn oldest(&self) -> Option<Instant> {
        self.open.iter().filter_map(|open| open.since).min()
    }

    /// Hands over the batches that were sealed since the last call.
    pub fn take_sealed(&mut self) -> impl Iterator<Item = Sealed> + '_ {
        self.sealed.drain(..)
    }

    /// Takes an emptied batch back for reuse.
    pub fn recycle(&mut self, mut batch: Batch) {
        if self.spare.len() < SPARE_BATCHES {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// Bytes that open, sealed and spare batches and spare buffers occupy.
    pub fn held_bytes(&self) -> u64 {
        let open = self.open.iter().map(|open| &open.batch);
        let sealed = self.sealed.iter().map(|sealed| &sealed.batch);
        let batches = open.chain(sealed).chain(&self.spare);
        let listed = self.open.iter().map(|open| &open.traces);
        let listed = listed.chain(self.sealed.iter().map(|sealed| &sealed.traces));
        let lists: usize = listed.map(|traces| traces.capacity() * TRACE_BYTES).sum();
        lists as u64
            + batches.map(|batch| batch.held_bytes() as u64).sum::<u64>()
            + self.buffers.held_bytes()
    }

    /// Spans in open and sealed batches, for the ledger.
    pub fn held_spans(&self) -> u64 {
        let open: u64 = self.open.iter().map(|open| u64::from(open.batch.spans())).sum();
        let sealed: u64 = self.sealed.iter().map(|sealed| u64::from(sealed.batch.spans())).sum();
        open + sealed
    }

    /// Forgets every span; returns how many there were.
    pub fn abandon(&mut self) -> u64 {
        let left = self.held_spans();
        self.open.clear();
        self.sealed.clear();
        left
    }

    /// Whether the open batch of a link has nothing in it.
    pub fn is_empty(&self, link: LinkIndex) -> bool {
        self.open.get(link).is_none_or(|open| open.batch.is_empty())
    }

    /// Seals the open batch of a link.
    pub fn seal(&mut self, link: LinkIndex) {
        let Some(open) = self.open.get_mut(link) else { return };
        let Some(born) = open.since.take() else { return };
        open.group = None;
        let mut empty = self.spare.pop().unwrap_or_default();
        let full = open.batch.encoded_len_max() >= self.limits.bytes;
        if let Some(buffer) = self.buffers.take() {
            empty.attach(buffer);
        } else if full {
            // The next one will be as full, and to grow it step by step would copy every byte once more.
            empty.attach(Vec::with_capacity(self.limits.bytes + self.limits.bytes / ROOM_DEN));
        }
        let batch = std::mem::replace(&mut open.batch, empty);
        open.number = open.number.wrapping_add(1);
        // As with the buffer.
        let next = Vec::with_capacity(if full { open.traces.len() } else { 0 });
        let traces = std::mem::replace(&mut open.traces, next);
        self.sealed.push(Sealed { link, batch, traces, born, counted: self.counted });
    }
}

// === impl Places ===

impl Places {
    /// Begins another request.
    fn begin(&mut self) {
        self.request = self.request.checked_add(1).unwrap_or_else(|| {
            self.slots.fill(Place::default());
            1
        });
    }

    /// The slot of a trace: two traces may share one, then they take turns in it.
    #[inline]
    fn slot(&mut self, id: &TraceId) -> Option<&mut Place> {
        let (high, low) = id.split_at(8);
        let word = |half: &[u8]| half.first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        // Multiplied by an odd number (2^64 divided by the golden ratio) so that all bits tell.
        let mixed = (word(high) ^ word(low)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.slots.get_mut((mixed >> 32) as usize % PLACES)
    }

    /// The link of a trace that was met in this request, with its mark.
    #[inline]
    fn find(&mut self, id: &TraceId) -> Option<u32> {
        let request = self.request;
        let place = self.slot(id).filter(|place| place.request == request && place.id == *id);
        place.map(|place| place.link)
    }

    fn enter(&mut self, id: &TraceId, link: u32) {
        let request = self.request;
        if let Some(slot) = self.slot(id) {
            *slot = Place { id: *id, request, link, ..Place::default() };
        }
    }
}

// === impl Router ===

impl Router<'_> {
    /// The link for a span of this trace, and the key of the trace if it is met for the first time.
    #[inline]
    fn link_of(&mut self, id: &TraceId) -> Option<(LinkIndex, Option<TraceKey>)> {
        let known = self.splitter.places.find(id);
        if self.splitter.by_service {
            return self.link_in_service(id, known);
        }
        if let Some(link) = known {
            self.routed.rerouted += u64::from(link & LOWER != 0);
            return Some(((link & !LOWER) as LinkIndex, None));
        }
        let before = self.routed.rerouted;
        let key = self.splitter.seed.key(id);
        let link = self.choose(key)?;
        let mark = if self.routed.rerouted > before { LOWER } else { 0 };
        self.splitter.places.enter(id, link as u32 | mark);
        Some((link, Some(key)))
    }

    /// The same where spans go by their service: another one may have another link for the same trace.
    fn link_in_service(
        &mut self,
        id: &TraceId,
        known: Option<u32>,
    ) -> Option<(LinkIndex, Option<TraceKey>)> {
        let (link, lower) = self.service?;
        self.routed.rerouted += u64::from(lower);
        if known == Some(link as u32) {
            return Some((link, None));
        }
        self.splitter.places.enter(id, link as u32);
        Some((link, Some(self.splitter.seed.key(id))))
    }

    fn link_of_service(&mut self, group: &Group<'_>) -> Option<(LinkIndex, bool)> {
        let key = self.splitter.seed.service_key(service::name(&group.resource));
        let before = self.routed.rerouted;
        let link = self.choose(key)?;
        // Spans are counted, not services.
        let rerouted = std::mem::replace(&mut self.routed.rerouted, before) > before;
        Some((link, rerouted))
    }

    /// The link of the best-ranked member that takes spans now.
    fn choose(&mut self, key: TraceKey) -> Option<LinkIndex> {
        let first = *self.ring.links.get(self.ring.view.owner(key)?)?;
        if self.accepts(first) {
            return Some(first);
        }
        self.routed.rerouted += 1;
        self.ring
            .view
            .ranked(key)
            .filter_map(|member| self.ring.links.get(member).copied())
            .find(|link| self.accepts(*link))
    }

    fn accepts(&self, link: LinkIndex) -> bool {
        self.accepting.get(link).copied().unwrap_or(false)
    }
}

impl Visit for Router<'_> {
    fn group(&mut self, group: &Group<'_>) {
        if self.splitter.by_service {
            self.service = self.link_of_service(group);
        }
        for open in &mut self.splitter.open {
            open.group = None;
        }
    }

    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let Some((link, fresh)) = self.link_of(id) else { return };
        let Splitter { limits, open, places, seed, .. } = &mut *self.splitter;
        let Some(open) = open.get_mut(link) else { return };
        let group_header = group.resource.bytes().len() + group.scope.bytes().len();
        let group =
            *open.group.get_or_insert_with(|| open.batch.intern(&group.resource, &group.scope));
        open.batch.push(group, span);
        open.since.get_or_insert(self.now);
        let bytes = span.len() as u32;
        if let Some(place) = places.slot(id) {
            let is_listed = fresh.is_none() && place.batch == open.number;
            match open.traces.get_mut(place.entry as usize).filter(|_| is_listed) {
                Some((_, sum)) => *sum = sum.saturating_add(bytes),
                None => {
                    (place.batch, place.entry) = (open.number, open.traces.len() as u32);
                    open.traces.push((fresh.unwrap_or_else(|| seed.key(id)), bytes));
                }
            }
        }
        self.routed.spans += 1;
        // A batch is at least half spans: headers that fill one by themselves would otherwise be repeated
        // with every span, and a request could become a thousand times its size.
        let len = open.batch.encoded_len_max();
        let full = len >= limits.bytes || open.batch.spans() as usize >= limits.spans;
        if full && len >= 2 * group_header {
            self.splitter.seal(link);
        }
    }

    fn stray(&mut self, group: &Group<'_>, record: &[u8]) {
        let id = self.no_trace;
        self.span(group, &id, record);
    }
}

#[cfg(test)]
mod tests;
