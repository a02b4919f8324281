//! `spec.exporters`: where kept traces go.

use std::{sync::LazyLock, time::Duration};

use kube::KubeSchema;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    compression::Compression,
    duration::{DurationBounds, DurationText},
    pattern,
    pod::OBJECT_NAME_LENGTH_MAX,
    rules::{NodeRule, durations},
    size::{SizeBounds, SizeText},
    union::member,
};

/// More backends than anybody has been seen to feed; each one costs a queue.
pub(crate) const EXPORTERS_MAX: usize = 8;
/// A backend that takes minutes for one request is down.
pub(crate) static TIMEOUT: DurationBounds = DurationBounds::ms(100, 300_000);
/// From two requests of half a MiB to half of a very large gateway.
pub(crate) static QUEUE_BYTES: SizeBounds = SizeBounds { least: 1 << 20, most: 64 << 30 };
/// A day of retries is a decision; more is a leak.
pub(crate) static RETRY_ELAPSED: DurationBounds = DurationBounds::ms(1_000, 86_400_000);
/// Ten milliseconds is a busy loop already, and after ten minutes nobody remembers that a retry is due.
pub(crate) static RETRY_INTERVAL: DurationBounds = DurationBounds::ms(10, 600_000);
const NAME_LENGTH_MAX: u32 = 63;
// "http://" (7), a host name (253), ":65535" (6).
const ENDPOINT_LENGTH_MAX: u32 = 266;
// Together at most 32 x (128 + 4096) bytes; backends refuse more than 8 to 64 KiB anyway.
const HEADERS_MAX: usize = 32;
const HEADER_NAME_LENGTH_MAX: u32 = 128;
const HEADER_VALUE_LENGTH_MAX: u32 = 4_096;

/// One backend that kept traces go to. Each has its own queue, so a slow one does not hold up the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = member("OTLP", "otlp"))]
pub struct Exporter {
    /// Unique in the pipeline. Metrics and the ledger carry it.
    #[schemars(length(max = NAME_LENGTH_MAX), regex(pattern = pattern::EXPORTER_NAME.regex))]
    pub name: String,

    /// What the backend speaks. OTLP is the only type.
    #[serde(rename = "type")]
    pub type_: ExporterType,

    /// An OTLP backend, such as Tempo, Jaeger or an OpenTelemetry Collector. Set it when type is OTLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpExporter>,
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum ExporterType {
    Otlp,
}

/// Settings of an OTLP exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtlpExporter {
    /// Where the backend listens, as http://host:port. The connection is not encrypted.
    #[schemars(length(max = ENDPOINT_LENGTH_MAX), regex(pattern = pattern::HTTP_ENDPOINT.regex))]
    pub endpoint: String,

    /// How OTLP is carried. GRPC is the only protocol.
    #[serde(default)]
    pub protocol: OtlpProtocol,

    /// How requests are compressed: None, Gzip or Zstd. Every OTLP backend reads Gzip; Zstd costs less CPU
    /// for the same size where the backend reads it.
    #[serde(default = "compression")]
    pub compression: Compression,

    /// How long to wait for the answer to one request before it is tried again. From 100ms to 5m.
    #[serde(default = "timeout")]
    #[x_kube(validation = TIMEOUT.rule())]
    pub timeout: DurationText,

    /// Headers to send with every request, such as a tenant or credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = HEADERS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,

    /// What waits for the backend.
    #[serde(default)]
    pub queue: Queue,

    /// What happens to requests that fail and may be repeated. Requests that the backend refuses for good
    /// are dropped and counted.
    #[serde(default)]
    pub retry: Retry,
}

// What every OTLP receiver reads.
fn compression() -> Compression {
    Compression::Gzip
}

fn timeout() -> DurationText {
    Duration::from_secs(5).into()
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum OtlpProtocol {
    #[default]
    Grpc,
}

/// One header of every request: a name, and either value or secretKeyRef.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ONE_VALUE.rule())]
pub struct Header {
    /// The name in lower case, such as x-scope-orgid. Names that the protocol uses itself (content-type,
    /// te, user-agent, host, connection and all that start with grpc-) and names that end in -bin are
    /// refused.
    #[schemars(length(max = HEADER_NAME_LENGTH_MAX), regex(pattern = pattern::HEADER_NAME.regex))]
    #[x_kube(validation = HEADER_IS_FREE.rule())]
    pub name: String,

    /// The value: printable ASCII. Everybody who may read this resource can read it, so a secret belongs
    /// into secretKeyRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = HEADER_VALUE_LENGTH_MAX), regex(pattern = pattern::HEADER_VALUE.regex))]
    pub value: Option<String>,

    /// A Secret of this namespace that holds the value. Gateways read it from a file when they start:
    /// SECRETS-DIR/NAME/KEY, which the operator mounts, and `--secrets-dir` names elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// One key of a Secret of the pipeline's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The name of the Secret.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub name: String,

    /// The key in it.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::SECRET_KEY.regex))]
    pub key: String,
}

/// A header has one value.
pub(crate) static ONE_VALUE: NodeRule = NodeRule {
    cel: "has(self.value) != has(self.secretKeyRef)",
    holds: |header| header.get("value").is_some() != header.get("secretKeyRef").is_some(),
    message: "needs either value or secretKeyRef",
    field: "",
};

// Headers that HTTP/2 forbids or that gRPC sets itself; values of -bin headers would have to be base64.
macro_rules! reserved {
    () => {
        "^(grpc-.*|.*-bin|connection|content-length|content-type|host|keep-alive|proxy-connection|te|\
         transfer-encoding|upgrade|user-agent)$"
    };
}

/// A header that the protocol does not use itself.
pub(crate) static HEADER_IS_FREE: NodeRule = NodeRule {
    cel: concat!("!self.matches('", reserved!(), "')"),
    holds: |name| {
        static RESERVED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(reserved!()).ok());
        !name
            .as_str()
            .zip(RESERVED.as_ref())
            .is_some_and(|(name, reserved)| reserved.is_match(name))
    },
    message: "is reserved: gRPC sets this header itself, or takes only base64 in it",
    field: "",
};

/// What waits for a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// The most that waits for this backend in one gateway, in bytes. When it is full, further spans for
    /// this backend are dropped and counted. From 1Mi to 64Gi.
    #[serde(default = "queue_bytes")]
    #[x_kube(validation = QUEUE_BYTES.rule())]
    pub max_bytes: SizeText,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_bytes: queue_bytes() }
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
