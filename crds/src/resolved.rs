//! A manifest with every default in place: plain data, as the data plane uses it.
//!
//! The types of the other modules hold what was written; these hold what it means. No `Option` here stands
//! for a default, no text is left to parse, and a value of [`ValidPipeline`] has passed every check.

use std::time::Duration;

use ringtail_engine::policy::Policy;

use crate::{compression::Compression, routing::RoutingKey, security::PeerTlsMode};

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
    /// The backends, at least one.
    pub exporters: Vec<Exporter>,
    /// Where the list of gateways comes from.
    pub resolver: Resolver,
    /// Which spans go to the same gateway.
    pub routing_key: RoutingKey,
    /// Where an agent takes spans in.
    pub receivers: ReceiverPorts,
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

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// This text.
    Text(String),
    /// The contents of the file `<secrets directory>/<name>/<key>`.
    Secret {
        /// The name of the Secret.
        name: String,
        /// The key in it.
        key: String,
    },
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Unique among the exporters.
    pub name: String,
    /// Where it listens for OTLP/gRPC without TLS, as `host:port`.
    pub endpoint: String,
    /// How requests to it are compressed.
    pub compression: Compression,
    /// How long to wait for one answer.
    pub timeout: Duration,
    /// Names in lower case and values to send with every request.
    pub headers: Vec<(String, HeaderValue)>,
    /// The most bytes that wait for it in one gateway.
    pub queue_max_bytes: u64,
    /// How failed requests are repeated.
    pub retry: Retry,
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
