//! From the types, with all defaults in place, to a [`ValidPipeline`].

use super::exporters;
use crate::{
    agent::Agent,
    pipeline::TracePipeline,
    resolved::{Batch, Dns, ReceiverGuard, ReceiverPorts, Resolver, ValidPipeline},
    routing::{ResolverType, Routing},
    sampling::TRACE_BYTES,
};
use ringtail_engine::policy::Policy;

/// Where gateways listen when nothing else is said.
const GRPC_PORT: u16 = 4_317;

/// The pipeline as plain data. `None` when a text in it cannot be read, which the walk does not let pass.
pub(crate) fn resolve(pipeline: TracePipeline, policies: Vec<Policy>) -> Option<ValidPipeline> {
    let spec = pipeline.spec;
    let exporters = spec.exporters.into_iter().map(exporters::resolve);
    Some(ValidPipeline {
        name: pipeline.metadata.name?,
        decision_wait: spec.sampling.decision_wait.parse()?,
        decision_wait_after_root: match &spec.sampling.decision_wait_after_root_received {
            Some(wait) => Some(wait.parse()?),
            None => None,
        },
        max_trace_spans: spec.sampling.max_trace_spans,
        max_trace_bytes: match &spec.sampling.max_trace_bytes {
            Some(size) => size.parse()?,
            None => TRACE_BYTES.most,
        },
        policies,
        exporters: exporters.collect::<Option<_>>()?,
        routing_key: spec.routing.key,
        resolver: resolver(spec.routing)?,
        receivers: receivers(&spec.agent),
        guard: guard(&spec.agent),
        peer_tls: spec.security.peer_tls.mode,
        batch: batch(&spec.agent)?,
        retention_bytes: match &spec.agent.retention.max_bytes {
            Some(size) => Some(size.parse()?),
            None => None,
        },
        hop_compression: spec.agent.compression,
        replicas: spec.gateway.replicas,
    })
}

fn resolver(routing: Routing) -> Option<Resolver> {
    match routing.resolver.type_ {
        ResolverType::Kubernetes => Some(Resolver::Kubernetes),
        ResolverType::Static => Some(Resolver::Static(routing.resolver.static_?.endpoints)),
        ResolverType::Dns => {
            let dns = routing.resolver.dns?;
            Some(Resolver::Dns(Dns {
                hostname: dns.hostname,
                port: dns.port.unwrap_or(GRPC_PORT),
                interval: dns.interval.parse()?,
                timeout: dns.timeout.parse()?,
            }))
        }
    }
}

fn receivers(agent: &Agent) -> ReceiverPorts {
    let otlp = &agent.receivers.otlp;
    ReceiverPorts { grpc: otlp.grpc.port, http: otlp.http.port }
}

fn guard(agent: &Agent) -> ReceiverGuard {
    let otlp = &agent.receivers.otlp;
    ReceiverGuard {
        tls: otlp.tls.is_some(),
        client_certificates: otlp.tls.as_ref().is_some_and(|tls| tls.client_ca_ref.is_some()),
        tokens: otlp.bearer_token_secret_ref.is_some(),
    }
}

fn batch(agent: &Agent) -> Option<Batch> {
    Some(Batch {
        max_bytes: agent.batch.max_bytes.parse()?,
        max_spans: agent.batch.max_spans,
        timeout: agent.batch.timeout.parse()?,
    })
}
