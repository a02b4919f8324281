//! Policies that ask something of a trace themselves.

use super::policies::Rule;
use super::report::Place;
use super::source::{Entry, Fields, Reader};
use super::tree::Tree;

/// What a schema's budget of bytes is at least.
const BUDGET_BYTES_MIN: i64 = 1 << 10;
/// A day, the longest duration of a Latency policy, in milliseconds.
const LATENCY_MS_MAX: i64 = 86_400_000;

/// A policy with its settings, before it is one.
pub(super) struct Leaf<'a, 'r> {
    pub(super) reader: &'a mut Reader<'r>,
    pub(super) place: &'a Place,
}

// === impl Leaf ===

impl Leaf<'_, '_> {
    /// The rule of a type; `None` when nothing is like it, which is told.
    pub(super) fn rule(mut self, type_: &str, settings: Option<&Entry<'_>>) -> Option<Rule> {
        let mut fields = match settings {
            Some(entry) => Fields::of(entry, self.reader.report),
            None => Fields::empty(self.place),
        };
        let rule = match type_ {
            "always_sample" => Some(Rule::bare("AlwaysSample")),
            "trace_flags" => Some(Rule::bare("TraceFlags")),
            "latency" => Some(self.latency(&mut fields)),
            "numeric_attribute" => self.numeric(&mut fields),
            "boolean_attribute" => self.boolean(&mut fields),
            "string_attribute" => self.string(&mut fields),
            "status_code" => self.status(&mut fields),
            "probabilistic" => Some(self.probabilistic(&mut fields)),
            "rate_limiting" => Some(self.rate(&mut fields)),
            "bytes_limiting" => Some(self.bytes(&mut fields)),
            "span_count" => Some(self.count(&mut fields)),
            "trace_state" => self.state(&mut fields),
            "ottl_condition" => self.condition(&mut fields),
            _ => {
                let why =
                    format!("the policy type {type_} is not one of Ringtail's; it is left out");
                self.reader.report.lost(self.place, why);
                return None;
            }
        };
        if rule.is_some() {
            fields.finish(self.reader.report);
        }
        rule
    }

    fn number(&mut self, fields: &mut Fields<'_>, name: &str) -> i64 {
        let entry = fields.take(name);
        entry.and_then(|entry| self.reader.number(&entry)).unwrap_or_default()
    }

    fn truth(&mut self, fields: &mut Fields<'_>, name: &str) -> bool {
        let entry = fields.take(name);
        entry.and_then(|entry| self.reader.truth(&entry)).unwrap_or_default()
    }

    fn key(&mut self, fields: &mut Fields<'_>) -> Option<Tree> {
        let key = fields.take("key").and_then(|key| self.reader.text(&key));
        if key.is_none() {
            self.reader.report.error(self.place, "needs a key");
        }
        key.map(Tree::Text)
    }

    fn latency(&mut self, fields: &mut Fields<'_>) -> Rule {
        let (lower, upper) =
            (self.number(fields, "threshold_ms"), self.number(fields, "upper_threshold_ms"));
        if lower < 1 {
            let why = "the shortest threshold is 1ms: traces of one millisecond do not match";
            self.reader.report.differs(self.place, why);
        }
        let lower = lower.clamp(1, LATENCY_MS_MAX);
        let settings = Tree::map([("threshold", millis(lower))]);
        let upper = (upper > lower).then(|| millis(upper.min(LATENCY_MS_MAX)));
        let why = match &upper {
            Some(_) => {
                "the whole trace is measured; the Collector also keeps one whose first spans alone match"
            }
            None => {
                "a trace must take longer than the threshold; Collectors before v0.157 keep one that takes \
                 exactly as long"
            }
        };
        self.reader.report.differs(self.place, why);
        Rule::new("Latency", "latency", settings.with_some("upperThreshold", upper))
    }

    fn numeric(&mut self, fields: &mut Fields<'_>) -> Option<Rule> {
        let key = self.key(fields)?;
        let (min, max) = (self.number(fields, "min_value"), self.number(fields, "max_value"));
        let invert = self.truth(fields, "invert_match");
        // Zero is "not set" there, whatever was meant.
        let least = if min == 0 { i64::MIN } else { min };
        let most = if max == 0 { i64::MAX } else { max };
        if (least..=most).contains(&0) {
            let why =
                "only whole numbers match; there other values count as 0, which is in the range";
            self.reader.report.differs(self.place, why);
        }
        let settings = Tree::map([("key", key)]);
        let settings = match (min, max) {
            (0, 0) => settings.with("minValue", Tree::Number(i64::MIN)),
            (min, 0) => settings.with("minValue", Tree::Number(min)),
            (0, max) => settings.with("maxValue", Tree::Number(max)),
            (min, max) => {
                settings.with("minValue", Tree::Number(min)).with("maxValue", Tree::Number(max))
            }
        };
        let settings = settings.with_some("invertMatch", invert.then_some(Tree::Truth(true)));
        Some(Rule::new("NumericAttribute", "numericAttribute", settings))
    }

    fn boolean(&mut self, fields: &mut Fields<'_>) -> Option<Rule> {
        let key = self.key(fields)?;
        let value = self.truth(fields, "value");
        let invert = self.truth(fields, "invert_match");
        if !value {
            let why = "only true and false match; the Collector takes other values for false";
            self.reader.report.differs(self.place, why);
        }
        let settings = Tree::map([("key", key), ("value", Tree::Truth(value))]);
        let settings = settings.with_some("invertMatch", invert.then_some(Tree::Truth(true)));
        Some(Rule::new("BooleanAttribute", "booleanAttribute", settings))
    }

    fn string(&mut self, fields: &mut Fields<'_>) -> Option<Rule> {
        let key = self.key(fields)?;
        let values = fields.take("values");
        let values = values.map(|values| self.reader.texts(&values)).unwrap_or_default();
        let regex = self.truth(fields, "enabled_regex_matching");
        let invert = self.truth(fields, "invert_match");
        fields.built_in(
            "cache_max_size",
            self.reader.report,
            "patterns are compiled together and need no cache of values",
        );
        // The Collector leaves empty values out.
        let mut kept: Vec<String> = Vec::new();
        for value in values {
            if !value.is_empty() && !kept.contains(&value) {
                kept.push(value);
            }
        }
        if kept.is_empty() {
            self.reader.report.differs(self.place, "has no values: no trace has one of them");
            return Some(if invert { Rule::bare("AlwaysSample") } else { Rule::never() });
        }
        let settings = Tree::map([("key", key), ("values", Tree::texts(kept))]);
        let settings = settings
            .with_some("enabledRegexMatching", regex.then_some(Tree::Truth(true)))
            .with_some("invertMatch", invert.then_some(Tree::Truth(true)));
        Some(Rule::new("StringAttribute", "stringAttribute", settings))
    }

    fn status(&mut self, fields: &mut Fields<'_>) -> Option<Rule> {
        let codes = fields.take("status_codes");
        let codes = codes.map(|codes| self.reader.texts(&codes)).unwrap_or_default();
        let mut names: Vec<String> = Vec::new();
        for code in &codes {
            let name = match code.as_str() {
                "OK" => "Ok",
                "ERROR" => "Error",
                "UNSET" => "Unset",
                other => {
                    let why = format!("{other:?} is no status: OK, ERROR and UNSET are");
                    self.reader.report.error(self.place, why);
                    return None;
                }
            };
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        if names.is_empty() {
            self.reader.report.error(self.place, "needs status_codes");
            return None;
        }
        let settings = Tree::map([("statusCodes", Tree::texts(names))]);
        Some(Rule::new("StatusCode", "statusCode", settings))
    }

    fn probabilistic(&mut self, fields: &mut Fields<'_>) -> Rule {
        let percentage = fields.take("sampling_percentage");
        let percentage = percentage.and_then(|entry| self.reader.real(&entry)).unwrap_or_default();
        let salt = fields.take("hash_salt").and_then(|salt| self.reader.text(&salt));
        let salt = salt.filter(|salt| !salt.is_empty()).map(Tree::Text);
        let share = percentage.clamp(0.0, 100.0);
        let share = match share.fract() == 0.0 {
            true => Tree::Number(share as i64),
            false => Tree::Text(share.to_string()),
        };
        let settings = Tree::map([("samplingPercentage", share)]).with_some("hashSalt", salt);
        Rule::new("Probabilistic", "probabilistic", settings)
    }

    fn rate(&mut self, fields: &mut Fields<'_>) -> Rule {
        let rate = self.number(fields, "spans_per_second");
        let burst = self.number(fields, "burst_capacity");
        if rate < 1 {
            self.reader.report.differs(self.place, "has no spans a second and never keeps a trace");
            return Rule::never();
        }
        self.fleet_wide();
        let settings = Tree::map([("spansPerSecond", Tree::Number(rate))]);
        let burst = (burst > 0).then_some(Tree::Number(burst));
        Rule::new("RateLimiting", "rateLimiting", settings.with_some("burstCapacity", burst))
    }

    fn bytes(&mut self, fields: &mut Fields<'_>) -> Rule {
        let rate = self.number(fields, "bytes_per_second");
        let burst = self.number(fields, "burst_capacity");
        if rate < 1 {
            self.reader.report.differs(self.place, "has no bytes a second and never keeps a trace");
            return Rule::never();
        }
        self.fleet_wide();
        if rate < BUDGET_BYTES_MIN {
            self.reader.report.differs(self.place, "the smallest budget is 1Ki a second");
        }
        let size = |bytes: i64| Tree::Text(super::size(bytes.max(BUDGET_BYTES_MIN).unsigned_abs()));
        let settings = Tree::map([("bytesPerSecond", size(rate))]);
        let burst = (burst > 0).then(|| size(burst));
        Rule::new("BytesLimiting", "bytesLimiting", settings.with_some("burstCapacity", burst))
    }

    fn fleet_wide(&mut self) {
        self.reader.report.differs(
            self.place,
            "the budget is that of all gateways together, and only traces that nothing else keeps spend it; \
             each replica of a Collector has one of its own: multiply it by their number to keep as much",
        );
    }

    fn count(&mut self, fields: &mut Fields<'_>) -> Rule {
        let (min, max) = (self.number(fields, "min_spans"), self.number(fields, "max_spans"));
        let bound = |bound: i64| (bound > 0).then_some(Tree::Number(bound));
        if bound(min).is_none() && bound(max).is_none() {
            return Rule::bare("AlwaysSample");
        }
        let settings = Tree::Map(Vec::new());
        let settings = settings.with_some("minSpans", bound(min)).with_some("maxSpans", bound(max));
        Rule::new("SpanCount", "spanCount", settings)
    }

    fn state(&mut self, fields: &mut Fields<'_>) -> Option<Rule> {
        let key = self.key(fields)?;
        let values = fields.take("values");
        let values = values.map(|values| self.reader.texts(&values)).unwrap_or_default();
        let values: Vec<_> = values.into_iter().filter(|value| !value.is_empty()).collect();
        if values.is_empty() {
            self.reader.report.differs(self.place, "has no values: no trace has one of them");
            return Some(Rule::never());
        }
        let settings = Tree::map([("key", key), ("values", Tree::texts(values))]);
        Some(Rule::new("TraceState", "traceState", settings))
    }

    fn condition(&mut self, fields: &mut Fields<'_>) -> Option<Rule> {
        let mut list = |name: &str, reader: &mut Reader<'_>| {
            let entry = fields.take(name);
            let texts = entry.map(|entry| reader.texts(&entry)).unwrap_or_default();
            (!texts.is_empty()).then(|| Tree::texts(texts))
        };
        let (span, event) = (list("span", self.reader), list("spanevent", self.reader));
        let mode = fields.take("error_mode").and_then(|mode| self.reader.text(&mode));
        let mode = match mode.as_deref() {
            Some("ignore") => Some(Tree::text("Ignore")),
            Some("propagate") => Some(Tree::text("Propagate")),
            _ => None,
        };
        if span.is_none() && event.is_none() {
            self.reader.report.error(self.place, "needs conditions under span or spanevent");
            return None;
        }
        let settings = Tree::Map(Vec::new())
            .with_some("span", span)
            .with_some("spanEvent", event)
            .with_some("errorMode", mode);
        Some(Rule::new("OTTLCondition", "ottlCondition", settings))
    }
}

fn millis(millis: i64) -> Tree {
    Tree::Text(super::duration(millis.unsigned_abs().saturating_mul(1_000)))
}
