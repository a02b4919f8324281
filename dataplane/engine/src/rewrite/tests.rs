//! Redaction, actions on attributes and processing, case by case; `tests/rewriting.rs` has random ones.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

use super::attributes::{Action, Actions, Given, Home, Verb};
use super::outgoing::Outgoing;
use super::processing::{Done, Processing, Processor};
use super::redaction::{Hasher, Mask, Plan, Redaction, Texts};
use super::sampling::Mark;
use crate::batch::{Batch, GroupRef};
use crate::policy::Filter;
use crate::scan::{Group, ScanLimits, Shape, TraceId, Visit, check, walk};

mod records; // of logs

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn map(key: &str, values: Vec<KeyValue>) -> KeyValue {
    pair(key, Value::KvlistValue(KeyValueList { values }))
}

fn list(key: &str, values: Vec<AnyValue>) -> KeyValue {
    pair(key, Value::ArrayValue(ArrayValue { values }))
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// A span with the attributes everywhere where attributes are.
fn request(attributes: Vec<KeyValue>) -> ExportTraceServiceRequest {
    let event =
        Event { name: "card 4111".into(), attributes: attributes.clone(), ..Event::default() };
    let link = Link { attributes: attributes.clone(), ..Link::default() };
    let span = Span {
        trace_id: vec![1; 16],
        name: "GET 4111".into(),
        attributes: attributes.clone(),
        events: vec![event],
        links: vec![link],
        status: Some(Status { message: "no 4111".into(), ..Status::default() }),
        ..Span::default()
    };
    let scope = InstrumentationScope { attributes: attributes.clone(), ..Default::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: vec![span],
                ..Default::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// All lists of attributes of a request with one span.
fn homes(request: &ExportTraceServiceRequest) -> Vec<Vec<KeyValue>> {
    let spans = &request.resource_spans[0];
    let scope = &spans.scope_spans[0];
    let span = &scope.spans[0];
    vec![
        spans.resource.clone().unwrap_or_default().attributes,
        scope.scope.clone().unwrap_or_default().attributes,
        span.attributes.clone(),
        span.events[0].attributes.clone(),
        span.links[0].attributes.clone(),
    ]
}

struct Gather(Batch, Option<GroupRef>);

impl Visit for Gather {
    fn group(&mut self, _group: &Group<'_>) {
        self.1 = None;
    }

    fn span(&mut self, group: &Group<'_>, _id: &TraceId, span: &[u8]) {
        let Self(batch, known) = self;
        let place = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(place, span);
    }
}

fn batch(request: &ExportTraceServiceRequest) -> Batch {
    let mut gather = Gather(Batch::new(), None);
    walk(&request.encode_to_vec(), &Shape::UNKNOWN, &mut gather).unwrap();
    gather.0
}

fn redacted(plan: &Plan, request: &ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    let redaction = Redaction::new(plan, Hasher::new(Some(b"k"))).unwrap();
    let mut outgoing = Outgoing::default();
    outgoing.add(&batch(request), Some(&redaction), &Mark::default()).unwrap();
    let mut bytes = Vec::new();
    outgoing.ready().encode(&mut bytes);
    ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap()
}

fn mask(key: Option<&str>, key_pattern: Option<&str>, value_pattern: Option<&str>) -> Mask {
    let own = |text: Option<&str>| text.map(str::to_owned);
    Mask {
        key: own(key),
        key_pattern: own(key_pattern),
        value_pattern: own(value_pattern),
        replacement: "****".to_owned(),
    }
}

#[test]
fn attributes_are_redacted_wherever_they_are() {
    let card = || text("card", "a 4111 b 4111");
    let plan = |masks: &[Mask]| Plan { masks: masks.to_vec(), ..Plan::default() };
    type Case = (Plan, Vec<KeyValue>, Vec<KeyValue>);
    let cases: Vec<Case> = vec![
        (
            Plan { remove: words(&["card"]), ..Plan::default() },
            vec![card(), text("x", "y")],
            vec![text("x", "y")],
        ),
        (
            Plan { remove: words(&["card"]), ..Plan::default() },
            vec![map("m", vec![card(), map("n", vec![card(), text("x", "y")])])],
            vec![map("m", vec![map("n", vec![text("x", "y")])])],
        ),
        (
            Plan { remove: words(&["card"]), ..Plan::default() },
            vec![list("l", vec![any(Value::KvlistValue(KeyValueList { values: vec![card()] }))])],
            vec![list("l", vec![any(Value::KvlistValue(KeyValueList::default()))])],
        ),
        (
            plan(&[mask(Some("card"), None, None)]),
            vec![card(), text("x", "4111")],
            vec![text("card", "****"), text("x", "4111")],
        ),
        (
            plan(&[mask(Some("card"), None, Some("4[0-9]+"))]),
            vec![card()],
            vec![text("card", "a **** b ****")],
        ),
        (
            plan(&[mask(None, Some("^ca"), None)]),
            vec![card(), text("x", "y")],
            vec![text("card", "****"), text("x", "y")],
        ),
        (
            plan(&[mask(None, None, Some("4111"))]),
            vec![card(), text("x", "4111")],
            vec![text("card", "a **** b ****"), text("x", "****")],
        ),
        // A key's mask is about everything inside of its value.
        (
            plan(&[mask(Some("m"), None, Some("4111"))]),
            vec![map("m", vec![list("l", vec![any(Value::StringValue("4111!".into()))])])],
            vec![map("m", vec![list("l", vec![any(Value::StringValue("****!".into()))])])],
        ),
        // Numbers and bools are looked at as text; bytes go as a whole.
        (
            plan(&[mask(None, None, Some("411"))]),
            vec![pair("n", Value::IntValue(4111))],
            vec![text("n", "****1")],
        ),
        (
            plan(&[mask(None, None, Some("411"))]),
            vec![pair("n", Value::IntValue(7))],
            vec![pair("n", Value::IntValue(7))],
        ),
        (
            plan(&[mask(None, None, Some("^0.5$"))]),
            vec![pair("n", Value::DoubleValue(0.5))],
            vec![text("n", "****")],
        ),
        (
            plan(&[mask(None, None, Some("true"))]),
            vec![pair("n", Value::BoolValue(true))],
            vec![text("n", "****")],
        ),
        (
            plan(&[mask(None, None, Some("411"))]),
            vec![pair("n", Value::BytesValue(b"x4111".to_vec()))],
            vec![text("n", "****")],
        ),
        (
            Plan { allow_only: Some(words(&["x"])), ..plan(&[mask(None, None, Some("y"))]) },
            vec![card(), map("x", vec![text("card", "yes")])],
            vec![map("x", vec![text("card", "****es")])],
        ),
        (Plan { allow_only: Some(Vec::new()), ..Plan::default() }, vec![card()], vec![]),
        // A rune must not be cut in two.
        (
            plan(&[mask(None, None, Some("(?-u:\\xc3)"))]),
            vec![text("x", "\u{e9}")],
            vec![text("x", "****")],
        ),
    ];
    for (place, (plan, attributes, expected)) in cases.into_iter().enumerate() {
        for home in homes(&redacted(&plan, &request(attributes.clone()))) {
            assert_eq!(home, expected, "case {place}");
        }
    }
}

#[test]
fn hashes_are_the_same_for_the_same_values_and_tell_nothing_else() {
    let plan = Plan {
        hash: words(&["user"]),
        masks: vec![mask(Some("user"), None, None)],
        ..Plan::default()
    };
    let hash = |value: Value| {
        let homes = homes(&redacted(&plan, &request(vec![pair("user", value)])));
        assert!(homes.iter().all(|home| *home == homes[0]));
        match homes[0][0].value.clone().unwrap().value.unwrap() {
            Value::StringValue(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let alice = || Value::StringValue("alice".to_owned());
    assert_eq!(hash(alice()), hash(alice()));
    let others = [
        Value::StringValue("bob".to_owned()),
        Value::IntValue(1),
        Value::BoolValue(true),
        Value::DoubleValue(1.0),
        Value::ArrayValue(ArrayValue { values: vec![any(alice())] }),
    ];
    for other in others {
        assert_eq!(hash(other.clone()).len(), 64);
        assert_ne!(hash(other), hash(alice()));
    }
}

#[test]
fn texts_are_masked_only_where_the_plan_says() {
    let texts = |request: &ExportTraceServiceRequest| {
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        let status = span.status.clone().unwrap_or_default().message;
        format!("{} | {} | {status}", span.name, span.events[0].name)
    };
    let told = |texts_of: Texts| {
        let masks = vec![mask(None, None, Some("4111"))];
        texts(&redacted(&Plan { masks, texts: texts_of, ..Plan::default() }, &request(Vec::new())))
    };
    let (span_names, event_names, status_messages) = (true, true, true);
    assert_eq!(told(Texts::default()), "GET 4111 | card 4111 | no 4111");
    assert_eq!(told(Texts { span_names, ..Texts::default() }), "GET **** | card 4111 | no 4111");
    assert_eq!(told(Texts { event_names, ..Texts::default() }), "GET 4111 | card **** | no 4111");
    assert_eq!(
        told(Texts { status_messages, ..Texts::default() }),
        "GET 4111 | card 4111 | no ****"
    );
}

#[test]
fn a_value_that_hides_behind_another_is_found() {
    // Of several members of a value the last counts, of several keys too.
    let plan = Plan { remove: words(&["card"]), ..Plan::default() };
    let redaction = Redaction::new(&plan, Hasher::default()).unwrap();
    let card = [&[0x0a, 4][..], b"card", &[0x12, 3, 0x0a, 1], b"4"].concat();
    let inner = [&[0x0a, card.len() as u8][..], &card].concat();
    let value = [&[0x0a, 1][..], b"s", &[0x32, inner.len() as u8], &inner].concat();
    let hidden = [&[0x0a, 1][..], b"k", &[0x12, value.len() as u8], &value].concat();
    let late_key = [&[0x12, 3, 0x0a, 1][..], b"4", &[0x0a, 1], b"k", &[0x0a, 4], b"card"].concat();
    for pair in [hidden, late_key] {
        let span = [&[0x4a, pair.len() as u8][..], &pair].concat();
        let mut out = Vec::new();
        redaction.span(&span, &mut out);
        let told = String::from_utf8_lossy(&out).into_owned();
        assert!(!told.contains('4') && !told.contains("card"), "{told:?}");
    }
}

#[test]
fn what_is_wrong_with_a_plan_is_told_with_its_place() {
    let long = "x".repeat(300);
    let masks = vec![
        mask(Some("a"), Some("b"), None),
        mask(None, None, None),
        mask(Some("a"), None, Some("(")),
        mask(None, None, Some("x*")),
        mask(Some(""), None, None),
    ];
    let plan = Plan { remove: words(&["", &long]), masks, ..Plan::default() };
    let problems = Redaction::new(&plan, Hasher::default()).unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected = [
        "remove[0]",
        "remove[1]",
        "mask[0]",
        "mask[1]",
        "mask[2].valuePattern",
        "mask[3].valuePattern",
        "mask[4].key",
    ];
    assert_eq!(fields, expected);
    let many = Plan { masks: vec![mask(Some("a"), None, None); 65], ..Plan::default() };
    assert_eq!(Redaction::new(&many, Hasher::default()).unwrap_err().len(), 1);
}

fn action(home: Home, key: &str, verb: Verb) -> Action {
    Action { home, key: key.to_owned(), verb }
}

#[test]
fn actions_are_done_one_after_the_other() {
    let given = |value: &str| Given::Text(value.to_owned());
    let span = |key: &str, verb| action(Home::Span, key, verb);
    type Case = (Vec<Action>, Vec<KeyValue>, Vec<KeyValue>);
    let cases: Vec<Case> = vec![
        (
            vec![span("a", Verb::Insert(given("1")))],
            vec![text("b", "2")],
            vec![text("b", "2"), text("a", "1")],
        ),
        (vec![span("a", Verb::Insert(given("1")))], vec![text("a", "2")], vec![text("a", "2")]),
        (vec![span("a", Verb::Update(given("1")))], vec![text("b", "2")], vec![text("b", "2")]),
        (
            vec![span("a", Verb::Update(Given::Int(-1)))],
            vec![text("a", "2"), text("b", "")],
            vec![pair("a", Value::IntValue(-1)), text("b", "")],
        ),
        (
            vec![span("a", Verb::Upsert(Given::Bool(true)))],
            vec![],
            vec![pair("a", Value::BoolValue(true))],
        ),
        (
            vec![span("a", Verb::Upsert(Given::Double(0.5)))],
            vec![text("a", "2")],
            vec![pair("a", Value::DoubleValue(0.5))],
        ),
        (
            vec![span("a", Verb::Delete)],
            vec![text("a", "1"), text("b", "2"), text("a", "3")],
            vec![text("b", "2")],
        ),
        (
            vec![span("a", Verb::Hash)],
            vec![text("a", "abc")],
            vec![text("a", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")],
        ),
        // A key that is there twice is there once afterwards.
        (
            vec![span("a", Verb::Update(given("x")))],
            vec![text("b", ""), text("a", "1"), text("a", "2")],
            vec![text("b", ""), text("a", "x")],
        ),
        (
            vec![span("a", Verb::Delete), span("a", Verb::Insert(given("x")))],
            vec![text("a", "1")],
            vec![text("a", "x")],
        ),
        (
            vec![action(Home::Resource, "a", Verb::Delete)],
            vec![text("a", "1")],
            vec![text("a", "1")],
        ),
    ];
    for (place, (actions, attributes, expected)) in cases.into_iter().enumerate() {
        let compiled = Actions::new(&actions, Hasher::default()).unwrap();
        let span = Span { trace_id: vec![1; 16], name: "n".into(), attributes, ..Span::default() };
        let (bytes, mut out) = (span.encode_to_vec(), Vec::new());
        compiled.span(&bytes, &mut out);
        assert_eq!(
            Span::decode(out.as_slice()).unwrap(),
            Span { attributes: expected, ..span },
            "case {place}"
        );
        assert!(out.len() as u64 <= bytes.len() as u64 + compiled.span_growth(), "case {place}");
    }
    assert!(Actions::new(&[action(Home::Span, "", Verb::Delete)], Hasher::default()).is_err());
}

#[test]
fn a_request_is_processed_in_order_and_its_growth_is_foreseen() {
    let processing = Processing {
        detected: Actions::detected(&[
            ("host.name".into(), "h".into()),
            ("service.name".into(), "no".into()),
        ]),
        filter: Some(
            Filter::new(&words(&[r#"resource.attributes["host.name"] == "h" and name == "drop""#]))
                .unwrap(),
        ),
        attributes: Actions::new(
            &[
                action(Home::Resource, "host.name", Verb::Hash),
                action(Home::Span, "team", Verb::Upsert(Given::Text("a".into()))),
            ],
            Hasher::default(),
        )
        .unwrap(),
    };
    let mut spans = request(vec![text("service.name", "shop")]);
    let dropped =
        Span { name: "drop".into(), ..spans.resource_spans[0].scope_spans[0].spans[0].clone() };
    spans.resource_spans[0].scope_spans[0].spans.push(dropped.clone());
    // A resource that is not there, all of whose spans go.
    spans.resource_spans.push(ResourceSpans {
        scope_spans: vec![ScopeSpans { spans: vec![dropped], ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    let bytes = spans.encode_to_vec();
    let shape = check(&bytes, &ScanLimits::default()).unwrap();
    let mut gather = Gather(Batch::new(), None);
    let mut processor = Processor::new(&processing, &mut gather);
    walk(&bytes, &shape, &mut processor).unwrap();
    assert_eq!(processor.done(), Done { filtered: 2, failures: 0 });
    let mut out = Vec::new();
    gather.0.encode(&mut out);
    let growth = processing.span_growth() + processing.resource_growth();
    assert!(out.len() as u64 <= bytes.len() as u64 + growth);
    let told = ExportTraceServiceRequest::decode(out.as_slice()).unwrap();
    assert_eq!(told.resource_spans.len(), 1);
    let resource = told.resource_spans[0].resource.clone().unwrap().attributes;
    assert_eq!(resource[0], text("service.name", "shop"));
    assert_eq!((resource.len(), resource[1].key.as_str()), (2, "host.name"));
    assert_eq!(told.resource_spans[0].scope_spans[0].spans[0].attributes[1], text("team", "a"));
}
