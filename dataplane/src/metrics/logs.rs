//! Log records, where a pipeline takes them: the same books as those of spans.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::{Metric, Sample, by_reason, count, gauge};
use crate::agent::Core;
use crate::gateway::Gateway;
use crate::gateway::logs::Logs;
use crate::ledger::{Counters, Dropped};
use crate::stats::LedgerReport;

table! {
    ACCEPTED = Counter "otelcol_receiver_accepted_log_records" ["receiver"]
        "Log records taken from senders";
    REFUSED = Counter "otelcol_receiver_refused_log_records" ["receiver", "reason"]
        "Log records that senders were told were not taken";
    SENT = Counter "otelcol_exporter_sent_log_records" ["exporter"]
        "Log records that a backend acknowledged";
    SEND_FAILED = Counter "otelcol_exporter_send_failed_log_records" ["exporter", "reason"]
        "Log records that an exporter gave up";
    DROPPED = Counter "otelcol_processor_dropped_log_records" ["processor", "reason"]
        "Log records lost after they were accepted, or dropped because their trace is undecided";
    HELD = Gauge "ringtail_held_log_records" []
        "Log records in memory";
    OUT = Counter "ringtail_out_log_records" []
        "Log records that gateways acknowledged";
    REROUTED = Counter "ringtail_rerouted_log_records" []
        "Log records sent to a lower choice because their owner took none";
    SEND_LIMIT = Gauge "ringtail_send_limit_log_bytes" []
        "Budget of log records on their way to gateways";
    SEND_BYTES = Gauge "ringtail_send_log_bytes" []
        "Bytes of log records on their way to gateways, open batches included";
    FORWARDED = Counter "ringtail_log_records" ["sampled"]
        "Log records by what became of them: forwarded to the exporters, or gone with their trace";
    UNDECIDED = Counter "ringtail_undecided_log_records" ["sampled"]
        "Log records of traces of which no decision was known in time, by what became of them";
    EARLY = Counter "ringtail_early_log_records" []
        "Of the undecided, those that were not waited for to the end: no room, or the process ended";
    WAITING_BYTES = Gauge "ringtail_waiting_log_bytes" []
        "Bytes of log records that wait for the decision on their trace";
    WAITING_LIMIT = Gauge "ringtail_waiting_log_limit_bytes" []
        "Budget of log records that wait";
    NOT_PRINTED = Counter "ringtail_exporter_left_out_log_records" ["exporter", "reason"]
        "Log records that an exporter was told not to send: not_printed";
    RETRIES = Counter "ringtail_exporter_log_retries" ["exporter"]
        "Requests with log records that failed and were tried again";
    QUEUE_BYTES = Gauge "ringtail_exporter_log_queue_bytes" ["exporter"]
        "Bytes of log records in the queue of an exporter, before compression";
    QUEUE_LIMIT = Gauge "ringtail_exporter_log_queue_limit_bytes" ["exporter"]
        "Bytes of log records that fit into the queue of an exporter";
    DISK_BYTES = Gauge "ringtail_exporter_log_disk_bytes" ["exporter"]
        "Bytes of an exporter's queue of log records on disk";
    LEFT_OUT = Counter "ringtail_left_out_log_fields" ["reason"]
        "Fields of accepted log requests that are not passed on, because no record owns them";
}

/// What an agent tells of log records.
pub(super) fn of_agent(core: &Core) -> Vec<Sample> {
    let mut samples = ledger(&core.counters.report(core.held_spans(), std::iter::empty()));
    samples.extend([
        count(&OUT, &[], core.counters.out.load(Relaxed)),
        count(&REROUTED, &[], core.rerouted_spans.load(Relaxed)),
        gauge(&SEND_LIMIT, &[], core.send_budget),
        gauge(&SEND_BYTES, &[], core.held_bytes()),
    ]);
    left_out(&core.counters, &mut samples);
    samples
}

/// What a gateway tells of log records.
pub(super) fn of_gateway(gateway: &Gateway) -> Vec<Sample> {
    gateway.logs.as_deref().map(of_logs).unwrap_or_default()
}

fn of_logs(logs: &Logs) -> Vec<Sample> {
    let report = logs.report();
    let mut samples = ledger(&report);
    samples.extend([
        count(&FORWARDED, &["true"], report.kept),
        count(&FORWARDED, &["false"], report.sampled_away),
    ]);
    if let Some(waiting) = &logs.waiting {
        let undecided = Dropped::Undecided.label();
        let dropped = report.dropped.get(undecided).copied().unwrap_or(0);
        samples.extend([
            count(&UNDECIDED, &["true"], waiting.undecided_kept.load(Relaxed)),
            count(&UNDECIDED, &["false"], dropped),
            count(&EARLY, &[], waiting.early.load(Relaxed)),
            gauge(&WAITING_BYTES, &[], waiting.bytes()),
            gauge(&WAITING_LIMIT, &[], waiting.limit),
        ]);
    }
    for exporter in logs.exporters.iter() {
        let (name, (used, limit)) = (exporter.name(), exporter.queue_size());
        samples.extend([
            count(&RETRIES, &[name], exporter.counters().retries.load(Relaxed)),
            gauge(&QUEUE_BYTES, &[name], used),
            gauge(&QUEUE_LIMIT, &[name], limit),
        ]);
        if let Some(disk) = exporter.disk() {
            samples.push(gauge(&DISK_BYTES, &[name], disk.bytes.load(Relaxed)));
        }
    }
    left_out(&logs.counters, &mut samples);
    samples
}

fn ledger(report: &LedgerReport) -> Vec<Sample> {
    let refused: u64 = report.refused.values().sum();
    let accepted = report.received.total().saturating_sub(refused);
    let mut samples = vec![count(&ACCEPTED, &["otlp"], accepted), gauge(&HELD, &[], report.held)];
    samples.extend(by_reason(&REFUSED, "otlp", &report.refused));
    samples.extend(by_reason(&DROPPED, "ringtail", &report.dropped));
    for (name, line) in &report.exporters {
        samples.push(count(&SENT, &[name], line.sent));
        for (reason, records) in &line.dropped {
            let is_told = Dropped::LEFT_OUT.contains(&reason.as_str());
            let metric = if is_told { &NOT_PRINTED } else { &SEND_FAILED };
            samples.push(count(metric, &[name, reason], *records));
        }
    }
    samples
}

fn left_out(counters: &Counters, samples: &mut Vec<Sample>) {
    let counts = counters.left_out.counts();
    samples.extend(counts.map(|(reason, fields)| count(&LEFT_OUT, &[reason], fields)));
}
