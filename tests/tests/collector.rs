//! Random traces through a real OpenTelemetry Collector: for each policy it keeps as many of them as ours
//! says yes to. Rules that differ on purpose are drawn so that the difference does not show;
//! `docs/policies.md` lists them.
//!
//! Needs a Collector of v0.157 or later with its tail sampling processor, such as `make bench` builds, named
//! by `RINGTAIL_OTELCOL`; without it there is nothing to compare with.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use ringtail_engine::facts::TraceFacts;
use ringtail_engine::policy::{self, ErrorMode, Policy, Program, Role, Rule};
use ringtail_engine::scan::{Group, Headers};
use serde_json::{Value, json};

const TRACES: u32 = 20_000;
const TRACES_PER_REQUEST: u32 = 500;

/// The traces are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // A step of splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

fn pair(key: &str, value: Any) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn attributes(random: &mut Random) -> Vec<KeyValue> {
    let mut list = Vec::new();
    for key in ["route", "code", "hit", "ratio"] {
        let value = match (key, random.below(4)) {
            (_, 0) => continue,
            ("route", _) => text(random.one_of(&["/cart", "/checkout/7", "/healthz", "", "ä"])),
            ("code", _) => Any::IntValue(random.one_of(&[-1, 0, 200, 404, 500, 503])),
            ("hit", _) => Any::BoolValue(random.below(2) == 0),
            (_, 1) => text("0.5"),
            _ => Any::DoubleValue(random.one_of(&[0.0, 0.5, 2.0])),
        };
        list.push(pair(key, value));
    }
    list
}

fn span(id: [u8; 16], number: u64, random: &mut Random) -> Span {
    let start = 1_700_000_000_000_000_000 + random.below(100) * 1_000_000;
    let event = |random: &mut Random| Event {
        name: random.one_of(&["exception", "retry"]).to_owned(),
        attributes: vec![pair("type", text(random.one_of(&["io", "sql"])))],
        ..Event::default()
    };
    let code = random.below(3) as i32;
    Span {
        trace_id: id.to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        parent_span_id: if number == 0 { vec![] } else { vec![9; 8] },
        trace_state: random.one_of(&["", "", "tier=gold", "a=1,tier=lead", "tier", "A=1"]).into(),
        name: random.one_of(&["GET", "POST", "query"]).to_owned(),
        kind: random.below(6) as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.below(400) * 1_000_000,
        attributes: attributes(random),
        events: (0..random.below(3)).map(|_| event(random)).collect(),
        status: (random.below(3) > 0).then(|| Status { code, message: "m".to_owned() }),
        flags: random.one_of(&[0, 0, 1, 0x100, 0x301]),
        ..Span::default()
    }
}

fn trace(number: u32, random: &mut Random) -> Vec<ResourceSpans> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.below(u64::MAX).to_be_bytes());
    id[12..].copy_from_slice(&number.to_be_bytes());
    let mut spans = 0;
    let mut piece = |random: &mut Random| {
        let count = 1 + random.below(4);
        let spans: Vec<Span> = (spans..spans + count)
            .inspect(|_| spans += 1)
            .map(|number| span(id, number, random))
            .collect();
        let mut attributes = attributes(random);
        attributes.push(pair("service.name", text(random.one_of(&["shop", "pay", "db"]))));
        let name = random.one_of(&["http", "grpc"]).to_owned();
        let scope = Some(InstrumentationScope { name, ..InstrumentationScope::default() });
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope, spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    };
    (0..1 + random.below(2)).map(|_| piece(random)).collect()
}

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

struct Collector {
    process: Child,
    receiver: u16,
    metrics: u16,
    _home: tempfile::TempDir,
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Collector {
    fn start(binary: &Path, policies: &[Value]) -> Self {
        let (receiver, metrics) = (free_port(), free_port());
        let exporter = json!({"endpoint": format!("127.0.0.1:{}", free_port()), "tls": {"insecure": true},
            "retry_on_failure": {"enabled": false}, "sending_queue": {"enabled": false}});
        let reader =
            json!({"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}}});
        let http = json!({"http": {"endpoint": format!("127.0.0.1:{receiver}")}});
        let config = json!({
            "receivers": {"otlp": {"protocols": http}},
            "processors": {"tail_sampling": {
                "decision_wait": "2s", "num_traces": 10 * TRACES, "policies": policies,
            }},
            "exporters": {"otlp_grpc": exporter},
            "service": {
                "telemetry": {"logs": {"level": "fatal"},
                    "metrics": {"level": "detailed", "readers": [reader]}},
                "pipelines": {"traces": {
                    "receivers": ["otlp"], "processors": ["tail_sampling"], "exporters": ["otlp_grpc"],
                }},
            },
        });
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("collector.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let process = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("RINGTAIL_OTELCOL names a program");
        Self { process, receiver, metrics, _home: home }
    }

    /// Sends a request, again while the Collector still starts.
    fn send(&mut self, request: &ExportTraceServiceRequest) {
        let body = request.encode_to_vec();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let message = [head.into_bytes(), body].concat();
        while !ask(self.receiver, &message).is_some_and(|answer| answer.contains(" 200 OK")) {
            assert!(self.process.try_wait().unwrap().is_none(), "the Collector has ended");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many traces each policy kept, once all are decided.
    fn kept(&self) -> BTreeMap<String, u64> {
        loop {
            let message = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let answer = ask(self.metrics, message).unwrap_or_default();
            let sum = |name: &str| counted(&answer, name).iter().map(|(_, n)| n).sum::<u64>();
            if sum("global_count_traces_sampled") >= u64::from(TRACES) {
                let rows = counted(&answer, "sampling_count_traces_sampled");
                let kept = rows.into_iter().filter(|(row, _)| row.contains("sampled=\"true\""));
                return kept.map(|(row, n)| (label(&row, "policy"), n)).collect();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn ask(port: u16, message: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(message).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The rows of a metric, with their values.
fn counted(metrics: &str, name: &str) -> Vec<(String, u64)> {
    let rows = metrics.lines().filter(|row| !row.starts_with('#'));
    let rows = rows.filter(|row| row.split('{').next().is_some_and(|row| row.contains(name)));
    let value = |row: &str| row.rsplit(' ').next()?.parse::<f64>().ok();
    rows.filter_map(|row| Some((row.to_owned(), value(row)? as u64))).collect()
}

fn label(row: &str, name: &str) -> String {
    let rest = row.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[test]
fn each_policy_keeps_as_many_traces_as_the_collectors() {
    let Some(binary) = std::env::var_os("RINGTAIL_OTELCOL") else {
        eprintln!("not run: RINGTAIL_OTELCOL names no Collector");
        return;
    };
    let (theirs, ours) = policies();
    let program = policy::compile(&ours).unwrap();
    let mut collector = Collector::start(Path::new(&binary), &theirs);
    let mut random = Random(20);
    let mut expected = vec![0; ours.len()];
    for first in (0..TRACES).step_by(TRACES_PER_REQUEST as usize) {
        let traces: Vec<_> =
            (first..first + TRACES_PER_REQUEST).map(|number| trace(number, &mut random)).collect();
        for trace in &traces {
            let matched = matched(&program, trace);
            for (place, count) in expected.iter_mut().enumerate() {
                *count += matched >> place & 1;
            }
        }
        let resource_spans = traces.into_iter().flatten().collect();
        collector.send(&ExportTraceServiceRequest { resource_spans });
    }
    let kept = collector.kept();
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
