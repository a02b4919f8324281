//! What is printed of a request, and how much of many.

use super::*;

// A request of one resource (service.name=shop), one scope, and one span: trace 01…, "pay", client, 1.5 ms,
// an error, http.route=/pay and a list.
fn message() -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    use prost::Message;
    let text = |text: &str| AnyValue { value: Some(Any::StringValue(text.to_owned())) };
    let pair = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..KeyValue::default()
    };
    let list = ArrayValue { values: vec![text("a"), text("b")] };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "pay".to_owned(),
        kind: 3,
        start_time_unix_nano: 1_000_000,
        end_time_unix_nano: 2_500_000,
        attributes: vec![
            pair("http.route", text("/pay")),
            pair("list", AnyValue { value: Some(Any::ArrayValue(list)) }),
        ],
        status: Some(Status { message: "declined".to_owned(), code: 2 }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let attributes = vec![pair("service.name", text("shop"))];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
}

fn printer(verbosity: Verbosity, initial: u32, thereafter: u32) -> Printer {
    Printer::new("print", Debug { verbosity, initial, thereafter })
}

fn printed(verbosity: Verbosity) -> String {
    printer(verbosity, 1, 1).text(Signal::Traces, &message(), 1, Instant::now()).unwrap()
}

#[test]
fn each_verbosity_says_more() {
    let basic = printed(Verbosity::Basic);
    assert_eq!(basic, format!("print: 1 spans, {} bytes\n", message().len()));
    let line = "  \"pay\" client 1.5ms trace=01010101010101010101010101010101 span=0202020202020202 \
                error=\"declined\" service.name=\"shop\" http.route=\"/pay\" list=[\"a\", \"b\"]\n";
    assert_eq!(printed(Verbosity::Normal), format!("{basic}{line}"));
    let detailed = printed(Verbosity::Detailed);
    for told in
        ["service.name: \"shop\"", "spans[0]", "kind: 3", "http.route: \"/pay\"", "declined"]
    {
        assert!(detailed.contains(told), "{told}: {detailed}");
    }
}

#[test]
fn of_many_requests_some_are_printed_and_each_second_begins_anew() {
    let mut printer = printer(Verbosity::Basic, 2, 3);
    let start = Instant::now();
    let mut second = |after: Duration| -> Vec<usize> {
        let due = |index: &usize| {
            printer.text(Signal::Traces, &[], *index as u64, start + after).is_some()
        };
        (1..=10).filter(due).collect()
    };
    assert_eq!(second(Duration::ZERO), [1, 2, 5, 8]);
    assert_eq!(second(Duration::from_secs(1)), [1, 2, 5, 8]);
}

#[test]
fn a_second_has_so_many_bytes() {
    let mut printer = printer(Verbosity::Basic, 1, 1);
    let now = Instant::now();
    printer.text(Signal::Traces, &[], 1, now).unwrap();
    printer.bytes = BYTES_A_SECOND;
    assert_eq!(printer.text(Signal::Traces, &[], 1, now), None);
    assert!(printer.text(Signal::Traces, &[], 1, now + WINDOW).is_some());
}

#[test]
fn bytes_that_are_no_request_are_counted_and_no_more() {
    let text = printer(Verbosity::Detailed, 1, 1)
        .text(Signal::Traces, &[0xff; 9], 1, Instant::now())
        .unwrap();
    assert_eq!(text, "print: 1 spans, 9 bytes\n");
}
