//! Random policies and traces: the program agrees with a naive evaluator on what prost decodes.

use opentelemetry_proto::tonic::common::v1::KeyValueList;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What a receiver that decodes everything knows of a trace.
struct Decoded {
    id: [u8; 16],
    resources: Vec<Resource>,
    spans: Vec<Span>,
}

impl Decoded {
    fn new(id: [u8; 16], pieces: &[Piece]) -> Self {
        let spans = pieces.iter().flat_map(|piece| &piece.spans);
        Self {
            id,
            resources: pieces
                .iter()
                .filter(|piece| !piece.spans.is_empty())
                .filter_map(|piece| ResourceSpans::decode(&*piece.headers).unwrap().resource)
                .collect(),
            spans: spans.map(|span| Span::decode(&**span).unwrap()).collect(),
        }
    }

    /// Whether the first attribute with this key, on any resource or span, passes the test.
    fn any(&self, key: &str, passes: impl Fn(&Any, bool) -> bool) -> bool {
        let first = |attributes: &[KeyValue]| -> Option<Any> {
            attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value
        };
        self.resources.iter().any(|r| first(&r.attributes).is_some_and(|v| passes(&v, false)))
            || self.spans.iter().any(|s| first(&s.attributes).is_some_and(|v| passes(&v, true)))
    }

    fn duration_ms(&self) -> Option<u64> {
        let start = self.spans.iter().map(|s| s.start_time_unix_nano).filter(|t| *t != 0).min()?;
        let end = self.spans.iter().map(|s| s.end_time_unix_nano).filter(|t| *t != 0).max()?;
        Some(if end < start { 0 } else { (end - start) / 1_000_000 })
    }

    fn says_yes(&self, rule: &Rule, list: &[Policy]) -> bool {
        let yes = |name: &String| {
            let policy = list.iter().find(|policy| policy.name == *name).unwrap();
            self.says_yes(&policy.rule, list)
        };
        match rule {
            Rule::AlwaysSample => true,
            Rule::StatusCode { codes } => self.spans.iter().any(|span| {
                let code = span.status.as_ref().map_or(0, |status| status.code);
                codes.iter().any(|wanted| *wanted as i32 == code)
            }),
            Rule::Latency { threshold_ms, upper_threshold_ms } => {
                self.duration_ms().is_some_and(|ms| {
                    ms > *threshold_ms && upper_threshold_ms.is_none_or(|upper| ms <= upper)
                })
            }
            Rule::Probabilistic { sampling_percentage, .. } => {
                let mut hash = 0xcbf2_9ce4_8422_2325_u64;
                for byte in b"default-hash-seed".iter().chain(&self.id) {
                    hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
                // Only percentages at which doubles are exact enough are drawn.
                hash as f64 / 2_f64.powi(64) <= sampling_percentage / 100.0
            }
            Rule::StringAttribute { key, values, regex, invert_match } => {
                let found = |text: &str| match regex {
                    false => values.iter().any(|value| value == text),
                    true => values.iter().any(|p| regex::Regex::new(p).unwrap().is_match(text)),
                };
                let passes = |value: &Any, on_span: bool| match value {
                    Any::StringValue(text) => !(on_span && text.is_empty()) && found(text),
                    _ => false,
                };
                self.any(key, passes) != *invert_match
            }
            Rule::NumericAttribute { key, min_value, max_value, invert_match } => {
                let passes = |value: &Any, _: bool| match value {
                    Any::IntValue(n) => {
                        min_value.is_none_or(|min| *n >= min)
                            && max_value.is_none_or(|max| *n <= max)
                    }
                    _ => false,
                };
                self.any(key, passes) != *invert_match
            }
            Rule::BooleanAttribute { key, value, invert_match } => {
                let passes = |found: &Any, _: bool| *found == Any::BoolValue(*value);
                self.any(key, passes) != *invert_match
            }
            Rule::SpanCount { min_spans, max_spans } => {
                let count = self.spans.len() as u32;
                min_spans.is_none_or(|min| count >= min) && max_spans.is_none_or(|max| count <= max)
            }
            Rule::TraceState { key, values } => self.spans.iter().any(|span| {
                // The generator draws only states that keep the rules.
                let member = |member: &str| {
                    member.split_once('=').is_some_and(|(name, value)| {
                        name == key && values.iter().any(|wanted| wanted == value)
                    })
                };
                span.trace_state.split(',').any(member)
            }),
            // Conditions and budgets have random tests of their own.
            Rule::OttlCondition { .. }
            | Rule::RateLimiting { .. }
            | Rule::BytesLimiting { .. }
            | Rule::Composite { .. } => false,
            Rule::TraceFlags => self.spans.iter().any(|span| span.flags % 2 == 1),
            Rule::And { policies } | Rule::Drop { policies } => policies.iter().all(yes),
            Rule::Or { policies } => policies.iter().any(yes),
            Rule::Not { policy } => !yes(policy),
        }
    }

    fn verdict(&self, list: &[Policy]) -> Verdict {
        let is_drop = |policy: &Policy| matches!(policy.rule, Rule::Drop { .. });
        let saying = |drop: bool| -> Vec<usize> {
            let heard = |p: &Policy| is_drop(p) == drop && (drop || p.role == Role::Vote);
            (0..list.len())
                .filter(|i| heard(&list[*i]) && self.says_yes(&list[*i].rule, list))
                .collect()
        };
        let (drops, votes) = (saying(true), saying(false));
        let matched = drops.iter().chain(&votes).fold(0, |set, place| set | 1 << place);
        let policy = drops.first().or(votes.first()).map(|place| *place as u16);
        Verdict { keep: drops.is_empty() && !votes.is_empty(), policy, matched, changed: 0 }
    }
}

/// Keys of equal and of different lengths, around the last bucket of lengths and around a length byte's end.
fn key() -> impl Strategy<Value = String> {
    let long = |length: usize, end: &str| "k".repeat(length) + end;
    select(vec![
        "a".to_owned(),
        "b".to_owned(),
        "http.route".to_owned(),
        "http.rouse".to_owned(),
        long(62, "x"),
        long(63, "x"),
        long(63, "y"),
        long(129, "x"),
    ])
}

fn any_value() -> impl Strategy<Value = Option<AnyValue>> {
    let member = prop_oneof![
        4 => select(vec!["", "x", "y", "/a/b", "/a/b/c", "x\ny"]).prop_map(text),
        1 => Just(text(&"long ".repeat(4000))),
        4 => select(vec![i64::MIN, -5, 0, 1, 5, 200, 503, i64::MAX]).prop_map(Any::IntValue),
        1 => any::<bool>().prop_map(Any::BoolValue),
        1 => Just(Any::DoubleValue(5.0)),
        1 => Just(Any::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(text("x")) }] })),
        1 => Just(Any::KvlistValue(KeyValueList { values: vec![attribute("a", text("x"))] })),
        1 => Just(Any::BytesValue(b"x".to_vec())),
        1 => Just(Any::StringValueStrindex(1)),
    ];
    prop_oneof![
        12 => member.prop_map(|member| Some(AnyValue { value: Some(member) })),
        1 => Just(Some(AnyValue { value: None })),
        1 => Just(None),
    ]
}

/// One attribute as bytes: mostly one message, sometimes several that a decoder merges.
fn pair() -> impl Strategy<Value = Vec<u8>> {
    let whole = || {
        (key(), any_value())
            .prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }.encode_to_vec())
    };
    let value_only =
        any_value().prop_map(|value| KeyValue { value, ..KeyValue::default() }.encode_to_vec());
    // A field that no one knows, and an index in place of a key.
    let unknown = select(vec![vec![0x98, 0x06, 0x01], vec![0x18, 0x02]]);
    let piece = prop_oneof![6 => whole(), 2 => value_only, 1 => unknown];
    prop_oneof![
        8 => whole(),
        2 => prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat()),
    ]
}

/// A field that holds bytes, with its tag and length.
fn bytes_field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(body.len() as u64, &mut field);
    [field, body.to_vec()].concat()
}

/// Bytes of a span: fields of several messages in a row, so that singular ones repeat, with attributes
/// between.
fn span_bytes() -> impl Strategy<Value = Vec<u8>> {
    let time =
        || select(vec![0, 1, 999_999, 1_000_000, 2_000_000, 5_000_001, 50_000_000, u64::MAX]);
    let status = prop::option::of(select(vec![-1, 0, 1, 2, 2, 3, 64, 258]));
    let parent = select(vec![vec![], vec![0; 8], vec![1; 8]]);
    let state = select(vec!["", "", "k=x", "a=1,k=y", "k=z,b=2"]);
    let context = (state, select(vec![0, 0, 1, 0x100, 0x301]));
    let fields = (time(), time(), status, parent, context).prop_map(|fields| {
        let (start, end, code, parent, (state, flags)) = fields;
        let span = Span {
            trace_state: state.to_owned(),
            trace_id: ID.to_vec(),
            name: "name".into(),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            parent_span_id: parent,
            status: code.map(|code| SpanStatus { code, message: "m".into() }),
            flags,
            ..Span::default()
        };
        span.encode_to_vec()
    });
    // Codes as prost does not write them: a plain 0, and 2 with bits that a 32-bit enum does not have.
    let odd = select(vec![vec![0x18, 0], vec![0x18, 0x82, 0x80, 0x80, 0x80, 0x10]]);
    let odd = odd.prop_map(|status| bytes_field(15, &status));
    let pair = pair().prop_map(|pair| bytes_field(9, &pair));
    let piece = prop_oneof![2 => fields, 4 => pair, 1 => odd];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Headers of a resource: its attributes spread over one or two messages.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let resource = prop::collection::vec(pair(), 0..4).prop_map(|pairs| {
        let body: Vec<u8> = pairs.iter().flat_map(|pair| bytes_field(1, pair)).collect();
        bytes_field(1, &body)
    });
    (prop::collection::vec(resource, 0..3))
        .prop_map(|resources| [resources.concat(), bytes_field(3, b"https://schema")].concat())
}

fn trace() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (headers(), prop::collection::vec(span_bytes(), 0..4))
        .prop_map(|(headers, spans)| Piece { headers, spans });
    prop::collection::vec(piece, 0..4)
}

fn leaf() -> impl Strategy<Value = Rule> {
    let codes = prop::collection::vec(select(vec![Status::Unset, Status::Ok, Status::Error]), 1..3);
    let upper = prop::option::of(1..60_u64);
    let exact = prop::collection::vec(select(vec!["x", "y", "/a/b", "5", "none"]), 1..4);
    let patterns =
        prop::collection::vec(select(vec!["^x", "b$", "/a/.", "^.*$", "(?s)x.y", "g l"]), 1..3);
    let strings = prop_oneof![exact.prop_map(|v| (v, false)), patterns.prop_map(|v| (v, true))];
    let bound = || prop::option::of(select(vec![i64::MIN, -5, 0, 5, 500]));
    prop_oneof![
        1 => Just(Rule::AlwaysSample),
        2 => codes.prop_map(|codes| Rule::StatusCode { codes }),
        2 => (0..60_u64, upper).prop_map(|(threshold_ms, above)| Rule::Latency {
            threshold_ms,
            upper_threshold_ms: above.map(|above| threshold_ms + above),
        }),
        1 => select(vec![0.0, 12.5, 50.0, 100.0]).prop_map(|sampling_percentage| {
            Rule::Probabilistic { sampling_percentage, hash_salt: String::new() }
        }),
        4 => (key(), strings, any::<bool>()).prop_map(|(key, (values, regex), invert_match)| {
            let values = values.into_iter().map(str::to_owned).collect();
            Rule::StringAttribute { key, values, regex, invert_match }
        }),
        4 => (key(), bound(), bound(), any::<bool>()).prop_map(|(key, a, b, invert_match)| {
            let (min, max) = if a.zip(b).is_some_and(|(a, b)| a > b) { (b, a) } else { (a, b) };
            let min_value = if min.is_none() && max.is_none() { Some(0) } else { min };
            Rule::NumericAttribute { key, min_value, max_value: max, invert_match }
        }),
        2 => (key(), any::<bool>(), any::<bool>()).prop_map(|(key, value, invert_match)| {
            Rule::BooleanAttribute { key, value, invert_match }
        }),
        2 => (0..3_u32, 0..6_u32, 0..3_u8).prop_map(|(min, more, bounds)| Rule::SpanCount {
            min_spans: (bounds != 1).then_some(min),
            max_spans: (bounds != 0).then_some((min + more).max(1)),
        }),
        1 => prop::collection::vec(select(vec!["x", "y", "1", "none"]), 1..3).prop_map(|values| {
            let values = values.into_iter().map(str::to_owned).collect();
            Rule::TraceState { key: "k".to_owned(), values }
        }),
        1 => Just(Rule::TraceFlags),
    ]
}

/// A list that compiles: `leaves`, then containers that name what comes before them, turned by `turn` places.
fn list() -> impl Strategy<Value = Vec<Policy>> {
    let container = (0..4_u8, prop::collection::vec(any::<prop::sample::Index>(), 1..4));
    let containers = prop::collection::vec(container, 0..8);
    let leaves = prop::collection::vec(leaf(), 1..8);
    (leaves, containers, any::<u64>(), any::<prop::sample::Index>()).prop_map(
        |(leaves, containers, parts, turn)| {
            let mut rules = leaves;
            for (kind, picks) in containers {
                let others: Vec<usize> =
                    (0..rules.len()).filter(|i| !matches!(rules[*i], Rule::Drop { .. })).collect();
                let mut picks: Vec<usize> =
                    picks.iter().map(|pick| others[pick.index(others.len())]).collect();
                picks.sort_unstable();
                picks.dedup();
                let policies: Vec<String> = picks.iter().map(|i| format!("p{i}")).collect();
                rules.push(match kind {
                    0 => Rule::And { policies },
                    1 => Rule::Or { policies },
                    2 => Rule::Not { policy: policies[0].clone() },
                    _ => Rule::Drop { policies },
                });
            }
            with_roles(rules, parts, turn)
        },
    )
}

/// Makes those that `parts` picks into parts, as far as somebody names them and somebody else votes.
fn with_roles(rules: Vec<Rule>, parts: u64, turn: prop::sample::Index) -> Vec<Policy> {
    let named = |name: &String| {
        rules.iter().any(|rule| match rule {
            Rule::And { policies } | Rule::Or { policies } | Rule::Drop { policies } => {
                policies.contains(name)
            }
            Rule::Not { policy } => policy == name,
            _ => false,
        })
    };
    let mut list: Vec<Policy> = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        let name = format!("p{place}");
        let is_part = parts >> place & 1 == 1 && !matches!(rule, Rule::Drop { .. }) && named(&name);
        let role = if is_part { Role::Part } else { Role::Vote };
        list.push(Policy { name, role, rule: rule.clone() });
    }
    let votes =
        |policy: &Policy| policy.role == Role::Vote && !matches!(policy.rule, Rule::Drop { .. });
    if !list.iter().any(votes) {
        list[0].role = Role::Vote;
    }
    let middle = turn.index(list.len());
    list.rotate_left(middle);
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn verdicts_are_those_of_a_naive_evaluator(
        list in list(),
        pieces in trace(),
        id in any::<[u8; 16]>(),
    ) {
        let program = compile(&list).unwrap();
        let verdict = program.decide(&facts(&program, id, &pieces));
        prop_assert_eq!(verdict, Decoded::new(id, &pieces).verdict(&list));
    }
}
