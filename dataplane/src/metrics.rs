//! The metrics of both roles: one table with every name, and what each sample is read from.
//!
//! Where the Collector has a name for a thing, that name is used, so that dashboards go on working; the
//! rest is `ringtail_*`. Counters get their `_total` from the encoder.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use ringtail_engine::ownership::{Conduct, Fence};

use crate::agent::Core;
use crate::config::InForce;
use crate::discovery::Health;
use crate::gateway::Gateway;
use crate::membership::Counts;
use crate::stats::{LedgerReport, Reasons};
use crate::transport::{Admission, Guard, Keyring, Outcome};

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
        $(#[doc = $help] pub(super) const $id: Metric = Metric {
            name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help,
        };)*
        /// Every metric of this table.
        pub(super) const TABLE: &[&Metric] = &[$(&$id),*];
    };
}

mod discovery;
mod exporters; // what exporters leave out, repeat, and read anew
mod logs; //     log records
mod processing;
mod receivers;
pub mod span_metrics;
mod table;

use table::*;

/// Every metric that a role may expose, in the order in which it is shown.
pub fn table() -> impl Iterator<Item = &'static Metric> {
    table::TABLE
        .iter()
        .chain(receivers::TABLE)
        .chain(exporters::TABLE)
        .chain(processing::TABLE)
        .chain(span_metrics::TABLE)
        .chain(discovery::TABLE)
        .chain(logs::TABLE)
        .copied()
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
    Seconds(f64),
    Gauge(f64),
    Histogram(Histogram),
}

/// What a process shows of itself.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its tier.
    pub tier: TierSource,
    /// How discovery fares.
    pub discovery: Arc<Health>,
    /// How the watch of the manifest fares, where there is one.
    pub manifest: Option<Arc<Health>>,
    /// The manifest in force.
    pub config: Arc<InForce>,
    /// The certificates, where there is TLS between the tiers.
    pub keyring: Option<Arc<Keyring>>,
    /// What clients have to show, and what the receivers count.
    pub guard: Guard,
    /// The budget of requests that are being received.
    pub receiving: Admission,
}

/// What processes show each other and clients show them, with its counters.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Between the tiers.
    pub keyring: Option<Arc<Keyring>>,
    /// From clients.
    pub guard: Guard,
    /// The budget of requests that are being received.
    pub receiving: Admission,
}

/// Whose metrics they are.
#[derive(Clone)]
pub enum TierSource {
    /// An agent.
    Agent(Arc<Core>),
    /// A gateway.
    Gateway(Arc<Gateway>),
}

/// A histogram for the time that gateways take to answer.
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BOUNDS_MS)
}

// === impl Shown ===

impl Shown {
    /// With a budget of so many bytes for requests that are being received.
    pub fn new(keyring: Option<Arc<Keyring>>, guard: &Guard, receive_budget: u64) -> Self {
        Self { keyring, guard: guard.clone(), receiving: Admission::new(receive_budget) }
    }
}

// === impl Source ===

impl fmt::Debug for TierSource {
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
        match &self.tier {
            TierSource::Agent(core) => {
                let of = |core: &Core| core.counters.report(core.held_spans(), std::iter::empty());
                of(core).with_logs(core.logs.as_deref().map(of))
            }
            TierSource::Gateway(gateway) => {
                let lines = gateway.exporters.iter().map(|one| (one.name(), one.report()));
                let report = gateway.counters.report(gateway.held_spans(), lines);
                report.with_logs(gateway.logs.as_ref().map(|logs| logs.report()))
            }
        }
    }

    /// Every sample as of now.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = ledger_samples(&self.ledger());
        let counters = match &self.tier {
            TierSource::Agent(core) => {
                agent_samples(core, &mut samples);
                samples.extend(core.logs.iter().flat_map(|logs| logs::of_agent(logs)));
                &core.counters
            }
            TierSource::Gateway(gateway) => {
                gateway_samples(gateway, &mut samples);
                samples.extend(logs::of_gateway(gateway));
                samples
                    .extend(gateway.span_metrics.iter().flat_map(|it| span_metrics::samples(it)));
                &gateway.counters
            }
        };
        let left_out = counters.left_out.counts();
        samples.extend(left_out.map(|(reason, fields)| count(&LEFT_OUT, &[reason], fields)));
        receivers::samples(&self.guard, &self.receiving, &mut samples);
        self.ring_samples(&mut samples);
        self.watch_samples(&mut samples);
        samples
    }

    /// The view, and what it is made from.
    fn ring_samples(&self, samples: &mut Vec<Sample>) {
        let (digest, members, changes) = match &self.tier {
            TierSource::Agent(core) => {
                let members = core.ring().map_or(0, |ring| ring.view.len());
                (core.digest(), members, &core.view_changes)
            }
            TierSource::Gateway(gateway) => {
                let peers = &gateway.peers;
                let members = peers.view().len();
                (peers.digest(), members, &peers.view_changes)
            }
        };
        let (resolver, counts) = (self.discovery.resolver, self.counts());
        samples.extend([
            gauge(&BACKENDS, &[resolver], members as u64),
            count(&BACKEND_UPDATES, &[resolver], changes.load(Relaxed)),
            gauge(&CANDIDATES, &[resolver], counts.candidates.load(Relaxed)),
            gauge(&UNLISTED, &[resolver], self.discovery.left_out.load(Relaxed)),
            gauge(&DRAINING, &[], counts.draining.load(Relaxed)),
            gauge(&FOREIGN, &[], counts.foreign.load(Relaxed)),
            gauge(&RING, &[&format!("{digest:016x}")], 1),
        ]);
        samples.extend(discovery::samples(&self.discovery));
    }

    /// What is followed while the process runs.
    fn watch_samples(&self, samples: &mut Vec<Sample>) {
        if let Some(manifest) = &self.manifest {
            for (resource, health) in
                [("endpointslices", &self.discovery), ("configmaps", manifest)]
            {
                let stale = Value::Gauge(health.failing_for().as_secs_f64());
                samples.extend([
                    count(&WATCH_FAILURES, &[resource], health.failures.load(Relaxed)),
                    count(&WATCH_REQUESTS, &[resource], health.requests.load(Relaxed)),
                    sample(&STALE_SECONDS, &[resource], stale),
                ]);
            }
        }
        if let Some(keyring) = &self.keyring {
            let handshakes = |outcome: Outcome| {
                count(&HANDSHAKES, &[outcome.label()], keyring.handshakes(outcome))
            };
            samples.extend(Outcome::ALL.map(handshakes));
            samples.extend([
                count(&CERTIFICATES, &["applied"], keyring.renewals.applied.load(Relaxed)),
                count(&CERTIFICATES, &["refused"], keyring.renewals.refused.load(Relaxed)),
            ]);
        }
        let config = self.config.stats();
        samples.extend([
            count(&CONFIG_RELOADS, &["applied"], self.config.reloads.load(Relaxed)),
            count(&CONFIG_RELOADS, &["refused"], self.config.refusals.load(Relaxed)),
            gauge(&CONFIG_REFUSED, &[], u64::from(config.error.is_some())),
            gauge(&CONFIG, &[&config.hash], 1),
        ]);
    }

    /// Counts of candidates.
    pub fn counts(&self) -> &Counts {
        match &self.tier {
            TierSource::Agent(core) => &core.counts,
            TierSource::Gateway(gateway) => &gateway.peers.counts,
        }
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let samples = self.samples();
        for metric in table() {
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
                    Value::Seconds(value) => {
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

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a process are far below 2^53")]
fn seconds(metric: &'static Metric, labels: &[&str], millis: u64) -> Sample {
    sample(metric, labels, Value::Seconds(millis as f64 / 1e3))
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
        samples.extend(exporters::gone(name, &line.dropped));
    }
    samples
}

fn agent_samples(core: &Core, samples: &mut Vec<Sample>) {
    samples.extend([
        count(&OUT, &[], core.counters.out.load(Relaxed)),
        gauge(&RETAINED, &[], core.kept.bytes.load(Relaxed)),
        count(&REPLAYED, &[], core.kept.replayed.load(Relaxed)),
        count(&UNPROTECTED, &[], core.kept.unprotected.load(Relaxed)),
        count(&UNPROTECTED_SPANS, &[], core.kept.unprotected_spans.load(Relaxed)),
        count(&REROUTED, &[], core.rerouted_spans.load(Relaxed)),
        gauge(&SEND_LIMIT, &[], core.send_budget),
        gauge(&SEND_BYTES, &[], core.held_bytes()),
        processing::of_agent(core),
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
        count(&CONDITION_FAILURES, &[], sum(|g| &g.condition_failures)),
        count(&HANDED_OVER, &[], gateway.counters.handed_over.load(Relaxed)),
        count(&REPEATED, &[], gateway.counters.repeated.load(Relaxed)),
    ]);
    churn_samples(&gateway.conduct(), samples);
    let digest = format!("{:016x}", gateway.peers.digest());
    let observers = gateway.peers.observers.list();
    let agreeing = observers.iter().filter(|observer| observer.digest == digest).count() as u64;
    let turned_away = gateway.peers.turned_away.load(Relaxed);
    samples.push(count(&TURNED_AWAY, &[], turned_away));
    samples.push(gauge(&OBSERVERS, &["true"], agreeing));
    samples.push(gauge(&OBSERVERS, &["false"], observers.len() as u64 - agreeing));
    for policy in gateway.policies().iter() {
        if policy.shadow {
            let changed = gateway.changed_by(&policy.name);
            samples.push(count(&SHADOW_TRACES, &[&policy.name], changed));
            continue;
        }
        let sampled = if policy.drops { ["false", "dropped"] } else { ["true", "sampled"] };
        let traces = gateway.decided_by(&policy.name);
        samples.push(count(&POLICY_TRACES, &[&policy.name, sampled[0], sampled[1]], traces));
    }
    for (index, shard) in gateway.shards().iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a turn is far shorter than 2^53 µs")]
        let seconds = shard.gauges.turn_us.load(Relaxed) as f64 / 1e6;
        samples.push(sample(&TURN_SECONDS, &[&index.to_string()], Value::Gauge(seconds)));
    }
    for exporter in gateway.exporters.iter() {
        let (used, capacity) = exporter.queue_size();
        samples.push(gauge(&QUEUE_SIZE, &[exporter.name()], used));
        samples.push(gauge(&QUEUE_CAPACITY, &[exporter.name()], capacity));
        samples.extend(exporters::samples(exporter));
    }
}

fn churn_samples(conduct: &Conduct, samples: &mut Vec<Sample>) {
    let stats = &conduct.stats;
    // Bytes are no event, and have a metric of their own.
    let events = stats.events().into_iter().filter(|(event, _)| *event != "parcel_bytes");
    samples.extend(events.map(|(event, times)| count(&OWNERSHIP, &[event], times)));
    samples.push(count(&HAND_OVER_BYTES, &[], stats.parcel_bytes));
    samples.push(seconds(&HAND_OVER_SECONDS, &[], conduct.moving_millis));
    for (cause, fences) in Fence::ALL.iter().zip(&conduct.fences) {
        let cause = cause.label();
        samples.push(count(&FENCES, &[cause], fences.times));
        samples.push(seconds(&FENCE_SECONDS, &[cause], fences.millis));
        samples.push(count(&FENCE_TIMEOUTS, &[cause], fences.timed_out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_named_once_and_explained() {
        let mut names: Vec<&str> = table().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table().count());
        for metric in table() {
            assert!(!metric.help.is_empty() && !metric.name.ends_with("_total"), "{metric:?}");
            assert!(metric.name.starts_with("otelcol_") || metric.name.starts_with("ringtail_"));
        }
    }
}
