//! From the types, with all defaults in place, to a [`ValidPipeline`].

use super::exporters;
use crate::{
    agent::Agent,
    logs::LogsKept,
    pipeline::TracePipeline,
    resolved::{
        Batch, Dns, Logs, Processing, ReceiverGuard, ReceiverPorts, Resolver, SpanMetrics,
        SpanMetricsPush, ValidPipeline,
    },
    routing::{ResolverType, Routing},
    sampling::TRACE_BYTES,
    span_metrics::{self, DurationUnit, Temporality},
};
use ringtail_engine::policy::{Policy, Records};

use super::processing::{action_of, redaction_of};
use ringtail_engine::span_metrics::{Buckets, Dimension, PlanConfig, Unit};

/// Where gateways listen when nothing else is said.
const GRPC_PORT: u16 = 4_317;

/// The pipeline as plain data. `None` when a text in it cannot be read, which the walk does not let pass.
pub(crate) fn resolve(pipeline: TracePipeline, policies: Vec<Policy>) -> Option<ValidPipeline> {
    let spec = pipeline.spec;
    let logs = spec.logs.is_some();
    let exporters = spec.exporters.into_iter().map(|one| exporters::resolve(one, logs));
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
        records: Records {
            policy: spec.sampling.record_policy,
            threshold: spec.sampling.record_threshold,
        },
        redaction: spec.redaction.as_ref().map(redaction_of),
        processing: Processing {
            detection: spec.agent.resource_detection.clone(),
            filter: spec.agent.filter.clone(),
            attributes: spec.agent.attributes.iter().map(action_of).collect::<Option<_>>()?,
        },
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
        span_metrics: match spec.span_metrics {
            Some(written) => Some(span_metrics(written)?),
            None => None,
        },
        logs: spec.logs.map(|logs| match logs.keep {
            LogsKept::All => Logs::All,
            LogsKept::SampledTraces => Logs::OfKeptTraces(logs.undecided.unwrap_or_default()),
        }),
    })
}

fn span_metrics(written: span_metrics::SpanMetrics) -> Option<SpanMetrics> {
    let excluded = written.exclude_dimensions.iter().map(|dimension| {
        let text = serde_json::to_value(dimension).ok()?;
        text.as_str().map(str::to_owned)
    });
    let excluded = excluded.collect::<Option<_>>()?;
    let unit = match written.unit {
        DurationUnit::Milliseconds => Unit::Milliseconds,
        DurationUnit::Seconds => Unit::Seconds,
    };
    let plan = PlanConfig {
        excluded,
        unit,
        buckets: buckets(&written, unit)?,
        dimensions: dimensions(written.dimensions),
        event_dimensions: written.events.map(|events| dimensions(events.dimensions)),
        exemplars: match written.exemplars.enabled {
            true => written.exemplars.max_per_data_point as usize,
            false => 0,
        },
        expiry: Some(u64::try_from(written.expiry.parse()?.as_millis()).ok()?),
    };
    let push = match written.otlp {
        Some(push) => Some(SpanMetricsPush {
            endpoint: exporters::endpoint(&push.endpoint, push.tls)?,
            interval: push.interval.parse()?,
            delta: push.aggregation_temporality == Temporality::Delta,
        }),
        None => None,
    };
    Some(SpanMetrics { plan, max_series: written.max_series, push })
}

fn dimensions(written: Vec<span_metrics::Dimension>) -> Vec<Dimension> {
    let one = |written: span_metrics::Dimension| Dimension {
        name: written.name,
        default: written.default,
    };
    written.into_iter().map(one).collect()
}

/// The connector's, in milliseconds.
const BUCKETS_MS: [u32; 16] =
    [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1_000, 1_400, 2_000, 5_000, 10_000, 15_000];

fn buckets(written: &span_metrics::SpanMetrics, unit: Unit) -> Option<Buckets> {
    if let Some(exponential) = &written.exponential {
        return Some(Buckets::Exponential { max_size: exponential.max_size });
    }
    let mut bounds: Vec<u128> = match &written.buckets {
        Some(list) => {
            let nanos = list.iter().map(|text| Some(text.parse()?.as_nanos()));
            nanos.collect::<Option<_>>()?
        }
        None => BUCKETS_MS.iter().map(|ms| u128::from(*ms) * 1_000_000).collect(),
    };
    bounds.sort_unstable();
    bounds.dedup();
    // As the connector turns them into floats.
    let nanos = match unit {
        Unit::Milliseconds => 1e6,
        Unit::Seconds => 1e9,
    };
    #[expect(clippy::cast_precision_loss, reason = "as the connector: bounds are floats")]
    let bounds = bounds.into_iter().map(|bound| bound as f64 / nanos);
    Some(Buckets::Explicit(bounds.collect()))
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
