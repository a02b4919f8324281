//! Conditions in the OpenTelemetry Transformation Language, as far as tail sampling needs it: parsed once,
//! with the place of everything that is not understood, and evaluated on the bytes of a span.
//!
//! What a condition means is what OTTL's own documentation says. What is not supported is refused when the
//! manifest is checked, never read as something else. `docs/policies.md` has the table of both.

mod compare;
mod convert;
mod duration;
mod evaluate;
mod expression;
mod function;
mod parser;
mod path;
mod subject;
#[cfg(test)]
mod tests;
mod token;
mod value;

pub(super) use evaluate::Failed;
pub(super) use expression::Expression;
pub(super) use parser::parse;
pub(super) use subject::Subject;

/// What a condition is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Each span.
    Span,
    /// Each event of each span.
    SpanEvent,
}

/// Why a condition is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The byte of the condition at which the trouble begins.
    pub(super) at: usize,
    /// What is wrong and what to do about it.
    pub(super) message: String,
}

/// Characters shown before and after the place of a refusal.
const EXCERPT_CHARS: usize = 24;

impl Refusal {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// The refusal with its line and column, and the place marked in what stands around it.
    pub(super) fn explain(&self, condition: &str) -> String {
        let at =
            (0..=self.at.min(condition.len())).rev().find(|at| condition.is_char_boundary(*at));
        let (before, after) = condition.split_at(at.unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let before = before.get(start..).unwrap_or_default();
        let column = before.chars().count() + 1;
        let after = after.lines().next().unwrap_or_default();
        let skipped = before.chars().count().saturating_sub(EXCERPT_CHARS);
        let head: String = before.chars().skip(skipped).collect();
        let tail: String = after.chars().take(EXCERPT_CHARS).collect();
        let dots = if skipped > 0 { "…" } else { "" };
        let gap = if head.is_empty() || head.ends_with(' ') { "" } else { " " };
        let more = if tail.len() < after.len() { "…" } else { "" };
        let message = &self.message;
        format!("line {line}, column {column}: {message}: {dots}{head}{gap}>>> {tail}{more}")
    }
}
