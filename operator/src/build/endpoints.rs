//! `status.endpoints`: the addresses that people rely on.

use kube::ResourceExt;
use ringtail_crds::{TracePipeline, agent::AgentMode, status::Endpoints};

use super::{network_policy, tier::Tier};

/// OTLP of gateways, which is the same everywhere.
const GATEWAY_PORTS: [u16; 2] = [4317, 4318];

/// Where applications, and others, reach the pipeline.
pub fn endpoints(pipeline: &TracePipeline) -> Endpoints {
    let host =
        |service: String| format!("{service}.{}.svc", pipeline.namespace().unwrap_or_default());
    let gateways = Tier::Gateway.child_name(pipeline);
    let open = Tier::Gateway.is_managed(pipeline) && !network_policy::is_fenced(pipeline);
    let receivers = &pipeline.spec.agent.receivers.otlp;
    let scheme = if receivers.tls.is_some() { "https" } else { "http" };
    let receivers = [receivers.grpc.port, receivers.http.port];
    let (applications, ports) = match pipeline.spec.agent.mode {
        AgentMode::DaemonSet => (host(Tier::Agent.child_name(pipeline)), receivers),
        AgentMode::Sidecar => ("localhost".to_owned(), receivers),
        AgentMode::None => (host(gateways.clone()), GATEWAY_PORTS),
    };
    let [grpc, http] = ports.map(|port| Some(format!("{scheme}://{applications}:{port}")));
    let [gateway_port, _] = GATEWAY_PORTS;
    Endpoints {
        otlp_grpc: grpc,
        otlp_http: http,
        gateway: open.then(|| format!("{scheme}://{}:{gateway_port}", host(gateways.clone()))),
        gateway_headless: open
            .then(|| format!("{}:{gateway_port}", host(format!("{gateways}-headless")))),
    }
}
