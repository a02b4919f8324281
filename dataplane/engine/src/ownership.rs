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
//! | `membership`, `peer`, `quorum`, `marks` | one a process: agreement, suspicion, joining, leaving |
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
//! 6. *Witnesses.* The second and third choice hear of a decision before anything is exported. So it survives
//!    two gateways; with fewer than three of them two agents remember as well, one poll later.
//!
//! A verdict that was proposed sticks, whoever commits it in the end: nobody who heard of it is contradicted.
//! Agents say which gateways they hear, so a cut between two gateways is not taken for a death.
//!
//! # How the data plane drives it
//!
//! Per key, the calm path is one look-up of the owner and of the decided keys at insert, and one comparison
//! ([`Stand::may_decide`]) for a whole turn of decisions: the gate is per peer and cached in the [`Stand`].
//! [`Ownership`] is a gateway of one shard. With several, the task that owns the peer links runs the
//! membership and publishes a `Stand`; each shard thread runs its own [`Traces`] beside its `Shard`, with the
//! `Stand` of the moment, and publishes whether it is complete and idle. In `gateway.rs` and `shards.rs`:
//!
//! - *Export, Deliver*: the receiving thread scans and makes a [`message::Part`] a trace ID; the shard
//!   calls [`Traces::on_delivery`] before it stores. `Store` inserts with `first` as the time of the trace,
//!   `Follow` is today's late span, `Pass` encodes those spans into a parcel, `Reply` completes the request.
//! - *Receipt, failure*: [`Traces::on_receipt`], [`Traces::on_failed`]; `Restore` inserts a parcel again.
//! - *A turn of decisions*: if [`Stand::may_decide`], pop what is due and [`Stand::owns`], judge it without
//!   removing it, and call [`Traces::on_judged`] with up to a turn's worth; `Settle` is today's settle with
//!   the verdict given, `PutBack` links the entry into its bucket again. Memory pressure and traces that are
//!   too large take the same way, out of turn; while the gate is closed the answer to pressure is to refuse.
//! - *Exporter done*: [`Traces::on_exported`] with the keys of the batch.
//! - *View change*: `Take` gathers entries as raw segments into a parcel, which is charged to the buffer
//!   until `Forget`.
//! - *Hello, Decisions, Poll, slices, SIGTERM*: one call each on [`Ownership`]; every 250 ms
//!   [`Ownership::on_tick`]. The driver keeps the address of each name, and the deadline of each request.
//! - *Agent*: a frame is a batch; its bytes stay as they were sent until `Release`. `Deliver` names traces of
//!   it: all of them the first time, fewer after a receipt that named several holders, or in a replay.
//!
//! # What is not kept
//!
//! Of two gateways that both die within a second of a decision nobody is left to remember it: the trace is
//! decided again, with the same spans. An agent that reaches no live gateway for longer than the fence is not
//! waited for: its spans follow the decision. Of two gateways that do not hear each other and that no agent
//! hears both, each decides after 20 s. Senders that are not ours do not send again what a killed gateway
//! had.
//!
//! # Rules that no schedule has been found to need
//!
//! The simulation has a schedule for most switches of [`rules::Rules`]. For these it has none yet, and they
//! stay for what they guard: `forward` (without it spans wait a second for a hand-over, and a sender's
//! receipt names a holder that is about to give them away), `lease` (an agreement without an end would hold
//! across a pause that `gap` does not see), `pin`, `holder` (a receipt is believed as far as its holder
//! lives), `refuse`, `fallback`, `relay` (less waiting and fewer moves), `quorum` (a minority must
//! not take over), `agree`, `known` (two owners under crossed views meet at the witness), `third`
//! and `restream` (a decision survives a second death), `woken`, `doubt`, `exported` (spans exported twice,
//! or dropped as repeated).

pub mod action;
pub mod agent;
mod decided;
pub mod facts;
mod forward;
mod handover;
mod losses;
mod marks;
mod membership;
pub mod message;
mod outbox;
mod peer;
mod propose;
mod quorum;
mod retention;
pub mod rules;
mod stand;
mod stats;
pub mod timers;
mod traces;

use self::action::{Action, Answer, Failure, Inbound, Message};
use self::facts::{Facts, Instance, Name, State};
use self::membership::Membership;
use self::message::{
    Agreement, Decisions, Delivery, Hello, HelloAnswer, Poll, PollAnswer, Receipt, Req, Verdict,
};
use self::rules::Rules;
pub use self::stand::Stand;
pub use self::stats::Stats;
use self::timers::{DRAIN_MAX, QUIET};
pub use self::traces::Traces;
use crate::Millis;
use crate::key::{KeySeed, TraceKey};

/// What makes an [`Ownership`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this gateway is. `inst` is the start in milliseconds of the wall clock.
    pub me: Instance,
    /// The secret of the fleet.
    pub seed: KeySeed,
    /// How long decisions are remembered, to be told again.
    pub remember: Millis,
    /// How many of them at most.
    pub remember_max: usize,
    /// All of them, but in tests.
    pub rules: Rules,
}

/// The gateway's side.
#[derive(Debug)]
pub struct Ownership {
    members: Membership,
    traces: Traces,
    stand: Stand,
    stats: Stats,
    /// The last time that somebody sent spans.
    disturbed: Millis,
    leaving: Leaving,
}

/// How far a gateway is with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    Since(Millis),
    Done,
}

// === Inputs ===

impl Ownership {
    /// A gateway that has just started, and knows nobody.
    pub fn new(config: Config, now: Millis) -> Self {
        let members = Membership::new(config.me, config.seed, config.rules, now);
        let stand = members.stand(now);
        Self {
            members,
            traces: Traces::new(0, config.remember, config.remember_max),
            stand,
            stats: Stats::default(),
            disturbed: now,
            leaving: Leaving::No,
        }
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
        self.wake(now, out);
        self.members.absorb(&hello.status, now);
        self.refresh(now, out);
        let complete = self.is_complete();
        let answer = self.members.answer(hello, complete, now, out);
        self.settle(now, out);
        answer
    }

    /// Another gateway answers.
    pub fn on_hello_answer(&mut self, answer: &HelloAnswer, now: Millis, out: &mut Vec<Action>) {
        self.wake(now, out);
        self.members.on_hello_answer(answer, now);
        self.settle(now, out);
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
        self.disturbed = now;
        self.traces.on_delivery(&self.stand, inbound, delivery, now, out);
    }

    /// What was passed on or handed over is answered.
    pub fn on_receipt(&mut self, req: Req, receipt: &Receipt, now: Millis, out: &mut Vec<Action>) {
        self.wake(now, out);
        self.members.on_heard(&receipt.from, now);
        self.traces.on_receipt(&self.stand, req, receipt, now, out);
    }

    /// Another gateway tells decisions.
    pub fn on_decisions(
        &mut self,
        told: &Decisions,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Agreement {
        self.wake(now, out);
        self.members.on_heard(&told.from, now);
        self.traces.on_decisions(&self.stand, told, now, out)
    }

    /// Told decisions are answered.
    pub fn on_agreement(
        &mut self,
        req: Req,
        answer: &Agreement,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(now, out);
        self.members.on_heard(&answer.from, now);
        self.traces.on_agreement(&self.stand, req, answer, now, out);
    }

    /// An agent asks.
    pub fn on_poll(&mut self, poll: &Poll, now: Millis, out: &mut Vec<Action>) -> PollAnswer {
        self.wake(now, out);
        let mut answer = self.members.on_poll(poll, now);
        self.traces.on_reminded(&poll.decided, now, out);
        if self.members.confides_in(&poll.agent) {
            answer.decided = self.traces.last_decisions(now).collect();
        }
        self.settle(now, out);
        answer
    }

    /// The slices as they are now: every name in them, and whether it serves.
    pub fn on_slice(&mut self, slice: &[(Name, bool)], now: Millis, out: &mut Vec<Action>) {
        self.wake(now, out);
        self.members.on_slice(slice, now);
        self.settle(now, out);
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
        self.wake(now, out);
        if failure == Failure::Refused {
            self.members.on_refused(to, now);
        }
        self.traces.on_failed(&self.stand, (to, req, failure), now, out);
    }

    /// These traces were due and were judged.
    pub fn on_judged(
        &mut self,
        judged: &[(TraceKey, Verdict)],
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(now, out);
        self.traces.on_judged(&self.stand, judged, now, out);
    }

    /// The backend has the spans with which these traces were decided here.
    pub fn on_exported(&mut self, keys: &[TraceKey]) {
        self.traces.on_exported(&self.stand, keys);
    }

    /// To be called every 250 ms. `exporting` says whether kept spans still wait for a backend.
    pub fn on_tick(&mut self, exporting: bool, now: Millis, out: &mut Vec<Action>) {
        self.wake(now, out);
        let complete = self.is_complete();
        self.members.tick(complete, now, &mut self.stats, out);
        self.settle(now, out);
        self.traces.on_tick(&self.stand, now, out);
        self.leave_if_done(exporting, now, out);
    }

    /// The process shall end: hand over, and say so at once. [`Action::Exit`] comes when all is done.
    pub fn drain(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.wake(now, out);
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Since(now);
            self.members.drain(now);
            self.settle(now, out);
        }
    }
}

// === What others may know ===

impl Ownership {
    /// What the shards need to know.
    pub fn stand(&self) -> &Stand {
        &self.stand
    }

    /// All facts about members.
    pub fn facts(&self) -> &Facts {
        self.members.facts()
    }

    /// What it is up to.
    pub fn state(&self) -> State {
        self.members.state()
    }

    /// Nothing that others own is here or on its way from here.
    pub fn is_complete(&self) -> bool {
        self.traces.is_complete(&self.stand)
    }

    /// Undecided traces here.
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether no undecided trace is here.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let Stats { gaps, declared, .. } = self.stats;
        Stats { gaps, declared, ..*self.traces.stats() }
    }
}

// === After each input ===

impl Ownership {
    fn wake(&mut self, now: Millis, out: &mut Vec<Action>) {
        let gaps = self.stats.gaps;
        self.members.wake(now, &mut self.stats);
        if self.stats.gaps > gaps {
            self.refresh(now, out);
        }
    }

    /// Takes the shards along to the view of now.
    fn refresh(&mut self, now: Millis, out: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.stand, self.members.stand(now));
        if before.epoch != self.stand.epoch {
            self.traces.on_view(&before, &self.stand, now, out);
        }
    }

    fn settle(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.refresh(now, out);
        let complete = self.is_complete();
        self.members.greet_if_changed(complete, now, out);
    }

    fn leave_if_done(&mut self, exporting: bool, now: Millis, out: &mut Vec<Action>) {
        let Leaving::Since(since) = self.leaving else {
            return;
        };
        let quiet = now >= self.disturbed + QUIET;
        let clean = self.traces.is_idle() && !exporting && quiet && self.members.is_let_go(now);
        let skipped = !self.stand.rules.drain;
        if clean || skipped || now >= since + DRAIN_MAX {
            self.leaving = Leaving::Done;
            self.members.leave(clean || skipped, now, out);
            out.push(Action::Exit);
        }
    }
}
