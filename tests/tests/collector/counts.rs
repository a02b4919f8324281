//! For each policy the Collector keeps as many traces as ours says yes to. Rules that differ on purpose are
//! drawn so that the difference does not show; `docs/policies.md` lists them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use ringtail_engine::facts::TraceFacts;
use ringtail_engine::policy::{self, ErrorMode, Policy, Program, Role, Rule};
use ringtail_engine::scan::{Group, Headers};
use ringtail_tests::collector::{self, Collector, counted, free_port, label};
use ringtail_tests::random::{Random, trace};
use serde_json::{Value, json};

const TRACES: u32 = 20_000;
const TRACES_PER_REQUEST: u32 = 500;

/// A policy in the Collector's words and in ours.
type Pair = (Value, Rule);

fn strings(values: &[&str], regex: bool, invert_match: bool) -> Pair {
    let theirs = json!({"type": "string_attribute", "string_attribute": {
        "key": "route", "values": values, "enabled_regex_matching": regex, "invert_match": invert_match,
    }});
    let values = values.iter().map(|&value| value.to_owned()).collect();
    (theirs, Rule::StringAttribute { key: "route".into(), values, regex, invert_match })
}

fn condition(span: &[&str], span_event: &[&str]) -> Pair {
    let theirs = json!({"type": "ottl_condition", "ottl_condition": {
        "error_mode": "silent", "span": span, "spanevent": span_event,
    }});
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    let error_mode = ErrorMode::Silent;
    (theirs, Rule::OttlCondition { span: owned(span), span_event: owned(span_event), error_mode })
}

fn plain_policies() -> Vec<Pair> {
    let status = |code: &str, codes| {
        let theirs = json!({"type": "status_code", "status_code": {"status_codes": [code]}});
        (theirs, Rule::StatusCode { codes: vec![codes] })
    };
    let latency = |threshold_ms: u64| {
        let theirs = json!({"type": "latency", "latency": {"threshold_ms": threshold_ms}});
        (theirs, Rule::Latency { threshold_ms, upper_threshold_ms: None })
    };
    let share = |percent: f64, salt: &str| {
        let settings = json!({"sampling_percentage": percent, "hash_salt": salt});
        let theirs = json!({"type": "probabilistic", "probabilistic": settings});
        let hash_salt = salt.to_owned();
        (theirs, Rule::Probabilistic { sampling_percentage: percent, hash_salt })
    };
    let number = |min: i64, max: i64, invert_match: bool| {
        let theirs = json!({"type": "numeric_attribute", "numeric_attribute": {
            "key": "code", "min_value": min, "max_value": max, "invert_match": invert_match,
        }});
        let (min_value, max_value) = (Some(min), Some(max));
        (theirs, Rule::NumericAttribute { key: "code".into(), min_value, max_value, invert_match })
    };
    let boolean = |value: bool, invert_match: bool| {
        let theirs = json!({"type": "boolean_attribute", "boolean_attribute": {
            "key": "hit", "value": value, "invert_match": invert_match,
        }});
        (theirs, Rule::BooleanAttribute { key: "hit".into(), value, invert_match })
    };
    let count = |min: u32, max: u32| {
        let settings = json!({"min_spans": min, "max_spans": max});
        let theirs = json!({"type": "span_count", "span_count": settings});
        (theirs, Rule::SpanCount { min_spans: Some(min), max_spans: Some(max) })
    };
    let state = json!({"type": "trace_state", "trace_state": {"key": "tier", "values": ["gold"]}});
    vec![
        (json!({"type": "always_sample"}), Rule::AlwaysSample),
        status("ERROR", policy::Status::Error),
        status("UNSET", policy::Status::Unset),
        status("OK", policy::Status::Ok),
        latency(100),
        latency(250),
        latency(400),
        share(10.0, ""),
        share(33.3, "salt"),
        share(0.1, ""),
        strings(&["/cart"], false, false),
        strings(&["/cart", "ä"], false, true),
        strings(&["^/check", "z$"], true, false),
        strings(&["^/check.*\\d"], true, true),
        number(400, 599, false),
        number(-5, 200, true),
        boolean(true, false),
        boolean(false, false),
        boolean(true, true),
        count(2, 3),
        count(4, 100),
        (state, Rule::TraceState { key: "tier".into(), values: vec!["gold".into()] }),
        (json!({"type": "trace_flags"}), Rule::TraceFlags),
    ]
}

fn conditions() -> Vec<Pair> {
    let on_spans = [
        r#"attributes["code"] >= 500"#,
        r#"attributes["ratio"] > 0.4"#,
        r#"attributes["ratio"] == "0.5""#,
        r#"attributes["code"] == nil and attributes["hit"] == true"#,
        r#"IsMatch(attributes["route"], "^/c.*t") and kind == SPAN_KIND_SERVER"#,
        r#"end_time - start_time > Duration("300ms")"#,
        "(end_time_unix_nano - start_time_unix_nano) / 1000000 < 5",
        r#"resource.attributes["service.name"] == "pay" and status.code == STATUS_CODE_ERROR"#,
        r#"resource.attributes["code"] != attributes["code"]"#,
        r#"IsRootSpan() and name != "GET""#,
        r#"not HasPrefix(attributes["route"], "/")"#,
        r#"instrumentation_scope.name == "grpc" and trace_state["tier"] == "gold""#,
        r#"Int(attributes["ratio"]) == 2 or Double(attributes["code"]) < 0"#,
        r#"Len(attributes["route"]) == 2"#,
        r#"Concat([name, kind], "-") == "POST-3""#,
        r#"ToLowerCase(name) == "get" and Substring(name, 1, 2) == "ET""#,
    ];
    let mut list: Vec<Pair> = on_spans.iter().map(|text| condition(&[text], &[])).collect();
    list.push(condition(&[], &[r#"name == "exception" and attributes["type"] == "sql""#]));
    list.push(condition(&["kind == 0"], &[r#"span.name == "query" and name == "retry""#]));
    list
}

/// The policies for both sides; the containers of the Collector hold theirs, ours name them.
fn policies() -> (Vec<Value>, Vec<Policy>) {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for (index, (mut their, rule)) in plain_policies().into_iter().chain(conditions()).enumerate() {
        let name = format!("p{index}");
        their["name"] = json!(name);
        theirs.push(their);
        ours.push(Policy { name, role: Role::Vote, rule });
    }
    let named = |places: &[usize]| places.iter().map(|n| format!("p{n}")).collect::<Vec<_>>();
    let inner = |places: &[usize]| places.iter().map(|n| theirs[*n].clone()).collect::<Vec<_>>();
    let both = [1, 4];
    let and = json!({"name": "and", "type": "and", "and": {"and_sub_policy": inner(&both)}});
    let not = json!({"name": "not", "type": "not", "not": {"not_sub_policy": theirs[16].clone()}});
    theirs.extend([and, not]);
    let rules = [
        ("and", Rule::And { policies: named(&both) }),
        ("not", Rule::Not { policy: "p16".to_owned() }),
    ];
    ours.extend(rules.map(|(name, rule)| Policy { name: name.to_owned(), role: Role::Vote, rule }));
    (theirs, ours)
}

/// What our policies say of a trace.
fn matched(program: &Program, trace: &[ResourceSpans]) -> u64 {
    let id = &trace[0].scope_spans[0].spans[0].trace_id;
    let mut facts = TraceFacts::new(id.as_slice().try_into().unwrap());
    for piece in trace {
        let without = ResourceSpans { scope_spans: vec![], ..piece.clone() }.encode_to_vec();
        let scoped = &piece.scope_spans[0];
        let scope = ScopeSpans { spans: vec![], ..scoped.clone() }.encode_to_vec();
        let group = Group { resource: Headers::whole(&without), scope: Headers::whole(&scope) };
        let bits = program.resource_bits(&group.resource);
        for span in &scoped.spans {
            let bytes = span.encode_to_vec();
            facts.add(&program.span_facts(&bytes), bits, bytes.len() as u64);
            facts.bits |= program.ask(&group, &bytes, facts.bits).bits;
        }
    }
    program.decide(&facts).matched
}

// === The Collector ===

fn start(program: &Path, policies: &[Value]) -> Collector {
    let exporter = json!({"endpoint": format!("127.0.0.1:{}", free_port()), "tls": {"insecure": true},
        "retry_on_failure": {"enabled": false}, "sending_queue": {"enabled": false}});
    let processor = json!({"decision_wait": "2s", "num_traces": 10 * TRACES, "policies": policies});
    let pipeline = json!({
        "receivers": ["otlp"], "processors": ["tail_sampling"], "exporters": ["otlp_grpc"],
    });
    let config = json!({
        "processors": {"tail_sampling": processor},
        "exporters": {"otlp_grpc": exporter},
        "service": {"pipelines": {"traces": pipeline}},
    });
    Collector::start(program, config)
}

/// How many traces each policy kept, once all are decided.
fn kept(collector: &Collector) -> BTreeMap<String, u64> {
    loop {
        let answer = collector.metrics();
        let sum = |name: &str| counted(&answer, name).iter().map(|(_, n)| n).sum::<u64>();
        if sum("global_count_traces_sampled") >= u64::from(TRACES) {
            let rows = counted(&answer, "sampling_count_traces_sampled");
            let kept = rows.into_iter().filter(|(row, _)| row.contains("sampled=\"true\""));
            return kept.map(|(row, n)| (label(&row, "policy"), n)).collect();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn each_policy_keeps_as_many_traces_as_the_collectors() {
    let test = "each_policy_keeps_as_many_traces_as_the_collectors";
    let Some(program) = collector::program(test, &["tail_sampling"]) else { return };
    let (theirs, ours) = policies();
    let compiled = policy::compile(&ours).unwrap();
    let collector = start(&program, &theirs);
    let mut random = Random::new(20);
    let mut expected = vec![0; ours.len()];
    for first in (0..TRACES).step_by(TRACES_PER_REQUEST as usize) {
        let traces: Vec<_> =
            (first..first + TRACES_PER_REQUEST).map(|number| trace(number, &mut random)).collect();
        for trace in &traces {
            let matched = matched(&compiled, trace);
            for (place, count) in expected.iter_mut().enumerate() {
                *count += matched >> place & 1;
            }
        }
        let resource_spans = traces.into_iter().flatten().collect();
        collector.send(&ExportTraceServiceRequest { resource_spans });
    }
    let kept = kept(&collector);
    let of = |policy: &Policy| kept.get(&policy.name).copied().unwrap_or_default();
    let differ: Vec<_> =
        ours.iter().zip(&expected).filter(|(policy, n)| of(policy) != **n).collect();
    for (policy, expected) in &differ {
        eprintln!("ours {expected}, the Collector's {}: {policy:?}", of(policy));
    }
    assert!(differ.is_empty(), "{} of {} policies differ", differ.len(), ours.len());
    let rare = expected.iter().filter(|count| **count == 0).count();
    assert_eq!(rare, 0, "each policy has something to keep: {expected:?}");
}
