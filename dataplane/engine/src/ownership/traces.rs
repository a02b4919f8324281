//! The traces of one shard: which are here, whose they are, and what goes where. One a shard, driven by the
//! thread that owns the shard's buffer.

use super::action::{Action, By, Failure};
use super::asked::Proposals;
use super::decided::{ByKey, Decided, DecidedTraces, Learned};
use super::facts::Name;
use super::foreign::Foreign;
use super::forward::Forwards;
use super::handover::Parcels;
use super::message::{Agreement, Decision, Origin, Part, Receipt, Req, Verdict};
use super::outbox::{Outbox, Why};
use super::stand::Stand;
use super::stats::Stats;
use super::timers::{HOPS_MAX, IN_FLIGHT, RE_EXAMINE};
use crate::Millis;
use crate::key::TraceKey;

/// The table of traces is made smaller when it has room for four times as many as there are, and more.
const SPARE_TRACES: usize = 4096;

/// A trace with spans in the buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    /// When its first span was taken in by anybody, by our clock.
    pub(super) first: Millis,
    pub(super) bytes: u64,
    pub(super) phase: Phase,
    pub(super) tentative: Option<Tentative>,
    pub(super) origin: Origin,
    /// Which instance of us took the last of its spans.
    pub(super) inst: u64,
}

/// Where an undecided trace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It gathers spans.
    Open,
    /// Its witnesses are asked.
    Proposed(Req),
}

/// A verdict that did not become a decision yet. It stays, so that whoever decides in the end agrees with
/// those who have heard of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tentative {
    pub(super) verdict: Verdict,
    /// Since when this gateway has tried.
    pub(super) since: Millis,
}

/// Where a part of a delivery goes, before it is noted.
enum Place {
    Buffer { foreign: bool },
    Elsewhere(Admission),
}

/// Where a part of a delivery goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Into the buffer.
    Store {
        /// When the first span of the trace was taken in by anybody.
        first: Millis,
        /// Somebody else is to decide it.
        foreign: bool,
        /// The least of all its spans.
        origin: Origin,
    },
    /// The way of its trace.
    Follow(Decision),
    /// Nowhere: it was exported with its trace before.
    Repeated(Decision),
    /// To another gateway.
    Pass(Name),
    /// Nowhere: this gateway may not hold it, and knows nobody who may.
    Refuse,
}

/// See the module.
#[derive(Debug)]
pub struct Traces {
    pub(super) number: u32,
    pub(super) requests: u64,
    pub(super) held: ByKey<Trace>,
    /// Held, open, and others' to decide.
    pub(super) foreign: Foreign,
    pub(super) forwards: Forwards,
    pub(super) parcels: Parcels,
    pub(super) proposals: Proposals,
    pub(super) decided: DecidedTraces,
    pub(super) outbox: Outbox,
    pub(super) stats: Stats,
    examined: Millis,
    ticked: Millis,
    /// How many members knew the view at the last tick.
    known: usize,
}

// === Deliveries ===

impl Traces {
    /// The traces of shard `number`. At least the last `remember_max` decisions are remembered, and told
    /// again for `remember` milliseconds.
    pub fn new(number: u32, remember: Millis, remember_max: usize) -> Self {
        Self {
            number,
            requests: 0,
            held: ByKey::default(),
            foreign: Foreign::default(),
            forwards: Forwards::default(),
            parcels: Parcels::default(),
            proposals: Proposals::default(),
            decided: DecidedTraces::new(remember, remember_max),
            outbox: Outbox::default(),
            stats: Stats::default(),
            examined: 0,
            ticked: 0,
            known: 0,
        }
    }

    /// Takes in one part of a delivery. What is to be passed on is left to [`Self::dispatch`].
    ///
    /// Of a part that is to be stored, is not foreign, and of whose trace nothing more is known, nothing is
    /// noted: the driver keeps what there is to know, beside the spans, and says so with [`Self::on_due`] or
    /// [`Self::adopt`]. So it need not ask for a later part of such a trace, while that is not proposed, if
    /// its first span is not older and its origin counts as much.
    pub fn admit(&mut self, stand: &Stand, part: &Part, hops: u8, now: Millis) -> Admission {
        let part = Part { age: if stand.rules.age { part.age } else { 0 }, ..*part };
        self.note_asked(part.key);
        match self.place(stand, &part, hops, now) {
            Place::Buffer { foreign: false } if self.is_plain(&part) => {
                let first = now.saturating_sub(part.age);
                Admission::Store { first, foreign: false, origin: part.origin }
            }
            Place::Buffer { foreign } => {
                let trace = self.store(stand, &part, foreign, now);
                Admission::Store { first: trace.first, foreign, origin: trace.origin }
            }
            Place::Elsewhere(admission) => {
                self.stats.repeated += u64::from(matches!(admission, Admission::Repeated(_)));
                self.stats.refused += u64::from(admission == Admission::Refuse);
                admission
            }
        }
    }

    fn place(&self, stand: &Stand, part: &Part, hops: u8, now: Millis) -> Place {
        if let Some(decision) = self.decided.decision(part.key, now) {
            let was_there = part.age >= decision.age + IN_FLIGHT;
            let repeated = part.origin == Origin::Replay && decision.exported && was_there;
            return Place::Elsewhere(match repeated && stand.rules.exported {
                true => Admission::Repeated(decision),
                false => Admission::Follow(decision),
            });
        }
        let proposed = self.held.get(&part.key).is_some_and(|trace| trace.phase != Phase::Open);
        if proposed || stand.owns(part.key) {
            return Place::Buffer { foreign: false };
        }
        let owner = stand.owner(part.key).filter(|owner| owner.id != *stand.me.name);
        let to = owner.filter(|_| hops < HOPS_MAX && stand.rules.forward);
        let to = to.and_then(|owner| match self.parcels.ways.is_failing(&owner.id) {
            false => Some(owner),
            // Spans that nobody has tried to send on yet go to whoever owns them next. Where they may not
            // wait, the owner is tried all the same: if it only stands still, it finds them.
            true => stand
                .next_choice(part.key, &owner.id)
                .filter(|_| hops == 0 && !stand.is_next(part.key))
                .or_else(|| Some(owner).filter(|_| hops == 0 && !stand.holds)),
        });
        match to {
            Some(to) => Place::Elsewhere(Admission::Pass(to.id.as_str().into())),
            None if stand.may_keep(part.key, hops) => Place::Buffer { foreign: true },
            None => Place::Elsewhere(Admission::Refuse),
        }
    }

    /// Notes spans that go into the buffer.
    fn store(&mut self, stand: &Stand, part: &Part, foreign: bool, now: Millis) -> &Trace {
        let inst = stand.me.inst;
        let first = now.saturating_sub(part.age);
        let tentative = part.tentative.map(|verdict| Tentative { verdict, since: now });
        if foreign {
            self.stats.held_for_others += 1;
            self.foreign.insert(stand.view.owner(part.key), part.key);
        }
        let trace = self.held.entry(part.key).or_insert(Trace {
            first,
            bytes: 0,
            phase: Phase::Open,
            tentative: None,
            origin: part.origin,
            inst,
        });
        trace.first = trace.first.min(first);
        trace.origin = trace.origin.min(part.origin);
        trace.inst = inst;
        trace.bytes += u64::from(part.bytes);
        trace.tentative = trace.tentative.or(tentative);
        trace
    }

    /// Whether nothing has to be noted of a part that is stored.
    fn is_plain(&self, part: &Part) -> bool {
        part.tentative.is_none() && !self.held.contains_key(&part.key)
    }

    /// Takes over a trace of which the driver has kept what is known, as an instance of us took it in: it
    /// will leave, or we are another instance now.
    pub fn adopt(
        &mut self,
        key: TraceKey,
        (first, origin): (Millis, Origin),
        bytes: u64,
        inst: u64,
    ) {
        self.note_asked(key);
        let plain = Trace { first, bytes, phase: Phase::Open, tentative: None, origin, inst };
        let trace = self.held.entry(key).or_insert(plain);
        trace.first = trace.first.min(first);
        trace.origin = trace.origin.min(origin);
        trace.bytes = bytes;
    }

    /// Says how many bytes a trace has.
    pub fn weigh(&mut self, key: TraceKey, bytes: u64) {
        if let Some(trace) = self.held.get_mut(&key) {
            trace.bytes = bytes;
        }
    }

    /// A delivery or a parcel was answered.
    pub fn on_receipt(
        &mut self,
        stand: &Stand,
        req: Req,
        receipt: &Receipt,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        if self.parcels.has(req) {
            self.parcel_answered(stand, req, receipt, now, out);
        } else {
            self.forward_answered(stand, req, receipt, now, out);
        }
    }

    /// A request to `to` has no answer.
    pub fn on_failed(
        &mut self,
        stand: &Stand,
        (to, req, _failure): (&str, Req, Failure),
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.parcel_failed(stand, req, now, out);
        self.forward_failed(stand, req, now, out);
        self.proposal_failed(stand, to, req, now, out);
        self.outbox.failed(to, req, now);
    }

    pub(super) fn next_req(&mut self) -> Req {
        self.requests += 1;
        Req(self.requests << 32 | u64::from(self.number + 1))
    }
}

// === Decisions ===

impl Traces {
    /// Answers decisions of others.
    pub fn on_decisions(
        &mut self,
        stand: &Stand,
        told: &super::message::Decisions,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Agreement {
        let mut answer =
            Agreement { from: stand.me.clone(), known: Vec::new(), refused: Vec::new() };
        for (decision, (agreed, known)) in told.list.iter().zip(self.known(stand, told, now)) {
            // What was exported is no proposal: it came along.
            match (known, told.propose && !decision.exported) {
                (Some(known), true) if stand.rules.known => {
                    answer.known.push(known.told(decision.key, now));
                }
                (_, true) if !agreed => answer.refused.push(decision.key),
                (Some(_), _) => self.learn(Some(stand), decision, now, out),
                (None, true) if stand.rules.agree => {
                    self.decided.overhear(decision, now);
                    self.follow(decision, false, out);
                }
                // News of what was overheard, of which spans may have come since.
                (None, false) if told.propose && !stand.owns(decision.key) => {
                    self.decided.overhear(decision, now);
                    if self.release(decision.key) {
                        let Decision { key, verdict, .. } = *decision;
                        out.push(Action::Settle { key, verdict, by: By::Other });
                    }
                }
                (None, _) => {
                    self.decided.learn_new(decision, now);
                    self.follow(decision, stand.owns(decision.key), out);
                }
            }
        }
        self.decided.enter();
        if told.propose {
            let news: Vec<_> = self.outbox.take_news(&told.from.name).collect();
            answer.known.extend(self.decided.exported(&news, now));
        }
        answer
    }

    /// Whether each of these decisions is one that this gateway agrees to, if it is a proposal, and what is
    /// known of it. All at once, for the reason that they are entered so.
    fn known(
        &self,
        stand: &Stand,
        told: &super::message::Decisions,
        now: Millis,
    ) -> Vec<(bool, Option<Decided>)> {
        let look = self.decided.may_know_others();
        let proposer = stand.proposer(&told.from, now);
        let find = |decision: &Decision| {
            let (agreed, theirs) = match told.propose && !decision.exported {
                true => {
                    let agreed = self.agrees(stand, proposer, decision.key);
                    (agreed, stand.rules.agree && agreed)
                }
                false => (true, !stand.owns(decision.key)),
            };
            (agreed, if look || !theirs { self.decided.find(decision.key) } else { None })
        };
        told.list.iter().map(find).collect()
    }

    /// What the one who answers knows: of our traces, and news of what it has exported of its own.
    pub fn on_known(
        &mut self,
        stand: &Stand,
        known: &[Decision],
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        for known in known {
            let is_news = known.exported && !stand.owns(known.key);
            let is_here = || self.holds(known.key) || self.is_asked(known.key);
            // As with news that come along with proposals.
            let look = || self.decided.may_know_others() && self.decided.find(known.key).is_some();
            if is_news && !is_here() && !look() {
                self.decided.overhear(known, now);
            } else {
                self.learn(Some(stand), known, now, out);
            }
        }
    }

    /// A decision of another gateway: what is here of the trace follows it.
    pub(super) fn learn(
        &mut self,
        stand: Option<&Stand>,
        decision: &Decision,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        match self.decided.learn(decision, now) {
            Learned::Known => {}
            Learned::Conflict => self.stats.conflicts += 1,
            Learned::New => {
                let ours = stand.is_none_or(|stand| stand.owns(decision.key));
                self.follow(decision, ours, out);
            }
        }
    }

    fn follow(&mut self, decision: &Decision, ours: bool, out: &mut Vec<Action>) {
        self.stats.learned += 1;
        let Decision { key, verdict, .. } = *decision;
        // What others own and is here is noted; of what is ours the driver may have spans.
        if self.release(key) || ours {
            out.push(Action::Settle { key, verdict, by: By::Other });
        }
    }

    /// All that was heard is found from now on. Of some of these traces spans have come since, on their way
    /// to the owner.
    fn recollect(&mut self, out: &mut Vec<Action>) {
        self.decided.recollect();
        let Self { held, decided, .. } = self;
        let known = held.keys().filter_map(|key| Some((*key, decided.find(*key)?.verdict())));
        let known: Vec<(TraceKey, Verdict)> = known.collect();
        for (key, verdict) in known {
            self.release(key);
            out.push(Action::Settle { key, verdict, by: By::Other });
        }
    }

    /// The backend has the spans with which these traces were decided here.
    pub fn on_exported(&mut self, stand: &Stand, keys: &[TraceKey]) {
        for key in self.decided.mark_exported(keys) {
            for place in stand.witnesses(key).places().filter(|_| stand.rules.exported) {
                let since = Why::Exported(self.ticked);
                self.outbox.push(&stand.view.members()[place].id, key, since);
            }
        }
    }
}

// === Time and views ===

impl Traces {
    /// To be called every 250 ms.
    pub fn on_tick(&mut self, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        self.ticked = now;
        self.stats.forgotten += self.decided.expire(now);
        self.ask_agents_again(now, out);
        if self.held.capacity() > 4 * self.held.len() + SPARE_TRACES {
            self.held.shrink_to(2 * self.held.len());
        }
        let known = stand.seats.iter().filter(|seat| seat.knows).count();
        let more = known > std::mem::replace(&mut self.known, known);
        if more || now >= self.examined + RE_EXAMINE && stand.rules.re_examine {
            self.examined = now;
            self.hand_over(stand, now, out);
        }
        self.tell(stand, now, out);
    }

    /// The view changed: what is here may be others' now.
    pub fn on_view(&mut self, before: &Stand, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        self.note_all_asked();
        self.recollect(out);
        self.take_back(stand, now, out);
        self.foreign = Foreign::default();
        for key in self.held.keys().filter(|key| !stand.owns(**key)) {
            self.foreign.insert(stand.view.owner(*key), *key);
        }
        self.retell(before, stand, now);
        self.outbox.retain(|name| stand.view.position(name).is_some());
        self.parcels.ways.forgive();
        self.known = 0;
        self.hand_over(stand, now, out);
        self.tell(stand, now, out);
    }

    /// Nothing that others own is here or on its way from here.
    ///
    /// What is being passed on to the owner of now does not count: it is like spans that the owner gets from
    /// their sender, and with senders that know no owners there is always some.
    pub fn is_complete(&self, stand: &Stand) -> bool {
        self.foreign.is_empty()
            && self.parcels.is_empty()
            && self.forwards.are_straight(stand.epoch)
            && self.outbox.owners_know()
    }

    /// Nothing of which something is noted is here, or on its way from here.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty()
            && self.parcels.is_empty()
            && self.forwards.are_none()
            && self.outbox.is_empty()
    }

    /// Whether anything is noted of an undecided trace.
    pub(super) fn holds(&self, key: TraceKey) -> bool {
        self.held.contains_key(&key)
    }

    /// Undecided traces of which something is noted.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is noted of any.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of what is known of undecided traces. What is remembered of decided ones never changes in
    /// size: [`DECISION_BYTES_MAX`](super::DECISION_BYTES_MAX) for each.
    pub fn footprint(&self) -> u64 {
        let tables = self.held.allocation_size() + self.foreign.allocation_size();
        (tables + self.proposals.footprint()) as u64
    }

    /// The verdict on a trace, as long as it is remembered here.
    pub fn verdict(&self, key: TraceKey) -> Option<Verdict> {
        self.decided.find(key).map(Decided::verdict)
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
