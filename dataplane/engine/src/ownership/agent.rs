//! The agent's side: sends to the owner, keeps what is stored elsewhere, sends it again when its holder is
//! lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{AgentAction, BatchId, Failure};
use super::decided::{DecidedTraces, Learned};
use super::facts::{Change, Fact, Facts, Instance, Name, State};
use super::losses::Losses;
use super::message::{Decision, Origin, Outcome, Poll, PollAnswer, Receipt, Req};
use super::retention::{Piece, Retention};
use super::rules::Rules;
use super::timers::{
    AGENT_CONFIRM, AGENT_SILENT, HOLDER_SILENT, LOSS_KEPT, POLL, REQUEST, RETAIN_AFTER_WAIT,
    RETAIN_PINNED_MAX, SUSPECT,
};
use super::waits::Waits;
use crate::Millis;
use crate::key::{KeySeed, TraceKey};
use crate::ring::{self, View};

/// Without the rule that retention outlasts detection and fence it lasts only for this after the wait.
const RETAIN_SHORT: Millis = 2_000;

/// What makes an [`AgentSide`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// What it calls itself.
    pub name: Name,
    /// The secret of the fleet.
    pub seed: KeySeed,
    /// How long gateways hold a trace.
    pub decision_wait: Millis,
    /// Bytes that may be retained.
    pub retained_max: u64,
    /// Decisions that it remembers as a witness, at most.
    pub decisions_max: usize,
    /// All of them, but in tests.
    pub rules: Rules,
}

/// What an agent counts of all this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// Traces of batches sent again because of a loss.
    pub replayed: u64,
    /// Traces of batches let go early, for their bytes: a loss would lose them.
    pub unprotected: u64,
    /// Requests without an answer, or refused.
    pub retried: u64,
}

/// See the module.
#[derive(Debug)]
pub struct AgentSide {
    config: AgentConfig,
    waits: Waits,
    facts: Facts,
    losses: Losses,
    slice: BTreeMap<Name, bool>,
    view: Arc<View>,
    gateways: BTreeMap<Name, Gateway>,
    pub(super) retention: Retention,
    /// Decisions that are remembered for gateways, when those are few.
    witnessed: DecidedTraces,
    requests: u64,
    polled: Millis,
    /// How many losses were done at the last poll.
    told_done: usize,
    stats: AgentStats,
}

/// What an agent knows of a gateway, beside its fact.
#[derive(Debug, Clone, Default)]
struct Gateway {
    /// When it answered last.
    answered: Millis,
    /// When it did not answer a delivery last.
    failed: Millis,
    /// Since when it has answered without a gap.
    in_touch: Millis,
    /// Which instance of it has been told what we remember.
    reminded: u64,
    /// The poll that tells it.
    reminding: Option<Req>,
    /// Decisions that it makes when it has our word for them.
    unconfirmed: Arc<[Decision]>,
}

// === Inputs ===

impl AgentSide {
    /// An agent that knows no gateway yet.
    pub fn new(config: AgentConfig) -> Self {
        Self {
            view: Arc::new(View::new(Vec::new(), &config.seed)),
            witnessed: DecidedTraces::new(LOSS_KEPT, config.decisions_max),
            waits: Waits::new(config.decision_wait),
            config,
            facts: Facts::default(),
            losses: Losses::default(),
            slice: BTreeMap::new(),
            gateways: BTreeMap::new(),
            retention: Retention::default(),
            requests: 0,
            polled: 0,
            told_done: 0,
            stats: AgentStats::default(),
        }
    }

    /// A batch is to be sent: its traces with their bytes.
    pub fn on_batch(
        &mut self,
        batch: BatchId,
        traces: &[(TraceKey, u32)],
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        self.retention.add(batch, traces, now);
        self.dispatch(now, out);
        self.make_room(out);
    }

    /// A batch that its driver has delivered is answered: from now on it is retained, and what nobody holds
    /// is sent again from here. It came in at `born`. A driver that delivers itself tells only in its polls
    /// of losses that it has sent everything again for.
    pub fn on_delivered(
        &mut self,
        (batch, born): (BatchId, Millis),
        traces: &[(TraceKey, u32)],
        receipt: &Receipt,
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        self.heard(&receipt.from.name, now);
        let holders = self.holders(receipt);
        self.stats.retried += u64::from(holders.contains(&None));
        // Who answered may be lost by now: the loss is not done before this is stored elsewhere.
        let lost = self.losses.has(&receipt.from).then(|| receipt.from.clone());
        self.retention.add_delivered((batch, born), traces, &holders, lost, now);
        self.dispatch(now, out);
        self.make_room(out);
    }

    fn holders(&self, receipt: &Receipt) -> Vec<Option<Instance>> {
        let Self { losses, config, .. } = self;
        let holder = |outcome: &Outcome| match outcome {
            Outcome::Held(holder) if losses.has(holder) => None,
            Outcome::Held(_) if !config.rules.holder => Some(receipt.from.clone()),
            Outcome::Held(holder) => Some(holder.clone()),
            // What followed a decision lies with whoever answers, until the backend has it.
            Outcome::Decided(_) => Some(receipt.from.clone()).filter(|from| !losses.has(from)),
            Outcome::Refused => None,
        };
        receipt.outcomes.iter().map(holder).collect()
    }

    /// A gateway answers a delivery.
    pub fn on_receipt(
        &mut self,
        req: Req,
        receipt: &Receipt,
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        self.heard(&receipt.from.name, now);
        let holders = self.holders(receipt);
        self.stats.retried += u64::from(holders.contains(&None));
        self.retention.answered(req, &holders, now, out);
        self.dispatch(now, out);
        self.make_room(out);
    }

    /// A request has no answer.
    pub fn on_failed(
        &mut self,
        req: Req,
        _failure: Failure,
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        if let Some(to) = self.retention.failed(req, now) {
            self.stats.retried += 1;
            self.gateways.entry(to).or_default().failed = now;
        }
        self.dispatch(now, out);
    }

    /// A gateway answers a poll.
    pub fn on_poll_answer(
        &mut self,
        req: Req,
        answer: &PollAnswer,
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        self.heard(&answer.from.name, now);
        let unconfirmed = self.witness(&answer.from, &answer.decided, now);
        let gateway = self.gateways.entry(Arc::clone(&answer.from.name)).or_default();
        gateway.unconfirmed = unconfirmed;
        if gateway.reminding == Some(req) {
            gateway.reminded = answer.from.inst;
        }
        let mut lost = Vec::new();
        let own = answer
            .facts
            .iter()
            .filter(|fact| self.config.rules.gossip || fact.of.name == answer.from.name);
        for fact in own {
            if let Some(change) = self.facts.merge(fact, now) {
                let superseded = self.config.rules.instances && !self.is_left_to_peers(&change);
                lost.extend(Losses::implied(&change, superseded));
            }
        }
        lost.extend(answer.losses.iter().cloned());
        self.review();
        for lost in lost {
            self.lose(&lost, now);
        }
        self.dispatch(now, out);
        self.poll_if_due(now, out);
    }

    /// Remembers decisions. Returns those that wait for our word, each as it stands: another gateway may have
    /// told us of another one before, and then that one holds.
    fn witness(&mut self, from: &Instance, decided: &[Decision], now: Millis) -> Arc<[Decision]> {
        let (mut unconfirmed, mut news) = (Vec::new(), false);
        for decision in decided {
            let learned = self.witnessed.learn(decision, now);
            news |= learned == Learned::New && decision.age == 0;
            let stands = match learned {
                Learned::Conflict => self.witnessed.decision(decision.key, now),
                Learned::New | Learned::Known => None,
            };
            if decision.age == 0 {
                unconfirmed.push(stands.unwrap_or(*decision));
            }
        }
        if news {
            // No other gateway hears from it, and one of them may take over its traces.
            self.remind_all(Some(&from.name));
        }
        unconfirmed.into()
    }

    /// Gateways are told again what we remember, all but this one.
    fn remind_all(&mut self, but: Option<&Name>) {
        let others = self.gateways.iter_mut().filter(|(name, _)| Some(*name) != but);
        others.for_each(|(_, gateway)| gateway.reminded = 0);
    }

    /// The slices as they are now.
    pub fn on_slice(&mut self, slice: &[(Name, bool)], now: Millis, out: &mut Vec<AgentAction>) {
        self.slice = slice.iter().cloned().collect();
        self.review();
        self.dispatch(now, out);
    }

    /// To be called every 250 ms.
    pub fn on_tick(&mut self, now: Millis, out: &mut Vec<AgentAction>) {
        self.facts.expire(now);
        self.losses.expire(now);
        self.witnessed.expire(now);
        self.dispatch(now, out);
        self.forget(now, out);
        self.poll_if_due(now, out);
    }

    /// Counters.
    pub fn stats(&self) -> AgentStats {
        self.stats
    }

    /// The gateways as this agent sees them.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Losses with the time at which they were learned of.
    pub fn losses(&self) -> impl Iterator<Item = (&Instance, Millis)> {
        self.losses.iter()
    }

    /// Bytes retained.
    pub fn retained_bytes(&self) -> u64 {
        self.retention.bytes()
    }

    /// Whether everything that came in is stored at a gateway.
    pub fn is_settled(&self) -> bool {
        self.retention.is_settled()
    }
}

// === Sending ===

impl AgentSide {
    fn dispatch(&mut self, now: Millis, out: &mut Vec<AgentAction>) {
        let (view, requests, gateways) = (&self.view, &mut self.requests, &self.gateways);
        let next = || {
            *requests += 1;
            Req(*requests)
        };
        // One that failed is tried again when it has answered a poll, or when none answers.
        let answers = |id: &str| gateways.get(id).is_none_or(|one| one.answered >= one.failed);
        self.retention.dispatch(view, answers, self.config.rules.age, next, now, out);
    }

    fn heard(&mut self, name: &Name, now: Millis) {
        let gateway = self.gateways.entry(Arc::clone(name)).or_default();
        if gateway.answered + AGENT_SILENT <= now {
            gateway.in_touch = now;
            if self.config.rules.doubt {
                self.retention.doubt();
            }
        }
        let back = gateway.answered + HOLDER_SILENT <= now;
        gateway.answered = now;
        if back {
            // It may not have heard from those who decided meanwhile, and what it answers now is old.
            (gateway.reminded, gateway.reminding) = (0, None);
            // It decides without what waits here as soon as it may.
            self.retention.hurry(now);
        }
    }

    /// Members are the gateways that the slices or the facts say serve, unless a fact says otherwise.
    fn review(&mut self) {
        let mut members: Vec<Instance> = Vec::new();
        for fact in self.facts.iter().filter(|fact| fact.state == State::Serving) {
            members.push(fact.of.clone());
        }
        for (name, serving) in &self.slice {
            if *serving && self.facts.find(name).is_none() {
                members.push(Instance { name: Arc::clone(name), inst: 0 });
            }
        }
        let members = members.iter().map(Instance::member).collect();
        self.view = Arc::new(View::new(members, &self.config.seed));
    }
}

// === Losses ===

impl AgentSide {
    fn lose(&mut self, lost: &Instance, now: Millis) {
        if !self.losses.learn(lost, now) {
            return;
        }
        // Whoever is left may need what the lost one knew.
        self.remind_all(None);
        if !self.config.rules.replay {
            return;
        }
        let facts = &self.facts;
        let seed = &self.config.seed;
        // Who may have owned the key after its holder had it: the lost one only if it scores higher.
        let lies_there = |holder: &Instance, key: TraceKey| {
            let fact = facts.find(&holder.name);
            *holder == *lost
                || fact
                    .is_none_or(|fact| fact.of.inst != holder.inst || fact.state != State::Serving)
                || ring::prefers(seed, key, &lost.name, &holder.name)
        };
        let origin = if self.is_in_touch(lost, now) { Origin::Replay } else { Origin::Agent };
        self.stats.replayed += self.retention.lose(lost, lies_there, origin, now);
    }

    /// Who was on its way out and is back had either left or died on the way. Other gateways heard its last
    /// words, if it had any, and tell of a loss; we may have met the new one before we asked them.
    fn is_left_to_peers(&self, change: &Change) -> bool {
        let Change::Superseded { before, .. } = change else {
            return false;
        };
        let is_peer = |fact: &&Fact| fact.state == State::Serving && fact.of.name != before.of.name;
        before.state == State::Draining && self.facts.iter().any(|fact| is_peer(&fact))
    }

    /// Every gateway that serves has answered all the while, so each has waited for us before it decided.
    /// If one has not, what we send again may be new to it.
    fn is_in_touch(&self, lost: &Instance, now: Millis) -> bool {
        let serving = self.facts.iter().filter(|fact| fact.state == State::Serving);
        let mut others = serving.filter(|fact| fact.of.name != lost.name);
        let in_touch = |gateway: &Gateway| {
            gateway.answered + AGENT_SILENT > now && gateway.in_touch + AGENT_SILENT <= now
        };
        let is_in_touch = |name: &Name| self.gateways.get(name).is_some_and(in_touch);
        !self.config.rules.doubt || others.all(|fact| is_in_touch(&fact.of.name))
    }

    /// Gateways hold traces that are first seen from now on for so long.
    pub fn set_decision_wait(&mut self, wait: Millis, now: Millis) {
        self.waits.set(wait, RETAIN_AFTER_WAIT, now);
    }

    /// Forgets what is old enough, unless its holder is silent.
    fn forget(&mut self, now: Millis, out: &mut Vec<AgentAction>) {
        let rules = self.config.rules;
        let after = if rules.retain { RETAIN_AFTER_WAIT } else { RETAIN_SHORT };
        let old = now.saturating_sub(self.waits.longest(now) + after);
        let gateways = &self.gateways;
        let facts = &self.facts;
        let is_free = |piece: &Piece, holder: &Instance| {
            // One that is back may have been taken for dead, and not know it yet.
            let answers = gateways.get(&holder.name).is_some_and(|gateway| {
                gateway.answered + HOLDER_SILENT >= now && gateway.in_touch + AGENT_SILENT <= now
            });
            // One that is leaving may not get rid of it.
            let leaves = facts.find(&holder.name).is_some_and(|fact| fact.state > State::Serving);
            let settled = answers && !leaves;
            !rules.pin || settled || piece.born + RETAIN_PINNED_MAX < old
        };
        self.retention.forget(old, is_free, out);
    }

    fn make_room(&mut self, out: &mut Vec<AgentAction>) {
        let excess = self.retention.bytes().saturating_sub(self.config.retained_max);
        if excess > 0 {
            self.stats.unprotected += self.retention.evict(excess, out);
        }
        debug_assert!(
            self.retained_bytes() <= self.config.retained_max || !self.retention.holds_any(),
            "more is retained than there is room for"
        );
    }
}

// === Polls ===

impl AgentSide {
    fn poll_if_due(&mut self, now: Millis, out: &mut Vec<AgentAction>) {
        if self.retention.is_empty() || !self.config.rules.poll {
            return;
        }
        let owed = self.retention.owed();
        let done: Arc<[Instance]> = self
            .losses
            .iter()
            .map(|(lost, _)| lost)
            .filter(|lost| !owed.contains(lost))
            .cloned()
            .collect();
        let asked = self.gateways.values().any(|gateway| !gateway.unconfirmed.is_empty());
        let every = if asked { AGENT_CONFIRM } else { POLL };
        if now < self.polled + every && done.len() <= self.told_done {
            return;
        }
        (self.polled, self.told_done) = (now, done.len());
        let facts = if self.config.rules.gossip { self.facts.told() } else { Arc::default() };
        let poll = Poll {
            agent: Arc::clone(&self.config.name),
            done,
            facts,
            losses: self.losses.told(),
            heard: self.heard_lately(now),
            decided: Arc::default(),
        };
        let witnessed: Arc<[Decision]> = self.witnessed.last(0, now).collect();
        for to in self.known_gateways() {
            self.requests += 1;
            let req = Req(self.requests);
            let mut poll = poll.clone();
            let known = self.facts.find(&to).map_or(0, |fact| fact.of.inst);
            let gateway = self.gateways.entry(Arc::clone(&to)).or_default();
            poll.decided = std::mem::take(&mut gateway.unconfirmed);
            if gateway.reminded != known || known == 0 {
                gateway.reminding = Some(req);
                poll.decided = Arc::clone(&witnessed);
            }
            out.push(AgentAction::Poll { to, req, poll, deadline: now + REQUEST });
        }
        // Who is gone meanwhile waits for nothing.
        self.gateways.values_mut().for_each(|gateway| gateway.unconfirmed = Arc::default());
    }

    /// A gateway that answers an agent is alive, whatever other gateways hear of it.
    fn heard_lately(&self, now: Millis) -> Arc<[(Name, Millis)]> {
        let relays = self.config.rules.agent_relay;
        let heard = self.gateways.iter().filter(|(_, gateway)| relays && gateway.answered > 0);
        let age = |(name, gateway): (&Name, &Gateway)| (Arc::clone(name), now - gateway.answered);
        heard.map(age).filter(|(_, age)| *age < SUSPECT).collect()
    }

    /// All that may be alive: one that was taken for dead has to hear of it.
    fn known_gateways(&self) -> Vec<Name> {
        let alive = self.facts.iter().filter(|fact| fact.state < State::Gone);
        let mut names: Vec<Name> = alive.map(|fact| Arc::clone(&fact.of.name)).collect();
        let listed = self.slice.iter().filter(|(_, serving)| **serving);
        names.extend(listed.map(|(name, _)| Arc::clone(name)));
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests;
