//! Decisions of which others are asked, and what has to be known of their traces meanwhile.
//!
//! In quiet times every trace comes by here, in a round with thousands of others, and nothing else ever
//! happens to it. So it is not entered into the table of traces for that: it stands in the list of its round,
//! whose set of keys says whether it does. Once more is to be known of one of them, the whole round is noted
//! in the table, and the table says from then on which of its decisions are still asked about.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasherDefault;

use super::decided::{ByKey, KeyHasher};
use super::facts::Name;
use super::message::{Decision, Origin, Req, Verdict};
use super::stand::Stand;
use super::traces::{Phase, Tentative, Trace, Traces};
use crate::Millis;
use crate::key::TraceKey;

/// Decisions of which the witnesses are asked.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    pub(super) open: BTreeMap<Req, Proposal>,
    /// Those that only agents can witness: told in the answers to their polls, confirmed by the next ones.
    pub(super) confided: BTreeMap<TraceKey, Confided>,
    /// For the keys of the next round: those of the last one had their memory from here.
    spare: Keys,
    /// For the lists that the witnesses of the next round are told.
    lists: Vec<Vec<Decision>>,
}

/// Lists that wait for reuse: one for each witness of a decision, each of one message, 256 KiB.
const SPARE_LISTS: usize = 2;

/// The keys of a round; at most as many as one message has decisions.
pub(super) type Keys = HashSet<TraceKey, BuildHasherDefault<KeyHasher>>;

/// A decision that waits for an agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confided {
    pub(super) req: Req,
    pub(super) verdict: Verdict,
    pub(super) since: Millis,
    pub(super) unsure: bool,
}

/// A decision of which witnesses are asked, with what its trace needs if it comes to nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) key: TraceKey,
    pub(super) verdict: Verdict,
    pub(super) first: Millis,
    pub(super) origin: Origin,
}

/// A round of questions: each witness is asked once, of all decisions that it is a witness of.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) witnesses: Vec<(Name, Heard)>,
    pub(super) groups: Vec<Group>,
    /// All that it asks about, among others: what was due with them, or is not asked about any more.
    pub(super) keys: Keys,
    /// Whether all of it is in the table of traces, or was.
    pub(super) noted: bool,
    pub(super) of: Round,
}

/// What all decisions of a round have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) req: Req,
    pub(super) since: Millis,
    /// As which instance we ask.
    pub(super) inst: u64,
}

/// Decisions with the same witnesses, which wait for no others.
#[derive(Debug)]
pub(super) struct Group {
    /// Places in the list of those that are asked.
    pub(super) witnesses: Vec<usize>,
    pub(super) asked: Vec<Asked>,
}

/// What a witness said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    NotYet,
    Agreed,
    Failed,
}

impl Asked {
    /// As it would be noted.
    fn trace(&self, of: Round) -> Trace {
        let Self { verdict, first, origin, .. } = *self;
        let tentative = Some(Tentative { verdict, since: of.since });
        Trace { first, bytes: 0, phase: Phase::Proposed(of.req), tentative, origin, inst: of.inst }
    }
}

impl Proposal {
    fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.groups.iter().flat_map(|group| &group.asked)
    }

    /// Enters all that it asks about into the table of traces, once.
    fn note_in(&mut self, held: &mut ByKey<Trace>) {
        if std::mem::replace(&mut self.noted, true) {
            return;
        }
        for asked in self.asked() {
            held.entry(asked.key).or_insert_with(|| asked.trace(self.of));
        }
    }

    /// Takes out the groups of which all witnesses have answered or failed, and whether one has agreed.
    pub(super) fn take_answered(&mut self) -> Vec<(bool, Vec<Asked>)> {
        let Self { witnesses, groups, .. } = self;
        let said = |place: &usize| witnesses[*place].1;
        let answered = groups.extract_if(.., |group| {
            group.witnesses.iter().all(|witness| said(witness) != Heard::NotYet)
        });
        let agreed =
            |group: &Group| group.witnesses.iter().any(|place| said(place) == Heard::Agreed);
        answered.map(|group| (agreed(&group), group.asked)).collect()
    }
}

impl Proposals {
    /// A set for the keys of a round, empty.
    pub(super) fn keys(&mut self) -> Keys {
        std::mem::take(&mut self.spare)
    }

    /// A list of decisions, empty.
    pub(super) fn list(&mut self) -> Vec<Decision> {
        self.lists.pop().unwrap_or_default()
    }

    /// Takes back the memory of a list that was sent: to have it cleared anew for every round costs more than
    /// to fill it.
    pub(super) fn recycle_list(&mut self, mut list: Vec<Decision>) {
        if self.lists.len() < SPARE_LISTS {
            list.clear();
            self.lists.push(list);
        }
    }

    /// Begins a round, unless nobody is asked about anything.
    pub(super) fn begin(&mut self, proposal: Proposal) {
        if proposal.groups.is_empty() {
            self.recycle(proposal.keys);
        } else {
            self.open.insert(proposal.of.req, proposal);
        }
    }

    /// Ends a round of which nothing is left.
    pub(super) fn end_if_done(&mut self, req: Req) {
        if self.open.get(&req).is_some_and(|proposal| proposal.groups.is_empty())
            && let Some(proposal) = self.open.remove(&req)
        {
            self.recycle(proposal.keys);
        }
    }

    fn recycle(&mut self, mut keys: Keys) {
        if keys.capacity() > self.spare.capacity() {
            keys.clear();
            self.spare = keys;
        }
    }

    /// The round in which the trace is asked about, of those that are not noted.
    fn find(&self, key: TraceKey) -> Option<Req> {
        let may_have = |proposal: &&Proposal| !proposal.noted && proposal.keys.contains(&key);
        let mut may_have = self.open.values().filter(may_have);
        let has = |proposal: &&Proposal| proposal.asked().any(|asked| asked.key == key);
        may_have.find(has).map(|proposal| proposal.of.req)
    }

    /// Bytes of the rounds that are open, 40 for each decision, and of lists that wait.
    pub(super) fn footprint(&self) -> usize {
        let asked = self.open.values().map(|proposal| proposal.keys.capacity());
        let lists = self.lists.iter().map(Vec::capacity);
        asked.sum::<usize>() * (size_of::<Asked>() + size_of::<TraceKey>())
            + lists.sum::<usize>() * size_of::<Decision>()
    }
}

impl Traces {
    /// Whether witnesses are asked about anything now.
    pub fn asks(&self) -> bool {
        !self.proposals.open.is_empty()
    }

    /// Whether witnesses are asked about the trace now.
    pub(super) fn is_asked(&self, key: TraceKey) -> bool {
        match self.held.get(&key) {
            Some(trace) => trace.phase != Phase::Open,
            None => self.proposals.find(key).is_some(),
        }
    }

    /// Sees to it that a trace of which the witnesses are asked is noted, if it is one.
    pub(super) fn note_asked(&mut self, key: TraceKey) {
        if !self.proposals.open.is_empty()
            && !self.holds(key)
            && let Some(req) = self.proposals.find(key)
        {
            self.note_round(req);
        }
    }

    /// The same of all that a round asks about.
    pub(super) fn note_round(&mut self, req: Req) {
        if let Some(proposal) = self.proposals.open.get_mut(&req) {
            proposal.note_in(&mut self.held);
        }
    }

    /// The same of all rounds.
    pub(super) fn note_all_asked(&mut self) {
        self.proposals.open.values_mut().for_each(|proposal| proposal.note_in(&mut self.held));
    }

    /// Whether this round asks about the trace, which is noted.
    pub(super) fn is_asked_in(&self, key: TraceKey, req: Req) -> bool {
        self.held.get(&key).is_some_and(|trace| trace.phase == Phase::Proposed(req))
    }

    /// Notes a trace of a round that came to nothing for it.
    pub(super) fn note_failed(&mut self, asked: &Asked, of: Round) {
        self.held.entry(asked.key).or_insert_with(|| asked.trace(of));
    }

    /// Whether a proposal is taken: it comes from the owner as we see it, and is not ours to make.
    pub(super) fn agrees(&self, stand: &Stand, proposer: Option<usize>, key: TraceKey) -> bool {
        !self.is_asked(key) && (!stand.rules.agree || stand.takes_from(proposer, key))
    }

    /// Takes a trace out of what is undecided; whether it was there.
    pub(super) fn release(&mut self, key: TraceKey) -> bool {
        self.note_asked(key);
        if let Some(Trace { phase: Phase::Proposed(req), .. }) = self.held.get(&key).copied() {
            self.withdraw(req, key);
        }
        self.leave(key).is_some()
    }

    /// The trace, which is noted, is not asked about any more, whatever the witnesses say.
    pub(super) fn withdraw(&mut self, req: Req, key: TraceKey) {
        self.note_round(req);
        if self.proposals.confided.get(&key).is_some_and(|confided| confided.req == req) {
            self.proposals.confided.remove(&key);
        }
    }

    /// The same of a trace that is not proposed, or not any more; what was noted of it.
    pub(super) fn leave(&mut self, key: TraceKey) -> Option<Trace> {
        let trace = self.held.remove(&key)?;
        self.foreign.remove(key);
        Some(trace)
    }
}

/// As it is proposed.
pub(super) fn proposed(key: TraceKey, verdict: Verdict) -> Decision {
    Decision { key, verdict, age: 0, exported: false }
}
