//! From the types, with all defaults in place, to a [`ValidPipeline`].

use crate::{
    agent::Agent,
    exporter,
    pipeline::TracePipeline,
    resolved::{Batch, Exporter, Retry, ValidPipeline},
    routing::Routing,
};
use ringtail_engine::policy::Policy;

/// The pipeline as plain data. `None` when a text in it cannot be read, which the walk does not let pass.
pub(crate) fn resolve(pipeline: TracePipeline, policies: Vec<Policy>) -> Option<ValidPipeline> {
    let spec = pipeline.spec;
    let exporters = spec.exporters.into_iter().map(resolve_exporter);
    Some(ValidPipeline {
        name: pipeline.metadata.name?,
        decision_wait: spec.sampling.decision_wait.parse()?,
        max_trace_spans: spec.sampling.max_trace_spans,
        policies,
        exporters: exporters.collect::<Option<_>>()?,
        gateways: gateways(spec.routing),
        batch: batch(&spec.agent)?,
        hop_compression: spec.agent.compression,
        replicas: spec.gateway.replicas,
    })
}

fn resolve_exporter(written: exporter::Exporter) -> Option<Exporter> {
    let otlp = written.otlp?;
    let headers = otlp.headers.into_iter().map(|header| (header.name, header.value));
    Some(Exporter {
        name: written.name,
        endpoint: otlp.endpoint.strip_prefix("http://")?.to_owned(),
        compression: otlp.compression,
        timeout: otlp.timeout.parse()?,
        headers: headers.collect(),
        queue_max_bytes: otlp.queue.max_bytes.parse()?,
        retry: Retry {
            max_elapsed: otlp.retry.max_elapsed.parse()?,
            initial_interval: otlp.retry.initial_interval.parse()?,
            max_interval: otlp.retry.max_interval.parse()?,
        },
    })
}

fn gateways(routing: Option<Routing>) -> Vec<String> {
    let resolver = routing.and_then(|routing| routing.resolver.static_);
    resolver.map(|resolver| resolver.endpoints).unwrap_or_default()
}

fn batch(agent: &Agent) -> Option<Batch> {
    Some(Batch {
        max_bytes: agent.batch.max_bytes.parse()?,
        max_spans: agent.batch.max_spans,
        timeout: agent.batch.timeout.parse()?,
    })
}
