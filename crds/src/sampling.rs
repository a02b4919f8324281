//! `spec.sampling`: how long to wait for a trace, and which traces to keep.

use std::time::Duration;

use kube::KubeSchema;
use ringtail_engine::policy::limits::{MAX_NAME_BYTES, MAX_POLICIES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::{DurationBounds, DurationText},
    pattern,
    rules::{NodeRule, durations},
    size::{SizeBounds, SizeText},
    union::member,
};

mod budgets;
mod leaves;
pub use budgets::*;
pub use leaves::*;

/// Below a second nothing would be gathered; above an hour no buffer holds it.
pub(crate) static DECISION_WAIT: DurationBounds = DurationBounds::ms(1_000, 3_600_000);
/// Below half a second the root's own children would come too late.
pub(crate) static ROOT_WAIT: DurationBounds = DurationBounds::ms(500, 3_600_000);
/// The largest trace that a message between gateways takes; a smaller cap than 64 KiB would cut traces of a
/// hundred spans.
pub(crate) static TRACE_BYTES: SizeBounds = SizeBounds { least: 64 << 10, most: 12 << 20 };
/// A million spans of 450 bytes are 450 MB: beyond it one trace could fill a gateway.
const TRACE_SPANS_MAX: u32 = 1_000_000;

/// How long to wait for a trace, and which traces to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ROOT_BEFORE_DECISION.rule())]
pub struct Sampling {
    /// How long a gateway gathers the spans of a trace before it decides, counted from the first span that
    /// it sees. The 99th percentile of your trace durations plus 10 to 15 seconds is a good start. Spans
    /// that come later follow the decision. From 1s to 1h.
    #[serde(default = "decision_wait")]
    #[x_kube(validation = DECISION_WAIT.rule())]
    pub decision_wait: DurationText,

    /// How long a gateway goes on gathering after a span without a parent has arrived, if that is shorter.
    /// Most traces are complete soon after their root; those without one wait for decisionWait. It must be
    /// shorter than decisionWait, and should be longer than the batch timeouts of agents and SDKs together.
    /// From 500ms to 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ROOT_WAIT.rule())]
    pub decision_wait_after_root_received: Option<DurationText>,

    /// A trace that reaches this many spans is decided at once, on what is there; spans that come later
    /// follow the decision. It keeps one runaway trace from filling a gateway.
    #[serde(default = "max_trace_spans")]
    #[schemars(range(min = 1, max = TRACE_SPANS_MAX))]
    pub max_trace_spans: u32,

    /// A trace whose spans reach this many bytes is decided at once, as with maxTraceSpans. From 64Ki to
    /// 12Mi, which is the most without it too: a trace that moves to another gateway has to fit a message.
    /// A trace that takes an eighth of a gateway's buffer is decided at once in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = TRACE_BYTES.rule())]
    pub max_trace_bytes: Option<SizeText>,

    /// Have kept spans tell which policy kept them: tailsampling.policy as an attribute of their scope, the
    /// part of a Composite as tailsampling.composite_policy, and tailsampling.cached_decision on spans that
    /// came after the decision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record_policy: bool,

    /// Have kept spans tell how likely they were kept: ot=th:… in their W3C trace state, as OpenTelemetry's
    /// probability sampling has it, wherever that is known. Probabilistic policies then go by the th and rv
    /// that spans come with; of a trace whose spans have neither they choose as ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record_threshold: bool,

    /// The rules. A trace is kept when any policy with role Vote says so, unless a Drop policy matches it.
    #[schemars(length(min = 1, max = MAX_POLICIES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub policies: Vec<Policy>,
}

/// A wait after the root that is no shorter would have no effect.
pub(crate) static ROOT_BEFORE_DECISION: NodeRule = NodeRule {
    cel: "!has(self.decisionWaitAfterRootReceived) || \
          duration(self.decisionWaitAfterRootReceived) < duration(self.decisionWait)",
    holds: |sampling| {
        durations(sampling, "/decisionWaitAfterRootReceived", "/decisionWait", Duration::lt)
    },
    message: "must be shorter than decisionWait",
    field: ".decisionWaitAfterRootReceived",
};

fn decision_wait() -> DurationText {
    Duration::from_secs(30).into()
}

fn max_trace_spans() -> u32 {
    100_000
}

/// One rule: a name, a type, and the settings of that type under the field of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = member("StatusCode", "statusCode"),
    validation = member("Latency", "latency"),
    validation = member("Probabilistic", "probabilistic"),
    validation = member("StringAttribute", "stringAttribute"),
    validation = member("NumericAttribute", "numericAttribute"),
    validation = member("BooleanAttribute", "booleanAttribute"),
    validation = member("SpanCount", "spanCount"),
    validation = member("TraceState", "traceState"),
    validation = member("OTTLCondition", "ottlCondition"),
    validation = member("RateLimiting", "rateLimiting"),
    validation = member("BytesLimiting", "bytesLimiting"),
    validation = member("Composite", "composite"),
    validation = member("And", "and"),
    validation = member("Or", "or"),
    validation = member("Not", "not"),
    validation = member("Drop", "drop"),
)]
pub struct Policy {
    /// Unique in the pipeline. Metrics carry it, and other policies refer to it.
    #[schemars(length(max = MAX_NAME_BYTES), regex(pattern = pattern::POLICY_NAME.regex))]
    pub name: String,

    /// What the policy looks at. AlwaysSample matches every trace. StatusCode, Latency, StringAttribute,
    /// NumericAttribute, BooleanAttribute, TraceState, TraceFlags and OTTLCondition look at spans, SpanCount
    /// counts them; Probabilistic looks at the trace ID. RateLimiting, BytesLimiting and Composite have
    /// budgets of the whole fleet. And, Or and Not combine other policies by name.
    /// Drop drops the traces that all its policies match, whatever else votes for them. AlwaysSample and
    /// TraceFlags, which matches a trace in which any span has the W3C trace flag "sampled", have no
    /// settings.
    #[serde(rename = "type")]
    pub type_: PolicyType,

    /// Vote: a match keeps the trace. Part: the policy has no vote of its own and serves And, Or, Not, Drop
    /// and Composite. Shadow: nothing happens, but it is counted how many traces would be decided otherwise
    /// if it were a Vote (ringtail_shadow_traces_total).
    #[serde(default)]
    pub role: PolicyRole,

    /// Matches a trace in which any span has one of the status codes. Set it when type is StatusCode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<StatusCodePolicy>,

    /// Matches by the time from the start of the first span to the end of the last. Set it when type is
    /// Latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyPolicy>,

    /// Matches a share of all traces, chosen by a hash of the trace ID. Set it when type is Probabilistic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilistic: Option<ProbabilisticPolicy>,

    /// Matches a trace in which a span or its resource has the attribute with one of the values. Set it
    /// when type is StringAttribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub string_attribute: Option<StringAttributePolicy>,

    /// Matches a trace in which a span or its resource has the whole-number attribute within the bounds.
    /// Set it when type is NumericAttribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numeric_attribute: Option<NumericAttributePolicy>,

    /// Matches a trace in which a span or its resource has the true-or-false attribute with the value. Set
    /// it when type is BooleanAttribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boolean_attribute: Option<BooleanAttributePolicy>,

    /// Matches by the number of spans that have arrived. Set it when type is SpanCount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_count: Option<SpanCountPolicy>,

    /// Matches a trace in which a span has the W3C trace state member with one of the values. Set it when
    /// type is TraceState.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_state: Option<TraceStatePolicy>,

    /// Matches a trace in which a condition holds for a span or an event of one, written in the OpenTelemetry
    /// Transformation Language. Set it when type is OTTLCondition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ottl_condition: Option<OttlConditionPolicy>,

    /// Matches as many spans a second as the whole fleet may keep by this policy. Set it when type is
    /// RateLimiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiting: Option<RateLimitingPolicy>,

    /// Matches as many bytes of spans a second as the whole fleet may keep by this policy. Set it when type
    /// is BytesLimiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_limiting: Option<BytesLimitingPolicy>,

    /// Matches when one of the named policies matches and has something left of its share of a budget, or can
    /// borrow what the others do not need. Set it when type is Composite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub composite: Option<CompositePolicy>,

    /// Matches when all of the named policies match. Set it when type is And.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub and: Option<PolicyNames>,

    /// Matches when any of the named policies matches. Set it when type is Or.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub or: Option<PolicyNames>,

    /// Matches when the named policy does not. Set it when type is Not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<PolicyName>,

    /// Drops a trace when all of the named policies match, and goes before every vote. Set it when type is
    /// Drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<PolicyNames>,
}

/// What a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum PolicyType {
    AlwaysSample,
    StatusCode,
    Latency,
    Probabilistic,
    StringAttribute,
    NumericAttribute,
    BooleanAttribute,
    SpanCount,
    TraceState,
    TraceFlags,
    #[serde(rename = "OTTLCondition")]
    OttlCondition,
    RateLimiting,
    BytesLimiting,
    Composite,
    And,
    Or,
    Not,
    Drop,
}

/// Whether a match of a policy keeps the trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum PolicyRole {
    #[default]
    Vote,
    Part,
    Shadow,
}

/// The policies that And, Or and Drop combine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyNames {
    /// Names of other policies of this pipeline, of any role. A combination may name other combinations,
    /// but not itself, directly or in a circle; a Drop cannot be named.
    #[schemars(
        length(min = 1, max = MAX_POLICIES),
        inner(length(max = MAX_NAME_BYTES), regex(pattern = pattern::POLICY_NAME.regex)),
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub policies: Vec<String>,
}

/// The policy that Not inverts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyName {
    /// The name of another policy of this pipeline.
    #[schemars(length(max = MAX_NAME_BYTES), regex(pattern = pattern::POLICY_NAME.regex))]
    pub policy: String,
}
