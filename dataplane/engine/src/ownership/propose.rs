//! Deciding: the next choices hear of a decision before anything is exported.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, By, Message};
use super::asked::{Asked, Confided, Group, Heard, Keys, Proposal, Round, proposed};
use super::facts::{Name, State};
use super::message::{Agreement, Decision, Decisions, Origin, Req, Verdict};
use super::outbox::Why;
use super::stand::{Stand, Witnesses};
use super::timers::{AGENT_CONFIRMS, BACK_OFF, DECISIONS_PER_MESSAGE, LAST_WORDS, REQUEST};
use super::traces::{Phase, Tentative, Trace, Traces};
use crate::Millis;
use crate::key::TraceKey;

/// A trace that is due, with what its driver has kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The trace.
    pub key: TraceKey,
    /// How it was judged.
    pub verdict: Verdict,
    /// When its first span was taken in by anybody.
    pub first: Millis,
    /// The least of its spans' origins.
    pub origin: Origin,
}

impl Due {
    /// What is known of the trace now.
    fn trace(&self, known: Option<Trace>, inst: u64) -> Trace {
        let Self { first, origin, .. } = *self;
        let plain = Trace { first, bytes: 0, phase: Phase::Open, tentative: None, origin, inst };
        let trace = known.unwrap_or(plain);
        Trace { first: trace.first.min(first), origin: trace.origin.min(origin), ..trace }
    }
}

impl Traces {
    /// These traces are due and were judged. Only traces for which [`Stand::may_decide`] and
    /// [`Stand::owns`] hold should be among them; a trace for which they do not is put back.
    pub fn on_due(&mut self, stand: &Stand, due: &[Due], now: Millis, out: &mut Vec<Action>) {
        for due in due.chunks(DECISIONS_PER_MESSAGE) {
            self.on_round(stand, due, now, out);
        }
    }

    fn on_round(&mut self, stand: &Stand, due: &[Due], now: Millis, out: &mut Vec<Action>) {
        let of = Round { req: self.next_req(), since: now, inst: stand.me.inst };
        let may_decide = stand.may_decide(now);
        let mut groups: BTreeMap<Witnesses, Vec<Asked>> = BTreeMap::new();
        let mut keys = self.proposals.keys();
        for due in due {
            if self.is_asked(due.key) || !keys.insert(due.key) {
                continue;
            }
            let known = self.held.get(&due.key).copied();
            let mut trace = due.trace(known, of.inst);
            let (owns, witnesses) = stand.owned(due.key);
            if !may_decide || !owns || !stand.is_found(trace.first, now) {
                out.push(Action::PutBack { key: due.key, at: now + BACK_OFF });
                continue;
            }
            let fresh = Tentative { verdict: due.verdict, since: now };
            let mut tentative = trace.tentative.unwrap_or(fresh);
            if !stand.rules.sticky {
                tentative.verdict = due.verdict;
            }
            let decision = (due.key, tentative.verdict);
            let nobody = witnesses.places().next().is_none();
            let overdue = stand.is_overdue(tentative.since, now);
            let unsure = is_unsure(stand, trace.first);
            if overdue || !stand.rules.propose || (nobody && !stand.confides) {
                self.stats.decided_alone += u64::from(stand.view.len() > 1);
                self.leave(due.key);
                self.commit(decision, unsure, now, out);
                continue;
            }
            trace.tentative = Some(tentative);
            trace.phase = Phase::Proposed(of.req);
            if known.is_some() || nobody {
                self.held.insert(due.key, trace);
            }
            let (key, verdict) = decision;
            if nobody {
                // No other gateway can be asked: the decision waits until an agent knows it.
                let confided = Confided { req: of.req, verdict, since: now, unsure };
                self.proposals.confided.insert(key, confided);
            } else {
                let asked = Asked { key, verdict, first: trace.first, origin: trace.origin };
                groups.entry(witnesses).or_default().push(asked);
            }
        }
        self.decided.enter();
        self.propose(stand, (of, groups, keys), now, out);
    }

    fn propose(
        &mut self,
        stand: &Stand,
        (of, groups, keys): (Round, BTreeMap<Witnesses, Vec<Asked>>, Keys),
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let req = of.req;
        let places: BTreeSet<usize> = groups.keys().flat_map(|of| of.places()).collect();
        let name = |place: &usize| -> Name { stand.view.members()[*place].id.as_str().into() };
        let witnesses: Vec<_> = places.iter().map(|place| (name(place), Heard::NotYet)).collect();
        for (place, (to, _)) in places.iter().zip(&witnesses) {
            let told = groups.iter().filter(|(of, _)| of.places().any(|of| of == *place));
            let told = told.flat_map(|(_, asked)| asked);
            let mut list = self.proposals.list();
            list.extend(told.map(|asked| proposed(asked.key, asked.verdict)));
            let along = self.outbox.take_along(to, req, now);
            list.extend(self.decided.exported(&along, now));
            let message =
                Message::Decisions(Decisions { from: stand.me.clone(), propose: true, list });
            out.push(Action::Send { to: to.clone(), req, message, deadline: now + REQUEST });
        }
        let number = |place| places.iter().position(|known| *known == place);
        let group = |(of, asked): (Witnesses, Vec<_>)| Group {
            witnesses: of.places().filter_map(number).collect(),
            asked,
        };
        let groups = groups.into_iter().map(group).collect();
        self.proposals.begin(Proposal { witnesses, groups, keys, noted: false, of });
    }

    /// Takes back the memory of what was sent.
    pub fn recycle(&mut self, told: Decisions) {
        self.proposals.recycle_list(told.list);
    }

    /// A witness answered, or a member that was told again.
    pub fn on_agreement(
        &mut self,
        stand: &Stand,
        req: Req,
        answer: &Agreement,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        if self.outbox.answered(&answer.from.name, req) {
            self.tell(stand, now, out);
        }
        self.on_known(stand, &answer.known, now, out);
        for key in &answer.refused {
            self.note_asked(*key);
            if self.is_asked_in(*key, req) {
                self.withdraw(req, *key);
                self.stats.turned_down += 1;
                self.reopen(*key, req, now, out);
            }
        }
        self.hear(stand, &answer.from.name, req, Heard::Agreed, now, out);
    }

    pub(super) fn proposal_failed(
        &mut self,
        stand: &Stand,
        to: &str,
        req: Req,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.hear(stand, to, req, Heard::Failed, now, out);
    }

    /// When all witnesses of a decision have answered or failed: decided if one has agreed.
    fn hear(
        &mut self,
        stand: &Stand,
        from: &str,
        req: Req,
        heard: Heard,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let Some(proposal) = self.proposals.open.get_mut(&req) else {
            return;
        };
        for (_, said) in proposal.witnesses.iter_mut().filter(|(name, _)| **name == *from) {
            *said = heard;
        }
        let Proposal { of, noted, .. } = *proposal;
        for (agreed, mut asked) in proposal.take_answered() {
            if noted {
                asked.retain(|asked| self.is_asked_in(asked.key, of.req));
            }
            self.carry_out(stand, of, (agreed, &asked), now, out);
        }
        self.decided.enter();
        self.proposals.end_if_done(req);
    }

    /// The witnesses of these proposals have answered or failed.
    fn carry_out(
        &mut self,
        stand: &Stand,
        of: Round,
        (agreed, asked): (bool, &[Asked]),
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        for asked in asked {
            let Asked { key, verdict, first, .. } = *asked;
            if agreed {
                let first = self.leave(key).map_or(first, |trace| trace.first);
                self.commit((key, verdict), is_unsure(stand, first), now, out);
            } else {
                self.stats.unanswered += 1;
                self.note_failed(asked, of);
                self.reopen(key, of.req, now, out);
            }
        }
    }

    /// Notes a decision on a trace that is not held any more;
    /// [`DecidedTraces::enter`](super::decided::DecidedTraces::enter) is to follow.
    fn commit(
        &mut self,
        (key, verdict): (TraceKey, Verdict),
        unsure: bool,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.stats.decided += 1;
        self.stats.decided_unsure += u64::from(unsure);
        self.decided.make(key, verdict, unsure, now);
        out.push(Action::Settle { key, verdict, by: By::Us });
    }

    /// A proposal came to nothing: the trace is tried again a little later.
    fn reopen(&mut self, key: TraceKey, req: Req, now: Millis, out: &mut Vec<Action>) {
        let proposed = |phase| phase == Phase::Proposed(req);
        if let Some(trace) = self.held.get_mut(&key).filter(|trace| proposed(trace.phase)) {
            trace.phase = Phase::Open;
            out.push(Action::PutBack { key, at: now + BACK_OFF });
        }
    }

    /// The view changed: all that is proposed is open again, whosever it is.
    pub(super) fn take_back(&mut self, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        let open = std::mem::take(&mut self.proposals.open).into_iter();
        let confided = std::mem::take(&mut self.proposals.confided).into_iter();
        let asked = open.flat_map(|(req, proposal)| {
            let asked = proposal.groups.into_iter().flat_map(|group| group.asked);
            asked.map(move |asked| (asked.key, req))
        });
        for (key, req) in asked.chain(confided.map(|(key, confided)| (key, confided.req))) {
            if !self.is_asked_in(key, req) {
                continue;
            }
            self.stats.taken_back += u64::from(!stand.owns(key));
            self.reopen(key, req, now, out);
        }
    }
}

/// Whether spans of a trace that began then may be missing.
fn is_unsure(stand: &Stand, first: Millis) -> bool {
    stand.rules.doubt && (!stand.sure || first < stand.cold.since)
}

// === Agents as witnesses ===

impl Traces {
    /// What agents are told as witnesses: decisions that wait for their word, with an age of nothing, and
    /// those of the last `lately` milliseconds.
    pub fn last_decisions(&self, lately: Millis, now: Millis) -> impl Iterator<Item = Decision> {
        let waiting = self.proposals.confided.iter();
        let waiting = waiting.map(|(key, confided)| proposed(*key, confided.verdict));
        let made = self.decided.last(now.saturating_sub(lately), now);
        let made = made.map(|decision| Decision { age: decision.age.max(1), ..decision });
        waiting.chain(made)
    }

    /// An agent remembers these decisions: ours that waited for it, and some that were made before us.
    pub fn on_reminded(&mut self, decided: &[Decision], now: Millis, out: &mut Vec<Action>) {
        for decision in decided {
            let confided = self.proposals.confided.get(&decision.key).copied();
            match confided.filter(|confided| confided.verdict.keep == decision.verdict.keep) {
                Some(Confided { verdict, unsure, .. }) => {
                    self.release(decision.key);
                    self.commit((decision.key, verdict), unsure, now, out);
                    self.decided.enter();
                }
                None => self.learn(None, decision, now, out),
            }
        }
    }

    /// Agents that do not answer are asked again with what has come meanwhile.
    pub(super) fn ask_agents_again(&mut self, now: Millis, out: &mut Vec<Action>) {
        let confided = self.proposals.confided.iter();
        let late = confided.filter(|(_, confided)| confided.since + AGENT_CONFIRMS < now);
        let late: Vec<(TraceKey, Req)> = late.map(|(key, late)| (*key, late.req)).collect();
        for (key, req) in late {
            self.proposals.confided.remove(&key);
            self.stats.unanswered += 1;
            self.reopen(key, req, now, out);
        }
    }
}

// === Telling again ===

impl Traces {
    /// The view changed: new owners, and new witnesses of what is ours, hear of remembered decisions. Who
    /// leaves may be the only one who heard of a decision before its owner ends, so it tells all who may
    /// be asked next.
    pub(super) fn retell(&mut self, before: &Stand, stand: &Stand, now: Millis) {
        let (old, new) = (&before.view, &stand.view);
        let choices = if stand.rules.third { 3 } else { 2 };
        let leaves = stand.state == State::Draining && stand.rules.last_words;
        let lately = |known: Decision| known.age < LAST_WORDS;
        for key in self.decided.keys() {
            let knew: Vec<_> =
                old.ranked(key).take(choices).map(|place| &old.members()[place]).collect();
            let mut ranked = new.ranked(key).map(|place| &new.members()[place]);
            let Some(owner) = ranked.next() else {
                return;
            };
            let ours = owner.id == *stand.me.name;
            if !ours && knew.first() != Some(&owner) {
                self.outbox.push(&owner.id, key, Why::Owner);
                self.stats.retold += 1;
            }
            let fresh = leaves && self.decided.decision(key, now).is_some_and(lately);
            // What we say while we leave is said once.
            let all = fresh && before.state != State::Draining;
            if fresh || ours && stand.rules.restream {
                let told = ranked.take(choices - 1).filter(|member| all || !knew.contains(member));
                for witness in told {
                    self.outbox.push(&witness.id, key, Why::Witness);
                    self.stats.retold += 1;
                }
            }
        }
    }

    /// Sends what waits in the outbox.
    pub(super) fn tell(&mut self, stand: &Stand, now: Millis, out: &mut Vec<Action>) {
        for to in self.outbox.ready(now) {
            let req = self.next_req();
            let keys = self.outbox.take(&to, req);
            let list = keys.iter().filter_map(|key| self.decided.decision(*key, now)).collect();
            let message = Decisions { from: stand.me.clone(), propose: false, list };
            out.push(Action::Send {
                to,
                req,
                message: Message::Decisions(message),
                deadline: now + REQUEST,
            });
        }
    }
}
