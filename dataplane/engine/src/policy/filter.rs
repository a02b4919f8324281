//! Conditions that drop spans one by one, before anything is known of their trace.

use thiserror::Error;

use super::condition::{parse, pattern_bytes};
use super::limits::MAX_CONDITIONS;
use super::ottl::{self, Context, Expression, Subject};
use crate::scan::Group;

/// Conditions in the OpenTelemetry Transformation Language, of which each drops a span for which it holds.
#[derive(Debug, Clone)]
pub struct Filter {
    conditions: Vec<Expression>,
}

/// What is wrong with a list of conditions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FilterProblem {
    /// Which condition; none when it is the list as a whole.
    pub place: Option<usize>,
    /// What, where in it, and what to do about it.
    pub message: String,
}

impl Filter {
    /// Reads conditions, or says everything that is wrong with them.
    ///
    /// # Errors
    /// With at least one problem.
    pub fn new(texts: &[String]) -> Result<Self, Vec<FilterProblem>> {
        let mut problems = Vec::new();
        let mut report = |place, message| problems.push(FilterProblem { place, message });
        if texts.len() > MAX_CONDITIONS {
            let many = texts.len();
            report(None, format!("has {many} conditions, at most {MAX_CONDITIONS} are possible"));
        }
        let (bytes, wrong) = pattern_bytes(texts.iter().map(String::as_str));
        if let Some(wrong) = wrong {
            report(None, wrong);
        }
        let mut conditions = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            match parse(text, Context::Span, bytes) {
                Ok(condition) => conditions.push(condition),
                Err(message) => report(Some(place), message),
            }
        }
        if problems.is_empty() { Ok(Self { conditions }) } else { Err(problems) }
    }

    /// Whether a condition holds for a span, and how many could not be answered before one did: a value has
    /// another type than they ask for. Those do not hold.
    pub fn holds(&self, group: &Group<'_>, span: &[u8]) -> (bool, u32) {
        let subject = Subject::new(group, span);
        let mut failures = 0;
        for condition in &self.conditions {
            match condition.holds(&subject) {
                Ok(true) => return (true, failures),
                Ok(false) => {}
                Err(ottl::Failed) => failures += 1,
            }
        }
        (false, failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Headers;

    #[test]
    fn a_condition_drops_a_span_and_one_that_cannot_be_answered_does_not() {
        // A name "ping" and an attribute n = "x"; the resource has service.name = "shop".
        let span = [&[0x2a, 4][..], b"ping", &[0x4a, 8, 0x0a, 1], b"n", &[0x12, 3, 0x0a, 1], b"x"];
        let resource =
            [&[0x0a, 24, 0x0a, 22, 0x0a, 12][..], b"service.name", &[0x12, 6, 0x0a, 4], b"shop"];
        let (span, resource) = (span.concat(), resource.concat());
        let group = Group { resource: Headers::whole(&resource), scope: Headers::whole(&[]) };
        let cases: [(&[&str], (bool, u32)); 6] = [
            (&[r#"name == "ping""#], (true, 0)),
            (&[r#"name == "pong""#], (false, 0)),
            (&[r#"name == "pong""#, r#"attributes["n"] == "x""#], (true, 0)),
            (&[r#"resource.attributes["service.name"] == "shop""#], (true, 0)),
            (&[r#"attributes["n"] + 1 == 2"#], (false, 1)),
            (&[r#"attributes["n"] + 1 == 2"#, "IsRootSpan()"], (true, 1)),
        ];
        for (texts, expected) in cases {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(Filter::new(&texts).unwrap().holds(&group, &span), expected, "{texts:?}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let texts = vec![r#"name == "a""#.to_owned(), "nonsense ==".to_owned(), "(".to_owned()];
        let problems = Filter::new(&texts).unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| problem.place).collect();
        assert_eq!(places, [Some(1), Some(2)]);
        assert!(Filter::new(&vec!["IsRootSpan()".to_owned(); 33]).is_err());
    }
}
