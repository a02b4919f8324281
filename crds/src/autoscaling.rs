//! `spec.gateway.autoscaling`: how a HorizontalPodAutoscaler sets the number of gateways.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{embedded, gateway::REPLICAS_MAX, rules::NodeRule};

/// Of the CPU that is requested: gateways with small requests and idle nodes go far beyond 100.
const CPU_PERCENT_MAX: u32 = 1_000;

/// How a HorizontalPodAutoscaler sets the number of gateways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = REPLICAS_IN_ORDER.rule(), validation = SOME_TARGET.rule())]
pub struct Autoscaling {
    /// Never fewer gateways than this.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub min_replicas: u32,

    /// Never more gateways than this.
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub max_replicas: u32,

    /// The CPU that gateways should use on average, in percent of what they request.
    #[serde(
        default,
        rename = "targetCPUUtilizationPercentage",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = CPU_PERCENT_MAX))]
    pub target_cpu_utilization_percentage: Option<u32>,

    /// How full the buffers of undecided traces should be on average, in percent. Needs an adapter that
    /// serves the metric ringtail_buffer_utilization_percent of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub target_buffer_utilization_percentage: Option<u32>,

    /// How fast the number may change, as in a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::embed::<HorizontalPodAutoscalerBehavior>")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

// As many as without autoscaling: two keep the tier up while one is away.
fn min_replicas() -> u32 {
    3
}

/// A range is not empty.
pub(crate) static REPLICAS_IN_ORDER: NodeRule = NodeRule {
    cel: "self.maxReplicas >= self.minReplicas",
    holds: |autoscaling| {
        let count = |name| autoscaling.get(name).and_then(Value::as_u64);
        match (count("minReplicas"), count("maxReplicas")) {
            (Some(least), Some(most)) => most >= least,
            _ => true,
        }
    },
    message: "must not be less than minReplicas, which is 3 when it is not set",
    field: ".maxReplicas",
};

/// An autoscaler needs something to go by.
pub(crate) static SOME_TARGET: NodeRule = NodeRule {
    cel: "has(self.targetCPUUtilizationPercentage) || has(self.targetBufferUtilizationPercentage)",
    holds: |autoscaling| {
        autoscaling.get("targetCPUUtilizationPercentage").is_some()
            || autoscaling.get("targetBufferUtilizationPercentage").is_some()
    },
    message: "needs targetCPUUtilizationPercentage or targetBufferUtilizationPercentage",
    field: "",
};
