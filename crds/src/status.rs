//! `status`: what the operator knows of the fleet.
//!
//! Two writers share it: the operator's main loop, and the task that asks gateways (`ring` and `sampling`).
//! Nothing in it changes while nothing happens: no times, no counters that only grow.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::embedded;

/// Texts that the operator writes; the longest is a label selector.
const TEXT_LENGTH_MAX: u32 = 512;
/// Counts of pods: clusters have fewer.
const PODS_MAX: u32 = 1_000_000;

/// What the operator knows of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracePipelineStatus {
    /// The generation of the resource that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What holds and what does not. Ready sums up: the fleet works as the resource says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// How many gateways are ready, of how many there should be, such as 3/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub gateways: Option<String>,

    /// How many agents are ready, of how many there should be, such as 12/12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub agents: Option<String>,

    /// How many gateways there are; the scale subresource shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = PODS_MAX))]
    pub replicas: Option<u32>,

    /// The label selector of the gateways; the scale subresource shows it to autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub selector: Option<String>,

    /// The version of Ringtail that the pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub version: Option<String>,

    /// The hash of the configuration that the pods should have loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub config_hash: Option<String>,

    /// Where applications, and others, reach the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// Who owns which traces, as the gateways see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,

    /// What was decided lately, rounded to two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingStatus>,
}

/// Where applications, and others, reach the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// What goes into OTEL_EXPORTER_OTLP_ENDPOINT for gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub otlp_grpc: Option<String>,

    /// What goes into OTEL_EXPORTER_OTLP_ENDPOINT for HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub otlp_http: Option<String>,

    /// The gateways behind one address, for whoever sends without an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub gateway: Option<String>,

    /// The name that resolves to every ready gateway, for Collectors that balance by trace themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub gateway_headless: Option<String>,
}

/// Who owns which traces, as the gateways see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// A hash over the ring's members. Who has the same digest sends each trace to the same gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub digest: Option<String>,

    /// Gateways in the ring.
    #[serde(default)]
    #[schemars(range(min = 0, max = PODS_MAX))]
    pub members: u32,

    /// Those of them that are ready.
    #[serde(default)]
    #[schemars(range(min = 0, max = PODS_MAX))]
    pub ready: u32,

    /// Gateways that hand on what they hold, in order to stop.
    #[serde(default)]
    #[schemars(range(min = 0, max = PODS_MAX))]
    pub draining: u32,

    /// Agents and gateways whose ring was seen lately.
    #[serde(default)]
    #[schemars(range(min = 0, max = PODS_MAX))]
    pub observers: u32,

    /// Those of them whose ring has this digest.
    #[serde(default)]
    #[schemars(range(min = 0, max = PODS_MAX))]
    pub agreeing: u32,
}

/// What was decided lately. Numbers are sums over the gateways that answered, rounded to two digits;
/// metrics have the exact ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SamplingStatus {
    /// The time that the numbers are about, such as 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub window: Option<String>,

    /// Traces that were kept or dropped.
    #[serde(default)]
    pub traces_decided: i64,

    /// How many of a thousand decided traces were kept. Absent when none was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub kept_permille: Option<u32>,

    /// Spans that arrived after the decision about their trace, and followed it.
    #[serde(default)]
    pub late_spans: i64,

    /// Traces that were decided before their time, for lack of memory.
    #[serde(default)]
    pub early_traces: i64,

    /// Spans that were lost, for whatever reason.
    #[serde(default)]
    pub dropped_spans: i64,

    /// Undecided traces that went to another gateway, because gateways came or went.
    #[serde(default)]
    pub handed_over_traces: i64,

    /// Spans that agents sent again, because a gateway was lost with what it held.
    #[serde(default)]
    pub replayed_spans: i64,

    /// Spans that agents could not keep until they were decided, for lack of memory: if their gateway had
    /// been lost, they would have been, too.
    #[serde(default)]
    pub unprotected_spans: i64,

    /// Seconds in which gateways decided nothing, to keep traces whole; a sum over the gateways.
    #[serde(default)]
    pub fenced_seconds: FencedStatus,

    /// Gateways that answered, of those that should have, such as 3/3. What the others know is missing
    /// from the numbers, and not counted as zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_LENGTH_MAX))]
    pub reporting_pods: Option<String>,
}

/// Seconds in which gateways decided nothing, by what they waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FencedStatus {
    /// Other gateways had not agreed on the ring yet, or had something to hand over.
    #[serde(default)]
    pub peers: i64,

    /// After the loss of a gateway, agents had not sent again yet what lay there.
    #[serde(default)]
    pub agents: i64,

    /// The gateway heard too few of the others.
    #[serde(default)]
    pub minority: i64,
}

fn conditions(generator: &mut SchemaGenerator) -> Schema {
    embedded::embed_list::<Condition>(generator, "type")
}
