//! A manifest with every default in place: plain data, as the data plane uses it.
//!
//! The types of the other modules hold what was written; these hold what it means. No `Option` here stands
//! for a default, no text is left to parse, and a value of [`ValidPipeline`] has passed every check.

use std::time::Duration;

use ringtail_engine::policy::{Policy, Records};
use ringtail_engine::rewrite::attributes::Action;
use ringtail_engine::rewrite::redaction::Plan;
use ringtail_engine::span_metrics::PlanConfig;

use crate::{
    compression::Compression,
    exporter::{OtlpProtocol, Verbosity},
    logs::{Signal, Undecided},
    processing::Detector,
    routing::RoutingKey,
    security::PeerTlsMode,
};

/// A pipeline that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPipeline {
    /// `metadata.name`.
    pub name: String,
    /// How long a gateway gathers a trace before it decides.
    pub decision_wait: Duration,
    /// How long a gateway gathers a trace after a span without a parent, if that is shorter.
    pub decision_wait_after_root: Option<Duration>,
    /// How many spans decide a trace at once.
    pub max_trace_spans: u32,
    /// How many bytes of spans do.
    pub max_trace_bytes: u64,
    /// The policies in the order of the manifest; they compile.
    pub policies: Vec<Policy>,
    /// What kept spans tell of their decision.
    pub records: Records,
    /// What must not leave with kept spans.
    pub redaction: Option<Redaction>,
    /// What agents do to spans.
    pub processing: Processing,
    /// The backends, at least one.
    pub exporters: Vec<Exporter>,
    /// Where the list of gateways comes from.
    pub resolver: Resolver,
    /// Which spans go to the same gateway.
    pub routing_key: RoutingKey,
    /// Where an agent takes spans in.
    pub receivers: ReceiverPorts,
    /// What applications have to show.
    pub guard: ReceiverGuard,
    /// Where the certificates between agents and gateways come from.
    pub peer_tls: PeerTlsMode,
    /// How an agent gathers spans into requests.
    pub batch: Batch,
    /// Bytes of delivered spans that agents keep; none: what their memory limit gives.
    pub retention_bytes: Option<u64>,
    /// How an agent compresses requests to gateways.
    pub hop_compression: Compression,
    /// How many gateways share the traces.
    pub replicas: u32,
    /// What is counted of all spans, if anything is.
    pub span_metrics: Option<SpanMetrics>,
    /// What becomes of log records, if any are taken.
    pub logs: Option<Logs>,
}

/// What becomes of log records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// They are forwarded.
    All,
    /// Those of kept traces are.
    OfKeptTraces(Undecided),
}

/// What is counted of all spans.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanMetrics {
    /// As the engine counts.
    pub plan: PlanConfig,
    /// The most series of a gateway, without the overflow series.
    pub max_series: u32,
    /// Where they are pushed.
    pub push: Option<SpanMetricsPush>,
}

/// Where span metrics are pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanMetricsPush {
    /// Where OTLP/gRPC is taken.
    pub endpoint: Endpoint,
    /// How often.
    pub interval: Duration,
    /// Whether only what came since the last push is told.
    pub delta: bool,
}

/// What must not leave with kept spans; it compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// What becomes of attributes.
    pub plan: Plan,
    /// The name of the Secret with the key of the HMAC, and the key in it.
    pub hash_secret: Option<(String, String)>,
}

/// What agents do to spans, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processing {
    /// Whose facts are added to resources.
    pub detection: Vec<Detector>,
    /// The conditions that drop spans; they compile.
    pub filter: Vec<String>,
    /// What is done to attributes.
    pub attributes: Vec<Action>,
}

/// Where the list of gateways comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The EndpointSlices of the pipeline's Services.
    Kubernetes,
    /// These, as `host:port`; at least one.
    Static(Vec<String>),
    /// What DNS says of a name.
    Dns(Dns),
}

/// A name whose addresses are gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// A host name, or the name of SRV records, which begins with `_`.
    pub hostname: String,
    /// The port of the addresses.
    pub port: u16,
    /// The wait between two questions.
    pub interval: Duration,
    /// The wait for an answer; never longer than the interval.
    pub timeout: Duration,
}

/// Where an agent takes spans in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverPorts {
    /// OTLP/gRPC.
    pub grpc: u16,
    /// OTLP/HTTP.
    pub http: u16,
}

/// What applications have to show where they send OTLP to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverGuard {
    /// They speak TLS.
    pub tls: bool,
    /// They have certificates of their own.
    pub client_certificates: bool,
    /// They send a bearer token.
    pub tokens: bool,
}

/// One key of a Secret: the contents of the file `<secrets directory>/<name>/<key>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// The name of the Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// This text.
    Text(String),
    /// What a Secret holds.
    Secret(SecretKey),
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Unique among the exporters.
    pub name: String,
    /// A condition that compiles: spans for which it holds are exported. None: all are.
    pub filter: Option<String>,
    /// What it gets, at least one.
    pub signals: Vec<Signal>,
    /// What the backend is.
    pub destination: Destination,
    /// The most bytes that wait for it in one gateway.
    pub queue_max_bytes: u64,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// It speaks OTLP.
    Otlp(Box<Otlp>),
    /// The log.
    Debug(Debug),
    /// A file.
    File(File),
}

/// A backend that speaks OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// How it is carried.
    pub protocol: OtlpProtocol,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Names in lower case and values to send with every request.
    pub headers: Vec<(String, HeaderValue)>,
    /// A token to send with every request.
    pub bearer_token: Option<SecretKey>,
    /// The most bytes that wait for it on disk; none: only memory is used.
    pub disk_max_bytes: Option<u64>,
    /// How requests to it are compressed.
    pub compression: Compression,
    /// How long to wait for one answer.
    pub timeout: Duration,
    /// How failed requests are repeated.
    pub retry: Retry,
}

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As `host:port`.
    pub address: String,
    /// What follows the port, such as `/v1/traces`; empty when nothing was written.
    pub path: String,
    /// What is spoken there in TLS; none in the clear.
    pub tls: Option<Tls>,
}

/// Whom to trust and what to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities; none: the public ones.
    pub authorities: Option<SecretKey>,
    /// The Secret with `tls.crt` and `tls.key` to show.
    pub client_certificate: Option<String>,
    /// The name that the certificate must have; none: the endpoint's host.
    pub server_name: Option<String>,
    /// Whether any certificate is taken.
    pub skip_verify: bool,
}

/// How spans are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debug {
    /// How much of them.
    pub verbosity: Verbosity,
    /// Requests of a second that are printed.
    pub initial: u32,
    /// Of the further ones every so many is.
    pub thereafter: u32,
}

/// Where spans are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The path; `{identity}` stands for what the process calls itself.
    pub path: String,
    /// A new file is begun before it would grow beyond this.
    pub max_bytes: u64,
    /// Old files that are kept.
    pub max_backups: u32,
}

/// How failed requests are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After this long a request is given up.
    pub max_elapsed: Duration,
    /// The wait before the first repetition.
    pub initial_interval: Duration,
    /// The longest wait; never shorter than the first.
    pub max_interval: Duration,
}

/// When a request to a gateway is sent: at whichever of these is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Bytes before compression.
    pub max_bytes: u64,
    /// Spans.
    pub max_spans: u32,
    /// The time that the oldest span has waited; less than the decision wait.
    pub timeout: Duration,
}
