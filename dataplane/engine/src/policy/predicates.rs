//! The questions about spans and resources whose answers are bits: each is asked once, on the bytes as they
//! arrive, and a decision reads the bits of all spans joined.

use super::attributes::{Attributes, Leaf, bit};
use super::trace_state;

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
            _ => false,
        }
    }
}

impl Predicates {
    /// The n-th predicate gets bit n. There must be at most 64, which the compiler sees to; further ones
    /// would share the bit 0 of nothing and never match.
    pub(super) fn new(predicates: Vec<Predicate>) -> Self {
        let (mut leaves, mut states, mut sampled) = (Vec::new(), Vec::new(), 0);
        for (place, predicate) in predicates.into_iter().enumerate() {
            let bit = bit(place);
            match predicate {
                Predicate::Attribute(leaf) => leaves.push((bit, leaf)),
                Predicate::State { key, values } => states.push((bit, key, values)),
                Predicate::Sampled => sampled |= bit,
            }
        }
        let ask_context = !states.is_empty() || sampled != 0;
        Self { attributes: Attributes::new(leaves), ask_context, states, sampled }
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
}
