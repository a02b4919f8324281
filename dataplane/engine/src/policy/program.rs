//! A compiled list of policies: facts of spans from their bytes, and the verdict on a trace from its facts.

use super::attributes::{Attributes, Home};
use super::grant::Budgets;
use super::predicates::{Asked, Context, Predicates};
use super::probability::Probability;
use super::record::Records;
use crate::facts::{SpanFacts, TraceFacts};
use crate::scan::{Group, Headers};
use crate::wire::{Reader, Value};

/// The fields that facts are taken from, by message.
mod field {
    pub(super) const RESOURCE_SPANS_RESOURCE: u32 = 1;
    pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(super) const SPAN_TRACE_STATE: u32 = 3;
    pub(super) const SPAN_PARENT_ID: u32 = 4;
    pub(super) const SPAN_START: u32 = 7;
    pub(super) const SPAN_END: u32 = 8;
    pub(super) const SPAN_ATTRIBUTES: u32 = 9;
    pub(super) const SPAN_STATUS: u32 = 15;
    pub(super) const SPAN_FLAGS: u32 = 16;
    pub(super) const STATUS_CODE: u32 = 3;
}

/// Policies that are ready to judge traces; [`compile`](super::compile()) makes it.
///
/// Bits of attribute tests mean something only to the program that set them: a trace is judged by the
/// program that took its facts.
#[derive(Debug)]
pub struct Program {
    pub(super) names: Vec<String>,
    pub(super) predicates: Predicates,
    /// Every policy once, each after those that it names.
    pub(super) steps: Vec<Step>,
    /// The policies whose yes drops, one bit a policy.
    pub(super) drops: u64,
    /// The policies whose yes keeps, one bit a policy.
    pub(super) votes: u64,
    /// The policies that are only counted, and those of them whose yes would drop, one bit a policy.
    pub(super) shadows: u64,
    pub(super) shadow_drops: u64,
    pub(super) budgets: Budgets,
    pub(super) records: Records,
    /// Tells this program from others, as far as notes have room for it.
    pub(super) stamp: u32,
    /// The least randomness that each probabilistic policy keeps, each number once, lowest first, but for 0,
    /// which is no chance. Only where thresholds are recorded.
    pub(super) levels: Vec<u64>,
}

/// A policy to evaluate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// The bit of its answer.
    pub(super) bit: u64,
    pub(super) question: Question,
}

/// What a policy asks of the facts and of the answers before it; sets of policies are one bit a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Question {
    Always,
    Status {
        any_of: u8,
    },
    Latency {
        above_ms: u64,
        up_to_ms: u64,
    },
    Probability(Probability),
    Predicate {
        bit: u64,
        invert: bool,
    },
    Condition {
        bit: u64,
        failure: u64,
    },
    Spans {
        min: u32,
        max: u32,
    },
    /// The budget with this number; asked only when nothing else keeps the trace.
    Budget(usize),
    All(u64),
    Any(u64),
    None(u64),
}

/// What becomes of a trace, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Whether the trace is kept.
    pub keep: bool,
    /// The policy that decided: the first that drops it, else the first with a vote that keeps it; `None`
    /// when no policy wanted the trace.
    pub policy: Option<u16>,
    /// All policies with a vote, dropping or only counted that said yes: bit n is policy n.
    pub matched: u64,
    /// Those that are only counted and would have decided otherwise, had they a vote.
    pub changed: u64,
}

impl Program {
    /// The names of the policies in the order of their list; the numbers in a [`Verdict`] are places in it.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The attribute tests that a resource passes, given the fields of its `ResourceSpans` other than the
    /// spans.
    pub fn resource_bits(&self, headers: &Headers<'_>) -> u64 {
        let attributes = &self.predicates.attributes;
        if attributes.is_empty() {
            return 0;
        }
        let (mut bits, mut seen) = (0, 0);
        let mut reader = Reader::new(headers.bytes());
        while let Ok(Some(found)) = reader.next_field() {
            // Several resources merge: their attributes are one list.
            if let (field::RESOURCE_SPANS_RESOURCE, Value::Bytes(resource)) =
                (found.number, found.value)
            {
                bits |= attributes_of(attributes, resource, &mut seen);
            }
        }
        bits
    }

    /// The facts of a span, given the body of its message. Of repeated fields the last counts. Bytes that
    /// are no span give the facts of what can be read before them.
    #[inline]
    pub fn span_facts(&self, span: &[u8]) -> SpanFacts {
        let attributes = &self.predicates.attributes;
        let tests_attributes = !attributes.is_empty();
        let mut facts = SpanFacts { root: true, ..SpanFacts::default() };
        let (mut code, mut seen, mut rest) = (0, 0, span);
        let mut context = Context::default();
        loop {
            // Most fields of a span are attributes of less than 128 bytes, in a row.
            while let Some((pair, after)) = short_attribute(rest) {
                rest = after;
                if tests_attributes {
                    facts.bits |= attributes.observe(pair, Home::Span, &mut seen);
                }
            }
            let mut reader = Reader::new(rest);
            let Ok(Some(found)) = reader.next_field() else {
                break;
            };
            rest = rest.get(found.raw.len()..).unwrap_or_default();
            match (found.number, found.value) {
                (field::SPAN_ATTRIBUTES, Value::Bytes(pair)) => {
                    facts.bits |= attributes.observe(pair, Home::Span, &mut seen);
                }
                // As in the Collector, an ID of zeros is no ID.
                (field::SPAN_PARENT_ID, Value::Bytes(id)) => {
                    facts.root = id.iter().all(|b| *b == 0)
                }
                (field::SPAN_START, Value::Fixed64(time)) => facts.start_ns = time,
                (field::SPAN_END, Value::Fixed64(time)) => facts.end_ns = time,
                (field::SPAN_STATUS, Value::Bytes(status)) => code = status_code(status, code),
                (field::SPAN_TRACE_STATE, Value::Bytes(state)) => context.state = state,
                (field::SPAN_FLAGS, Value::Fixed32(flags)) => context.flags = flags,
                _ => {}
            }
        }
        if self.predicates.ask_context {
            facts.bits |= self.predicates.context_bits(&context);
        }
        if self.records.threshold {
            facts.drawn = self.drawn(context.state);
        }
        facts.statuses = if code <= 2 { 1 << code } else { 0 };
        facts
    }

    /// Whether there are conditions that are to be asked of every span.
    #[inline]
    pub fn asks_conditions(&self) -> bool {
        self.predicates.ask_conditions()
    }

    /// What the conditions say of a span of a trace that has the bits `known`.
    pub fn ask(&self, group: &Group<'_>, span: &[u8], known: u64) -> Asked {
        self.predicates.asked(group, span, known)
    }

    /// The policies that say yes to a trace, with all budgets saying no.
    #[inline]
    pub(super) fn answers(&self, facts: &TraceFacts) -> u64 {
        let mut yes = 0;
        for step in &self.steps {
            if step.question.holds(facts, yes) {
                yes |= step.bit;
            }
        }
        yes
    }

    /// The verdict on a trace, as far as it does not depend on budgets: they grant nothing.
    pub fn decide(&self, facts: &TraceFacts) -> Verdict {
        let yes = self.answers(facts);
        let matched = yes & (self.drops | self.votes | self.shadows);
        match (first(yes & self.drops), first(yes & self.votes)) {
            (Some(policy), _) => self.verdict(false, Some(policy), matched),
            (None, policy) => self.verdict(policy.is_some(), policy, matched),
        }
    }

    /// A verdict by a policy, when these said yes.
    pub fn verdict(&self, keep: bool, policy: Option<u16>, matched: u64) -> Verdict {
        let changed = match (keep, policy) {
            (true, _) => matched & self.shadow_drops,
            (false, None) => matched & self.shadows & !self.shadow_drops,
            // What a Drop policy drops no vote keeps.
            (false, Some(_)) => 0,
        };
        Verdict { keep, policy, matched, changed }
    }
}

impl Question {
    #[inline]
    pub(super) fn holds(&self, facts: &TraceFacts, yes: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Status { any_of } => facts.statuses & any_of != 0,
            Self::Latency { above_ms, up_to_ms } => {
                facts.duration_ms().is_some_and(|ms| ms > *above_ms && ms <= *up_to_ms)
            }
            Self::Probability(probability) => probability.keeps(facts),
            Self::Predicate { bit, invert } => (facts.bits & bit != 0) != *invert,
            Self::Condition { bit, failure } => facts.bits & bit != 0 && facts.bits & failure == 0,
            Self::Spans { min, max } => (*min..=*max).contains(&facts.spans),
            Self::Budget(_) => false,
            Self::All(policies) => yes & policies == *policies,
            Self::Any(policies) => yes & policies != 0,
            Self::None(policies) => yes & policies == 0,
        }
    }
}

/// The tests that the attributes of a resource pass.
fn attributes_of(attributes: &Attributes, resource: &[u8], seen: &mut u64) -> u64 {
    let mut bits = 0;
    let mut reader = Reader::new(resource);
    while let Ok(Some(found)) = reader.next_field() {
        if let (field::RESOURCE_ATTRIBUTES, Value::Bytes(pair)) = (found.number, found.value) {
            bits |= attributes.observe(pair, Home::Resource, seen);
        }
    }
    bits
}

/// An attribute of less than 128 bytes at the beginning of a span's fields, and what follows it.
#[inline]
fn short_attribute(fields: &[u8]) -> Option<(&[u8], &[u8])> {
    const TAG: u8 = (field::SPAN_ATTRIBUTES << 3) as u8 | 2;
    match fields {
        [TAG, length @ ..0x80, rest @ ..] => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}

/// The status code after another `Status` message was merged: one without a code leaves the earlier.
#[inline]
fn status_code(status: &[u8], mut code: u32) -> u32 {
    let mut reader = Reader::new(status);
    while let Ok(Some(found)) = reader.next_field() {
        if let (field::STATUS_CODE, Value::Varint(value)) = (found.number, found.value) {
            // Enums are 32 bits wide; decoders cut off the rest.
            code = value as u32;
        }
    }
    code
}

/// The lowest of a set of policies.
fn first(policies: u64) -> Option<u16> {
    (policies != 0).then(|| policies.trailing_zeros() as u16)
}

#[cfg(test)]
mod tests;
