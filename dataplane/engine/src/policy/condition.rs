//! OTTL conditions within their bounds, and one on a span, asked of its bytes wherever spans are chosen.

use super::limits::{MAX_CONDITION_BYTES, MAX_CONDITION_PATTERNS, MAX_REGEX_BYTES};
use super::ottl::{self, Context, Expression, Failed, Subject};
use crate::scan::Group;

/// A condition that was understood.
#[derive(Debug, Clone)]
pub struct Condition(Expression);

/// A condition asks something of a value that a value of its type cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is not understood, with its line and column.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("is empty: write a condition, or leave it out".to_owned());
        }
        let (bytes, wrong) = pattern_bytes([text]);
        match wrong {
            Some(wrong) if text.len() <= MAX_CONDITION_BYTES => Err(wrong),
            _ => parse(text, Context::Span, bytes).map(Self),
        }
    }

    /// Whether it holds for a span.
    ///
    /// # Errors
    /// When a value of the span has a type that cannot answer.
    pub fn holds(&self, group: &Group<'_>, span: &[u8]) -> Result<bool, Unanswered> {
        self.0.holds(&Subject::new(group, span)).map_err(|Failed| Unanswered)
    }
}

/// A condition parsed, or what is wrong with it and where. Each of its patterns may take `bytes`.
pub(super) fn parse(text: &str, context: Context, bytes: usize) -> Result<Expression, String> {
    if text.len() > MAX_CONDITION_BYTES {
        let length = text.len();
        return Err(format!("has {length} bytes, at most {MAX_CONDITION_BYTES} are possible"));
    }
    ottl::parse(text, context, bytes).map_err(|refusal| refusal.explain(text))
}

/// How many bytes each pattern of conditions may take that are compiled together, and what is wrong when they
/// have too many.
pub(super) fn pattern_bytes<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> (usize, Option<String>) {
    let patterns: usize = texts.into_iter().map(|text| text.matches("IsMatch").count()).sum();
    let wrong = (patterns > MAX_CONDITION_PATTERNS).then(|| {
        format!(
            "calls IsMatch {patterns} times, at most {MAX_CONDITION_PATTERNS} are possible: join \
             patterns with |"
        )
    });
    (MAX_REGEX_BYTES / patterns.clamp(1, MAX_CONDITION_PATTERNS), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Headers;

    fn asked(condition: &str, span: &[u8]) -> Result<bool, Unanswered> {
        let headers = Headers::whole(&[]);
        let group = Group { resource: headers, scope: headers };
        Condition::compile(condition).unwrap().holds(&group, span)
    }

    #[test]
    fn a_condition_is_asked_of_the_bytes_of_a_span() {
        let named_pay = [0x2a, 3, b'p', b'a', b'y'];
        assert_eq!(asked("name == \"pay\"", &named_pay), Ok(true));
        assert_eq!(asked("name != \"pay\"", &named_pay), Ok(false));
        assert_eq!(asked("name == \"pay\"", &[]), Ok(false));
        assert_eq!(asked("attributes[\"a\"] + 1 > 2", &named_pay), Err(Unanswered));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let refused = |text: &str| Condition::compile(text).unwrap_err();
        assert!(refused(" ").contains("is empty"));
        assert!(refused(&"x".repeat(3000)).contains("at most 2048"));
        assert!(refused(&"IsMatch(name, \"a\") and ".repeat(17)).contains("17 times"));
        assert!(refused("name ==").contains("column"), "{}", refused("name =="));
    }
}
