//! Between the engine's messages and those on the wire. What a peer leaves out means what it meant before the
//! field existed; what it sends too much of is refused.

use std::collections::BTreeMap;

use ringtail_engine::Millis;
use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::ownership::facts::{self, Fact};
use ringtail_engine::ownership::message::{
    self, Agreement, Decision, Decisions, Delivery, Hello, HelloAnswer, Poll, PollAnswer, Receipt,
    Verdict,
};
use ringtail_engine::ownership::timers::HOPS_MAX;
use ringtail_engine::ring::RING_VERSION;
use ringtail_engine::shard::custody::{self, Steady};

use super::{
    Asked, DecideRequest, DecideResponse, DeliverRequest, DeliverResponse, FreshDecisions,
    HelloRequest, HelloResponse, Member, Origin, Outcome, Part, PollRequest, PollResponse, Role,
    Status,
};

pub use self::parts::member;
use self::parts::{
    bounded, decision, decision_list, decision_of, facts_of, heard, heard_of, instance,
    instance_of, losses_of, sender,
};

mod parts;
#[cfg(test)]
mod tests;

/// Ids are host names at most.
const NAME_BYTES_MAX: usize = 253;
/// Bytes of a key in a list of them.
const KEY_BYTES: usize = size_of::<u64>();
/// Decisions in one message: eight times what a gateway tells at a time, since an agent tells a new gateway
/// all that it remembers of the last minute. 2 MiB in memory.
pub const DECISIONS_MAX: usize = 1 << 16;
/// Traces that a delivery describes one by one, 64 parcels full, or names: 3 MiB in memory.
pub const PARTS_MAX: usize = 1 << 16;

/// Why a message of a peer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A list is longer than any peer of ours makes it.
    #[error("{count} {what} in one message, at most {max} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A field that every peer of ours sends is not there.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// An id is empty or longer than a host name.
    #[error("an id has {0} bytes; ids have 1 to {NAME_BYTES_MAX}")]
    Id(usize),
    /// A list of keys ends within one.
    #[error("{0} bytes are no list of keys of {KEY_BYTES} bytes each")]
    Keys(usize),
}

/// What a delivery says of its traces, beside their spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    origin: Option<message::Origin>,
    age: Millis,
    /// How often gateways have passed the spans on.
    pub hops: u8,
    /// Whether the sender has delivered the spans before.
    pub again: bool,
    /// Whether span metrics count them: they come into the fleet here, and for the first time.
    pub counts: bool,
    /// Traces of which something else is known, by key.
    parts: Vec<message::Part>,
    /// If any: the only ones meant, sorted.
    only: Vec<TraceKey>,
}

// === impl Manner ===

impl Manner {
    /// Of a delivery that describes none of its traces.
    pub fn uniform(origin: message::Origin) -> Self {
        Self { origin: Some(origin), counts: true, ..Self::default() }
    }

    /// Of a delivery on the wire.
    ///
    /// # Errors
    /// When a list is too long.
    pub fn of(request: &DeliverRequest) -> Result<Self, Wrong> {
        bounded("traces", request.parts.len().max(request.only.len()), PARTS_MAX)?;
        let mut parts: Vec<message::Part> = request
            .parts
            .iter()
            .map(|part| message::Part {
                key: TraceKey(part.key),
                age: part.age,
                bytes: 0,
                origin: part.origin().into(),
                tentative: part.tentative.map(Into::into),
            })
            .collect();
        parts.sort_unstable_by_key(|part| part.key);
        let mut only: Vec<TraceKey> = request.only.iter().copied().map(TraceKey).collect();
        only.sort_unstable();
        let hops = u8::try_from(request.hops).unwrap_or(HOPS_MAX).min(HOPS_MAX);
        let (origin, age, again) = (Some(request.origin().into()), request.age, request.again);
        // A gateway has counted what it passes on or hands over, or has found it counted.
        let of_gateway = request.from.as_ref().map(Member::role) == Some(Role::Gateway);
        let counts = !(of_gateway || again || request.counted);
        Ok(Self { origin, age, hops, again, counts, parts, only })
    }

    /// Whether the same is known of all traces.
    pub fn is_plain(&self) -> bool {
        self.parts.is_empty() && self.only.is_empty()
    }

    /// As a shard wants it: which traces need not be asked for.
    pub fn at(&self, now: Millis) -> custody::Manner {
        let origin = self.origin.filter(|_| self.is_plain());
        let steady = origin.map(Steady::new).unwrap_or_default();
        custody::Manner { steady, first: now.saturating_sub(self.age), counts: self.counts }
    }

    /// What is known of a trace with so many bytes of spans; `None` when it is not meant.
    pub fn part(&self, key: TraceKey, bytes: u32) -> Option<message::Part> {
        if !self.only.is_empty() && self.only.binary_search(&key).is_err() {
            return None;
        }
        let told = self.parts.binary_search_by_key(&key, |part| part.key).ok();
        let uniform = message::Part {
            key,
            age: self.age,
            bytes,
            origin: self.origin.unwrap_or(message::Origin::Client),
            tentative: None,
        };
        Some(told.map_or(uniform, |place| message::Part { bytes, ..self.parts[place] }))
    }
}

// === Hello ===

/// A greeting to another gateway.
pub fn hello(hello: &Hello, seed: &KeySeed) -> HelloRequest {
    let status = &hello.status;
    HelloRequest {
        from: Some(own_member(status)),
        ring_versions: vec![RING_VERSION],
        digest: status.digest,
        status: Some(self::status(status)),
        asked: Some(asked(hello.asked)),
        seed_id: seed.id(),
        unprotected_spans: 0,
    }
}

/// A greeting as the engine wants it; `None` from a process that only asks who we are.
///
/// # Errors
/// When it is no greeting of ours.
pub fn hello_of(request: &HelloRequest) -> Result<Option<Hello>, Wrong> {
    let Some(status) = &request.status else { return Ok(None) };
    let from = request.from.as_ref().ok_or(Wrong::Missing("sender"))?;
    let status = status_of(from, request.digest, status)?;
    Ok(Some(Hello { status, asked: request.asked.map_or(NEVER, asked_of) }))
}

/// Adds what the engine answers to what everybody is answered.
pub fn answer_hello(answer: &HelloAnswer, plain: HelloResponse) -> HelloResponse {
    HelloResponse {
        member: Some(own_member(&answer.status)),
        digest: answer.status.digest,
        status: Some(status(&answer.status)),
        asked: Some(asked(answer.asked)),
        ..plain
    }
}

/// The answer to a greeting as the engine wants it. One that comes without a status is from a peer that
/// hands nothing over and remembers nothing: it agrees when its view is ours.
///
/// # Errors
/// When it is no answer of ours.
pub fn hello_answer_of(
    response: &HelloResponse,
    sent: message::Asked,
) -> Result<HelloAnswer, Wrong> {
    let member = response.member.as_ref().ok_or(Wrong::Missing("member"))?;
    let told = response.status.as_ref();
    let alone = Status { complete: true, facts: vec![member.clone()], ..Status::default() };
    let status = status_of(member, response.digest, told.unwrap_or(&alone))?;
    let asked = response.asked.filter(|_| told.is_some()).map_or(sent, asked_of);
    Ok(HelloAnswer { status, asked })
}

const NEVER: message::Asked = message::Asked { epoch: 0, at: 0 };

fn asked(asked: message::Asked) -> Asked {
    Asked { epoch: asked.epoch, at: asked.at }
}

fn asked_of(asked: Asked) -> message::Asked {
    message::Asked { epoch: asked.epoch, at: asked.at }
}

fn own_member(status: &message::Status) -> Member {
    let own = status.facts.iter().find(|fact| fact.of == status.from);
    let state = own.map_or(facts::State::Joining, |fact| fact.state);
    member(&Fact { of: status.from.clone(), state })
}

fn status(status: &message::Status) -> Status {
    Status {
        complete: status.complete,
        cold: status.cold,
        facts: status.facts.iter().map(member).collect(),
        losses: status.losses.iter().map(instance).collect(),
        heard: heard(&status.heard),
    }
}

fn status_of(from: &Member, digest: u64, status: &Status) -> Result<message::Status, Wrong> {
    Ok(message::Status {
        from: instance_of(&from.id, from.inst)?,
        digest,
        complete: status.complete,
        cold: status.cold,
        facts: facts_of(&status.facts)?,
        losses: losses_of(&status.losses)?,
        heard: heard_of(&status.heard)?,
    })
}

// === Deliver ===

/// What goes before the spans of a delivery, without them: all of its traces if `all`, else those named.
pub fn delivery(delivery: &Delivery, from: Member, digest: u64, all: bool) -> DeliverRequest {
    // Most of what is passed on is alike; then nothing is said of single traces.
    let first = delivery.parts.first().copied();
    let (origin, age) = first.map_or((message::Origin::Client, 0), |part| (part.origin, part.age));
    let alike =
        |part: &&message::Part| (part.origin, part.age, part.tentative) == (origin, age, None);
    let parts = delivery.parts.iter().filter(|part| !alike(part));
    let part = |part: &message::Part| Part {
        key: part.key.0,
        age: part.age,
        origin: Origin::from(part.origin).into(),
        tentative: part.tentative.map(Into::into),
    };
    let only = delivery.parts.iter().filter(|_| !all).map(|part| part.key.0);
    DeliverRequest {
        from: Some(from),
        digest,
        origin: Origin::from(origin).into(),
        age,
        hops: delivery.hops.into(),
        parts: parts.map(part).collect(),
        only: only.collect(),
        wants_outcomes: true,
        again: false,
        counted: false,
        spans: bytes::Bytes::new(),
    }
}

/// Adds to an answer what became of traces that are not simply held by who answers.
pub fn add_outcomes(
    response: &mut DeliverResponse,
    outcomes: impl IntoIterator<Item = (TraceKey, message::Outcome)>,
) {
    let mut held: BTreeMap<Option<facts::Instance>, Vec<u64>> = BTreeMap::new();
    for (key, outcome) in outcomes {
        match outcome {
            message::Outcome::Held(holder) => held.entry(Some(holder)).or_default().push(key.0),
            message::Outcome::Refused => held.entry(None).or_default().push(key.0),
            message::Outcome::Decided(known) => response.decided.push(decision(&known)),
        }
    }
    let outcome =
        |(holder, keys): (Option<_>, _)| Outcome { holder: holder.as_ref().map(instance), keys };
    response.outcomes.extend(held.into_iter().map(outcome));
}

/// The answer to a delivery of these traces, in their order. Who names no outcomes holds all of them.
///
/// # Errors
/// When it is no answer of ours.
pub fn receipt_of(
    response: &DeliverResponse,
    sent: impl Iterator<Item = TraceKey>,
) -> Result<Receipt, Wrong> {
    let holder = response.holder.as_ref().ok_or(Wrong::Missing("holder"))?;
    let from = instance_of(&holder.id, holder.inst)?;
    let named: usize = response.outcomes.iter().map(|outcome| outcome.keys.len()).sum();
    bounded("outcomes", named.max(response.decided.len()), PARTS_MAX)?;
    let mut told: BTreeMap<TraceKey, message::Outcome> = BTreeMap::new();
    for outcome in &response.outcomes {
        let what = match &outcome.holder {
            Some(holder) => message::Outcome::Held(instance_of(&holder.id, holder.inst)?),
            None => message::Outcome::Refused,
        };
        told.extend(outcome.keys.iter().map(|key| (TraceKey(*key), what.clone())));
    }
    let decided = response.decided.iter().map(decision_of);
    told.extend(decided.map(|known| (known.key, message::Outcome::Decided(known))));
    let held = message::Outcome::Held(from.clone());
    let outcome = |key| told.get(&key).unwrap_or(&held).clone();
    Ok(Receipt { outcomes: sent.map(outcome).collect(), from })
}

// === Decide ===

/// Decisions for another gateway.
pub fn decisions(told: &Decisions, from: Member) -> DecideRequest {
    let mut decisions = Vec::new();
    // There are as many verdicts as policies, at most.
    let mut fresh: Vec<(Verdict, Vec<u8>)> = Vec::new();
    for told in &told.list {
        if told.age > 0 || told.exported {
            decisions.push(decision(told));
            continue;
        }
        let key = told.key.0.to_le_bytes();
        match fresh.iter_mut().find(|(verdict, _)| *verdict == told.verdict) {
            Some((_, keys)) => keys.extend_from_slice(&key),
            None => fresh.push((told.verdict, key.to_vec())),
        }
    }
    let fresh = fresh
        .into_iter()
        .map(|(verdict, keys)| FreshDecisions { verdict: Some(verdict.into()), keys: keys.into() });
    let fresh = fresh.collect();
    DecideRequest { from: Some(from), propose: told.propose, decisions, fresh, hello: None }
}

/// What is written behind decisions so that a greeting goes along with them.
pub fn along(hello: &Hello, seed: &KeySeed) -> DecideRequest {
    DecideRequest { hello: Some(self::hello(hello, seed)), ..DecideRequest::default() }
}

/// Decisions as the engine wants them.
///
/// # Errors
/// When they are none of ours.
pub fn decisions_of(request: &DecideRequest) -> Result<Decisions, Wrong> {
    let from = sender(request.from.as_ref())?;
    let fresh = request.fresh.iter().map(|fresh| fresh.keys.len().div_ceil(KEY_BYTES));
    let fresh = fresh.sum::<usize>();
    bounded("decisions", request.decisions.len() + fresh, DECISIONS_MAX)?;
    let mut list = decision_list(&request.decisions)?;
    list.reserve(fresh);
    for fresh in &request.fresh {
        let verdict = fresh.verdict.unwrap_or_default().into();
        let (keys, rest) = fresh.keys.as_chunks::<KEY_BYTES>();
        if !rest.is_empty() {
            return Err(Wrong::Keys(fresh.keys.len()));
        }
        let key = |key: &[u8; KEY_BYTES]| TraceKey(u64::from_le_bytes(*key));
        let decision = |bytes| Decision { key: key(bytes), verdict, age: 0, exported: false };
        list.extend(keys.iter().map(decision));
    }
    Ok(Decisions { from, propose: request.propose, list })
}

/// The answer to decisions.
pub fn agreement(answer: &Agreement, from: Member) -> DecideResponse {
    DecideResponse {
        from: Some(from),
        known: answer.known.iter().map(decision).collect(),
        refused: answer.refused.iter().map(|key| key.0).collect(),
        hello: None,
    }
}

/// The answer to decisions as the engine wants it.
///
/// # Errors
/// When it is none of ours.
pub fn agreement_of(response: &DecideResponse) -> Result<Agreement, Wrong> {
    bounded("refusals", response.refused.len(), DECISIONS_MAX)?;
    Ok(Agreement {
        from: sender(response.from.as_ref())?,
        known: decision_list(&response.known)?,
        refused: response.refused.iter().copied().map(TraceKey).collect(),
    })
}

// === Poll ===

/// The question of an agent.
pub fn poll(poll: &Poll, from: Member, digest: u64, seed: &KeySeed) -> PollRequest {
    let status = Status {
        facts: poll.facts.iter().map(member).collect(),
        losses: poll.losses.iter().map(instance).collect(),
        heard: heard(&poll.heard),
        ..Status::default()
    };
    // The newest come first.
    let decided = poll.decided.iter().take(DECISIONS_MAX);
    PollRequest {
        from: Some(from),
        digest,
        done: poll.done.iter().map(instance).collect(),
        status: Some(status),
        decided: decided.map(decision).collect(),
        seed_id: seed.id(),
    }
}

/// The question of an agent as the engine wants it.
///
/// # Errors
/// When it is none of ours.
pub fn poll_of(request: &PollRequest) -> Result<Poll, Wrong> {
    let agent = sender(request.from.as_ref())?.name;
    let none = Status::default();
    let status = request.status.as_ref().unwrap_or(&none);
    Ok(Poll {
        agent,
        done: losses_of(&request.done)?,
        facts: facts_of(&status.facts)?,
        losses: losses_of(&status.losses)?,
        heard: heard_of(&status.heard)?,
        decided: decision_list(&request.decided)?.into(),
    })
}

/// The answer to an agent.
pub fn poll_answer(answer: &PollAnswer, from: Member) -> PollResponse {
    let status = Status {
        facts: answer.facts.iter().map(member).collect(),
        losses: answer.losses.iter().map(instance).collect(),
        ..Status::default()
    };
    let decided = answer.decided.iter().take(DECISIONS_MAX);
    PollResponse {
        from: Some(from),
        status: Some(status),
        decided: decided.map(decision).collect(),
    }
}

/// The answer to an agent as the engine wants it.
///
/// # Errors
/// When it is none of ours.
pub fn poll_answer_of(response: &PollResponse) -> Result<PollAnswer, Wrong> {
    let none = Status::default();
    let status = response.status.as_ref().unwrap_or(&none);
    Ok(PollAnswer {
        from: sender(response.from.as_ref())?,
        facts: facts_of(&status.facts)?,
        losses: losses_of(&status.losses)?,
        decided: decision_list(&response.decided)?.into(),
    })
}
