//! Verdicts on real spans: tables a policy type, and random policies and traces against a naive evaluator
//! that works on what prost decodes.

mod conditions;
mod conformance;
mod context;
mod naive;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status as SpanStatus};
use prost::Message;

use super::super::ast::{Policy, Role, Rule, Status};
use super::super::compile;
use super::*;

const ID: [u8; 16] = [
    0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
];

/// A resource and its spans, as bytes.
#[derive(Debug)]
struct Piece {
    headers: Vec<u8>,
    spans: Vec<Vec<u8>>,
}

impl Piece {
    fn new(resource: Vec<KeyValue>, spans: Vec<Span>) -> Self {
        let resource = Some(Resource { attributes: resource, ..Resource::default() });
        let headers =
            ResourceSpans { resource, schema_url: "s".into(), ..ResourceSpans::default() };
        Self {
            headers: headers.encode_to_vec(),
            spans: spans.iter().map(Message::encode_to_vec).collect(),
        }
    }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn span(attributes: &[(&str, Any)]) -> Span {
    let attributes = attributes.iter().map(|(key, value)| attribute(key, value.clone())).collect();
    Span { attributes, ..Span::default() }
}

fn policy(name: &str, rule: Rule) -> Policy {
    Policy { name: name.to_owned(), role: Role::Vote, rule }
}

fn facts(program: &Program, id: [u8; 16], pieces: &[Piece]) -> TraceFacts {
    let mut facts = TraceFacts::new(id);
    for piece in pieces {
        let resource = Headers::whole(&piece.headers);
        let bits = program.resource_bits(&resource);
        let group = Group { resource, scope: Headers::whole(&[]) };
        for span in &piece.spans {
            facts.add(&program.span_facts(span), bits, span.len() as u64);
            facts.bits |= program.ask(&group, span, facts.bits).bits;
        }
    }
    facts
}

fn judge(policies: &[Policy], pieces: &[Piece]) -> Verdict {
    let program = compile(policies).unwrap();
    program.decide(&facts(&program, ID, pieces))
}

#[test]
fn facts_are_those_of_the_bytes() {
    let program = compile(&[policy("all", Rule::AlwaysSample)]).unwrap();
    let span = Span {
        trace_id: ID.to_vec(),
        start_time_unix_nano: 5,
        end_time_unix_nano: 7,
        status: Some(SpanStatus { code: 2, message: "no".into() }),
        ..Span::default()
    };
    let expected = SpanFacts { start_ns: 5, end_ns: 7, statuses: 4, root: true, bits: 0, drawn: 0 };
    assert_eq!(program.span_facts(&span.encode_to_vec()), expected);
}

#[test]
fn a_span_is_a_root_when_its_parent_is_empty_or_zeros() {
    let program = compile(&[policy("all", Rule::AlwaysSample)]).unwrap();
    for (parent, root) in
        [(vec![], true), (vec![0; 8], true), (vec![0, 0, 0, 0, 0, 0, 0, 1], false)]
    {
        let span = Span { parent_span_id: parent.clone(), ..Span::default() };
        assert_eq!(program.span_facts(&span.encode_to_vec()).root, root, "{parent:?}");
    }
}

#[test]
fn of_repeated_fields_the_last_counts() {
    let program = compile(&[policy("all", Rule::AlwaysSample)]).unwrap();
    let status = |code| Some(SpanStatus { code, ..SpanStatus::default() });
    let part = |start, parent: u8, status| Span {
        start_time_unix_nano: start,
        parent_span_id: vec![parent; 8],
        status,
        ..Span::default()
    };
    let bytes = [
        part(5, 1, status(2)).encode_to_vec(),
        // A status message without a code (0 is not written) leaves the earlier code.
        part(9, 0, status(0)).encode_to_vec(),
        part(3, 2, None).encode_to_vec(),
    ]
    .concat();
    let facts = program.span_facts(&bytes);
    assert_eq!((facts.start_ns, facts.root, facts.statuses), (3, false, 4));
    let bytes = [bytes, part(0, 0, status(1)).encode_to_vec()].concat();
    let facts = program.span_facts(&bytes);
    assert_eq!((facts.start_ns, facts.root, facts.statuses), (3, true, 2));
}

#[test]
fn no_bytes_are_too_strange() {
    use proptest::prelude::*;
    let list = [
        policy(
            "a",
            Rule::StringAttribute {
                key: "k".into(),
                values: vec!["a+".into()],
                regex: true,
                invert_match: false,
            },
        ),
        policy(
            "n",
            Rule::NumericAttribute {
                key: "key".into(),
                min_value: Some(0),
                max_value: None,
                invert_match: true,
            },
        ),
    ];
    let program = compile(&list).unwrap();
    let small = prop_oneof![
        any::<u8>(),
        0_u8..20,
        Just(0x4a),
        Just(0x0a),
        Just(0x12),
        Just(b'k'),
        Just(0x1a)
    ];
    proptest!(|(bytes in prop::collection::vec(small, 0..80))| {
        let mut facts = TraceFacts::new(ID);
        let resource = program.resource_bits(&Headers::whole(&bytes));
        facts.add(&program.span_facts(&bytes), resource, 80);
        let _ = program.decide(&facts);
    });
}
