//! What kept spans tell of sampling: trace states with OpenTelemetry's member, and attributes of scopes.

use super::*;

/// The trace ID of the W3C's example; its last 56 bits are 0xce929d0e0e4736.
const ID: TraceId = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();

fn after(state: &str, chance: Chance) -> String {
    let told = told(state.as_bytes(), &ID, chance).unwrap_or_else(|| state.as_bytes().to_vec());
    String::from_utf8(told).unwrap()
}

/// A percentage as a threshold of the specification: `(1 - probability) * 2^56`.
const HALF: u64 = 1 << 55;
const QUARTER: u64 = 0xc0_0000_0000_0000;
const TENTH: u64 = 0xe6_6666_6666_6666;

#[test]
fn thresholds_are_written_and_merged_as_the_specification_says() {
    let drawn = |least| Chance::Drawn { least };
    let cases: [(&str, Chance, &str); 24] = [
        // The examples of the specification: 50 %, 25 %, 100 %.
        ("", drawn(HALF), "ot=th:8"),
        ("", drawn(QUARTER), "ot=th:c"),
        ("", Chance::Always, "ot=th:0"),
        ("ot=rv:d29d6a7215ced0", drawn(QUARTER), "ot=th:c;rv:d29d6a7215ced0"),
        ("ot=th:0", drawn(HALF), "ot=th:8"),
        // The more restrictive one counts.
        ("ot=th:c", drawn(HALF), "ot=th:c"),
        ("ot=th:8", drawn(QUARTER), "ot=th:c"),
        ("ot=th:8", Chance::Always, "ot=th:8"),
        // The trace ID's randomness is 0xce…, and 10 % keep from 0xe6… on: it was not kept by that.
        ("", drawn(TENTH), ""),
        ("ot=th:8", drawn(TENTH), ""),
        ("ot=rv:ffffffffffffff", drawn(TENTH), "ot=th:e6666666666666;rv:ffffffffffffff"),
        // It should not have come at all: nobody knows how likely it was.
        ("ot=th:d", drawn(HALF), ""),
        ("ot=th:d;rv:c0000000000000", Chance::Always, "ot=rv:c0000000000000"),
        // What is not known is not claimed.
        ("ot=th:8", Chance::Unknown, ""),
        ("ot=th:8;xy:1,a=b", Chance::Unknown, "ot=xy:1,a=b"),
        ("a=b", Chance::Unknown, "a=b"),
        ("ot=rv:d29d6a7215ced0", Chance::Unknown, "ot=rv:d29d6a7215ced0"),
        // The member moves to the front, others stay; parts that others wrote stay too.
        ("a=1,ot=th:0;x:y,b=2", drawn(HALF), "ot=th:8;x:y,a=1,b=2"),
        ("a=1 , b=2", drawn(HALF), "ot=th:8,a=1,b=2"),
        // What cannot be read of sampling is as good as unsaid.
        ("ot=th:C", drawn(HALF), "ot=th:8"),
        ("ot=th:", drawn(HALF), "ot=th:8"),
        ("ot=th:123456789012345", drawn(HALF), "ot=th:8"),
        ("ot=rv:12", drawn(HALF), "ot=th:8"),
        // A list that breaks the rules stays as it is.
        ("a=1,a=2", drawn(HALF), "a=1,a=2"),
    ];
    for (state, chance, expected) in cases {
        assert_eq!(after(state, chance), expected, "{state:?} {chance:?}");
    }
}

#[test]
fn a_hash_tells_the_randomness_that_it_stands_for() {
    let salt = 0xcbf2_9ce4_8422_2325;
    let value = hashed_randomness(salt, &ID);
    let hashed = Chance::Hashed { least: HALF, salt };
    assert_eq!(after("a=b", hashed), format!("ot=th:8;rv:{value:014x},a=b"));
    // A late span that others sampled by randomness: both chances together are of no single kind.
    assert_eq!(after("ot=th:4", hashed), "");
    assert_eq!(after("ot=rv:d29d6a7215ced0", hashed), "ot=rv:d29d6a7215ced0");
}

#[test]
fn the_limits_of_a_trace_state_are_kept() {
    let members =
        |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let full = after(&members(32), Chance::Always);
    assert_eq!(full, format!("ot=th:0,{}", members(31)));
    assert!(trace_state::find(full.as_bytes(), b"ot").is_ok());
    // No room for th beside what others wrote: nothing is told.
    let long = format!("ot=x:{}", "y".repeat(250));
    assert_eq!(after(&long, Chance::Always), long);
    let room = format!("ot=x:{}", "y".repeat(249));
    assert_eq!(after(&room, Chance::Always), format!("ot=th:0;x:{}", "y".repeat(249)));
}

#[test]
fn a_span_gets_its_trace_state_and_keeps_everything_else() {
    let mark = Mark { chance: Some(Chance::Always), ..Mark::default() };
    let rewritten = |span: &[u8]| {
        let mut out = Vec::new();
        mark.span(span, &ID, &mut out);
        out
    };
    let told = [&[0x1a, 7][..], b"ot=th:0"].concat();
    let name = [&[0x2a, 1][..], b"n"].concat();
    assert_eq!(rewritten(&name), [&name[..], &told].concat());
    // Of several states the last counts, and one is written.
    let known = [&[0x1a, 1][..], b"x", &name, &[0x1a, 7], b"ot=th:c"].concat();
    assert_eq!(rewritten(&known), known);
    let twice = [&[0x1a, 7][..], b"ot=th:c", &name, &[0x1a, 3], b"a=b"].concat();
    assert_eq!(rewritten(&twice), [&name[..], &[0x1a, 11], b"ot=th:0,a=b"].concat());
    let unknown = Mark { chance: Some(Chance::Unknown), ..Mark::default() };
    let mut out = Vec::new();
    unknown.span(&[&told[..], &name].concat(), &ID, &mut out);
    assert_eq!(out, name);
}

#[test]
fn the_policy_stands_in_the_scope_and_only_once() {
    let mark = |policy: &str, part: Option<&str>, late| Mark {
        policy: Some(policy.to_owned()),
        part: part.map(str::to_owned),
        late,
        chance: None,
    };
    let written = |mark: &Mark, fields: &[u8]| {
        let mut out = Vec::new();
        mark.scope(fields, &mut out);
        out
    };
    // A scope with the name "s", and a schema URL.
    let scope = [&[0x0a, 3, 0x0a, 1][..], b"s", &[0x1a, 1], b"u"].concat();
    let first = written(&mark("errors", None, false), &scope);
    let again = written(&mark("slow", Some("part"), true), &first);
    let text = String::from_utf8_lossy(&again).into_owned();
    for (wanted, times) in [(POLICY, 1), ("slow", 1), ("errors", 0), (PART, 1), (LATE, 1)] {
        assert_eq!(text.matches(wanted).count(), times, "{wanted}: {text:?}");
    }
    assert_eq!(written(&Mark::default(), &scope), scope);
}
