//! Undecided traces whose owner is another gateway move there in parcels.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{Action, By, Message};
use super::message::{Delivery, Origin, Outcome, Part, Receipt, Req};
use super::stand::Stand;
use super::timers::{PARCEL_BYTES, PARCEL_TRACES, PARCELS_IN_FLIGHT, REQUEST};
use super::traces::{Phase, Trace, Traces};
use super::ways::{Gate, Way, Ways};
use crate::Millis;
use crate::key::TraceKey;
use crate::ring::Member;

/// Parcels on their way, and how their receivers did.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    open: BTreeMap<Req, Parcel>,
    pub(super) ways: Ways,
}

#[derive(Debug)]
struct Parcel {
    way: Way,
    traces: Vec<(TraceKey, Trace)>,
}

/// What goes one way now.
#[derive(Debug)]
struct Load {
    way: Way,
    keys: Vec<TraceKey>,
    /// Parcels that may still go, the one that is being filled included.
    room: usize,
    /// Traces that one takes.
    most: usize,
    /// How full that one is.
    traces: usize,
    bytes: u64,
}

impl Load {
    fn add(&mut self, key: TraceKey, bytes: u64) {
        self.keys.push(key);
        self.traces += 1;
        self.bytes += bytes;
        if is_full(self.traces, self.bytes) || self.traces >= self.most {
            (self.room, self.traces, self.bytes) = (self.room.saturating_sub(1), 0, 0);
        }
    }
}

/// Whether a parcel takes no more.
fn is_full(traces: usize, bytes: u64) -> bool {
    traces >= PARCEL_TRACES || bytes >= PARCEL_BYTES
}

impl Parcels {
    pub(super) fn has(&self, req: Req) -> bool {
        self.open.contains_key(&req)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What may go this way now: nothing yet.
    fn load(&self, stand: &Stand, way: Way, sure: bool, now: Millis) -> Load {
        let sent = self.open.values().filter(|parcel| parcel.way == way).count();
        let (room, most) = match self.ways.gate(&way, sure, now) {
            Gate::Probe if stand.rules.wait => (1usize.saturating_sub(sent), 1),
            Gate::Open | Gate::Probe => (PARCELS_IN_FLIGHT.saturating_sub(sent), PARCEL_TRACES),
            Gate::Closed => (0, 0),
        };
        Load { way, keys: Vec::new(), room, most, traces: 0, bytes: 0 }
    }
}

impl Traces {
    /// Sends foreign traces to their owners, as many as may be on their way.
    pub(super) fn hand_over(&mut self, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        if !stand.rules.hand_over || self.foreign.is_empty() {
            return;
        }
        self.parcels.ways.expire(now);
        for owner in self.foreign.owners() {
            for load in self.loads(stand, owner, now) {
                let mut keys = load.keys.into_iter().peekable();
                while keys.peek().is_some() {
                    self.send_parcel(stand, &load.way, &mut keys, now, out);
                }
            }
        }
    }

    /// What goes now of what an owner is to get: to itself, and, while it does not answer, to the next
    /// choice, which passes it on or is the next to own it.
    fn loads(&self, stand: &Stand, owner: usize, now: Millis) -> Vec<Load> {
        let members = stand.view.members();
        let name = &members[owner].id;
        let bytes = |key: &TraceKey| self.held.get(key).map_or(0, |trace| trace.bytes);
        let mut keys = self.foreign.of(owner);
        let mut straight = self.parcels.load(stand, Way::to(name), stand.seats[owner].knows, now);
        while straight.room > 0
            && let Some(key) = keys.next()
        {
            straight.add(key, bytes(&key));
        }
        if !self.parcels.ways.is_failing(name) || !stand.rules.detour {
            return vec![straight];
        }
        let by = |member: &Member| self.parcels.load(stand, Way::by(&member.id, name), false, now);
        let mut loads: Vec<Load> = members.iter().map(by).collect();
        let others =
            (0..members.len()).filter(|place| *place != owner && Some(*place) != stand.place);
        let mut open = others.filter(|place| loads[*place].room > 0).count();
        while open > 0
            && let Some(key) = keys.next()
        {
            let next = stand.next_choice(key, name).and_then(|next| stand.view.position(&next.id));
            let load = next.map(|place| &mut loads[place]).filter(|load| load.room > 0);
            if let Some(load) = load {
                load.add(key, bytes(&key));
                open -= usize::from(load.room == 0);
            }
        }
        loads.push(straight);
        loads
    }

    fn send_parcel(
        &mut self,
        stand: &Stand,
        way: &Way,
        keys: &mut std::iter::Peekable<impl Iterator<Item = TraceKey>>,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let parcel = self.next_req();
        let (mut traces, mut bytes) = (Vec::new(), 0);
        while !is_full(traces.len(), bytes)
            && let Some(key) = keys.next()
        {
            self.foreign.remove(key);
            if let Some(trace) = self.held.remove(&key) {
                bytes += trace.bytes;
                traces.push((key, trace));
            }
        }
        self.stats.parcel_bytes += bytes;
        let part = |(key, trace): &(TraceKey, Trace)| Part {
            key: *key,
            age: now.saturating_sub(trace.first),
            bytes: u32::try_from(trace.bytes).unwrap_or(u32::MAX),
            origin: trace.origin_for(stand),
            tentative: trace.tentative.map(|tentative| tentative.verdict),
        };
        let parts = traces.iter().map(part).collect();
        let taken = traces.iter().map(|(key, _)| *key).collect();
        self.parcels.open.insert(parcel, Parcel { way: way.clone(), traces });
        out.push(Action::Take { keys: taken, parcel });
        out.push(Action::Send {
            to: Arc::clone(&way.to),
            req: parcel,
            // Who cannot pass it on does not send it elsewhere.
            message: Message::Deliver(Delivery {
                parts,
                hops: u8::from(!way.is_straight() && stand.rules.wait),
            }),
            deadline: now + REQUEST,
        });
    }

    /// The receiver has the parcel, or most of it: exactly what was sent and is stored is forgotten.
    pub(super) fn parcel_answered(
        &mut self,
        stand: &Stand,
        req: Req,
        receipt: &Receipt,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let Some(parcel) = self.parcels.open.remove(&req) else {
            return;
        };
        let outcomes = receipt.outcomes.iter().map(Some).chain(std::iter::repeat(None));
        let mut returned = false;
        for ((key, trace), outcome) in parcel.traces.into_iter().zip(outcomes) {
            match outcome {
                // It has come round to us and is in the buffer again: the receiver takes us for the owner, as
                // we shall soon. Until then it would come round as fast as messages travel.
                Some(Outcome::Held(holder)) if *holder == stand.me => returned = true,
                Some(Outcome::Held(holder)) if !stand.is_lost(holder) => {
                    self.stats.handed_over += 1
                }
                Some(Outcome::Decided(decision)) => {
                    self.stats.handed_over += 1;
                    self.learn(Some(stand), decision, now, out);
                }
                _ => {
                    returned = true;
                    self.restore(stand, req, (key, trace), out);
                }
            }
        }
        out.push(Action::Forget { parcel: req });
        if returned {
            self.parcels.ways.fail(parcel.way, now);
        } else {
            self.parcels.ways.succeed(parcel.way);
            self.hand_over(stand, now, out);
        }
    }

    pub(super) fn parcel_failed(
        &mut self,
        stand: &Stand,
        req: Req,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let Some(parcel) = self.parcels.open.remove(&req) else {
            return;
        };
        self.parcels.ways.fail(parcel.way, now);
        for trace in parcel.traces {
            self.restore(stand, req, trace, out);
        }
        out.push(Action::Forget { parcel: req });
    }

    /// Takes a trace back from a parcel into the buffer.
    pub(super) fn restore(
        &mut self,
        stand: &Stand,
        parcel: Req,
        (key, trace): (TraceKey, Trace),
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Restore { parcel, key, first: trace.first });
        if let Some(decided) = self.decided.find(key) {
            out.push(Action::Settle { key, verdict: decided.verdict(), by: By::Other });
            return;
        }
        self.note_asked(key);
        let here = self.held.entry(key).or_insert(Trace { bytes: 0, phase: Phase::Open, ..trace });
        here.first = here.first.min(trace.first);
        here.bytes += trace.bytes;
        here.tentative = here.tentative.or(trace.tentative);
        here.origin = here.origin.min(trace.origin);
        here.inst = here.inst.max(trace.inst);
        if !stand.owns(key) && here.phase == Phase::Open {
            self.foreign.insert(stand.view.owner(key), key);
        }
    }
}

impl Trace {
    /// What an instance before us held, before we were taken for dead, has been sent again by its agents.
    fn origin_for(&self, stand: &Stand) -> Origin {
        let before = self.inst != stand.me.inst && stand.rules.woken;
        if self.origin >= Origin::Agent && before { Origin::Replay } else { self.origin }
    }
}
