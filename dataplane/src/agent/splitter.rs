//! Splits requests by trace: every span is appended to the open batch of the gateway that owns its key.

use std::time::Instant;

use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::rewrite::processing::{Done, Processing, Processor};
use ringtail_engine::ring::View;
use ringtail_engine::scan::{self, Group, ScanError, Shape, TraceId, Visit};
use ringtail_engine::service;

use super::frame::Buffers;

/// Emptied batches that are kept for reuse, so that their memory is not faulted in anew for every batch. A
/// batch holds about 1 MiB; eight cover a burst in which every gateway of a small fleet seals at once.
const SPARE_BATCHES: usize = 8;

/// A batch is full when its last span has passed the limit: a new buffer has room for that one, 1/8 of the
/// limit, which is 32 KiB of 256.
const ROOM_DEN: usize = 8;

/// Places of traces that are remembered while a request is split: four times the traces of a request of a
/// thousand spans, in 28 KiB, which a processor's nearest cache has room for.
const PLACES: usize = 512;

/// What is known of a trace of a batch.
const TRACE_BYTES: usize = size_of::<(TraceKey, u32)>();

/// The number of no batch.
const NO_BATCH: u64 = u64::MAX;

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
    request: u64,
    slots: Vec<Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    id: TraceId,
    /// The request that left it; none has the number 0.
    request: u64,
    link: u32,
    /// Whether the link is that of a lower choice.
    rerouted: bool,
    key: u64,
    /// Where the trace is in the list of the link's open batch, if that is the one with this number.
    entry: u32,
    batch: u64,
}

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
    /// Grows with every batch that is sealed here, from one.
    number: u64,
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
        self.places.request += 1;
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
        open.number += 1;
        let traces = std::mem::take(&mut open.traces);
        self.sealed.push(Sealed { link, batch, traces, born, counted: self.counted });
    }
}

// === impl Places ===

impl Places {
    /// The slot of a trace: two traces may share one, then they take turns in it.
    #[inline]
    fn slot(&mut self, id: &TraceId) -> Option<&mut Place> {
        let (high, low) = id.split_at(8);
        let word = |half: &[u8]| half.first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        // Multiplied by an odd number (2^64 divided by the golden ratio) so that all bits tell.
        let mixed = (word(high) ^ word(low)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.slots.get_mut((mixed >> 32) as usize % PLACES)
    }
}

// === impl Router ===

impl Router<'_> {
    /// The link for a span of this trace.
    #[inline]
    fn place_of(&mut self, id: &TraceId) -> Option<Place> {
        let request = self.splitter.places.request;
        if self.splitter.by_service {
            return self.place_in_service(id);
        }
        if let Some(place) = self.splitter.places.slot(id)
            && place.request == request
            && place.id == *id
        {
            self.routed.rerouted += u64::from(place.rerouted);
            return Some(*place);
        }
        let before = self.routed.rerouted;
        let key = self.splitter.seed.key(id);
        let link = self.choose(key)? as u32;
        let rerouted = self.routed.rerouted > before;
        Some(Place { id: *id, request, link, rerouted, key: key.0, entry: 0, batch: NO_BATCH })
    }

    /// The place of a trace among the spans of its service; another service may have another one.
    fn place_in_service(&mut self, id: &TraceId) -> Option<Place> {
        let (link, rerouted) = self.service?;
        let request = self.splitter.places.request;
        self.routed.rerouted += u64::from(rerouted);
        let link = link as u32;
        if let Some(place) = self.splitter.places.slot(id)
            && (place.request, place.link, place.id) == (request, link, *id)
        {
            return Some(*place);
        }
        let key = self.splitter.seed.key(id).0;
        Some(Place { id: *id, request, link, rerouted, key, entry: 0, batch: NO_BATCH })
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
        let Some(mut place) = self.place_of(id) else { return };
        let link = place.link as LinkIndex;
        let limits = self.splitter.limits;
        let Some(open) = self.splitter.open.get_mut(link) else { return };
        let group_header = group.resource.bytes().len() + group.scope.bytes().len();
        let group =
            *open.group.get_or_insert_with(|| open.batch.intern(&group.resource, &group.scope));
        open.batch.push(group, span);
        open.since.get_or_insert(self.now);
        let bytes = span.len() as u32;
        if place.batch == open.number {
            if let Some((_, sum)) = open.traces.get_mut(place.entry as usize) {
                *sum = sum.saturating_add(bytes);
            }
        } else {
            (place.batch, place.entry) = (open.number, open.traces.len() as u32);
            open.traces.push((TraceKey(place.key), bytes));
            if let Some(slot) = self.splitter.places.slot(id) {
                *slot = place;
            }
        }
        self.routed.spans += 1;
        // A batch is at least half spans: headers that fill one by themselves would otherwise be repeated
        // with every span, and a request could become a thousand times its size.
        let Some(open) = self.splitter.open.get(link) else { return };
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
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;
    use ringtail_engine::ring::Member;

    use super::*;

    /// 400 small spans under a resource of 200 KiB.
    fn top_heavy() -> Vec<u8> {
        let span = |number: u64| Span {
            trace_id: [number.to_be_bytes(), [1; 8]].concat(),
            ..Span::default()
        };
        let scope = ScopeSpans { spans: (0..400).map(span).collect(), ..ScopeSpans::default() };
        let resource = ResourceSpans {
            scope_spans: vec![scope],
            schema_url: "x".repeat(200 << 10),
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
    }

    #[test]
    fn a_large_resource_is_not_repeated_with_every_span() {
        let seed = KeySeed::new([1; 16]);
        let view = View::new(vec![Member { id: "gw".to_owned(), inst: 1 }], &seed);
        let ring = Ring { view, links: vec![0] };
        for limits in
            [BatchLimits { bytes: 1024, spans: 8192 }, BatchLimits { bytes: 1 << 20, spans: 1 }]
        {
            let mut splitter = Splitter::new(seed, limits, Buffers::default());
            let request = top_heavy();
            let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
            let over = (&ring, &[true][..]);
            let routed = splitter.split(&request, &shape, over, None, Instant::now()).unwrap();
            assert_eq!(routed, Routed { spans: 400, ..Routed::default() });
            splitter.seal_older(Instant::now());
            let written: usize = splitter.take_sealed().map(|s| s.batch.encoded_len()).sum();
            assert!(written <= 2 * request.len(), "{limits:?}: {written} of {}", request.len());
        }
    }

    #[test]
    fn what_may_have_been_counted_is_in_batches_of_its_own() {
        let seed = KeySeed::new([1; 16]);
        let view = View::new(vec![Member { id: "gw".to_owned(), inst: 1 }], &seed);
        let ring = Ring { view, links: vec![0] };
        let limits = BatchLimits { bytes: 64 << 20, spans: 1 << 20 };
        let mut splitter = Splitter::new(seed, limits, Buffers::default());
        let request = top_heavy();
        let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
        for counted in [false, true, true, false] {
            splitter.set_counted(counted);
            let over = (&ring, &[true][..]);
            splitter.split(&request, &shape, over, None, Instant::now()).unwrap();
        }
        splitter.seal_older(Instant::now());
        let sealed: Vec<(bool, u32)> =
            splitter.take_sealed().map(|one| (one.counted, one.batch.spans())).collect();
        assert_eq!(sealed, [(false, 400), (true, 400), (true, 400), (false, 400)]);
    }

    #[test]
    fn spans_of_a_service_go_to_one_gateway_whatever_their_trace() {
        use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
        use opentelemetry_proto::tonic::resource::v1::Resource;

        let of = |service: u64| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![KeyValue {
                    key: "service.name".to_owned(),
                    value: Some(AnyValue {
                        value: Some(any_value::Value::StringValue(format!("service-{service}"))),
                    }),
                    ..KeyValue::default()
                }],
                ..Resource::default()
            }),
            // Every service has a span of each of these traces.
            scope_spans: vec![ScopeSpans {
                spans: (0..30_u64)
                    .map(|number| Span {
                        trace_id: [number.to_be_bytes(), [1; 8]].concat(),
                        ..Span::default()
                    })
                    .collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        };
        let request =
            ExportTraceServiceRequest { resource_spans: (0..40).map(of).collect() }.encode_to_vec();
        let seed = KeySeed::new([1; 16]);
        let member = |id: &str| Member { id: id.to_owned(), inst: 1 };
        let view = View::new(vec![member("a"), member("b"), member("c")], &seed);
        let ring = Ring { view, links: vec![0, 1, 2] };
        let limits = BatchLimits { bytes: 1 << 20, spans: 100_000 };
        let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
        for accepting in [[true; 3], [true, false, true]] {
            let mut splitter = Splitter::new(seed, limits, Buffers::default()).by_service(true);
            let now = Instant::now();
            let routed = splitter.split(&request, &shape, (&ring, &accepting), None, now).unwrap();
            assert_eq!(routed.spans, 1_200);
            assert_eq!(routed.rerouted > 0, accepting != [true; 3], "{routed:?}");
            assert_eq!(routed.rerouted % 30, 0, "whole services go elsewhere");
            splitter.seal_older(now);
            let sealed: Vec<Sealed> = splitter.take_sealed().collect();
            assert_eq!(sealed.len(), accepting.iter().filter(|open| **open).count());
            for batch in sealed {
                assert!(accepting[batch.link]);
                assert_eq!(batch.batch.spans() % 30, 0, "a service is in one batch");
            }
        }
    }
}
