//! Budgets with injected time: which trace passes when, exactly; what is spent for whom; what a fleet shares.

use proptest::prelude::*;

use super::super::ast::{Policy, Role, Rule, Status, SubPolicy};
use super::super::compile;
use super::*;
use crate::Millis;

fn policy(name: &str, rule: Rule) -> Policy {
    Policy { name: name.to_owned(), role: Role::Vote, rule }
}

fn part(name: &str, rule: Rule) -> Policy {
    Policy { role: Role::Part, ..policy(name, rule) }
}

fn rate(spans_per_second: u64, burst_capacity: Option<u64>) -> Rule {
    Rule::RateLimiting { spans_per_second, burst_capacity }
}

fn bytes(bytes_per_second: u64, burst_capacity: Option<u64>) -> Rule {
    Rule::BytesLimiting { bytes_per_second, burst_capacity }
}

fn and(policies: &[&str]) -> Rule {
    Rule::And { policies: policies.iter().map(|&name| name.to_owned()).collect() }
}

fn composite(total: u64, parts: &[(&str, Option<u32>)], order: &[&str]) -> Rule {
    let part = |(policy, percent): &(&str, Option<u32>)| SubPolicy {
        policy: (*policy).to_owned(),
        rate_allocation_percent: *percent,
    };
    Rule::Composite {
        max_total_spans_per_second: total,
        sub_policies: parts.iter().map(part).collect(),
        policy_order: order.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// A trace of so many spans of ten bytes each; bit n of `kinds` makes it pass the part `k` + n below.
fn facts(spans: u32, kinds: u8) -> TraceFacts {
    let statuses = kinds;
    TraceFacts { spans, bytes: u64::from(spans) * 10, statuses, ..TraceFacts::new([1; 16]) }
}

/// Parts that pass traces of one kind each: the statuses stand for kinds.
fn kinds() -> [Policy; 3] {
    let kind = |code| Rule::StatusCode { codes: vec![code] };
    [part("k0", kind(Status::Unset)), part("k1", kind(Status::Ok)), part("k2", kind(Status::Error))]
}

fn at(now: Millis) -> Occasion {
    Occasion { now, members: 1 }
}

/// When a trace of so many spans comes, and whether it is kept.
type Step = (Millis, u32, bool);

fn check(rule: &Rule, members: u32, steps: &[Step]) {
    let program = compile(&[policy("it", rule.clone())]).unwrap();
    for (place, (now, spans, expected)) in steps.iter().enumerate() {
        let occasion = Occasion { now: *now, members };
        let (verdict, receipt) = program.decide_within(&facts(*spans, 0), occasion);
        assert_eq!(verdict.keep, *expected, "step {place} of {steps:?}: {rule:?}");
        assert_eq!(receipt.is_empty(), !expected);
        assert_eq!(verdict.policy, expected.then_some(0));
        assert_eq!(verdict.matched, u64::from(*expected));
    }
}

const YES: bool = true;
const NO: bool = false;

#[test]
fn rate_limiting() {
    // Starts full with twice the rate, and fills with time alone.
    check(
        &rate(10, None),
        1,
        &[
            (5_000, 20, YES),
            (5_000, 1, NO),
            (5_099, 1, NO),
            (5_100, 1, YES),
            (5_100, 1, NO),
            (5_200, 2, NO),
            (5_300, 2, YES),
            (6_300, 10, YES),
            (6_300, 1, NO),
            // No more is saved up than fits.
            (60_000, 20, YES),
            (60_000, 1, NO),
        ],
    );
    // The burst is as large as it is said to be.
    check(
        &rate(10, Some(3)),
        1,
        &[
            (0, 3, YES),
            (0, 1, NO),
            (100, 1, YES),
            (1_000, 3, YES),
            (1_000, 1, NO),
            (1_250, 3, NO),
            (1_299, 3, NO),
            (1_300, 3, YES),
        ],
    );
    // A trace larger than the burst passes when the bucket is full, and is paid for afterwards.
    check(
        &rate(10, Some(5)),
        1,
        &[
            (0, 25, YES),
            (1_000, 1, NO),
            (2_000, 1, NO),
            (2_099, 1, NO),
            (2_100, 1, YES),
            (2_500, 6, NO),
            (2_599, 6, NO),
            (2_600, 6, YES),
            (2_700, 1, NO),
            (2_799, 1, NO),
            (2_800, 1, YES),
        ],
    );
    // Clocks of shards differ a little: time that runs backwards brings nothing.
    check(
        &rate(10, Some(1)),
        1,
        &[(1_000, 1, YES), (1_100, 1, YES), (1_000, 1, NO), (1_150, 1, NO), (1_200, 1, YES)],
    );
    // A quarter of a span a second and at once: one passes, and is owed for four seconds. After three of
    // them there is nothing yet, after another one the bucket is full.
    check(
        &rate(1, Some(1)),
        4,
        &[
            (0, 1, YES),
            (3_000, 1, NO),
            (3_999, 1, NO),
            (4_000, 1, YES),
            (8_000, 1, YES),
            (11_999, 1, NO),
        ],
    );
}

#[test]
fn bytes_limiting() {
    // Each span has ten bytes.
    check(
        &bytes(100, None),
        1,
        &[
            (0, 20, YES),
            (0, 1, NO),
            (99, 1, NO),
            (100, 1, YES),
            (1_100, 10, YES),
            (1_100, 1, NO),
            (1_599, 5, NO),
            (1_600, 5, YES),
            (99_000, 20, YES),
            (99_000, 1, NO),
        ],
    );
    check(
        &bytes(1, Some(10)),
        1,
        &[
            (0, 1, YES),
            (0, 1, NO),
            (9_999, 1, NO),
            (10_000, 1, YES),
            (20_000, 1, YES),
            (20_001, 1, NO),
        ],
    );
    // A trace of 300 bytes against a burst of 100.
    check(
        &bytes(100, Some(100)),
        1,
        &[
            (0, 30, YES),
            (2_000, 1, NO),
            (2_099, 1, NO),
            (2_100, 1, YES),
            (3_100, 10, YES),
            (3_100, 1, NO),
        ],
    );
}

#[test]
fn a_fleet_keeps_as_much_as_one_gateway() {
    for members in [1_u32, 2, 3, 7, 40] {
        let list = [policy("it", rate(100, Some(40)))];
        let gateways: Vec<Program> = (0..members).map(|_| compile(&list).unwrap()).collect();
        let mut kept = 0;
        // More than the fleet may keep, to each gateway its part.
        for now in 0..60_000 {
            for program in &gateways {
                let (verdict, _) = program.decide_within(&facts(1, 0), Occasion { now, members });
                kept += u64::from(verdict.keep);
            }
        }
        // Sixty seconds and the burst; a gateway whose bucket is smaller than a trace owes the rest of it.
        let expected = 60 * 100 + 40;
        let slack = u64::from(members);
        assert!((expected - slack..=expected + slack).contains(&kept), "{members}: {kept}");
    }
}

#[test]
fn a_gateway_that_joins_takes_its_part_from_the_others() {
    let program = compile(&[policy("it", rate(100, None))]).unwrap();
    let keep = |now, members, spans| {
        program.decide_within(&facts(spans, 0), Occasion { now, members }).0.keep
    };
    assert!(keep(0, 1, 100), "100 of 200 are left");
    // Now two share 200: this one has room for 100, as much as it has left.
    assert!(keep(0, 2, 99));
    assert!(!keep(0, 2, 2));
    assert!(!keep(20, 2, 3), "a second brings 50");
    assert!(keep(40, 2, 3));
    assert!(keep(1_040, 1, 100), "alone again, a second brings 100");
    assert!(!keep(1_040, 1, 1));
}

#[test]
fn composites_go_on_to_the_next_part_and_lend_what_is_not_needed() {
    let list = |parts: &[(&str, Option<u32>)], order: &[&str]| {
        let [k0, k1, k2] = kinds();
        let mut list = vec![policy("it", composite(100, parts, order)), k0, k1, k2];
        list.retain(|p| p.name == "it" || parts.iter().any(|(name, _)| *name == p.name));
        compile(&list).unwrap()
    };
    // When, spans, kinds, whether it is kept.
    let run = |program: &Program, steps: &[(Millis, u32, u8, bool)]| {
        for (place, (now, spans, kinds, expected)) in steps.iter().enumerate() {
            let (verdict, _) = program.decide_within(&facts(*spans, *kinds), at(*now));
            assert_eq!(verdict.keep, *expected, "step {place} of {steps:?}");
        }
    };
    let halves = [("k0", Some(50)), ("k1", Some(50))];
    run(
        &list(&halves, &[]),
        &[
            (0, 50, 1, YES),
            // The first part has nothing left; the second has, for traces that it wants.
            (0, 1, 1, NO),
            (0, 10, 3, YES),
            (0, 40, 2, YES),
            (0, 1, 3, NO),
            (0, 1, 4, NO),
            (1_000, 1, 4, NO),
            // A second has brought 50 to each.
            (1_000, 50, 1, YES),
            (1_000, 1, 1, NO),
            (1_000, 50, 2, YES),
            (1_000, 1, 2, NO),
            // The second needs nothing in the third second: its bucket is full and lends the rest.
            (2_000, 50, 1, YES),
            (2_000, 1, 1, NO),
            (3_000, 100, 1, YES),
            (3_000, 1, 1, NO),
            // It still has its own.
            (3_000, 50, 2, YES),
            (3_000, 1, 2, NO),
            (4_000, 50, 2, YES),
            (4_000, 50, 1, YES),
            (4_000, 1, 3, NO),
        ],
    );
    // The order is that of policyOrder: a trace that both want is paid for by the first of it.
    run(
        &list(&halves, &["k1", "k0"]),
        &[(0, 50, 3, YES), (0, 1, 2, NO), (0, 50, 1, YES), (0, 1, 3, NO)],
    );
    // Parts without a share have equal parts of what is left.
    run(
        &list(&[("k0", Some(40)), ("k1", None), ("k2", None)], &[]),
        &[
            (0, 30, 2, YES),
            (0, 1, 2, NO),
            (0, 30, 4, YES),
            (0, 1, 4, NO),
            (0, 40, 1, YES),
            (0, 1, 7, NO),
            (1_000, 30, 4, YES),
            (1_000, 1, 4, NO),
        ],
    );
    // A part with no share at all lives on what others do not need.
    run(
        &list(&[("k0", Some(100)), ("k1", None)], &[]),
        &[
            (0, 1, 2, NO),
            (0, 100, 1, YES),
            (1_000, 1, 2, NO),
            (1_500, 50, 2, YES),
            (1_500, 1, 2, NO),
            (2_000, 50, 2, YES),
            (2_000, 1, 2, NO),
            (2_000, 100, 1, YES),
        ],
    );
    // What nobody has a share of is for whoever comes first.
    run(
        &list(&[("k0", Some(10)), ("k1", Some(10))], &[]),
        &[
            (0, 10, 1, YES),
            (0, 1, 1, NO),
            (500, 50, 1, YES),
            (500, 1, 1, NO),
            (1_000, 55, 2, YES),
            (1_000, 1, 2, NO),
        ],
    );
    // A trace larger than all there can be passes when its part is full. What it owes, the part gets back
    // with time, and from what the other lends.
    run(
        &list(&halves, &[]),
        &[
            (0, 150, 1, YES),
            (1_000, 1, 1, NO),
            (1_010, 1, 1, YES),
            (1_010, 1, 1, NO),
            (1_010, 50, 2, YES),
            (3_000, 50, 2, YES),
        ],
    );
}

#[test]
fn nothing_is_spent_for_what_goes_the_same_way_without_it() {
    let [unset, ok, error] = kinds();
    let list = [
        policy("limited", rate(10, Some(10))),
        policy("out", Rule::Drop { policies: vec!["k1".into()] }),
        Policy { role: Role::Vote, ..error },
        ok,
        policy("seldom", and(&["k0", "few"])),
        unset,
        part("few", rate(1, Some(3))),
    ];
    let program = compile(&list).unwrap();
    let verdict = |spans, kinds| program.decide_within(&facts(spans, kinds), at(0)).0;
    for _ in 0..5 {
        // Kept by another vote, dropped, both.
        assert_eq!(verdict(10, 4).policy, Some(2));
        assert_eq!(verdict(10, 2).policy, Some(1));
        assert_eq!(verdict(10, 6).policy, Some(1));
    }
    // The first vote in the list pays.
    assert_eq!(verdict(10, 1).policy, Some(0));
    assert_eq!(verdict(3, 1).policy, Some(4));
    assert_eq!(verdict(1, 1), Verdict::default());
    assert_eq!(verdict(1, 4).policy, Some(2));
}

#[test]
fn a_container_takes_from_all_its_budgets_or_from_none() {
    let list = [
        policy("both", and(&["spans", "bytes"])),
        part("spans", rate(10, Some(10))),
        part("bytes", bytes(10, Some(50))),
        policy("either", Rule::Or { policies: vec!["first".into(), "second".into()] }),
        part("first", rate(1, Some(2))),
        part("second", rate(1, Some(7))),
    ];
    let program = compile(&list).unwrap();
    let verdict = |spans| program.decide_within(&facts(spans, 0), at(0)).0.policy;
    assert_eq!(verdict(4), Some(0), "six spans and ten bytes are left");
    // Ten bytes are not enough: the spans are put back, and the next container pays, by its first.
    assert_eq!(verdict(6), Some(3));
    assert_eq!(verdict(2), Some(3), "its second has five of seven left");
    assert_eq!(verdict(1), Some(0), "the last ten bytes, and one of six spans");
    assert_eq!(verdict(1), Some(3));
    assert_eq!(verdict(4), Some(3), "the last of its second");
    assert_eq!(verdict(1), None);
}

#[test]
fn budgets_in_composites_are_asked_before_its_own() {
    let list = [
        policy("it", composite(10, &[("few", Some(50)), ("k0", Some(50))], &[])),
        part("few", and(&["k1", "bucket"])),
        part("bucket", rate(1, Some(2))),
    ];
    let list: Vec<Policy> = list.into_iter().chain(kinds().into_iter().take(2)).collect();
    let program = compile(&list).unwrap();
    let keep = |spans, kinds| program.decide_within(&facts(spans, kinds), at(0)).0.keep;
    assert!(keep(2, 2), "two of five, and both of the bucket");
    assert!(!keep(1, 2), "the bucket is empty");
    assert!(keep(5, 1));
    assert!(!keep(1, 3));
    assert!(!program.decide_within(&facts(2, 2), at(1_000)).0.keep, "it has one of two");
    assert!(program.decide_within(&facts(2, 2), at(2_000)).0.keep);
}

#[test]
fn what_is_put_back_can_be_taken_again() {
    let [unset, ok, _] = kinds();
    let halves = composite(10, &[("k0", Some(50)), ("k1", Some(50))], &[]);
    let list = [policy("it", halves), unset, ok, policy("rest", rate(1, Some(1)))];
    let program = compile(&list).unwrap();
    let mut receipts = Vec::new();
    for kinds in [1, 2, 1] {
        let (verdict, receipt) = program.decide_within(&facts(5, kinds), at(2_000));
        assert!(verdict.keep || kinds == 1);
        receipts.push(receipt);
    }
    for receipt in &receipts {
        program.refund(receipt);
    }
    for kinds in [1, 2] {
        assert_eq!(program.decide_within(&facts(5, kinds), at(2_000)).0.policy, Some(0));
    }
}

#[test]
fn a_reload_goes_on_with_budgets_that_are_the_same() {
    let [unset, ok, error] = kinds();
    let list = |limit: u64, total: u64| {
        let halves = composite(total, &[("k0", Some(50)), ("k1", Some(50))], &[]);
        [
            policy("limit", and(&["k2", "bucket"])),
            part("bucket", rate(limit, Some(10))),
            policy("it", halves),
            unset.clone(),
            ok.clone(),
            error.clone(),
        ]
    };
    let before = compile(&list(5, 10)).unwrap();
    let keep =
        |program: &Program, spans, kinds| program.decide_within(&facts(spans, kinds), at(0)).0.keep;
    assert!(keep(&before, 10, 4) && keep(&before, 5, 1));
    let mut moved: Vec<Policy> = list(5, 10).into_iter().rev().collect();
    moved.push(policy("more", Rule::Latency { threshold_ms: 1_000, upper_threshold_ms: None }));
    let mut after = compile(&moved).unwrap();
    after.adopt_budgets(&before);
    assert!(!keep(&after, 2, 4) && !keep(&after, 2, 1));
    assert!(keep(&after, 5, 2));
    // Both spend from the same until the traces of the first are decided.
    assert!(!keep(&before, 1, 2));
    let mut other = compile(&list(6, 20)).unwrap();
    other.adopt_budgets(&after);
    assert!(keep(&other, 10, 4) && keep(&other, 10, 1), "other settings are other budgets");
}

#[test]
fn budgets_say_nothing_without_an_occasion() {
    let program = compile(&[policy("it", rate(10, None))]).unwrap();
    assert!(program.has_budgets());
    assert_eq!(program.decide(&facts(1, 0)), Verdict::default());
    let plain = compile(&[policy("all", Rule::AlwaysSample)]).unwrap();
    assert!(!plain.has_budgets());
    assert_eq!(plain.decide_within(&facts(1, 0), at(0)).0.policy, Some(0));
}

proptest! {
    #[test]
    fn no_more_is_kept_than_time_has_brought(
        total in 1..200_u64,
        percents in prop::collection::vec(prop::option::of(1..33_u32), 3),
        members in 1..5_u32,
        steps in prop::collection::vec((0..400_u64, 1..60_u32, 1..8_u8), 1..200),
    ) {
        let [k0, k1, k2] = kinds();
        let parts = [("k0", percents[0]), ("k1", percents[1]), ("k2", percents[2])];
        let list = [policy("it", composite(total, &parts, &["k2", "k0", "k1"])), k0, k1, k2];
        let program = compile(&list).unwrap();
        let (mut now, mut kept, mut largest) = (0, 0_u64, 0_u64);
        for (wait, spans, kinds) in steps {
            now += wait;
            let occasion = Occasion { now, members };
            let (verdict, _) = program.decide_within(&facts(spans, kinds), occasion);
            if verdict.keep {
                kept += u64::from(spans);
                largest = largest.max(u64::from(spans));
            }
        }
        // What was there at the beginning and can be saved up, what time brought, and what the last of each
        // part may owe.
        let most = (total * 2 * 1_000 + total * now) / 1_000 / u64::from(members) + 4 * largest + 1;
        prop_assert!(kept <= most, "{kept} of {most}");
    }
}

#[test]
fn a_shadow_has_a_budget_of_its_own() {
    let shadow = |name: &str, rule| Policy { role: Role::Shadow, ..policy(name, rule) };
    let list = |budget: &str| {
        let [unset, ok, error] = kinds();
        [
            Policy { role: Role::Vote, ..error },
            policy("votes", and(&["k1", "few"])),
            shadow("would", and(&["k0", budget])),
            shadow("all", Rule::AlwaysSample),
            part("few", rate(1, Some(1))),
            part("more", rate(1, Some(2))),
            policy("unused", and(&["k1", "few"])),
            unset,
            ok,
        ]
    };
    let program = compile(
        &list("more")[..6].iter().cloned().chain(kinds().into_iter().take(2)).collect::<Vec<_>>(),
    );
    let program = program.unwrap();
    let verdict = |spans, kinds| program.decide_within(&facts(spans, kinds), at(0));
    // What is kept anyway takes nothing.
    assert_eq!(verdict(2, 5).0.changed, 0);
    let (first, receipt) = verdict(2, 1);
    assert_eq!((first.keep, first.policy, first.changed), (false, None, 0b1100));
    assert_eq!(verdict(2, 1).0.changed, 0b1000);
    program.refund(&receipt);
    assert_eq!(verdict(2, 1).0.changed, 0b1100);
    assert!(verdict(1, 2).0.keep, "the budget of the votes is untouched");
    let told = compile(&list("few")).unwrap_err();
    assert_eq!(
        told.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "policies[2].role: a Shadow takes from the budget of \"few\", which policies that vote take \
             from: give it one of its own",
            "policies[5].role: has no effect: no container names this Part; name it in one, or give it the \
             role Vote",
        ]
    );
}
