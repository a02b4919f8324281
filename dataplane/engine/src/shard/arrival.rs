//! A request comes in: each span joins its trace, repeats what is known, or follows a decision made before.

use super::custody::{self, Plan};
use super::survey::FOREIGN;
use super::{Early, Inserted, Shard};
use crate::Millis;
use crate::batch::{Batch, GroupRef};
use crate::buffer::deadline::UNLINKED;
use crate::buffer::duplicates::{Known, Seen};
use crate::buffer::index::{Entry, Stage};
use crate::buffer::segment::{Chain, Owner};
use crate::facts::TraceFacts;
use crate::key::{TraceKey, shard_of};
use crate::scan::{self, Group, Headers, Shape, TraceId, Visit};

/// Where the spans of a trace go.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// To another shard.
    Foreign,
    /// To the entry in this slot.
    Held(u32),
    /// The way of the trace, which was decided before.
    Late { kept: bool },
    /// Nowhere: exported before.
    Repeated,
    /// Into a parcel.
    Passed(usize),
}

/// What became of spans that neither joined a trace nor followed one.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) repeated: u64,
    pub(super) passed: u64,
}

/// Somebody else says where spans go.
struct Guide<'a> {
    plan: Plan<'a>,
    /// The next run of spans of one trace.
    run: usize,
    parcels: &'a mut [Batch],
    /// Of each parcel: the current group in it.
    groups: Vec<Option<GroupRef>>,
    elsewhere: Elsewhere,
}

/// A request on its way in.
struct Arrival<'a> {
    shard: &'a mut Shard,
    out: &'a mut Batch,
    inserted: Inserted,
    guide: Option<Guide<'a>>,
    /// The trace of the last span: the next one is often of the same.
    last: Option<(TraceId, Place)>,
    /// The current resource and group, held here once a span of them was stored. The resource is told from
    /// others by hash and length: the hash is keyed, so that two of them agree once in 2^64 times.
    resource: Option<((u64, usize), u32)>,
    group: Option<u32>,
    /// The current group in `out`, once a late span of it was pushed.
    late: Option<GroupRef>,
}

impl Shard {
    /// Takes in the spans of a request that are this shard's. The request must have passed [`scan::check`]:
    /// this only walks it. Kept spans, late ones and those of traces that pass a cap, are pushed to `out`.
    pub fn insert(
        &mut self,
        request: &[u8],
        shape: &Shape,
        now: Millis,
        out: &mut Batch,
    ) -> Inserted {
        let (inserted, _) = self.arrive(request, shape, None, now, out);
        inserted
    }

    /// Takes in spans, each to the place that the plan has for its trace, if there is one.
    pub(super) fn arrive<'a>(
        &'a mut self,
        request: &[u8],
        shape: &Shape,
        plan: Option<(Plan<'a>, &'a mut [Batch])>,
        now: Millis,
        out: &'a mut Batch,
    ) -> (Inserted, Elsewhere) {
        self.advance(now);
        self.headers.start_gathering();
        let guide = plan.map(|(plan, parcels)| Guide {
            plan,
            run: 0,
            groups: vec![None; parcels.len()],
            parcels,
            elsewhere: Elsewhere::default(),
        });
        let mut arrival = Arrival {
            shard: self,
            out,
            inserted: Inserted::default(),
            guide,
            last: None,
            resource: None,
            group: None,
            late: None,
        };
        let failed = scan::walk(request, shape, &mut arrival).err();
        arrival.leave_group();
        arrival.leave_resource();
        let inserted = Inserted { failed, ..arrival.inserted };
        let stats = &mut arrival.shard.stats;
        stats.stored += inserted.stored;
        stats.duplicates += inserted.duplicates;
        stats.late_kept += inserted.late_kept;
        stats.late_dropped += inserted.late_dropped;
        stats.traces += inserted.traces_new;
        (inserted, arrival.guide.map(|guide| guide.elsewhere).unwrap_or_default())
    }
}

impl Visit for Arrival<'_> {
    fn group(&mut self, _group: &Group<'_>) {
        self.leave_group();
    }

    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let place = match self.last {
            Some((last, place)) if last == *id => place,
            _ => {
                let place = self.place(id);
                self.last = Some((*id, place));
                place
            }
        };
        match place {
            Place::Foreign => self.inserted.foreign += 1,
            Place::Held(slot) => self.store(slot, group, span),
            Place::Late { kept } => self.follow(kept, group, span),
            Place::Repeated | Place::Passed(_) => self.send_elsewhere(place, group, span),
        }
    }
}

impl Arrival<'_> {
    fn place(&mut self, id: &TraceId) -> Place {
        if let Some(guide) = &mut self.guide {
            let place = guide.next_place();
            return self.follow_guide(place, id);
        }
        let Shard { config, index, memory, .. } = &*self.shard;
        let key = config.seed.key(id);
        if config.shards > 1 && shard_of(key, config.shards) != config.shard {
            return Place::Foreign;
        }
        if let Some(slot) = index.find(key, id) {
            return Place::Held(slot);
        }
        match memory.recall(key) {
            Some(kept) => Place::Late { kept },
            None => Place::Held(self.open(key, id, self.shard.now)),
        }
    }

    fn follow_guide(&mut self, place: custody::Place, id: &TraceId) -> Place {
        let first = match place {
            custody::Place::Nowhere => return Place::Foreign,
            custody::Place::Follow(kept) => return Place::Late { kept },
            custody::Place::Repeated => return Place::Repeated,
            custody::Place::Pass(parcel) => return Place::Passed(parcel),
            custody::Place::Store(first) => first,
        };
        let key = self.shard.config.seed.key(id);
        match self.shard.index.find(key, id) {
            Some(slot) => {
                self.shard.backdate(slot, first);
                Place::Held(slot)
            }
            None => Place::Held(self.open(key, id, first)),
        }
    }

    fn send_elsewhere(&mut self, place: Place, group: &Group<'_>, span: &[u8]) {
        let Some(guide) = &mut self.guide else {
            return;
        };
        let Place::Passed(parcel) = place else {
            guide.elsewhere.repeated += 1;
            return;
        };
        let place = guide.parcels.get_mut(parcel).zip(guide.groups.get_mut(parcel));
        if let Some((batch, known)) = place {
            let place = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
            batch.push(place, span);
            guide.elsewhere.passed += 1;
        }
    }

    /// A trace is seen for the first time.
    fn open(&mut self, key: TraceKey, id: &TraceId, first_seen: Millis) -> u32 {
        let Shard { config, programs, index, deadlines, now, .. } = &mut *self.shard;
        let slot = index.insert(Entry {
            key,
            facts: TraceFacts::new(*id),
            chain: Chain::EMPTY,
            seen: Seen::default(),
            first_seen,
            stage: Stage::Open,
            due: 0,
            links: UNLINKED,
            program: programs.join(),
        });
        let due = first_seen.saturating_add(config.decision_wait_ms);
        deadlines.insert(index, slot, *now, due);
        self.inserted.traces_new += 1;
        slot
    }

    fn store(&mut self, slot: u32, group: &Group<'_>, span: &[u8]) {
        let group = self.group.unwrap_or_else(|| self.enter(group));
        let Shard { config, programs, log, index, headers, duplicates, .. } = &mut *self.shard;
        let Some(entry) = index.get_mut(slot) else {
            return;
        };
        let spans = entry.facts.spans;
        let hashes = duplicates.hashes(span, spans);
        let known = Known { log, chain: entry.chain, seen: entry.seen, slot, spans };
        if duplicates.has(known, hashes, span) {
            self.inserted.duplicates += 1;
            return;
        }
        if let Some(program) = programs.program(entry.program) {
            let ask = |resource: &Headers<'_>| program.resource_bits(resource);
            let bits = headers.resource_bits(group, entry.program, ask);
            entry.facts.add(&program.span_facts(span), bits, span.len() as u64);
        }
        headers.retain(group);
        entry.chain.head = log
            .append(span, Owner { prev: entry.chain.head, headers: group, slot, due: entry.due });
        duplicates.note(spans + 1, slot, hashes, &mut entry.seen, &mut entry.chain);
        self.inserted.stored += 1;
        let facts = &entry.facts;
        if facts.spans > config.max_trace_spans || facts.bytes > config.max_trace_bytes {
            match self.guide {
                Some(_) => self.shard.hasten(slot),
                None => self.decide_capped(slot),
            }
        }
    }

    /// The trace is too large to wait for more of it: what comes after follows the decision.
    fn decide_capped(&mut self, slot: u32) {
        self.shard.cancel(slot);
        let settled = self.shard.settle(slot, Some(Early::TraceTooLarge), self.out);
        self.inserted.traces_capped += 1;
        if let Some((_, place)) = &mut self.last {
            *place = Place::Late { kept: settled.kept };
        }
    }

    fn follow(&mut self, kept: bool, group: &Group<'_>, span: &[u8]) {
        if !kept {
            self.inserted.late_dropped += 1;
            return;
        }
        let out = &mut *self.out;
        let place = *self.late.get_or_insert_with(|| out.intern(&group.resource, &group.scope));
        out.push(place, span);
        self.inserted.late_kept += 1;
    }

    /// Looks up a group of which a span is to be stored, and its resource unless that was that of the group
    /// before: one resource may have a hundred thousand scopes, and comparing it with what is known costs
    /// its length.
    fn enter(&mut self, group: &Group<'_>) -> u32 {
        let identity = (group.resource.hash(), group.resource.bytes().len());
        let resource = match self.resource {
            Some((known, resource)) if known == identity => resource,
            _ => {
                self.leave_resource();
                let resource = self.shard.headers.hold_resource(&group.resource);
                self.resource = Some((identity, resource));
                resource
            }
        };
        let group = self.shard.headers.hold_group(resource, &group.scope);
        self.group = Some(group);
        group
    }

    fn leave_group(&mut self) {
        self.late = None;
        if let Some(guide) = &mut self.guide {
            guide.groups.fill(None);
        }
        if let Some(group) = self.group.take() {
            self.shard.headers.release(group);
        }
    }

    fn leave_resource(&mut self) {
        if let Some((_, resource)) = self.resource.take() {
            self.shard.headers.release_resource(resource);
        }
    }
}

impl Guide<'_> {
    fn next_place(&mut self) -> custody::Place {
        let run = self.plan.survey.runs.get(self.run).copied().unwrap_or(FOREIGN);
        self.run += 1;
        self.plan.places.get(run as usize).copied().unwrap_or(custody::Place::Nowhere)
    }
}
