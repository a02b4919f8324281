//! Tables of traces and verdicts, at least twenty cases a policy type, with the Collector's answers but for
//! the differences that `docs/policies.md` lists.

use super::*;

/// What the trace is, the trace, whether the policy keeps it.
pub(super) type Case<'a> = (&'a str, Vec<Piece>, bool);

/// The verdicts of one policy, alone in its list.
pub(super) fn check(rule: &Rule, cases: Vec<Case<'_>>) {
    assert!(cases.len() >= 8, "{} cases", cases.len());
    for (what, trace, expected) in cases {
        let verdict = judge(&[policy("it", rule.clone())], &trace);
        assert_eq!(verdict.keep, expected, "{what}: {rule:?}");
        assert_eq!(verdict.policy, expected.then_some(0), "{what}: {rule:?}");
    }
}

/// A trace of one resource without attributes.
pub(super) fn trace(spans: Vec<Span>) -> Vec<Piece> {
    vec![Piece::new(Vec::new(), spans)]
}

/// A trace of a span each in two resources.
pub(super) fn two_resources(first: Span, second: Span) -> Vec<Piece> {
    vec![Piece::new(Vec::new(), vec![first]), Piece::new(Vec::new(), vec![second])]
}

/// A trace of a single span with one attribute.
pub(super) fn one(key: &str, value: Any) -> Vec<Piece> {
    trace(vec![span(&[(key, value)])])
}

/// A trace whose resource has one attribute and whose span has none.
pub(super) fn resource(key: &str, value: Any) -> Vec<Piece> {
    vec![Piece::new(vec![attribute(key, value)], vec![span(&[])])]
}

#[test]
fn always_sample() {
    let strange = Piece { headers: vec![], spans: vec![vec![0xff; 9]] };
    let cases = vec![
        ("no span", vec![], true),
        ("empty span", trace(vec![span(&[])]), true),
        ("two spans", trace(vec![span(&[]), span(&[])]), true),
        ("attribute", one("k", text("v")), true),
        ("resource", resource("k", text("v")), true),
        ("error", trace(vec![with_status(2)]), true),
        ("times", trace(vec![timed(1, 2)]), true),
        ("no times", trace(vec![timed(0, 0)]), true),
        ("end before start", trace(vec![timed(2, 1)]), true),
        ("unset", trace(vec![with_status(0)]), true),
        ("ok", trace(vec![with_status(1)]), true),
        ("unknown status", trace(vec![with_status(9)]), true),
        ("two resources", two_resources(span(&[]), with_status(2)), true),
        ("a number", one("k", Any::IntValue(-1)), true),
        ("a list", one("k", Any::ArrayValue(ArrayValue::default())), true),
        ("a key without a name", one("", text("v")), true),
        ("a number on the resource", resource("k", Any::IntValue(7)), true),
        ("many spans", trace(vec![span(&[]); 300]), true),
        ("a resource without spans", vec![Piece::new(vec![], vec![])], true),
        ("bytes that are no span", vec![strange], true),
    ];
    check(&Rule::AlwaysSample, cases);
}

fn with_status(code: i32) -> Span {
    Span { status: Some(SpanStatus { code, ..SpanStatus::default() }), ..Span::default() }
}

#[test]
fn status_code() {
    let none = Span::default;
    let error = Rule::StatusCode { codes: vec![Status::Error] };
    let cases = vec![
        ("none", trace(vec![none()]), false),
        ("unset", trace(vec![with_status(0)]), false),
        ("ok", trace(vec![with_status(1)]), false),
        ("error", trace(vec![with_status(2)]), true),
        ("first of three", trace(vec![with_status(2), with_status(1), none()]), true),
        ("last of three", trace(vec![none(), with_status(1), with_status(2)]), true),
        ("in the second resource", two_resources(none(), with_status(2)), true),
        ("unknown code", trace(vec![with_status(7)]), false),
        ("negative code", trace(vec![with_status(-1)]), false),
        ("no span", vec![], false),
        ("an attribute of that name", one("status.code", Any::IntValue(2)), false),
        ("error and unknown", trace(vec![with_status(2), with_status(9)]), true),
        ("one of many", trace([vec![none(); 50], vec![with_status(2)]].concat()), true),
    ];
    check(&error, cases);
    let ok_or_unset = Rule::StatusCode { codes: vec![Status::Ok, Status::Unset] };
    let cases = vec![
        ("none", trace(vec![none()]), true),
        ("unset", trace(vec![with_status(0)]), true),
        ("ok", trace(vec![with_status(1)]), true),
        ("error", trace(vec![with_status(2)]), false),
        ("error and ok", trace(vec![with_status(2), with_status(1)]), true),
        ("errors", trace(vec![with_status(2), with_status(2)]), false),
        ("unknown code", trace(vec![with_status(7)]), false),
        ("unknown code and none", trace(vec![with_status(7), none()]), true),
    ];
    check(&ok_or_unset, cases);
}

const MS: u64 = 1_000_000;

/// A span with these times in nanoseconds.
fn timed(start: u64, end: u64) -> Span {
    Span { start_time_unix_nano: start, end_time_unix_nano: end, ..Span::default() }
}

/// A span with these times in milliseconds after some moment.
fn timed_ms(start: u64, end: u64) -> Span {
    timed((1000 + start) * MS, (1000 + end) * MS)
}

#[test]
fn latency_without_upper_bound() {
    let rule = Rule::Latency { threshold_ms: 100, upper_threshold_ms: None };
    let cases = vec![
        ("shorter", trace(vec![timed_ms(0, 99)]), false),
        ("exactly the threshold", trace(vec![timed_ms(0, 100)]), false),
        ("less than a millisecond over", trace(vec![timed(MS, 102 * MS - 1)]), false),
        ("a millisecond over", trace(vec![timed_ms(0, 101)]), true),
        ("two spans together", trace(vec![timed_ms(0, 60), timed_ms(50, 110)]), true),
        ("a gap counts", trace(vec![timed_ms(0, 1), timed_ms(200, 201)]), true),
        ("any order", trace(vec![timed_ms(200, 201), timed_ms(0, 1)]), true),
        ("across resources", two_resources(timed_ms(0, 1), timed_ms(150, 151)), true),
        ("end before start", trace(vec![timed_ms(500, 0)]), false),
        ("no start", trace(vec![timed(0, 5000 * MS)]), false),
        ("no end", trace(vec![timed(5000 * MS, 0)]), false),
        ("one start of two", trace(vec![timed(0, 5000 * MS), timed(4999 * MS, 4999 * MS)]), false),
        ("a year", trace(vec![timed_ms(0, 365 * 86_400_000)]), true),
        ("no span", vec![], false),
    ];
    check(&rule, cases);
}

#[test]
fn latency_above_zero() {
    let zero = Rule::Latency { threshold_ms: 0, upper_threshold_ms: None };
    let cases = vec![
        ("nothing", trace(vec![timed_ms(5, 5)]), false),
        ("less than a millisecond", trace(vec![timed(MS, 2 * MS - 1)]), false),
        ("a millisecond", trace(vec![timed(MS, 2 * MS)]), true),
        ("one and a half", trace(vec![timed(2 * MS, 7 * MS / 2)]), true),
        ("end before start", trace(vec![timed_ms(2, 1)]), false),
        ("no times", trace(vec![span(&[])]), false),
        ("two instants apart", trace(vec![timed_ms(1, 1), timed_ms(3, 3)]), true),
        ("two instants together", trace(vec![timed_ms(1, 1), timed_ms(1, 1)]), false),
    ];
    check(&zero, cases);
}

#[test]
fn latency_with_upper_bound() {
    let rule = Rule::Latency { threshold_ms: 100, upper_threshold_ms: Some(200) };
    let cases = vec![
        ("shorter", trace(vec![timed_ms(0, 99)]), false),
        ("lower bound", trace(vec![timed_ms(0, 100)]), false),
        ("above it", trace(vec![timed_ms(0, 101)]), true),
        ("between", trace(vec![timed_ms(0, 150)]), true),
        ("upper bound", trace(vec![timed_ms(0, 200)]), true),
        ("less than a millisecond above it", trace(vec![timed(MS, 202 * MS - 1)]), true),
        ("a millisecond above it", trace(vec![timed_ms(0, 201)]), false),
        ("only a prefix lies between", trace(vec![timed_ms(0, 150), timed_ms(0, 900)]), false),
        ("the same in the other order", trace(vec![timed_ms(0, 900), timed_ms(0, 150)]), false),
    ];
    check(&rule, cases);
}

#[test]
fn probabilistic() {
    // The hashes of these IDs with the default salt are these shares of 2^64.
    let ids: [(u128, f64); 4] = [
        (0x0000_0000_0000_0000_0000_0000_0000_0001, 0.881_183),
        (0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 0.858_633),
        (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0.645_587),
        (0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, 0.092_755),
    ];
    for percentage in [0.0, 0.1, 1.0, 9.27, 9.28, 10.0, 33.3, 50.0, 64.6, 86.0, 88.2, 99.9, 100.0] {
        for salt in ["", "default-hash-seed"] {
            let rule =
                Rule::Probabilistic { sampling_percentage: percentage, hash_salt: salt.into() };
            let program = compile(&[policy("it", rule)]).unwrap();
            for (id, share) in ids {
                let verdict = program.decide(&TraceFacts::new(id.to_be_bytes()));
                assert_eq!(
                    verdict.keep,
                    share * 100.0 <= percentage,
                    "{id:032x} at {percentage} %"
                );
            }
        }
    }
}

fn strings(values: &[&str], regex: bool, invert_match: bool) -> Rule {
    Rule::StringAttribute { key: "k".into(), values: named(values), regex, invert_match }
}

#[test]
fn string_attribute_with_exact_values() {
    let both = |on_resource, on_span| {
        vec![Piece::new(
            vec![attribute("k", text(on_resource))],
            vec![span(&[("k", text(on_span))])],
        )]
    };
    let repeated = |first, second| trace(vec![span(&[("k", text(first)), ("k", text(second))])]);
    let cases = |hit: bool| {
        vec![
            ("a value", one("k", text("a")), hit),
            ("another value", one("k", text("longer value")), hit),
            ("no value", one("k", text("b")), !hit),
            ("a part of a value", one("k", text("longer")), !hit),
            ("other case", one("k", text("A")), !hit),
            ("another key", one("j", text("a")), !hit),
            ("a longer key", one("kk", text("a")), !hit),
            ("on the resource", resource("k", text("a")), hit),
            ("other value on the resource", resource("k", text("b")), !hit),
            ("empty on the span", one("k", text("")), !hit),
            ("an integer", one("k", Any::IntValue(1)), !hit),
            ("a list", one("k", Any::ArrayValue(ArrayValue::default())), !hit),
            ("in the second span", trace(vec![span(&[]), span(&[("k", text("a"))])]), hit),
            ("after others", trace(vec![span(&[("x", text("a")), ("k", text("a"))])]), hit),
            ("the second of a key", repeated("b", "a"), !hit),
            ("the first of a key", repeated("a", "b"), hit),
            ("on the span though not on the resource", both("b", "a"), hit),
            ("on the resource though not on the span", both("a", "b"), hit),
            ("nothing", trace(vec![span(&[])]), !hit),
        ]
    };
    check(&strings(&["a", "longer value"], false, false), cases(true));
    check(&strings(&["a", "longer value"], false, true), cases(false));
}

#[test]
fn string_attribute_with_patterns() {
    let two =
        |first, second| trace(vec![span(&[("k", text(first))]), span(&[("k", text(second))])]);
    let cases = |hit: bool| {
        vec![
            ("found in the middle", one("k", text("/v1/checkout/7")), hit),
            ("alone", one("k", text("checkout")), hit),
            ("the other pattern", one("k", text("GET")), hit),
            ("the other pattern, not at the start", one("k", text(" GET")), !hit),
            ("not found", one("k", text("/v1/cart")), !hit),
            ("other case", one("k", text("CHECKOUT")), !hit),
            ("empty on the span", one("k", text("")), !hit),
            ("on the resource", resource("k", text("checkout")), hit),
            ("an integer", one("k", Any::IntValue(7)), !hit),
            ("another key", one("j", text("checkout")), !hit),
            ("in one of two spans", two("x", "GET x"), hit),
        ]
    };
    check(&strings(&["check.ut", "^GET"], true, false), cases(true));
    check(&strings(&["check.ut", "^GET"], true, true), cases(false));
}

#[test]
fn a_pattern_that_finds_the_empty_string() {
    let cases = vec![
        ("empty on the span", one("k", text("")), false),
        ("empty on the resource", resource("k", text("")), true),
        ("text on the span", one("k", text("x")), true),
        ("text on the resource", resource("k", text("x")), true),
        ("an integer on the span", one("k", Any::IntValue(7)), false),
        ("an integer on the resource", resource("k", Any::IntValue(7)), false),
        ("a flag on the resource", resource("k", Any::BoolValue(true)), false),
        ("another key", resource("j", text("")), false),
    ];
    check(&strings(&["^.*$"], true, false), cases);
}

fn numbers(min_value: Option<i64>, max_value: Option<i64>, invert_match: bool) -> Rule {
    Rule::NumericAttribute { key: "k".into(), min_value, max_value, invert_match }
}

#[test]
fn numeric_attribute() {
    let int = Any::IntValue;
    let two = |first, second| trace(vec![span(&[("k", int(first))]), span(&[("k", int(second))])]);
    let cases = |hit: bool| {
        vec![
            ("below", one("k", int(9)), !hit),
            ("the minimum", one("k", int(10)), hit),
            ("between", one("k", int(15)), hit),
            ("the maximum", one("k", int(20)), hit),
            ("above", one("k", int(21)), !hit),
            ("negative", one("k", int(-15)), !hit),
            ("a string", one("k", text("15")), !hit),
            ("a double", one("k", Any::DoubleValue(15.0)), !hit),
            ("a flag", one("k", Any::BoolValue(true)), !hit),
            ("another key", one("j", int(15)), !hit),
            ("on the resource", resource("k", int(15)), hit),
            ("in the second span", two(9, 11), hit),
            ("nothing", trace(vec![span(&[])]), !hit),
        ]
    };
    check(&numbers(Some(10), Some(20), false), cases(true));
    check(&numbers(Some(10), Some(20), true), cases(false));
}

#[test]
fn numeric_attribute_with_one_bound() {
    let int = Any::IntValue;
    let unset = KeyValue { key: "k".into(), ..KeyValue::default() };
    let unset = Span { attributes: vec![unset], ..Span::default() };
    let cases = vec![
        ("least", one("k", int(i64::MIN)), true),
        ("negative", one("k", int(-1)), true),
        ("zero", one("k", int(0)), true),
        ("one", one("k", int(1)), false),
        ("most", one("k", int(i64::MAX)), false),
        ("a string is no zero", one("k", text("abc")), false),
        ("a double is no zero", one("k", Any::DoubleValue(0.0)), false),
        ("a string on the resource is no zero", resource("k", text("abc")), false),
        ("a value that is not set is no zero", trace(vec![unset]), false),
    ];
    check(&numbers(None, Some(0), false), cases);
    let cases = vec![
        ("least", one("k", int(i64::MIN)), false),
        ("negative", one("k", int(-1)), false),
        ("zero", one("k", int(0)), true),
        ("one", one("k", int(1)), true),
        ("most", one("k", int(i64::MAX)), true),
        ("a string is no zero", one("k", text("abc")), false),
        ("a list is no zero", one("k", Any::ArrayValue(ArrayValue::default())), false),
        ("nothing", trace(vec![span(&[])]), false),
    ];
    check(&numbers(Some(0), None, false), cases);
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn and(names: &[&str]) -> Rule {
    Rule::And { policies: named(names) }
}

fn or(names: &[&str]) -> Rule {
    Rule::Or { policies: named(names) }
}

fn not(name: &str) -> Rule {
    Rule::Not { policy: name.to_owned() }
}

fn drop_when(names: &[&str]) -> Rule {
    Rule::Drop { policies: named(names) }
}

/// Two attribute tests, the parts `a` and `b` at places 0 and 1, and containers after them; those whose
/// name begins with an underscore are parts too.
fn with_parts(containers: &[(&str, Rule)]) -> Vec<Policy> {
    let leaf = |name: &str| {
        let values = vec!["yes".to_owned()];
        let rule =
            Rule::StringAttribute { key: name.into(), values, regex: false, invert_match: false };
        Policy { role: Role::Part, ..policy(name, rule) }
    };
    let container = |(name, rule): &(&str, Rule)| {
        let role = if name.starts_with('_') { Role::Part } else { Role::Vote };
        Policy { role, ..policy(name, rule.clone()) }
    };
    [leaf("a"), leaf("b")].into_iter().chain(containers.iter().map(container)).collect()
}

/// Whether the containers keep traces in which neither, only `a`, only `b` and both are true, each told by
/// one span and by several.
fn check_containers(containers: &[(&str, Rule)], expected: [bool; 4]) {
    let list = with_parts(containers);
    for (place, expected) in expected.into_iter().enumerate() {
        let say = |set| text(if set { "yes" } else { "no" });
        let (a, b) = (say(place & 1 != 0), say(place & 2 != 0));
        let together = trace(vec![span(&[("a", a.clone()), ("b", b.clone())])]);
        let apart = trace(vec![span(&[("a", a)]), span(&[]), span(&[("b", b)])]);
        for trace in [together, apart] {
            assert_eq!(judge(&list, &trace).keep, expected, "case {place} of {containers:?}");
        }
    }
}

#[test]
fn and_or_not() {
    check_containers(&[("and", and(&["a", "b"]))], [false, false, false, true]);
    check_containers(&[("or", or(&["a", "b"]))], [false, true, true, true]);
    check_containers(&[("not", not("_or")), ("_or", or(&["a", "b"]))], [true, false, false, false]);
    check_containers(
        &[("nand", not("_and")), ("_and", and(&["a", "b"]))],
        [true, true, true, false],
    );
    let difference = [("difference", and(&["a", "_not"])), ("_not", not("b"))];
    check_containers(&difference, [false, true, false, false]);
    let xor = [
        ("xor", and(&["_or", "_nand"])),
        ("_or", or(&["a", "b"])),
        ("_nand", not("_and")),
        ("_and", and(&["a", "b"])),
    ];
    check_containers(&xor, [false, true, true, false]);
    let same = [
        ("same", not("_xor")),
        ("_xor", xor[0].1.clone()),
        xor[1].clone(),
        xor[2].clone(),
        xor[3].clone(),
    ];
    check_containers(&same, [true, false, false, true]);
    // Several votes: one yes is enough.
    check_containers(&[("x", and(&["a", "b"])), ("y", not("b"))], [true, true, false, true]);
    check_containers(&[("x", or(&["a"])), ("y", or(&["b"]))], [false, true, true, true]);
}

#[test]
fn drop_goes_first_wherever_it_stands() {
    let all = ("all", Rule::AlwaysSample);
    check_containers(&[all.clone(), ("drop", drop_when(&["a", "b"]))], [true, true, true, false]);
    check_containers(&[("drop", drop_when(&["a", "b"])), all.clone()], [true, true, true, false]);
    let either = ("_or", or(&["a", "b"]));
    check_containers(
        &[all.clone(), ("drop", drop_when(&["_or"])), either.clone()],
        [true, false, false, false],
    );
    let two = [("drop a", drop_when(&["a"])), ("drop b", drop_when(&["b"])), all.clone()];
    check_containers(&two, [true, false, false, false]);
    check_containers(
        &[("drop", drop_when(&["a"])), ("b?", or(&["b"]))],
        [false, false, true, false],
    );
    check_containers(
        &[("drop", drop_when(&["all"])), all.clone(), either.clone(), ("or", or(&["_or"]))],
        [false; 4],
    );
    let neither = [("drop", drop_when(&["_none"])), ("_none", not("_or")), either, all];
    check_containers(&neither, [false, true, true, true]);
    // A drop that does not match says nothing about keeping.
    check_containers(
        &[("drop", drop_when(&["a", "b"])), ("a?", or(&["a"]))],
        [false, true, false, false],
    );
}

#[test]
fn parts_have_no_vote_of_their_own() {
    let list =
        |role| [Policy { role, ..policy("in", Rule::AlwaysSample) }, policy("out", not("in"))];
    assert!(!judge(&list(Role::Part), &one("a", text("yes"))).keep);
    assert!(judge(&list(Role::Vote), &one("a", text("yes"))).keep);
}

#[test]
fn a_decision_is_attributed_to_the_drop_or_else_to_the_first_vote() {
    let yes = trace(vec![span(&[("a", text("yes")), ("b", text("yes"))])]);
    let no = trace(vec![span(&[])]);
    let all = ("all", Rule::AlwaysSample);
    let kept = |policy, matched| Verdict { keep: true, policy: Some(policy), matched, changed: 0 };
    let dropped = |policy, matched| Verdict { keep: false, ..kept(policy, matched) };
    let check = |containers: &[(&str, Rule)], on_yes: Verdict, on_no: Verdict| {
        let list = with_parts(containers);
        assert_eq!(judge(&list, &yes), on_yes, "{containers:?}");
        assert_eq!(judge(&list, &no), on_no, "{containers:?}");
    };
    check(&[("x", or(&["a"])), ("y", or(&["b"]))], kept(2, 0b1100), Verdict::default());
    check(&[("x", or(&["a", "b"])), all.clone()], kept(2, 0b1100), kept(3, 0b1000));
    check(&[all.clone(), ("drop", drop_when(&["a", "b"]))], dropped(3, 0b1100), kept(2, 0b0100));
    let drops = [("drop b", drop_when(&["b"])), ("drop a", drop_when(&["a"])), ("none", not("a"))];
    check(&drops, dropped(2, 0b0_1100), kept(4, 0b1_0000));
    // The first vote names the second, which is evaluated before it and comes after it all the same.
    check(
        &[("late", or(&["early"])), ("early", or(&["a", "b"]))],
        kept(2, 0b1100),
        Verdict::default(),
    );
}

#[test]
fn a_shadow_changes_nothing_and_is_counted_where_it_would() {
    let list = |rules: Vec<(&str, Role, Rule)>| -> Vec<Policy> {
        let policies = rules.into_iter();
        let own = policies.map(|(name, role, rule)| Policy { role, ..policy(name, rule) });
        with_parts(&[("_either", or(&["a", "b"]))]).into_iter().chain(own).collect()
    };
    let (shadow, vote) = (Role::Shadow, Role::Vote);
    // For traces in which neither, only a, only b and both hold: kept, and what the shadows would change.
    let check = |rules: Vec<(&str, Role, Rule)>, expected: [(bool, u64); 4]| {
        let list = list(rules);
        for (place, (keep, changed)) in expected.into_iter().enumerate() {
            let say = |set| text(if set { "yes" } else { "no" });
            let (a, b) = (say(place & 1 != 0), say(place & 2 != 0));
            let verdict = judge(&list, &trace(vec![span(&[("a", a), ("b", b)])]));
            assert_eq!(
                (verdict.keep, verdict.changed),
                (keep, changed),
                "case {place} of {list:?}"
            );
            assert_eq!(verdict.matched & changed, changed);
            assert!(verdict.policy.is_none_or(|policy| list[usize::from(policy)].role == vote));
        }
    };
    // Places 3 and on, after a, b and _either.
    let used = ("used", vote, or(&["_either", "b"]));
    check(
        vec![
            ("v", vote, or(&["a"])),
            ("s", shadow, or(&["b"])),
            ("u", vote, and(&["_either", "a"])),
        ],
        [(false, 0), (true, 0), (false, 0b1_0000), (true, 0)],
    );
    check(
        vec![used.clone(), ("all", shadow, Rule::AlwaysSample)],
        [(false, 0b1_0000), (true, 0), (true, 0), (true, 0)],
    );
    check(
        vec![used.clone(), ("drop", shadow, drop_when(&["a"]))],
        [(false, 0), (true, 0b1_0000), (true, 0), (true, 0b1_0000)],
    );
    check(
        vec![
            used.clone(),
            ("drop b", vote, drop_when(&["b"])),
            ("drop a", shadow, drop_when(&["a"])),
            ("none", shadow, not("_either")),
            ("b?", shadow, or(&["b"])),
        ],
        [(false, 0b100_0000), (true, 0b10_0000), (false, 0), (false, 0)],
    );
    // Others may name a shadow: its answer is as good as any.
    check(
        vec![used, ("s", shadow, and(&["a", "b"])), ("not s", vote, not("s"))],
        [(true, 0), (true, 0), (true, 0), (true, 0)],
    );
}
