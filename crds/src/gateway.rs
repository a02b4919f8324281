//! `spec.gateway`: the tier that gathers traces and decides.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{autoscaling::Autoscaling, pattern, pod::Pod, rules::NodeRule};

/// The largest fleet that is supported and measured.
pub(crate) const REPLICAS_MAX: u32 = 64;
// "100%".
const SHARE_LENGTH_MAX: u32 = 4;

/// The tier that gathers the spans of each trace, decides, and exports what is kept.
// `deny_unknown_fields` and `flatten` exclude each other; the API server and the offline check refuse what
// the schema does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ONE_ANTI_AFFINITY.rule())]
pub struct Gateway {
    /// Who runs the gateways. Managed: the operator. External: somebody else, which may be OpenTelemetry
    /// Collectors too; agents then send to those that routing.resolver names, by a list or by DNS, and the
    /// operator makes nothing for this tier, so that the other fields here have no effect.
    #[serde(default, rename = "type")]
    pub type_: GatewayType,

    /// How many gateways share the traces. `kubectl scale` and autoscaling change it.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub replicas: u32,

    /// Lets a HorizontalPodAutoscaler set replicas. Without it nothing but you changes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// Whether two gateways may share a node, so that a lost node is one lost gateway. Required: never, and
    /// more gateways than nodes stay pending. Preferred: only when there is no other place. None: the
    /// scheduler decides, or affinity.podAntiAffinity, which needs None here.
    #[serde(default)]
    pub anti_affinity: AntiAffinity,

    /// How many gateways may be away at a time when nodes are drained.
    #[serde(default)]
    pub disruption_budget: DisruptionBudget,

    /// How a changed pod template reaches the gateways.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,

    /// Settings of the gateways' pods.
    #[serde(flatten)]
    pub pod: Pod,
}

/// Who runs the gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum GatewayType {
    #[default]
    Managed,
    External,
}

/// Whether two gateways may share a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum AntiAffinity {
    #[default]
    Required,
    Preferred,
    None,
}

/// How many gateways may be away at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// A number of gateways, or a percentage such as 25%, rounded up. Pods that are not ready do not hold a
    /// drain up. 100% allows everything.
    #[serde(default = "max_unavailable")]
    pub max_unavailable: Share,
}

/// A number of gateways or a percentage of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(IntOrString);

/// How a changed pod template reaches the gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateStrategy {
    /// RollingUpdate: one gateway after the other; each hands its traces over before it goes. BlueGreen: a
    /// second set of gateways joins the ring, then the first one leaves it gateway by gateway; this needs
    /// room for twice the gateways.
    #[serde(default, rename = "type")]
    pub type_: UpdateType,
}

/// How a changed pod template reaches the gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum UpdateType {
    #[default]
    RollingUpdate,
    BlueGreen,
}

// === impl Gateway ===

impl Default for Gateway {
    fn default() -> Self {
        Self {
            type_: GatewayType::default(),
            replicas: replicas(),
            autoscaling: None,
            anti_affinity: AntiAffinity::default(),
            disruption_budget: DisruptionBudget::default(),
            update_strategy: UpdateStrategy::default(),
            pod: Pod::default(),
        }
    }
}

// Three keep two while one is away, which is what a tier that buffers undecided traces needs.
fn replicas() -> u32 {
    3
}

/// Two rules for the same thing would have to be merged, and nobody could say which one kept a pod pending.
pub(crate) static ONE_ANTI_AFFINITY: NodeRule = NodeRule {
    cel: "self.antiAffinity == 'None' || !has(self.affinity) || !has(self.affinity.podAntiAffinity)",
    holds: |gateway| {
        gateway.get("antiAffinity").is_none_or(|choice| choice == "None")
            || gateway.pointer("/affinity/podAntiAffinity").is_none()
    },
    message: "must be None when affinity.podAntiAffinity is set: only one of them can spread the pods",
    field: ".antiAffinity",
};

// === impl DisruptionBudget ===

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self { max_unavailable: max_unavailable() }
    }
}

fn max_unavailable() -> Share {
    Share(IntOrString::Int(1))
}

// === impl Share ===

impl Share {
    /// As other resources write it.
    pub fn to_int_or_string(&self) -> IntOrString {
        self.0.clone()
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": REPLICAS_MAX,
            "maxLength": SHARE_LENGTH_MAX,
            "pattern": pattern::SHARE.regex,
        })
    }
}
