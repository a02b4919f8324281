//! Agents of the simulation: the real state machine over batches of span names, and a plain Collector that
//! knows nothing of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::ownership::action::{AgentAction, Answer, BatchId, Failure, Message};
use ringtail_engine::ownership::agent::{AgentConfig, AgentSide};
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::message::{Delivery, Origin, Outcome, Part, Receipt, Req};
use ringtail_engine::ownership::rules::Rules;

use super::gateway::{Context, Load, Output};
use super::schedule::WAIT;
use super::truth::SpanRef;

/// Decisions that an agent remembers: more than there are traces.
const DECISIONS_MAX: usize = 1 << 20;

/// Bytes of a span.
const SPAN_BYTES: u32 = 100;

/// See the module.
#[derive(Debug)]
pub(super) struct Agent {
    side: AgentSide,
    batches: BTreeMap<BatchId, BTreeMap<TraceKey, Vec<SpanRef>>>,
    /// Spans that wait for the next batch.
    gathered: Vec<SpanRef>,
    count: u64,
    unprotected: u64,
    actions: Vec<AgentAction>,
}

/// A Collector with its load-balancing exporter.
#[derive(Debug, Default)]
pub(super) struct Collector {
    endpoints: Vec<Name>,
    /// What is not stored, and when it is tried next; none while an answer is awaited.
    pending: BTreeMap<Req, (SpanRef, Option<u64>)>,
    count: u64,
}

// === impl Agent ===

impl Agent {
    pub(super) fn new(name: &str, seed: KeySeed, rules: Rules, retained_max: u64) -> Self {
        let config = AgentConfig {
            name: name.into(),
            seed,
            decision_wait: WAIT,
            retained_max,
            decisions_max: DECISIONS_MAX,
            rules,
        };
        Self {
            side: AgentSide::new(config),
            batches: BTreeMap::new(),
            gathered: Vec::new(),
            count: 0,
            unprotected: 0,
            actions: Vec::new(),
        }
    }

    pub(super) fn on_span(&mut self, span: SpanRef) {
        self.gathered.push(span);
    }

    /// The batch is full or old enough.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if self.gathered.is_empty() {
            return;
        }
        self.count += 1;
        let batch = BatchId(self.count);
        let mut traces: BTreeMap<TraceKey, Vec<SpanRef>> = BTreeMap::new();
        for span in self.gathered.drain(..) {
            traces.entry(cx.truth.key(span)).or_default().push(span);
        }
        let keys: Vec<_> =
            traces.iter().map(|(key, spans)| (*key, spans.len() as u32 * SPAN_BYTES)).collect();
        self.batches.insert(batch, traces);
        self.side.on_batch(batch, &keys, cx.now, &mut self.actions);
        self.perform(cx);
    }

    pub(super) fn on_answer(&mut self, req: Req, answer: &Answer, cx: &mut Context<'_>) {
        match answer {
            Answer::Deliver(receipt) => {
                self.side.on_receipt(req, receipt, cx.now, &mut self.actions)
            }
            Answer::Poll(answer) => {
                self.side.on_poll_answer(req, answer, cx.now, &mut self.actions)
            }
            Answer::Hello(_) | Answer::Decisions(_) => {}
        }
        self.perform(cx);
    }

    pub(super) fn on_failed(&mut self, req: Req, failure: Failure, cx: &mut Context<'_>) {
        self.side.on_failed(req, failure, cx.now, &mut self.actions);
        self.perform(cx);
    }

    pub(super) fn on_slice(&mut self, slice: &[(Name, bool)], cx: &mut Context<'_>) {
        self.side.on_slice(slice, cx.now, &mut self.actions);
        self.perform(cx);
    }

    pub(super) fn on_tick(&mut self, cx: &mut Context<'_>) {
        self.flush(cx);
        self.side.on_tick(cx.now, &mut self.actions);
        self.perform(cx);
        if self.side.stats().unprotected != self.unprotected {
            cx.truth.blame(None, "what is unprotected is not counted".to_owned());
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.gathered.is_empty() && self.side.is_settled()
    }

    /// Everything that it answers for.
    pub(super) fn spans(&self) -> impl Iterator<Item = SpanRef> {
        let batched = self.batches.values().flat_map(|traces| traces.values().flatten());
        self.gathered.iter().chain(batched).copied()
    }

    fn perform(&mut self, cx: &mut Context<'_>) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                AgentAction::Deliver { to, req, batch, delivery, deadline } => {
                    let traces = &self.batches[&batch];
                    let load: Load =
                        delivery.parts.iter().map(|part| traces[&part.key].clone()).collect();
                    let message = Message::Deliver(delivery);
                    cx.out.push(Output::Ask { to, req, message, load, deadline });
                }
                AgentAction::Poll { to, req, poll, deadline } => {
                    // What it was told may contradict what it knows; what it tells others holds.
                    for decision in poll.decided.iter() {
                        cx.truth.take_effect(decision.verdict.note);
                    }
                    let message = Message::Poll(Box::new(poll));
                    cx.out.push(Output::Ask { to, req, message, load: Load::new(), deadline });
                }
                AgentAction::Stored(_) => {}
                AgentAction::Unprotect { batch, keys } => {
                    self.unprotected += keys.len() as u64;
                    for span in keys.iter().flat_map(|key| &self.batches[&batch][key]) {
                        cx.truth.orphan(*span);
                    }
                }
                AgentAction::Release(batch) => {
                    self.batches.remove(&batch);
                }
            }
        }
    }
}

// === impl Collector ===

impl Collector {
    pub(super) fn on_span(&mut self, span: SpanRef, cx: &mut Context<'_>) {
        self.count += 1;
        let req = Req(self.count);
        self.pending.insert(req, (span, None));
        self.send(req, cx);
    }

    pub(super) fn on_answer(&mut self, req: Req, answer: &Answer, cx: &mut Context<'_>) {
        if let Answer::Deliver(Receipt { outcomes, .. }) = answer {
            if outcomes.contains(&Outcome::Refused) {
                self.retry(req, cx);
            } else {
                self.pending.remove(&req);
            }
        }
    }

    pub(super) fn on_failed(&mut self, req: Req, cx: &mut Context<'_>) {
        self.retry(req, cx);
    }

    pub(super) fn on_slice(&mut self, slice: &[(Name, bool)]) {
        let serving = slice.iter().filter(|(_, serving)| *serving);
        self.endpoints = serving.map(|(name, _)| Arc::clone(name)).collect();
    }

    pub(super) fn on_tick(&mut self, cx: &mut Context<'_>) {
        let due = self.pending.iter().filter(|(_, (_, at))| at.is_some_and(|at| at <= cx.now));
        for req in due.map(|(req, _)| *req).collect::<Vec<_>>() {
            let Some((span, _)) = self.pending.remove(&req) else {
                continue;
            };
            self.count += 1;
            let req = Req(self.count);
            self.pending.insert(req, (span, None));
            self.send(req, cx);
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    fn retry(&mut self, req: Req, cx: &mut Context<'_>) {
        let again = cx.now + cx.dice.between(500, 3_000);
        if let Some((_, at)) = self.pending.get_mut(&req) {
            *at = Some(again);
        }
    }

    fn send(&mut self, req: Req, cx: &mut Context<'_>) {
        let Some((span, at)) = self.pending.get_mut(&req) else {
            return;
        };
        let key = cx.truth.key(*span);
        if self.endpoints.is_empty() {
            *at = Some(cx.now + 500);
            return;
        }
        let to = Arc::clone(&self.endpoints[(key.0 >> 7) as usize % self.endpoints.len()]);
        let part = Part { key, age: 0, bytes: SPAN_BYTES, origin: Origin::Client, tentative: None };
        let message = Message::Deliver(Delivery { parts: vec![part], hops: 0 });
        let load = vec![vec![*span]];
        cx.out.push(Output::Ask { to, req, message, load, deadline: cx.now + 5_000 });
    }
}
