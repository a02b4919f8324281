//! A shard's thread between the state machine and the buffer: what comes in is laid before the one, what it
//! says is done with the other.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use prost::Message as _;
use ringtail_engine::Millis;
use ringtail_engine::batch::Batch;
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::action::{Action, By, Inbound, Message};
use ringtail_engine::ownership::facts::{Fact, Name};
use ringtail_engine::ownership::message::{Decision, Delivery, Outcome, Receipt, Req, Verdict};
use ringtail_engine::scan::Shape;
use ringtail_engine::shard::custody::{Admitted, Place, Plan};
use ringtail_engine::wire::put_varint;
use tokio::sync::oneshot;

use super::worker::{EXPORT_BYTES, Worker};
use super::{Outgoing, Taken, Work};
use crate::ledger::Refused;
use crate::peer::{SPANS_TAG, messages};
use crate::transport::{Method, PREFIX_BYTES, Pieces, framed, prefix};

/// A delivery whose traces have not all found their place.
#[derive(Debug)]
pub(super) struct Delivered {
    done: oneshot::Sender<Taken>,
    parts: Vec<Known>,
}

/// A trace of a delivery.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: TraceKey,
    spans: u32,
    passed: bool,
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
    pub(super) fn deliver(&mut self, work: Arc<Work>, done: oneshot::Sender<Taken>, now: Millis) {
        if let Err(error) = self.shard.survey(&work.request, &work.shape, &mut self.survey) {
            tracing::error!(%error, "a request that was checked does not parse; please report this");
            return;
        }
        self.deliveries += 1;
        let inbound = Inbound(self.deliveries);
        let known = self.introduce(&work, now);
        self.gauges.disturbed.store(now, Relaxed);
        let parts = std::mem::take(&mut self.parts);
        let delivery = Delivery { parts, hops: work.manner.hops };
        self.traces.on_delivery(&self.stand, inbound, &delivery, now, &mut self.actions);
        self.parts = delivery.parts;
        let parcels = self.lay_out();
        let mut batches: Vec<Batch> = parcels.iter().map(|_| Batch::default()).collect();
        let plan = Plan { survey: &self.survey, places: &self.places };
        let Self { shard, kept, .. } = self;
        let admitted = shard.admit(&work.request, &work.shape, plan, now, kept, &mut batches);
        for ((req, _), batch) in parcels.iter().zip(&batches) {
            self.parcels.add(*req, batch);
        }
        self.count(&work, &admitted, &known);
        let mut delivered = Delivered { done, parts: known };
        for (_, indices) in &parcels {
            for index in indices {
                if let Some(known) = delivered.parts.get_mut(*index) {
                    known.passed = true;
                }
            }
        }
        self.inbound.insert(inbound.0, delivered);
        self.perform(now);
        if !parcels.is_empty() {
            self.publish();
        }
        self.flush(EXPORT_BYTES);
    }

    /// Makes a part of each trace that is meant.
    fn introduce(&mut self, work: &Work, now: Millis) -> Vec<Known> {
        let Self { shard, survey, parts, surveyed, reminders, .. } = self;
        parts.clear();
        surveyed.clear();
        reminders.clear();
        let mut known = Vec::with_capacity(survey.traces().len());
        for (trace, place) in survey.traces().iter().zip(0..) {
            let Some(part) = work.manner.part(trace.key, trace.bytes) else { continue };
            parts.push(part);
            surveyed.push(place);
            known.push(Known { key: trace.key, spans: trace.spans, passed: false });
            // The shard remembers the verdicts of many more traces than are told to others.
            if let Some(keep) = shard.recall(trace.key) {
                let verdict = Verdict { keep, note: 0 };
                reminders.push(Decision { key: trace.key, verdict, age: 0, exported: false });
            }
        }
        if !reminders.is_empty() {
            self.traces.on_reminded(&self.reminders, now, &mut self.actions);
        }
        known
    }

    /// Reads from the actions where each trace of the survey goes, and which parcels are made of them.
    fn lay_out(&mut self) -> Vec<(Req, Vec<usize>)> {
        let Self { survey, surveyed, places, actions, .. } = self;
        places.clear();
        places.resize(survey.traces().len(), Place::Nowhere);
        let mut parcels: Vec<(Req, Vec<usize>)> = Vec::new();
        let mut put = |part: usize, to: Place| {
            let place = surveyed.get(part).and_then(|place| places.get_mut(*place as usize));
            if let Some(place) = place {
                *place = to;
            }
        };
        for action in actions.iter_mut() {
            match action {
                Action::Store { part, first, .. } => put(*part, Place::Store(*first)),
                Action::Follow { part, verdict, .. } => put(*part, Place::Follow(verdict.keep)),
                Action::Repeated { part, .. } => put(*part, Place::Repeated),
                Action::Pass { parts, parcel, .. } => {
                    parts.iter().for_each(|part| put(*part, Place::Pass(parcels.len())));
                    parcels.push((*parcel, std::mem::take(parts)));
                }
                _ => {}
            }
        }
        parcels
    }

    fn count(&self, work: &Work, admitted: &Admitted, known: &[Known]) {
        if let Some(error) = &admitted.failed {
            tracing::error!(%error, "a request that was checked does not parse; please report this");
        }
        let counters = &self.outside.counters;
        let meant: u64 = known.iter().map(|known| u64::from(known.spans)).sum();
        let source = match (work.from_peer, work.manner.again) {
            (_, true) => &counters.from_replays,
            (true, _) => &counters.from_peers,
            (false, _) => &counters.from_clients,
        };
        source.fetch_add(meant, Relaxed);
        counters.duplicate.fetch_add(admitted.repeated, Relaxed);
        counters.repeated.fetch_add(admitted.repeated, Relaxed);
    }

    fn reply(&mut self, inbound: Inbound, receipt: Receipt) {
        let Some(delivered) = self.inbound.remove(&inbound.0) else { return };
        let counters = &self.outside.counters;
        let mut taken = Taken::default();
        for (known, outcome) in delivered.parts.iter().zip(receipt.outcomes) {
            if outcome == Outcome::Refused {
                let spans = u64::from(known.spans);
                taken.refused += spans;
                counters.refused.add(Refused::NoHolder, spans);
                if known.passed {
                    // They left with their parcel, and nobody took them.
                    counters.out.fetch_sub(spans, Relaxed);
                }
            }
            match outcome {
                Outcome::Held(holder) if holder == receipt.from => {}
                other => taken.elsewhere.push((known.key, other)),
            }
        }
        // What is held here is seen before anybody hears of it.
        self.publish();
        // The requester may have given up; the spans have their places all the same.
        let _ = delivered.done.send(taken);
    }
}

// === Actions ===

impl Worker {
    /// Does what the state machine says.
    pub(super) fn perform(&mut self, now: Millis) {
        if self.actions.is_empty() {
            return;
        }
        self.shard.start_gathering();
        let mut actions = std::mem::take(&mut self.actions);
        let mut unpacking = Unpacking::Nothing;
        for action in actions.drain(..) {
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
                // These were laid out with their delivery, or gathered above.
                Action::Store { .. }
                | Action::Follow { .. }
                | Action::Repeated { .. }
                | Action::Pass { .. }
                | Action::Repack { .. }
                | Action::Restore { .. }
                | Action::Exit => {}
            }
        }
        self.finish_unpacking(unpacking, now);
        self.actions = actions;
    }

    fn settle(&mut self, key: TraceKey, verdict: Verdict, by: By) {
        self.shard.conclude(key, verdict, by, &mut self.kept);
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
                    Some(Place::Store(keys[found].1))
                };
                let message = self.parcels.message(parcel);
                let admitted = self.read(&message, place, &mut [], now);
                self.parcels.take_out(parcel, admitted.stored + admitted.duplicates);
            }
            Unpacking::Repack(from, to, mut keys) => {
                keys.sort_unstable();
                let place = |key: TraceKey| keys.binary_search(&key).ok().map(|_| Place::Pass(0));
                let message = self.parcels.message(from);
                let mut batches = [Batch::default()];
                let admitted = self.read(&message, place, &mut batches, now);
                self.parcels.take_out(from, admitted.passed);
                self.parcels.add(to, &batches[0]);
            }
        }
    }

    /// Puts the traces of a parcel where they belong, those without a place nowhere.
    fn read(
        &mut self,
        message: &Bytes,
        place: impl Fn(TraceKey) -> Option<Place>,
        parcels: &mut [Batch],
        now: Millis,
    ) -> Admitted {
        let Self { shard, survey, places, kept, .. } = self;
        if let Err(error) = shard.survey(message, &Shape::UNKNOWN, survey) {
            tracing::error!(%error, "a parcel of our own does not parse; please report this");
        }
        places.clear();
        let found = survey.traces().iter().map(|trace| place(trace.key));
        places.extend(found.map(|place| place.unwrap_or(Place::Nowhere)));
        let plan = Plan { survey, places };
        let admitted = shard.admit(message, &Shape::UNKNOWN, plan, now, kept, parcels);
        shard.start_gathering();
        admitted
    }

    /// Takes everything out of all parcels: the process ends.
    pub(super) fn unpack_all(&mut self) {
        let now = self.outside.clock.now();
        for message in self.parcels.drain() {
            self.read(&message, |_| Some(Place::Store(now)), &mut [], now);
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
