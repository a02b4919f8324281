//! What OTLP/JSON becomes on the wire, what is refused, and what is left out.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::*;
use crate::scan;

fn convert(text: &str) -> Result<Converted, JsonError> {
    traces(text.as_bytes(), &ScanLimits::default())
}

fn decode(converted: &Converted) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(converted.wire.as_slice()).unwrap()
}

/// A request with these spans, as texts.
fn with_spans(spans: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#)
}

fn span_of(text: &str) -> Span {
    let converted = convert(&with_spans(text)).unwrap();
    assert_eq!((converted.left_out, converted.why), (0, None), "{text}");
    decode(&converted).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

fn value_of(text: &str) -> Option<Value> {
    let span = span_of(&format!(r#"{{"attributes":[{{"key":"k","value":{text}}}]}}"#));
    span.attributes[0].value.clone().and_then(|value| value.value)
}

/// Everything that a request may hold, written as people and SDKs do.
const WHOLE: &str = r#"
{ "resourceSpans": [ {
    "resource": {
        "attributes": [ {"key": "service.name", "value": {"stringValue": "cart"}} ],
        "droppedAttributesCount": 1,
        "entityRefs": [ {"type": "service", "idKeys": ["service.name"], "descriptionKeys": []} ]
    },
    "scopeSpans": [ {
        "scope": {"name": "by.hand", "version": "1.0",
                  "attributes": [{"key": "s", "value": {"boolValue": true}}]},
        "spans": [ {
            "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174",
            "parentSpanId": "EEE19B7EC3C1B173", "traceState": "a=b", "flags": 257,
            "name": "GET \u00fc\ud83d\ude00\n", "kind": "SPAN_KIND_SERVER",
            "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": 1544712661000000000,
            "attributes": [ {"key": "n", "value": {"intValue": "-7"}} ],
            "droppedAttributesCount": 2,
            "events": [ {"timeUnixNano": "5", "name": "e",
                         "attributes": [{"key": "d", "value": {"doubleValue": 1.5}}]} ],
            "links": [ {"traceId": "00000000000000000000000000000001", "spanId": "0000000000000002",
                        "traceState": "", "flags": 1} ],
            "status": {"code": 2, "message": "no"},
            "someday": {"deeper": [1, -2.5e3, "x", {"y": null}, true, [[]], {}]}
        } ],
        "schemaUrl": "https://scope"
    } ],
    "schema_url": "https://resource"
} ] }
"#;

#[test]
fn everything_that_a_request_may_hold_is_read() {
    let converted = convert(WHOLE).unwrap();
    let request = decode(&converted);
    let resource = &request.resource_spans[0];
    assert_eq!(resource.schema_url, "https://resource");
    let told = resource.resource.as_ref().unwrap();
    assert_eq!(
        (told.attributes[0].key.as_str(), told.dropped_attributes_count),
        ("service.name", 1)
    );
    assert_eq!(told.entity_refs[0].id_keys, ["service.name"]);
    let scope = &resource.scope_spans[0];
    assert_eq!(
        (scope.scope.as_ref().unwrap().name.as_str(), scope.schema_url.as_str()),
        ("by.hand", "https://scope")
    );
    let span = &scope.spans[0];
    assert_eq!(span.trace_id, 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128.to_be_bytes());
    assert_eq!(span.span_id, 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes());
    assert_eq!(span.parent_span_id, 0xeee1_9b7e_c3c1_b173_u64.to_be_bytes());
    assert_eq!((span.name.as_str(), span.kind, span.flags), ("GET ü😀\n", 2, 257));
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_000_000_000);
    assert_eq!(span.attributes[0].value.as_ref().unwrap().value, Some(Value::IntValue(-7)));
    assert_eq!((span.dropped_attributes_count, span.trace_state.as_str()), (2, "a=b"));
    assert_eq!((span.events[0].time_unix_nano, span.links[0].span_id[7]), (5, 2));
    assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
    let shape = scan::check(&converted.wire, &ScanLimits::default()).unwrap();
    assert_eq!((shape.spans, shape.invalid_ids), (1, 0));
}

#[test]
fn values_are_taken_as_numbers_strings_and_names() {
    let cases = [
        (r#"{"intValue":"9223372036854775807"}"#, Value::IntValue(i64::MAX)),
        (r#"{"intValue":-9223372036854775808}"#, Value::IntValue(i64::MIN)),
        (r#"{"int_value":1e3}"#, Value::IntValue(1000)),
        (r#"{"doubleValue":"-Infinity"}"#, Value::DoubleValue(f64::NEG_INFINITY)),
        (r#"{"doubleValue":"2.5"}"#, Value::DoubleValue(2.5)),
        (r#"{"doubleValue":3}"#, Value::DoubleValue(3.0)),
        (r#"{"stringValue":""}"#, Value::StringValue(String::new())),
        (r#"{"boolValue":false}"#, Value::BoolValue(false)),
        (r#"{"bytesValue":"aGk="}"#, Value::BytesValue(b"hi".to_vec())),
        (r#"{"bytesValue":"-_8"}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"bytesValue":"\/\/8="}"#, Value::BytesValue(vec![0xff, 0xff])),
        (
            r#"{"stringValue":"\ud800 \udc00\u0041\\\""}"#,
            Value::StringValue("\u{fffd} \u{fffd}A\\\"".into()),
        ),
    ];
    for (text, value) in cases {
        assert_eq!(value_of(text), Some(value), "{text}");
    }
    assert_eq!(value_of("{}"), None);
    assert_eq!(value_of("null"), None);
    assert_eq!(value_of(r#"{"stringValue":null}"#), None);
    let list = r#"{"arrayValue":{"values":[{"intValue":1},null,{"kvlistValue":{"values":[]}}]}}"#;
    let Some(Value::ArrayValue(list)) = value_of(list) else { panic!("a list") };
    assert_eq!(list.values.len(), 3);
    assert_eq!(span_of(r#"{"kind":"3","status":{"code":"STATUS_CODE_ERROR"}}"#).kind, 3);
    // The last of several counts, as on the wire; lists of the same name follow each other.
    let twice = r#"{"name":"a","name":"b","links":[{}],"events":null,"links":[{}]}"#;
    let twice = span_of(twice);
    assert_eq!((twice.name.as_str(), twice.links.len()), ("b", 2));
    assert_eq!(span_of(r#"{"n\u0061me":"a"}"#).name, "a");
}

#[test]
fn a_span_that_is_wrong_costs_only_itself() {
    let deep = format!(
        r#"{{"attributes":[{{"key":"k","value":{}{{}}{}}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(100_000),
        "]}}".repeat(100_000)
    );
    let cases = [
        (r#"{"traceId":"W47/95gDgQPSabYzgT/GDA=="}"#, "traceId"),
        (r#"{"traceId":"abc"}"#, "hexadecimal"),
        (r#"{"traceId":5}"#, "traceId"),
        (r#"{"kind":"SERVER"}"#, "kind"),
        (r#"{"kind":1.5}"#, "kind"),
        (r#"{"kind":4294967296}"#, "kind"),
        (r#"{"startTimeUnixNano":-1}"#, "positive"),
        (r#"{"startTimeUnixNano":true}"#, "positive"),
        (r#"{"attributes":{}}"#, "a list"),
        (r#"{"attributes":[5]}"#, "an object"),
        (r#"{"attributes":[{"key":"k","value":{"intValue":"1x"}}]}"#, "intValue"),
        (r#"{"attributes":[{"key":"k","value":{"doubleValue":"inf"}}]}"#, "doubleValue"),
        (r#"{"attributes":[{"key":"k","value":{"bytesValue":"a"}}]}"#, "base64"),
        (r#"{"attributes":[{"key":"k","value":{"boolValue":"true"}}]}"#, "true or false"),
        (r#"{"name":"\x"}"#, "UTF-8"),
        (r#"{"name":5}"#, "UTF-8"),
        ("7", "an object"),
        (deep.as_str(), "32 deep"),
    ];
    let good = r#"{"name":"good"}"#;
    let alone = convert(&with_spans(&format!("{good},{good}"))).unwrap();
    for (wrong, words) in cases {
        let converted = convert(&with_spans(&format!("{good},{wrong},{good}"))).unwrap();
        let text = &wrong[..wrong.len().min(80)];
        assert_eq!((&converted.wire, converted.left_out), (&alone.wire, 1), "{text}");
        let why = converted.why.unwrap().to_string();
        assert!(why.contains(words) && why.len() < 200, "{text}: {why}");
    }
    let mut bytes = with_spans(&format!(r#"{{"name":"?"}},{good}"#)).into_bytes();
    let place = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[place] = 0xff;
    assert_eq!(traces(&bytes, &ScanLimits::default()).unwrap().left_out, 1);
}

#[test]
fn what_is_no_request_is_refused() {
    let whole = with_spans(r#"{"name":"a"}"#);
    for end in 0..whole.len() {
        assert_eq!(convert(&whole[..end]), Err(JsonError::Truncated), "{end}");
    }
    for text in [
        "[]",
        "5",
        "{,}",
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        "{}{}",
        r#"{"a":[1}]}"#,
        r#"{"a":tru}"#,
        "nul",
        r#"{"resourceSpans":5}"#,
        r#"{"resourceSpans":[5]}"#,
        r#"{a:1}"#,
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":5}]}}]}"#,
    ] {
        assert!(convert(text).is_err(), "{text}");
    }
    for text in ["{}", "null", " { } ", r#"{"resourceSpans":null}"#, r#"{"x":1}"#] {
        assert_eq!(convert(text).map(|converted| converted.wire), Ok(Vec::new()), "{text}");
    }
}

#[test]
fn a_value_nobody_knows_may_be_as_deep_as_it_likes() {
    let text = format!(
        r#"{{"x":{}{}}}"#,
        r#"[{"y":"#.repeat(500_000),
        "1".to_owned() + &"}]".repeat(500_000)
    );
    assert_eq!(convert(&text), Ok(Converted::default()));
}

#[test]
fn no_text_makes_more_than_it_is_or_a_request_that_the_check_cannot_read() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(converted) = traces(bytes, &ScanLimits::default()) else { return };
        assert!(converted.wire.len() <= bytes.len());
        scan::check(&converted.wire, &ScanLimits::default()).unwrap();
    });
}

#[test]
fn the_smallest_elements_do_not_grow() {
    let all = [
        with_spans(&["{}"; 1000].join(",")),
        with_spans(&[r#"{"flags":1}"#; 100].join(",")),
        with_spans(&format!(r#"{{"attributes":[{}]}}"#, ["{}"; 1000].join(","))),
        with_spans(&format!(r#"{{"events":[{}]}}"#, [r#"{"timeUnixNano":1}"#; 1000].join(","))),
        format!(r#"{{"resourceSpans":[{}]}}"#, ["{}"; 1000].join(",")),
    ];
    for text in all {
        assert!(convert(&text).unwrap().wire.len() <= text.len());
    }
}
