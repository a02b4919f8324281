//! What the compiler refuses, with the place and the words, and what it accepts.

use super::super::ast::{Status, SubPolicy};
use super::*;

fn policy(name: &str, rule: Rule) -> Policy {
    Policy { name: name.to_owned(), role: Role::Vote, rule }
}

fn part(name: &str, rule: Rule) -> Policy {
    Policy { role: Role::Part, ..policy(name, rule) }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn and(policies: &[&str]) -> Rule {
    Rule::And { policies: names(policies) }
}

fn or(policies: &[&str]) -> Rule {
    Rule::Or { policies: names(policies) }
}

fn not(policy: &str) -> Rule {
    Rule::Not { policy: policy.to_owned() }
}

fn drop_when(policies: &[&str]) -> Rule {
    Rule::Drop { policies: names(policies) }
}

fn strings(key: &str, values: &[&str], regex: bool) -> Rule {
    Rule::StringAttribute { key: key.to_owned(), values: names(values), regex, invert_match: false }
}

fn number(key: &str, min_value: Option<i64>, max_value: Option<i64>) -> Rule {
    Rule::NumericAttribute { key: key.to_owned(), min_value, max_value, invert_match: false }
}

fn latency(threshold_ms: u64, upper_threshold_ms: Option<u64>) -> Rule {
    Rule::Latency { threshold_ms, upper_threshold_ms }
}

fn probability(sampling_percentage: f64) -> Rule {
    Rule::Probabilistic { sampling_percentage, hash_salt: String::new() }
}

/// The problems as lines; an empty list means that the policies compile.
fn problems(policies: &[Policy]) -> Vec<String> {
    match compile(policies) {
        Ok(program) => {
            assert_eq!(program.names().len(), policies.len());
            Vec::new()
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().map(ToString::to_string).collect()
        }
    }
}

/// Each rule, put beside a policy that votes, has exactly these problems.
fn check(rule: Rule, expected: &[&str]) {
    let policies = [policy("all", Rule::AlwaysSample), policy("it", rule.clone())];
    let expected: Vec<String> = expected.iter().map(|e| format!("policies[1].{e}")).collect();
    assert_eq!(problems(&policies), expected, "{rule:?}");
}

#[test]
fn rules_that_say_nothing_wrong_compile() {
    let good = [
        Rule::AlwaysSample,
        Rule::StatusCode { codes: vec![Status::Error, Status::Error] },
        latency(0, None),
        latency(5, Some(6)),
        probability(0.0),
        probability(100.0),
        strings("k", &["a", "a"], false),
        strings("k", &["^a$", "(?i)b"], true),
        number("k", Some(0), None),
        number("k", None, Some(0)),
        number("k", Some(7), Some(7)),
        and(&["all"]),
        or(&["all"]),
        not("all"),
        drop_when(&["all"]),
    ];
    for rule in good {
        check(rule, &[]);
    }
}

#[test]
fn each_wrong_rule_is_told_where_and_why() {
    check(
        Rule::StatusCode { codes: Vec::new() },
        &["statusCode.statusCodes: is empty: name at least one status code"],
    );
    let no_trace =
        "latency.upperThreshold: 5 ms is not above the threshold of 5 ms, so no trace would match";
    check(latency(5, Some(5)), &[no_trace]);
    check(
        latency(0, Some(0)),
        &[
            "latency.upperThreshold: 0 ms is not above the threshold of 0 ms, so no trace would match",
        ],
    );
    for (percentage, text) in
        [(-0.1, "-0.1"), (100.1, "100.1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")]
    {
        let expected = format!("probabilistic.samplingPercentage: {text} is not between 0 and 100");
        check(probability(percentage), &[&expected]);
    }
    let long = Rule::Probabilistic { sampling_percentage: 1.0, hash_salt: "x".repeat(257) };
    check(long, &["probabilistic.hashSalt: has 257 bytes, at most 256 are possible"]);
    check(
        number("", None, None),
        &[
            "numericAttribute.key: is empty",
            "numericAttribute: has neither minValue nor maxValue: give at least one",
        ],
    );
    check(
        number("k", Some(3), Some(-3)),
        &["numericAttribute.maxValue: -3 is below the minValue 3, so no trace would match"],
    );
    check(
        number(&"k".repeat(257), Some(3), None),
        &["numericAttribute.key: has 257 bytes, at most 256 are possible"],
    );
}

#[test]
fn each_wrong_container_is_told_where_and_why() {
    check(and(&[]), &["and.policies: is empty: name at least one policy"]);
    check(or(&[]), &["or.policies: is empty: name at least one policy"]);
    check(drop_when(&[]), &["drop.policies: is empty: name at least one policy"]);
    check(not(""), &["not.policy: no policy is named \"\""]);
    check(and(&["all", "other"]), &["and.policies[1]: no policy is named \"other\""]);
    check(or(&["all", "all"]), &["or.policies[1]: \"all\" is named twice"]);
    check(not("it"), &["not.policy: names the policy itself"]);
    check(drop_when(&["it", "all"]), &["drop.policies[0]: names the policy itself"]);
}

#[test]
fn each_wrong_string_value_is_told_where_and_why() {
    check(strings("k", &[], true), &["stringAttribute.values: is empty: name at least one value"]);
    check(
        strings("", &["a", ""], false),
        &[
            "stringAttribute.key: is empty",
            "stringAttribute.values[1]: is empty and would match no span: leave it out",
        ],
    );
    check(
        strings("k", &["", "a(", "ok", r"\p{L}{1000}"], true),
        &[
            "stringAttribute.values[0]: is empty and would match every value: write \".*\" if that is meant",
            "stringAttribute.values[1]: not a regular expression: unclosed group",
            "stringAttribute.values[3]: compiles to more than 1048576 bytes: shorten counted repetitions \
             or Unicode classes",
        ],
    );
    check(
        strings("k", &[r"\p{L}{20}"; 64], true),
        &[
            "stringAttribute.values: together, compiles to more than 1048576 bytes: shorten counted \
           repetitions or Unicode classes",
        ],
    );
    check(
        strings("k", &["v"; 129], false),
        &["stringAttribute.values: has 129 values, at most 128 are possible"],
    );
    let long = "x".repeat(513);
    for regex in [false, true] {
        let expected = "stringAttribute.values[0]: has 513 bytes, at most 512 are possible";
        check(strings("k", &[&long], regex), &[expected]);
    }
}

#[test]
fn names_must_tell_policies_apart() {
    let all = || Rule::AlwaysSample;
    let list =
        [policy("a", all()), policy("", all()), policy("a", all()), policy(&"n".repeat(64), all())];
    assert_eq!(
        problems(&list),
        [
            "policies[1].name: is empty",
            "policies[2].name: \"a\" is the name of policies[0] too",
            "policies[3].name: has 64 bytes, at most 63 are possible",
        ]
    );
}

#[test]
fn somebody_must_vote() {
    let nobody = "policies: no policy votes to keep a trace, so none would be kept: add one with the \
                  role Vote";
    assert_eq!(problems(&[]), [nobody]);
    let parts = [part("a", Rule::AlwaysSample), policy("d", drop_when(&["a"]))];
    assert_eq!(problems(&parts), [nobody]);
}

#[test]
fn a_part_must_be_named_and_a_drop_is_never_one() {
    let list = [
        policy("all", Rule::AlwaysSample),
        part("used", Rule::AlwaysSample),
        part("unused", Rule::AlwaysSample),
        policy("not", not("used")),
        part("drop", drop_when(&["all"])),
    ];
    assert_eq!(
        problems(&list),
        [
            "policies[2].role: has no effect: no container names this Part; name it in one, or give it \
             the role Vote",
            "policies[4].role: a Drop policy acts by itself: leave its role out",
        ]
    );
}

#[test]
fn containers_nest_freely_but_for_drops_and_cycles() {
    let nested = [
        policy("deep", and(&["either", "neither"])),
        policy("either", or(&["a", "neither"])),
        part("neither", not("a")),
        part("a", Rule::AlwaysSample),
        policy("away", drop_when(&["deep", "a"])),
    ];
    assert_eq!(problems(&nested), [""; 0]);

    let list = [
        policy("all", Rule::AlwaysSample),
        policy("away", drop_when(&["all"])),
        policy("and", and(&["all", "away"])),
        policy("not", not("away")),
        policy("drop", drop_when(&["away"])),
    ];
    let refused = "\"away\" is a Drop policy, which no other may name: name what it names";
    assert_eq!(
        problems(&list),
        [
            format!("policies[2].and.policies[1]: {refused}"),
            format!("policies[3].not.policy: {refused}"),
            format!("policies[4].drop.policies[0]: {refused}"),
        ]
    );
}

#[test]
fn every_reference_that_closes_a_cycle_is_reported() {
    let list = [
        policy("outside", and(&["a"])),
        policy("a", or(&["leaf", "b"])),
        policy("b", not("c")),
        policy("c", and(&["a", "b", "leaf"])),
        policy("leaf", Rule::AlwaysSample),
        policy("x", not("y")),
        policy("y", not("x")),
    ];
    assert_eq!(
        problems(&list),
        [
            "policies[3].and.policies[0]: closes a cycle: a -> b -> c -> a",
            "policies[3].and.policies[1]: closes a cycle: b -> c -> b",
            "policies[6].not.policy: closes a cycle: x -> y -> x",
        ]
    );
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_list() {
    let list = [
        part("a", latency(2, Some(1))),
        policy("a", and(&["none", "cycle"])),
        part("cycle", not("cycle")),
        policy("p", probability(101.0)),
    ];
    let found = compile(&list).unwrap_err();
    let places: Vec<(Option<usize>, &str)> =
        found.iter().map(|problem| (problem.policy, problem.field.as_str())).collect();
    assert_eq!(
        places,
        [
            (Some(0), "latency.upperThreshold"),
            (Some(0), "role"),
            (Some(1), "name"),
            (Some(1), "and.policies[0]"),
            (Some(2), "not.policy"),
            (Some(3), "probabilistic.samplingPercentage"),
        ]
    );
}

#[test]
fn sixty_four_policies_are_possible_and_no_more() {
    let list = |count: usize| -> Vec<Policy> {
        (0..count)
            .map(|n| policy(&format!("p{n}"), number(&format!("k{n}"), Some(0), None)))
            .collect()
    };
    let program = compile(&list(64)).unwrap();
    assert_eq!(program.votes, u64::MAX);
    assert_eq!(problems(&list(65)), ["policies: 65 policies, at most 64 are possible"]);
    // A chain too deep to follow is refused before it is followed.
    let chain: Vec<Policy> =
        (0..2_000).map(|n| policy(&format!("p{n}"), not(&format!("p{}", n + 1)))).collect();
    assert_eq!(problems(&chain), ["policies: 2000 policies, at most 64 are possible"]);
}

#[test]
fn a_chain_of_sixty_four_compiles() {
    let chain: Vec<Policy> = (0..64)
        .map(|n| match n {
            63 => policy("p63", Rule::AlwaysSample),
            n => policy(&format!("p{n}"), not(&format!("p{}", n + 1))),
        })
        .collect();
    let program = compile(&chain).unwrap();
    let facts = crate::facts::TraceFacts::new([1; 16]);
    assert_eq!(program.decide(&facts).matched, 0xaaaa_aaaa_aaaa_aaaa);
}

#[test]
fn policies_that_ask_the_same_share_a_bit() {
    let list = [
        policy("a", strings("k", &["x", "y"], false)),
        policy("b", strings("k", &["y", "x", "y"], false)),
        policy("c", strings("k", &["x", "y"], true)),
        policy("d", number("k", Some(1), None)),
        policy("e", number("k", Some(1), Some(i64::MAX))),
        policy("f", strings("j", &["x", "y"], false)),
    ];
    let program = compile(&list).unwrap();
    let bits: Vec<u64> = program
        .steps
        .iter()
        .map(|step| match step.question {
            Question::Predicate { bit, .. } => bit,
            _ => 0,
        })
        .collect();
    assert_eq!(bits, [1, 1, 2, 4, 4, 8]);
}

#[test]
fn settings_of_bools_counts_and_states_are_checked() {
    let boolean = |key: &str| Rule::BooleanAttribute {
        key: key.to_owned(),
        value: true,
        invert_match: false,
    };
    let count = |min_spans, max_spans| Rule::SpanCount { min_spans, max_spans };
    let state = |key: &str, values: &[&str]| Rule::TraceState {
        key: key.to_owned(),
        values: names(values),
    };
    check(boolean("hit"), &[]);
    check(boolean(""), &["booleanAttribute.key: is empty"]);
    check(
        boolean(&"k".repeat(257)),
        &["booleanAttribute.key: has 257 bytes, at most 256 are possible"],
    );
    check(count(Some(1), None), &[]);
    check(count(None, Some(1)), &[]);
    check(count(Some(3), Some(3)), &[]);
    check(count(None, None), &["spanCount: has neither minSpans nor maxSpans: give at least one"]);
    check(
        count(Some(4), Some(3)),
        &["spanCount.maxSpans: 3 is below the minSpans 4, so no trace would match"],
    );
    check(
        count(None, Some(0)),
        &["spanCount.maxSpans: no trace has 0 spans; leave it out for no limit"],
    );
    check(Rule::TraceFlags, &[]);
    check(state("vendor", &["a"]), &[]);
    check(state("tenant@vendor", &["a b"]), &[]);
    check(state("vendor", &[]), &["traceState.values: is empty: name at least one value"]);
    let no_key = "traceState.key: \"Vendor\" is no key of a W3C trace state: lower-case letters, digits \
                  and _-*/, beginning with a letter, such as vendor or tenant@vendor";
    check(state("Vendor", &["a"]), &[no_key]);
    let no_value = "traceState.values[1]: can be no value in a W3C trace state: 1 to 256 printable ASCII \
                    characters without comma and equals sign, no space at the end";
    for value in ["", "a,b", "a=b", "a ", "\u{e9}", &"v".repeat(257)] {
        check(state("vendor", &["a", value]), &[no_value]);
    }
}

#[test]
fn conditions_are_checked() {
    let conditions = |span: &[&str], span_event: &[&str]| Rule::OttlCondition {
        span: names(span),
        span_event: names(span_event),
        error_mode: ErrorMode::Propagate,
    };
    check(conditions(&["kind == 2"], &["name == \"x\""]), &[]);
    let none = "ottlCondition: has no condition: give at least one under span or spanEvent";
    check(conditions(&[], &[]), &[none]);
    check(
        conditions(&["kind == 2", "kind = 2"], &["name"]),
        &[
            "ottlCondition.span[1]: line 1, column 6: '=' compares nothing: write '==': kind >>> = 2",
            "ottlCondition.spanEvent[0]: line 1, column 1: a value alone is no condition: compare it, for \
             example with == true: >>> name",
        ],
    );
    let many = vec!["true"; 33];
    check(conditions(&many, &[]), &["ottlCondition: has 33 conditions, at most 32 are possible"]);
    let long = format!("name == \"{}\"", "x".repeat(2048));
    let too_long = "ottlCondition.span[0]: has 2058 bytes, at most 2048 are possible";
    check(conditions(&[&long], &[]), &[too_long]);
    let patterns = vec!["IsMatch(name, \"a\")"; 17];
    let too_many =
        "ottlCondition: calls IsMatch 17 times, at most 16 are possible: join patterns with |";
    check(conditions(&patterns, &[]), &[too_many]);
    let large = "IsMatch(name, \"\\\\p{L}{1000}\")";
    let too_large = "ottlCondition.span[0]: line 1, column 15: compiles to more than 1048576 bytes: shorten \
                     counted repetitions or Unicode classes: IsMatch(name, >>> \"\\\\p{L}{1000}\")";
    check(conditions(&[large], &[]), &[too_large]);
}

#[test]
fn a_list_asks_at_most_64_questions_of_spans() {
    let condition = |place: usize| Rule::OttlCondition {
        span: vec![format!("kind == {place}")],
        span_event: Vec::new(),
        error_mode: ErrorMode::Propagate,
    };
    let list = |count: usize| -> Vec<Policy> {
        (0..count).map(|place| policy(&format!("p{place}"), condition(place))).collect()
    };
    assert_eq!(problems(&list(32)), Vec::<String>::new());
    assert_eq!(
        problems(&list(33)),
        [
            "policies: the policies ask 66 questions of spans, at most 64 are possible: an OTTLCondition \
          with errorMode Propagate counts twice"
        ]
    );
}

fn rate(spans_per_second: u64, burst_capacity: Option<u64>) -> Rule {
    Rule::RateLimiting { spans_per_second, burst_capacity }
}

fn composite(parts: &[(&str, Option<u32>)], order: &[&str]) -> Rule {
    let part = |(policy, percent): &(&str, Option<u32>)| SubPolicy {
        policy: (*policy).to_owned(),
        rate_allocation_percent: *percent,
    };
    Rule::Composite {
        max_total_spans_per_second: 100,
        sub_policies: parts.iter().map(part).collect(),
        policy_order: names(order),
    }
}

#[test]
fn budgets_are_checked() {
    let bytes =
        |bytes_per_second, burst_capacity| Rule::BytesLimiting { bytes_per_second, burst_capacity };
    check(rate(1, None), &[]);
    check(rate(0, None), &["rateLimiting.spansPerSecond: 0 is not from 1 to 1000000000000"]);
    check(rate(1, Some(0)), &["rateLimiting.burstCapacity: 0 is not from 1 to 1000000000000"]);
    check(bytes(1 << 20, Some(1)), &[]);
    check(
        bytes(u64::MAX, Some(0)),
        &[
            "bytesLimiting.bytesPerSecond: 18446744073709551615 is not from 1 to 1000000000000",
            "bytesLimiting.burstCapacity: 0 is not from 1 to 1000000000000",
        ],
    );
    check(composite(&[("all", Some(100))], &[]), &[]);
    check(composite(&[("all", None)], &["all"]), &[]);
    check(composite(&[], &[]), &["composite.subPolicies: is empty: name at least one policy"]);
    let share = "composite.subPolicies[0].rateAllocation: 0 percent is not from 1 to 100";
    check(composite(&[("all", Some(0))], &[]), &[share]);
    check(
        composite(&[("al", None)], &[]),
        &["composite.subPolicies[0].policy: no policy is named \"al\""],
    );
    check(
        composite(&[("it", None)], &[]),
        &["composite.subPolicies[0].policy: names the policy itself"],
    );
    check(
        composite(&[("all", None), ("all", None)], &[]),
        &["composite.subPolicies[1].policy: \"all\" is named twice"],
    );
    check(
        composite(&[("all", None)], &["all", "some", "all"]),
        &[
            "composite.policyOrder[1]: \"some\" is not among the subPolicies",
            "composite.policyOrder[2]: \"all\" is named twice",
        ],
    );
    let list = |rule| {
        let other = part("other", Rule::AlwaysSample);
        problems(&[policy("all", Rule::AlwaysSample), other, policy("it", rule)])
    };
    assert_eq!(
        list(composite(&[("all", Some(60)), ("other", Some(50))], &["all"])),
        [
            "policies[2].composite.subPolicies: the shares are 110 percent together, at most \
             100 are possible",
            "policies[2].composite.policyOrder: \"other\" is missing: name all subPolicies, or none",
        ]
    );
}

#[test]
fn nothing_is_the_contrary_of_a_budget() {
    let message = |name: &str| {
        format!(
            "\"{name}\" has a budget or names a policy that has one; a budget keeps traces, and nothing \
             can be said of those that it has no room for"
        )
    };
    let list = [
        policy("all", Rule::AlwaysSample),
        policy("no", not("inner")),
        part("inner", and(&["all", "limit"])),
        part("limit", rate(1, None)),
        policy("out", drop_when(&["all", "limit"])),
        policy("fine", or(&["inner", "all"])),
        policy("shared", composite(&[("inner", None), ("fine", None)], &[])),
    ];
    assert_eq!(
        problems(&list),
        [
            format!("policies[1].not.policy: {}", message("inner")),
            format!("policies[4].drop.policies[1]: {}", message("limit")),
        ]
    );
}
