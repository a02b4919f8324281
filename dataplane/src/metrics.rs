//! The metrics of both roles: one table with every name, and what each sample is read from.
//!
//! Where the Collector has a name for a thing, that name is used, so that dashboards go on working; the
//! rest is `ringtail_*`. Counters get their `_total` from the encoder.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

use crate::agent::Core;
use crate::gateway::Gateway;
use crate::stats::{LedgerReport, Reasons};

/// Bounds in milliseconds of the Collector's `loadbalancer_backend_latency`.
const LATENCY_BOUNDS_MS: [f64; 10] =
    [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// One metric: name, type, labels and help.
#[derive(Debug)]
pub struct Metric {
    /// As scraped, without the counters' `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it counts, with its unit.
    pub help: &'static str,
}

macro_rules! table {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Metric = Metric {
            name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help,
        };)*
        /// Every metric that a role may expose.
        pub const TABLE: &[&Metric] = &[$(&$id),*];
    };
}

table! {
    ACCEPTED = Counter "otelcol_receiver_accepted_spans" ["receiver"]
        "Spans taken from senders";
    REFUSED = Counter "otelcol_receiver_refused_spans" ["receiver", "reason"]
        "Spans that senders were told were not taken";
    QUEUE_SIZE = Gauge "otelcol_exporter_queue_size" ["exporter"]
        "Bytes in the queue of an exporter, before compression";
    QUEUE_CAPACITY = Gauge "otelcol_exporter_queue_capacity" ["exporter"]
        "Bytes that fit into the queue of an exporter";
    SENT = Counter "otelcol_exporter_sent_spans" ["exporter"]
        "Spans that a backend acknowledged";
    SEND_FAILED = Counter "otelcol_exporter_send_failed_spans" ["exporter", "reason"]
        "Spans that an exporter gave up";
    DROPPED = Counter "otelcol_processor_dropped_spans" ["processor", "reason"]
        "Spans lost after they were accepted";
    LEFT_OUT = Counter "ringtail_left_out_fields" ["reason"]
        "Fields of accepted requests that are not passed on, because no span owns them";
    BACKENDS = Gauge "otelcol_loadbalancer_num_backends" ["resolver"]
        "Gateways in the ring";
    BACKEND_UPDATES = Counter "otelcol_loadbalancer_num_backend_updates" ["resolver"]
        "Changes of the ring";
    BACKEND_OUTCOME = Counter "otelcol_loadbalancer_backend_outcome" ["endpoint", "success"]
        "Requests to gateways";
    BACKEND_LATENCY = Histogram "otelcol_loadbalancer_backend_latency" ["endpoint"]
        "Milliseconds until a gateway answered a request";
    POLICY_TRACES = Counter "otelcol_processor_tail_sampling_count_traces_sampled"
        ["policy", "sampled", "decision"] "Traces that a policy decided";
    GLOBAL_TRACES = Counter "otelcol_processor_tail_sampling_global_count_traces_sampled"
        ["sampled", "decision"] "Traces decided";
    NEW_TRACES = Counter "otelcol_processor_tail_sampling_new_trace_id_received" []
        "Traces first seen";
    TRACES_ON_MEMORY = Gauge "otelcol_processor_tail_sampling_sampling_traces_on_memory" []
        "Traces that wait for their decision";
    LATE_SPANS = Counter "otelcol_processor_tail_sampling_early_releases_from_cache_decision" ["sampled"]
        "Spans that came after the decision on their trace and followed it";
    EARLY = Counter "ringtail_early_decisions" ["reason"]
        "Traces decided before their time";
    BUFFER_BYTES = Gauge "ringtail_buffer_bytes" []
        "Resident bytes of undecided traces: spans, index, headers, spare segments";
    BUFFER_LIMIT = Gauge "ringtail_buffer_limit_bytes" []
        "Budget of the buffer";
    BUFFER_UTILIZATION = Gauge "ringtail_buffer_utilization_percent" []
        "Resident bytes of undecided traces, of their budget; autoscalers go by it";
    HELD = Gauge "ringtail_held_spans" []
        "Spans in memory";
    DUPLICATES = Counter "ringtail_duplicate_spans" []
        "Spans that came twice with the same content";
    EVACUATED = Counter "ringtail_segments_evacuated" []
        "Segments freed by moving the few spans left in them";
    TURN_SECONDS = Gauge "ringtail_decision_turn_seconds" ["shard"]
        "How long the last turn of decisions took";
    OUT = Counter "ringtail_out_spans" []
        "Spans that gateways acknowledged";
    REROUTED = Counter "ringtail_rerouted_spans" []
        "Spans sent to a lower choice because their owner took none";
    LINK_BYTES = Gauge "ringtail_link_queue_bytes" ["endpoint"]
        "Bytes that wait for a gateway or are under way to it";
    LINK_SENT = Counter "ringtail_link_sent_bytes" ["endpoint"]
        "Bytes sent to a gateway, as they went out";
    SEND_LIMIT = Gauge "ringtail_send_limit_bytes" []
        "Budget of spans on their way to gateways";
    SEND_BYTES = Gauge "ringtail_send_bytes" []
        "Bytes of spans on their way to gateways, open batches included";
    RING = Gauge "ringtail_ring_digest" ["digest"]
        "1 for the digest of the view in use";
}

/// One value of one metric.
#[derive(Debug)]
pub struct Sample {
    metric: &'static Metric,
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

/// Whose metrics they are.
#[derive(Clone)]
pub enum Source {
    /// An agent.
    Agent(std::sync::Arc<Core>),
    /// A gateway.
    Gateway(std::sync::Arc<Gateway>),
}

/// A histogram for the time that gateways take to answer.
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BOUNDS_MS)
}

// === impl Source ===

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent(_) => "Agent",
            Self::Gateway(_) => "Gateway",
        })
    }
}

impl Source {
    /// The ledger as of now.
    pub fn ledger(&self) -> LedgerReport {
        match self {
            Self::Agent(core) => core.counters.report(core.held_spans(), std::iter::empty()),
            Self::Gateway(gateway) => {
                let lines = gateway.exporters.iter().map(|e| (e.name(), e.counters()));
                gateway.counters.report(gateway.held_spans(), lines)
            }
        }
    }

    /// Every sample as of now.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = ledger_samples(&self.ledger());
        let counters = match self {
            Self::Agent(core) => {
                agent_samples(core, &mut samples);
                &core.counters
            }
            Self::Gateway(gateway) => {
                gateway_samples(gateway, &mut samples);
                &gateway.counters
            }
        };
        let left_out = counters.left_out.counts();
        samples.extend(left_out.map(|(reason, fields)| count(&LEFT_OUT, &[reason], fields)));
        samples
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let samples = self.samples();
        for metric in TABLE {
            let mut of_metric = samples.iter().filter(|s| s.metric.name == metric.name).peekable();
            if of_metric.peek().is_none() {
                continue;
            }
            let mut family =
                encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            for sample in of_metric {
                let mut one = family.encode_family(&sample.labels)?;
                match &sample.value {
                    Value::Counter(value) => {
                        one.encode_counter::<[(&str, &str); 0], _, u64>(value, None)?;
                    }
                    Value::Gauge(value) => one.encode_gauge(value)?,
                    Value::Histogram(histogram) => histogram.encode(one)?,
                }
            }
        }
        Ok(())
    }
}

// === samples ===

fn count(metric: &'static Metric, labels: &[&str], value: u64) -> Sample {
    sample(metric, labels, Value::Counter(value))
}

#[expect(clippy::cast_precision_loss, reason = "gauges are bytes and counts far below 2^53")]
fn gauge(metric: &'static Metric, labels: &[&str], value: u64) -> Sample {
    sample(metric, labels, Value::Gauge(value as f64))
}

fn sample(metric: &'static Metric, labels: &[&str], value: Value) -> Sample {
    let labels =
        metric.labels.iter().copied().zip(labels.iter().map(|label| (*label).to_owned())).collect();
    Sample { metric, labels, value }
}

fn by_reason<'a>(
    metric: &'static Metric,
    owner: &'a str,
    reasons: &'a Reasons,
) -> impl Iterator<Item = Sample> + 'a {
    reasons.iter().map(move |(reason, spans)| count(metric, &[owner, reason], *spans))
}

fn ledger_samples(ledger: &LedgerReport) -> Vec<Sample> {
    let refused: u64 = ledger.refused.values().sum();
    let accepted = ledger.received.total().saturating_sub(refused);
    let mut samples = vec![count(&ACCEPTED, &["otlp"], accepted), gauge(&HELD, &[], ledger.held)];
    samples.extend(by_reason(&REFUSED, "otlp", &ledger.refused));
    samples.extend(by_reason(&DROPPED, "ringtail", &ledger.dropped));
    for (name, line) in &ledger.exporters {
        samples.push(count(&SENT, &[name], line.sent));
        samples.extend(by_reason(&SEND_FAILED, name, &line.dropped));
    }
    samples
}

fn agent_samples(core: &Core, samples: &mut Vec<Sample>) {
    let ring = core.ring();
    let members = ring.as_ref().map_or(0, |ring| ring.view.len() as u64);
    samples.extend([
        gauge(&BACKENDS, &["static"], members),
        count(&BACKEND_UPDATES, &["static"], core.view_changes.load(Relaxed)),
        count(&OUT, &[], core.counters.out.load(Relaxed)),
        count(&REROUTED, &[], core.rerouted_spans.load(Relaxed)),
        gauge(&SEND_LIMIT, &[], core.send_budget),
        gauge(&SEND_BYTES, &[], core.held_bytes()),
        gauge(&RING, &[&format!("{:016x}", core.digest())], 1),
    ]);
    for link in core.links() {
        let endpoint = link.endpoint.as_str();
        samples.extend([
            count(&BACKEND_OUTCOME, &[endpoint, "true"], link.answers.load(Relaxed)),
            count(&BACKEND_OUTCOME, &[endpoint, "false"], link.failures.load(Relaxed)),
            sample(&BACKEND_LATENCY, &[endpoint], Value::Histogram(link.latency_ms.clone())),
            gauge(&LINK_BYTES, &[endpoint], link.queued_bytes.load(Relaxed)),
            count(&LINK_SENT, &[endpoint], link.sent_bytes.load(Relaxed)),
        ]);
    }
}

fn gateway_samples(gateway: &Gateway, samples: &mut Vec<Sample>) {
    let sum = |pick: fn(&crate::gateway::shards::Gauges) -> &AtomicU64| -> u64 {
        gateway.shards().iter().map(|shard| pick(&shard.gauges).load(Relaxed)).sum()
    };
    let limit = gateway.room().limit();
    samples.extend([
        count(&GLOBAL_TRACES, &["true", "sampled"], sum(|g| &g.traces_kept)),
        count(&GLOBAL_TRACES, &["false", "not_sampled"], sum(|g| &g.traces_dropped)),
        count(&NEW_TRACES, &[], sum(|g| &g.traces_new)),
        gauge(&TRACES_ON_MEMORY, &[], sum(|g| &g.traces)),
        count(&LATE_SPANS, &["true"], sum(|g| &g.late_kept)),
        count(&LATE_SPANS, &["false"], sum(|g| &g.late_dropped)),
        count(&EARLY, &["memory"], sum(|g| &g.early_pressure)),
        count(&EARLY, &["trace_size"], sum(|g| &g.early_size)),
        gauge(&BUFFER_BYTES, &[], sum(|g| &g.bytes)),
        gauge(&BUFFER_LIMIT, &[], limit),
        gauge(&BUFFER_UTILIZATION, &[], sum(|g| &g.bytes) * 100 / limit.max(1)),
        count(&DUPLICATES, &[], gateway.counters.duplicate.load(Relaxed)),
        count(&EVACUATED, &[], sum(|g| &g.evacuated)),
    ]);
    for (index, policy) in gateway.policies().iter().enumerate() {
        let sampled = if policy.drops { ["false", "dropped"] } else { ["true", "sampled"] };
        let traces = gateway.decided_by(index);
        samples.push(count(&POLICY_TRACES, &[&policy.name, sampled[0], sampled[1]], traces));
    }
    for (index, shard) in gateway.shards().iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a turn is far shorter than 2^53 µs")]
        let seconds = shard.gauges.turn_us.load(Relaxed) as f64 / 1e6;
        samples.push(sample(&TURN_SECONDS, &[&index.to_string()], Value::Gauge(seconds)));
    }
    for exporter in gateway.exporters.iter() {
        let (used, capacity) = exporter.queue();
        samples.push(gauge(&QUEUE_SIZE, &[exporter.name()], used));
        samples.push(gauge(&QUEUE_CAPACITY, &[exporter.name()], capacity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_named_once_and_explained() {
        let mut names: Vec<&str> = TABLE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        for metric in TABLE {
            assert!(!metric.help.is_empty() && !metric.name.ends_with("_total"), "{metric:?}");
            assert!(metric.name.starts_with("otelcol_") || metric.name.starts_with("ringtail_"));
        }
    }
}
