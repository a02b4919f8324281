//! A gateway of the simulation: the real state machine over a buffer of span names.

use std::collections::{BTreeMap, BTreeSet};

use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::ownership::action::{Action, Answer, By, Failure, Inbound, Message};
use ringtail_engine::ownership::facts::{Instance, Name};
use ringtail_engine::ownership::message::{Req, Verdict};
use ringtail_engine::ownership::rules::Rules;
use ringtail_engine::ownership::timers::{HOPS_MAX, JOIN_SETTLE};
use ringtail_engine::ownership::{Config, Ownership, Stats};

use super::dice::Dice;
use super::schedule::{Budgets, WAIT};
use super::truth::{SpanRef, Truth};

/// Decisions are remembered for so long.
const REMEMBER: u64 = 150_000;

/// The spans that a delivery carries, part by part.
pub(super) type Load = Vec<Vec<SpanRef>>;

/// What a process wants of the world.
#[derive(Debug)]
pub(super) enum Output {
    /// A question to a gateway.
    Ask { to: Name, req: Req, message: Message, load: Load, deadline: u64 },
    /// An answer to a process.
    Tell { to: usize, req: Req, answer: Answer },
    /// Spans go to the backend; it has them after a while.
    Export { keys: Vec<TraceKey>, spans: Vec<SpanRef>, millis: u64 },
    /// The process ends.
    Exit,
}

/// What a process may use while it handles something.
pub(super) struct Context<'a> {
    /// By the clock of the process.
    pub(super) now: u64,
    pub(super) dice: &'a mut Dice,
    pub(super) truth: &'a mut Truth,
    pub(super) out: Vec<Output>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) name: Name,
    own: Ownership,
    budgets: Budgets,
    /// Whether greetings go along with decisions.
    pub(super) greets_along: bool,
    buffer: BTreeMap<TraceKey, Held>,
    due: BTreeSet<(u64, TraceKey)>,
    parcels: BTreeMap<Req, BTreeMap<TraceKey, BTreeSet<SpanRef>>>,
    inbound: BTreeMap<Inbound, Delivered>,
    count: u64,
    exporting: usize,
    actions: Vec<Action>,
    /// Epoch and instance at the last tick.
    stood: (u64, u64),
    /// How and when traces were settled here last.
    settled: BTreeMap<TraceKey, (bool, u64)>,
}

/// An undecided trace; without a time while it is proposed.
#[derive(Debug, Default)]
struct Held {
    spans: BTreeSet<SpanRef>,
    due: Option<u64>,
    proposed: bool,
}

/// A delivery that is not answered yet.
#[derive(Debug)]
struct Delivered {
    from: usize,
    req: Req,
    load: Load,
}

impl Gateway {
    pub(super) fn new(
        name: &str,
        inst: u64,
        seed: KeySeed,
        rules: Rules,
        budgets: Budgets,
        now: u64,
    ) -> Self {
        let config = Config {
            me: Instance::new(name, inst),
            seed,
            remember: REMEMBER,
            remember_max: budgets.decisions,
            settle: JOIN_SETTLE,
            rules,
        };
        Self {
            name: name.into(),
            own: Ownership::new(config, now),
            budgets,
            greets_along: false,
            buffer: BTreeMap::new(),
            due: BTreeSet::new(),
            parcels: BTreeMap::new(),
            inbound: BTreeMap::new(),
            count: 0,
            exporting: 0,
            actions: Vec::new(),
            stood: (0, 0),
            settled: BTreeMap::new(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.own.stats()
    }

    /// Nothing undecided, on its way or unexported is here.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.parcels.is_empty() && self.exporting == 0
    }

    // === Inputs ===

    pub(super) fn on_question(
        &mut self,
        from: usize,
        req: Req,
        message: Message,
        load: Load,
        cx: &mut Context<'_>,
    ) {
        if let Message::Deliver(delivery) = &message {
            if delivery.hops > HOPS_MAX {
                cx.truth.blame(None, format!("{} hops to {}", delivery.hops, self.name));
            }
            self.count += 1;
            let inbound = Inbound(self.count);
            self.inbound.insert(inbound, Delivered { from, req, load });
            self.own.on_delivery(inbound, delivery, cx.now, &mut self.actions);
        } else if let Some(answer) = self.own.on_question(&message, cx.now, &mut self.actions) {
            if let (Message::Decisions(told), Answer::Decisions(agreement)) = (&message, &answer) {
                let known = |key| agreement.known.iter().any(|decision| decision.key == key);
                for decision in &told.list {
                    if !known(decision.key) && !agreement.refused.contains(&decision.key) {
                        cx.truth.take_effect(decision.verdict.note);
                    }
                }
            }
            cx.out.push(Output::Tell { to: from, req, answer });
        }
        self.perform(cx);
    }

    pub(super) fn on_answer(&mut self, req: Req, answer: &Answer, cx: &mut Context<'_>) {
        self.own.on_answer(req, answer, cx.now, &mut self.actions);
        self.perform(cx);
    }

    pub(super) fn on_failed(&mut self, to: &str, req: Req, failure: Failure, cx: &mut Context<'_>) {
        self.own.on_failed(to, req, failure, cx.now, &mut self.actions);
        self.perform(cx);
    }

    pub(super) fn on_slice(&mut self, slice: &[(Name, bool)], cx: &mut Context<'_>) {
        let others: Vec<_> = slice.iter().filter(|(name, _)| *name != self.name).cloned().collect();
        self.own.on_slice(&others, cx.now, &mut self.actions);
        self.perform(cx);
    }

    pub(super) fn on_tick(&mut self, cx: &mut Context<'_>) {
        self.own.on_tick(self.exporting > 0, cx.now, &mut self.actions);
        self.perform(cx);
        self.decide(cx);
        self.assert_sound(cx);
    }

    pub(super) fn on_exported(&mut self, keys: &[TraceKey]) {
        self.exporting -= 1;
        self.own.on_exported(keys);
    }

    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        self.own.drain(cx.now, &mut self.actions);
        self.perform(cx);
    }

    // === Decisions ===

    /// Judges what is due, and the oldest when the buffer is too full.
    fn decide(&mut self, cx: &mut Context<'_>) {
        let stand = self.own.stand();
        if !stand.may_decide(cx.now) {
            return;
        }
        let spans: usize = self.buffer.values().map(|held| held.spans.len()).sum();
        let mut excess = spans.saturating_sub(self.budgets.gateway_spans);
        let mut chosen = Vec::new();
        for (due, key) in &self.due {
            let early = *due > cx.now;
            if early && excess == 0 && !stand.is_alone() {
                break;
            }
            if stand.owns(*key) {
                excess = excess.saturating_sub(self.buffer[key].spans.len());
                chosen.push((*due, *key, early));
            }
        }
        let mut judged = Vec::new();
        for (due, key, early) in chosen {
            self.due.remove(&(due, key));
            let Some(held) = self.buffer.get_mut(&key) else {
                continue;
            };
            (held.due, held.proposed) = (None, true);
            let spans: Vec<SpanRef> = held.spans.iter().copied().collect();
            let (keep, note) = cx.truth.judge(key, &spans, &self.name, early);
            judged.push((key, Verdict { keep, note }));
        }
        if !judged.is_empty() {
            self.own.on_judged(&judged, cx.now, &mut self.actions);
            self.perform(cx);
        }
    }

    // === Actions ===

    /// A greeting by itself, at the time at which it would go along.
    fn greet_along(&mut self, to: &Name, cx: &mut Context<'_>) {
        let mut actions = Vec::new();
        self.own.greet_along(to, cx.now, &mut actions);
        for action in actions {
            match action {
                Action::Send { to, req, message, deadline } => {
                    cx.out.push(Output::Ask { to, req, message, load: Load::new(), deadline });
                }
                other => self.actions.push(other),
            }
        }
    }

    fn perform(&mut self, cx: &mut Context<'_>) {
        let mut kept = Vec::new();
        let mut keys = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { to, req, message, deadline } => {
                    let load = match &message {
                        Message::Deliver(delivery) => {
                            self.load(req, delivery.parts.iter().map(|part| part.key))
                        }
                        _ => Load::new(),
                    };
                    if self.greets_along && matches!(message, Message::Decisions(_)) {
                        self.greet_along(&to, cx);
                    }
                    cx.out.push(Output::Ask { to, req, message, load, deadline });
                }
                Action::Reply { inbound, receipt } => {
                    if let Some(Delivered { from, req, .. }) = self.inbound.remove(&inbound) {
                        cx.out.push(Output::Tell {
                            to: from,
                            req,
                            answer: Answer::Deliver(receipt),
                        });
                    }
                }
                Action::Store { inbound, part, key, first } => {
                    let spans = self.inbound[&inbound].load[part].iter().copied().collect();
                    self.put(key, spans, first, cx.now);
                }
                Action::Follow { inbound, part, verdict } => {
                    cx.truth.take_effect(verdict.note);
                    if verdict.keep {
                        kept.extend_from_slice(&self.inbound[&inbound].load[part]);
                    }
                }
                Action::Repeated { .. } => {}
                Action::Pass { inbound, parts, parcel } => {
                    let load = &self.inbound[&inbound].load;
                    let contents = self.parcels.entry(parcel).or_default();
                    for part in parts {
                        let spans = &load[part];
                        let key = cx.truth.key(spans[0]);
                        contents.entry(key).or_default().extend(spans.iter().copied());
                    }
                }
                Action::Take { keys, parcel } => self.take(&keys, parcel, cx),
                Action::Repack { key, from, to } => {
                    let spans = self.unpack(from, key, cx);
                    self.parcels.entry(to).or_default().insert(key, spans);
                }
                Action::Restore { parcel, key, first } => {
                    let spans = self.unpack(parcel, key, cx);
                    self.put(key, spans, first, cx.now);
                }
                Action::Forget { parcel } => {
                    self.parcels.remove(&parcel);
                }
                Action::Settle { key, verdict, by } => {
                    self.assert_same(key, verdict.keep, cx);
                    cx.truth.take_effect(verdict.note);
                    let held = self.buffer.remove(&key).unwrap_or_default();
                    held.due.map(|due| self.due.remove(&(due, key)));
                    if verdict.keep {
                        kept.extend(held.spans);
                        keys.extend((by == By::Us).then_some(key));
                    }
                }
                Action::PutBack { key, at } => {
                    if let Some(held) = self.buffer.get_mut(&key) {
                        held.due.map(|due| self.due.remove(&(due, key)));
                        (held.due, held.proposed) = (Some(at), false);
                        self.due.insert((at, key));
                    }
                }
                Action::Exit => cx.out.push(Output::Exit),
            }
        }
        if !kept.is_empty() {
            self.exporting += 1;
            let millis = if cx.dice.chance(5) {
                cx.dice.between(500, 5_000)
            } else {
                cx.dice.between(20, 300)
            };
            cx.out.push(Output::Export { keys, spans: kept, millis });
        }
    }

    fn put(&mut self, key: TraceKey, spans: BTreeSet<SpanRef>, first: u64, now: u64) {
        let held = self.buffer.entry(key).or_default();
        held.spans.extend(spans);
        if held.proposed {
            return;
        }
        let due = (first + WAIT).max(now);
        if let Some(before) = held.due {
            self.due.remove(&(before, key));
        }
        let due = held.due.map_or(due, |before| before.min(due));
        held.due = Some(due);
        self.due.insert((due, key));
    }

    fn take(&mut self, keys: &[TraceKey], parcel: Req, cx: &mut Context<'_>) {
        let contents = self.parcels.entry(parcel).or_default();
        for key in keys {
            match self.buffer.remove(key) {
                Some(held) => {
                    held.due.map(|due| self.due.remove(&(due, *key)));
                    contents.insert(*key, held.spans);
                }
                None => {
                    cx.truth.blame(Some(*key), format!("{} takes what is not there", self.name))
                }
            }
        }
    }

    fn unpack(&mut self, parcel: Req, key: TraceKey, cx: &mut Context<'_>) -> BTreeSet<SpanRef> {
        let spans = self.parcels.get_mut(&parcel).and_then(|contents| contents.remove(&key));
        if spans.is_none() {
            cx.truth.blame(Some(key), format!("{} unpacks what is not there", self.name));
        }
        spans.unwrap_or_default()
    }

    fn load(&self, parcel: Req, keys: impl Iterator<Item = TraceKey>) -> Load {
        let contents = &self.parcels[&parcel];
        keys.map(|key| contents.get(&key).into_iter().flatten().copied().collect()).collect()
    }

    /// Bytes and state machine agree on what is here, and the promises to peers are true.
    fn assert_sound(&mut self, cx: &mut Context<'_>) {
        let (held, here) = (self.own.len(), self.buffer.len());
        if held != here {
            cx.truth.blame(None, format!("{}: {held} held, {here} in the buffer", self.name));
        }
        if self.own.is_idle() && !(self.buffer.is_empty() && self.parcels.is_empty()) {
            cx.truth.blame(None, format!("{} is idle with spans in hand", self.name));
        }
        let stand = self.own.stand();
        let foreign = |(key, held): (&TraceKey, &Held)| !held.proposed && !stand.owns(*key);
        if self.own.is_complete() && self.buffer.iter().any(foreign) {
            cx.truth.blame(None, format!("{} is complete with spans of others", self.name));
        }
        let stood = (stand.epoch, stand.me.inst);
        if stood.0 < self.stood.0 || stood.1 < self.stood.1 {
            cx.truth
                .blame(None, format!("{} goes back from {:?}: {stood:?}", self.name, self.stood));
        }
        self.stood = stood;
    }

    /// What was decided stays so, for as long as it is remembered.
    fn assert_same(&mut self, key: TraceKey, keep: bool, cx: &mut Context<'_>) {
        let before = self.settled.insert(key, (keep, cx.now));
        let contradicts = |(kept, at)| kept != keep && cx.now < at + REMEMBER;
        if before.is_some_and(contradicts) && self.own.stats().forgotten == 0 {
            cx.truth.blame(Some(key), format!("{} changes its mind", self.name));
        }
    }
}
