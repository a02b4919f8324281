//! What exporters leave out, repeat, and read anew.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::table::SEND_FAILED;
use super::{Metric, Sample, count, gauge};
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
    DISK_BYTES = Gauge "ringtail_exporter_disk_bytes" ["exporter"]
        "Bytes of an exporter's queue on disk";
    DISK_LIMIT = Gauge "ringtail_exporter_disk_limit_bytes" ["exporter"]
        "Bytes that the queue on disk may have";
    DISK_SPANS = Gauge "ringtail_exporter_disk_spans" ["exporter"]
        "Spans on disk that are not delivered, those left by an earlier process as far as they were read";
    RECOVERED = Counter "ringtail_exporter_recovered_spans" ["exporter"]
        "Spans that an earlier process left on disk";
    CORRUPT = Counter "ringtail_exporter_disk_corrupt_records" ["exporter"]
        "Records of the queue on disk, or stretches of it, that cannot be used";
    MEMORY_ONLY = Counter "ringtail_exporter_memory_only_spans" ["exporter", "reason"]
        "Spans that wait in memory alone because the queue on disk is full or the disk failed";
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
    if let Some(disk) = exporter.disk() {
        samples.extend([
            gauge(&DISK_BYTES, &[name], disk.bytes.load(Relaxed)),
            gauge(&DISK_LIMIT, &[name], disk.limit.load(Relaxed)),
            gauge(&DISK_SPANS, &[name], disk.spans.load(Relaxed)),
            count(&RECOVERED, &[name], disk.recovered.load(Relaxed)),
            count(&CORRUPT, &[name], disk.corrupt.load(Relaxed)),
            count(&MEMORY_ONLY, &[name, "full"], disk.full.load(Relaxed)),
            count(&MEMORY_ONLY, &[name, "failed"], disk.failed.load(Relaxed)),
        ]);
    }
    samples
}
