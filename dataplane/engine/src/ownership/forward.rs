//! Spans whose owner is another gateway are passed on, and the sender is answered when they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{Action, Inbound, Message};
use super::facts::Name;
use super::message::{Delivery, Outcome, Part, Receipt, Req};
use super::stand::Stand;
use super::timers::{HOPS_MAX, LAST_HOP, REQUEST};
use super::traces::{Phase, Tentative, Trace, Traces};
use super::ways::Way;
use crate::Millis;

/// What is being passed on, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    open: BTreeMap<Req, Forward>,
    waiting: BTreeMap<Inbound, Waiting>,
}

/// Parts of one delivery on their way to one gateway.
#[derive(Debug)]
struct Forward {
    to: Name,
    inbound: Inbound,
    parts: Vec<(usize, Part)>,
    /// When they came in, since when their ages have grown.
    since: Millis,
    hops: u8,
    epoch: u64,
    attempt: Attempt,
}

/// Which choice a forward tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Second,
}

/// A delivery of which some parts have no outcome yet.
#[derive(Debug)]
struct Waiting {
    outcomes: Vec<Option<Outcome>>,
    open: usize,
}

impl Forwards {
    pub(super) fn are_none(&self) -> bool {
        self.open.is_empty()
    }

    /// All of them are on their first way, under the view of now.
    pub(super) fn are_straight(&self, epoch: u64) -> bool {
        self.open
            .values()
            .all(|forward| forward.epoch == epoch && forward.attempt == Attempt::First)
    }
}

impl Traces {
    /// Sends on what is others', and answers at once if that is nothing. `outcomes` has nothing for the parts
    /// that are to be passed on, `passed` says to whom each of them goes.
    pub fn dispatch(
        &mut self,
        stand: &Stand,
        inbound: Inbound,
        delivery: &Delivery,
        (outcomes, passed): (Vec<Option<Outcome>>, BTreeMap<Name, Vec<usize>>),
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.forwards.waiting.insert(inbound, Waiting { outcomes, open: passed.len() });
        for (to, indices) in passed {
            self.stats.forwarded += indices.len() as u64;
            let parcel = self.next_req();
            let parts: Vec<_> =
                indices.iter().map(|index| (*index, delivery.parts[*index])).collect();
            let owns = |(_, part): &(usize, Part)| {
                stand.owner(part.key).is_some_and(|owner| owner.id == *to)
            };
            let attempt = if parts.iter().all(owns) { Attempt::First } else { Attempt::Second };
            out.push(Action::Pass { inbound, parts: indices, parcel });
            let forward = Forward {
                to,
                inbound,
                parts,
                since: now,
                hops: delivery.hops + 1,
                epoch: stand.epoch,
                attempt,
            };
            self.send_forward(parcel, forward, now, out);
        }
        self.answer_if_done(stand, inbound, out);
    }

    fn send_forward(&mut self, req: Req, forward: Forward, now: Millis, out: &mut Vec<Action>) {
        debug_assert!(forward.hops <= HOPS_MAX, "spans are passed on too often");
        let waited = now - forward.since;
        let part = |(_, part): &(usize, Part)| Part { age: part.age + waited, ..*part };
        let delivery =
            Delivery { parts: forward.parts.iter().map(part).collect(), hops: forward.hops };
        out.push(Action::Send {
            to: Arc::clone(&forward.to),
            req,
            message: Message::Deliver(delivery),
            deadline: now + if forward.hops > 1 { LAST_HOP } else { REQUEST },
        });
        self.forwards.open.insert(req, forward);
    }

    pub(super) fn forward_answered(
        &mut self,
        stand: &Stand,
        req: Req,
        receipt: &Receipt,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let Some(mut forward) = self.forwards.open.remove(&req) else {
            return;
        };
        let parts = std::mem::take(&mut forward.parts);
        let outcomes = receipt.outcomes.iter().map(Some).chain(std::iter::repeat(None));
        for ((index, part), outcome) in parts.into_iter().zip(outcomes) {
            match outcome {
                Some(Outcome::Held(holder)) if !stand.is_lost(holder) => {
                    self.conclude(forward.inbound, index, Outcome::Held(holder.clone()));
                }
                Some(Outcome::Decided(decision)) => {
                    self.learn(Some(stand), decision, now, out);
                    self.conclude(forward.inbound, index, Outcome::Decided(*decision));
                }
                _ => forward.parts.push((index, part)),
            }
        }
        self.finish_forward(stand, req, forward, now, out);
    }

    pub(super) fn forward_failed(
        &mut self,
        stand: &Stand,
        req: Req,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        if let Some(forward) = self.forwards.open.remove(&req) {
            if forward.attempt == Attempt::First && forward.epoch == stand.epoch {
                self.parcels.ways.fail(Way::to(&forward.to), now);
            }
            self.finish_forward(stand, req, forward, now, out);
        }
    }

    /// What has not found a place goes to the next choice once, then stays here or is refused.
    fn finish_forward(
        &mut self,
        stand: &Stand,
        req: Req,
        forward: Forward,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        // What was passed on to us goes back to who has it, and who owns it next keeps it.
        let first = forward.attempt == Attempt::First && forward.hops == 1;
        let again = first && stand.rules.fallback;
        let mut next: BTreeMap<Name, Vec<(usize, Part)>> = BTreeMap::new();
        for (index, part) in &forward.parts {
            let ours = stand.owns(part.key)
                || stand.is_next(part.key)
                || self.decided.find(part.key).is_some();
            let choice = stand.next_choice(part.key, &forward.to).filter(|_| again && !ours);
            match choice {
                Some(choice) => {
                    next.entry(choice.id.as_str().into()).or_default().push((*index, *part));
                }
                None => self.keep_or_refuse(stand, req, &forward, (*index, *part), now, out),
            }
        }
        for (to, parts) in next {
            let parcel = self.next_req();
            for (_, part) in &parts {
                out.push(Action::Repack { key: part.key, from: req, to: parcel });
            }
            if let Some(waiting) = self.forwards.waiting.get_mut(&forward.inbound) {
                waiting.open += 1;
            }
            let retry =
                Forward { to, parts, attempt: Attempt::Second, epoch: stand.epoch, ..forward };
            self.send_forward(parcel, retry, now, out);
        }
        out.push(Action::Forget { parcel: req });
        if let Some(waiting) = self.forwards.waiting.get_mut(&forward.inbound) {
            waiting.open -= 1;
        }
        self.answer_if_done(stand, forward.inbound, out);
    }

    fn keep_or_refuse(
        &mut self,
        stand: &Stand,
        req: Req,
        forward: &Forward,
        (index, part): (usize, Part),
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let decided = self.decided.decision(part.key, now);
        let keeps = stand.owns(part.key) || stand.may_keep(part.key, forward.hops - 1);
        if decided.is_none() && !keeps {
            self.stats.refused += 1;
            self.conclude(forward.inbound, index, Outcome::Refused);
            return;
        }
        let trace = Trace {
            first: forward.since.saturating_sub(if stand.rules.age { part.age } else { 0 }),
            bytes: u64::from(part.bytes),
            phase: Phase::Open,
            tentative: part.tentative.map(|verdict| Tentative { verdict, since: now }),
            origin: part.origin,
            inst: stand.me.inst,
        };
        self.stats.held_for_others += 1;
        self.restore(stand, req, (part.key, trace), out);
        let outcome = decided.map_or(Outcome::Held(stand.me.clone()), Outcome::Decided);
        self.conclude(forward.inbound, index, outcome);
    }

    fn conclude(&mut self, inbound: Inbound, part: usize, outcome: Outcome) {
        let waiting = self.forwards.waiting.get_mut(&inbound);
        if let Some(place) = waiting.and_then(|waiting| waiting.outcomes.get_mut(part)) {
            *place = Some(outcome);
        }
    }

    fn answer_if_done(&mut self, stand: &Stand, inbound: Inbound, out: &mut Vec<Action>) {
        let done = self.forwards.waiting.get(&inbound).is_some_and(|waiting| waiting.open == 0);
        let waiting = if done { self.forwards.waiting.remove(&inbound) } else { None };
        if let Some(waiting) = waiting {
            let refused = |outcome: Option<Outcome>| outcome.unwrap_or(Outcome::Refused);
            let outcomes = waiting.outcomes.into_iter().map(refused).collect();
            out.push(Action::Reply {
                inbound,
                receipt: Receipt { from: stand.me.clone(), outcomes },
            });
        }
    }
}
