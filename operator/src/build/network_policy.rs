//! NetworkPolicy: without certificates it is all that keeps others away from where agents and gateways
//! speak to gateways.
//!
//! Without certificates that is also the port where gateways take OTLP, so the policy exists only where
//! applications send to agents. Where they send to gateways themselves, nothing could tell them from a
//! stranger. With certificates it would add nothing, and a policy that forgets somebody is hard to find.

use kube::ResourceExt;
use ringtail_crds::{TracePipeline, agent::AgentMode, security::PeerTlsMode};
use serde_json::{Value, json};

use super::{
    Child, Inputs,
    port::{self, PEER},
    tier::Tier,
};
use crate::{kind::Kind, labels};

/// Whether only pods of the pipeline reach its gateways' OTLP/gRPC port.
pub(super) fn is_fenced(pipeline: &TracePipeline) -> bool {
    let spec = &pipeline.spec;
    spec.security.peer_tls.mode == PeerTlsMode::Disabled && spec.agent.mode == AgentMode::DaemonSet
}

/// Builds it, if nothing else protects the gateways.
pub(super) fn build(inputs: &Inputs<'_>) -> Option<Child> {
    if !is_fenced(inputs.pipeline) {
        return None;
    }
    let name = inputs.pipeline.name_any();
    let gateways = labels::selector(&name, Tier::Gateway.component());
    let [grpc, _] = port::otlp(inputs, Tier::Gateway);
    let fenced = [grpc.number, PEER.number];
    let policy = json!({
        "metadata": inputs.meta(Tier::Gateway.component(), Tier::Gateway.child_name(inputs.pipeline)),
        "spec": {
            "podSelector": {"matchLabels": gateways},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {labels::PIPELINE: name}}}],
                    "ports": fenced.map(|port| json!({"protocol": "TCP", "port": port})),
                },
                {"ports": all_but(fenced)},
            ],
        },
    });
    Some(Child::new(Kind::NetworkPolicy, &policy))
}

// All else stays as it was: a pod that a policy selects is closed but for what is listed.
fn all_but([low, high]: [u16; 2]) -> Vec<Value> {
    let range =
        |kind: &str, from: u16, to: u16| json!({"protocol": kind, "port": from, "endPort": to});
    vec![
        range("TCP", 1, low - 1),
        range("TCP", low + 1, high - 1),
        range("TCP", high + 1, u16::MAX),
        range("UDP", 1, u16::MAX),
    ]
}
