//! What waits for a backend, in memory and on disk, and how failed requests are repeated.

use std::time::Duration;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::{DurationBounds, DurationText},
    pattern,
    pod::OBJECT_NAME_LENGTH_MAX,
    rules::{NodeRule, durations},
    size::{SizeBounds, SizeText},
};

/// From two requests of half a MiB to half of a very large gateway.
pub(crate) static QUEUE_BYTES: SizeBounds = SizeBounds { least: 1 << 20, most: 64 << 30 };
/// From sixteen segments of the smallest size to more than a node's disk.
pub(crate) static DISK_BYTES: SizeBounds = SizeBounds { least: 16 << 20, most: 16 << 40 };
/// A day of retries is a decision; more is a leak.
pub(crate) static RETRY_ELAPSED: DurationBounds = DurationBounds::ms(1_000, 86_400_000);
/// Ten milliseconds is a busy loop already, and after ten minutes nobody remembers that a retry is due.
pub(crate) static RETRY_INTERVAL: DurationBounds = DurationBounds::ms(10, 600_000);

/// What waits for a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// The most that waits for this backend in the memory of one gateway, in bytes. When it is full, further
    /// spans for this backend are dropped and counted. From 1Mi to 64Gi.
    #[serde(default = "queue_bytes")]
    #[x_kube(validation = QUEUE_BYTES.rule())]
    pub max_bytes: SizeText,

    /// Keeps what waits on disk as well, where it survives a restart and a kill of the gateway's container.
    /// Without it what waits is in memory alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentQueue>,
}

/// A queue on disk, in a volume of the gateway's pod. The volume goes with the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersistentQueue {
    /// The most bytes on disk. When they are used up, memory alone is used. From 16Mi to 16Ti.
    #[x_kube(validation = DISK_BYTES.rule())]
    pub size_limit: SizeText,

    /// The storage class of an ephemeral volume claim, made for each pod. Without it the queue lies in an
    /// emptyDir, on the disk of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub storage_class_name: Option<String>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_bytes: queue_bytes(), persistent: None }
    }
}

fn queue_bytes() -> SizeText {
    (64 << 20).into()
}

/// How a failed request is repeated: after waits that grow from the first to the longest, each with a
/// random part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = INTERVALS_IN_ORDER.rule())]
pub struct Retry {
    /// How long one request is repeated before its spans are dropped and counted. From 1s to 24h.
    #[serde(default = "max_elapsed")]
    #[x_kube(validation = RETRY_ELAPSED.rule())]
    pub max_elapsed: DurationText,

    /// The wait before the first repetition. From 10ms to 10m.
    #[serde(default = "initial_interval")]
    #[x_kube(validation = RETRY_INTERVAL.rule())]
    pub initial_interval: DurationText,

    /// The longest wait between repetitions. From 10ms to 10m.
    #[serde(default = "max_interval")]
    #[x_kube(validation = RETRY_INTERVAL.rule())]
    pub max_interval: DurationText,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_elapsed: max_elapsed(),
            initial_interval: initial_interval(),
            max_interval: max_interval(),
        }
    }
}

fn max_elapsed() -> DurationText {
    Duration::from_secs(300).into()
}

fn initial_interval() -> DurationText {
    Duration::from_secs(1).into()
}

fn max_interval() -> DurationText {
    Duration::from_secs(30).into()
}

/// Waits between repetitions grow.
pub(crate) static INTERVALS_IN_ORDER: NodeRule = NodeRule {
    cel: "duration(self.maxInterval) >= duration(self.initialInterval)",
    holds: |retry| durations(retry, "/maxInterval", "/initialInterval", Duration::ge),
    message: "must not be shorter than initialInterval",
    field: ".maxInterval",
};
