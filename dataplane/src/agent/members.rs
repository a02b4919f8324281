//! Membership as an agent learns it: every candidate is asked `Hello` once a second, and those that serve
//! are the view.
//!
//! Discovery yields addresses; a member exists only by its own announcement, with its id and instance. A
//! peer that does not know `Hello` (a Collector) is a member named after its address for as long as it can
//! be reached.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ring::{Member, View};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::core::Core;
use super::splitter::{LinkIndex, Ring};
use crate::pause;
use crate::peer::{Dialect, HelloResponse, State};
use crate::transport::{CallError, Client, Code, Encoding, Method, framed};

/// How often a candidate is asked.
const HELLO_EVERY: Duration = Duration::from_millis(750);
/// How often an agent that is thin looks whether it is answered: there may be one in every pod.
const THIN_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take.
const HELLO_WITHIN: Duration = Duration::from_millis(1000);
/// A member that was heard and then says nothing for so long has left: four missed hellos, and some delay.
const SUSPECT_AFTER: Duration = Duration::from_secs(4);
/// Joins are published together after this pause, so that ten gateways that start at once change the view
/// once.
const JOIN_SETTLE: Duration = Duration::from_millis(1500);

/// What is known of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not asked yet, or not answered yet.
    Unknown,
    /// Takes spans.
    Serving {
        /// What it calls itself.
        id: String,
        /// Grows with every start.
        inst: u64,
    },
    /// Refused the connection, was silent for too long, or says that it is leaving.
    Away,
}

/// News of one candidate.
#[derive(Debug)]
pub struct Event {
    link: LinkIndex,
    status: Status,
}

/// Asks one candidate for as long as the agent runs.
pub struct Watcher {
    /// The link that its answers are about.
    pub link: LinkIndex,
    /// `host:port`, also the name of a peer that has no other.
    pub endpoint: String,
    /// Whether nobody is asked who it is.
    pub thin: bool,
    /// A connection of its own: an answer must not wait behind a megabyte of spans.
    pub client: Arc<Client>,
    /// Shared state of the agent.
    pub core: Arc<Core>,
    /// Where it tells the link how to frame spans.
    pub dialect: watch::Sender<Dialect>,
    /// Where news go.
    pub events: mpsc::Sender<Event>,
}

/// Owns the statuses and publishes views.
pub struct Membership {
    core: Arc<Core>,
    seed: KeySeed,
    statuses: Vec<Status>,
    /// When a settled join is due.
    join_at: Option<Instant>,
}

// === impl Watcher ===

impl Watcher {
    /// Asks, reports changes, and goes on.
    pub async fn run(self) {
        let mut known = Status::Unknown;
        let mut heard = Instant::now();
        let mut every = tokio::time::interval(if self.thin { THIN_EVERY } else { HELLO_EVERY });
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let status = match self.ask().await {
                Ok(status) => {
                    heard = Instant::now();
                    status
                }
                Err(CallError::Connect(_)) => Status::Away,
                Err(_) if heard.elapsed() >= SUSPECT_AFTER => Status::Away,
                Err(_) => continue,
            };
            if status != known {
                tracing::info!(endpoint = %self.endpoint, ?status, "gateway");
                known = status.clone();
                if self.events.send(Event { link: self.link, status }).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn ask(&self) -> Result<Status, CallError> {
        let (method, message) = if self.thin {
            // A request without spans asks whether somebody is there, and says nothing of ourselves: a gateway would
            // count us among those whose ring should agree.
            (Method::ExportTraces, Vec::new())
        } else {
            (Method::Hello, self.core.identity.hello(State::Serving, self.core.digest()))
        };
        let frame = framed(message.len(), |out| out.extend_from_slice(&message));
        let none = http::HeaderMap::new();
        let answer = self.client.call(method, frame, Encoding::Identity, &none, HELLO_WITHIN).await;
        match answer {
            Ok(_) | Err(CallError::Status { .. }) if self.thin => Ok(self.in_plain_otlp()),
            Ok(answer) => Ok(self.announced(&answer)),
            Err(CallError::Status { code: Code::Unimplemented, .. }) => Ok(self.in_plain_otlp()),
            Err(error) => Err(error),
        }
    }

    fn announced(&self, answer: &[u8]) -> Status {
        let member = HelloResponse::decode(answer).ok().and_then(|hello| hello.member);
        match member {
            Some(member) if member.state() == State::Serving => {
                self.dialect.send_replace(Dialect::Ringtail);
                Status::Serving { id: member.id, inst: member.inst }
            }
            Some(_) => Status::Away,
            // Something that answers every call with OK: it can only be spoken to in plain OTLP.
            None => self.in_plain_otlp(),
        }
    }

    fn in_plain_otlp(&self) -> Status {
        self.dialect.send_replace(Dialect::Otlp);
        Status::Serving { id: self.endpoint.clone(), inst: 0 }
    }
}

// === impl Membership ===

impl Membership {
    /// Membership over so many candidates, none of them known.
    pub fn new(core: Arc<Core>, seed: KeySeed, candidates: usize) -> Self {
        Self { core, seed, statuses: vec![Status::Unknown; candidates], join_at: None }
    }

    /// Applies news until nobody sends any more.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        loop {
            let settle = self.join_at;
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.apply(event),
                    None => return,
                },
                () = pause::until(settle) => self.publish(),
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let joins = matches!(event.status, Status::Serving { .. });
        let Some(status) = self.statuses.get_mut(event.link) else { return };
        let left = matches!(status, Status::Serving { .. });
        *status = event.status;
        let cold = !self.core.has_members();
        let complete = !self.statuses.contains(&Status::Unknown);
        if left || (cold && complete) {
            // A leave applies at once; so does the first view when every candidate has answered.
            self.publish();
        } else if joins && self.join_at.is_none() {
            self.join_at = Some(Instant::now() + JOIN_SETTLE);
        }
    }

    fn publish(&mut self) {
        self.join_at = None;
        let serving: Vec<(LinkIndex, Member)> = self
            .statuses
            .iter()
            .enumerate()
            .filter_map(|(link, status)| match status {
                Status::Serving { id, inst } => {
                    Some((link, Member { id: id.clone(), inst: *inst }))
                }
                _ => None,
            })
            .collect();
        let members: Vec<Member> = serving.iter().map(|(_, member)| member.clone()).collect();
        if members.is_empty() {
            tracing::warn!("no gateway serves; requests are refused until one does");
            self.core.publish(None);
            return;
        }
        let view = View::new(members, &self.seed);
        // A gateway that two addresses lead to is one member: the first address with its newest instance
        // wins.
        let links = view
            .members()
            .iter()
            .filter_map(|member| {
                serving.iter().find(|(_, known)| known == member).map(|(link, _)| *link)
            })
            .collect();
        tracing::info!(
            digest = format!("{:016x}", view.digest()),
            members = view.members().len(),
            "ring"
        );
        self.core.publish(Some(Ring { view, links }));
    }
}
