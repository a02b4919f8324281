//! A shard's thread between the state machine and the buffer: what comes in is laid before the one, what it
//! says is done with the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use prost::Message as _;
use ringtail_engine::Millis;
use ringtail_engine::batch::Batch;
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::action::{Action, By, Inbound, Message};
use ringtail_engine::ownership::facts::{Fact, Name};
use ringtail_engine::ownership::message::{Delivery, Outcome, Receipt, Req, Verdict};
use ringtail_engine::scan::Shape;
use ringtail_engine::shard::custody::{Admitted, Guide, Manner, Place, Steady};
use ringtail_engine::span_metrics::Sighting;
use ringtail_engine::wire::put_varint;
use tokio::sync::oneshot;

use super::way::{Known, Laid, Way, Went};
use super::worker::{EXPORT_BYTES, Worker};
use super::{Outgoing, Taken, Work};
use crate::ledger::Refused;
use crate::peer::{SPANS_TAG, messages};
use crate::transport::{Method, PREFIX_BYTES, Pieces, framed, prefix};

/// Traces that are looked at together before they are settled one by one.
const APPROACHED: usize = 32;

/// A delivery of which some traces have not found their place.
#[derive(Debug)]
pub(super) struct Delivered {
    done: oneshot::Sender<Taken>,
    /// Those that are not simply held here.
    parts: Vec<Known>,
    /// Spans of them that were passed on, by the place of their part: counted once somebody has them.
    sightings: Vec<(usize, Sighting)>,
}

/// What is taken out of a parcel: consecutive actions make one list, so that the parcel is read once.
enum Unpacking {
    Nothing,
    /// Back into the buffer.
    Restore(Req, Vec<(TraceKey, Millis)>),
    /// Into another parcel.
    Repack(Req, Req, Vec<TraceKey>),
}

// === Deliveries ===

impl Worker {
    /// Takes the shard's part of a request.
    pub(super) fn deliver(&mut self, work: &Work, done: oneshot::Sender<Taken>, now: Millis) {
        self.elsewhere.clear();
        let manner = work.manner.at(now);
        let Self { shard, traces, stand, elsewhere, kept, marked, .. } = self;
        let mut way = Way { traces, stand, manner: &work.manner, now, elsewhere, marked };
        let guided = (manner, &mut way as &mut dyn Guide);
        let admitted = shard.admit(&work.request, &work.shape, guided, now, kept);
        for key in &self.elsewhere.foreign {
            self.traces.weigh(*key, self.shard.weight(*key));
        }
        self.gauges.disturbed.store(now, Relaxed);
        self.count(work, &admitted);
        if self.elsewhere.parts.is_empty() {
            // What is held here is seen before anybody hears of it.
            self.publish();
            let _ = done.send(Taken::default());
        } else {
            self.dispatch(work.manner.hops, done, now);
        }
        self.flush(EXPORT_BYTES);
    }

    /// Sends on what is others', and answers when all of it has found its place.
    fn dispatch(&mut self, hops: u8, done: oneshot::Sender<Taken>, now: Millis) {
        self.deliveries += 1;
        let inbound = Inbound(self.deliveries);
        let parts = std::mem::take(&mut self.elsewhere.parts);
        let mut passed: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(parts.len());
        for (index, known) in parts.iter().enumerate() {
            outcomes.push(match &known.went {
                Went::There(outcome) => Some(outcome.clone()),
                Went::On(place) => {
                    if let Some((to, _)) = self.elsewhere.batches.get(*place) {
                        passed.entry(Arc::clone(to)).or_default().push(index);
                    }
                    None
                }
            });
        }
        let delivery = Delivery { parts: parts.iter().map(|known| known.part).collect(), hops };
        let Self { traces, stand, actions, .. } = self;
        traces.dispatch(stand, inbound, &delivery, (outcomes, passed), now, actions);
        for action in &self.actions {
            let Action::Pass { parts: indices, parcel, .. } = action else { continue };
            let first = indices.first().and_then(|index| parts.get(*index));
            if let Some(Known { went: Went::On(place), .. }) = first
                && let Some((_, batch)) = self.elsewhere.batches.get(*place)
            {
                self.parcels.add(*parcel, batch);
            }
        }
        let sightings = self.shard.take_sightings();
        self.inbound.insert(inbound.0, Delivered { done, parts, sightings });
        self.perform(now);
        self.publish();
    }

    fn count(&self, work: &Work, admitted: &Admitted) {
        if let Some(error) = &admitted.failed {
            tracing::error!(%error, "a request that was checked does not parse; please report this");
        }
        let counters = &self.outside.counters;
        let Admitted { stored, duplicates, late_kept, late_dropped, repeated, passed, .. } =
            *admitted;
        let meant = stored + duplicates + late_kept + late_dropped + repeated + passed;
        let source = match (work.from_peer, work.manner.again) {
            (_, true) => &counters.from_replays,
            (true, _) => &counters.from_peers,
            (false, _) => &counters.from_clients,
        };
        source.fetch_add(meant, Relaxed);
        counters.duplicate.fetch_add(repeated, Relaxed);
        counters.repeated.fetch_add(repeated, Relaxed);
    }

    fn reply(&mut self, inbound: Inbound, receipt: Receipt) {
        let Some(delivered) = self.inbound.remove(&inbound.0) else { return };
        self.count_sighted(&delivered.sightings, &receipt.outcomes);
        let counters = &self.outside.counters;
        let mut taken = Taken::default();
        for (known, outcome) in delivered.parts.iter().zip(receipt.outcomes) {
            if outcome == Outcome::Refused {
                let spans = u64::from(known.spans);
                taken.refused += spans;
                counters.refused.add(Refused::NoHolder, spans);
                if matches!(known.went, Went::On(_)) {
                    // They left with their parcel, and nobody took them.
                    counters.out.fetch_sub(spans, Relaxed);
                }
            }
            match outcome {
                Outcome::Held(holder) if holder == receipt.from => {}
                other => taken.elsewhere.push((known.part.key, other)),
            }
        }
        // What is held here is seen before anybody hears of it.
        self.publish();
        // The requester may have given up; the spans have their places all the same.
        let _ = delivered.done.send(taken);
    }
}

// === Span metrics ===

impl Worker {
    /// Counts spans that were passed on and that somebody has now. Those that nobody took come again, and
    /// are counted then.
    fn count_sighted(&mut self, sightings: &[(usize, Sighting)], outcomes: &[Outcome]) {
        let now = self.outside.clock.now();
        let Some(tally) = self.shard.metrics() else { return };
        let found = |part: &usize| outcomes.get(*part).is_some_and(|is| *is != Outcome::Refused);
        for (_, sighting) in sightings.iter().filter(|(part, _)| found(part)) {
            tally.count(sighting, now);
        }
    }

    /// Bytes of the spans that wait to be counted.
    pub(super) fn sighted_bytes(&self) -> u64 {
        let waiting = self.inbound.values().flat_map(|delivered| &delivered.sightings);
        waiting.map(|(_, sighting)| sighting.bytes()).sum()
    }
}

// === Actions ===

impl Worker {
    /// Does what the state machine says.
    pub(super) fn perform(&mut self, now: Millis) {
        if self.actions.is_empty() {
            return;
        }
        // Between these, others gather too.
        self.shard.start_gathering();
        let mut actions = std::mem::take(&mut self.actions);
        let mut unpacking = Unpacking::Nothing;
        let mut left = actions.drain(..);
        let mut near = 0;
        loop {
            if near == 0 {
                near = self.approach(left.as_slice());
            }
            let Some(action) = left.next() else { break };
            near -= 1;
            unpacking = self.unpack(unpacking, &action, now);
            match action {
                Action::Settle { key, verdict, by } => self.settle(key, verdict, by),
                Action::PutBack { key, at } => self.shard.put_back(key, now, at),
                Action::Take { keys, parcel } => self.gather(&keys, parcel),
                Action::Send { to, req, message, deadline } => {
                    self.send(to, req, message, deadline);
                }
                Action::Forget { parcel } => {
                    let left = self.parcels.forget(parcel);
                    self.outside.counters.out.fetch_add(left, Relaxed);
                }
                Action::Reply { inbound, receipt } => self.reply(inbound, receipt),
                // These were done with their delivery, or are gathered above.
                Action::Store { .. }
                | Action::Follow { .. }
                | Action::Repeated { .. }
                | Action::Pass { .. }
                | Action::Repack { .. }
                | Action::Restore { .. }
                | Action::Exit => {}
            }
        }
        drop(left);
        self.finish_unpacking(unpacking, now);
        self.actions = actions;
    }

    /// Has the next of these traces come closer that are to be settled. Returns how many actions that are.
    fn approach(&self, actions: &[Action]) -> usize {
        let next = &actions[..actions.len().min(APPROACHED)];
        let settled = next.iter().filter_map(|action| match action {
            Action::Settle { key, by: By::Us, .. } => Some(*key),
            _ => None,
        });
        self.shard.approach(settled);
        next.len()
    }

    fn settle(&mut self, key: TraceKey, verdict: Verdict, by: By) {
        if let Some(verdicts) = &self.outside.verdicts {
            verdicts.tell(key, verdict.keep);
        }
        let Self { shard, kept, marked, .. } = self;
        if verdict.keep && marked.is_on() {
            let mark = marked.mark(verdict.note, false);
            if marked.turn_to(&mark) {
                shard.start_gathering();
            }
            shard.conclude(key, verdict, by, marked.batch(&mark));
        } else {
            shard.conclude(key, verdict, by, kept);
        }
        if verdict.keep && by == By::Us {
            self.kept_keys.push(key);
        }
        self.flush(EXPORT_BYTES);
    }

    /// Decides a trace at the end of the process.
    pub(super) fn conclude(&mut self, key: TraceKey, verdict: Verdict) {
        self.settle(key, verdict, By::Us);
    }

    /// Moves traces out of the buffer into a parcel.
    fn gather(&mut self, keys: &[TraceKey], parcel: Req) {
        let mut batch = Batch::default();
        self.shard.start_gathering();
        for key in keys {
            self.shard.take(*key, &mut batch);
        }
        self.shard.start_gathering();
        self.parcels.add(parcel, &batch);
        self.outside.counters.handed_over.fetch_add(u64::from(batch.spans()), Relaxed);
    }

    fn send(&mut self, to: Name, req: Req, message: Message, deadline: Millis) {
        let of = self.stand.me.clone();
        let from = messages::member(&Fact { of, state: self.stand.state });
        let (method, frame, keys) = match message {
            Message::Deliver(delivery) => {
                let spans = self.parcels.message(req);
                let head = messages::delivery(&delivery, from, self.stand.view.digest(), true);
                let frame = enclose(&head.encode_to_vec(), spans);
                let keys = delivery.parts.iter().map(|part| part.key).collect();
                (Method::Deliver, frame, keys)
            }
            Message::Decisions(told) => {
                let request = messages::decisions(&told, from).encode_to_vec();
                let frame = framed(request.len(), |out| out.extend_from_slice(&request));
                self.traces.recycle(told);
                (Method::Decide, Pieces::from(frame), Vec::new())
            }
            // Shards do not greet and do not ask.
            Message::Hello(_) | Message::Poll(_) => return,
        };
        let outgoing = Outgoing { to, req, method, frame, keys, deadline };
        // The task that sends ends with the process.
        let _ = self.outside.outgoing.send(outgoing);
    }

    // === Parcels ===

    /// Adds an action to what is to be taken out of a parcel, or does that first.
    fn unpack(&mut self, unpacking: Unpacking, action: &Action, now: Millis) -> Unpacking {
        match (unpacking, action) {
            (Unpacking::Restore(from, mut keys), Action::Restore { parcel, key, first })
                if from == *parcel =>
            {
                keys.push((*key, *first));
                Unpacking::Restore(from, keys)
            }
            (Unpacking::Repack(source, target, mut keys), Action::Repack { key, from, to })
                if (source, target) == (*from, *to) =>
            {
                keys.push(*key);
                Unpacking::Repack(source, target, keys)
            }
            (unpacking, action) => {
                self.finish_unpacking(unpacking, now);
                match action {
                    Action::Restore { parcel, key, first } => {
                        Unpacking::Restore(*parcel, vec![(*key, *first)])
                    }
                    Action::Repack { key, from, to } => Unpacking::Repack(*from, *to, vec![*key]),
                    _ => Unpacking::Nothing,
                }
            }
        }
    }

    fn finish_unpacking(&mut self, unpacking: Unpacking, now: Millis) {
        match unpacking {
            Unpacking::Nothing => {}
            Unpacking::Restore(parcel, mut keys) => {
                keys.sort_unstable();
                let place = |key: TraceKey| {
                    let found = keys.binary_search_by_key(&key, |(known, _)| *known).ok()?;
                    Some(Place::Store(keys[found].1, Steady::default()))
                };
                let message = self.parcels.message(parcel);
                let admitted = self.read(&message, place, &mut Batch::default(), now);
                self.parcels.take_out(parcel, admitted.stored + admitted.duplicates);
            }
            Unpacking::Repack(from, to, mut keys) => {
                keys.sort_unstable();
                let place = |key: TraceKey| keys.binary_search(&key).ok().map(|_| Place::Pass(0));
                let message = self.parcels.message(from);
                let mut batch = Batch::default();
                let admitted = self.read(&message, place, &mut batch, now);
                self.parcels.take_out(from, admitted.passed);
                self.parcels.add(to, &batch);
            }
        }
    }

    /// Puts the traces of a parcel where they belong, those without a place nowhere.
    fn read(
        &mut self,
        message: &Bytes,
        place: impl Fn(TraceKey) -> Option<Place>,
        batch: &mut Batch,
        now: Millis,
    ) -> Admitted {
        let Self { shard, kept, .. } = self;
        let mut laid = Laid { place, batch, group: None };
        // None of it is steady: each trace has a place of its own.
        let manner = Manner { steady: Steady::default(), first: now, counts: false };
        let guided = (manner, &mut laid as &mut dyn Guide);
        let admitted = shard.admit(message, &Shape::UNKNOWN, guided, now, kept);
        if let Some(error) = &admitted.failed {
            tracing::error!(%error, "a parcel of our own does not parse; please report this");
        }
        shard.start_gathering();
        admitted
    }

    /// Takes everything out of all parcels: the process ends.
    pub(super) fn unpack_all(&mut self) {
        let now = self.outside.clock.now();
        for message in self.parcels.drain() {
            let here = |_| Some(Place::Store(now, Steady::default()));
            self.read(&message, here, &mut Batch::default(), now);
        }
        self.inbound.clear();
    }
}

/// A delivery with its spans behind `head`, which are not copied.
fn enclose(head: &[u8], spans: Bytes) -> Pieces {
    let mut front = Vec::with_capacity(PREFIX_BYTES + head.len() + 11);
    front.extend_from_slice(&[0; PREFIX_BYTES]);
    front.extend_from_slice(head);
    front.push(SPANS_TAG);
    put_varint(&mut front, spans.len() as u64);
    let length = front.len() - PREFIX_BYTES + spans.len();
    if let Some(place) = front.first_chunk_mut() {
        *place = prefix(length, false);
    }
    Pieces::new([Bytes::from(front), spans])
}
