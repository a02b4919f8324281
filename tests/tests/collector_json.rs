//! OTLP/JSON, read by an agent and by a real OpenTelemetry Collector: what comes out at their backends is
//! the same, field by field. What our exporter writes, the Collector reads as what was sent.
//!
//! Without a Collector, such as `make otelcol` builds, the agent alone is compared with what was sent.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use ringtail_tests::backend::Backend;
use ringtail_tests::collector::{self, Collector};
use ringtail_tests::exporting;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::http::post;
use ringtail_tests::process::wait_until;
use ringtail_tests::traces::request;
use serde_json::{Value, json};

const SPANS: u64 = 500;

fn pair(key: &str, value: Any) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Failed spans, so that all are kept, with everything that a span may have.
fn span(number: u64) -> Span {
    let text = |text: &str| Any::StringValue(text.to_owned());
    let value = |value: Any| AnyValue { value: Some(value) };
    let numbers = [0, -1, i64::MAX, i64::MIN, number.cast_signed()];
    let list = ArrayValue { values: vec![value(Any::IntValue(1)), value(text("zwei \"2\""))] };
    let map = KeyValueList { values: vec![pair("in", Any::BoolValue(false))] };
    let attributes = vec![
        pair("text", text("a\tb\n\u{1}ü😀\\\"</script>")),
        pair("empty", text("")),
        pair("number", Any::IntValue(numbers[(number % 5) as usize])),
        pair("half", Any::DoubleValue(0.5 - number as f64)),
        pair("tiny", Any::DoubleValue(5e-324)),
        pair("yes", Any::BoolValue(number.is_multiple_of(2))),
        pair("bytes", Any::BytesValue((0..=number as u8).collect())),
        pair("list", Any::ArrayValue(list)),
        pair("map", Any::KvlistValue(map)),
    ];
    Span {
        trace_id: [number.to_be_bytes(), [0xfe; 8]].concat(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        parent_span_id: if number.is_multiple_of(3) { vec![] } else { vec![0xab; 8] },
        trace_state: "a=b,c=d".to_owned(),
        flags: [0, 1, 0x300][(number % 3) as usize],
        name: format!("GET /{number}"),
        kind: (number % 6) as i32,
        start_time_unix_nano: 1_700_000_000_000_000_000 + number,
        end_time_unix_nano: u64::MAX - number,
        attributes: attributes.clone(),
        dropped_attributes_count: number as u32,
        events: vec![Event {
            time_unix_nano: number,
            name: "exception".to_owned(),
            attributes: attributes[..3].to_vec(),
            dropped_attributes_count: 1,
        }],
        dropped_events_count: 2,
        links: vec![Link {
            trace_id: vec![3; 16],
            span_id: vec![4; 8],
            trace_state: "x=y".to_owned(),
            attributes: attributes[3..].to_vec(),
            dropped_attributes_count: 3,
            flags: 0x100,
        }],
        dropped_links_count: 4,
        status: Some(Status { code: 2, message: "no".to_owned() }),
    }
}

/// A value as OTLP/JSON has it.
fn any(value: &AnyValue) -> Value {
    let values = |list: &[AnyValue]| list.iter().map(any).collect::<Vec<_>>();
    match value.value.as_ref() {
        Some(Any::StringValue(text)) => json!({"stringValue": text}),
        Some(Any::BoolValue(yes)) => json!({"boolValue": yes}),
        Some(Any::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(Any::DoubleValue(number)) => json!({"doubleValue": number}),
        Some(Any::BytesValue(bytes)) => json!({"bytesValue": BASE64.encode(bytes)}),
        Some(Any::ArrayValue(list)) => json!({"arrayValue": {"values": values(&list.values)}}),
        Some(Any::KvlistValue(map)) => json!({"kvlistValue": {"values": pairs(&map.values)}}),
        _ => json!({}),
    }
}

fn pairs(list: &[KeyValue]) -> Vec<Value> {
    let value = |pair: &KeyValue| pair.value.as_ref().map(any);
    list.iter().map(|pair| json!({"key": pair.key, "value": value(pair)})).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn in_json(span: &Span) -> Value {
    let event = |event: &Event| {
        json!({"timeUnixNano": event.time_unix_nano.to_string(), "name": event.name,
            "attributes": pairs(&event.attributes),
            "droppedAttributesCount": event.dropped_attributes_count})
    };
    let link = |link: &Link| {
        json!({"traceId": hex(&link.trace_id), "spanId": hex(&link.span_id),
            "traceState": link.trace_state, "attributes": pairs(&link.attributes),
            "droppedAttributesCount": link.dropped_attributes_count, "flags": link.flags})
    };
    let status = span.status.as_ref().map(|s| json!({"code": s.code, "message": s.message}));
    json!({
        "traceId": hex(&span.trace_id), "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id), "traceState": span.trace_state,
        "flags": span.flags, "name": span.name, "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": pairs(&span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": span.events.iter().map(event).collect::<Vec<_>>(),
        "droppedEventsCount": span.dropped_events_count,
        "links": span.links.iter().map(link).collect::<Vec<_>>(),
        "droppedLinksCount": span.dropped_links_count, "status": status,
    })
}

fn request_of(spans: &[Value]) -> String {
    let resource =
        json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}).to_string()
}

/// The same span written in other ways, each with an ID of its own.
fn otherwise() -> Vec<String> {
    let fields = [
        r#""kind":"SPAN_KIND_SERVER","status":{"code":"STATUS_CODE_ERROR"}"#,
        r#""trace_state":"a=b","start_time_unix_nano":5,"dropped_attributes_count":"6","status":{"code":2}"#,
        r#""attributes":null,"events":[],"links":null,"name":"null","status":{"code":2}"#,
        r#""unknown":{"a":[{"b":[]}],"c":"\u0041"},"status":{"code":2,"more":[1]}"#,
        r#""attributes":[{"key":"a","value":{"intValue":7}},{"key":"n","value":{}}],"status":{"code":2}"#,
        r#""attributes":[{"key":"b","value":{"doubleValue":"1.5"}}],"status":{"code":2}"#,
        r#""name":"\u00e4\ud83d\ude00\/\b","status":{"code":2}"#,
    ];
    let spans = fields.iter().zip(1000..).map(|(fields, number): (_, u64)| {
        format!(r#"{{"traceId":"{number:032X}","spanId":"00000000000000Ab",{fields}}}"#)
    });
    spans
        .map(|span| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#))
        .collect()
}

/// A Collector that passes on what it gets.
fn relay(program: &Path, backend: &Backend) -> Collector {
    let exporter = json!({"endpoint": backend.address.to_string(), "tls": {"insecure": true},
        "sending_queue": {"enabled": false}});
    let config = json!({
        "exporters": {"otlp_grpc": exporter},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_grpc"]}}},
    });
    Collector::start(program, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn json_means_what_it_means_to_a_collector() {
    let (ours, theirs) = (Backend::start().await, Backend::start().await);
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 1, &ours.address.to_string(), &[]);
    let program = collector::program("the half of json_means_what_it_means_to_a_collector", &[]);
    let collector = program.map(|program| relay(&program, &theirs));
    let spans: Vec<Span> = (0..SPANS).map(span).collect();
    let documents: Vec<Value> = spans.iter().map(in_json).collect();
    let mut bodies: Vec<String> = documents.chunks(50).map(request_of).collect();
    let others = otherwise();
    bodies.extend(others.iter().cloned());
    let ports = [Some(fleet.agents[0].http()), collector.as_ref().map(Collector::http)];
    for (body, port) in
        bodies.iter().flat_map(|body| ports.iter().flatten().map(move |p| (body, p)))
    {
        let headers = ["content-type: application/json"];
        let answer = post(port, "/v1/traces", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?} to {body:.300}");
        assert!(!answer.body.contains("rejected"), "{answer:?} to {body:.300}");
    }
    let all = spans.len() + others.len();
    wait_until("all spans", || ours.spans() == all);
    fleet.stop();
    let traces = ours.traces();
    for sent in spans {
        assert_eq!(traces[&sent.trace_id], [("shop".to_owned(), sent)]);
    }
    if collector.is_some() {
        wait_until("all spans of the Collector", || theirs.spans() == all);
        let theirs = theirs.traces();
        for (id, spans) in traces {
            assert_eq!(spans, theirs[&id]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_reads_of_our_json_is_what_was_sent() {
    let test = "what_a_collector_reads_of_our_json_is_what_was_sent";
    let Some(program) = collector::program(test, &[]) else { return };
    let backend = Backend::start().await;
    let collector = relay(&program, &backend);
    let directory = tempfile::tempdir().unwrap();
    let mut sent: Vec<Span> = (0..SPANS).map(span).collect();
    for encoding in ["None", "Gzip", "Zstd"] {
        let compression = format!("        compression: {encoding}\n");
        let url = format!("http://{}", collector.http());
        let exporter = exporting::otlp("theirs", "HTTPJSON", &url, &compression);
        let gateway = exporting::gateway(directory.path(), &exporting::manifest(&exporter), &[]);
        let requests = sent.chunks(50).map(|spans| request("shop", spans.to_vec()));
        exporting::send(&gateway, requests).await;
        gateway.wait_for("the spans", |stats| stats.ledger.exporters["theirs"].sent == SPANS);
        gateway.stop_balanced();
        let traces = backend.traces();
        for span in &sent {
            let ours = [("shop".to_owned(), span.clone())];
            assert_eq!(traces[&span.trace_id], ours, "{encoding}");
        }
        // The next ones are other traces.
        sent.iter_mut().for_each(|span| span.trace_id[15] = span.trace_id[15].wrapping_add(1));
    }
}
