//! What a gateway has once, however many shards it has: who is in the fleet, and whether it may leave.

use super::Config;
use super::action::{Action, Failure};
use super::facts::{Facts, Instance, Name, State};
use super::membership::Membership;
use super::message::{Hello, HelloAnswer, Poll, PollAnswer, Status};
use super::stand::Stand;
use super::stats::{Conduct, Stats};
use super::timers::{DRAIN_MAX, QUIET};
use crate::Millis;

/// The shards of a gateway, as the steward sees them.
pub trait Shards {
    /// This is how things stand from now on. If the epoch has changed, what is here may be others' now.
    fn follow(&mut self, before: &Stand, stand: &Stand, now: Millis, out: &mut Vec<Action>);

    /// Every shard has taken over this stand's view, and nothing that others own is here or on its way from
    /// here.
    fn are_complete(&self, stand: &Stand) -> bool;

    /// Nothing is here or on its way from here at all.
    fn are_idle(&self) -> bool;

    /// The last time that somebody sent spans.
    fn disturbed(&self) -> Millis;
}

/// See the module.
#[derive(Debug)]
pub struct Steward {
    members: Membership,
    stand: Stand,
    stats: Stats,
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

impl Steward {
    /// Of a gateway that has just started, and knows nobody.
    pub fn new(config: &Config, now: Millis) -> Self {
        let members = Membership::new(config, now);
        let stand = members.stand(now);
        Self { members, stand, stats: Stats::default(), leaving: Leaving::No }
    }

    /// Another gateway greets.
    pub fn on_hello(
        &mut self,
        shards: &mut impl Shards,
        hello: &Hello,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> HelloAnswer {
        self.wake(shards, now, out);
        self.members.absorb(&hello.status, now);
        self.refresh(shards, now, out);
        let complete = shards.are_complete(&self.stand);
        let answer = self.members.answer(hello, complete, now, out);
        self.settle(shards, now, out);
        answer
    }

    /// Another gateway answers.
    pub fn on_hello_answer(
        &mut self,
        shards: &mut impl Shards,
        answer: &HelloAnswer,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(shards, now, out);
        self.members.on_hello_answer(answer, now);
        self.settle(shards, now, out);
    }

    /// An agent asks. Also says of how long it is to be told the last decisions, if it is.
    pub fn on_poll(
        &mut self,
        shards: &mut impl Shards,
        poll: &Poll,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> (PollAnswer, Option<Millis>) {
        self.wake(shards, now, out);
        let answer = self.members.on_poll(poll, now);
        let confides = self.members.confides_in(&poll.agent, now);
        self.settle(shards, now, out);
        (answer, confides)
    }

    /// The slices as they are now: every name in them, and whether it serves.
    pub fn on_slice(
        &mut self,
        shards: &mut impl Shards,
        slice: &[(Name, bool)],
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(shards, now, out);
        self.members.on_slice(slice, now);
        self.settle(shards, now, out);
    }

    /// Anything that only a living peer can send.
    pub fn on_heard(
        &mut self,
        shards: &mut impl Shards,
        from: &Instance,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(shards, now, out);
        self.members.on_heard(from, now);
    }

    /// A request to `to` has no answer.
    pub fn on_failed(
        &mut self,
        shards: &mut impl Shards,
        (to, failure): (&str, Failure),
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.wake(shards, now, out);
        self.members.on_failed(to);
        if failure == Failure::Refused {
            self.members.on_refused(to, now);
        }
    }

    /// To be called every 250 ms, and then [`Self::leave_if_done`].
    pub fn on_tick(&mut self, shards: &mut impl Shards, now: Millis, out: &mut Vec<Action>) {
        self.wake(shards, now, out);
        let complete = shards.are_complete(&self.stand);
        self.members.tick(complete, now, &mut self.stats, out);
        self.settle(shards, now, out);
    }

    /// A greeting that is to go along with decisions that are sent to `to` now, if it was not greeted just
    /// before.
    pub fn greet_along(
        &mut self,
        shards: &mut impl Shards,
        to: &Name,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Option<Action> {
        self.wake(shards, now, out);
        let complete = shards.are_complete(&self.stand);
        self.members.greet_along(to, complete, now)
    }

    /// The process shall end: hand over, and say so at once. [`Action::Exit`] comes when all is done.
    pub fn drain(&mut self, shards: &mut impl Shards, now: Millis, out: &mut Vec<Action>) {
        self.wake(shards, now, out);
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Since(now);
            self.members.drain(now);
            self.settle(shards, now, out);
        }
    }

    /// Before anything else is done with an input that only shards are told of.
    pub fn wake(&mut self, shards: &mut impl Shards, now: Millis, out: &mut Vec<Action>) {
        let gaps = self.stats.gaps;
        self.members.wake(now, &mut self.stats);
        if self.stats.gaps > gaps {
            self.refresh(shards, now, out);
        }
    }
}

// === What others may know ===

impl Steward {
    /// What the shards need to know.
    pub fn stand(&self) -> &Stand {
        &self.stand
    }

    /// What this gateway says of itself now, to somebody whose name it does not know yet.
    pub fn status(&self, now: Millis) -> Status {
        self.members.status(false, now)
    }

    /// All facts about members.
    pub fn facts(&self) -> &Facts {
        self.members.facts()
    }

    /// What it is up to.
    pub fn state(&self) -> State {
        self.members.state()
    }

    /// What was counted of the process; shards count their own.
    pub fn conduct(&self) -> Conduct {
        self.members.conduct(self.stats)
    }
}

// === After each input ===

impl Steward {
    /// Takes the shards along to how things stand now.
    fn refresh(&mut self, shards: &mut impl Shards, now: Millis, out: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.stand, self.members.stand(now));
        self.stand.follows(&before, now);
        shards.follow(&before, &self.stand, now, out);
    }

    fn settle(&mut self, shards: &mut impl Shards, now: Millis, out: &mut Vec<Action>) {
        self.refresh(shards, now, out);
        let complete = shards.are_complete(&self.stand);
        self.members.greet_if_changed(complete, now, out);
    }

    /// [`Action::Exit`] if nothing keeps a leaving gateway. `exporting` says whether kept spans still wait
    /// for a backend.
    pub fn leave_if_done(
        &mut self,
        shards: &impl Shards,
        exporting: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let Leaving::Since(since) = self.leaving else {
            return;
        };
        let quiet = now >= shards.disturbed() + QUIET;
        let clean = shards.are_idle() && !exporting && quiet && self.members.is_let_go(now);
        let skipped = !self.stand.rules.drain;
        if clean || skipped || now >= since + DRAIN_MAX {
            self.leaving = Leaving::Done;
            self.members.leave(clean || skipped, now, out);
            out.push(Action::Exit);
        }
    }
}
