//! Whole traces through churn: who holds a span, who decides its trace, who remembers the decision, while
//! gateways come and go.
//!
//! One invariant: before a trace is decided, all of its spans that any live process has are at one gateway,
//! and decisions travel with the keys. The state machines here keep it; they have no clock, no sockets and
//! no bytes. Each input takes `now` and appends [`action::Action`]s; the driver does them in order.
//!
//! | file | what it holds |
//! |---|---|
//! | `facts`, `losses` | what is known of every gateway, from whoever tells; which instances are lost |
//! | `steward`, `membership`, `peer`, `quorum`, `marks` | one a process: agreement, suspicion, joining |
//! | `stand` | what the shards need to know of all that, one value |
//! | `traces`, `forward`, `handover` | one a shard: where spans go |
//! | `propose`, `outbox`, `decided` | one a shard: decisions, and who has to know of them |
//! | `agent`, `retention` | the agent: what is kept until it is decided, and sent again after a loss |
//! | `message`, `action` | what goes over the wire, what the driver does |
//! | `rules`, `timers` | every rule has a switch, for the tests; every time and bound has its arithmetic |
//!
//! # The rules
//!
//! 1. *Forward.* Spans of foreign keys are passed on, at most two hops; the sender is answered when they are
//!    stored, with who holds them.
//! 2. *Hand over.* When the view changes, undecided traces and remembered decisions go to the new owner. A
//!    receipt deletes exactly the parcel that was sent. An owner that cannot be reached is reached through
//!    the next choice.
//! 3. *Fence.* A key is decided while every peer agrees on the view, has nothing of others left, and has said
//!    so within the lease; and after a loss only when the agents have sent again what lay there.
//! 4. *Drain.* A leaving gateway hands over, waits until all is quiet, and says so.
//! 5. *Replay.* Agents retain by holder and send again what lay with a lost instance.
//! 6. *Witnesses.* The second and third choice hear of a decision before anything is exported. So it
//!    survives two gateways; with fewer than three of them two agents remember as well, one poll later. Who
//!    is the last of a fleet, or hears no other, exports when an agent has confirmed.
//!
//! A verdict that was proposed sticks, whoever commits it in the end: nobody who heard of it is contradicted.
//! Agents say which gateways they hear, so a cut between two gateways is not taken for a death.
//!
//! # How the data plane drives it
//!
//! Per key, the calm path is one look-up of the owner and of the decided keys at insert, and one comparison
//! ([`Stand::may_decide`]) for a whole turn of decisions: the gate is per peer and cached in the [`Stand`].
//! [`Ownership`] is a gateway of one shard. With several, the task that owns the peer links runs the
//! [`Steward`] and publishes a `Stand`; each shard thread runs its own [`Traces`] beside its `Shard`, with
//! the `Stand` of the moment, and publishes whether it is complete and idle. In `gateway.rs` and `shards.rs`:
//!
//! - *Export, Deliver*: the receiving thread scans, the shard walks over the spans once. Those of traces that
//!   are steady (stored here before, and nobody else's) join them; of others [`Traces::admit`] says where
//!   they go, and [`Traces::dispatch`] sends on what is to be passed on. `Pass` encodes those spans into a
//!   parcel, `Reply` completes the request.
//! - *Receipt, failure*: [`Traces::on_receipt`], [`Traces::on_failed`]; `Restore` inserts a parcel again.
//! - *A turn of decisions*: if [`Stand::may_decide`], pop what is due and [`Stand::owns`], judge it without
//!   removing it, and call [`Traces::on_judged`] with up to a turn's worth; `Settle` is today's settle with
//!   the verdict given, `PutBack` links the entry into its bucket again. Memory pressure and traces that are
//!   too large take the same way, out of turn; while the gate is closed the answer to pressure is to refuse.
//! - *Exporter done*: [`Traces::on_exported`] with the keys of the batch.
//! - *View change*: `Take` gathers entries as raw segments into a parcel, which is charged to the buffer
//!   until `Forget`.
//! - *Hello, Decisions, Poll, slices, SIGTERM*: one call each on the [`Steward`]; every 250 ms
//!   [`Steward::on_tick`]. The driver keeps the address of each name, and the deadline of each request.
//! - *Agent*: a frame is a batch; its bytes stay as they were sent until `Release`. `Deliver` names traces of
//!   it: all of them the first time, fewer after a receipt that named several holders, or in a replay.
//!
//! # What is not kept
//!
//! `docs/churn-simulation.md` has how often each of these was seen.
//!
//! - An agent that no gateway has answered for 5 s, or only the moment before, is not waited for: its spans
//!   follow the decision. So it is when all gateways die and its slices are a minute old.
//! - An agent that is cut off from the owner, while everybody who hears both is cut off from the owner as
//!   well, or dies: the owner decides after the fence, 10 s, without what lies on the other side.
//! - Of two gateways that do not hear each other and that no agent hears both, each decides after 20 s.
//! - Of two gateways one hangs just after it has come back, or of three two: nobody has the majority to say
//!   so, and decisions wait for the slices.
//! - A decision that is forgotten because too many are remembered, while agents still retain its spans, is
//!   made again if its holder is lost. That is counted, as `forgotten`.
//! - Senders that are not ours do not send again what a killed gateway had.
//!
//! Two gateways that die within a second of each other lose no decision: two more know it, and when fewer
//! than three are left, or none of them is heard, it is made when an agent knows it.
//!
//! # What each rule is for
//!
//! Most switches of [`rules::Rules`] have a schedule of the simulation that goes wrong without them
//! (`tests/src/simulation/seeds.rs`). The others take several faults at a time: of those `tests` shows by
//! hand what each does.

pub mod action;
pub mod agent;
mod asked;
mod decided;
pub mod facts;
mod foreign;
mod forward;
mod handover;
mod losses;
mod marks;
mod membership;
pub mod message;
mod order;
mod outbox;
mod peer;
mod propose;
mod quorum;
mod retention;
pub mod rules;
mod stand;
mod stats;
mod steward;
pub mod timers;
mod traces;
mod waits;
mod ways;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::action::{Action, Answer, Failure, Inbound, Message};
pub use self::decided::DECISION_BYTES_MAX;
use self::facts::{Facts, Instance, Name, State};
use self::message::{
    Agreement, Decisions, Delivery, Hello, HelloAnswer, Origin, Outcome, Part, Poll, PollAnswer,
    Receipt, Req, Verdict,
};
pub use self::propose::Due;
use self::rules::Rules;
pub use self::stand::Stand;
pub use self::stats::{Conduct, Fence, FenceStats, Stats};
pub use self::steward::{Shards, Steward};
pub use self::traces::{Admission, Traces};
use crate::Millis;
use crate::key::{KeySeed, TraceKey};

/// What makes an [`Ownership`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this gateway is. `inst` is the start in milliseconds of the wall clock.
    pub me: Instance,
    /// The secret of the fleet.
    pub seed: KeySeed,
    /// How long decisions are told again.
    pub remember: Millis,
    /// So many of the last ones are remembered at least.
    pub remember_max: usize,
    /// How long it listens before it serves: [`timers::JOIN_SETTLE`], or nothing if nobody else is listed.
    pub settle: Millis,
    /// All of them, but in tests.
    pub rules: Rules,
}

/// A gateway of one shard, for the simulation. One of several shards is put together of the same parts by its
/// driver.
#[derive(Debug)]
pub struct Ownership {
    steward: Steward,
    shard: OneShard,
}

/// The shard, what a driver keeps of it, and the last time that somebody sent it spans.
#[derive(Debug)]
struct OneShard {
    traces: Traces,
    plain: BTreeMap<TraceKey, Plain>,
    disturbed: Millis,
}

/// What is known of a trace of which the state machine keeps nothing.
#[derive(Debug, Clone, Copy)]
struct Plain {
    first: Millis,
    origin: Origin,
    bytes: u64,
}

impl Shards for OneShard {
    fn follow(&mut self, before: &Stand, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        self.adopt(before, stand);
        if before.epoch != stand.epoch {
            let known = out.len();
            self.traces.on_view(before, stand, now, out);
            self.forget_settled(&out[known..]);
        }
    }

    fn are_complete(&self, stand: &Stand) -> bool {
        self.traces.is_complete(stand)
    }

    fn are_idle(&self) -> bool {
        self.traces.is_idle() && self.undecided() == 0
    }

    fn disturbed(&self) -> Millis {
        self.disturbed
    }
}

impl OneShard {
    fn on_delivery(
        &mut self,
        stand: &Stand,
        inbound: Inbound,
        delivery: &Delivery,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let mut outcomes = Vec::with_capacity(delivery.parts.len());
        let mut passed: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
        for (index, part) in delivery.parts.iter().enumerate() {
            let outcome = match self.traces.admit(stand, part, delivery.hops, now) {
                Admission::Store { first, origin, .. } => {
                    let first = self.note(part, first, origin);
                    out.push(Action::Store { inbound, part: index, key: part.key, first });
                    Some(Outcome::Held(stand.me.clone()))
                }
                Admission::Follow(decision) => {
                    out.push(Action::Follow { inbound, part: index, verdict: decision.verdict });
                    Some(Outcome::Decided(decision))
                }
                Admission::Repeated(decision) => {
                    out.push(Action::Repeated { inbound, part: index });
                    Some(Outcome::Decided(decision))
                }
                Admission::Pass(to) => {
                    passed.entry(to).or_default().push(index);
                    None
                }
                Admission::Refuse => Some(Outcome::Refused),
            };
            outcomes.push(outcome);
        }
        self.traces.dispatch(stand, inbound, delivery, (outcomes, passed), now, out);
    }

    /// Notes a part that is stored, unless the state machine has; returns when its trace began.
    fn note(&mut self, part: &Part, first: Millis, origin: Origin) -> Millis {
        if self.traces.holds(part.key) {
            return first;
        }
        let plain = self.plain.entry(part.key).or_insert(Plain { first, origin, bytes: 0 });
        plain.first = plain.first.min(first);
        plain.origin = plain.origin.min(origin);
        plain.bytes += u64::from(part.bytes);
        plain.first
    }

    /// Before a change of view, and when we are another instance.
    fn adopt(&mut self, before: &Stand, stand: &Stand) {
        let Self { traces, plain, .. } = self;
        let all = before.me != stand.me;
        plain.retain(|key, plain| {
            let stays = !all && stand.owns(*key);
            if !stays {
                traces.adopt(*key, (plain.first, plain.origin), plain.bytes, before.me.inst);
            }
            stays
        });
    }

    fn due(&self, key: TraceKey, verdict: Verdict) -> Due {
        let plain = self.plain.get(&key).copied();
        let Plain { first, origin, .. } =
            plain.unwrap_or(Plain { first: Millis::MAX, origin: Origin::Replay, bytes: 0 });
        Due { key, verdict, first, origin }
    }

    fn undecided(&self) -> usize {
        self.plain.keys().filter(|key| !self.traces.holds(**key)).count() + self.traces.len()
    }

    /// A decision may be forgotten again before the driver hears of it, so it is taken from what it is told.
    fn forget_settled(&mut self, told: &[Action]) {
        for action in told {
            if let Action::Settle { key, .. } = action {
                self.plain.remove(key);
            }
        }
    }
}

// === Inputs ===

impl Ownership {
    /// A gateway that has just started, and knows nobody.
    pub fn new(config: Config, now: Millis) -> Self {
        let traces = Traces::new(0, config.remember, config.remember_max);
        let shard = OneShard { traces, plain: BTreeMap::new(), disturbed: now };
        Self { steward: Steward::new(&config, now), shard }
    }

    /// A greeting goes along with what is sent to `to` now.
    pub fn greet_along(&mut self, to: &Name, now: Millis, out: &mut Vec<Action>) {
        let greeting = self.steward.greet_along(&mut self.shard, to, now, out);
        out.extend(greeting);
    }

    /// A question of another process, other than a delivery.
    pub fn on_question(
        &mut self,
        message: &Message,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Option<Answer> {
        match message {
            Message::Hello(hello) => Some(Answer::Hello(self.on_hello(hello, now, out))),
            Message::Decisions(told) => Some(Answer::Decisions(self.on_decisions(told, now, out))),
            Message::Poll(poll) => Some(Answer::Poll(self.on_poll(poll, now, out))),
            Message::Deliver(_) => None,
        }
    }

    /// An answer to request `req`.
    pub fn on_answer(&mut self, req: Req, answer: &Answer, now: Millis, out: &mut Vec<Action>) {
        match answer {
            Answer::Hello(answer) => self.on_hello_answer(answer, now, out),
            Answer::Deliver(receipt) => self.on_receipt(req, receipt, now, out),
            Answer::Decisions(agreement) => self.on_agreement(req, agreement, now, out),
            Answer::Poll(_) => {}
        }
    }

    /// Another gateway greets.
    pub fn on_hello(&mut self, hello: &Hello, now: Millis, out: &mut Vec<Action>) -> HelloAnswer {
        self.steward.on_hello(&mut self.shard, hello, now, out)
    }

    /// Another gateway answers.
    pub fn on_hello_answer(&mut self, answer: &HelloAnswer, now: Millis, out: &mut Vec<Action>) {
        self.steward.on_hello_answer(&mut self.shard, answer, now, out);
    }

    /// Spans come in; [`Action::Reply`] answers them.
    pub fn on_delivery(
        &mut self,
        inbound: Inbound,
        delivery: &Delivery,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(now, out);
        self.shard.disturbed = now;
        let known = out.len();
        self.shard.on_delivery(self.steward.stand(), inbound, delivery, now, out);
        self.shard.forget_settled(&out[known..]);
    }

    /// What was passed on or handed over is answered.
    pub fn on_receipt(&mut self, req: Req, receipt: &Receipt, now: Millis, out: &mut Vec<Action>) {
        self.hear(&receipt.from, now, out);
        let known = out.len();
        self.shard.traces.on_receipt(self.steward.stand(), req, receipt, now, out);
        self.shard.forget_settled(&out[known..]);
    }

    /// Another gateway tells decisions.
    pub fn on_decisions(
        &mut self,
        told: &Decisions,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Agreement {
        self.hear(&told.from, now, out);
        let known = out.len();
        let agreement = self.shard.traces.on_decisions(self.steward.stand(), told, now, out);
        self.shard.forget_settled(&out[known..]);
        agreement
    }

    /// Told decisions are answered.
    pub fn on_agreement(
        &mut self,
        req: Req,
        answer: &Agreement,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.hear(&answer.from, now, out);
        let known = out.len();
        self.shard.traces.on_agreement(self.steward.stand(), req, answer, now, out);
        self.shard.forget_settled(&out[known..]);
    }

    /// An agent asks.
    pub fn on_poll(&mut self, poll: &Poll, now: Millis, out: &mut Vec<Action>) -> PollAnswer {
        let (mut answer, confides) = self.steward.on_poll(&mut self.shard, poll, now, out);
        let known = out.len();
        self.shard.traces.on_reminded(&poll.decided, now, out);
        self.shard.forget_settled(&out[known..]);
        if let Some(lately) = confides {
            answer.decided = self.shard.traces.last_decisions(lately, now).collect();
        }
        answer
    }

    /// The slices as they are now: every name in them, and whether it serves.
    pub fn on_slice(&mut self, slice: &[(Name, bool)], now: Millis, out: &mut Vec<Action>) {
        self.steward.on_slice(&mut self.shard, slice, now, out);
    }

    /// A request to `to` has no answer.
    pub fn on_failed(
        &mut self,
        to: &str,
        req: Req,
        failure: Failure,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.steward.on_failed(&mut self.shard, (to, failure), now, out);
        let known = out.len();
        self.shard.traces.on_failed(self.steward.stand(), (to, req, failure), now, out);
        self.shard.forget_settled(&out[known..]);
    }

    /// These traces were due and were judged.
    pub fn on_judged(
        &mut self,
        judged: &[(TraceKey, Verdict)],
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(now, out);
        let due = judged.iter().map(|(key, verdict)| self.shard.due(*key, *verdict));
        let due: Vec<Due> = due.collect();
        let known = out.len();
        self.shard.traces.on_due(self.steward.stand(), &due, now, out);
        self.shard.forget_settled(&out[known..]);
    }

    /// The backend has the spans with which these traces were decided here.
    pub fn on_exported(&mut self, keys: &[TraceKey]) {
        self.shard.traces.on_exported(self.steward.stand(), keys);
    }

    /// To be called every 250 ms. `exporting` says whether kept spans still wait for a backend.
    pub fn on_tick(&mut self, exporting: bool, now: Millis, out: &mut Vec<Action>) {
        self.steward.on_tick(&mut self.shard, now, out);
        let known = out.len();
        self.shard.traces.on_tick(self.steward.stand(), now, out);
        self.shard.forget_settled(&out[known..]);
        self.steward.leave_if_done(&self.shard, exporting, now, out);
    }

    /// The process shall end: hand over, and say so at once. [`Action::Exit`] comes when all is done.
    pub fn drain(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.steward.drain(&mut self.shard, now, out);
    }

    fn wake(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.steward.wake(&mut self.shard, now, out);
    }

    fn hear(&mut self, from: &Instance, now: Millis, out: &mut Vec<Action>) {
        self.steward.on_heard(&mut self.shard, from, now, out);
    }
}

// === What others may know ===

impl Ownership {
    /// What the shards need to know.
    pub fn stand(&self) -> &Stand {
        self.steward.stand()
    }

    /// All facts about members.
    pub fn facts(&self) -> &Facts {
        self.steward.facts()
    }

    /// What it is up to.
    pub fn state(&self) -> State {
        self.steward.state()
    }

    /// Nothing that others own is here or on its way from here.
    pub fn is_complete(&self) -> bool {
        self.shard.are_complete(self.stand())
    }

    /// Nothing is here or on its way from here at all.
    pub fn is_idle(&self) -> bool {
        self.shard.are_idle()
    }

    /// Undecided traces here.
    pub fn len(&self) -> usize {
        self.shard.undecided()
    }

    /// Whether no undecided trace is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.steward.conduct().stats.plus(*self.shard.traces.stats())
    }
}
