//! `spec.routing`: how agents find gateways.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::{DurationBounds, DurationText},
    gateway::REPLICAS_MAX,
    pattern,
    rules::{NodeRule, durations},
    union::member,
};

// A host name (253) and ":65535" (6).
const ENDPOINT_LENGTH_MAX: u32 = 259;

/// How agents spread traces over gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// Which spans go to the same gateway. TraceID: those of a trace, so that a gateway decides whole traces.
    /// Service: those of a service, by the service.name of their resource. A gateway then decides what it has
    /// of a trace and knows nothing of the rest: tail sampling is partial, nothing is handed over or sent
    /// again when gateways come and go, and the condition SamplingDegraded says so. It is for fleets that
    /// need all spans of a service in one place, for metrics.
    #[serde(default)]
    pub key: RoutingKey,

    /// How agents find gateways.
    #[serde(default)]
    pub resolver: Resolver,
}

/// Which spans go to the same gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum RoutingKey {
    #[default]
    #[serde(rename = "TraceID")]
    TraceId,
    Service,
}

/// Where the list of gateways comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = member("DNS", "dns"), validation = member("Static", "static"))]
pub struct Resolver {
    /// Where the list of gateways comes from. Kubernetes: agents and gateways watch the EndpointSlices of
    /// the pipeline's Services. DNS: the addresses of a name, asked for again and again. Static: a list in
    /// this resource. DNS and Static are for gateways that somebody else runs and go with gateway.type
    /// External.
    #[serde(default, rename = "type")]
    pub type_: ResolverType,

    /// A fixed list of gateways. Set it when type is Static.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_: Option<StaticResolver>,

    /// A name with the addresses of gateways. Set it when type is DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsResolver>,
}

/// Where the list of gateways comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum ResolverType {
    #[default]
    Kubernetes,
    #[serde(rename = "DNS")]
    Dns,
    Static,
}

/// A fixed list of gateways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticResolver {
    /// The OTLP/gRPC addresses of all gateways, as host:port. Every agent must have the same list.
    #[schemars(
        length(min = 1, max = REPLICAS_MAX),
        inner(length(max = ENDPOINT_LENGTH_MAX), regex(pattern = pattern::HOST_PORT.regex)),
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub endpoints: Vec<String>,
}

/// A name with the addresses of gateways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = PORT_OF_ADDRESSES.rule(), validation = TIMEOUT_WITHIN_INTERVAL.rule())]
pub struct DnsResolver {
    /// A host name, whose IPv4 and IPv6 addresses are gateways, such as that of a headless Service; or the
    /// name of SRV records, such as _otlp-grpc._tcp.gateways.example.com, which have hosts and ports.
    #[schemars(length(max = HOSTNAME_LENGTH_MAX), regex(pattern = pattern::DNS_NAME.regex))]
    pub hostname: String,

    /// The OTLP/gRPC port of the gateways; 4317 when it is not set. SRV records have ports of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,

    /// How long to wait before the name is asked for again; up to a tenth is added or taken away by chance.
    /// From 1s to 1h.
    #[serde(default = "interval")]
    #[x_kube(validation = INTERVAL.rule())]
    pub interval: DurationText,

    /// How long to wait for an answer. A list that cannot be had, or an empty one, changes nothing. From
    /// 100ms to 1m.
    #[serde(default = "timeout")]
    #[x_kube(validation = DNS_TIMEOUT.rule())]
    pub timeout: DurationText,
}

/// Asking more often would only load the server; in an hour everything has moved.
pub(crate) static INTERVAL: DurationBounds = DurationBounds::ms(1_000, 3_600_000);
/// Less than a round trip through a busy cluster; a minute is a server that is down.
pub(crate) static DNS_TIMEOUT: DurationBounds = DurationBounds::ms(100, 60_000);
/// What DNS allows.
const HOSTNAME_LENGTH_MAX: u32 = 253;

fn interval() -> DurationText {
    Duration::from_secs(5).into()
}

fn timeout() -> DurationText {
    Duration::from_secs(1).into()
}

/// An SRV record says the port.
pub(crate) static PORT_OF_ADDRESSES: NodeRule = NodeRule {
    cel: "!has(self.port) || !self.hostname.startsWith('_')",
    holds: |dns| {
        let name = dns.get("hostname").and_then(serde_json::Value::as_str);
        dns.get("port").is_none() || !name.is_some_and(|name| name.starts_with('_'))
    },
    message: "must not be set when hostname names SRV records, which have ports of their own",
    field: ".port",
};

/// One question at a time.
pub(crate) static TIMEOUT_WITHIN_INTERVAL: NodeRule = NodeRule {
    cel: "duration(self.timeout) <= duration(self.interval)",
    holds: |dns| durations(dns, "/timeout", "/interval", Duration::le),
    message: "must not be longer than interval",
    field: ".timeout",
};
