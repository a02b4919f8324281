//! The operator's own metrics: one table with every name, and the series behind it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::ResourceExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use ringtail_crds::TracePipeline;
use tokio::time::Instant;

use crate::{failure::Category, reconcile::apply::Outcome};

/// Seconds: a reconcile without a write takes milliseconds, one with twenty writes a second.
const DURATION_BOUNDS: [f64; 9] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// One metric: name, labels and help.
#[derive(Debug)]
pub struct Metric {
    /// As scraped, without the counters' `_total`.
    pub name: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it counts, with its unit.
    pub help: &'static str,
}

macro_rules! table {
    ($($id:ident = $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $id: Metric = Metric { name: $name, labels: &[$($label),*], help: $help };)*
        /// Every metric.
        pub const TABLE: &[&Metric] = &[$(&$id),*];
    };
}

table! {
    RECONCILES = "ringtail_operator_reconciles" [] "Reconciles that ended, well or not";
    FAILURES = "ringtail_operator_reconcile_failures" ["category"] "Reconciles that failed";
    DURATION = "ringtail_operator_reconcile_duration_seconds" [] "Time that reconciles took";
    APPLIES = "ringtail_operator_applies" ["outcome"] "Children written, by why they were";
    PRUNES = "ringtail_operator_prunes" [] "Children deleted because nobody wants them any more";
    STATUS_PATCHES = "ringtail_operator_status_patches" ["writer", "outcome"] "Writes of a status";
    WRITES = "ringtail_operator_writes" [] "Requests that change something, all of them";
    POLLS = "ringtail_operator_gateway_polls" ["outcome"] "Gateways asked for their statistics";
    WATCH_FAILURES = "ringtail_operator_watch_failures" ["kind"] "Watches that had to be opened again";
    LEADER = "ringtail_operator_leader" [] "1 while this process leads";
    RING_MEMBERS = "ringtail_operator_ring_members" ["namespace", "pipeline"] "Gateways in the ring";
}

/// The series. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// For the admin port.
    pub registry: Arc<Registry>,
    /// All requests that change something.
    pub writes: Counter,
    reconciles: Counter,
    failures: Family<Labels<1>, Counter>,
    duration: Histogram,
    applies: Family<Labels<1>, Counter>,
    prunes: Counter,
    status_patches: Family<Labels<2>, Counter>,
    polls: Family<Labels<1>, Counter>,
    watch_failures: Family<Labels<1>, Counter>,
    leader: Gauge,
    ring_members: Family<Labels<2>, Gauge>,
    broken_watches: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

/// Label values in the order of the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels<const N: usize>([(&'static str, String); N]);

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            writes: Counter::default(),
            reconciles: Counter::default(),
            failures: Family::default(),
            duration: Histogram::new(DURATION_BOUNDS),
            applies: Family::default(),
            prunes: Counter::default(),
            status_patches: Family::default(),
            polls: Family::default(),
            watch_failures: Family::default(),
            leader: Gauge::default(),
            ring_members: Family::default(),
            broken_watches: Arc::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut registry = Registry::default();
        registry.register(RECONCILES.name, RECONCILES.help, self.reconciles.clone());
        registry.register(FAILURES.name, FAILURES.help, self.failures.clone());
        registry.register(DURATION.name, DURATION.help, self.duration.clone());
        registry.register(APPLIES.name, APPLIES.help, self.applies.clone());
        registry.register(PRUNES.name, PRUNES.help, self.prunes.clone());
        registry.register(STATUS_PATCHES.name, STATUS_PATCHES.help, self.status_patches.clone());
        registry.register(WRITES.name, WRITES.help, self.writes.clone());
        registry.register(POLLS.name, POLLS.help, self.polls.clone());
        registry.register(WATCH_FAILURES.name, WATCH_FAILURES.help, self.watch_failures.clone());
        registry.register(LEADER.name, LEADER.help, self.leader.clone());
        registry.register(RING_MEMBERS.name, RING_MEMBERS.help, self.ring_members.clone());
        registry
    }

    /// A reconcile ended.
    pub fn reconciled(&self, took: Duration, failure: Option<Category>) {
        self.reconciles.inc();
        self.duration.observe(took.as_secs_f64());
        if let Some(category) = failure {
            self.failures.get_or_create(&labels(&FAILURES, [category.name().to_owned()])).inc();
        }
    }

    /// A child was looked at.
    pub fn applied(&self, outcome: Outcome) {
        if matches!(outcome, Outcome::Created | Outcome::Changed | Outcome::Restored) {
            self.applies.get_or_create(&labels(&APPLIES, [format!("{outcome:?}")])).inc();
        }
    }

    /// Children were deleted.
    pub fn pruned(&self, children: usize) {
        self.prunes.inc_by(u64::try_from(children).unwrap_or_default());
    }

    /// A status was written, or should have been.
    pub fn status_patched(&self, writer: &str, well: bool) {
        let labels = labels(&STATUS_PATCHES, [writer.to_owned(), outcome(well)]);
        self.status_patches.get_or_create(&labels).inc();
    }

    /// A gateway was asked.
    pub fn polled(&self, well: bool) {
        self.polls.get_or_create(&labels(&POLLS, [outcome(well)])).inc();
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// How many gateways are in a pipeline's ring.
    pub fn ring_members(&self, pipeline: &TracePipeline, members: usize) {
        let labels = of_pipeline(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any());
        self.ring_members.get_or_create(&labels).set(i64::try_from(members).unwrap_or(i64::MAX));
    }

    /// Ends the series of a pipeline that is gone.
    pub fn forget(&self, namespace: &str, pipeline: &str) {
        self.ring_members.remove(&of_pipeline(namespace, pipeline));
    }

    /// A watch had an event.
    pub fn watch_works(&self, kind: &'static str) {
        self.broken_watches.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
    }

    /// A watch had an error.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.get_or_create(&labels(&WATCH_FAILURES, [kind.to_owned()])).inc();
        let mut broken = self.broken_watches.lock().unwrap_or_else(PoisonError::into_inner);
        broken.entry(kind).or_insert_with(Instant::now);
    }

    /// The watches that have been without an event since an error that long ago.
    pub fn watches_broken_for(&self, limit: Duration) -> Vec<&'static str> {
        let broken = self.broken_watches.lock().unwrap_or_else(PoisonError::into_inner);
        broken.iter().filter(|(_, since)| since.elapsed() >= limit).map(|(kind, _)| *kind).collect()
    }
}

fn labels<const N: usize>(metric: &Metric, values: [String; N]) -> Labels<N> {
    let mut names = metric.labels.iter();
    Labels(values.map(|value| (names.next().copied().unwrap_or_default(), value)))
}

fn of_pipeline(namespace: &str, pipeline: &str) -> Labels<2> {
    labels(&RING_MEMBERS, [namespace.to_owned(), pipeline.to_owned()])
}

fn outcome(well: bool) -> String {
    if well { "ok" } else { "failed" }.to_owned()
}

// === impl Labels ===

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> fmt::Result {
        for pair in &self.0 {
            prometheus_client::encoding::EncodeLabel::encode(pair, encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_is_scraped() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::ZERO, Some(Category::Conflict));
        metrics.applied(Outcome::Created);
        metrics.status_patched("main", true);
        metrics.polled(false);
        metrics.watch_failed("Pod");
        metrics.ring_members.get_or_create(&of_pipeline("ns", "shop")).set(3);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry).unwrap();
        for metric in TABLE {
            assert!(text.contains(&format!("# HELP {} ", metric.name)), "{}:\n{text}", metric.name);
            for label in metric.labels {
                assert!(
                    text.contains(&format!("{label}=\"")),
                    "{} of {}:\n{text}",
                    label,
                    metric.name
                );
            }
        }
        metrics.forget("ns", "shop");
        text.clear();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry).unwrap();
        assert!(!text.contains("pipeline=\"shop\""), "{text}");
    }
}
