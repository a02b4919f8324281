//! Ports of pods and Services, by the names that they have everywhere.

use serde_json::{Value, json};

use super::{Inputs, tier::Tier};

/// A port by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// In pods and Services.
    pub(super) name: &'static str,
    /// What it listens on.
    pub(super) number: u16,
    /// For service meshes, which treat gRPC in another way than bytes.
    protocol: Option<&'static str>,
}

const OTLP_GRPC: Port = Port { name: "otlp-grpc", number: 4317, protocol: Some("grpc") };
const OTLP_HTTP: Port = Port { name: "otlp-http", number: 4318, protocol: Some("http") };
/// Agents and gateways speak to gateways here.
pub(super) const PEER: Port = Port { name: "peer", number: 4319, protocol: None };
/// Metrics, probes, statistics.
pub(super) const ADMIN: Port = Port { name: "admin", number: 8888, protocol: Some("http") };

/// Where a tier takes OTLP. Gateways cannot be told otherwise: the Services count on it.
pub(super) fn otlp(inputs: &Inputs<'_>, tier: Tier) -> [Port; 2] {
    let receivers = &inputs.pipeline.spec.agent.receivers.otlp;
    // What is encrypted a mesh must not try to read.
    let [grpc, http] = match receivers.tls {
        None => [OTLP_GRPC, OTLP_HTTP],
        Some(_) => [
            Port { protocol: Some("tls"), ..OTLP_GRPC },
            Port { protocol: Some("https"), ..OTLP_HTTP },
        ],
    };
    match tier {
        Tier::Agent => [
            Port { number: receivers.grpc.port, ..grpc },
            Port { number: receivers.http.port, ..http },
        ],
        Tier::Gateway => [grpc, http],
    }
}

// === impl Port ===

impl Port {
    /// As a Service lists it.
    pub(super) fn of_service(self) -> Value {
        let mut port = json!({
            "name": self.name,
            "port": self.number,
            "protocol": "TCP",
            "targetPort": self.name,
        });
        if let Some(protocol) = self.protocol {
            port["appProtocol"] = protocol.into();
        }
        port
    }

    /// As a container lists it.
    pub(super) fn of_container(self) -> Value {
        json!({"name": self.name, "containerPort": self.number, "protocol": "TCP"})
    }
}
