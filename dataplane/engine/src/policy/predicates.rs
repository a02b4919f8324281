//! The questions about spans and resources whose answers are bits: each is asked once, on the bytes as they
//! arrive, and a decision reads the bits of all spans joined.

use super::ast::ErrorMode;
use super::attributes::{Attributes, Leaf, bit};
use super::ottl::{Expression, Failed, Subject};
use super::trace_state;
use crate::scan::Group;

/// The W3C trace flag that says that the caller sampled the trace.
const SAMPLED: u32 = 1;

/// A question about a span or its resource.
#[derive(Debug, Clone)]
pub(super) enum Predicate {
    /// A test of an attribute.
    Attribute(Leaf),
    /// The trace state has the key with one of the values.
    State { key: String, values: Vec<String> },
    /// The flag "sampled".
    Sampled,
    /// Any of some conditions. With [`ErrorMode::Propagate`] the next bit says that one of them failed.
    Condition(Conditions),
    /// That next bit.
    Failure,
}

/// The conditions of one policy.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    /// As they are written, those on spans and those on events.
    pub(super) texts: [Vec<String>; 2],
    pub(super) on_span: Vec<Expression>,
    pub(super) on_event: Vec<Expression>,
    pub(super) mode: ErrorMode,
}

/// What conditions say of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// The bits of those that hold, for the facts of the trace.
    pub bits: u64,
    /// How many could not be answered, of those that are counted.
    pub failures: u32,
}

/// All predicates of a program.
#[derive(Debug)]
pub(super) struct Predicates {
    pub(super) attributes: Attributes,
    /// Whether anything is asked of trace state or flags.
    pub(super) ask_context: bool,
    states: Vec<(u64, String, Vec<String>)>,
    /// The bit of [`Predicate::Sampled`], if it is asked.
    sampled: u64,
    /// With the bits for yes and for a failure.
    conditions: Vec<(u64, u64, Conditions)>,
}

/// What a span carries of the context in which it was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context<'a> {
    pub(super) state: &'a [u8],
    pub(super) flags: u32,
}

impl Predicate {
    /// Whether both ask the same, as far as their text shows.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Attribute(a), Self::Attribute(b)) => a.same(b),
            (Self::State { key: a, values: b }, Self::State { key: c, values: d }) => {
                a == c && b == d
            }
            (Self::Sampled, Self::Sampled) => true,
            (Self::Condition(a), Self::Condition(b)) => a.texts == b.texts && a.mode == b.mode,
            _ => false,
        }
    }
}

impl Predicates {
    /// The n-th predicate gets bit n. There must be at most 64, which the compiler sees to; further ones
    /// would share the bit 0 of nothing and never match.
    pub(super) fn new(predicates: Vec<Predicate>) -> Self {
        let (mut leaves, mut states, mut sampled) = (Vec::new(), Vec::new(), 0);
        let mut conditions = Vec::new();
        for (place, predicate) in predicates.into_iter().enumerate() {
            let bit = bit(place);
            match predicate {
                Predicate::Attribute(leaf) => leaves.push((bit, leaf)),
                Predicate::State { key, values } => states.push((bit, key, values)),
                Predicate::Sampled => sampled |= bit,
                Predicate::Condition(asked) => {
                    let propagates = asked.mode == ErrorMode::Propagate;
                    let failure = if propagates { failure_bit(place) } else { 0 };
                    conditions.push((bit, failure, asked));
                }
                Predicate::Failure => {}
            }
        }
        let ask_context = !states.is_empty() || sampled != 0;
        Self { attributes: Attributes::new(leaves), ask_context, states, sampled, conditions }
    }

    /// The bits of what a span's context satisfies.
    pub(super) fn context_bits(&self, context: &Context<'_>) -> u64 {
        let mut bits = if context.flags & SAMPLED == 0 { 0 } else { self.sampled };
        if context.state.is_empty() {
            return bits;
        }
        for (bit, key, values) in &self.states {
            let found = trace_state::value(context.state, key.as_bytes());
            if found.is_some_and(|found| values.iter().any(|value| value.as_bytes() == found)) {
                bits |= bit;
            }
        }
        bits
    }

    /// Whether any condition is asked.
    #[inline]
    pub(super) fn ask_conditions(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// What conditions say of a span, but for those whose answer on the trace is known: it has the bits
    /// `known`.
    pub(super) fn asked(&self, group: &Group<'_>, span: &[u8], known: u64) -> Asked {
        let subject = Subject::new(group, span);
        let mut asked = Asked::default();
        for (yes, failure, conditions) in &self.conditions {
            // Where a failure counts, it counts whatever the spans before it said.
            let decides = match conditions.mode {
                ErrorMode::Propagate => *failure,
                ErrorMode::Silent | ErrorMode::Ignore => *yes,
            };
            if known & decides != 0 {
                continue;
            }
            match conditions.hold(&subject, &mut asked.failures) {
                Ok(true) => asked.bits |= yes,
                Ok(false) => {}
                Err(Failed) => asked.bits |= failure,
            }
        }
        asked
    }
}

impl Conditions {
    /// Whether any holds for the span or one of its events.
    fn hold(&self, subject: &Subject<'_>, failures: &mut u32) -> Result<bool, Failed> {
        if self.any(&self.on_span, subject, failures)? {
            return Ok(true);
        }
        if self.on_event.is_empty() {
            return Ok(false);
        }
        for event in subject.events() {
            if self.any(&self.on_event, &event, failures)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn any(
        &self,
        conditions: &[Expression],
        subject: &Subject<'_>,
        failures: &mut u32,
    ) -> Result<bool, Failed> {
        for condition in conditions {
            match condition.holds(subject) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(Failed) => {
                    *failures += u32::from(self.mode != ErrorMode::Silent);
                    if self.mode == ErrorMode::Propagate {
                        return Err(Failed);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// The bit of [`Predicate::Failure`] of the conditions at a place.
pub(super) fn failure_bit(place: usize) -> u64 {
    bit(place.saturating_add(1))
}
