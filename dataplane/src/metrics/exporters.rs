//! What exporters leave out, repeat, and read anew.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::table::SEND_FAILED;
use super::{Metric, Sample, count};
use crate::export::ExporterHandle;
use crate::ledger::Dropped;
use crate::stats::Reasons;

table! {
    LEFT_OUT = Counter "ringtail_exporter_left_out_spans" ["exporter", "reason"]
        "Spans that an exporter was told not to send: filtered, filter_failed, not_printed";
    RETRIES = Counter "ringtail_exporter_retries" ["exporter"]
        "Requests that failed and were tried again";
    CREDENTIALS = Counter "ringtail_exporter_credentials" ["exporter", "outcome"]
        "Newer files of Secrets, by whether they are used (applied, refused)";
}

/// What became of the spans that an exporter did not send.
pub(super) fn gone(exporter: &str, dropped: &Reasons) -> Vec<Sample> {
    let sample = |(reason, spans): (&String, &u64)| {
        let left_out = Dropped::LEFT_OUT.contains(&reason.as_str());
        let metric = if left_out { &LEFT_OUT } else { &SEND_FAILED };
        count(metric, &[exporter, reason], *spans)
    };
    dropped.iter().map(sample).collect()
}

/// The rest of what is told of an exporter.
pub(super) fn samples(exporter: &ExporterHandle) -> Vec<Sample> {
    let name = exporter.name();
    let mut samples = vec![count(&RETRIES, &[name], exporter.counters().retries.load(Relaxed))];
    if let Some((applied, refused)) = exporter.credentials() {
        samples.push(count(&CREDENTIALS, &[name, "applied"], applied));
        samples.push(count(&CREDENTIALS, &[name, "refused"], refused));
    }
    samples
}
