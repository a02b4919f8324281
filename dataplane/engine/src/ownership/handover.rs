//! Undecided traces whose owner is another gateway move there in parcels.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{Action, By, Message};
use super::facts::Name;
use super::message::{Delivery, Origin, Outcome, Part, Receipt, Req};
use super::outbox::back_off;
use super::stand::Stand;
use super::timers::{
    BACK_OFF_MAX, DETOUR_AFTER, PARCEL_BYTES, PARCEL_TRACES, PARCELS_IN_FLIGHT, REQUEST,
};
use super::traces::{Phase, Trace, Traces};
use crate::Millis;
use crate::key::TraceKey;
use crate::ring::Member;

/// Parcels on their way, and how their receivers did.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    open: BTreeMap<Req, Parcel>,
    /// Members that failed: how often, and when they are tried again.
    failing: BTreeMap<Name, (u32, Millis)>,
}

#[derive(Debug)]
struct Parcel {
    to: Name,
    traces: Vec<(TraceKey, Trace)>,
}

/// What goes to a member now.
#[derive(Debug, Default)]
struct Load {
    keys: Vec<TraceKey>,
    /// Parcels that it may still get, the one that is being filled included.
    room: usize,
    /// How full that one is.
    traces: usize,
    bytes: u64,
}

impl Load {
    fn add(&mut self, key: TraceKey, bytes: u64) {
        self.keys.push(key);
        self.traces += 1;
        self.bytes += bytes;
        if is_full(self.traces, self.bytes) {
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

    /// Who failed may be tried at once.
    pub(super) fn forgive(&mut self) {
        self.failing.clear();
    }

    /// Where a trace goes, as a place of the view: to its owner, or, when the owner cannot be reached from
    /// here, to the next choice, which passes it on.
    fn target(&self, stand: &Stand, key: TraceKey) -> Option<usize> {
        let place = stand.view.owner(key)?;
        let owner = &stand.view.members()[place];
        if owner.id == *stand.me.name {
            return None;
        }
        let failures = self.failing.get(owner.id.as_str()).map_or(0, |(failures, _)| *failures);
        if failures < DETOUR_AFTER || !stand.rules.detour {
            return Some(place);
        }
        let next = stand.next_choice(key, &owner.id);
        next.and_then(|next| stand.view.position(&next.id)).or(Some(place))
    }

    /// How many more parcels may go to a member now.
    fn room(&self, to: &str, now: Millis) -> usize {
        let waits = self.failing.get(to).is_some_and(|(_, until)| *until > now);
        let sent = self.open.values().filter(|parcel| *parcel.to == *to).count();
        if waits { 0 } else { PARCELS_IN_FLIGHT.saturating_sub(sent) }
    }
}

impl Traces {
    /// Sends foreign traces to their owners, as many as may be on their way.
    pub(super) fn hand_over(&mut self, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        if !stand.rules.hand_over || self.foreign.is_empty() {
            return;
        }
        // Who failed some time ago may be back.
        self.parcels.failing.retain(|_, (_, until)| *until + BACK_OFF_MAX > now);
        let members = stand.view.members();
        let load =
            |member: &Member| Load { room: self.parcels.room(&member.id, now), ..Load::default() };
        let mut loads: Vec<Load> = members.iter().map(load).collect();
        let is_other = |member: &&Member| member.id != *stand.me.name;
        let mut open =
            members.iter().zip(&loads).filter(|(m, load)| is_other(m) && load.room > 0).count();
        // Every answer to a parcel makes room for another one: who looked at all that is left each time would
        // look at a million traces a thousand times.
        for key in &self.foreign {
            if open == 0 {
                break;
            }
            let target = self.parcels.target(stand, *key).map(|place| &mut loads[place]);
            let Some(load) = target.filter(|load| load.room > 0) else {
                continue;
            };
            load.add(*key, self.held.get(key).map_or(0, |trace| trace.bytes));
            open -= usize::from(load.room == 0);
        }
        for (member, load) in members.iter().zip(loads).filter(|(_, load)| !load.keys.is_empty()) {
            let owner = Name::from(member.id.as_str());
            let mut keys = load.keys.into_iter().peekable();
            while keys.peek().is_some() {
                self.send_parcel(stand, &owner, &mut keys, now, out);
            }
        }
    }

    fn send_parcel(
        &mut self,
        stand: &Stand,
        to: &Name,
        keys: &mut std::iter::Peekable<impl Iterator<Item = TraceKey>>,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let parcel = self.next_req();
        let (mut traces, mut bytes) = (Vec::new(), 0);
        while !is_full(traces.len(), bytes)
            && let Some(key) = keys.next()
        {
            self.foreign.remove(&key);
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
        self.parcels.open.insert(parcel, Parcel { to: Arc::clone(to), traces });
        out.push(Action::Take { keys: taken, parcel });
        out.push(Action::Send {
            to: Arc::clone(to),
            req: parcel,
            message: Message::Deliver(Delivery { parts, hops: 0 }),
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
        self.parcels.failing.remove(&parcel.to);
        let outcomes = receipt.outcomes.iter().map(Some).chain(std::iter::repeat(None));
        let mut returned = false;
        for ((key, trace), outcome) in parcel.traces.into_iter().zip(outcomes) {
            match outcome {
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
            self.parcels.fail(&parcel.to, now);
        } else {
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
        self.parcels.fail(&parcel.to, now);
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
        let here = self.held.entry(key).or_insert(Trace { bytes: 0, phase: Phase::Open, ..trace });
        here.first = here.first.min(trace.first);
        here.bytes += trace.bytes;
        here.tentative = here.tentative.or(trace.tentative);
        here.origin = here.origin.min(trace.origin);
        here.inst = here.inst.max(trace.inst);
        if !stand.owns(key) && here.phase == Phase::Open {
            self.foreign.insert(key);
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

impl Parcels {
    fn fail(&mut self, to: &Name, now: Millis) {
        let (failures, until) = self.failing.entry(Arc::clone(to)).or_default();
        *until = now + back_off(*failures);
        *failures += 1;
    }
}
