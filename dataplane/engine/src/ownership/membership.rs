//! Who is in the fleet: facts, agreement, suspicion, joining and leaving. One a process.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Config;
use super::action::Action;
use super::facts::{Fact, Facts, Instance, Name, State};
use super::losses::Losses;
use super::marks::Marks;
use super::message::{HelloAnswer, Poll, PollAnswer, Status};
use super::peer::{Listed, Peer};
use super::quorum::Quorum;
use super::rules::Rules;
use super::stand::{Cold, Seat, Stand};
use super::stats::Stats;
use super::timers::{AGENT_WITNESSES_TOLD, COLD, DRAIN_MIN, GAP, JOIN_SETTLE, LAST_WORDS, SUSPECT};
use crate::Millis;
use crate::key::KeySeed;
use crate::ring::View;

/// An owner and two next choices remember each decision.
const WITNESSES: usize = 3;

mod fence;
mod greeting;

/// See the module.
#[derive(Debug)]
pub(super) struct Membership {
    me: Instance,
    state: State,
    /// Since when it has been what it is.
    since: Millis,
    seed: KeySeed,
    rules: Rules,
    settle: Millis,
    facts: Facts,
    losses: Losses,
    peers: BTreeMap<Name, Peer>,
    /// Where the slices have a name that they do not have.
    unlisted: Listed,
    marks: Marks,
    quorum: Quorum,
    /// Until when agents may still be looking for us; peers have their part of it in `cold`.
    sought_until: Millis,
    cold: Cold,
    epoch: u64,
    view: Arc<View>,
    ticked: Millis,
    greeted: Millis,
    was_complete: bool,
    requests: u64,
    watch: fence::FenceWatch,
    /// Since when agents are told of decisions, if they are.
    few_since: Option<Millis>,
}

// === Inputs ===

impl Membership {
    pub(super) fn new(config: &Config, now: Millis) -> Self {
        let Config { me, seed, rules, settle, .. } = config.clone();
        let mut facts = Facts::default();
        facts.merge(&Fact { of: me.clone(), state: State::Joining }, now);
        Self {
            me,
            state: State::Joining,
            since: now,
            view: Arc::new(facts.view(&seed)),
            seed,
            rules,
            settle,
            facts,
            losses: Losses::default(),
            peers: BTreeMap::new(),
            unlisted: Listed::Unknown,
            marks: Marks::default(),
            quorum: Quorum::Minority,
            sought_until: 0,
            cold: Cold::default(),
            epoch: 0,
            ticked: now,
            greeted: 0,
            was_complete: false,
            requests: 0,
            watch: fence::FenceWatch::default(),
            few_since: None,
        }
    }

    /// Before anything else is done with any input: a process that was stopped reads the messages that
    /// have gathered before its own timers.
    pub(super) fn wake(&mut self, now: Millis, stats: &mut Stats) {
        let stopped = now.saturating_sub(self.ticked) > GAP;
        if stopped && self.rules.gap {
            stats.gaps += 1;
            for peer in self.peers.values_mut() {
                peer.part(now);
                (peer.heard, peer.relayed) = (now, now);
            }
            self.losses.refresh(now);
        }
        if stopped {
            self.ticked = now;
        }
    }

    pub(super) fn on_hello_answer(&mut self, answer: &HelloAnswer, now: Millis) {
        let status = &answer.status;
        self.absorb(status, now);
        let digest = self.view.digest();
        if let Some(peer) = self.peers.get_mut(&status.from.name)
            && peer.of == status.from
            && status.complete
            && status.digest == digest
            && answer.asked.epoch == self.epoch
        {
            peer.agree(answer.asked);
        }
    }

    pub(super) fn on_poll(&mut self, poll: &Poll, now: Millis) -> PollAnswer {
        if self.rules.gossip {
            self.merge(&poll.facts, now);
        }
        self.learn(&poll.losses, now);
        self.relay(&poll.heard, now);
        self.marks.note(&poll.agent, &poll.done, now);
        self.few_since = self.are_few(now).then(|| self.few_since.unwrap_or(now));
        PollAnswer {
            from: self.me.clone(),
            facts: self.facts.told(),
            losses: self.losses.told(),
            decided: Arc::default(),
        }
    }

    /// The slices as they are now: every name in them, and whether it serves.
    pub(super) fn on_slice(&mut self, slice: &[(Name, bool)], now: Millis) {
        self.unlisted = Listed::Not;
        for peer in self.peers.values_mut() {
            peer.listed = Listed::Not;
        }
        for (name, _) in slice.iter().filter(|(name, serving)| *serving && *name != self.me.name) {
            let inst = self.facts.find(name).map_or(0, |fact| fact.of.inst);
            let of = Instance { name: Arc::clone(name), inst };
            let peer = self.peers.entry(Arc::clone(name));
            peer.or_insert_with(|| Peer::new(of, Listed::Serving, now)).listed = Listed::Serving;
        }
    }

    pub(super) fn on_refused(&mut self, name: &str, now: Millis) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.refused = Some(now);
        }
    }

    /// What went along with a greeting was not answered: the next greeting goes by itself.
    pub(super) fn on_failed(&mut self, name: &str) {
        if let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.rode) {
            peer.greeted = 0;
        }
    }

    /// Anything that only a living peer can send.
    pub(super) fn on_heard(&mut self, from: &Instance, now: Millis) {
        if let Some(peer) = self.peers.get_mut(&from.name).filter(|peer| peer.of == *from) {
            peer.heard = peer.heard.max(now);
        }
    }

    pub(super) fn tick(
        &mut self,
        complete: bool,
        now: Millis,
        stats: &mut Stats,
        out: &mut Vec<Action>,
    ) {
        let elapsed = now.saturating_sub(self.ticked);
        self.ticked = now;
        self.facts.expire(now);
        self.losses.expire(now);
        self.marks.expire(now);
        self.count_heads(now);
        self.account(complete, elapsed, now, stats);
        self.suspect(now, stats);
        self.join(now);
        let has_become_complete = complete && !self.was_complete;
        self.was_complete = complete;
        if has_become_complete {
            self.greet_all(complete, now, out);
        } else {
            self.greet_in_turn(complete, now, out);
        }
    }

    pub(super) fn drain(&mut self, now: Millis) {
        if self.state < State::Draining {
            self.become_state(State::Draining, now);
        }
    }

    /// Says the last word.
    pub(super) fn leave(&mut self, clean: bool, now: Millis, out: &mut Vec<Action>) {
        self.become_state(if clean { State::Left } else { State::Gone }, now);
        self.greet_all(true, now, out);
    }
}

// === What others may know ===

impl Membership {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Decisions of how long the agent is to remember, if the gateways are too few to: those since its last
    /// polls. When gateways have just become few, also those that only gateways remember which are not heard
    /// now, and which others may make again before they are.
    pub(super) fn confides_in(&self, agent: &Name, now: Millis) -> Option<Millis> {
        let since = self.few_since.filter(|_| self.marks.is_witness(agent))?;
        let lately = now < since + AGENT_WITNESSES_TOLD;
        Some(if lately { LAST_WORDS + AGENT_WITNESSES_TOLD } else { AGENT_WITNESSES_TOLD })
    }

    /// Whether gateways that can be heard are too few to remember decisions.
    fn are_few(&self, now: Millis) -> bool {
        let deaf = self.peers.values().filter(|peer| peer.is_deaf(now)).map(|peer| &peer.of.name);
        let unheard = deaf.filter(|name| self.view.position(name).is_some()).count();
        self.view.len() < WITNESSES + unheard && self.rules.agents_witness
    }

    /// Whether this is what is left of a fleet. A gateway that never had another does not wait for agents.
    fn had_company(&self) -> bool {
        !self.losses.told().is_empty() || self.facts.iter().nth(1).is_some()
    }

    /// Long enough a leaver, and all that serve have shown the view without us.
    pub(super) fn is_let_go(&self, now: Millis) -> bool {
        let digest = self.view.digest();
        let serving = self.facts.iter().filter(|fact| fact.state == State::Serving);
        let mut peers = serving.filter_map(|fact| self.peers.get(&fact.of.name));
        now >= self.since + DRAIN_MIN && peers.all(|peer| peer.digest == digest)
    }

    pub(super) fn stand(&self, now: Millis) -> Stand {
        let seat = |member: &crate::ring::Member| {
            let peer = self.peers.get(member.id.as_str());
            peer.map_or(Seat { agrees_until: 0, deaf: false, knows: false }, |peer| Seat {
                agrees_until: peer.agrees_until(self.rules.lease),
                deaf: peer.is_deaf(now),
                knows: peer.digest == self.view.digest(),
            })
        };
        Stand {
            me: self.me.clone(),
            state: self.state,
            epoch: self.epoch,
            view: Arc::clone(&self.view),
            seats: self.view.members().iter().map(seat).collect(),
            place: self.place(),
            decide_until: self.decide_until(now),
            decides_since: now,
            confides: self.rules.agents_witness && self.marks.has_agents(now) && self.had_company(),
            holds: self.state != State::Joining && self.may_act(now),
            sure: self.is_sure(now),
            cold: self.cold,
            lost: self.losses.told(),
            rules: self.rules,
        }
    }

    fn place(&self) -> Option<usize> {
        let serving = self.state == State::Serving;
        self.view.position(&self.me.name).filter(|_| serving)
    }

    fn may_act(&self, now: Millis) -> bool {
        !self.rules.quorum || self.quorum.may_act(now)
    }

    /// The gate: agreement of every member that holds spans, and nothing of a lost one outstanding.
    fn decide_until(&self, now: Millis) -> Millis {
        let ours =
            self.state == State::Serving || (self.state == State::Draining && self.view.is_empty());
        let covered = !self.rules.agent_fence || self.marks.cover(&self.losses, now);
        if !ours || !self.may_act(now) || !covered {
            return 0;
        }
        if !self.rules.agreement {
            return Millis::MAX;
        }
        let parts = self.facts.iter().filter(|fact| fact.state.takes_part());
        let peers = parts.filter_map(|fact| self.peers.get(&fact.of.name));
        let until = |peer: &Peer| {
            let agrees = peer.agrees_until(self.rules.lease);
            if agrees <= now && peer.is_deaf(now) { Millis::MAX } else { agrees }
        };
        peers.map(until).min().unwrap_or(Millis::MAX)
    }

    fn is_sure(&self, now: Millis) -> bool {
        let parts = self.facts.iter().filter(|fact| fact.state.takes_part());
        let mut peers = parts.filter_map(|fact| self.peers.get(&fact.of.name));
        peers.all(|peer| !peer.is_deaf(now)) && self.marks.cover_all(&self.losses, now)
    }
}

// === Changes ===

impl Membership {
    /// Takes in what a peer says of itself and of others.
    pub(super) fn absorb(&mut self, status: &Status, now: Millis) {
        let own = status.facts.iter().filter(|fact| fact.of.name == status.from.name);
        match self.rules.gossip {
            true => self.merge(&status.facts, now),
            false => self.merge(&own.cloned().collect::<Vec<_>>(), now),
        }
        self.learn(&status.losses, now);
        self.relay(&status.heard, now);
        self.cold = self.cold.extended(status.cold, now);
        let us = status.facts.iter().find(|fact| fact.of.name == self.me.name);
        let knows_us = us.map_or(0, |fact| fact.of.inst);
        if let Some(peer) = self.peers.get_mut(&status.from.name)
            && peer.of == status.from
        {
            peer.heard = peer.heard.max(now);
            peer.digest = status.digest;
            peer.knows_us = knows_us;
        }
    }

    /// Others have heard of peers that we may not hear. They tell only what they heard themselves: else two
    /// could keep a dead one alive between them.
    fn relay(&mut self, heard: &[(Name, Millis)], now: Millis) {
        for (name, age) in heard {
            if let Some(peer) = self.peers.get_mut(name) {
                peer.relayed = peer.relayed.max(now.saturating_sub(*age));
            }
        }
    }

    fn merge(&mut self, facts: &[Fact], now: Millis) {
        let mut changed = false;
        for fact in facts {
            if fact.of.name == self.me.name {
                changed |= self.read_of_us(fact, now);
            } else {
                changed |= self.note(fact, now);
            }
        }
        if changed {
            self.review(now);
        }
    }

    fn note(&mut self, fact: &Fact, now: Millis) -> bool {
        let Some(change) = self.facts.merge(fact, now) else {
            return false;
        };
        for lost in Losses::implied(&change, self.rules.instances) {
            self.losses.learn(&lost, now);
        }
        let name = &fact.of.name;
        let listed = self.peers.get(name).map_or(self.unlisted, |peer| peer.listed);
        if *name != self.me.name && self.peers.get(name).is_none_or(|peer| peer.of != fact.of) {
            self.peers.insert(Arc::clone(name), Peer::new(fact.of.clone(), listed, now));
        }
        true
    }

    /// Someone knows more of us than we do: an instance before us was later by its clock, or we were taken
    /// for dead. Either way we are a new instance from now on.
    fn read_of_us(&mut self, fact: &Fact, now: Millis) -> bool {
        let dead = fact.of.inst == self.me.inst && fact.state > self.state;
        let older = fact.of.inst > self.me.inst;
        if self.state > State::Draining || !(older || dead && self.rules.rejoin) {
            return false;
        }
        debug_assert!(fact.of.inst >= self.me.inst, "an instance goes back");
        self.me.inst = fact.of.inst + 1;
        let state = if self.state == State::Draining { State::Draining } else { State::Joining };
        self.since = if state == State::Joining { now } else { self.since };
        self.state = state;
        self.settle = JOIN_SETTLE;
        self.note(&Fact { of: self.me.clone(), state }, now);
        let before = Instance { inst: fact.of.inst, ..self.me.clone() };
        self.losses.learn(&before, now);
        true
    }

    fn learn(&mut self, losses: &[Instance], now: Millis) {
        for lost in losses {
            self.losses.learn(lost, now);
        }
    }

    fn become_state(&mut self, state: State, now: Millis) {
        (self.state, self.since) = (state, now);
        self.note(&Fact { of: self.me.clone(), state }, now);
        self.review(now);
    }

    /// Facts have changed; perhaps the view has, too.
    fn review(&mut self, now: Millis) {
        let view = self.facts.view(&self.seed);
        if view.digest() == self.view.digest() {
            return;
        }
        self.view = Arc::new(view);
        self.epoch += 1;
        self.peers.values_mut().for_each(|peer| peer.part(now));
        self.greeted = 0;
    }

    fn count_heads(&mut self, now: Millis) {
        let members = self.facts.iter().filter(|fact| fact.state.takes_part());
        let names: Vec<&Name> = members.map(|fact| &fact.of.name).collect();
        let hears = |name: &Name| {
            *name == self.me.name
                || self.peers.get(name).is_some_and(|peer| peer.silent(now) <= SUSPECT)
        };
        let heard = names.iter().filter(|name| hears(name)).count();
        let has_lowest = names.first().is_some_and(|name| hears(name));
        let before = self.may_act(now);
        self.quorum = match names.contains(&&self.me.name) {
            true => self.quorum.of(heard, names.len(), has_lowest, now),
            // Who joins has no say in who is dead, and nothing to decide.
            false => Quorum::Minority,
        };
        // After the wait at exactly half nobody has come back, so nobody has to agree anew.
        if !before && self.quorum == Quorum::Majority {
            self.peers.values_mut().for_each(|peer| peer.part(now));
        }
    }

    fn suspect(&mut self, now: Millis, stats: &mut Stats) {
        let declares = self.may_act(now);
        let dead = |fact: &&Fact| {
            let Some(peer) = self.peers.get(&fact.of.name) else {
                return false;
            };
            let silent = peer.silent(now) > SUSPECT && self.rules.suspect && declares;
            match fact.state {
                State::Joining => peer.is_confirmed_dead(now),
                State::Serving | State::Draining => silent || peer.is_confirmed_dead(now),
                State::Gone | State::Left => false,
            }
        };
        let dead: Vec<Fact> = self.facts.iter().filter(dead).cloned().collect();
        for fact in &dead {
            stats.declared += 1;
            self.note(&Fact { state: State::Gone, ..fact.clone() }, now);
        }
        if !dead.is_empty() {
            self.review(now);
        }
    }

    /// Serves when it has settled and more than half of those who serve know of it.
    fn join(&mut self, now: Millis) {
        if self.state != State::Joining || now < self.since + self.settle {
            return;
        }
        let serving = self.facts.iter().filter(|fact| fact.state == State::Serving);
        let peers: Vec<&Peer> = serving.filter_map(|fact| self.peers.get(&fact.of.name)).collect();
        let know = peers.iter().filter(|peer| peer.knows_us == self.me.inst).count();
        if !self.rules.accepted || peers.is_empty() || know * 2 > peers.len() {
            if peers.is_empty() {
                self.sought_until = now + COLD;
                self.cold = Cold { since: now, until: self.sought_until };
            }
            self.become_state(State::Serving, now);
        }
    }
}
