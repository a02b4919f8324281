//! Where spans go, what is known of their traces meanwhile, and what a batch lists.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use ringtail_engine::ring::Member;

use super::*;
use crate::agent::frame::SPARE_BYTES;

/// 400 small spans under a resource of 200 KiB.
fn top_heavy() -> Vec<u8> {
    let span =
        |number: u64| Span { trace_id: [number.to_be_bytes(), [1; 8]].concat(), ..Span::default() };
    let scope = ScopeSpans { spans: (0..400).map(span).collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans {
        scope_spans: vec![scope],
        schema_url: "x".repeat(200 << 10),
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
}

/// Spans of 60 traces in turns, none as long as the one before.
fn repeating() -> Vec<u8> {
    let span = |number: u64| Span {
        trace_id: [(number % 60).to_be_bytes(), [1; 8]].concat(),
        name: "n".repeat(number as usize % 97),
        ..Span::default()
    };
    let scope = ScopeSpans { spans: (0..400).map(span).collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
}

#[test]
fn a_large_resource_is_not_repeated_with_every_span() {
    let seed = KeySeed::new([1; 16]);
    let view = View::new(vec![Member { id: "gw".to_owned(), inst: 1 }], &seed);
    let ring = Ring { view, links: vec![0] };
    for limits in
        [BatchLimits { bytes: 1024, spans: 8192 }, BatchLimits { bytes: 1 << 20, spans: 1 }]
    {
        let mut splitter = Splitter::new(seed, limits, Buffers::new(SPARE_BYTES));
        let request = top_heavy();
        let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
        let over = (&ring, &[true][..]);
        let routed = splitter.split(&request, &shape, over, None, Instant::now()).unwrap();
        assert_eq!(routed, Routed { spans: 400, ..Routed::default() });
        splitter.seal_older(Instant::now());
        let written: usize = splitter.take_sealed().map(|s| s.batch.encoded_len()).sum();
        assert!(written <= 2 * request.len(), "{limits:?}: {written} of {}", request.len());
    }
}

#[test]
fn what_was_known_of_traces_is_void_with_the_next_request_though_numbers_begin_anew() {
    let seed = KeySeed::new([1; 16]);
    let member = |id: &str| Member { id: id.to_owned(), inst: 1 };
    let view = View::new(vec![member("a"), member("b")], &seed);
    let ring = Ring { view, links: vec![0, 1] };
    let limits = BatchLimits { bytes: 64 << 20, spans: 1 << 20 };
    let mut splitter = Splitter::new(seed, limits, Buffers::new(SPARE_BYTES));
    let request = top_heavy();
    let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
    let now = Instant::now();
    splitter.places.request = 0;
    splitter.split(&request, &shape, (&ring, &[true, false]), None, now).unwrap();
    splitter.places.request = u32::MAX;
    splitter.split(&request, &shape, (&ring, &[false, true]), None, now).unwrap();
    splitter.seal_older(now);
    let sealed: Vec<_> = splitter.take_sealed().map(|one| (one.link, one.batch.spans())).collect();
    assert_eq!(sealed, [(0, 400), (1, 400)]);
}

#[test]
fn every_batch_lists_its_traces_with_their_bytes() {
    let seed = KeySeed::new([1; 16]);
    let view = View::new(vec![Member { id: "gw".to_owned(), inst: 1 }], &seed);
    let ring = Ring { view, links: vec![0] };
    let request = repeating();
    let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
    for spans in [1, 3, 100, 1 << 20] {
        let limits = BatchLimits { bytes: 64 << 20, spans };
        let mut splitter = Splitter::new(seed, limits, Buffers::new(SPARE_BYTES));
        for _ in 0..3 {
            let over = (&ring, &[true][..]);
            splitter.split(&request, &shape, over, None, Instant::now()).unwrap();
        }
        splitter.seal_older(Instant::now());
        for Sealed { batch, traces, .. } in splitter.take_sealed() {
            let mut listed: BTreeMap<TraceKey, u32> = BTreeMap::new();
            traces.iter().for_each(|(key, bytes)| *listed.entry(*key).or_default() += bytes);
            let mut held = Held { seed, bytes: BTreeMap::new() };
            let mut wire = Vec::new();
            batch.encode(&mut wire);
            scan::walk(&wire, &Shape::UNKNOWN, &mut held).unwrap();
            assert_eq!(listed, held.bytes, "batches of {spans}");
        }
    }
}

/// Bytes of spans by trace.
struct Held {
    seed: KeySeed,
    bytes: BTreeMap<TraceKey, u32>,
}

impl Visit for Held {
    fn group(&mut self, _group: &Group<'_>) {}

    fn span(&mut self, _group: &Group<'_>, id: &TraceId, span: &[u8]) {
        *self.bytes.entry(self.seed.key(id)).or_default() += span.len() as u32;
    }
}

#[test]
fn what_may_have_been_counted_is_in_batches_of_its_own() {
    let seed = KeySeed::new([1; 16]);
    let view = View::new(vec![Member { id: "gw".to_owned(), inst: 1 }], &seed);
    let ring = Ring { view, links: vec![0] };
    let limits = BatchLimits { bytes: 64 << 20, spans: 1 << 20 };
    let mut splitter = Splitter::new(seed, limits, Buffers::new(SPARE_BYTES));
    let request = top_heavy();
    let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
    for counted in [false, true, true, false] {
        splitter.set_counted(counted);
        let over = (&ring, &[true][..]);
        splitter.split(&request, &shape, over, None, Instant::now()).unwrap();
    }
    splitter.seal_older(Instant::now());
    let sealed: Vec<(bool, u32)> =
        splitter.take_sealed().map(|one| (one.counted, one.batch.spans())).collect();
    assert_eq!(sealed, [(false, 400), (true, 400), (true, 400), (false, 400)]);
}

#[test]
fn spans_of_a_service_go_to_one_gateway_whatever_their_trace() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    let of = |service: u64| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![KeyValue {
                key: "service.name".to_owned(),
                value: Some(AnyValue {
                    value: Some(any_value::Value::StringValue(format!("service-{service}"))),
                }),
                ..KeyValue::default()
            }],
            ..Resource::default()
        }),
        // Every service has a span of each of these traces.
        scope_spans: vec![ScopeSpans {
            spans: (0..30_u64)
                .map(|number| Span {
                    trace_id: [number.to_be_bytes(), [1; 8]].concat(),
                    ..Span::default()
                })
                .collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    let request =
        ExportTraceServiceRequest { resource_spans: (0..40).map(of).collect() }.encode_to_vec();
    let seed = KeySeed::new([1; 16]);
    let member = |id: &str| Member { id: id.to_owned(), inst: 1 };
    let view = View::new(vec![member("a"), member("b"), member("c")], &seed);
    let ring = Ring { view, links: vec![0, 1, 2] };
    let limits = BatchLimits { bytes: 1 << 20, spans: 100_000 };
    let shape = scan::check(&request, &scan::ScanLimits::default()).unwrap();
    for accepting in [[true; 3], [true, false, true]] {
        let mut splitter = Splitter::new(seed, limits, Buffers::new(SPARE_BYTES)).by_service(true);
        let now = Instant::now();
        let routed = splitter.split(&request, &shape, (&ring, &accepting), None, now).unwrap();
        assert_eq!(routed.spans, 1_200);
        assert_eq!(routed.rerouted > 0, accepting != [true; 3], "{routed:?}");
        assert_eq!(routed.rerouted % 30, 0, "whole services go elsewhere");
        splitter.seal_older(now);
        let sealed: Vec<Sealed> = splitter.take_sealed().collect();
        assert_eq!(sealed.len(), accepting.iter().filter(|open| **open).count());
        for batch in sealed {
            assert!(accepting[batch.link]);
            assert_eq!(batch.batch.spans() % 30, 0, "a service is in one batch");
        }
    }
}
