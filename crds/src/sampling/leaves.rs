//! The settings of policies that ask something of a trace themselves.

use std::time::Duration;

use kube::KubeSchema;
use ringtail_engine::policy::limits::{
    MAX_CONDITION_BYTES, MAX_CONDITIONS, MAX_KEY_BYTES, MAX_SALT_BYTES, MAX_VALUE_BYTES, MAX_VALUES,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    duration::{DurationBounds, DurationText},
    percentage::Percentage,
    rules::{NodeRule, durations},
};

/// No trace of interest outlives a day.
pub(crate) static LATENCY: DurationBounds = DurationBounds::ms(1, 86_400_000);
/// Settings of a StatusCode policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusCodePolicy {
    /// The status codes that match. Unset is the status of a span whose author set none.
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub status_codes: Vec<StatusCode>,
}

/// The status of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum StatusCode {
    Ok,
    Error,
    Unset,
}

/// Settings of a Latency policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = UPPER_ABOVE_LOWER.rule())]
pub struct LatencyPolicy {
    /// Traces that take longer than this match. From 1ms to 24h.
    #[x_kube(validation = LATENCY.rule())]
    pub threshold: DurationText,

    /// Traces that take longer than this do not match. Without it there is no upper limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LATENCY.rule())]
    pub upper_threshold: Option<DurationText>,
}

/// A range of durations holds some.
pub(crate) static UPPER_ABOVE_LOWER: NodeRule = NodeRule {
    cel: "!has(self.upperThreshold) || duration(self.upperThreshold) > duration(self.threshold)",
    holds: |latency| durations(latency, "/upperThreshold", "/threshold", Duration::gt),
    message: "must be longer than threshold",
    field: ".upperThreshold",
};

/// Settings of a Probabilistic policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbabilisticPolicy {
    /// The share of traces that match, in percent, from 0 to 100: a whole number, or a string when it has a
    /// fraction, such as "0.1".
    pub sampling_percentage: Percentage,

    /// Pipelines with the same salt choose the same traces; another salt chooses independently. Empty is
    /// the salt that the OpenTelemetry Collector uses when it is given none.
    #[serde(default)]
    #[schemars(length(max = MAX_SALT_BYTES))]
    pub hash_salt: String,
}

/// Settings of a StringAttribute policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StringAttributePolicy {
    /// The name of the attribute, such as http.route.
    #[schemars(length(min = 1, max = MAX_KEY_BYTES))]
    pub key: String,

    /// The values that match, or regular expressions for them when enabledRegexMatching is true.
    #[schemars(length(min = 1, max = MAX_VALUES), inner(length(min = 1, max = MAX_VALUE_BYTES)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub values: Vec<String>,

    /// Take values for regular expressions (RE2 syntax). They match anywhere in the attribute: anchor them
    /// with ^ and $ to match all of it.
    #[serde(default)]
    pub enabled_regex_matching: bool,

    /// Match the traces in which no span and no resource has the attribute with one of the values, also
    /// those without the attribute.
    #[serde(default)]
    pub invert_match: bool,
}

/// Settings of a NumericAttribute policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = SOME_BOUND.rule(), validation = BOUNDS_IN_ORDER.rule())]
pub struct NumericAttributePolicy {
    /// The name of the attribute, such as http.response.status_code.
    #[schemars(length(min = 1, max = MAX_KEY_BYTES))]
    pub key: String,

    /// The smallest value that matches. Without it there is no lower bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_value: Option<i64>,

    /// The largest value that matches. Without it there is no upper bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_value: Option<i64>,

    /// Match the traces in which no span and no resource has the attribute within the bounds, also those
    /// without the attribute.
    #[serde(default)]
    pub invert_match: bool,
}

/// A numeric attribute that any number would match is a mistake.
pub(crate) static SOME_BOUND: NodeRule = NodeRule {
    cel: "has(self.minValue) || has(self.maxValue)",
    holds: |attribute| attribute.get("minValue").is_some() || attribute.get("maxValue").is_some(),
    message: "needs minValue, maxValue or both",
    field: "",
};

/// A range of numbers holds some.
pub(crate) static BOUNDS_IN_ORDER: NodeRule = NodeRule {
    cel: "!has(self.minValue) || !has(self.maxValue) || self.minValue <= self.maxValue",
    holds: |attribute| in_order(attribute, "minValue", "maxValue"),
    message: "must not be less than minValue",
    field: ".maxValue",
};

/// Of two bounds that are there the one is not above the other.
fn in_order(settings: &Value, least: &str, most: &str) -> bool {
    let read = |name| settings.get(name).and_then(Value::as_i64);
    read(least).zip(read(most)).is_none_or(|(least, most)| least <= most)
}

/// Settings of a BooleanAttribute policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BooleanAttributePolicy {
    /// The name of the attribute, such as app.cache.hit.
    #[schemars(length(min = 1, max = MAX_KEY_BYTES))]
    pub key: String,

    /// The value that matches.
    pub value: bool,

    /// Match the traces in which no span and no resource has the attribute with the value, also those
    /// without the attribute.
    #[serde(default)]
    pub invert_match: bool,
}

/// Settings of a SpanCount policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = SOME_COUNT.rule(), validation = COUNTS_IN_ORDER.rule())]
pub struct SpanCountPolicy {
    /// The fewest spans of a trace that matches. Without it there is no lower bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = SPAN_COUNT_MAX))]
    pub min_spans: Option<u32>,

    /// The most spans of a trace that matches. Without it there is no upper bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = SPAN_COUNT_MAX))]
    pub max_spans: Option<u32>,
}

/// As many spans as a trace may be allowed to have.
const SPAN_COUNT_MAX: u32 = super::TRACE_SPANS_MAX;

/// A count that any trace would match is a mistake.
pub(crate) static SOME_COUNT: NodeRule = NodeRule {
    cel: "has(self.minSpans) || has(self.maxSpans)",
    holds: |count| count.get("minSpans").is_some() || count.get("maxSpans").is_some(),
    message: "needs minSpans, maxSpans or both",
    field: "",
};

/// A range of counts holds some.
pub(crate) static COUNTS_IN_ORDER: NodeRule = NodeRule {
    cel: "!has(self.minSpans) || !has(self.maxSpans) || self.minSpans <= self.maxSpans",
    holds: |count| in_order(count, "minSpans", "maxSpans"),
    message: "must not be less than minSpans",
    field: ".maxSpans",
};

/// Settings of a TraceState policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceStatePolicy {
    /// The key of the member in the tracestate header, such as vendor or tenant@vendor.
    #[schemars(length(min = 1, max = MAX_KEY_BYTES))]
    pub key: String,

    /// The values that match, whole.
    #[schemars(length(min = 1, max = MAX_VALUES), inner(length(min = 1, max = STATE_VALUE_BYTES_MAX)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub values: Vec<String>,
}

/// What the W3C allows.
const STATE_VALUE_BYTES_MAX: usize = 256;

/// Settings of an OTTLCondition policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = SOME_CONDITION.rule())]
pub struct OttlConditionPolicy {
    /// Conditions that are asked of every span, such as attributes["http.status_code"] >= 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = MAX_CONDITIONS),
        inner(length(min = 1, max = MAX_CONDITION_BYTES)),
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub span: Option<Vec<String>>,

    /// Conditions that are asked of every event of every span, such as name == "exception".
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = MAX_CONDITIONS),
        inner(length(min = 1, max = MAX_CONDITION_BYTES)),
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub span_event: Option<Vec<String>>,

    /// What happens when a condition asks what a value cannot answer, such as the prefix of a number. Silent:
    /// the condition does not hold for this span. Ignore: the same, and it is counted. Propagate: the policy
    /// does not match the trace at all, and it is counted.
    #[serde(default)]
    pub error_mode: ErrorMode,
}

/// What happens when a condition asks what a value cannot answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum ErrorMode {
    #[default]
    Silent,
    Ignore,
    Propagate,
}

/// A policy without a condition would match nothing.
pub(crate) static SOME_CONDITION: NodeRule = NodeRule {
    cel: "has(self.span) || has(self.spanEvent)",
    holds: |condition| condition.get("span").is_some() || condition.get("spanEvent").is_some(),
    message: "needs conditions under span, spanEvent or both",
    field: "",
};
