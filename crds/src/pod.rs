//! The settings of pods, the same for both tiers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements,
    SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{embedded, pattern};

/// A registry (253), a repository (255) and a digest fit.
const IMAGE_LENGTH_MAX: u32 = 600;
/// Names of objects are names of DNS.
pub(crate) const OBJECT_NAME_LENGTH_MAX: u32 = 253;
/// Keys of labels: a prefix (253), a slash and a name (63); the API server checks them. Values end at 63.
const LABEL_VALUE_LENGTH_MAX: u32 = 63;
/// Room for what other tools read from annotations, such as a list of scrape settings.
const ANNOTATION_LENGTH_MAX: u32 = 8_192;
const LABELS_MAX: u32 = 64;
/// Draining takes up to half a minute; below this a pod may be killed while it hands on what it holds.
const GRACE_SECONDS_MIN: i64 = 60;
/// An hour is longer than anybody waits for a node to be drained.
const GRACE_SECONDS_MAX: i64 = 3_600;
/// Twice what a drain may take (25 s), with room for one more request to a slow backend.
const GRACE_SECONDS: i64 = 60;

/// The parts of `spec` that have pod settings.
pub(crate) const TIERS: [&str; 2] = ["agent", "gateway"];
/// The container that runs Ringtail.
pub const OWN_CONTAINER: &str = "ringtail";
/// Where the operator mounts what the container reads.
pub const OWN_DIRECTORY: &str = "/etc/ringtail";
/// What names of the operator's volumes begin with.
pub const OWN_VOLUMES: &str = "ringtail-";
/// Variables that the operator sets.
pub const OWN_VARIABLES: [&str; 4] = ["POD_NAME", "POD_NAMESPACE", "NODE_NAME", "POD_IP"];
/// Labels that the operator sets, beside all that begin with [`OWN_LABEL_PREFIX`].
pub const OWN_LABELS: [&str; 5] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/part-of",
];
/// What other labels of the operator begin with.
pub const OWN_LABEL_PREFIX: &str = "ringtail.dev/";

/// Settings of a tier's pods.
///
/// They are merged into what the operator builds, so a field that is not set keeps the operator's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The image to run instead of the one that the operator was started with, such as
    /// registry.example.com/ringtail:0.1.0. It may be one minor version older or newer than the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = IMAGE_LENGTH_MAX), regex(pattern = pattern::IMAGE.regex))]
    pub image: Option<String>,

    /// When nodes pull the image: Always, IfNotPresent or Never. Without it Kubernetes decides by the
    /// image's tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets of this namespace with the credentials of the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded::embed::<Vec<LocalObjectReference>>")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// CPU and memory of the Ringtail container. The memory limit is also the budget: three quarters of it
    /// are used for spans, so a limit should always be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::embed::<ResourceRequirements>")]
    pub resources: Option<ResourceRequirements>,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts::<LABEL_VALUE_LENGTH_MAX>")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded::embed::<Vec<Toleration>>")]
    pub tolerations: Vec<Toleration>,

    /// Rules for where pods run, beyond nodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::embed::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// How pods spread over zones, nodes or other domains. A constraint without a labelSelector counts the
    /// pods of its tier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded::embed::<Vec<TopologySpreadConstraint>>")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub priority_class_name: Option<String>,

    /// A ServiceAccount of this namespace to run as, such as one with a cloud role. It is given what the
    /// tier needs. Without it the operator makes one for each tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub service_account_name: Option<String>,

    /// Security settings of the pod, over those that the operator sets: user 65532, not root, the runtime's
    /// seccomp profile. What would break the restricted profile is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::embed::<PodSecurityContext>")]
    pub pod_security_context: Option<PodSecurityContext>,

    /// Security settings of the Ringtail container, over those that the operator sets: no capabilities, no
    /// privilege escalation, read-only root. What would break the restricted profile is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::embed::<SecurityContext>")]
    pub security_context: Option<SecurityContext>,

    /// Variables of the Ringtail container, beside those that the operator sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "variables")]
    pub env: Vec<EnvVar>,

    /// Volumes of the pod, beside those that the operator adds. Only kinds that the restricted profile
    /// allows: configMap, secret, downwardAPI, projected, emptyDir, persistentVolumeClaim, csi.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded::embed_volumes")]
    pub volumes: Vec<Volume>,

    /// Where the Ringtail container sees volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,

    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts::<ANNOTATION_LENGTH_MAX>")]
    pub pod_annotations: BTreeMap<String, String>,

    /// Labels of the pods, beside those that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts::<LABEL_VALUE_LENGTH_MAX>")]
    pub pod_labels: BTreeMap<String, String>,

    /// How long a pod may take to hand on what it holds before it is killed, in seconds.
    #[serde(default = "grace_seconds")]
    #[schemars(range(min = GRACE_SECONDS_MIN, max = GRACE_SECONDS_MAX))]
    pub termination_grace_period_seconds: i64,

    /// A piece of a pod template (metadata and spec as in a Deployment) that is merged over everything
    /// else, for what has no field of its own, as kubectl merges a patch: containers, volumes and variables
    /// by name, mounts by path, most other lists as a whole. A null changes nothing. The Ringtail container
    /// is called ringtail. Unsupported in the sense that a change of the operator may need a change here.
    /// What reaches for more than the namespace gives (hostPath, host namespaces, privileged containers,
    /// another ServiceAccount) is refused, unless the operator was started with
    /// --allow-unsafe-pod-template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "overlay")]
    pub pod_template: Option<Map<String, Value>>,
}

/// When nodes pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

// === impl Pod ===

impl Default for Pod {
    fn default() -> Self {
        Self {
            image: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            priority_class_name: None,
            service_account_name: None,
            pod_security_context: None,
            security_context: None,
            env: Vec::new(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            pod_annotations: BTreeMap::new(),
            pod_labels: BTreeMap::new(),
            termination_grace_period_seconds: grace_seconds(),
            pod_template: None,
        }
    }
}

// === impl ImagePullPolicy ===

impl ImagePullPolicy {
    /// As a pod spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

fn grace_seconds() -> i64 {
    GRACE_SECONDS
}

fn variables(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    embedded::embed_list::<EnvVar>(generator, "name")
}

fn volume_mounts(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    embedded::embed_list::<VolumeMount>(generator, "mountPath")
}

fn texts<const LENGTH_MAX: u32>(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": { "type": "string", "maxLength": LENGTH_MAX },
        "maxProperties": LABELS_MAX,
    })
}

fn overlay(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
