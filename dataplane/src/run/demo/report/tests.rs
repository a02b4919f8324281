//! Tests of the comparison: what it says of whole, cut, doubled, lost and unknown traces.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status as WireStatus,
};
use prost::Message;
use ringtail_engine::policy::compile;

use super::*;

const MS: u64 = 1_000_000;

fn policies() -> Vec<Policy> {
    let vote = |name: &str, rule| Policy { name: name.to_owned(), role: Role::Vote, rule };
    vec![
        vote("errors", Rule::StatusCode { codes: vec![Status::Error] }),
        vote("slow", Rule::Latency { threshold_ms: 500, upper_threshold_ms: None }),
    ]
}

fn span(trace: u8, id: u8, parent: Option<u8>, ms: u64, failed: bool) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: parent.map_or_else(Vec::new, |parent| vec![parent; 8]),
        name: format!("step {id}"),
        start_time_unix_nano: u64::from(id) * MS,
        end_time_unix_nano: (u64::from(id) + ms) * MS,
        status: failed.then(|| WireStatus { code: 2, message: "out of stock".to_owned() }),
        ..Span::default()
    }
}

/// Every span in a request of its own, as spans of different services come.
fn arrivals(spans: &[Span]) -> Arrivals {
    let mut arrivals = Arrivals::new(compile(&policies()).unwrap());
    let name = AnyValue { value: Some(Value::StringValue("cart".to_owned())) };
    let name =
        KeyValue { key: "service.name".to_owned(), value: Some(name), ..KeyValue::default() };
    for span in spans {
        let resource = Resource { attributes: vec![name.clone()], ..Resource::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span.clone()], ..ScopeSpans::default() }];
        let group =
            ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![group] };
        arrivals.add(&request.encode_to_vec());
    }
    arrivals
}

fn sent(trace: u8, kind: Kind, spans: u32) -> Sent {
    Sent { id: [trace; 16], kind, spans, agents: 0b11 }
}

fn compare(sent: &[Sent], spans: &[Span]) -> Report {
    let shop = Closed { sent: sent.to_vec(), complaints: Vec::new() };
    Report::compare(&shop, &arrivals(spans), &policies(), false)
}

#[test]
fn whole_traces_satisfy_and_are_explained() {
    let report = compare(
        &[sent(1, Kind::Error, 3), sent(2, Kind::Slow, 1), sent(3, Kind::Ordinary, 9)],
        &[
            span(1, 1, None, 30, true),
            span(1, 3, Some(1), 10, false),
            span(1, 2, Some(1), 20, true),
            span(2, 1, None, 900, false),
        ],
    );
    assert!(report.satisfied(), "{:?}", report.wrongs);
    let text = report.lines().join("\n");
    for part in [
        "kept by policy errors",
        "kept by policy slow",
        "error            1       3       1       1   errors 1",
        "ordinary         1       9       0       0   -",
        "3 traces crossed both agents",
        "  cart step 1                                         30 ms  ERROR out of stock\n\
         \x20   cart step 2                                       20 ms  ERROR out of stock\n\
         \x20   cart step 3                                       10 ms\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn every_broken_promise_is_named() {
    let whole = [span(1, 1, None, 30, true), span(1, 2, Some(1), 20, false)];
    let doubled = [whole[0].clone(), whole[1].clone(), whole[1].clone()];
    let swapped = [whole[0].clone(), whole[0].clone()];
    let fine = [span(1, 1, None, 30, false), span(1, 2, Some(1), 20, false)];
    #[rustfmt::skip]
    let cases: [(&str, &[Sent], &[Span], &str); 7] = [
        ("cut",     &[sent(1, Kind::Error, 2)], &whole[..1], "has 2 spans, 1 arrived, 1 of them different"),
        ("doubled", &[sent(1, Kind::Error, 2)], &doubled,    "has 2 spans, 3 arrived, 2 of them different"),
        ("swapped", &[sent(1, Kind::Error, 2)], &swapped,    "has 2 spans, 2 arrived, 1 of them different"),
        ("lost",    &[sent(1, Kind::Slow, 2)],  &[],         "slow trace 0101010101010101"),
        ("unknown", &[],                        &whole,      "1 traces arrived that the shop did not send"),
        ("for no reason", &[sent(1, Kind::Ordinary, 2)], &fine, "was kept by no policy"),
        ("invalid", &[], &[span(0, 1, None, 1, false)],      "1 spans could not be read"),
    ];
    for (case, sent, spans, expected) in cases {
        let report = compare(sent, spans);
        let said = report.wrongs.iter().any(|wrong| wrong.contains(expected));
        assert!(said && !report.satisfied(), "{case}: {:?}", report.wrongs);
        assert!(report.lines().join("\n").contains("WRONG: "), "{case}");
    }
}

#[test]
fn a_manifest_promises_what_its_policies_say() {
    let mut policies = policies();
    let promises = |policies: &[Policy]| Kind::ALL.map(|kind| promised(kind, policies));
    assert_eq!(promises(&policies), [true, true, false, false]);
    policies[0].role = Role::Part;
    policies[1].rule = Rule::Latency { threshold_ms: 5_000, upper_threshold_ms: None };
    assert_eq!(promises(&policies), [false; 4]);
    policies[1].rule = Rule::AlwaysSample;
    assert_eq!(promises(&policies), [true, true, false, false]);
}

#[test]
fn a_span_that_is_its_own_parent_ends() {
    let mut strange = span(1, 1, None, 1, true);
    strange.span_id = Vec::new();
    let arrivals = arrivals(&[strange]);
    assert!(arrivals.traces[&[1; 16]].tree().len() <= 32);
}

#[test]
fn gateways_that_count_otherwise_are_told() {
    let mut report = compare(&[sent(1, Kind::Error, 1)], &[span(1, 1, None, 30, true)]);
    report.compare_counts(&BTreeMap::from([("errors".to_owned(), 1)]));
    assert!(report.satisfied(), "{:?}", report.wrongs);
    report.compare_counts(&BTreeMap::from([("errors".to_owned(), 1), ("slow".to_owned(), 2)]));
    assert_eq!(report.wrongs, ["gateways counted errors 1, slow 2 as kept, but it was errors 1"]);
}
