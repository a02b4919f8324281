//! `TracePipeline`: the resource itself.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Agent,
    exporter::{EXPORTERS_MAX, Exporter},
    gateway::Gateway,
    routing::Routing,
    rules::{NodeRule, durations},
    sampling::Sampling,
};

/// A fleet that samples traces by their tails: agents take spans in and send each trace to one gateway,
/// which waits for all of it, keeps or drops it whole, and exports what is kept.
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
    printcolumn(
        name = "Wait",
        type_ = "string",
        json_path = ".spec.sampling.decisionWait",
        description = "How long a gateway gathers a trace before it decides"
    ),
    printcolumn(
        name = "Gateways",
        type_ = "integer",
        json_path = ".spec.gateway.replicas",
        description = "How many gateways share the traces"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = BATCH_BEFORE_DECISION.rule())]
pub struct TracePipelineSpec {
    /// How long to wait for a trace, and which traces to keep.
    pub sampling: Sampling,

    /// Where kept traces go: each one to every exporter.
    #[schemars(length(min = 1, max = EXPORTERS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exporters: Vec<Exporter>,

    /// How agents find gateways. An agent that is started by hand needs it, or addresses on its command line;
    /// `ringtail run` starts both tiers and takes its own gateways instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,

    /// The tier that takes spans in.
    #[serde(default)]
    pub agent: Agent,

    /// The tier that decides.
    #[serde(default)]
    pub gateway: Gateway,
}

/// Spans are sent before their trace is decided.
pub(crate) static BATCH_BEFORE_DECISION: NodeRule = NodeRule {
    cel: "duration(self.agent.batch.timeout) < duration(self.sampling.decisionWait)",
    holds: |spec| durations(spec, "/agent/batch/timeout", "/sampling/decisionWait", Duration::lt),
    message: "must be less than sampling.decisionWait, or spans would arrive after the decision",
    field: ".agent.batch.timeout",
};
