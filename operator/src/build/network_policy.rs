//! NetworkPolicy: keeps others away from the port where agents and gateways speak to gateways.
//!
//! It exists only while that port asks nobody for a certificate. With certificates it would add nothing,
//! and a policy that forgets somebody is hard to find.

use kube::ResourceExt;
use ringtail_crds::security::PeerTlsMode;
use serde_json::json;

use super::{Child, Inputs, port::PEER, tier::Tier};
use crate::{kind::Kind, labels};

const PORT_MAX: u16 = u16::MAX;

/// Builds it, if nothing else protects the port.
pub(super) fn build(inputs: &Inputs<'_>) -> Option<Child> {
    if inputs.pipeline.spec.security.peer_tls.mode != PeerTlsMode::Disabled {
        return None;
    }
    let name = inputs.pipeline.name_any();
    let gateways = labels::selector(&name, Tier::Gateway.component());
    let peers = json!({"podSelector": {"matchLabels": {labels::PIPELINE: name}}});
    let policy = json!({
        "metadata": inputs.meta(Tier::Gateway.component(), Tier::Gateway.child_name(inputs.pipeline)),
        "spec": {
            "podSelector": {"matchLabels": gateways},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [peers], "ports": [{"protocol": "TCP", "port": PEER.number}]},
                // All else stays as it was: a pod that a policy selects is closed but for what is listed.
                {"ports": [
                    {"protocol": "TCP", "port": 1, "endPort": PEER.number - 1},
                    {"protocol": "TCP", "port": PEER.number + 1, "endPort": PORT_MAX},
                    {"protocol": "UDP", "port": 1, "endPort": PORT_MAX},
                ]},
            ],
        },
    });
    Some(Child::new(Kind::NetworkPolicy, &policy))
}
