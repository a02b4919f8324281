//! `TracePipeline`: the resource itself.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    agent::Agent,
    exporter::{EXPORTERS_MAX, Exporter},
    gateway::Gateway,
    logs::{
        FILTERS_ARE_OF_SPANS, KEPT_BY_GATEWAYS, LOGS_HAVE_A_TAKER, Logs, TAKERS_HAVE_LOGS,
        TRACES_HAVE_A_TAKER,
    },
    receivers::GUARD_NEEDS_PEER_TLS,
    redaction::Redaction,
    routing::Routing,
    rules::{NodeRule, durations},
    sampling::Sampling,
    security::Security,
    span_metrics::SpanMetrics,
    status::TracePipelineStatus,
};

/// A fleet that samples traces by their tails: agents take spans in and send each trace to one gateway,
/// which waits for all of it, keeps or drops it whole, and exports what is kept.
#[expect(clippy::duplicated_attributes, reason = "columns have types, and several the same one")]
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ringtail.dev",
    version = "v1alpha1",
    kind = "TracePipeline",
    plural = "tracepipelines",
    shortname = "tp",
    category = "observability",
    namespaced,
    derive = "PartialEq",
    doc = "A fleet that keeps or drops whole traces, after it has seen all of them.",
    status = "TracePipelineStatus",
    scale(
        spec_replicas_path = ".spec.gateway.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the fleet works"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it does, or does not"
    ),
    printcolumn(
        name = "Gateways",
        type_ = "string",
        json_path = ".status.gateways",
        description = "Ready gateways of those that should be"
    ),
    printcolumn(
        name = "Agents",
        type_ = "string",
        json_path = ".status.agents",
        description = "Ready agents of those that should be"
    ),
    printcolumn(
        name = "Ring",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="RingConverged")].reason"#,
        description = "Whether all agree who owns which trace"
    ),
    printcolumn(
        name = "Kept",
        type_ = "integer",
        json_path = ".status.sampling.keptPermille",
        description = "How many of a thousand traces were kept lately",
        priority = 1
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        description = "The version that the pods run",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = BATCH_BEFORE_DECISION.rule(),
    validation = STATIC_IS_EXTERNAL.rule(),
    validation = EXTERNAL_IS_STATIC.rule(),
    validation = SOMETHING_RUNS.rule(),
    validation = GUARD_NEEDS_PEER_TLS.rule(),
    validation = REDACTION_BY_GATEWAYS.rule(),
    validation = TRACES_HAVE_A_TAKER.rule(),
    validation = LOGS_HAVE_A_TAKER.rule(),
    validation = TAKERS_HAVE_LOGS.rule(),
    validation = FILTERS_ARE_OF_SPANS.rule(),
    validation = KEPT_BY_GATEWAYS.rule()
)]
pub struct TracePipelineSpec {
    /// How long to wait for a trace, and which traces to keep.
    pub sampling: Sampling,

    /// Where kept traces go: each one to every exporter.
    #[schemars(length(min = 1, max = EXPORTERS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exporters: Vec<Exporter>,

    /// Requests, errors and durations of all spans, counted before any sampling; nothing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_metrics: Option<SpanMetrics>,

    /// Log records, by the traces that they belong to. Without it none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,

    /// How agents find gateways. `ringtail run` starts both tiers and takes its own gateways instead, and
    /// `ringtail agent --gateway HOST:PORT` takes those of its command line.
    #[serde(default)]
    pub routing: Routing,

    /// The tier that takes spans in.
    #[serde(default)]
    pub agent: Agent,

    /// The tier that decides.
    #[serde(default)]
    pub gateway: Gateway,

    /// What must not leave with kept spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,

    /// How agents and gateways trust each other.
    #[serde(default)]
    pub security: Security,

    /// Whether the operator leaves the fleet as it is, so that somebody can change pods by hand. Status goes
    /// on telling what is.
    #[serde(default)]
    pub paused: bool,
}

/// Spans are sent before their trace is decided.
pub(crate) static BATCH_BEFORE_DECISION: NodeRule = NodeRule {
    cel: "duration(self.agent.batch.timeout) < duration(self.sampling.decisionWait)",
    holds: |spec| durations(spec, "/agent/batch/timeout", "/sampling/decisionWait", Duration::lt),
    message: "must be less than sampling.decisionWait, or spans would arrive after the decision",
    field: ".agent.batch.timeout",
};

/// Whether the text at `pointer` is `word`.
fn is(spec: &Value, pointer: &str, word: &str) -> bool {
    spec.pointer(pointer).is_some_and(|value| value == word)
}

/// Managed gateways come and go, so a list of them would be wrong soon.
pub(crate) static STATIC_IS_EXTERNAL: NodeRule = NodeRule {
    cel: "self.routing.resolver.type == 'Kubernetes' || self.gateway.type == 'External'",
    holds: |spec| {
        let listed = ["Static", "DNS"].map(|word| is(spec, "/routing/resolver/type", word));
        !listed.contains(&true) || is(spec, "/gateway/type", "External")
    },
    message: "DNS and Static need gateway.type External: the operator's own gateways are found by type \
              Kubernetes",
    field: ".routing.resolver.type",
};

/// There are no Services to watch when somebody else runs the gateways.
pub(crate) static EXTERNAL_IS_STATIC: NodeRule = NodeRule {
    cel: "self.gateway.type != 'External' || self.routing.resolver.type != 'Kubernetes'",
    holds: |spec| {
        let listed = ["Static", "DNS"].map(|word| is(spec, "/routing/resolver/type", word));
        !is(spec, "/gateway/type", "External") || listed.contains(&true)
    },
    message: "must be Static or DNS when gateway.type is External: name the gateways in static.endpoints \
              or by dns.hostname",
    field: ".routing.resolver.type",
};

/// Gateways of somebody else do not read this resource, and nothing would be redacted.
pub(crate) static REDACTION_BY_GATEWAYS: NodeRule = NodeRule {
    cel: "self.gateway.type != 'External' || !has(self.redaction)",
    holds: |spec| !is(spec, "/gateway/type", "External") || spec.get("redaction").is_none(),
    message: "needs gateway.type Managed: gateways of somebody else redact nothing",
    field: ".redaction",
};

/// A pipeline runs something.
pub(crate) static SOMETHING_RUNS: NodeRule = NodeRule {
    cel: "self.agent.mode != 'None' || self.gateway.type != 'External'",
    holds: |spec| !is(spec, "/agent/mode", "None") || !is(spec, "/gateway/type", "External"),
    message: "must not be None when gateway.type is External: nothing would be left to run",
    field: ".agent.mode",
};
