//! `spec.exporters`: where kept traces go.

use kube::KubeSchema;
use ringtail_engine::policy::limits::MAX_CONDITION_BYTES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{logs::Signal, pattern, union::member};

mod header; // headers, and references to Secrets
mod local; //  Debug and File
mod otlp; //   OTLP over gRPC and HTTP
mod queue; //  what waits, and how it is repeated
mod tls; //    whom to trust, and what to show

pub use header::{Header, SecretKeyRef};
pub use local::{DebugExporter, FileExporter, Rotation, Verbosity};
pub use otlp::{OtlpExporter, OtlpProtocol};
pub use queue::{PersistentQueue, Queue, Retry};
pub use tls::{CertificateRef, TlsKeyRef, TlsSettings};

pub(crate) use header::{HEADER_IS_FREE, ONE_VALUE};
pub(crate) use local::ROTATION_BYTES;
pub(crate) use otlp::{ONE_AUTHORIZATION, PATH_OF_HTTP, TIMEOUT, TLS_OF_HTTPS};
pub(crate) use queue::{
    DISK_BYTES, INTERVALS_IN_ORDER, QUEUE_BYTES, RETRY_ELAPSED, RETRY_INTERVAL,
};
pub(crate) use tls::TRUST_OR_NOT;

/// More backends than anybody has been seen to feed; each one costs a queue.
pub(crate) const EXPORTERS_MAX: usize = 8;
const NAME_LENGTH_MAX: u32 = 63;
/// There are no more.
const SIGNALS_MAX: usize = Signal::ALL.len();

/// One backend that kept traces go to. Each has its own queue, so a slow one does not hold up the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = member("OTLP", "otlp"),
    validation = member("Debug", "debug"),
    validation = member("File", "file"),
)]
pub struct Exporter {
    /// Unique in the pipeline. Metrics and the ledger carry it.
    #[schemars(length(max = NAME_LENGTH_MAX), regex(pattern = pattern::EXPORTER_NAME.regex))]
    pub name: String,

    /// What the backend is. OTLP: it speaks OTLP over gRPC or HTTP. Debug: spans are printed to the log of
    /// the gateway. File: they are written to a file, a line of OTLP JSON for each request.
    #[serde(rename = "type")]
    pub type_: ExporterType,

    /// An OTTL condition on spans, such as `attributes["http.route"] != "/healthz"`. Of the kept traces this
    /// exporter gets the spans for which it holds; the others are counted as filtered. Without it every span
    /// is exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_CONDITION_BYTES))]
    pub filter: Option<String>,

    /// What it gets: Traces, Logs. Without it everything that the pipeline takes. An exporter of both has a
    /// queue for each, of half the bytes, so that neither holds up the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SIGNALS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub signals: Option<Vec<Signal>>,

    /// An OTLP backend, such as Tempo, Jaeger or an OpenTelemetry Collector. Set it when type is OTLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpExporter>,

    /// How spans are printed. Set it when type is Debug; `{}` stands for the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<DebugExporter>,

    /// Where spans are written. Set it when type is File.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileExporter>,
}

/// What a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum ExporterType {
    #[serde(rename = "OTLP")]
    Otlp,
    Debug,
    File,
}
