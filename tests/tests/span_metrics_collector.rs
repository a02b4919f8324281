//! Random spans through a real OpenTelemetry Collector with the spanmetrics connector, and through a gateway
//! of ours: both show the same series with the same numbers. What differs on purpose is left out of the
//! comparison here and listed in `docs/span-metrics.md`.
//!
//! Needs a Collector of v0.159 with the connector and the Prometheus exporter, such as `make otelcol` builds.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use ringtail_tests::collector::{self, Collector, free_port};
use ringtail_tests::exposition::{self, Labels, Samples, sum};
use ringtail_tests::http::{fetch, post};
use ringtail_tests::metrics_sink::{MetricsSink, Point};
use ringtail_tests::process::{PATIENCE, Process, wait_until};
use ringtail_tests::random::Random;
use serde_json::{Value, json};

const SPANS: u64 = 24_000;
const SPANS_PER_REQUEST: u64 = 500;
const SUM: &str = "traces.span.metrics.calls";
const CALLS: &str = "traces_span_metrics_calls_total";

fn any_of(random: &mut Random, list: &[Option<Any>]) -> Option<Any> {
    list[random.below(list.len() as u64) as usize].clone()
}

fn pair(key: &str, value: Option<Any>) -> KeyValue {
    let value = Some(AnyValue { value });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(value: &str) -> Option<Any> {
    Some(Any::StringValue(value.to_owned()))
}

fn attributes(random: &mut Random) -> Vec<KeyValue> {
    let list = ArrayValue { values: vec![AnyValue { value: text("a\"<") }] };
    let values = [
        text("GET"),
        text("POST"),
        text("quote \" back \\ line \n end ä"),
        text(""),
        text("200"),
        Some(Any::IntValue(200)),
        Some(Any::IntValue(-7)),
        Some(Any::BoolValue(true)),
        Some(Any::DoubleValue(0.25)),
        Some(Any::DoubleValue(3e25)),
        Some(Any::BytesValue(vec![1, 2, 255])),
        Some(Any::ArrayValue(list)),
        None,
    ];
    let mut pairs = Vec::new();
    for key in ["http.method", "http.status_code", "other", "zone"] {
        if random.below(3) > 0 && (key != "zone" || random.below(3) == 0) {
            // Few values for all but one key, so that the same series are met again.
            let value = match key {
                "http.status_code" => any_of(random, &values),
                _ => any_of(random, &values[..3]),
            };
            pairs.push(pair(key, value));
        }
    }
    pairs
}

fn span(number: u64, random: &mut Random) -> Span {
    let start = 1_700_000_000_000_000_000 + random.below(1_000_000_000);
    let longest = random.one_of(&[1, 1_000, 10_000_000, 3_000_000_000, 40_000_000_000]);
    let took = random.below(longest);
    let end = match random.below(20) {
        0 => 0,
        1 => start - 5,
        2 => start + 5_000_000,
        3 => start + 3_600_000_000_000 * 24 * 365,
        4 => start + 1_400_000_000,
        _ => start + took,
    };
    let event = |random: &mut Random| Event {
        name: "exception".to_owned(),
        attributes: vec![pair("exception.type", text(random.one_of(&["io", "sql"])))],
        ..Event::default()
    };
    let id = [(number + 1).to_be_bytes(), number.wrapping_mul(0x9e37).to_be_bytes()].concat();
    // Most spans are alike, so that most series have several.
    let rarely = |random: &mut Random, usual: i32, bound: u64| match random.below(6) {
        0 => random.below(bound) as i32,
        _ => usual,
    };
    let (kind, code) = (rarely(random, 2, 7), rarely(random, 0, 4));
    Span {
        trace_id: id,
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: random.one_of(&["GET /", "GET /", "query \"x\"", "ä"]).to_owned(),
        kind,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(random),
        events: (0..random.below(2)).map(|_| event(random)).collect(),
        trace_state: random.one_of(&["", "", "", "a=b", "ot=th:8", "ot=th:c"]).to_owned(),
        status: (code > 0).then(|| Status { code, ..Status::default() }),
        ..Span::default()
    }
}

/// A resource is told from others by its `job` and `instance`: of two that are alike there, the Collector
/// shows only the one that it has seen last.
fn resources() -> Vec<Vec<KeyValue>> {
    vec![
        vec![pair("service.name", text("shop")), pair("zone", text("z-1"))],
        vec![pair("service.name", text("shop")), pair("service.instance.id", text("i-1"))],
        vec![pair("service.name", text("shop")), pair("service.namespace", text("eu"))],
        vec![pair("service.name", Some(Any::IntValue(5))), pair("http.method", text("PUT"))],
        vec![pair("service.name", text(""))],
        vec![pair("host.name", text("without a service"))],
    ]
}

fn requests(resources: &[Vec<KeyValue>]) -> Vec<ExportTraceServiceRequest> {
    let mut random = Random::new(7);
    let mut requests = Vec::new();
    for first in (0..SPANS).step_by(SPANS_PER_REQUEST as usize) {
        let mut resource_spans: Vec<ResourceSpans> = Vec::new();
        for attributes in resources {
            let resource = Some(Resource { attributes: attributes.clone(), ..Resource::default() });
            let scope_spans = vec![ScopeSpans::default()];
            resource_spans.push(ResourceSpans {
                resource,
                scope_spans,
                ..ResourceSpans::default()
            });
        }
        for number in first..first + SPANS_PER_REQUEST {
            let of = random.below(resources.len() as u64) as usize;
            resource_spans[of].scope_spans[0].spans.push(span(number, &mut random));
        }
        requests.push(ExportTraceServiceRequest { resource_spans });
    }
    requests
}

/// What both count: a span with `ot=th:8` stands for two, one with `c` for four; spans without a service
/// name are in no series.
fn expected(requests: &[ExportTraceServiceRequest]) -> f64 {
    let named = |one: &&ResourceSpans| {
        let resource = one.resource.as_ref().unwrap();
        resource.attributes.iter().any(|pair| pair.key == "service.name")
    };
    let spans = requests.iter().flat_map(|request| &request.resource_spans).filter(named);
    let spans = spans.flat_map(|one| &one.scope_spans[0].spans);
    let weight = |span: &Span| match span.trace_state.as_str() {
        "ot=th:8" => 2.0,
        "ot=th:c" => 4.0,
        _ => 1.0,
    };
    spans.map(weight).sum()
}

// === The Collector ===

/// The program, if it has what is compared with.
fn collector() -> Option<PathBuf> {
    collector::program("span_metrics_collector", &["span_metrics", "prometheus"])
}

/// One with these settings of the connector, and this exporter of metrics.
fn start(program: &Path, mut connector: Value, exporter: &Value) -> Collector {
    connector["metrics_flush_interval"] = json!("300ms");
    let exporters: Vec<&String> = exporter.as_object().unwrap().keys().collect();
    let config = json!({
        "connectors": {"span_metrics": connector},
        "exporters": exporter,
        "service": {"pipelines": {
            "traces": {"receivers": ["otlp"], "exporters": ["span_metrics"]},
            "metrics": {"receivers": ["span_metrics"], "exporters": exporters},
        }},
    });
    Collector::start(program, config)
}

/// What is shown at a port, once so many calls are.
fn samples(port: u16, calls: f64) -> Samples {
    let started = std::time::Instant::now();
    loop {
        let samples =
            exposition::parse(&fetch(&format!("127.0.0.1:{port}"), "/metrics").unwrap_or_default());
        let found = sum(&samples, CALLS);
        if found >= calls {
            return samples;
        }
        assert!(started.elapsed() < PATIENCE, "{found} of {calls} calls");
        std::thread::sleep(Duration::from_millis(200));
    }
}

// === Ours ===

struct Gateway {
    process: Process,
    _home: tempfile::TempDir,
}

impl Gateway {
    fn start(metrics: &Value, threads: &str) -> Self {
        let never = json!({"key": "no such key", "values": ["x"]});
        let manifest = json!({
            "apiVersion": "ringtail.dev/v1alpha1",
            "kind": "TracePipeline",
            "metadata": {"name": "table"},
            "spec": {
                "sampling": {"decisionWait": "1s", "policies": [
                    {"name": "never", "type": "StringAttribute", "stringAttribute": never},
                ]},
                "exporters": [
                    {"name": "backend", "type": "OTLP", "otlp": {"endpoint": "http://127.0.0.1:1"}},
                ],
                "spanMetrics": metrics,
            },
        });
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pipeline.yaml");
        std::fs::write(&file, manifest.to_string()).unwrap();
        let process = Process::start(&[
            "gateway",
            "--identity",
            "gw-0",
            "--pipeline",
            file.to_str().unwrap(),
            "--threads",
            threads,
        ]);
        Self { process, _home: home }
    }

    fn send(&self, request: &ExportTraceServiceRequest) {
        let kind = "content-type: application/x-protobuf";
        let body = request.encode_to_vec();
        let answer = post(&self.process.http(), "/v1/traces", &[kind], &body);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn samples(&self) -> Samples {
        exposition::parse(&self.process.admin("/metrics"))
    }
}

// === The comparison ===

/// Samples of span metrics without what names the process that counted, bounds as numbers.
fn comparable(samples: Samples) -> Samples {
    let ours =
        samples.into_iter().filter(|((name, _), _)| name.starts_with("traces_span_metrics_"));
    let plain = |((name, labels), value): ((String, Labels), f64)| {
        let mut labels: Labels = labels
            .into_iter()
            .filter(|(label, _)| {
                label != "collector_instance_id" && !label.starts_with("otel_scope_")
            })
            .collect();
        if let Some(bound) = labels.get_mut("le") {
            *bound = bound.parse::<f64>().unwrap().to_string();
        }
        if labels.contains_key("otel_metric_overflow") {
            // The Collector has one a resource.
            labels.remove("job");
        }
        ((name, labels), value)
    };
    ours.map(plain).collect()
}

fn compare(theirs: Samples, ours: Samples) {
    let (theirs, ours) = (comparable(theirs), comparable(ours));
    let mut differences = Vec::new();
    for (key, value) in &theirs {
        let near = |other: &f64| match key.0.ends_with("_sum") {
            true => (other - value).abs() <= 1e-9 * value.abs(),
            false => other == value,
        };
        if !ours.get(key).is_some_and(near) {
            differences.push(format!("{key:?}: the Collector's {value}, ours {:?}", ours.get(key)));
        }
    }
    let more = ours.keys().filter(|key| !theirs.contains_key(key));
    differences.extend(more.map(|key| format!("only ours: {key:?}")));
    let count = differences.len();
    differences.truncate(20);
    assert!(differences.is_empty(), "{count} differences:\n{}", differences.join("\n"));
    assert!(theirs.len() > 20, "there is something to compare");
}

/// Both with their own settings get the same spans.
fn check(connector: Value, metrics: &Value, resources: &[Vec<KeyValue>], threads: &str) {
    let Some(program) = collector() else { return };
    let requests = requests(resources);
    let port = free_port();
    let exporter = json!({"prometheus": {"endpoint": format!("127.0.0.1:{port}")}});
    let collector = start(&program, connector, &exporter);
    let gateway = Gateway::start(metrics, threads);
    for request in &requests {
        collector.send(request);
        gateway.send(request);
    }
    let calls = expected(&requests);
    let theirs = samples(port, calls);
    let ours = gateway.samples();
    assert_eq!((sum(&theirs, CALLS), sum(&ours, CALLS)), (calls, calls));
    compare(theirs, ours);
}

#[test]
fn explicit_buckets_dimensions_and_events_are_the_connectors() {
    let connector = json!({
        "dimensions": [
            {"name": "http.method", "default": "GET"}, {"name": "http.status_code"}, {"name": "zone"},
        ],
        "events": {"enabled": true, "dimensions": [{"name": "exception.type"}]},
    });
    let ours = json!({
        "dimensions": connector["dimensions"],
        "events": {"dimensions": [{"name": "exception.type"}]},
        "maxSeries": 100_000,
    });
    check(connector, &ours, &resources(), "3");
}

#[test]
fn buckets_in_seconds_and_excluded_dimensions_are_the_connectors() {
    let connector = json!({
        "histogram": {"unit": "s", "explicit": {"buckets": ["100ms", "250ms", "500ms", "1s", "5s"]}},
        "exclude_dimensions": ["span.kind", "status.code", "collector.instance.id"],
    });
    let ours = json!({
        "unit": "Seconds",
        "buckets": ["100ms", "250ms", "500ms", "1s", "5s"],
        "excludeDimensions": ["span.kind", "status.code", "collector.instance.id"],
    });
    check(connector, &ours, &resources(), "1");
}

#[test]
fn what_has_no_room_is_in_the_connectors_overflow_series() {
    let connector = json!({
        "dimensions": [{"name": "http.method"}, {"name": "http.status_code"}],
        "aggregation_cardinality_limit": 50,
    });
    let ours = json!({"dimensions": connector["dimensions"], "maxSeries": 50});
    // The limit of the connector is one of a resource, ours one of a gateway.
    check(connector, &ours, &resources()[..1], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn exponential_buckets_are_the_connectors() {
    let Some(program) = collector() else { return };
    let (theirs, ours) = (MetricsSink::start().await, MetricsSink::start().await);
    let dimensions = json!([{"name": "http.method", "default": "GET"}]);
    let connector = json!({
        "dimensions": dimensions, "histogram": {"exponential": {"max_size": 80}},
    });
    let settings = json!({
        "dimensions": dimensions, "exponential": {"maxSize": 80},
        "otlp": {"endpoint": format!("http://{}", ours.address), "interval": "1s"},
    });
    let resources = &resources()[..3];
    let requests = requests(resources);
    let exporter = json!({"otlp_grpc": {
        "endpoint": theirs.address.to_string(), "tls": {"insecure": true},
    }});
    let collector = start(&program, connector, &exporter);
    let gateway = Gateway::start(&settings, "2");
    for request in &requests {
        collector.send(request);
        gateway.send(request);
    }
    let calls = expected(&requests) as i64;
    for sink in [&theirs, &ours] {
        wait_until("all calls", || sink.sum(SUM) >= calls);
    }
    compare_points(&theirs, &ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_add_up_to_the_connectors() {
    let Some(program) = collector() else { return };
    let (theirs, ours) = (MetricsSink::start().await, MetricsSink::start().await);
    let dimensions = json!([{"name": "http.method", "default": "GET"}]);
    let connector = json!({
        "dimensions": dimensions, "aggregation_temporality": "AGGREGATION_TEMPORALITY_DELTA",
    });
    let settings = json!({"dimensions": dimensions, "otlp": {
        "endpoint": format!("http://{}", ours.address), "interval": "1s",
        "aggregationTemporality": "Delta",
    }});
    let requests = requests(&resources()[..3]);
    let exporter = json!({"otlp_grpc": {
        "endpoint": theirs.address.to_string(), "tls": {"insecure": true},
    }});
    let collector = start(&program, connector, &exporter);
    let gateway = Gateway::start(&settings, "2");
    // In two halves, of which the second is not sent before the first has arrived.
    let (first, second) = requests.split_at(requests.len() / 2);
    let mut calls = 0;
    for half in [first, second] {
        for request in half {
            collector.send(request);
            gateway.send(request);
        }
        calls += expected(half) as i64;
        for sink in [&theirs, &ours] {
            wait_until("all calls", || sink.sum(SUM) >= calls);
        }
    }
    compare_points(&theirs, &ours);
    assert_eq!(sum(&gateway.samples(), CALLS), calls as f64, "what is scraped is cumulative");
}

fn compare_points(theirs: &MetricsSink, ours: &MetricsSink) {
    let (theirs, ours) = (points(theirs), points(ours));
    let said = |points: &[(String, f64)]| -> Vec<String> {
        points.iter().map(|(said, _)| said.clone()).collect()
    };
    assert_eq!(said(&theirs), said(&ours));
    assert!(ours.len() > 100);
    for ((said, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        // Sums of the same numbers in another order differ in their last digits.
        assert!((theirs - ours).abs() <= 1e-9 * theirs.abs(), "{said}: {theirs}, ours {ours}");
    }
}

/// What each point says without times and who says it, and its sum of durations.
fn points(sink: &MetricsSink) -> Vec<(String, f64)> {
    let shown = |((name, resource, labels), point): ((String, Labels, Labels), Point)| {
        let named = |(key, _): &(&String, &String)| {
            ["service.name", "service.namespace", "service.instance.id"].contains(&key.as_str())
        };
        let resource: Labels =
            resource.iter().filter(named).map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut labels = labels;
        labels.remove("collector.instance.id");
        let (point, sum) = match point {
            Point::Exponential(one) => {
                let buckets = one.positive.unwrap_or_default();
                let offset = if buckets.bucket_counts.is_empty() { 0 } else { buckets.offset };
                let shape = (one.count, one.scale, one.zero_count, offset, buckets.bucket_counts);
                (format!("{shape:?} {:?} {:?}", one.min, one.max), one.sum.unwrap_or_default())
            }
            Point::Explicit(counts, sum) => (format!("{counts:?}"), sum),
            Point::Sum(value) => (value.to_string(), 0.0),
        };
        (format!("{name} {resource:?} {labels:?} {point}"), sum)
    };
    let mut points: Vec<(String, f64)> = sink.points().into_iter().map(shown).collect();
    points.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    points
}
