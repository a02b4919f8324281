//! What gateways say to each other about themselves, every 750 ms and at each change. Those who send each
//! other decisions say it along with them: it is messages that cost, not what is in them.

use std::sync::Arc;

use super::Membership;
use crate::Millis;
use crate::ownership::action::{Action, Message};
use crate::ownership::facts::{Name, State};
use crate::ownership::message::{Asked, Hello, HelloAnswer, Req, Status};
use crate::ownership::peer::{Listed, Peer};
use crate::ownership::timers::{HELLO, REQUEST, TICK};

/// A peer that greets us with a complete view is asked at once, but not more often than this.
const HELLO_SPACING: Millis = 200;

/// A greeting goes along at most so often: each shard sends decisions, and one greeting of all is enough.
const ALONG_SPACING: Millis = HELLO / 2;

/// One that was taken for dead but is in the slices is greeted at every fourth hello, so that two sides
/// that took each other for dead meet again.
const HELLO_TO_THE_DEAD: Millis = 4 * HELLO;

impl Membership {
    /// Answers a hello. [`Membership::absorb`] took in what it says before.
    pub(in crate::ownership) fn answer(
        &mut self,
        hello: &Hello,
        complete: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> HelloAnswer {
        let ready = hello.status.complete && hello.status.digest == self.view.digest();
        if let Some(peer) = self.peers.get(&hello.status.from.name)
            && ready
            && peer.agreed.is_none()
            && now >= peer.greeted + HELLO_SPACING
        {
            let name = Arc::clone(&peer.of.name);
            self.greet(&name, complete, now, out);
        }
        HelloAnswer { status: self.status(complete, now), asked: hello.asked }
    }

    /// Greets all at once if the view has changed since the last time.
    pub(in crate::ownership) fn greet_if_changed(
        &mut self,
        complete: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        if self.greeted == 0 {
            self.greet_all(complete, now, out);
        }
    }

    pub(in crate::ownership) fn greet_all(
        &mut self,
        complete: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.greeted = now;
        self.greet_those(|_| true, complete, now, out);
    }

    /// Greets those whose turn it is. Whoever was greeted along with something else is left a tick longer, so
    /// that the next greeting may go along as well.
    pub(in crate::ownership) fn greet_in_turn(
        &mut self,
        complete: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let turn = now >= self.greeted + HELLO;
        if turn {
            self.greeted = now;
        }
        let due = |peer: &Peer| match peer.rode {
            true => now >= peer.greeted + HELLO + TICK,
            false => turn,
        };
        self.greet_those(due, complete, now, out);
    }

    fn greet_those(
        &mut self,
        due: impl Fn(&Peer) -> bool,
        complete: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let wanted = |peer: &&Peer| match self.facts.find(&peer.of.name).map(|fact| fact.state) {
            None => peer.listed == Listed::Serving,
            Some(State::Joining | State::Serving | State::Draining) => true,
            Some(State::Gone) => {
                peer.listed == Listed::Serving && now >= peer.greeted + HELLO_TO_THE_DEAD
            }
            Some(State::Left) => false,
        };
        let peers = self.peers.values().filter(|peer| due(peer)).filter(wanted);
        let names: Vec<Name> = peers.map(|peer| Arc::clone(&peer.of.name)).collect();
        for name in names {
            self.greet(&name, complete, now, out);
        }
    }

    /// A greeting to go along with something else that is sent to a peer, unless it was greeted just before.
    pub(in crate::ownership) fn greet_along(
        &mut self,
        name: &Name,
        complete: bool,
        now: Millis,
    ) -> Option<Action> {
        let takes_part = self.facts.find(name)?.state.takes_part();
        if !takes_part || now < self.peers.get(name)?.greeted + ALONG_SPACING {
            return None;
        }
        Some(self.greeting(name, true, complete, now))
    }

    pub(in crate::ownership) fn greet(
        &mut self,
        name: &Name,
        complete: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let greeting = self.greeting(name, false, complete, now);
        out.push(greeting);
    }

    fn greeting(&mut self, name: &Name, rides: bool, complete: bool, now: Millis) -> Action {
        self.requests += 1;
        let status = self.status(complete, now);
        let hello = Hello { status, asked: Asked { epoch: self.epoch, at: now } };
        if let Some(peer) = self.peers.get_mut(name) {
            (peer.greeted, peer.rode) = (now, rides);
        }
        Action::Send {
            to: Arc::clone(name),
            // The low half is zero here; in the requests of a shard it is not.
            req: Req(self.requests << 32),
            message: Message::Hello(Box::new(hello)),
            deadline: now + REQUEST,
        }
    }

    pub(in crate::ownership) fn status(&self, complete: bool, now: Millis) -> Status {
        let relayed = self.peers.values().filter(|peer| self.rules.relay && peer.of.inst > 0);
        Status {
            from: self.me.clone(),
            digest: self.view.digest(),
            complete,
            cold: self.sought_until.saturating_sub(now),
            facts: self.facts.told(),
            losses: self.losses.told(),
            heard: relayed
                .map(|peer| (Arc::clone(&peer.of.name), now.saturating_sub(peer.heard)))
                .collect(),
        }
    }
}
