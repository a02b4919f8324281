//! What each policy is checked for by itself, and the predicate that it needs.

use super::super::ast::ErrorMode;
use super::super::attributes::{Leaf, Test};
use super::super::condition::{self, pattern_bytes};
use super::super::limits::{
    MAX_CONDITIONS, MAX_KEY_BYTES, MAX_SALT_BYTES, MAX_VALUE_BYTES, MAX_VALUES,
};
use super::super::ottl::Context;
use super::super::predicates::{Conditions, Predicate};
use super::super::{pattern, trace_state};
use super::Compiler;

impl Compiler {
    pub(super) fn check_present(&mut self, field: &str, count: usize, what: &str) {
        if count == 0 {
            self.report(field, format!("is empty: name at least one {what}"));
        }
    }

    pub(super) fn check_latency(&mut self, threshold_ms: u64, upper_threshold_ms: Option<u64>) {
        if let Some(upper) = upper_threshold_ms.filter(|upper| *upper <= threshold_ms) {
            let message = format!(
                "{upper} ms is not above the threshold of {threshold_ms} ms, so no trace would match"
            );
            self.report("latency.upperThreshold", message);
        }
    }

    pub(super) fn check_probability(&mut self, percentage: f64, salt: &str) {
        if !(0.0..=100.0).contains(&percentage) {
            let message = format!("{percentage} is not between 0 and 100");
            self.report("probabilistic.samplingPercentage", message);
        }
        if salt.len() > MAX_SALT_BYTES {
            let message =
                format!("has {} bytes, at most {MAX_SALT_BYTES} are possible", salt.len());
            self.report("probabilistic.hashSalt", message);
        }
    }

    fn check_key(&mut self, field: &str, key: &str) {
        if key.is_empty() {
            self.report(field, "is empty");
        } else if key.len() > MAX_KEY_BYTES {
            self.report(
                field,
                format!("has {} bytes, at most {MAX_KEY_BYTES} are possible", key.len()),
            );
        }
    }

    pub(super) fn string(
        &mut self,
        key: &str,
        values: &[String],
        regex: bool,
    ) -> Option<Predicate> {
        const FIELD: &str = "stringAttribute.values";
        self.check_key("stringAttribute.key", key);
        self.check_number_of_values(FIELD, values);
        let before = self.problems.len();
        for (index, value) in values.iter().enumerate() {
            if let Err(message) = check_value(value, regex) {
                self.report(format!("{FIELD}[{index}]"), message);
            }
        }
        if self.problems.len() > before {
            return None;
        }
        let test = match regex {
            false => Test::one_of(values),
            true => match pattern::compile(values) {
                Ok(set) => Test::Patterns { sources: values.to_vec(), set },
                Err(error) => {
                    self.report(FIELD, format!("together, {error}"));
                    return None;
                }
            },
        };
        Some(attribute(key, test))
    }

    fn check_number_of_values(&mut self, field: &str, values: &[String]) {
        self.check_present(field, values.len(), "value");
        if values.len() > MAX_VALUES {
            let message = format!("has {} values, at most {MAX_VALUES} are possible", values.len());
            self.report(field, message);
        }
    }

    pub(super) fn range(&mut self, key: &str, min: Option<i64>, max: Option<i64>) -> Predicate {
        self.check_key("numericAttribute.key", key);
        if min.is_none() && max.is_none() {
            self.report("numericAttribute", "has neither minValue nor maxValue: give at least one");
        }
        let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
        if min > max {
            let message = format!("{max} is below the minValue {min}, so no trace would match");
            self.report("numericAttribute.maxValue", message);
        }
        attribute(key, Test::Range { min, max })
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) -> Predicate {
        self.check_key("booleanAttribute.key", key);
        attribute(key, Test::Bool(value))
    }

    pub(super) fn check_count(&mut self, min: Option<u32>, max: Option<u32>) {
        if min.is_none() && max.is_none() {
            self.report("spanCount", "has neither minSpans nor maxSpans: give at least one");
        }
        let (min, max) = (min.unwrap_or(0), max.unwrap_or(u32::MAX));
        if max == 0 {
            self.report("spanCount.maxSpans", "no trace has 0 spans; leave it out for no limit");
        } else if min > max {
            let message = format!("{max} is below the minSpans {min}, so no trace would match");
            self.report("spanCount.maxSpans", message);
        }
    }

    pub(super) fn state(&mut self, key: &str, values: &[String]) -> Predicate {
        const FIELD: &str = "traceState.values";
        if !trace_state::is_key(key.as_bytes()) {
            let message = format!(
                "\"{key}\" is no key of a W3C trace state: lower-case letters, digits and _-*/, \
                 beginning with a letter, such as vendor or tenant@vendor"
            );
            self.report("traceState.key", message);
        }
        self.check_number_of_values(FIELD, values);
        for (index, value) in values.iter().enumerate() {
            if !trace_state::is_value(value.as_bytes()) {
                let message = "can be no value in a W3C trace state: 1 to 256 printable ASCII \
                               characters without comma and equals sign, no space at the end";
                self.report(format!("{FIELD}[{index}]"), message);
            }
        }
        Predicate::State { key: key.to_owned(), values: values.to_vec() }
    }
}

impl Compiler {
    /// The conditions on spans and on events.
    pub(super) fn conditions(
        &mut self,
        [span, span_event]: [&Vec<String>; 2],
        mode: ErrorMode,
    ) -> Option<Predicate> {
        const FIELD: &str = "ottlCondition";
        let before = self.problems.len();
        let count = span.len() + span_event.len();
        if count == 0 {
            self.report(FIELD, "has no condition: give at least one under span or spanEvent");
        } else if count > MAX_CONDITIONS {
            let message = format!("has {count} conditions, at most {MAX_CONDITIONS} are possible");
            self.report(FIELD, message);
        }
        let texts = span.iter().chain(span_event);
        let (bytes, wrong) = pattern_bytes(texts.map(String::as_str));
        if let Some(wrong) = wrong {
            self.report(FIELD, wrong);
        }
        let mut parse = |list: &[String], name: &str, context| {
            let mut parsed = Vec::with_capacity(list.len());
            for (index, text) in list.iter().enumerate() {
                match condition::parse(text, context, bytes) {
                    Ok(expression) => parsed.push(expression),
                    Err(message) => self.report(format!("{FIELD}.{name}[{index}]"), message),
                }
            }
            parsed
        };
        let on_span = parse(span, "span", Context::Span);
        let on_event = parse(span_event, "spanEvent", Context::SpanEvent);
        let texts = [span.clone(), span_event.clone()];
        (self.problems.len() == before)
            .then(|| Predicate::Condition(Conditions { texts, on_span, on_event, mode }))
    }
}

fn attribute(key: &str, test: Test) -> Predicate {
    Predicate::Attribute(Leaf { key: key.to_owned(), test })
}

fn check_value(value: &str, regex: bool) -> Result<(), String> {
    if value.is_empty() {
        return Err(match regex {
            true => {
                "is empty and would match every value: write \".*\" if that is meant".to_owned()
            }
            false => "is empty and would match no span: leave it out".to_owned(),
        });
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!("has {} bytes, at most {MAX_VALUE_BYTES} are possible", value.len()));
    }
    match regex {
        true => pattern::check(value).map_err(|error| error.to_string()),
        false => Ok(()),
    }
}
