//! PrometheusRule: alerts on a pipeline's fleet, where the Prometheus operator is installed.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Child, Inputs};
use crate::{kind::Kind, labels::Component};

/// One alert. `$L` in the expression stands for the labels of the pipeline.
struct Alert {
    name: &'static str,
    expression: &'static str,
    minutes: u32,
    severity: &'static str,
    summary: &'static str,
}

const ALERTS: [Alert; 11] = [
    Alert {
        name: "RingtailRingSplit",
        expression: "count(count by (digest) (ringtail_ring_digest{$L} == 1)) > 1",
        minutes: 5,
        severity: "critical",
        summary: "Agents and gateways disagree who owns which trace: traces may be decided in pieces",
    },
    Alert {
        name: "RingtailSpansDropped",
        // What a filter drops is meant to be dropped.
        expression: "sum by (reason) \
                     (rate(otelcol_processor_dropped_spans_total{$L,reason!=\"filtered\"}[5m])) > 0",
        minutes: 5,
        severity: "warning",
        summary: "Spans are lost after they were accepted ({{ $labels.reason }})",
    },
    Alert {
        name: "RingtailSpansRefused",
        expression: "sum by (reason) (rate(otelcol_receiver_refused_spans_total{$L}[5m])) > 0",
        minutes: 10,
        severity: "warning",
        summary: "Senders are told that their spans were not taken ({{ $labels.reason }})",
    },
    Alert {
        name: "RingtailEarlyDecisions",
        expression: "sum(rate(ringtail_early_decisions_total{reason=\"memory\",$L}[5m])) > 0",
        minutes: 10,
        severity: "warning",
        summary: "Traces are decided before they are complete, for lack of memory: add gateways or memory",
    },
    Alert {
        name: "RingtailBufferNearlyFull",
        expression: "max(ringtail_buffer_bytes{$L} / ringtail_buffer_limit_bytes{$L}) > 0.9",
        minutes: 10,
        severity: "warning",
        summary: "A gateway's buffer of undecided traces is more than 90 % full",
    },
    Alert {
        name: "RingtailGatewaysUneven",
        // Below ten traces a second chance alone makes such differences.
        expression: "max(rate(otelcol_processor_tail_sampling_new_trace_id_received_total{$L}[10m])) > 1.5 * \
                     avg(rate(otelcol_processor_tail_sampling_new_trace_id_received_total{$L}[10m])) and \
                     sum(rate(otelcol_processor_tail_sampling_new_trace_id_received_total{$L}[10m])) > 10",
        minutes: 15,
        severity: "warning",
        summary: "A gateway gets half as many traces again as the average gateway, or more",
    },
    Alert {
        name: "RingtailSpansUnprotected",
        expression: "sum(rate(ringtail_unprotected_spans_total{$L}[5m])) > 0",
        minutes: 10,
        severity: "warning",
        summary: "Agents cannot keep spans until they are decided: a gateway that is lost now loses some",
    },
    Alert {
        name: "RingtailDecisionsWait",
        expression: "max by (cause) (rate(ringtail_fence_seconds_total{$L}[5m])) > 0.5",
        minutes: 5,
        severity: "warning",
        summary: "A gateway decides nothing for more than half of the time; it waits for {{ $labels.cause }}",
    },
    Alert {
        name: "RingtailExporterFailing",
        expression: "sum by (exporter) (rate(otelcol_exporter_send_failed_spans_total{$L}[5m])) > 0",
        minutes: 5,
        severity: "warning",
        summary: "Kept spans are lost on their way to backend {{ $labels.exporter }}",
    },
    Alert {
        name: "RingtailLogRecordsLost",
        // `logs.undecided: Drop` means to drop.
        expression: "sum by (reason) \
                     (rate(otelcol_processor_dropped_log_records_total{$L,reason!=\"undecided\"}[5m]) or \
                     rate(otelcol_exporter_send_failed_log_records_total{$L}[5m])) > 0",
        minutes: 5,
        severity: "warning",
        summary: "Log records are lost after they were accepted ({{ $labels.reason }})",
    },
    Alert {
        name: "RingtailExporterQueueFull",
        expression: "max by (exporter) \
                     (otelcol_exporter_queue_size{$L} / otelcol_exporter_queue_capacity{$L}) > 0.8",
        minutes: 10,
        severity: "warning",
        summary: "The queue of backend {{ $labels.exporter }} is more than 80 % full: it is too slow or away",
    },
];

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>) -> Child {
    let name = inputs.pipeline.name_any();
    let namespace = inputs.pipeline.namespace().unwrap_or_default();
    let labels = format!("namespace=\"{namespace}\",pipeline=\"{name}\"");
    let rules: Vec<Value> = ALERTS.iter().map(|alert| alert.rule(&name, &labels)).collect();
    let rule = json!({
        "metadata": inputs.meta(Component::Pipeline, name.clone()),
        "spec": {"groups": [{"name": format!("ringtail-{namespace}-{name}"), "rules": rules}]},
    });
    Child::new(Kind::PrometheusRule, &rule)
}

// === impl Alert ===

impl Alert {
    fn rule(&self, pipeline: &str, labels: &str) -> Value {
        json!({
            "alert": self.name,
            "expr": self.expression.replace("$L", labels),
            "for": format!("{}m", self.minutes),
            "labels": {"severity": self.severity, "pipeline": pipeline},
            "annotations": {"summary": format!("{pipeline}: {}", self.summary)},
        })
    }
}
