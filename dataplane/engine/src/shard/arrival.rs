//! A request comes in: each span joins its trace, repeats what is known, or follows a decision made before.

use super::custody::{self, Guide, Manner, Steady};
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
    /// The way of the trace, which was kept: to the guide.
    Recorded(usize),
    /// Nowhere: exported before.
    Repeated,
    /// To the guide.
    Passed(usize),
}

/// What became of spans that neither joined a trace nor followed one.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) repeated: u64,
    pub(super) passed: u64,
}

/// A request on its way in.
struct Arrival<'a> {
    shard: &'a mut Shard,
    out: &'a mut Batch,
    inserted: Inserted,
    /// Who else says where spans go.
    guide: Option<(Manner, &'a mut dyn Guide)>,
    elsewhere: Elsewhere,
    /// The trace of the last span: the next one is often of the same.
    last: Option<(TraceId, Place)>,
    /// The current resource and group, held here once a span of them was stored. The resource is told from
    /// others by hash and length: the hash is keyed, so that two of them agree once in 2^64 times.
    resource: Option<((u64, usize), u32)>,
    group: Option<u32>,
    /// The current group in `out`, once a late span of it was pushed.
    late: Option<GroupRef>,
    /// Whether span metrics count what comes.
    counts: bool,
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

    /// Takes in spans, each to the place that the guide has for its trace, if there is one.
    pub(super) fn arrive<'a>(
        &'a mut self,
        request: &[u8],
        shape: &Shape,
        guide: Option<(Manner, &'a mut dyn Guide)>,
        now: Millis,
        out: &'a mut Batch,
    ) -> (Inserted, Elsewhere) {
        self.advance(now);
        self.headers.start_gathering();
        let counts = self.metrics.is_some() && guide.as_ref().is_none_or(|(how, _)| how.counts);
        let mut arrival = Arrival {
            shard: self,
            out,
            inserted: Inserted::default(),
            guide,
            elsewhere: Elsewhere::default(),
            last: None,
            resource: None,
            group: None,
            late: None,
            counts,
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
        (inserted, arrival.elsewhere)
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
            Place::Recorded(number) => {
                self.observe(group, span);
                if let Some((_, guide)) = &mut self.guide {
                    guide.keep(number, group, span);
                }
                self.inserted.late_kept += 1;
            }
            Place::Repeated => self.elsewhere.repeated += 1,
            Place::Passed(part) => {
                self.sight(part, group, span);
                if let Some((_, guide)) = &mut self.guide {
                    guide.pass(part, group, span);
                }
                self.elsewhere.passed += 1;
            }
        }
    }
}

impl Arrival<'_> {
    fn place(&mut self, id: &TraceId) -> Place {
        let Shard { config, index, memory, .. } = &*self.shard;
        let key = config.seed.key(id);
        if config.shards > 1 && shard_of(key, config.shards) != config.shard {
            return Place::Foreign;
        }
        let slot = index.find(key, id);
        if self.guide.is_some() {
            return self.place_by_guide(slot, key, id);
        }
        match slot {
            Some(slot) => Place::Held(slot),
            None => match memory.find(key) {
                Some(kept) => Place::Late { kept: *kept },
                None => Place::Held(self.open(key, id, self.shard.now, Steady::default())),
            },
        }
    }

    fn place_by_guide(&mut self, slot: Option<u32>, key: TraceKey, id: &TraceId) -> Place {
        let Some((manner, guide)) = &mut self.guide else {
            return Place::Foreign;
        };
        let shard = &mut *self.shard;
        let entry = slot.and_then(|slot| shard.index.get(slot));
        let joins = |entry: &Entry| {
            let steady = entry.steady.admits(manner.steady) && entry.stage == Stage::Open;
            steady && entry.first_seen <= manner.first
        };
        if let Some(slot) = slot.filter(|_| entry.is_some_and(joins)) {
            return Place::Held(slot);
        }
        let (first, steady) = match guide.place(key) {
            custody::Place::Nowhere => return Place::Foreign,
            custody::Place::Follow(kept) => return Place::Late { kept },
            custody::Place::Recorded(number) => return Place::Recorded(number),
            custody::Place::Repeated => return Place::Repeated,
            custody::Place::Pass(part) => return Place::Passed(part),
            custody::Place::Store(first, steady) => (first, steady),
        };
        match slot {
            Some(slot) => {
                shard.backdate(slot, first);
                if let Some(entry) = shard.index.get_mut(slot) {
                    entry.steady = match steady == Steady::default() {
                        true => steady,
                        false => entry.steady.joined(steady),
                    };
                }
                Place::Held(slot)
            }
            None => Place::Held(self.open(key, id, first, steady)),
        }
    }

    /// A trace is seen for the first time.
    fn open(&mut self, key: TraceKey, id: &TraceId, first_seen: Millis, steady: Steady) -> u32 {
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
            steady,
        });
        let due = first_seen.saturating_add(config.decision_wait_ms);
        deadlines.insert(index, slot, *now, due);
        self.inserted.traces_new += 1;
        slot
    }

    fn store(&mut self, slot: u32, group: &Group<'_>, span: &[u8]) {
        let around = group;
        let group = self.group.unwrap_or_else(|| self.enter(group));
        let counts = self.counts;
        let Shard {
            config, programs, log, index, headers, duplicates, stats, metrics, now, ..
        } = &mut *self.shard;
        let Some(entry) = index.get_mut(slot) else {
            return;
        };
        let (spans, had_root) = (entry.facts.spans, entry.facts.root);
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
            if program.asks_conditions() {
                let asked = program.ask(around, span, entry.facts.bits);
                entry.facts.bits |= asked.bits;
                stats.condition_failures += u64::from(asked.failures);
            }
        }
        headers.retain(group);
        entry.chain.head = log
            .append(span, Owner { prev: entry.chain.head, headers: group, slot, due: entry.due });
        duplicates.note(spans + 1, slot, hashes, &mut entry.seen, &mut entry.chain);
        self.inserted.stored += 1;
        if counts && let Some(metrics) = metrics {
            metrics.observe(around, span, *now);
        }
        let facts = &entry.facts;
        let root_arrived = facts.root && !had_root;
        if facts.spans > config.max_trace_spans || facts.bytes > config.max_trace_bytes {
            match self.guide {
                Some(_) => self.shard.hasten(slot),
                None => self.decide_capped(slot),
            }
        } else if root_arrived && let Some(wait) = config.after_root_ms {
            self.shard.expedite(slot, wait);
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

    /// Notes a span that is passed on: whoever takes it does not count it.
    fn sight(&mut self, part: usize, group: &Group<'_>, span: &[u8]) {
        if self.counts
            && let Some(metrics) = &mut self.shard.metrics
        {
            self.shard.sightings.push((part, metrics.sight(group, span)));
        }
    }

    /// Counts a span that comes late, if spans are counted.
    fn observe(&mut self, group: &Group<'_>, span: &[u8]) {
        if self.counts
            && let Some(metrics) = &mut self.shard.metrics
        {
            metrics.observe(group, span, self.shard.now);
        }
    }

    fn follow(&mut self, kept: bool, group: &Group<'_>, span: &[u8]) {
        self.observe(group, span);
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
        if let Some((_, guide)) = &mut self.guide {
            guide.leave_group();
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
