//! Kept spans tell in their own bytes why and how likely they were kept: `tailsampling.policy` as an
//! attribute of their scope, as the OpenTelemetry Collector has it, and the sampling threshold `th` in their
//! trace state, as OpenTelemetry's probability sampling has it.

use super::copy::{Copy, put_bytes};
use super::redact::{put_attribute, put_flag};
use super::value::key_of;
use crate::policy::probability::hashed_randomness;
use crate::policy::trace_state::{self, MEMBERS_MAX, VALUE_BYTES_MAX};
use crate::scan::TraceId;
use crate::wire::{Reader, Value as Wire};

/// The largest randomness: it has 56 bits.
pub(crate) const RANDOMNESS_MAX: u64 = (1 << 56) - 1;

/// Hexadecimal digits of 56 bits.
const DIGITS: usize = 14;

/// OpenTelemetry's member of a trace state.
const MEMBER: &[u8] = b"ot";

/// The scope in `ScopeSpans`, its attributes, and the trace state of a span.
const SCOPE: u32 = 1;
const SCOPE_ATTRIBUTES: u32 = 3;
const TRACE_STATE: u32 = 3;

/// The attributes that the Collector writes, with the names that it gives them.
const POLICY: &str = "tailsampling.policy";
const PART: &str = "tailsampling.composite_policy";
const LATE: &str = "tailsampling.cached_decision";

/// What kept spans tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The policy that kept them.
    pub policy: Option<String>,
    /// The part of it that did, of a composite policy.
    pub part: Option<String>,
    /// They came after the decision.
    pub late: bool,
    /// How likely they were kept; `None` leaves the trace state alone.
    pub chance: Option<Chance>,
}

/// How likely a trace was kept, over all the randomness that it could have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chance {
    /// Nobody knows: a budget kept it, or policies whose chances are of different kinds.
    Unknown,
    /// Whatever its randomness is.
    Always,
    /// By the randomness that its trace state, or else its ID, has: when it is at least `least`.
    Drawn {
        /// The threshold.
        least: u64,
    },
    /// By a hash of its ID, which stands for a randomness of at least `least`.
    Hashed {
        /// The threshold.
        least: u64,
        /// The hash of the salt.
        salt: u64,
    },
}

/// What OpenTelemetry's member of a trace state says.
#[derive(Debug, Default)]
struct Said<'a> {
    threshold: Option<u64>,
    randomness: Option<u64>,
    others: Vec<&'a [u8]>,
}

/// The randomness and the threshold in the trace state of a span; `None` when it says neither.
#[inline]
pub(crate) fn said(state: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    if state.is_empty() {
        return None;
    }
    let said = Said::read(trace_state::value(state, MEMBER)?);
    let both = (said.randomness, said.threshold);
    (both != (None, None)).then_some(both)
}

/// The randomness of a trace ID: its last 56 bits.
pub(crate) fn of_id(id: &TraceId) -> u64 {
    let (_, low) = id.split_at(8);
    low.first_chunk().map_or(0, |low| u64::from_be_bytes(*low)) & RANDOMNESS_MAX
}

// === impl Said ===

impl<'a> Said<'a> {
    /// What cannot be read of sampling is as good as unsaid.
    fn read(value: &'a [u8]) -> Self {
        let mut said = Self::default();
        for part in value.split(|byte| *byte == b';').filter(|part| !part.is_empty()) {
            match part {
                [b't', b'h', b':', digits @ ..] => {
                    said.threshold = said.threshold.or(number(digits));
                }
                [b'r', b'v', b':', digits @ ..] => {
                    let exact = number(digits).filter(|_| digits.len() == DIGITS);
                    said.randomness = said.randomness.or(exact);
                }
                other => said.others.push(other),
            }
        }
        said
    }

    /// The member's value; `None` when there is nothing to say.
    fn written(&self) -> Option<Vec<u8>> {
        let threshold = self.threshold.map(|threshold| {
            let digits = format!("{threshold:014x}");
            let digits = digits.trim_end_matches('0');
            format!("th:{}", if digits.is_empty() { "0" } else { digits }).into_bytes()
        });
        let randomness = self.randomness.map(|value| format!("rv:{value:014x}").into_bytes());
        let own = threshold.into_iter().chain(randomness);
        let parts: Vec<Vec<u8>> = own.chain(self.others.iter().map(|part| part.to_vec())).collect();
        (!parts.is_empty()).then(|| parts.join(&b';'))
    }

    /// Says how likely the span was kept, on top of what was said before.
    fn tell(&mut self, chance: Chance, id: &TraceId) {
        let randomness = self.randomness.unwrap_or_else(|| of_id(id));
        let before = self.threshold;
        // What should not have been sampled in the first place says nothing of how likely it was.
        let consistent = before.is_none_or(|threshold| threshold <= randomness);
        self.threshold = match chance {
            Chance::Always if consistent => Some(before.unwrap_or_default()),
            Chance::Drawn { least } if consistent && least <= randomness => {
                Some(least.max(before.unwrap_or_default()))
            }
            Chance::Hashed { least, salt } if before.is_none() && self.randomness.is_none() => {
                self.randomness = Some(hashed_randomness(salt, id));
                Some(least)
            }
            _ => None,
        };
    }
}

/// One to fourteen hexadecimal digits in lower case: the highest of fourteen.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let digit = |value: u64, byte: &u8| match byte {
        b'0'..=b'9' => Some(value << 4 | u64::from(byte - b'0')),
        b'a'..=b'f' => Some(value << 4 | u64::from(byte - b'a' + 10)),
        _ => None,
    };
    let value = digits.iter().try_fold(0, digit)?;
    Some(value << (4 * (DIGITS - digits.len())))
}

/// A trace state that tells how likely its span was kept; `None` when it stays as it is. One that breaks the
/// rules stays, since nobody can say what it means.
fn told(state: &[u8], id: &TraceId, chance: Chance) -> Option<Vec<u8>> {
    let member = trace_state::find(state, MEMBER).ok()?;
    let mut said = Said::read(member.unwrap_or_default());
    said.tell(chance, id);
    let mut written = said.written();
    if written.as_ref().is_some_and(|written| written.len() > VALUE_BYTES_MAX) {
        // Others' parts leave no room: the truth is that nothing is told.
        written = Said { threshold: None, ..Said::read(member?) }.written();
    }
    if written.as_deref() == member {
        return None;
    }
    let own = written.map(|value| [MEMBER, b"=", &value].concat());
    let others = trace_state::members(state).filter(|(key, _)| *key != MEMBER);
    let others = others.map(|(key, value)| [key, b"=", value.unwrap_or_default()].concat());
    // What was changed last stands first, and the last ones give way.
    let all: Vec<Vec<u8>> = own.into_iter().chain(others).take(MEMBERS_MAX).collect();
    Some(all.join(&b','))
}

// === impl Mark ===

impl Mark {
    /// Whether scopes are changed.
    pub(super) fn names_policy(&self) -> bool {
        self.policy.is_some() || self.part.is_some() || self.late
    }

    /// Appends the fields of a `ScopeSpans` other than its spans.
    pub fn scope(&self, fields: &[u8], out: &mut Vec<u8>) {
        if !self.names_policy() {
            out.extend_from_slice(fields);
            return;
        }
        // Several scopes merge; one message is what every reader understands.
        let mut scope = Vec::new();
        let mut copy = Copy::new(fields, out);
        while let Some(field) = copy.next_field() {
            if let (SCOPE, Wire::Bytes(body)) = (field.number, field.value) {
                copy.replace();
                forget(body, &mut scope);
            }
        }
        let out = copy.finish();
        if let Some(policy) = &self.policy {
            put_attribute(&mut scope, SCOPE_ATTRIBUTES, POLICY, policy);
        }
        if let Some(part) = &self.part {
            put_attribute(&mut scope, SCOPE_ATTRIBUTES, PART, part);
        }
        if self.late {
            put_flag(&mut scope, SCOPE_ATTRIBUTES, LATE);
        }
        put_bytes(out, SCOPE, &scope);
    }

    /// Appends the body of a span.
    pub fn span(&self, span: &[u8], id: &TraceId, out: &mut Vec<u8>) {
        let state = self.chance.and_then(|chance| {
            let state = last_state(span);
            told(state, id, chance)
        });
        let Some(state) = state else {
            out.extend_from_slice(span);
            return;
        };
        let mut copy = Copy::new(span, out);
        while let Some(field) = copy.next_field() {
            if field.number == TRACE_STATE {
                copy.replace();
            }
        }
        let out = copy.finish();
        if !state.is_empty() {
            put_bytes(out, TRACE_STATE, &state);
        }
    }
}

/// The scope without what another sampler wrote into it before.
fn forget(scope: &[u8], out: &mut Vec<u8>) {
    let mut copy = Copy::new(scope, out);
    while let Some(field) = copy.next_field() {
        if let (SCOPE_ATTRIBUTES, Wire::Bytes(pair)) = (field.number, field.value)
            && [POLICY, PART, LATE].iter().any(|key| key.as_bytes() == key_of(pair))
        {
            copy.replace();
        }
    }
    copy.finish();
}

fn last_state(span: &[u8]) -> &[u8] {
    let (mut state, mut reader) = (&[][..], Reader::new(span));
    while let Ok(Some(field)) = reader.next_field() {
        if let (TRACE_STATE, Wire::Bytes(body)) = (field.number, field.value) {
            state = body;
        }
    }
    state
}

#[cfg(test)]
#[path = "tests/sampling.rs"]
mod tests;
