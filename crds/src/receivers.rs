//! `spec.agent.receivers`: where agents take spans in.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::NodeRule;

/// Lower ports need a capability, which the pods do not have.
const PORT_MIN: u16 = 1_024;
const PORT_MAX: u16 = 65_535;
/// What SDKs and Collectors send to by default.
const GRPC_PORT: u16 = 4_317;
const HTTP_PORT: u16 = 4_318;

/// Where agents take spans in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receivers {
    /// OTLP, over gRPC and over HTTP.
    #[serde(default)]
    pub otlp: OtlpReceivers,

    /// Whether agents also listen on their node's address, on the same ports, for applications that find
    /// their agent by the node's IP. Needs mode DaemonSet. The baseline and restricted profiles of pod
    /// security forbid it, so the namespace must allow it; and only one pipeline of a cluster can have the
    /// ports of a node.
    #[serde(default)]
    pub host_port: bool,
}

/// Where agents take OTLP in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = PORTS_DIFFER.rule())]
pub struct OtlpReceivers {
    /// OTLP/gRPC.
    #[serde(default)]
    pub grpc: GrpcReceiver,

    /// OTLP/HTTP, protobuf and JSON.
    #[serde(default)]
    pub http: HttpReceiver,
}

/// Where agents take OTLP/gRPC in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcReceiver {
    /// The port. Not 4319 or 8888, which Ringtail uses itself.
    #[serde(default = "grpc_port")]
    #[schemars(range(min = PORT_MIN, max = PORT_MAX))]
    #[x_kube(validation = PORT_IS_FREE.rule())]
    pub port: u16,
}

/// Where agents take OTLP/HTTP in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpReceiver {
    /// The port. Not 4319 or 8888, which Ringtail uses itself.
    #[serde(default = "http_port")]
    #[schemars(range(min = PORT_MIN, max = PORT_MAX))]
    #[x_kube(validation = PORT_IS_FREE.rule())]
    pub port: u16,
}

impl Default for GrpcReceiver {
    fn default() -> Self {
        Self { port: grpc_port() }
    }
}

impl Default for HttpReceiver {
    fn default() -> Self {
        Self { port: http_port() }
    }
}

fn grpc_port() -> u16 {
    GRPC_PORT
}

fn http_port() -> u16 {
    HTTP_PORT
}

/// The peer port and the admin port are fixed.
pub(crate) static PORT_IS_FREE: NodeRule = NodeRule {
    cel: "self != 4319 && self != 8888",
    holds: |port| !matches!(port.as_u64(), Some(4319 | 8888)),
    message: "must not be 4319 or 8888: Ringtail listens there for gateways and for probes",
    field: "",
};

/// One port takes one protocol.
pub(crate) static PORTS_DIFFER: NodeRule = NodeRule {
    cel: "self.grpc.port != self.http.port",
    holds: |otlp| {
        let port = |pointer| otlp.pointer(pointer).and_then(Value::as_u64);
        port("/grpc/port").is_none_or(|grpc| Some(grpc) != port("/http/port"))
    },
    message: "must differ from grpc.port: a port takes one of the two",
    field: ".http.port",
};
