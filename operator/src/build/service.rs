//! Services: where applications send to, and where the ring is found.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    Child, Inputs,
    port::{self, PEER, Port},
    tier::Tier,
};
use crate::{kind::Kind, labels};

/// The Services of a tier.
pub(super) fn build(inputs: &Inputs<'_>, tier: Tier) -> Vec<Child> {
    match tier {
        Tier::Agent => vec![agent(inputs)],
        Tier::Gateway => vec![gateway(inputs), headless(inputs), peers(inputs)],
    }
}

/// An application reaches the agent of its own node: no hop through the network, and a lost node is one
/// lost agent.
fn agent(inputs: &Inputs<'_>) -> Child {
    let settings = json!({"type": "ClusterIP", "internalTrafficPolicy": "Local"});
    service(inputs, Tier::Agent, "", &port::otlp(inputs, Tier::Agent), settings)
}

/// Any gateway, for whoever sends without an agent; gateways forward what is not theirs.
fn gateway(inputs: &Inputs<'_>) -> Child {
    let settings = json!({"type": "ClusterIP"});
    service(inputs, Tier::Gateway, "", &port::otlp(inputs, Tier::Gateway), settings)
}

/// Every ready gateway by its own address, for agents and for Collectors that balance by trace themselves.
fn headless(inputs: &Inputs<'_>) -> Child {
    let settings = json!({"type": "ClusterIP", "clusterIP": "None"});
    service(inputs, Tier::Gateway, "-headless", &peer_ports(inputs), settings)
}

/// Every gateway, ready or not, for the gateways: they have to meet before any of them can be ready.
fn peers(inputs: &Inputs<'_>) -> Child {
    let settings =
        json!({"type": "ClusterIP", "clusterIP": "None", "publishNotReadyAddresses": true});
    service(inputs, Tier::Gateway, "-peers", &peer_ports(inputs), settings)
}

fn peer_ports(inputs: &Inputs<'_>) -> Vec<Port> {
    let mut ports = port::otlp(inputs, Tier::Gateway).to_vec();
    ports.push(PEER);
    ports
}

fn service(
    inputs: &Inputs<'_>,
    tier: Tier,
    suffix: &str,
    ports: &[Port],
    mut spec: Value,
) -> Child {
    let name = format!("{}{suffix}", tier.child_name(inputs.pipeline));
    spec["ports"] = ports.iter().map(|port| port.of_service()).collect();
    // Without a colour: with two, both of them serve.
    spec["selector"] = json!(labels::selector(&inputs.pipeline.name_any(), tier.component()));
    let service = json!({"metadata": inputs.meta(tier.component(), name), "spec": spec});
    Child::new(Kind::Service, &service)
}
