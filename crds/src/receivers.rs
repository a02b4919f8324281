//! `spec.agent.receivers`: where agents take spans in.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{exporter::SecretKeyRef, pattern, pod::OBJECT_NAME_LENGTH_MAX, rules::NodeRule};

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

    /// TLS with applications. Absent: they send in the clear. It applies wherever they send OTLP to: to
    /// agents, and to the OTLP ports of managed gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ReceiverTls>,

    /// A key of a Secret with the bearer tokens that applications must show, one a line; each of them is
    /// valid, so that an old and a new one are taken while applications change over. Absent: none is asked
    /// for. It applies where tls does. Files are read again when they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<SecretKeyRef>,
}

/// TLS with applications. New files are used for new connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiverTls {
    /// A Secret of type kubernetes.io/tls with the certificate that applications see: tls.crt, tls.key.
    pub certificate_ref: SecretRef,

    /// A Secret with the authority of applications' own certificates, in key ca.crt. With it every
    /// connection must show one.
    #[serde(default, rename = "clientCARef", skip_serializing_if = "Option::is_none")]
    pub client_ca_ref: Option<SecretRef>,
}

/// A Secret of the pipeline's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The name of the Secret.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub name: String,
}

impl OtlpReceivers {
    /// Whether applications must speak TLS or show a token.
    pub fn is_guarded(&self) -> bool {
        self.tls.is_some() || self.bearer_token_secret_ref.is_some()
    }
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

/// Whether a document's agent asks applications for TLS or a token.
fn is_guarded(agent: &Value) -> bool {
    ["/receivers/otlp/tls", "/receivers/otlp/bearerTokenSecretRef"]
        .iter()
        .any(|pointer| agent.pointer(pointer).is_some())
}

/// A sidecar listens in its application's pod alone, and sends plain OTLP to gateways.
pub(crate) static GUARD_NOT_OF_SIDECARS: NodeRule = NodeRule {
    cel: "self.mode != 'Sidecar' || !(has(self.receivers.otlp.tls) || \
          has(self.receivers.otlp.bearerTokenSecretRef))",
    holds: |agent| agent.get("mode").is_none_or(|mode| mode != "Sidecar") || !is_guarded(agent),
    message: "tls and bearerTokenSecretRef need agent.mode DaemonSet or None: sidecars send to gateways \
              without either",
    field: ".receivers.otlp",
};

/// Without certificates of their own, agents come to the port that applications come to.
pub(crate) static GUARD_NEEDS_PEER_TLS: NodeRule = NodeRule {
    cel: "self.gateway.type == 'External' || self.security.peerTLS.mode != 'Disabled' || \
          !(has(self.agent.receivers.otlp.tls) || has(self.agent.receivers.otlp.bearerTokenSecretRef))",
    holds: |spec| {
        let is = |pointer, word| spec.pointer(pointer).is_some_and(|value| value == word);
        is("/gateway/type", "External")
            || !is("/security/peerTLS/mode", "Disabled")
            || !spec.get("agent").is_some_and(is_guarded)
    },
    message: "must not be Disabled with agent.receivers.otlp.tls or bearerTokenSecretRef: agents would come \
              to the port of gateways that applications come to, and have neither",
    field: ".security.peerTLS.mode",
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
