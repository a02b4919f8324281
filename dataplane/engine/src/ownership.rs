//! Whole traces through churn: who holds, who decides, who remembers, while gateways come and go.

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
