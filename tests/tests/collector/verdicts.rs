//! The same traces through a Collector and through a gateway, each with the same policies: both export the
//! same traces, no other ones, and whole.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail_tests::backend::Backend;
use ringtail_tests::collector::{self, Collector};
use ringtail_tests::fleet::Fleet;
use ringtail_tests::random::{Random, trace};
use serde_json::{Value, json};

const TRACES: u32 = 20_000;
const TRACES_PER_REQUEST: u32 = 250;
/// How many traces are shown that only one of the two keeps.
const SHOWN: usize = 5;

/// A pipeline in the Collector's words and in ours.
struct Pipeline {
    name: &'static str,
    theirs: Value,
    ours: Value,
}

/// What most people have: errors, what is slow, and a share of the rest.
fn usual() -> Pipeline {
    let theirs = json!([
        {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 350}},
        {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
    ]);
    let ours = json!([
        {"name": "errors", "type": "StatusCode", "statusCode": {"statusCodes": ["Error"]}},
        {"name": "slow", "type": "Latency", "latency": {"threshold": "350ms"}},
        {"name": "rest", "type": "Probabilistic", "probabilistic": {"samplingPercentage": 10}},
    ]);
    Pipeline { name: "usual", theirs, ours }
}

fn attributes() -> Pipeline {
    let theirs = json!([
        {"name": "checkout", "type": "string_attribute", "string_attribute":
            {"key": "route", "values": ["^/check", "z$"], "enabled_regex_matching": true}},
        {"name": "failed", "type": "numeric_attribute", "numeric_attribute":
            {"key": "code", "min_value": 500, "max_value": 599}},
        {"name": "hit", "type": "boolean_attribute", "boolean_attribute": {"key": "hit", "value": true}},
    ]);
    let ours = json!([
        {"name": "checkout", "type": "StringAttribute", "stringAttribute":
            {"key": "route", "values": ["^/check", "z$"], "enabledRegexMatching": true}},
        {"name": "failed", "type": "NumericAttribute", "numericAttribute":
            {"key": "code", "minValue": 500, "maxValue": 599}},
        {"name": "hit", "type": "BooleanAttribute", "booleanAttribute": {"key": "hit", "value": true}},
    ]);
    Pipeline { name: "attributes", theirs, ours }
}

/// Containers in containers, and one that drops.
fn nested() -> Pipeline {
    let slow = json!({"name": "slow", "type": "latency", "latency": {"threshold_ms": 250}});
    let gold = json!({"name": "gold", "type": "trace_state", "trace_state":
        {"key": "tier", "values": ["gold"]}});
    let few = json!({"name": "few", "type": "span_count", "span_count": {"min_spans": 2, "max_spans": 3}});
    let probes = json!({"name": "probes", "type": "string_attribute", "string_attribute":
        {"key": "route", "values": ["/healthz"]}});
    let share = json!({"name": "share", "type": "probabilistic", "probabilistic":
        {"sampling_percentage": 33.3, "hash_salt": "salt"}});
    let theirs = json!([
        {"name": "slowGold", "type": "and", "and": {"and_sub_policy": [slow, gold]}},
        {"name": "manyShare", "type": "and", "and": {"and_sub_policy":
            [{"name": "many", "type": "not", "not": {"not_sub_policy": few}}, share]}},
        {"name": "noProbes", "type": "drop", "drop": {"drop_sub_policy": [probes]}},
    ]);
    let ours = json!([
        {"name": "slow", "type": "Latency", "role": "Part", "latency": {"threshold": "250ms"}},
        {"name": "gold", "type": "TraceState", "role": "Part", "traceState":
            {"key": "tier", "values": ["gold"]}},
        {"name": "few", "type": "SpanCount", "role": "Part", "spanCount": {"minSpans": 2, "maxSpans": 3}},
        {"name": "probes", "type": "StringAttribute", "role": "Part", "stringAttribute":
            {"key": "route", "values": ["/healthz"]}},
        {"name": "share", "type": "Probabilistic", "role": "Part", "probabilistic":
            {"samplingPercentage": "33.3", "hashSalt": "salt"}},
        {"name": "many", "type": "Not", "role": "Part", "not": {"policy": "few"}},
        {"name": "slowGold", "type": "And", "and": {"policies": ["slow", "gold"]}},
        {"name": "manyShare", "type": "And", "and": {"policies": ["many", "share"]}},
        {"name": "noProbes", "type": "Drop", "drop": {"policies": ["probes"]}},
    ]);
    Pipeline { name: "nested", theirs, ours }
}

fn conditions() -> Pipeline {
    let span = [
        r#"IsMatch(attributes["route"], "^/c.*t") and kind == SPAN_KIND_SERVER"#,
        r#"resource.attributes["service.name"] == "pay" and status.code == STATUS_CODE_ERROR"#,
        r#"attributes["ratio"] == 2 and not HasPrefix(attributes["route"], "/")"#,
    ];
    let event = [r#"name == "exception" and attributes["type"] == "sql" and span.name == "query""#];
    let theirs = json!([{"name": "odd", "type": "ottl_condition", "ottl_condition":
        {"error_mode": "silent", "span": span, "spanevent": event}}]);
    let ours = json!([{"name": "odd", "type": "OTTLCondition", "ottlCondition":
        {"span": span, "spanEvent": event}}]);
    Pipeline { name: "conditions", theirs, ours }
}

fn manifest(pipeline: &Pipeline) -> String {
    json!({
        "apiVersion": "ringtail.dev/v1alpha1",
        "kind": "TracePipeline",
        "metadata": {"name": "verdicts"},
        "spec": {
            "sampling": {"decisionWait": "2s", "policies": pipeline.ours},
            "exporters": [{"name": "backend", "type": "OTLP", "otlp": {"endpoint": "http://127.0.0.1:1"}}],
        },
    })
    .to_string()
}

/// One Collector with all pipelines, each with an exporter to its own backend.
fn start(program: &std::path::Path, pipelines: &[(Pipeline, Backend)]) -> Collector {
    let mut config = json!({});
    for (Pipeline { name, theirs, .. }, backend) in pipelines {
        let (sampler, exporter) = (format!("tail_sampling/{name}"), format!("otlp_grpc/{name}"));
        config["processors"][&sampler] =
            json!({"decision_wait": "2s", "num_traces": 10 * TRACES, "policies": theirs});
        // The Collector exports trace by trace, and drops what its queue does not hold.
        config["exporters"][&exporter] = json!({"endpoint": backend.address.to_string(),
            "tls": {"insecure": true}, "sending_queue": {"queue_size": 10 * TRACES}});
        config["service"]["pipelines"][format!("traces/{name}")] =
            json!({"receivers": ["otlp"], "processors": [sampler], "exporters": [exporter]});
    }
    Collector::start(program, config)
}

/// The traces that came, each with its spans.
fn kept(backend: &Backend) -> BTreeSet<(Vec<u8>, usize)> {
    backend.traces().into_iter().map(|(id, spans)| (id, spans.len())).collect()
}

/// Waits until nothing has come for three seconds, which is longer than the Collector's wait.
async fn settle(backend: &Backend) {
    let mut seen = (0, Instant::now());
    while seen.1.elapsed() < Duration::from_secs(3) {
        if backend.calls() != seen.0 {
            seen = (backend.calls(), Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_keeps_the_traces_that_the_collector_keeps() {
    let test = "a_gateway_keeps_the_traces_that_the_collector_keeps";
    let Some(program) = collector::program(test, &["tail_sampling"]) else { return };
    let mut theirs = Vec::new();
    let mut fleets = Vec::new();
    for pipeline in [usual(), attributes(), nested(), conditions()] {
        let backend = Backend::start().await;
        let address = backend.address.to_string();
        let extra = ["--memory-limit", "512Mi", "--threads", "1"];
        fleets.push((Fleet::start(&manifest(&pipeline), 0, 1, &address, &extra), backend));
        theirs.push((pipeline, Backend::start().await));
    }
    let mut collector = start(&program, &theirs);
    let mut random = Random::new(27);
    for first in (0..TRACES).step_by(TRACES_PER_REQUEST as usize) {
        let numbers = first..first + TRACES_PER_REQUEST;
        let resource_spans = numbers.flat_map(|number| trace(number, &mut random)).collect();
        let request = ExportTraceServiceRequest { resource_spans };
        for (fleet, _) in &fleets {
            let gateway = format!("http://{}", fleet.gateways[0].grpc());
            let mut client = TraceServiceClient::connect(gateway).await.unwrap();
            client.export(request.clone()).await.unwrap();
        }
        collector = tokio::task::spawn_blocking(move || {
            collector.send(&request);
            collector
        })
        .await
        .unwrap();
    }
    for ((pipeline, theirs), (fleet, ours)) in theirs.iter().zip(fleets) {
        fleet.gateways[0].wait_for("decisions", |stats| stats.held.traces == 0);
        fleet.stop();
        let ours = kept(&ours);
        assert!(ours.len() > TRACES as usize / 100, "{} keeps {}", pipeline.name, ours.len());
        settle(theirs).await;
        let theirs = kept(theirs);
        let only_ours: Vec<_> = ours.difference(&theirs).take(SHOWN).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).take(SHOWN).collect();
        let (of_ours, of_theirs) = (ours.len(), theirs.len());
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "{}: of {of_ours} only ours {only_ours:02x?}, of {of_theirs} only theirs {only_theirs:02x?}",
            pipeline.name,
        );
    }
}
