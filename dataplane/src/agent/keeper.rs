//! What an agent has delivered and keeps: if the gateway that holds it is lost, it is sent again.
//!
//! Links deliver; with every answer the frame comes here, as it was sent. Once a second each gateway is asked
//! what it knows of the others. When one of them is lost, what lay there goes to the next owners, flagged,
//! and the gateways are told when all of it has arrived, because they wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use ringtail_engine::Millis;
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::action::{AgentAction, BatchId, Failure};
use ringtail_engine::ownership::agent::{AgentConfig, AgentSide};
use ringtail_engine::ownership::facts::{Instance, Name};
use ringtail_engine::ownership::message::{Delivery, Poll, Req};
use ringtail_engine::ownership::timers::TICK;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::core::Core;
use super::frame::Frame;
use crate::membership::Place;
use crate::peer::{DeliverRequest, DeliverResponse, PollResponse, State, messages};
use crate::transport::{CallError, Client, Encoding, Method, framed};

/// What the keeper is told.
pub(super) enum News {
    /// A gateway answered a frame.
    Delivered(Box<Frame>, Bytes),
    /// There is a connection to a candidate.
    Opened(Place, Arc<Client>),
    /// The candidate is gone.
    Closed(Place),
    /// These gateways serve.
    Roster(Vec<(Name, Place)>),
    /// Gateways hold what they see from now on for so long.
    Wait(Millis),
}

/// See the module.
pub(super) struct Keeper {
    core: Arc<Core>,
    side: AgentSide,
    news: mpsc::UnboundedReceiver<News>,
    frames: BTreeMap<BatchId, KeptFrame>,
    batches: u64,
    clients: BTreeMap<Place, Arc<Client>>,
    places: BTreeMap<Name, Place>,
    calls: JoinSet<Called>,
    actions: Vec<AgentAction>,
    /// Losses since whose news links have delivered everything that they had.
    cleared: BTreeSet<Instance>,
}

/// A frame without the list of its traces.
struct KeptFrame {
    frame: Frame,
    traces: usize,
}

struct Called {
    req: Req,
    what: What,
    result: Result<Bytes, CallError>,
}

enum What {
    Delivery(Vec<TraceKey>),
    Poll,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(
        core: Arc<Core>,
        config: AgentConfig,
        news: mpsc::UnboundedReceiver<News>,
    ) -> Self {
        Self {
            core,
            side: AgentSide::new(config),
            news,
            frames: BTreeMap::new(),
            batches: 0,
            clients: BTreeMap::new(),
            places: BTreeMap::new(),
            calls: JoinSet::new(),
            actions: Vec::new(),
            cleared: BTreeSet::new(),
        }
    }

    /// Runs until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(Duration::from_millis(TICK));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // First: what was delivered is known before a loss is said to be done.
                Some(news) = self.news.recv() => self.note(news),
                Some(called) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok(called) = called {
                        self.settle(called);
                    }
                }
                _ = tick.tick() => {
                    let now = self.core.now();
                    self.note_cleared();
                    self.side.on_tick(now, &mut self.actions);
                }
            }
            self.perform();
            self.publish();
        }
    }

    fn note(&mut self, news: News) {
        let now = self.core.now();
        match news {
            News::Delivered(frame, answer) => self.keep(*frame, answer, now),
            News::Opened(place, client) => drop(self.clients.insert(place, client)),
            News::Closed(place) => {
                self.clients.remove(&place);
                self.places.retain(|_, known| *known != place);
            }
            News::Wait(wait) => self.side.set_decision_wait(wait, now),
            News::Roster(list) => {
                let slice: Vec<(Name, bool)> =
                    list.iter().map(|(name, _)| (Arc::clone(name), true)).collect();
                // Names that are not in the roster are remembered: who drains is still asked.
                self.places.extend(list);
                self.side.on_slice(&slice, now, &mut self.actions);
            }
        }
    }

    fn keep(&mut self, mut frame: Frame, answer: Bytes, now: Millis) {
        let keys = frame.traces.iter().map(|(key, _)| *key);
        let Ok(receipt) = DeliverResponse::decode(answer)
            .map_err(drop)
            .and_then(|response| messages::receipt_of(&response, keys).map_err(drop))
        else {
            return;
        };
        self.batches += 1;
        let batch = BatchId(self.batches);
        // Each trace is charged its share of what the frame holds.
        let raw: u64 = frame.traces.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        let share = |(key, bytes): &(TraceKey, u32)| {
            let share = u64::from(*bytes) * frame.held / raw.max(1);
            (*key, u32::try_from(share).unwrap_or(u32::MAX).max(1))
        };
        let traces: Vec<(TraceKey, u32)> = frame.traces.iter().map(share).collect();
        let born = self.core.at(frame.born);
        // The list is kept by the state machine, the frame needs none.
        frame.traces = Vec::new();
        self.frames.insert(batch, KeptFrame { frame, traces: traces.len() });
        self.side.on_delivered((batch, born), &traces, &receipt, now, &mut self.actions);
    }

    fn perform(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    AgentAction::Deliver { to, req, batch, delivery, deadline } => {
                        self.deliver(&to, req, batch, &delivery, deadline);
                    }
                    AgentAction::Poll { to, req, poll, deadline } => {
                        self.poll(&to, req, poll, deadline);
                    }
                    AgentAction::Release(batch) => drop(self.frames.remove(&batch)),
                    AgentAction::Unprotect { batch, keys } => self.unprotect(batch, keys.len()),
                    AgentAction::Stored(_) => {}
                }
            }
        }
    }

    fn unprotect(&mut self, batch: BatchId, traces: usize) {
        if let Some(kept) = self.frames.get(&batch) {
            let spans = kept.frame.spans * traces as u64;
            let spans = spans.div_ceil(kept.traces.max(1) as u64);
            self.core.kept.unprotected_spans.fetch_add(spans, Relaxed);
        }
    }

    fn deliver(
        &mut self,
        to: &Name,
        req: Req,
        batch: BatchId,
        delivery: &Delivery,
        deadline: Millis,
    ) {
        let from = self.core.identity.member(State::Serving);
        let head = messages::delivery(delivery, from, self.core.digest(), false);
        let head = DeliverRequest { again: true, ..head };
        let mut keys: Vec<TraceKey> = delivery.parts.iter().map(|part| part.key).collect();
        let (Some(client), Some(frame)) = (self.client(to), self.frames.get(&batch)) else {
            let now = self.core.now();
            return self.side.on_failed(req, Failure::TimedOut, now, &mut self.actions);
        };
        let frame = &frame.frame;
        let (pieces, encoding) = (frame.message(&head.encode_to_vec()), frame.encoding);
        let within = self.within(deadline);
        keys.shrink_to_fit();
        self.calls.spawn(async move {
            let none = http::HeaderMap::new();
            let result = client.call(Method::Deliver, pieces, encoding, &none, within).await;
            Called { req, what: What::Delivery(keys), result }
        });
    }

    fn poll(&mut self, to: &Name, req: Req, poll: Poll, deadline: Millis) {
        let Some(client) = self.client(to) else {
            let now = self.core.now();
            return self.side.on_failed(req, Failure::TimedOut, now, &mut self.actions);
        };
        self.note_cleared();
        let done = poll.done.iter().filter(|lost| self.cleared.contains(lost)).cloned().collect();
        let poll = Poll { done, ..poll };
        let from = self.core.identity.member(State::Serving);
        let request = messages::poll(&poll, from, self.core.digest(), &self.core.seed);
        let request = request.encode_to_vec();
        let frame = framed(request.len(), |out| out.extend_from_slice(&request));
        let within = self.within(deadline);
        self.calls.spawn(async move {
            let none = http::HeaderMap::new();
            let identity = Encoding::Identity;
            let result = client.call(Method::Poll, frame, identity, &none, within).await;
            Called { req, what: What::Poll, result }
        });
    }

    /// What links have not delivered yet may have been aimed at a lost gateway. Once they have, what they get
    /// later goes to others: a loss that was cleared stays so, or gateways would wait for it again with
    /// every request that happens to be under way.
    fn note_cleared(&mut self) {
        let Self { side, cleared, .. } = self;
        if side.losses().all(|(lost, _)| cleared.contains(lost)) {
            return cleared.retain(|known| side.losses().any(|(lost, _)| lost == known));
        }
        let oldest = self.core.oldest();
        // Looked at after `oldest`: what a link has delivered by then is here.
        if self.news.is_empty() {
            let delivered = side.losses().filter(|(_, learned)| oldest > *learned);
            cleared.extend(delivered.map(|(lost, _)| lost.clone()));
        }
    }

    fn settle(&mut self, called: Called) {
        let Called { req, what, result } = called;
        let now = self.core.now();
        let Self { side, actions, .. } = self;
        match (what, result) {
            (What::Delivery(keys), Ok(answer)) => {
                let response = DeliverResponse::decode(answer).map_err(drop);
                let receipt = response.and_then(|response| {
                    messages::receipt_of(&response, keys.into_iter()).map_err(drop)
                });
                match receipt {
                    Ok(receipt) => side.on_receipt(req, &receipt, now, actions),
                    Err(()) => side.on_failed(req, Failure::TimedOut, now, actions),
                }
            }
            (What::Poll, Ok(answer)) => {
                let response = PollResponse::decode(answer).map_err(drop);
                let answer =
                    response.and_then(|response| messages::poll_answer_of(&response).map_err(drop));
                if let Ok(answer) = answer {
                    side.on_poll_answer(req, &answer, now, actions);
                }
            }
            (_, Err(error)) => {
                tracing::debug!(%error, "a gateway did not answer");
                let refused = matches!(&error, CallError::Connect(error) if error.refused);
                let failure = if refused { Failure::Refused } else { Failure::TimedOut };
                side.on_failed(req, failure, now, actions);
            }
        }
    }

    fn client(&self, to: &Name) -> Option<Arc<Client>> {
        self.clients.get(self.places.get(to)?).cloned()
    }

    fn within(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.saturating_sub(self.core.now()))
    }

    fn publish(&self) {
        let kept = &self.core.kept;
        let stats = self.side.stats();
        kept.bytes.store(self.side.retained_bytes(), Relaxed);
        kept.replayed.store(stats.replayed, Relaxed);
        kept.unprotected.store(stats.unprotected, Relaxed);
        kept.retried.store(stats.retried, Relaxed);
        kept.settled.store(self.side.is_settled(), Relaxed);
    }
}

/// Milliseconds of a clock that began at `start`, and had a past then: spans may have an age.
pub(super) fn millis(start: Instant, at: Instant) -> Millis {
    const PAST: Millis = 2 * 3_600_000;
    let after = at.saturating_duration_since(start).as_millis();
    let before = start.saturating_duration_since(at).as_millis();
    let at = u128::from(PAST) + after;
    u64::try_from(at.saturating_sub(before)).unwrap_or(Millis::MAX / 2)
}

#[cfg(test)]
mod tests;
