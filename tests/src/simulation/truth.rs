//! What really happened to each trace, and whether that was right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::dice::Dice;
use super::schedule::{Schedule, WAIT};
use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::timers::{AGENT_SILENT, IN_FLIGHT};

/// How much later than the decision wait a decision may be, whether any gateway ran meanwhile or not.
const LATE: u64 = 30_000;

/// A span: the place of its trace in the schedule, and its own place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanRef {
    /// The trace.
    pub trace: u16,
    /// The span.
    pub span: u16,
}

/// A way in which a trace can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Decided without a span that an agent had taken 5 s before.
    Split,
    /// The same, or late, but all that was missing lay with agents that no gateway had answered for
    /// [`AGENT_SILENT`], or that one had answered again only [`IN_FLIGHT`] before: nobody waits for those.
    Stranded,
    /// Two effective decisions with different verdicts.
    Contra,
    /// Two effective decisions with the same verdict.
    Double,
    /// A span of a kept trace was never exported.
    Lost,
    /// Decided more than 30 s after its time.
    Late,
    /// Never decided.
    Wedge,
    /// A span was exported though no decision was to keep it.
    Leaked,
    /// A rule of the state machine itself was broken.
    Broken,
}

/// What went wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// How.
    pub kind: Kind,
    /// The trace's number in its schedule.
    pub trace: u32,
    /// More about it.
    pub note: String,
}

/// One run of the policies over what a gateway had of a trace.
#[derive(Debug)]
struct Judgement {
    trace: usize,
    gateway: String,
    keep: bool,
    at: u64,
    spans: Vec<u16>,
    early: bool,
    effective: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Truth {
    by_key: BTreeMap<TraceKey, usize>,
    keys: Vec<TraceKey>,
    traces: Vec<TraceTruth>,
    judgements: Vec<Judgement>,
    broken: Vec<Violation>,
    contacts: Contacts,
    /// The verdict is no function of the trace: whoever judges it again may judge otherwise.
    dice: Option<Dice>,
    /// Spans in parcels, and those of them that went to a gateway for the first time.
    moved: [u64; 2],
    moves: BTreeSet<(SpanRef, Name)>,
    /// Spans that one gateway sent to another, in whatever way, and those that agents sent again.
    carried: u64,
    /// The gateway that got a span first.
    landed: BTreeMap<SpanRef, Name>,
    now: u64,
}

/// When each agent got an answer from a gateway, in order.
#[derive(Debug, Default)]
struct Contacts(Vec<Vec<u64>>);

#[derive(Debug)]
struct TraceTruth {
    number: u32,
    error: Option<usize>,
    spans: Vec<SpanTruth>,
}

#[derive(Debug, Clone, Copy, Default)]
struct SpanTruth {
    agent: usize,
    taken: Option<u64>,
    /// Its agent was killed, so nobody answers for it.
    orphan: bool,
    exported: u32,
}

impl Truth {
    /// Nothing has happened yet.
    pub fn new(schedule: &Schedule, seed: &KeySeed) -> Self {
        let key = |id: [u8; 16]| seed.key(&id);
        let keys: Vec<_> = schedule.traces.iter().map(|plan| key(plan.id(schedule.seed))).collect();
        let trace = |plan: &super::schedule::TracePlan| TraceTruth {
            number: plan.number,
            error: plan.error,
            spans: plan.spans.iter().map(|(_, agent)| SpanTruth::of(*agent)).collect(),
        };
        Self {
            by_key: keys.iter().enumerate().map(|(index, key)| (*key, index)).collect(),
            keys,
            traces: schedule.traces.iter().map(trace).collect(),
            judgements: Vec::new(),
            broken: Vec::new(),
            contacts: Contacts(vec![Vec::new(); schedule.agents]),
            dice: schedule.stateful.then(|| Dice::new(schedule.seed ^ 0x57a7e)),
            moved: [0; 2],
            moves: BTreeSet::new(),
            carried: 0,
            landed: BTreeMap::new(),
            now: 0,
        }
    }

    /// What is told from here on happens now.
    pub fn pass_time(&mut self, now: u64) {
        self.now = now;
    }

    /// The key of a span's trace.
    pub fn key(&self, span: SpanRef) -> TraceKey {
        self.keys[usize::from(span.trace)]
    }

    /// An agent took a span.
    pub fn take(&mut self, span: SpanRef) {
        self.span(span).taken = Some(self.now);
    }

    /// A gateway answered an agent.
    pub fn touch(&mut self, agent: usize) {
        self.contacts.0[agent].push(self.now);
    }

    /// The agent of these spans was killed.
    pub fn orphan(&mut self, span: SpanRef) {
        self.span(span).orphan = true;
    }

    /// The policies ran over these spans; returns the verdict and the number of the judgement.
    pub fn judge(
        &mut self,
        key: TraceKey,
        spans: &[SpanRef],
        gateway: &str,
        early: bool,
    ) -> (bool, u32) {
        let trace = self.by_key[&key];
        let spans: Vec<u16> = spans.iter().map(|span| span.span).collect();
        let keep = match &mut self.dice {
            Some(dice) => dice.chance(50),
            None => self.traces[trace].error.is_some_and(|error| spans.contains(&(error as u16))),
        };
        let judgement = Judgement {
            trace,
            gateway: gateway.to_owned(),
            keep,
            at: self.now,
            spans,
            early,
            effective: None,
        };
        self.judgements.push(judgement);
        (keep, self.judgements.len() as u32 - 1)
    }

    /// A judgement was acted on, or another process knows of it.
    pub fn take_effect(&mut self, judgement: u32) {
        self.judgements[judgement as usize].effective.get_or_insert(self.now);
    }

    /// Spans go to another gateway because its owner changed.
    pub fn move_spans(&mut self, spans: impl Iterator<Item = SpanRef>, to: &Name) {
        for span in spans {
            let first = self.moves.insert((span, Name::clone(to)));
            self.moved = [self.moved[0] + 1, self.moved[1] + u64::from(first)];
        }
    }

    /// Spans in parcels, and how many of them went where they went for the first time.
    pub fn moved(&self) -> [u64; 2] {
        self.moved
    }

    /// Spans go to a gateway, once more if `again`.
    pub fn carry(&mut self, spans: impl Iterator<Item = SpanRef>, to: &Name, again: bool) {
        for span in spans {
            self.carried += u64::from(again);
            self.landed.entry(span).or_insert_with(|| Name::clone(to));
        }
    }

    /// Spans that were sent once more, and those that were decided elsewhere than where they came in.
    pub fn traffic(&self) -> [u64; 2] {
        let mut gone = BTreeSet::new();
        for judged in self.judgements.iter().filter(|judged| judged.effective.is_some()) {
            let spans =
                judged.spans.iter().map(|span| SpanRef { trace: judged.trace as u16, span: *span });
            let elsewhere = |span: &SpanRef| {
                self.landed.get(span).is_some_and(|name| **name != *judged.gateway)
            };
            gone.extend(spans.filter(elsewhere));
        }
        [self.carried, gone.len() as u64]
    }

    /// The backend got a span.
    pub fn export(&mut self, span: SpanRef) {
        self.span(span).exported += 1;
    }

    /// A rule of the state machine was broken.
    pub fn blame(&mut self, key: Option<TraceKey>, note: String) {
        let trace = key.map_or(u32::MAX, |key| self.traces[self.by_key[&key]].number);
        self.broken.push(Violation { kind: Kind::Broken, trace, note });
    }

    /// Whether every trace has been decided.
    pub fn is_decided(&self) -> bool {
        let decided = |trace: usize| {
            self.judgements.iter().any(|judged| judged.trace == trace && judged.effective.is_some())
        };
        (0..self.traces.len()).all(|trace| decided(trace) || !self.traces[trace].is_due())
    }

    /// Spans exported more than once, and spans exported.
    pub fn twice(&self) -> (u64, u64) {
        let spans = || self.traces.iter().flat_map(|trace| &trace.spans);
        let twice = spans().map(|span| u64::from(span.exported.saturating_sub(1))).sum();
        (twice, spans().filter(|span| span.exported > 0).count() as u64)
    }

    /// How long after its time each trace was decided.
    pub fn delays(&self) -> Vec<u64> {
        let first = |judged: &Judgement| self.traces[judged.trace].first();
        let delay =
            |judged: &Judgement| Some(judged.effective?.saturating_sub(first(judged)? + WAIT));
        self.judgements.iter().filter_map(delay).collect()
    }

    /// Everything that went wrong.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = self.broken.clone();
        for (index, trace) in self.traces.iter().enumerate() {
            let judged: Vec<_> = self
                .judgements
                .iter()
                .filter(|judged| judged.trace == index && judged.effective.is_some())
                .collect();
            trace.check(&judged, &self.contacts, &mut found);
        }
        found
    }

    fn span(&mut self, span: SpanRef) -> &mut SpanTruth {
        &mut self.traces[usize::from(span.trace)].spans[usize::from(span.span)]
    }
}

impl TraceTruth {
    fn first(&self) -> Option<u64> {
        self.spans.iter().filter(|span| !span.orphan).filter_map(|span| span.taken).min()
    }

    fn is_due(&self) -> bool {
        self.first().is_some()
    }

    fn check(&self, judged: &[&Judgement], contacts: &Contacts, found: &mut Vec<Violation>) {
        let mut report =
            |kind, note: String| found.push(Violation { kind, trace: self.number, note });
        let Some(first) = self.first() else {
            return;
        };
        if judged.is_empty() {
            report(Kind::Wedge, String::new());
        }
        if judged.len() > 1 {
            let same = judged.iter().all(|one| one.keep == judged[0].keep);
            report(if same { Kind::Double } else { Kind::Contra }, format!("{judged:?}"));
        }
        let effective = judged.iter().filter_map(|one| one.effective).min();
        let limit = first + WAIT + LATE;
        if effective.is_some_and(|at| at > limit) {
            let stranded =
                |span: &SpanTruth| contacts.back(span.agent, limit - AGENT_SILENT, limit).is_none();
            let kind = if self.spans.iter().all(stranded) { Kind::Stranded } else { Kind::Late };
            report(kind, format!("{judged:?}"));
        }
        for one in judged.iter().filter(|one| !one.early) {
            let missing = self.spans.iter().enumerate().filter(|(index, span)| {
                let before = span.taken.is_some_and(|taken| taken + IN_FLIGHT <= one.at);
                before && !span.orphan && !one.spans.contains(&(*index as u16))
            });
            let stranded = |span: &SpanTruth| {
                let back = contacts.back(span.agent, span.taken.unwrap_or_default(), one.at);
                back.is_none_or(|back| one.at < back + IN_FLIGHT)
            };
            let missing: Vec<_> =
                missing.map(|(index, span)| (index, span.taken, stranded(span))).collect();
            if !missing.is_empty() {
                let all = missing.iter().all(|(.., stranded)| *stranded);
                let kind = if all { Kind::Stranded } else { Kind::Split };
                report(kind, format!("without {missing:?}: {one:?}"));
            }
        }
        let kept = judged.iter().any(|one| one.keep);
        let missing = |span: &SpanTruth| span.taken.is_some() && !span.orphan && span.exported == 0;
        if judged.first().is_some_and(|one| one.keep) && self.spans.iter().any(missing) {
            let lost: Vec<_> =
                self.spans.iter().enumerate().filter(|(_, span)| missing(span)).collect();
            report(Kind::Lost, format!("{lost:?} {judged:?}"));
        }
        if !kept && self.spans.iter().any(|span| span.exported > 0) {
            report(Kind::Leaked, format!("{judged:?}"));
        }
    }
}

impl SpanTruth {
    fn of(agent: usize) -> Self {
        Self { agent, ..Self::default() }
    }
}

impl Contacts {
    /// Since when a gateway has answered an agent without a gap of [`AGENT_SILENT`] after `from`: zero if
    /// there was no such gap, `None` if it goes on at `to`.
    fn back(&self, agent: usize, from: u64, to: u64) -> Option<u64> {
        let times = &self.0[agent];
        let times = &times[times.partition_point(|at| *at <= from)..];
        let times = &times[..times.partition_point(|at| *at <= to)];
        let (mut last, mut back) = (from, 0);
        for at in times {
            if *at >= last + AGENT_SILENT {
                back = *at;
            }
            last = *at;
        }
        (to < last + AGENT_SILENT).then_some(back)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} trace {}: {}", self.kind, self.trace, self.note)
    }
}
