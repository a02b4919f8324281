//! What is written as JSON is what OTLP says, and what was in the bytes.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use super::{Signal, request};

fn written(message: &[u8]) -> Value {
    serde_json::from_slice(&request(Signal::Traces, message)).unwrap()
}

fn any_value(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any_value(value), ..KeyValue::default() }
}

fn everything() -> ExportTraceServiceRequest {
    let list = ArrayValue { values: vec![AnyValue { value: Some(Any::IntValue(-1)) }] };
    let map = KeyValueList { values: vec![attribute("deep", Any::BoolValue(false))] };
    let span = Span {
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        trace_state: "a=b".to_owned(),
        parent_span_id: vec![0xff; 8],
        flags: 0x101,
        name: "say \"hi\"\n".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: u64::MAX,
        attributes: vec![
            attribute("text", Any::StringValue(String::new())),
            attribute("list", Any::ArrayValue(list)),
            attribute("map", Any::KvlistValue(map)),
            attribute("bytes", Any::BytesValue(vec![0, 255])),
            attribute("double", Any::DoubleValue(0.1)),
            attribute("nan", Any::DoubleValue(f64::NAN)),
        ],
        dropped_attributes_count: u32::MAX,
        events: vec![Event { time_unix_nano: 7, name: "event".to_owned(), ..Event::default() }],
        links: vec![Link { trace_id: vec![9; 16], span_id: vec![8; 8], ..Link::default() }],
        status: Some(Status { message: "no".to_owned(), code: 2 }),
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", Any::StringValue("shop".to_owned()))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "lib".to_owned(), ..Default::default() }),
                spans: vec![span],
                schema_url: "https://a".to_owned(),
            }],
            ..ResourceSpans::default()
        }],
    }
}

#[test]
fn a_span_with_everything() {
    let expected = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{
            "scope": {"name": "lib"},
            "schemaUrl": "https://a",
            "spans": [{
                "traceId": "0102030405060708090a0b0c0d0e0f10",
                "spanId": "0102030405060708",
                "traceState": "a=b",
                "parentSpanId": "ffffffffffffffff",
                "flags": 257,
                "name": "say \"hi\"\n",
                "kind": 2,
                "startTimeUnixNano": "1700000000000000000",
                "endTimeUnixNano": "18446744073709551615",
                "attributes": [
                    {"key": "text", "value": {"stringValue": ""}},
                    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "-1"}]}}},
                    {"key": "map", "value": {"kvlistValue": {"values": [
                        {"key": "deep", "value": {"boolValue": false}}]}}},
                    {"key": "bytes", "value": {"bytesValue": "AP8="}},
                    {"key": "double", "value": {"doubleValue": 0.1}},
                    {"key": "nan", "value": {"doubleValue": "NaN"}},
                ],
                "droppedAttributesCount": u32::MAX,
                "events": [{"timeUnixNano": "7", "name": "event"}],
                "links": [{"traceId": "09".repeat(16), "spanId": "08".repeat(8)}],
                "status": {"message": "no", "code": 2},
            }],
        }],
    }]});
    assert_eq!(written(&everything().encode_to_vec()), expected);
}

#[test]
fn what_comes_in_parts_is_merged_and_what_is_unknown_left_out() {
    // A resource in two parts, an unknown field 9, and a value that is a text first and a number then.
    let value = [0x12, 5, 0x0a, 1, b'a', 0x18, 7];
    let attribute = [&[0x0a, 10, 0x0a, 1, b'k'][..], &value].concat();
    let resource = |body: &[u8]| [&[0x0a, u8::try_from(body.len()).unwrap()], body].concat();
    let parts = [resource(&attribute), resource(&[0x10, 3]), vec![0x48, 1]].concat();
    let message = resource(&parts);
    let expected = json!({"resourceSpans": [{"resource": {
        "attributes": [{"key": "k", "value": {"intValue": "7"}}],
        "droppedAttributesCount": 3,
    }}]});
    assert_eq!(written(&message), expected);
}

/// What a decoder of protobuf finds in the bytes, in the same form.
fn expected_spans(message: &[u8]) -> Vec<(String, String, String, Vec<String>)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let decoded = ExportTraceServiceRequest::decode(message).unwrap();
    let scopes = decoded.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
    let spans = scopes.flat_map(|scope| scope.spans);
    let keys = |span: &Span| span.attributes.iter().map(|pair| pair.key.clone()).collect();
    spans
        .map(|span| (hex(&span.trace_id), hex(&span.span_id), span.name.clone(), keys(&span)))
        .collect()
}

fn written_spans(message: &[u8]) -> Vec<(String, String, String, Vec<String>)> {
    let read = written(message);
    let list = |value: &Value, name: &str| -> Vec<Value> {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let word = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut found = Vec::new();
    for scope in list(&read, "resourceSpans").iter().flat_map(|spans| list(spans, "scopeSpans")) {
        for span in list(&scope, "spans") {
            let keys = list(&span, "attributes").iter().map(|pair| word(pair, "key")).collect();
            found.push((word(&span, "traceId"), word(&span, "spanId"), word(&span, "name"), keys));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_those_of_a_decoder(
        spans in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..17), ".{0,9}", prop::collection::vec(".{0,5}", 0..4)),
            0..5,
        ),
    ) {
        let span = |(id, name, keys): (Vec<u8>, String, Vec<String>)| Span {
            trace_id: id.clone(),
            span_id: id,
            name,
            attributes: keys.iter().map(|key| attribute(key, Any::IntValue(1))).collect(),
            ..Span::default()
        };
        let mut request = everything();
        request.resource_spans[0].scope_spans[0].spans = spans.into_iter().map(span).collect();
        let message = request.encode_to_vec();
        prop_assert_eq!(written_spans(&message), expected_spans(&message));
    }

    #[test]
    fn any_bytes_give_json(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        written(&bytes);
    }
}
