//! `spec.agent`: the tier that takes spans in and spreads them over the gateways.

use std::time::Duration;

use kube::KubeSchema;
use ringtail_engine::policy::limits::{MAX_CONDITION_BYTES, MAX_CONDITIONS};
use ringtail_engine::rewrite::limits::MAX_ACTIONS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    compression::Compression,
    duration::{DurationBounds, DurationText},
    pod::Pod,
    processing::{AttributeAction, Detector},
    receivers::{GUARD_NOT_OF_SIDECARS, Receivers},
    rules::NodeRule,
    size::{SizeBounds, SizeText},
};

/// From a few spans to the 4 MiB that gRPC receivers take by default.
pub(crate) static BATCH_BYTES: SizeBounds = SizeBounds { least: 1 << 10, most: 4 << 20 };
/// Waiting adds to the latency of every span, and takes from the decision wait.
pub(crate) static BATCH_TIMEOUT: DurationBounds = DurationBounds::ms(1, 10_000);
/// Nothing at all, up to more than any node has.
pub(crate) static RETENTION_BYTES: SizeBounds = SizeBounds { least: 0, most: 1 << 40 };
/// 4 MiB of spans of 42 bytes, the smallest that OTLP allows with both IDs.
const BATCH_SPANS_MAX: u32 = 100_000;

/// The tier that takes spans from applications and sends each trace to its gateway.
// `deny_unknown_fields` and `flatten` exclude each other; the API server and the offline check refuse what
// the schema does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = HOST_PORT_ON_NODES.rule(),
    validation = GUARD_NOT_OF_SIDECARS.rule(),
    validation = PROCESSING_BY_AGENTS.rule()
)]
pub struct Agent {
    /// Where agents run. DaemonSet: one on every node, which applications reach through the Service
    /// NAME-agent. Sidecar: in the pods of applications, added with `ringtail inject`; it keeps nothing and
    /// sends to the gateways. None: applications send to the Service NAME-gateway themselves.
    #[serde(default)]
    pub mode: AgentMode,

    /// Where agents take spans in.
    #[serde(default)]
    pub receivers: Receivers,

    /// How spans for one gateway are gathered into one request. What is reached first sends it.
    #[serde(default)]
    pub batch: Batch,

    /// How requests to gateways are compressed: None, Gzip or Zstd. Zstd is the cheapest for its size; None
    /// saves the CPU where the network costs nothing.
    #[serde(default = "compression")]
    pub compression: Compression,

    /// What agents add to resources that do not have it. Environment: the attributes in
    /// OTEL_RESOURCE_ATTRIBUTES and the service.name in OTEL_SERVICE_NAME of the agent's own environment.
    /// Host: host.name (that of the node where it is known), host.arch, os.type. Kubernetes: k8s.node.name,
    /// and in a sidecar the k8s.pod.name and k8s.namespace.name of its pod. Of two that know the same, the
    /// first in the list counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resource_detection: Vec<Detector>,

    /// Spans to leave out: conditions in the OpenTelemetry Transformation Language, each asked of every span,
    /// such as 'attributes["http.route"] == "/healthz"'. A span for which one holds is dropped and counted;
    /// its children stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONDITIONS),
        inner(length(min = 1, max = MAX_CONDITION_BYTES)),
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub filter: Vec<String>,

    /// Changes of attributes, one after the other, after resourceDetection and filter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ACTIONS))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attributes: Vec<AttributeAction>,

    /// What agents keep of what they have delivered.
    #[serde(default)]
    pub retention: Retention,

    /// Settings of the agents' pods.
    #[serde(flatten)]
    pub pod: Pod,
}

/// Where agents run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum AgentMode {
    #[default]
    DaemonSet,
    Sidecar,
    None,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            mode: AgentMode::default(),
            receivers: Receivers::default(),
            batch: Batch::default(),
            compression: compression(),
            resource_detection: Vec::new(),
            filter: Vec::new(),
            attributes: Vec::new(),
            retention: Retention::default(),
            pod: Pod::default(),
        }
    }
}

/// Ports of nodes are for the one agent of a node.
pub(crate) static HOST_PORT_ON_NODES: NodeRule = NodeRule {
    cel: "!self.receivers.hostPort || self.mode == 'DaemonSet'",
    holds: |agent| {
        let on = agent.pointer("/receivers/hostPort").and_then(serde_json::Value::as_bool);
        on != Some(true) || agent.get("mode").is_none_or(|mode| mode == "DaemonSet")
    },
    message: "needs agent.mode DaemonSet: only then there is one agent on a node",
    field: ".receivers.hostPort",
};

/// Without agents nobody would do it.
pub(crate) static PROCESSING_BY_AGENTS: NodeRule = NodeRule {
    cel: "self.mode != 'None' || \
          !(has(self.resourceDetection) || has(self.filter) || has(self.attributes))",
    holds: |agent| {
        let names = ["resourceDetection", "filter", "attributes"];
        agent.get("mode").is_none_or(|mode| mode != "None")
            || !names.iter().any(|name| agent.get(name).is_some())
    },
    message: "must not be None with resourceDetection, filter or attributes: agents do these",
    field: ".mode",
};

fn compression() -> Compression {
    Compression::Zstd
}

/// How spans are gathered into requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// Send when this many bytes are gathered, before compression. From 1Ki to 4Mi, which is the largest
    /// message that gRPC servers take by default.
    #[serde(default = "max_bytes")]
    #[x_kube(validation = BATCH_BYTES.rule())]
    pub max_bytes: SizeText,

    /// Send when this many spans are gathered.
    #[serde(default = "max_spans")]
    #[schemars(range(min = 1, max = BATCH_SPANS_MAX))]
    pub max_spans: u32,

    /// Send when the oldest span has waited this long. From 1ms to 10s, and less than sampling.decisionWait.
    #[serde(default = "timeout")]
    #[x_kube(validation = BATCH_TIMEOUT.rule())]
    pub timeout: DurationText,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_bytes: max_bytes(), max_spans: max_spans(), timeout: timeout() }
    }
}

/// What is kept to be sent again when a gateway is lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// How much of it is kept, as it was sent. What is let go before it was decided is lost with the
    /// gateway that holds it, and is counted. Not set: a quarter of the memory limit; 0: nothing is kept. At
    /// most half of what the limit leaves is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = RETENTION_BYTES.rule())]
    pub max_bytes: Option<SizeText>,
}

fn max_bytes() -> SizeText {
    (1 << 20).into()
}

fn max_spans() -> u32 {
    8_192
}

fn timeout() -> DurationText {
    Duration::from_millis(200).into()
}
