//! OTTLCondition policies on whole traces: which span or event has to meet a condition, and what becomes of
//! one that fails. What a condition says of a span is tested with the language.

use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::super::super::ast::ErrorMode;
use super::conformance::{Case, check, one, resource, trace, two_resources};
use super::*;

fn rule(span: &[&str], span_event: &[&str], error_mode: ErrorMode) -> Rule {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    Rule::OttlCondition { span: owned(span), span_event: owned(span_event), error_mode }
}

fn with_events(names: &[&str]) -> Span {
    let event = |name: &&str| Event { name: (*name).to_owned(), ..Event::default() };
    Span { name: "s".to_owned(), events: names.iter().map(event).collect(), ..Span::default() }
}

fn named(name: &str) -> Span {
    Span { name: name.to_owned(), ..Span::default() }
}

#[test]
fn any_span_or_event_is_enough() {
    let spans = rule(&[r#"name == "a""#, r#"attributes["k"] == 5"#], &[], ErrorMode::Silent);
    let both = r#"resource.attributes["k"] == "v" and name == "a""#;
    let of_one_span = rule(&[both], &[], ErrorMode::Silent);
    let piece = |value: &str, spans| Piece::new(vec![attribute("k", text(value))], spans);
    let cases: Vec<Case<'_>> = vec![
        ("no span", vec![], false),
        ("no condition holds", trace(vec![named("b")]), false),
        ("the first condition", trace(vec![named("a")]), true),
        ("the second condition", one("k", Any::IntValue(5)), true),
        ("another type", one("k", text("5")), false),
        ("the last span", trace(vec![named("b"), named("c"), named("a")]), true),
        ("the second resource", two_resources(named("b"), named("a")), true),
        ("an attribute of the resource is not the span's", resource("k", Any::IntValue(5)), false),
        ("an event is no span", trace(vec![with_events(&["a"])]), false),
    ];
    check(&spans, cases);
    let cases: Vec<Case<'_>> = vec![
        ("no span", vec![], false),
        ("resource and span", vec![piece("v", vec![named("a")])], true),
        ("only the span", vec![piece("w", vec![named("a")])], false),
        ("only the resource", vec![piece("v", vec![named("b")])], false),
        ("one each", vec![piece("v", vec![named("b")]), piece("w", vec![named("a")])], false),
        ("second span", vec![piece("v", vec![named("b"), named("a")])], true),
        ("without a resource", trace(vec![named("a")]), false),
        ("resource without spans", vec![piece("v", vec![])], false),
    ];
    check(&of_one_span, cases);
    let events = rule(&[], &[r#"name == "exception""#], ErrorMode::Silent);
    let cases: Vec<Case<'_>> = vec![
        ("no span", vec![], false),
        ("no event", trace(vec![named("exception")]), false),
        ("the event", trace(vec![with_events(&["exception"])]), true),
        ("another event", trace(vec![with_events(&["retry"])]), false),
        ("the last event", trace(vec![with_events(&["retry", "exception"])]), true),
        ("the last span", trace(vec![named("b"), with_events(&["exception"])]), true),
        ("second resource", two_resources(named("b"), with_events(&["exception"])), true),
        ("all others", trace(vec![with_events(&["a", "b"]), with_events(&["c"])]), false),
    ];
    check(&events, cases);
    let either = rule(&[r#"name == "a""#], &[r#"name == "a""#], ErrorMode::Silent);
    let cases: Vec<Case<'_>> = vec![
        ("neither", trace(vec![with_events(&["b"])]), false),
        ("the span", trace(vec![named("a")]), true),
        ("the event", trace(vec![with_events(&["a"])]), true),
        ("both", trace(vec![named("a"), with_events(&["a"])]), true),
        ("neither of two", trace(vec![named("b"), with_events(&["b"])]), false),
        ("no span", vec![], false),
        ("empty span", trace(vec![span(&[])]), false),
        ("second resource", two_resources(named("b"), named("a")), true),
    ];
    check(&either, cases);
}

#[test]
fn a_condition_that_fails_does_not_hold_or_spoils_the_policy() {
    let conditions = [r#"HasPrefix(attributes["k"], "v")"#, r#"name == "a""#];
    let fails = || span(&[("k", Any::IntValue(1))]);
    let holds = || span(&[("k", text("value"))]);
    let differs = || span(&[("k", text("other"))]);
    let traces = || {
        [
            ("no span", vec![]),
            ("holds", trace(vec![holds()])),
            ("does not hold", trace(vec![differs()])),
            ("fails", trace(vec![fails()])),
            ("fails, the other holds", trace(vec![Span { name: "a".into(), ..fails() }])),
            ("holds, then fails", trace(vec![holds(), fails()])),
            ("fails, then holds", trace(vec![fails(), holds()])),
            ("fails in the second resource", two_resources(holds(), fails())),
        ]
    };
    let with = |expected: [bool; 8]| -> Vec<Case<'static>> {
        let cases = traces().into_iter().zip(expected);
        cases.map(|((what, trace), expected)| (what, trace, expected)).collect()
    };
    for mode in [ErrorMode::Silent, ErrorMode::Ignore] {
        let expected = [false, true, false, false, true, true, true, true];
        check(&rule(&conditions, &[], mode), with(expected));
    }
    let expected = [false, true, false, false, false, false, false, false];
    check(&rule(&conditions, &[], ErrorMode::Propagate), with(expected));
}

#[test]
fn failures_are_counted_unless_silent() {
    let condition = r#"HasPrefix(attributes["k"], "v")"#;
    for (mode, expected) in
        [(ErrorMode::Silent, 0), (ErrorMode::Ignore, 2), (ErrorMode::Propagate, 1)]
    {
        let twice = rule(&[condition, &format!("not {condition}")], &[], mode);
        let program = compile(&[policy("it", twice)]).unwrap();
        assert!(program.asks_conditions());
        let group = Group { resource: Headers::whole(&[]), scope: Headers::whole(&[]) };
        let asked = program.ask(&group, &span(&[]).encode_to_vec(), 0);
        assert_eq!(asked.failures, expected, "{mode:?}");
    }
    let none = compile(&[policy("all", Rule::AlwaysSample)]).unwrap();
    assert!(!none.asks_conditions());
}
