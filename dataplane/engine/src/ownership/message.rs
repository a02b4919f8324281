//! What gateways and agents tell each other. Times on the wire are ages, never clock readings; a `sent_at`
//! is only ever read by the process that wrote it.

use std::sync::Arc;

use super::facts::{Fact, Instance, Name};
use crate::Millis;
use crate::key::TraceKey;

/// Tells requests of one process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Req(pub u64);

/// How a trace was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Exported, or let go.
    pub keep: bool,
    /// Travels with the decision and means nothing here: which policy it was, at which threshold.
    pub note: u32,
}

/// A decision on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The trace.
    pub key: TraceKey,
    /// How it was decided.
    pub verdict: Verdict,
    /// How long ago.
    pub age: Millis,
    /// Whether the backend has the spans that were there then.
    pub exported: bool,
}

/// What a gateway says of itself, in a hello and in the answer to one.
#[derive(Debug, Clone)]
pub struct Status {
    /// Who it is.
    pub from: Instance,
    /// Digest of its view.
    pub digest: u64,
    /// Nothing that others own is here or on its way from here.
    pub complete: bool,
    /// For how long agents may still be looking for it, and for its peers.
    pub cold: Millis,
    /// What it knows of all gateways.
    pub facts: Arc<[Fact]>,
    /// Which instances it takes for lost.
    pub losses: Arc<[Instance]>,
    /// How long ago it heard from each of the others itself.
    pub heard: Arc<[(Name, Millis)]>,
}

/// Names the question that an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The asker's view, by its own count.
    pub epoch: u64,
    /// When, by the asker's clock.
    pub at: Millis,
}

/// Asked of each gateway by each other one.
#[derive(Debug, Clone)]
pub struct Hello {
    /// About the asker.
    pub status: Status,
    /// Comes back with the answer.
    pub asked: Asked,
}

/// The answer to a [`Hello`].
#[derive(Debug, Clone)]
pub struct HelloAnswer {
    /// About the one who answers.
    pub status: Status,
    /// From the question.
    pub asked: Asked,
}

/// What becomes of spans when their holder is lost. Of spans together, the least counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Their sender has forgotten them.
    Client,
    /// An agent retains them.
    Agent,
    /// An agent has sent them again, or has been asked to: they may have been decided and exported.
    Replay,
}

/// The spans of one trace in a [`Delivery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The trace.
    pub key: TraceKey,
    /// How long ago the first of these spans was taken in by whoever took it first.
    pub age: Millis,
    /// How many bytes they are.
    pub bytes: u32,
    /// Where they come from.
    pub origin: Origin,
    /// How its decision would have been, had it not been taken back.
    pub tentative: Option<Verdict>,
}

/// Spans for a gateway: sent by an agent, passed on or handed over.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// One trace each.
    pub parts: Vec<Part>,
    /// How often they were passed on so far.
    pub hops: u8,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It lies with this instance, undecided.
    Held(Instance),
    /// It followed, or follows, this decision.
    Decided(Decision),
    /// Nobody has it: send it to another gateway.
    Refused,
}

/// The answer to a [`Delivery`], part by part.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Who answers.
    pub from: Instance,
    /// In the order of the parts.
    pub outcomes: Vec<Outcome>,
}

/// Decisions for the next choices.
#[derive(Debug, Clone)]
pub struct Decisions {
    /// Who tells.
    pub from: Instance,
    /// Nothing is exported before the answer.
    pub propose: bool,
    /// The decisions.
    pub list: Vec<Decision>,
}

/// The answer to [`Decisions`].
#[derive(Debug, Clone)]
pub struct Agreement {
    /// Who answers.
    pub from: Instance,
    /// Decisions that stand already and come before those that were told; and those on traces of who answers
    /// that were exported since it spoke last.
    pub known: Vec<Decision>,
    /// Proposals that the one who answers does not take from this sender now.
    pub refused: Vec<TraceKey>,
}

/// Asked of each gateway by each agent that retains anything.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The agent.
    pub agent: Name,
    /// Losses for which everything has been sent again and stored.
    pub done: Arc<[Instance]>,
    /// What it knows of all gateways.
    pub facts: Arc<[Fact]>,
    /// Which instances it takes for lost.
    pub losses: Arc<[Instance]>,
    /// How long ago each gateway answered it.
    pub heard: Arc<[(Name, Millis)]>,
    /// Decisions that it was told of as a witness, for a gateway that is new.
    pub decided: Arc<[Decision]>,
}

/// The answer to a [`Poll`].
#[derive(Debug, Clone)]
pub struct PollAnswer {
    /// Who answers.
    pub from: Instance,
    /// What it knows of all gateways.
    pub facts: Arc<[Fact]>,
    /// Which instances it takes for lost.
    pub losses: Arc<[Instance]>,
    /// The last decisions, when too few gateways are left to remember them.
    pub decided: Arc<[Decision]>,
}
