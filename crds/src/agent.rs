//! `spec.agent`: the tier that takes spans in and spreads them over the gateways.

use std::time::Duration;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    compression::Compression,
    duration::{DurationBounds, DurationText},
    size::{SizeBounds, SizeText},
};

/// From a few spans to the 4 MiB that gRPC receivers take by default.
pub(crate) static BATCH_BYTES: SizeBounds = SizeBounds { least: 1 << 10, most: 4 << 20 };
/// Waiting adds to the latency of every span, and takes from the decision wait.
pub(crate) static BATCH_TIMEOUT: DurationBounds = DurationBounds::ms(1, 10_000);
/// 4 MiB of spans of 42 bytes, the smallest that OTLP allows with both IDs.
const BATCH_SPANS_MAX: u32 = 100_000;

/// The tier that takes spans from applications and sends each trace to its gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// How spans for one gateway are gathered into one request. What is reached first sends it.
    #[serde(default)]
    pub batch: Batch,

    /// How requests to gateways are compressed: None, Gzip or Zstd. Zstd is the cheapest for its size; None
    /// saves the CPU where the network costs nothing.
    #[serde(default = "compression")]
    pub compression: Compression,
}

impl Default for Agent {
    fn default() -> Self {
        Self { batch: Batch::default(), compression: compression() }
    }
}

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

fn max_bytes() -> SizeText {
    (1 << 20).into()
}

fn max_spans() -> u32 {
    8_192
}

fn timeout() -> DurationText {
    Duration::from_millis(200).into()
}
