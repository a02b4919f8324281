//! Every alert fires on what it is about, and is quiet in a fleet that is well: told by Prometheus itself,
//! from the samples of half an hour.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::fs;
use std::path::Path;

use ringtail_crds::TracePipeline;
use ringtail_operator::build::{self, Inputs};
use ringtail_operator::kind::Kind;
use ringtail_operator::live::Live;
use ringtail_operator::settings::Settings;
use ringtail_tests::promtool;
use serde_json::{Value, json};

/// A metric of a pod, with its labels, and a value for each minute as promtool writes them.
type Series = (&'static str, &'static str, &'static str);

/// An hour in which nothing is wrong.
const WELL: &[Series] = &[
    ("ringtail_ring_digest", r#"pod="a",digest="1""#, "1x60"),
    ("ringtail_ring_digest", r#"pod="b",digest="1""#, "1x60"),
    ("otelcol_processor_dropped_spans_total", r#"pod="a",reason="stopping""#, "7x60"),
    ("otelcol_receiver_refused_spans_total", r#"pod="a",reason="no_room""#, "7x60"),
    ("ringtail_early_decisions_total", r#"pod="a",reason="memory""#, "7x60"),
    ("ringtail_early_decisions_total", r#"pod="a",reason="trace_size""#, "0+9x60"),
    ("ringtail_buffer_bytes", r#"pod="a""#, "80x60"),
    ("ringtail_buffer_limit_bytes", r#"pod="a""#, "100x60"),
    ("otelcol_processor_tail_sampling_new_trace_id_received_total", r#"pod="a""#, "0+6600x60"),
    ("otelcol_processor_tail_sampling_new_trace_id_received_total", r#"pod="b""#, "0+6000x60"),
    ("ringtail_unprotected_spans_total", r#"pod="a""#, "7x60"),
    ("ringtail_fence_seconds_total", r#"pod="a",cause="peers""#, "0+6x60"),
    ("otelcol_exporter_send_failed_spans_total", r#"pod="a",exporter="tempo",reason="x""#, "7x60"),
    ("otelcol_processor_dropped_log_records_total", r#"pod="a",reason="undecided""#, "0+5x60"),
    ("otelcol_exporter_queue_size", r#"pod="a",exporter="tempo""#, "70x60"),
    ("otelcol_exporter_queue_capacity", r#"pod="a",exporter="tempo""#, "100x60"),
    ("ringtail_operator_leader", r#"pod="o""#, "1x60"),
    ("ringtail_operator_leader", r#"pod="p""#, "0x60"),
    ("ringtail_operator_reconcile_failures_total", r#"pod="o",category="conflict""#, "7x60"),
];

/// What is otherwise when an alert is due; it takes the place of the same series of the hour above.
const SICK: &[(&str, &[Series])] = &[
    (
        "RingtailRingSplit",
        &[
            ("ringtail_ring_digest", r#"pod="b",digest="1""#, "0x60"),
            ("ringtail_ring_digest", r#"pod="b",digest="2""#, "1x60"),
        ],
    ),
    (
        "RingtailSpansDropped",
        &[("otelcol_processor_dropped_spans_total", r#"pod="a",reason="stopping""#, "0+5x60")],
    ),
    (
        "RingtailSpansRefused",
        &[("otelcol_receiver_refused_spans_total", r#"pod="a",reason="no_room""#, "0+5x60")],
    ),
    (
        "RingtailEarlyDecisions",
        &[("ringtail_early_decisions_total", r#"pod="a",reason="memory""#, "0+5x60")],
    ),
    ("RingtailBufferNearlyFull", &[("ringtail_buffer_bytes", r#"pod="a""#, "91x60")]),
    (
        "RingtailGatewaysUneven",
        &[(
            "otelcol_processor_tail_sampling_new_trace_id_received_total",
            r#"pod="a""#,
            "0+30000x60",
        )],
    ),
    ("RingtailSpansUnprotected", &[("ringtail_unprotected_spans_total", r#"pod="a""#, "0+5x60")]),
    (
        "RingtailDecisionsWait",
        &[("ringtail_fence_seconds_total", r#"pod="a",cause="peers""#, "0+40x60")],
    ),
    (
        "RingtailExporterFailing",
        &[(
            "otelcol_exporter_send_failed_spans_total",
            r#"pod="a",exporter="tempo",reason="x""#,
            "0+5x60",
        )],
    ),
    (
        "RingtailLogRecordsLost",
        &[(
            "otelcol_exporter_send_failed_log_records_total",
            r#"pod="a",exporter="loki",reason="rejected""#,
            "0+5x60",
        )],
    ),
    (
        "RingtailExporterQueueFull",
        &[("otelcol_exporter_queue_size", r#"pod="a",exporter="tempo""#, "85x60")],
    ),
    ("RingtailNoLeader", &[("ringtail_operator_leader", r#"pod="o""#, "0x60")]),
    (
        "RingtailReconcileFailing",
        &[(
            "ringtail_operator_reconcile_failures_total",
            r#"pod="o",category="conflict""#,
            "0+5x60",
        )],
    ),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The alerts that the operator makes for a pipeline, and those of the chart.
fn rules() -> Vec<Value> {
    let pipeline: TracePipeline = serde_saphyr::from_str(&read("examples/cluster.yaml")).unwrap();
    let settings = Settings {
        image: "ringtail:0.1.0".to_owned(),
        image_pull_policy: None,
        version: "0.1.0".to_owned(),
        optional_kinds: [Kind::PrometheusRule].into(),
        allow_unsafe_pod_template: false,
    };
    let valid = ringtail_crds::validate_pipeline(&pipeline).unwrap();
    let live = Live::default();
    let children = build::build(&Inputs {
        pipeline: &pipeline,
        valid: &valid,
        settings: &settings,
        live: &live,
    });
    let rule = children.into_iter().find(|child| child.kind == Kind::PrometheusRule).unwrap();
    let mut rules = rule.manifest["spec"]["groups"][0]["rules"].as_array().unwrap().clone();
    let chart: Vec<Value> =
        serde_saphyr::from_str(&read("charts/ringtail/files/alerts.yaml")).unwrap();
    rules.extend(chart);
    rules
}

/// The samples of an hour in which these series are otherwise.
fn samples(otherwise: &[Series]) -> Vec<Value> {
    let is_same = |one: &Series, other: &Series| one.0 == other.0 && one.1 == other.1;
    let well = WELL.iter().filter(|one| !otherwise.iter().any(|other| is_same(one, other)));
    let series = |(metric, labels, values): &Series| {
        let place = r#"namespace="observability",pipeline="shop""#;
        json!({"series": format!("{metric}{{{place},{labels}}}"), "values": values})
    };
    well.chain(otherwise).map(series).collect()
}

/// In such an hour these alerts fire, no other.
fn expect(otherwise: &[Series], firing: &[&str]) -> Value {
    let alert = |name: &&str| {
        let labels = format!(r#"{{alertname="{name}"}}"#);
        json!({"labels": labels, "value": 1})
    };
    let expected: Vec<Value> = firing.iter().map(alert).collect();
    json!({
        "interval": "1m",
        "input_series": samples(otherwise),
        "promql_expr_test": [{
            "expr": r#"count by (alertname) (ALERTS{alertstate="firing"})"#,
            "eval_time": "1h",
            "exp_samples": expected,
        }],
    })
}

#[test]
fn each_alert_fires_on_what_it_is_about_and_on_nothing_else() {
    let test = "each_alert_fires_on_what_it_is_about_and_on_nothing_else";
    let rules = rules();
    let mut named: Vec<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    let mut tried: Vec<&str> = SICK.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    tried.sort_unstable();
    assert_eq!(named, tried, "an alert that is not tried");
    let Some(promtool) = promtool::find(test) else { return };
    let mut tests = vec![expect(&[], &[])];
    tests.extend(SICK.iter().map(|(alert, series)| expect(series, &[alert])));
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &Value| {
        // JSON is YAML.
        fs::write(home.path().join(name), content.to_string()).unwrap();
    };
    write("rules.yaml", &json!({"groups": [{"name": "ringtail", "rules": rules}]}));
    let file = json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests});
    write("tests.yaml", &file);
    promtool::test_rules(promtool, &home.path().join("tests.yaml")).unwrap();
}
