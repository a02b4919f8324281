//! What several messages are made of.

use std::sync::Arc;

use ringtail_engine::Millis;
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::facts::{self, Fact, Name};
use ringtail_engine::ownership::message;
use ringtail_engine::ownership::timers::{FACTS_MAX, LOSSES_MAX};

use super::{DECISIONS_MAX, NAME_BYTES_MAX, Wrong};
use crate::peer::{Decision, Heard, Instance, Member, Origin, Role, State, Verdict};

pub(super) fn bounded(what: &'static str, count: usize, max: usize) -> Result<(), Wrong> {
    if count > max { Err(Wrong::TooMany { what, count, max }) } else { Ok(()) }
}

pub(super) fn name_of(id: &str) -> Result<Name, Wrong> {
    match id.len() {
        1..=NAME_BYTES_MAX => Ok(id.into()),
        other => Err(Wrong::Id(other)),
    }
}

pub(super) fn sender(from: Option<&Member>) -> Result<facts::Instance, Wrong> {
    let from = from.ok_or(Wrong::Missing("sender"))?;
    instance_of(&from.id, from.inst)
}

pub(super) fn instance_of(id: &str, inst: u64) -> Result<facts::Instance, Wrong> {
    Ok(facts::Instance { name: name_of(id)?, inst })
}

pub(super) fn instance(instance: &facts::Instance) -> Instance {
    Instance { id: instance.name.as_ref().to_owned(), inst: instance.inst }
}

/// A gateway as others announce it.
pub fn member(fact: &Fact) -> Member {
    Member {
        id: fact.of.name.as_ref().to_owned(),
        inst: fact.of.inst,
        state: State::from(fact.state).into(),
        role: Role::Gateway.into(),
    }
}

/// A state that we do not know is a newer peer's affair.
pub(super) fn facts_of(members: &[Member]) -> Result<Arc<[Fact]>, Wrong> {
    bounded("facts", members.len(), FACTS_MAX)?;
    let fact = |member: &Member| {
        let state = known_state(member.state())?;
        Some(instance_of(&member.id, member.inst).map(|of| Fact { of, state }))
    };
    members.iter().filter_map(fact).collect()
}

pub(super) fn losses_of(losses: &[Instance]) -> Result<Arc<[facts::Instance]>, Wrong> {
    bounded("losses", losses.len(), LOSSES_MAX)?;
    losses.iter().map(|lost| instance_of(&lost.id, lost.inst)).collect()
}

pub(super) fn heard(heard: &[(Name, Millis)]) -> Vec<Heard> {
    let of = |(name, age): &(Name, Millis)| Heard { id: name.as_ref().to_owned(), age: *age };
    heard.iter().map(of).collect()
}

pub(super) fn heard_of(heard: &[Heard]) -> Result<Arc<[(Name, Millis)]>, Wrong> {
    bounded("names", heard.len(), FACTS_MAX)?;
    heard.iter().map(|heard| Ok((name_of(&heard.id)?, heard.age))).collect()
}

pub(super) fn decision(decision: &message::Decision) -> Decision {
    Decision {
        key: decision.key.0,
        verdict: Some(decision.verdict.into()),
        age: decision.age,
        exported: decision.exported,
    }
}

pub(super) fn decision_of(decision: &Decision) -> message::Decision {
    message::Decision {
        key: TraceKey(decision.key),
        verdict: decision.verdict.unwrap_or_default().into(),
        age: decision.age,
        exported: decision.exported,
    }
}

pub(super) fn decision_list(decisions: &[Decision]) -> Result<Vec<message::Decision>, Wrong> {
    bounded("decisions", decisions.len(), DECISIONS_MAX)?;
    Ok(decisions.iter().map(decision_of).collect())
}

fn known_state(state: State) -> Option<facts::State> {
    match state {
        State::Unspecified => None,
        State::Joining => Some(facts::State::Joining),
        State::Serving => Some(facts::State::Serving),
        State::Draining => Some(facts::State::Draining),
        State::Gone => Some(facts::State::Gone),
        State::Left => Some(facts::State::Left),
    }
}

impl From<facts::State> for State {
    fn from(state: facts::State) -> Self {
        match state {
            facts::State::Joining => Self::Joining,
            facts::State::Serving => Self::Serving,
            facts::State::Draining => Self::Draining,
            facts::State::Gone => Self::Gone,
            facts::State::Left => Self::Left,
        }
    }
}

impl From<message::Origin> for Origin {
    fn from(origin: message::Origin) -> Self {
        match origin {
            message::Origin::Client => Self::Client,
            message::Origin::Agent => Self::Agent,
            message::Origin::Replay => Self::Replay,
        }
    }
}

impl From<Origin> for message::Origin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Client => Self::Client,
            Origin::Agent => Self::Agent,
            Origin::Replay => Self::Replay,
        }
    }
}

impl From<message::Verdict> for Verdict {
    fn from(verdict: message::Verdict) -> Self {
        Self { keep: verdict.keep, note: verdict.note }
    }
}

impl From<Verdict> for message::Verdict {
    fn from(verdict: Verdict) -> Self {
        Self { keep: verdict.keep, note: verdict.note }
    }
}
