//! Notes: the policy and its part, how likely a trace was kept, and whose note it is.

use super::*;
use crate::policy::{Occasion, Policy, Role, Rule, Status, SubPolicy, compile};

const EVERYTHING: Records = Records { policy: true, threshold: true };

fn policy(name: &str, rule: Rule) -> Policy {
    Policy { name: name.to_owned(), role: Role::Vote, rule }
}

fn share(name: &str, percentage: f64, salt: &str) -> Policy {
    let hash_salt = salt.to_owned();
    policy(name, Rule::Probabilistic { sampling_percentage: percentage, hash_salt })
}

fn errors() -> Policy {
    policy("errors", Rule::StatusCode { codes: vec![Status::Error] })
}

fn program(policies: &[Policy]) -> Program {
    compile(policies).unwrap().recording(EVERYTHING)
}

/// A trace that a hash of 50 % keeps, and its facts.
fn facts(program: &Program, error: bool, state: &str) -> TraceFacts {
    let id = (1_u128..)
        .map(|n| (n << 64 | 0xff_ffff_ffff_ffff).to_be_bytes())
        .find(|id| program.probabilities().all(|known| known.keeps(&TraceFacts::new(*id))));
    let mut facts = TraceFacts::new(id.unwrap());
    facts.spans = 1;
    facts.statuses = if error { Status::Error.bit() } else { 1 };
    facts.drawn = program.drawn(state.as_bytes());
    facts
}

fn mark(program: &Program, facts: &TraceFacts) -> Mark {
    let (verdict, receipt) = program.decide_within(facts, Occasion { now: 0, members: 1 });
    assert!(verdict.keep);
    program.mark(program.note(&verdict, &receipt, facts), false).unwrap()
}

type Check = Box<dyn Fn(Chance) -> bool>;

fn hashed(wanted: u64) -> Check {
    Box::new(move |chance| matches!(chance, Chance::Hashed { least, .. } if least == wanted))
}

fn is(wanted: Chance) -> Check {
    Box::new(move |chance| chance == wanted)
}

#[test]
fn how_likely_a_trace_was_kept_is_told_where_it_is_known() {
    let not =
        |name: &str, policy_name: &str| policy(name, Rule::Not { policy: policy_name.to_owned() });
    let part = |policy: Policy| Policy { role: Role::Part, ..policy };
    let rate = policy("rate", Rule::RateLimiting { spans_per_second: 5, burst_capacity: None });
    let half = 1 << 55;
    let ten = 0xe6_6666_6666_6666;
    let all = policy("all", Rule::AlwaysSample);
    let cases: Vec<(Vec<Policy>, bool, &str, Check)> = vec![
        (vec![share("half", 50.0, "")], false, "", hashed(half)),
        (vec![share("half", 50.0, ""), errors()], true, "", is(Chance::Always)),
        (vec![share("half", 50.0, ""), errors()], false, "", hashed(half)),
        // The more generous one is what kept it.
        (vec![share("ten", 10.0, ""), share("half", 50.0, "")], false, "", hashed(half)),
        (vec![share("all", 100.0, "")], false, "", is(Chance::Always)),
        (vec![all], false, "", is(Chance::Always)),
        // Salts are independent of each other.
        (vec![share("a", 50.0, "a"), share("b", 50.0, "b")], false, "", is(Chance::Unknown)),
        (
            vec![share("a", 50.0, "a"), share("b", 50.0, "b"), errors()],
            true,
            "",
            is(Chance::Always),
        ),
        // But not where the trace state draws.
        (
            vec![share("a", 10.0, "a"), share("b", 50.0, "b")],
            false,
            "ot=rv:f0000000000000",
            is(Chance::Drawn { least: half }),
        ),
        (vec![share("ten", 10.0, "")], false, "ot=th:8", is(Chance::Drawn { least: ten })),
        // What a budget leaves is not known beforehand.
        (vec![share("half", 50.0, ""), rate.clone()], false, "", is(Chance::Unknown)),
        (vec![errors(), rate], true, "", is(Chance::Always)),
        // Kept when the hash is above: no threshold says that.
        (
            vec![part(share("half", 50.0, "")), not("rest", "half"), share("x", 10.0, "")],
            false,
            "ot=rv:f0000000000000",
            is(Chance::Unknown),
        ),
    ];
    for (place, (policies, error, state, expected)) in cases.into_iter().enumerate() {
        let program = program(&policies);
        let chance = mark(&program, &facts(&program, error, state)).chance.unwrap();
        assert!(expected(chance), "case {place}: {chance:?}");
    }
}

#[test]
fn randomness_that_spans_agree_on_decides() {
    let program = program(&[share("half", 50.0, "")]);
    let kept = |state: &str, id: u128| {
        let mut facts = TraceFacts::new(id.to_be_bytes());
        facts.drawn = program.drawn(state.as_bytes());
        program.decide(&facts).keep
    };
    assert!(kept("ot=rv:80000000000000", 1) && !kept("ot=rv:7fffffffffffff", 1));
    // The ID's last 56 bits, when a threshold says that sampling is by randomness.
    assert!(kept("ot=th:4", 0x80_0000_0000_0000) && !kept("ot=th:4", 0x7f_ffff_ffff_ffff));
    // Without the record, the Collector's hash alone.
    let plain = compile(&[share("half", 50.0, "")]).unwrap();
    for id in 1..50_u128 {
        let facts = TraceFacts::new(id.to_be_bytes());
        assert_eq!(program.decide(&facts).keep, plain.decide(&facts).keep);
        let span = [&[0x1a, 20][..], b"ot=rv:80000000000000"].concat();
        assert_eq!(plain.span_facts(&span).drawn, 0);
        assert_ne!(program.span_facts(&span).drawn, 0);
    }
}

#[test]
fn the_policy_and_its_part_are_named_and_a_note_of_others_is_not_misread() {
    let part = |policy: Policy| Policy { role: Role::Part, ..policy };
    let sub = |name: &str| SubPolicy { policy: name.to_owned(), rate_allocation_percent: None };
    let composite = policy(
        "budget",
        Rule::Composite {
            max_total_spans_per_second: 100,
            sub_policies: vec![sub("slow"), sub("errors")],
            policy_order: Vec::new(),
        },
    );
    let slow = policy("slow", Rule::Latency { threshold_ms: 500, upper_threshold_ms: None });
    let first = program(&[part(slow), part(errors()), composite]);
    let trace = facts(&first, true, "");
    let told = mark(&first, &trace);
    assert_eq!(told.policy.as_deref(), Some("budget"));
    assert_eq!(told.part.as_deref(), Some("errors"));
    let (verdict, receipt) = first.decide_within(&trace, Occasion { now: 0, members: 1 });
    let note = first.note(&verdict, &receipt, &trace);
    assert_eq!(Program::policy_of(note), Some(2));
    assert!(note < 1 << 29, "there is room for it in what is remembered");
    assert!(first.mark(note, true).unwrap().late);
    assert_eq!(program(&[errors()]).mark(note, false), None);
    // A program that records nothing says what programs always said.
    let plain = compile(&[errors()]).unwrap();
    let (verdict, receipt) = plain.decide_within(&trace, Occasion { now: 0, members: 1 });
    assert_eq!(plain.note(&verdict, &receipt, &trace), 1);
    assert_eq!(first.mark(1, false), None);
}
