//! What is done to spans on their way, with real processes: nothing that is redacted is found anywhere,
//! filters and the ledger agree, kept spans tell why and how likely they were kept.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message as _;
use ringtail_tests::backend::Backend;
use ringtail_tests::exporting;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::process::{Process, wait_until};
use ringtail_tests::traces::{Trace, request, text};

async fn send(address: &str, requests: impl IntoIterator<Item = ExportTraceServiceRequest>) {
    let mut client = TraceServiceClient::connect(format!("http://{address}")).await.unwrap();
    for request in requests {
        let answer = client.export(request).await.expect("spans are taken").into_inner();
        assert_eq!(answer.partial_success, None);
    }
}

fn with(lines: &str) -> String {
    ERRORS_AND_SLOW.replace("spec:\n", &format!("spec:\n{lines}"))
}

fn value(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn map(key: &str, values: Vec<KeyValue>) -> KeyValue {
    let value = value(Value::KvlistValue(KeyValueList { values }));
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn found(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

// === redaction ===

const REDACTION: &str = r#"
  redaction:
    remove: [password]
    hash: [user.id]
    mask:
      - {keyPattern: "(?i)token"}
      - {valuePattern: "canary-[a-z]+"}
    texts: [SpanName, EventName, StatusMessage]
"#;

/// Words of which none may be found anywhere after the gateway.
const CANARIES: [&str; 8] = [
    "canary-removed",
    "canary-nested",
    "canary-listed",
    "canary-hashed",
    "canary-token",
    "canary-named",
    "canary-event",
    "canary-status",
];

/// Attributes with canaries at every depth.
fn tainted() -> Vec<KeyValue> {
    let list = ArrayValue {
        values: vec![AnyValue { value: Some(Value::StringValue("x canary-listed y".into())) }],
    };
    let listed = KeyValue {
        key: "list".into(),
        value: value(Value::ArrayValue(list)),
        ..KeyValue::default()
    };
    vec![
        text("password", "canary-removed"),
        map(
            "outer",
            vec![map("inner", vec![text("password", "canary-nested"), text("ok", "stays")])],
        ),
        listed,
        text("user.id", "canary-hashed"),
        text("Api-Token", "canary-token"),
        text("card", "number canary-named!"),
        text("harmless", "stays"),
    ]
}

fn tainted_request(number: u64) -> ExportTraceServiceRequest {
    let id = [number.to_be_bytes(), [7; 8]].concat();
    let event = Event { name: "at canary-event".into(), attributes: tainted(), ..Event::default() };
    let link = Link { trace_id: id.clone(), attributes: tainted(), ..Link::default() };
    let span = Span {
        trace_id: id,
        span_id: vec![1; 8],
        name: "GET canary-named".into(),
        attributes: tainted(),
        events: vec![event],
        links: vec![link],
        status: Some(Status { message: "failed: canary-status".into(), code: 2 }),
        ..Span::default()
    };
    let mut request = request("shop", vec![span]);
    let spans = &mut request.resource_spans[0];
    spans.resource.as_mut().unwrap().attributes.extend(tainted());
    spans.scope_spans[0].scope.as_mut().unwrap().attributes.extend(tainted());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_redacted_is_found_nowhere() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(&with(REDACTION), 1, 2, &backend.address.to_string(), &[]);
    send(&fleet.agents[0].grpc(), (1..40).map(tainted_request)).await;
    for gateway in &fleet.gateways {
        gateway.wait_for("exports", |stats| {
            stats.decisions.is_some_and(|decisions| decisions.kept > 0)
        });
    }
    // Late spans go the same way.
    let mut late = tainted_request(1);
    late.resource_spans[0].scope_spans[0].spans[0].span_id = vec![9; 8];
    send(&fleet.gateways[0].grpc(), [late]).await;
    let pages: Vec<String> = fleet
        .gateways
        .iter()
        .chain(&fleet.agents)
        .flat_map(|process| ["/stats", "/metrics"].map(|page| process.admin(page)))
        .collect();
    let (agents, gateways) = fleet.stop();
    assert_eq!(backend.spans(), 40);
    let printed = gateways.iter().chain(&agents).map(|ended| ended.printed.clone());
    let exported = backend.requests();
    let everything: Vec<Vec<u8>> = exported
        .iter()
        .map(prost::Message::encode_to_vec)
        .chain(pages.into_iter().chain(printed).map(String::into_bytes))
        .collect();
    for canary in CANARIES {
        assert!(!everything.iter().any(|bytes| found(bytes, canary)), "{canary} is out");
    }
    assert!(!everything.iter().any(|bytes| found(bytes, "password")));
    for request in exported {
        for spans in request.resource_spans {
            let bytes = spans.encode_to_vec();
            // Resource, scope, span, event and link.
            let times = |word: &str| {
                let words = bytes.windows(word.len());
                words.filter(|window| *window == word.as_bytes()).count()
            };
            let count = spans.scope_spans.iter().map(|scope| scope.spans.len()).sum::<usize>();
            assert_eq!(times("harmless"), 2 + 3 * count);
            assert_eq!(times("user.id"), 2 + 3 * count);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_need_their_key() {
    let secrets = tempfile::tempdir().unwrap();
    std::fs::create_dir(secrets.path().join("pepper")).unwrap();
    std::fs::write(secrets.path().join("pepper/key"), "Jefe\n").unwrap();
    let lines =
        "  redaction: {hash: [a], hashSecretRef: {name: pepper, key: key}, allowOnly: [a]}\n";
    let backend = Backend::start().await;
    let extra = ["--secrets-dir", secrets.path().to_str().unwrap()];
    let fleet = Fleet::start(&with(lines), 0, 1, &backend.address.to_string(), &extra);
    let span = Span {
        trace_id: vec![1; 16],
        attributes: vec![text("a", "what do ya want for nothing?"), text("b", "c")],
        status: Some(Status { code: 2, ..Status::default() }),
        ..Span::default()
    };
    send(&fleet.gateways[0].grpc(), [request("shop", vec![span])]).await;
    fleet.stop();
    let kept = &backend.requests()[0].resource_spans[0];
    // RFC 4231, case 2.
    let hash = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(kept.scope_spans[0].spans[0].attributes, [text("a", hash)]);
    assert!(kept.resource.as_ref().is_none_or(|resource| resource.attributes.is_empty()));
}

// === agents ===

const PROCESSED: &str = r#"
  agent:
    resourceDetection: [Environment, Host, Kubernetes]
    filter: ['attributes["http.route"] == "/healthz"', 'attributes["http.route"] + 1 == 2']
    attributes:
      - {action: Upsert, key: team, value: payments}
      - {action: Insert, key: retries, value: "5", valueType: Int}
      - {action: Delete, key: peer}
      - {action: Upsert, context: Resource, key: tier, value: front}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn agents_add_drop_and_change_and_their_ledger_says_so() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(&with(PROCESSED), 0, 1, &backend.address.to_string(), &[]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipeline.yaml");
    std::fs::write(&path, with(PROCESSED)).unwrap();
    let gateway = fleet.gateways[0].grpc();
    let args = ["agent", "--pipeline", path.to_str().unwrap(), "--gateway", &gateway];
    let environment = [
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,service.name=other"),
        ("NODE_NAME", "node-1"),
    ];
    let agent = Process::start_with(&args, &environment);
    agent.wait_for("a ring", |stats| stats.ring.members.len() == 1);
    let traces = (0..20).map(|number| Trace { number, spans: 3, error: true, duration_ms: 5 });
    let checks = (0..50_u64).map(|number| {
        let id = [number.to_be_bytes(), [3; 8]].concat();
        let attributes = vec![text("http.route", "/healthz")];
        let error = Some(Status { code: 2, ..Status::default() });
        request("probe", vec![Span { trace_id: id, attributes, status: error, ..Span::default() }])
    });
    send(&agent.grpc(), traces.map(|trace| trace.part(0, 1)).chain(checks)).await;
    assert_eq!(agent.metric("otelcol_processor_dropped_spans_total", "reason=\"filtered\""), 50.0);
    // The other condition adds a number to a text.
    assert_eq!(agent.metric("ringtail_filter_condition_failures_total", ""), 60.0);
    let ended = agent.stop_balanced();
    assert_eq!(ended.ledger.received.clients, 110);
    assert_eq!(ended.ledger.dropped["filtered"], 50);
    assert_eq!(ended.ledger.out, 60);
    fleet.stop();
    assert_eq!(backend.spans(), 60);
    let resources = backend.requests().into_iter().flat_map(|request| request.resource_spans);
    for spans in resources {
        let attributes = spans.resource.unwrap().attributes;
        let of: HashMap<&str, &KeyValue> = attributes.iter().map(|a| (a.key.as_str(), a)).collect();
        assert_eq!(of.len(), attributes.len(), "no key is there twice");
        let wanted = [
            ("deployment.environment", "test"),
            ("host.name", "node-1"),
            ("os.type", "linux"),
            ("k8s.node.name", "node-1"),
            ("tier", "front"),
        ];
        for (key, expected) in wanted {
            assert_eq!(*of[key], text(key, expected));
        }
        assert!(!of.contains_key("k8s.pod.name"), "the agent's pod is not the sender's");
        let service = of["service.name"].value.clone();
        assert_ne!(service, text("", "other").value, "what is there stays");
        for span in spans.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let number = KeyValue {
                key: "retries".into(),
                value: value(Value::IntValue(5)),
                ..KeyValue::default()
            };
            let expected = [text("http.route", "/things/{id}"), text("team", "payments"), number];
            assert_eq!(span.attributes, expected);
        }
    }
}

// === what kept spans tell ===

const RECORDED: &str = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: test}
spec:
  sampling:
    decisionWait: 1s
    recordPolicy: true
    recordThreshold: true
    policies:
      - {name: errors, type: StatusCode, statusCode: {statusCodes: [Error]}}
      - {name: half, type: Probabilistic, probabilistic: {samplingPercentage: 50}}
  exporters:
    - {name: backend, type: OTLP, otlp: {endpoint: "http://127.0.0.1:1"}}
"#;

/// Every exported span, with the attributes of its scope.
fn told(backend: &Backend) -> Vec<(Span, HashMap<String, KeyValue>)> {
    let spans = backend.requests().into_iter().flat_map(|request| request.resource_spans);
    let scopes = spans.flat_map(|spans| spans.scope_spans);
    scopes
        .flat_map(|scope| {
            let attributes = scope.scope.unwrap_or_default().attributes;
            let of: HashMap<_, _> = attributes.into_iter().map(|a| (a.key.clone(), a)).collect();
            scope.spans.into_iter().map(move |span| (span, of.clone()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_spans_tell_why_and_how_likely_they_were_kept() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(RECORDED, 1, 2, &backend.address.to_string(), &[]);
    let traces = || {
        (0..200).map(|number| Trace { number, spans: 3, error: number % 10 == 0, duration_ms: 5 })
    };
    send(&fleet.agents[0].grpc(), traces().map(|trace| trace.part(0, 1))).await;
    let decided = || {
        let decisions = fleet.gateways.iter().filter_map(|gateway| gateway.stats().decisions);
        decisions.map(|decisions| decisions.kept + decisions.dropped).sum::<u64>()
    };
    wait_until("decisions", || decided() == 200);
    // One more span of each, after the decision. These gateways do not know each other: only an agent brings
    // it to where the decision is.
    let late = traces().map(|trace| {
        let mut request = trace.part(0, 3);
        for spans in &mut request.resource_spans {
            for span in spans.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
                span.span_id = vec![9; 8];
            }
        }
        request
    });
    send(&fleet.agents[0].grpc(), late).await;
    fleet.stop();
    let errors: HashMap<Vec<u8>, bool> = traces().map(|trace| (trace.id(), trace.error)).collect();
    let (mut by_policy, mut late, mut remembered) = (HashMap::<bool, u32>::new(), 0, 0);
    for (span, scope) in told(&backend) {
        let error = errors[&span.trace_id];
        *by_policy.entry(error).or_default() += 1;
        let policy = if error { "errors" } else { "half" };
        assert_eq!(scope["tailsampling.policy"], text("tailsampling.policy", policy));
        let is_late = span.span_id == [9; 8];
        let cached = scope.contains_key("tailsampling.cached_decision");
        assert_eq!(is_late, cached);
        late += u32::from(is_late);
        remembered += u32::from(cached);
        if error {
            assert_eq!(span.trace_state, "ot=th:0");
        } else {
            let rv = span.trace_state.strip_prefix("ot=th:8;rv:").expect(&span.trace_state);
            let randomness = u64::from_str_radix(rv, 16).unwrap();
            assert!(rv.len() == 14 && randomness >= 1 << 55, "{rv}");
        }
    }
    assert_eq!(by_policy[&true], 20 * 4, "three spans and a late one of each");
    let half = by_policy[&false] / 4;
    assert!((60..120).contains(&half), "{half} of 180 traces");
    assert_eq!(late, 20 + half);
    assert_eq!(remembered, late);
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_that_spans_come_with_are_honoured() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(RECORDED, 0, 1, &backend.address.to_string(), &[]);
    // With 50 % a trace is kept from a randomness of 8… on; what was said before stays when it says more.
    let cases = [
        ("ot=rv:80000000000000", Some("ot=th:8;rv:80000000000000")),
        ("ot=rv:7fffffffffffff", None),
        ("ot=th:c;rv:d0000000000000", Some("ot=th:c;rv:d0000000000000")),
        ("a=b,ot=th:4;rv:d0000000000000;x:y", Some("ot=th:8;rv:d0000000000000;x:y,a=b")),
        ("ot=th:4;rv:50000000000000", None),
    ];
    let requests = cases.iter().enumerate().map(|(number, (state, _))| {
        let trace_id = [(number as u64 + 1).to_be_bytes(), [0; 8]].concat();
        request("shop", vec![Span { trace_id, trace_state: (*state).into(), ..Span::default() }])
    });
    send(&fleet.gateways[0].grpc(), requests).await;
    fleet.stop();
    let mut states: Vec<String> =
        told(&backend).into_iter().map(|(span, _)| span.trace_state).collect();
    states.sort();
    let mut expected: Vec<&str> = cases.iter().filter_map(|(_, state)| *state).collect();
    expected.sort_unstable();
    assert_eq!(states, expected);
}

/// Trace numbers, each with what its spans tell: the policy, and whether the decision was remembered.
fn recorded(backend: &Backend) -> Vec<(u64, Option<String>, bool)> {
    let numbers: HashMap<Vec<u8>, u64> =
        (0..4).map(|number| (exporting::trace(number).id(), number)).collect();
    let name = |scope: &HashMap<String, KeyValue>| {
        let value = scope.get("tailsampling.policy")?.value.clone()?.value?;
        let Value::StringValue(name) = value else { return Some(format!("{value:?}")) };
        Some(name)
    };
    let cached = |scope: &HashMap<_, _>| scope.contains_key("tailsampling.cached_decision");
    let told = told(backend).into_iter();
    let mut list: Vec<_> =
        told.map(|(span, scope)| (numbers[&span.trace_id], name(&scope), cached(&scope))).collect();
    list.sort();
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_the_policy_that_decided_then() {
    let (directory, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let exporter = exporting::otlp("backend", "GRPC", &format!("http://{}", backend.address), "");
    let manifest = |policy: &str, record: bool| {
        let sampling = format!("decisionWait: 6s\n    recordPolicy: {record}");
        exporting::manifest(&exporter)
            .replace("decisionWait: 1s", &sampling)
            .replace("name: all", &format!("name: {policy}"))
    };
    let gateway = exporting::gateway(directory.path(), &manifest("first", true), &[]);
    let reload = |policy: &str, record: bool, times: f64| {
        let path = directory.path().join("pipeline.yaml");
        let fresh = directory.path().join("fresh.yaml");
        std::fs::write(&fresh, manifest(policy, record)).unwrap();
        std::fs::rename(fresh, path).unwrap();
        let applied = || gateway.metric("ringtail_config_reloads_total", "\"applied\"");
        wait_until("a newer manifest", || applied() >= times);
    };
    let part = |number: u64, part: u32| exporting::trace(number).part(part, 3);
    let send = async |requests: Vec<_>| exporting::send(&gateway, requests).await;
    let kept = |traces: u64| {
        gateway.wait_for("decisions", |stats| {
            stats.decisions.as_ref().is_some_and(|decisions| decisions.kept >= traces)
        });
    };

    send(vec![part(0, 0)]).await;
    kept(1);
    // Trace 1 is first seen before the change and decided after it.
    send(vec![part(1, 0)]).await;
    reload("second", true, 1.0);
    send(vec![part(1, 1), part(2, 0), part(0, 1)]).await;
    kept(3);
    reload("third", false, 2.0);
    send(vec![part(0, 2), part(2, 2), part(3, 0)]).await;
    kept(4);
    gateway.stop_balanced();

    let by = |name: &str| Some(name.to_owned());
    let expected = [
        (0, by("first"), false),
        (0, by("first"), true),
        (0, by("first"), true),
        (1, by("first"), false),
        (1, by("first"), false),
        (2, by("second"), false),
        (2, by("second"), true),
        (3, None, false),
    ];
    assert_eq!(recorded(&backend), expected);
}
