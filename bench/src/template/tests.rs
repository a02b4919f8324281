//! The templates, decoded by somebody else's code, must say what the truth says.

use std::collections::HashSet;
use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1::Span;

use super::*;
use crate::truth::Policies;

fn decode(message: &[u8]) -> Vec<(String, Vec<Span>)> {
    assert_eq!(message[0], 0, "not compressed");
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    assert_eq!(length as usize, message.len() - PREFIX_LEN);
    let request = ExportTraceServiceRequest::decode(&message[PREFIX_LEN..]).unwrap();
    let groups = request.resource_spans.into_iter().map(|group| {
        let resource = group.resource.unwrap();
        assert_eq!(resource.attributes.len(), 6);
        let name = format!("{:?}", resource.attributes[0].value);
        (name, group.scope_spans.into_iter().flat_map(|scope| scope.spans).collect())
    });
    groups.collect()
}

fn patched(template: &RequestTemplate, world: &World, first: u64) -> Vec<u8> {
    let mut message = template.bytes().to_vec();
    // Dirty first, as a buffer that comes back from an earlier send is.
    template.patch(world, first + 123_456, &mut message);
    template.patch(world, first, &mut message);
    message
}

#[test]
fn a_request_says_what_the_truth_says() {
    let world = World::new(42);
    let template = RequestTemplate::new(500, 0, 1).unwrap();
    assert_eq!(template.spans(), 4000);
    let groups = decode(&patched(&template, &world, 1000));
    assert_eq!(groups.len(), SPANS);
    let mut ids = HashSet::new();
    let mut errors = 0;
    for (number, (_, spans)) in groups.iter().enumerate() {
        assert_eq!(spans.len(), 500);
        for (position, span) in spans.iter().enumerate() {
            let trace = world.trace(1000 + position as u64);
            check_span(&world, &trace, number, span);
            assert!(ids.insert(span.span_id.clone()), "span IDs are unique");
            errors += usize::from(span.status.as_ref().unwrap().code == 2);
        }
    }
    let expected = (1000..1500).filter(|index| world.trace(*index).error_span.is_some()).count();
    assert!(expected > 0 && errors == expected, "{errors} errors, {expected} expected");
}

fn check_span(world: &World, trace: &Trace, number: usize, span: &Span) {
    assert_eq!(span.trace_id, trace.id);
    assert_eq!(world.index_of(&span.trace_id.clone().try_into().unwrap()), Some(trace.index));
    assert_eq!(span.span_id, world.span_id(trace.index, number));
    match parent_of(number) {
        Some(parent) => assert_eq!(span.parent_span_id, world.span_id(trace.index, parent)),
        None => assert!(span.parent_span_id.is_empty()),
    }
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), trace.times_ns(number));
    assert_eq!(span.attributes.len(), 11);
    let failed = trace.error_span == Some(number);
    assert_eq!(span.status.as_ref().unwrap().code, if failed { 2 } else { 1 });
    let values = format!("{:?}", span.attributes);
    assert!(values.contains(if failed { "IntValue(500)" } else { "IntValue(200)" }), "{values}");
}

#[test]
fn spans_are_as_long_as_promised() {
    let lengths: Vec<usize> =
        SpanTemplate::all().unwrap().iter().map(SpanTemplate::encoded_len).collect();
    let mean = lengths.iter().sum::<usize>() / SPANS;
    assert!((430..=470).contains(&mean), "{mean}: {lengths:?}");
    let wire = RequestTemplate::new(125, 0, 1).unwrap().bytes().len() / 1000;
    assert!((435..=475).contains(&wire), "{wire} bytes a span on the wire");
}

#[test]
fn fragments_together_are_the_whole_trace() {
    let world = World::new(9);
    for fragments in [1, 2, 4, 8] {
        let mut seen = HashSet::new();
        for fragment in 0..fragments {
            let template = RequestTemplate::new(10, fragment, fragments).unwrap();
            for (_, spans) in decode(&patched(&template, &world, 0)) {
                seen.extend(spans.into_iter().map(|span| (span.trace_id, span.span_id)));
            }
        }
        assert_eq!(seen.len(), 10 * SPANS, "{fragments} fragments");
    }
}

#[test]
fn a_rendered_span_is_the_span_of_the_request() {
    let world = World::new(5);
    let message = patched(&RequestTemplate::new(3, 0, 1).unwrap(), &world, 77);
    let mut body = Vec::new();
    for template in SpanTemplate::all().unwrap() {
        for index in 77..80 {
            template.render(&world, &world.trace(index), &mut body);
            assert!(find(&message, &body).is_ok());
        }
    }
}

/// Not an assertion about time: prints what patching costs (`cargo test --release -- --nocapture patching`).
#[test]
fn patching_is_cheap() {
    let world = World::new(5);
    let template = RequestTemplate::new(125, 0, 1).unwrap();
    let mut message = template.bytes().to_vec();
    let started = Instant::now();
    let rounds = 20;
    for round in 0..rounds {
        template.patch(&world, round * 125, &mut message);
    }
    let spans = rounds * template.spans() as u64;
    println!("patching: {} ns a span", started.elapsed().as_nanos() as u64 / spans);
    assert!(world.trace(0).kept_by(&Policies::EVERYTHING));
}
