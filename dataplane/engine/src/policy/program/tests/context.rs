//! Tables for the policies on bools, counts, trace states and trace flags: at least twenty cases each, with
//! the Collector's answers but for the differences that `docs/policies.md` lists.

use super::conformance::{Case, check, one, resource, trace, two_resources};
use super::*;

/// Tables of one policy type with different settings.
fn check_tables(tables: Vec<(Rule, Vec<Case<'_>>)>) {
    let cases: usize = tables.iter().map(|(_, cases)| cases.len()).sum();
    assert!(cases >= 20, "{cases} cases");
    for (rule, cases) in tables {
        check(&rule, cases);
    }
}

fn yes() -> Any {
    Any::BoolValue(true)
}

fn no() -> Any {
    Any::BoolValue(false)
}

fn array(value: Any) -> Any {
    Any::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(value) }] })
}

#[test]
fn boolean_attribute() {
    let rule =
        |value, invert_match| Rule::BooleanAttribute { key: "hit".into(), value, invert_match };
    let both = || trace(vec![span(&[("hit", yes()), ("hit", no())])]);
    let hit_and_miss = || trace(vec![span(&[("hit", no())]), span(&[("hit", yes())])]);
    check_tables(vec![
        (
            rule(true, false),
            vec![
                ("true", one("hit", yes()), true),
                ("false", one("hit", no()), false),
                ("missing", one("other", yes()), false),
                ("no attribute", trace(vec![span(&[])]), false),
                ("no span", vec![], false),
                ("on the resource", resource("hit", yes()), true),
                ("false on the resource", resource("hit", no()), false),
                ("text", one("hit", text("true")), false),
                ("one", one("hit", Any::IntValue(1)), false),
                ("in a list", one("hit", array(yes())), false),
                ("one span of two", hit_and_miss(), true),
                ("in the second resource", two_resources(span(&[]), span(&[("hit", yes())])), true),
                ("twice: the first counts", both(), true),
                ("longer key", one("hits", yes()), false),
            ],
        ),
        (
            rule(false, false),
            vec![
                ("false", one("hit", no()), true),
                ("true", one("hit", yes()), false),
                ("missing", one("other", no()), false),
                ("text is not false", one("hit", text("x")), false),
                ("zero is not false", one("hit", Any::IntValue(0)), false),
                ("false on the resource", resource("hit", no()), true),
                ("twice: the first counts", both(), false),
                ("one span of two", hit_and_miss(), true),
            ],
        ),
        (
            rule(true, true),
            vec![
                ("true", one("hit", yes()), false),
                ("false", one("hit", no()), true),
                ("missing", one("other", yes()), true),
                ("no span", vec![], true),
                ("text", one("hit", text("true")), true),
                ("one span of two", hit_and_miss(), false),
                ("true on the resource", resource("hit", yes()), false),
                ("false on the resource", resource("hit", no()), true),
            ],
        ),
    ]);
}

#[test]
fn span_count() {
    let rule = |min_spans, max_spans| Rule::SpanCount { min_spans, max_spans };
    let spans = |count: usize| trace(vec![span(&[]); count]);
    let scattered = |count: usize| -> Vec<Piece> {
        (0..count).map(|_| Piece::new(Vec::new(), vec![span(&[])])).collect()
    };
    check_tables(vec![
        (
            rule(Some(3), None),
            vec![
                ("none", spans(0), false),
                ("one", spans(1), false),
                ("one too few", spans(2), false),
                ("exactly", spans(3), true),
                ("one more", spans(4), true),
                ("many", spans(500), true),
                ("over resources", scattered(3), true),
                ("too few over resources", scattered(2), false),
            ],
        ),
        (
            rule(None, Some(2)),
            vec![
                ("none", spans(0), true),
                ("one", spans(1), true),
                ("exactly", spans(2), true),
                ("one too many", spans(3), false),
                ("many", spans(500), false),
                ("over resources", scattered(2), true),
                ("too many over resources", scattered(3), false),
                ("a resource without spans", vec![Piece::new(vec![], vec![])], true),
            ],
        ),
        (
            rule(Some(2), Some(3)),
            vec![
                ("none", spans(0), false),
                ("below", spans(1), false),
                ("lower bound", spans(2), true),
                ("upper bound", spans(3), true),
                ("above", spans(4), false),
                ("over resources", scattered(3), true),
                ("above over resources", scattered(4), false),
                ("far above", spans(99), false),
            ],
        ),
    ]);
}

fn with_state(state: &str) -> Span {
    Span { trace_state: state.to_owned(), ..Span::default() }
}

#[test]
fn trace_state() {
    let state = |state: &str| trace(vec![with_state(state)]);
    let values = vec!["gold".to_owned(), "silver".to_owned()];
    let rule = Rule::TraceState { key: "tier".into(), values };
    let other_on_resource = resource("tier", text("gold"));
    check_tables(vec![(
        rule,
        vec![
            ("none", state(""), false),
            ("no span", vec![], false),
            ("the value", state("tier=gold"), true),
            ("the other value", state("tier=silver"), true),
            ("another value", state("tier=lead"), false),
            ("a longer value", state("tier=golden"), false),
            ("another key", state("rank=gold"), false),
            ("a longer key", state("tiers=gold"), false),
            ("first of two members", state("tier=gold,a=1"), true),
            ("last of two members", state("a=1,tier=gold"), true),
            ("spaces around members", state("a=1 ,\ttier=gold "), true),
            ("empty members", state(",,tier=gold,"), true),
            ("capital letters", state("tier=Gold"), false),
            ("a capital key breaks the list", state("tier=gold,A=1"), false),
            ("no equals sign breaks the list", state("tier=gold,a"), false),
            ("two equals signs break the list", state("tier=gold,a=b=c"), false),
            ("a repeated key breaks the list", state("tier=gold,tier=lead"), false),
            ("an empty value breaks the list", state("tier=gold,a="), false),
            ("a tenant", state("acme@tier=gold"), false),
            ("beside a tenant", state("acme@sys=1,tier=gold"), true),
            ("second span", trace(vec![span(&[]), with_state("tier=gold")]), true),
            ("in the second resource", two_resources(span(&[]), with_state("tier=gold")), true),
            ("one broken, one whole", trace(vec![with_state("?"), with_state("tier=gold")]), true),
            ("an attribute of that name", one("tier", text("gold")), false),
            ("an attribute of the resource", other_on_resource, false),
        ],
    )]);
}

#[test]
fn trace_flags() {
    let flags = |flags: u32| Span { flags, ..Span::default() };
    let one_span = |bits| trace(vec![flags(bits)]);
    check_tables(vec![(
        Rule::TraceFlags,
        vec![
            ("none", trace(vec![span(&[])]), false),
            ("no span", vec![], false),
            ("zero", one_span(0), false),
            ("sampled", one_span(1), true),
            ("random", one_span(2), false),
            ("sampled and random", one_span(3), true),
            ("an unknown bit", one_span(4), false),
            ("all but sampled", one_span(0xfe), false),
            ("all", one_span(0xff), true),
            ("parent is known", one_span(0x100), false),
            ("parent is remote", one_span(0x300), false),
            ("parent is remote, sampled", one_span(0x301), true),
            ("highest bit", one_span(0x8000_0000), false),
            ("every bit", one_span(u32::MAX), true),
            ("first of two", trace(vec![flags(1), flags(0)]), true),
            ("last of two", trace(vec![flags(0), flags(1)]), true),
            ("neither of two", trace(vec![flags(2), flags(0x300)]), false),
            ("in the second resource", two_resources(flags(0), flags(1)), true),
            ("in no resource", two_resources(flags(0), flags(2)), false),
            ("an attribute of that name", one("flags", Any::IntValue(1)), false),
            ("an attribute of the resource", resource("flags", Any::IntValue(1)), false),
        ],
    )]);
}
