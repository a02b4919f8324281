//! Log records through real processes: each arrives once, those of a trace by one gateway, those of kept
//! traces alone where the manifest says so, and none is lost without being counted.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap, HashSet};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use ringtail::stats::LedgerReport;
use ringtail_tests::api::SERVING;
use ringtail_tests::backend::Backend;
use ringtail_tests::certificates::Authority;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::http::post;
use ringtail_tests::http_backend::{HttpBackend, Manner};
use ringtail_tests::logs::{self, bodies, body, record, records, request};
use ringtail_tests::process::{Ended, Process, wait_until};
use ringtail_tests::shop::{self, Shop};
use ringtail_tests::traces::Trace;
use tonic::Code;

const PROTOBUF: &str = "content-type: application/x-protobuf";
const JSON: &str = "content-type: application/json";

/// The usual manifest with log records.
fn manifest(settings: &str) -> String {
    ERRORS_AND_SLOW.replace("spec:\n", &format!("spec:\n  logs: {settings}\n"))
}

fn trace(number: u64, error: bool) -> Trace {
    Trace { number, spans: 2, error, duration_ms: 20 }
}

fn books(ended: &Ended) -> &LedgerReport {
    ended.ledger.logs.as_deref().expect("books of log records")
}

fn dropped(ended: &[Ended]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (reason, records) in ended.iter().flat_map(|ended| &books(ended).dropped) {
        *sum.entry(reason.clone()).or_default() += records;
    }
    sum
}

async fn send_trace(address: &str, trace: Trace) {
    let client = TraceServiceClient::connect(format!("http://{address}")).await;
    client.unwrap().export(trace.part(0, 1)).await.expect("spans are taken");
}

const TRACES: u64 = 120;
const STRAY_REQUESTS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_once_and_those_of_a_trace_by_one_gateway() {
    // Each gateway has a backend of its own, so that it shows who forwarded what.
    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(Backend::start().await);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pipeline.yaml");
    std::fs::write(&file, manifest("{}")).unwrap();
    let file = file.to_str().unwrap();
    let gateways: Vec<Process> = (0..3)
        .map(|index| {
            let (id, export) =
                (format!("gw-{index}"), format!("backend={}", backends[index].address));
            Process::start(&["gateway", "--pipeline", file, "--identity", &id, "--export", &export])
        })
        .collect();
    let addresses: Vec<String> = gateways.iter().map(Process::grpc).collect();
    let agents: Vec<Process> = (0..2)
        .map(|index| {
            let id = format!("agent-{index}");
            let mut args = vec!["agent", "--pipeline", file, "--identity", &id];
            args.extend(addresses.iter().flat_map(|address| ["--gateway", address]));
            let agent = Process::start(&args);
            agent.wait_for("a full ring", |stats| stats.ring.members.len() == 3);
            agent
        })
        .collect();
    let mut clients = Vec::new();
    for agent in &agents {
        clients.push(logs::client(&agent.grpc()).await);
    }
    let mut sent = 0;
    // Both agents get records of each trace; the two services of a request are to survive.
    for number in 0..TRACES {
        for (index, client) in clients.iter_mut().enumerate() {
            let id = || trace(number, false).id();
            let record = |part: u32| record(id(), &format!("{number}/{index}/{part}"));
            let mut both = request("a", vec![record(0), record(1)]);
            both.resource_logs.extend(request("b", vec![record(2)]).resource_logs);
            sent += 3;
            let answer = client.export(both).await.expect("records are taken").into_inner();
            assert_eq!(answer.partial_success, None);
        }
    }
    for number in 0..STRAY_REQUESTS {
        // No ID, one of zeros, one that is too short: none of them is a trace.
        let strays = [vec![], vec![0; 16], vec![7; 15]].into_iter().enumerate();
        let strays = strays.map(|(part, id)| record(id, &format!("stray {number}/{part}")));
        sent += 3;
        let client = &mut clients[usize::try_from(number % 2).unwrap()];
        client.export(request("a", strays.collect())).await.expect("records are taken");
    }
    let stop = |processes: Vec<Process>| -> Vec<Ended> {
        processes.into_iter().map(Process::stop_balanced).collect()
    };
    let (agents, gateways) = (stop(agents), stop(gateways));
    let (mut seen, mut homes) = (HashMap::new(), HashMap::<Vec<u8>, HashSet<usize>>::new());
    let mut shares = [0_u64; 3];
    for (index, backend) in backends.iter().enumerate() {
        for request in backend.logs() {
            for (text, times) in bodies(std::slice::from_ref(&request)) {
                *seen.entry(text).or_insert(0) += times;
            }
            for record in records(&[request]) {
                if body(&record).starts_with("stray") {
                    shares[index] += u64::from(body(&record).ends_with("/0"));
                } else {
                    homes.entry(record.trace_id).or_default().insert(index);
                }
            }
        }
    }
    assert_eq!(seen.len() as u64, sent, "every record arrives");
    assert!(seen.values().all(|times| *times == 1), "and once");
    assert_eq!(homes.len() as u64, TRACES);
    assert!(homes.values().all(|homes| homes.len() == 1), "records of a trace by one gateway");
    // Throws of a die with three sides: the deviation is 8.2, and six of them happen once in 10^9.
    assert_eq!(shares.iter().sum::<u64>(), STRAY_REQUESTS);
    assert!(shares.iter().all(|share| share.abs_diff(100) < 50), "{shares:?}");
    let sum = |ended: &[Ended], pick: fn(&LedgerReport) -> u64| -> u64 {
        ended.iter().map(|ended| pick(books(ended))).sum()
    };
    assert_eq!(sum(&agents, |books| books.received.total()), sent);
    assert_eq!(sum(&agents, |books| books.out), sent);
    assert_eq!(sum(&gateways, |books| books.kept), sent);
    assert_eq!(sum(&gateways, |books| books.exporters["backend"].sent), sent);
    // The books of spans know nothing of it.
    assert!(gateways.iter().all(|ended| ended.ledger.received.total() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_follow_the_decision_on_their_trace() {
    let backend = Backend::start().await;
    let settings = "{keep: SampledTraces, undecided: Drop}";
    let fleet = Fleet::start(&manifest(settings), 2, 3, &backend.address.to_string(), &[]);
    let (kept, lost, unknown) = (trace(1, true), trace(2, false), trace(3, false));
    let agent = fleet.agents[0].grpc();
    let texts = |name: &str, trace: Trace| {
        request(
            "a",
            vec![
                record(trace.id(), &format!("{name} 1")),
                record(trace.id(), &format!("{name} 2")),
            ],
        )
    };
    // Before their spans, beside them, and after the decision.
    logs::send(&agent, texts("kept early", kept)).await.unwrap();
    logs::send(&agent, texts("lost early", lost)).await.unwrap();
    logs::send(&agent, texts("unknown", unknown)).await.unwrap();
    logs::send(&agent, request("a", vec![record(vec![], "stray")])).await.unwrap();
    wait_until("the stray to arrive", || bodies(&backend.logs()).contains_key("stray"));
    assert_eq!(bodies(&backend.logs()).len(), 1, "nothing of an undecided trace has left");
    for trace in [kept, lost] {
        send_trace(&fleet.agents[1].grpc(), trace).await;
    }
    wait_until("the kept to arrive", || bodies(&backend.logs()).contains_key("kept early 1"));
    let fate = |label: &str| -> f64 {
        let of = |gateway: &Process| gateway.metric("ringtail_log_records_total", label);
        fleet.gateways.iter().map(of).sum()
    };
    wait_until("the lost to go", || fate("sampled=\"false\"") >= 2.0);
    logs::send(&fleet.agents[1].grpc(), texts("kept late", kept)).await.unwrap();
    logs::send(&fleet.agents[1].grpc(), texts("lost late", lost)).await.unwrap();
    wait_until("the late to arrive", || bodies(&backend.logs()).contains_key("kept late 1"));
    wait_until("the late to go", || fate("sampled=\"false\"") >= 4.0);
    let (agents, gateways) = fleet.stop();
    let arrived: HashSet<String> = bodies(&backend.logs()).into_keys().collect();
    let names = ["kept early 1", "kept early 2", "kept late 1", "kept late 2", "stray"];
    assert_eq!(arrived, names.map(str::to_owned).into());
    assert_eq!(agents.iter().map(|ended| books(ended).out).sum::<u64>(), 11);
    assert_eq!(gateways.iter().map(|ended| books(ended).sampled_away).sum::<u64>(), 4);
    // Of the unknown trace nothing was decided when the gateways ended.
    assert_eq!(dropped(&gateways), BTreeMap::from([("undecided".to_owned(), 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_decides_is_kept_by_default_after_its_time() {
    let backend = Backend::start().await;
    let manifest = manifest("{keep: SampledTraces}");
    let fleet = Fleet::start(&manifest, 0, 1, &backend.address.to_string(), &[]);
    let unknown = request("a", vec![record(trace(1, false).id(), "unknown")]);
    logs::send(&fleet.gateways[0].grpc(), unknown.clone()).await.unwrap();
    // decisionWait is a second, and ten are for spans that come later.
    wait_until("the record to arrive", || bodies(&backend.logs()).contains_key("unknown"));
    let metric = |name: &str, label: &str| fleet.gateways[0].metric(name, label);
    assert!((metric("ringtail_undecided_log_records_total", "sampled=\"true\"") - 1.0).abs() < 0.1);
    assert!(metric("ringtail_early_log_records_total", "").abs() < 0.1);
    logs::send(&fleet.gateways[0].grpc(), unknown).await.unwrap();
    let (_, gateways) = fleet.stop();
    // The second one was not waited for.
    assert_eq!((books(&gateways[0]).kept, bodies(&backend.logs())["unknown"]), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_logs_refuses_them_as_before() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 1, &backend.address.to_string(), &[]);
    for process in [&fleet.agents[0], &fleet.gateways[0]] {
        let sent = logs::send(&process.grpc(), request("a", vec![record(vec![], "no")])).await;
        let status = sent.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().starts_with("logs are not taken here"), "{status:?}");
        let answer = post(&process.http(), "/v1/logs", &[PROTOBUF], &[]);
        assert_eq!(answer.status, 404);
    }
    let (agents, gateways) = fleet.stop();
    assert!(agents.iter().chain(&gateways).all(|ended| ended.ledger.logs.is_none()));
    assert!(backend.logs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_records_are_left_out_and_wrong_requests_refused() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(&manifest("{}"), 1, 1, &backend.address.to_string(), &[]);
    for process in [&fleet.agents[0], &fleet.gateways[0]] {
        let post = |bytes: &[u8]| post(&process.http(), "/v1/logs", &[PROTOBUF], bytes);
        let good = request("a", vec![record(vec![3; 16], "good"), record(vec![], "stray")]);
        let whole = good.encode_to_vec();
        for cut in [1, whole.len() / 2, whole.len() - 1] {
            assert_eq!(post(&whole[..cut]).status, 400, "cut at {cut}");
        }
        // The severity of the last record is not UTF-8.
        let at = whole.windows(4).rposition(|bytes| bytes == b"INFO").unwrap();
        let mut wrong = whole.clone();
        wrong[at] = 0xff;
        let answer = post(&wrong);
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("1 log records were left out"), "{answer:?}");
        // Nested more deeply than anything is followed.
        let deep = (0..40).fold(AnyValue::default(), |inner, _| AnyValue {
            value: Some(Value::ArrayValue(ArrayValue { values: vec![inner] })),
        });
        let deep = LogRecord { body: Some(deep), ..record(vec![], "") };
        let answer = post(&request("a", vec![deep]).encode_to_vec());
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("nested more than 32 deep"), "{answer:?}");
        assert_eq!(post(&vec![0; 20 << 20]).status, 413);
        assert_eq!(post(&[]).status, 200, "a request of nothing is one");
    }
    let (agents, gateways) = fleet.stop();
    assert_eq!(books(&agents[0]).refused, BTreeMap::from([("malformed".to_owned(), 1)]));
    // Two requests with one good record each, once through the agent.
    assert_eq!((books(&agents[0]).out, books(&gateways[0]).kept), (1, 2));
    assert_eq!(bodies(&backend.logs()).values().sum::<usize>(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_forward_says_so_and_a_killed_gateway_loses_no_more_than_it_had() {
    let backend = Backend::start().await;
    let mut fleet = Fleet::start(&manifest("{}"), 1, 2, &backend.address.to_string(), &[]);
    let agent = fleet.agents[0].grpc();
    let mut client = logs::client(&agent).await;
    let mut sent = 0;
    let mut send = async |from: u64, to: u64| {
        let mut refused = 0;
        for number in from..to {
            let one = record(trace(number, false).id(), &format!("{number}"));
            match client.export(request("a", vec![one])).await {
                Ok(_) => sent += 1,
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    assert!(!status.details().is_empty(), "RetryInfo says when to come back");
                    refused += 1;
                }
            }
        }
        (sent, refused)
    };
    send(0, 100).await;
    let killed = fleet.gateways.remove(1);
    killed.signal("KILL");
    drop(killed);
    // What was for the dead one goes to the other, once the agent has noticed.
    send(100, 200).await;
    fleet.agents[0].wait_for("a smaller ring", |stats| stats.ring.members.len() == 1);
    let (before, refused) = send(200, 300).await;
    let survivor = fleet.gateways.remove(0);
    let ended = |stats: &ringtail::stats::Stats| stats.ledger.logs.as_ref().unwrap().held == 0;
    fleet.agents[0].wait_for("everything to be delivered", ended);
    let survivor = survivor.stop_balanced();
    fleet.agents[0].wait_for("no ring", |stats| stats.ring.members.is_empty());
    // Nobody is left: the client is told.
    let (after, told) = send(300, 303).await;
    assert_eq!((after, told), (before, 3));
    let books_of_agent = fleet.agents.remove(0).stop_balanced();
    let books_of_agent = books(&books_of_agent);
    assert_eq!(books_of_agent.received.total(), 303);
    assert_eq!(books_of_agent.refused.values().sum::<u64>(), refused + told);
    assert_eq!(books_of_agent.out, before, "acknowledged by one of the two");
    let arrived = bodies(&backend.logs());
    // The dead one had acknowledged some and may have exported them or not: that is what is not protected.
    let lost = before - arrived.len() as u64;
    let by_survivor = books(&survivor).kept;
    assert!(lost <= before - by_survivor.min(before), "{lost} {by_survivor}");
    assert!(by_survivor > 150, "{by_survivor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_records_do_not_wait_for_each_other() {
    let backend = Backend::start().await;
    // A queue of the smallest size, of which records fill their half while the backend takes none.
    let manifest =
        manifest("{}").replace("protocol: GRPC", "protocol: GRPC\n        queue: {maxBytes: 1Mi}");
    let fleet = Fleet::start(&manifest, 0, 1, &backend.address.to_string(), &[]);
    backend.behave(Manner::Unavailable);
    let gateway = fleet.gateways[0].grpc();
    let long = "x".repeat(60_000);
    for number in 0..40 {
        let one = record(vec![], &format!("{number} {long}"));
        logs::send(&gateway, request("a", vec![one])).await.unwrap();
    }
    send_trace(&gateway, trace(1, true)).await;
    fleet.gateways[0]
        .wait_for("a decision", |stats| stats.decisions.is_some_and(|is| is.kept == 1));
    backend.behave(Manner::Well);
    wait_until("the spans to arrive", || backend.spans() == 2);
    let (_, gateways) = fleet.stop();
    let line = &books(&gateways[0]).exporters["backend"];
    assert!(line.dropped["queue_full"] > 20, "{line:?}");
    assert_eq!(line.sent, bodies(&backend.logs()).len() as u64);
    assert_eq!(gateways[0].ledger.exporters["backend"].sent, 2);
    assert!(gateways[0].ledger.exporters["backend"].dropped.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_gives_records_up_no_faster_than_slow_backends_take_them() {
    let backend = Backend::start().await;
    let manifest = manifest("{keep: SampledTraces}")
        .replace("protocol: GRPC", "protocol: GRPC\n        queue: {maxBytes: 2Mi}");
    let fleet = Fleet::start(&manifest, 0, 1, &backend.address.to_string(), &[]);
    backend.behave(Manner::Slow);
    let long = "x".repeat(60_000);
    // Five times the half of the queue that is for records, of traces that nobody decides.
    for number in 0..80 {
        let one = record(trace(number, false).id(), &format!("{number} {long}"));
        logs::send(&fleet.gateways[0].grpc(), request("a", vec![one])).await.unwrap();
    }
    let (_, gateways) = fleet.stop();
    let line = &books(&gateways[0]).exporters["backend"];
    assert_eq!((line.sent, bodies(&backend.logs()).len()), (80, 80), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redaction_is_about_records_too() {
    let backend = Backend::start().await;
    let redaction =
        "spec:\n  redaction: {remove: [password], mask: [{valuePattern: \"[0-9]{4}\"}]}\n";
    let manifest = manifest("{}").replace("spec:\n", redaction);
    let fleet = Fleet::start(&manifest, 1, 1, &backend.address.to_string(), &[]);
    let mut secret = record(vec![5; 16], "card 4711 of 4712");
    secret.attributes.push(ringtail_tests::traces::text("password", "hunter2"));
    secret.attributes.push(ringtail_tests::traces::text("pin", "0815"));
    let sent: ExportLogsServiceRequest = request("shop 2024", vec![secret]);
    logs::send(&fleet.agents[0].grpc(), sent).await.unwrap();
    let (_, _) = fleet.stop();
    let arrived = backend.logs();
    let record = &records(&arrived)[0];
    assert_eq!(body(record), "card **** of ****");
    let keys: Vec<&str> = record.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["thread", "pin"]);
    let told = format!("{arrived:?}");
    for secret in ["4711", "0815", "hunter2", "2024"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

const EVERYWHERE: &str = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: test}
spec:
  sampling: {policies: [{name: all, type: AlwaysSample}]}
  logs: {}
  exporters:
    - {name: protobuf, type: OTLP, otlp: {endpoint: "http://PROTOBUF", protocol: HTTPProtobuf}}
    - name: json
      type: OTLP
      signals: [Logs]
      otlp: {endpoint: "http://JSON/api/v1/traces", protocol: HTTPJSON, compression: Zstd}
    - name: only-spans
      type: OTLP
      signals: [Traces]
      otlp: {endpoint: "http://SPANS", protocol: HTTPJSON}
    - {name: file, type: File, file: {path: "FILE"}}
    - {name: print, type: Debug, debug: {verbosity: Normal}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn records_come_as_json_and_leave_by_every_exporter() {
    let (protobuf, json, spans) =
        (HttpBackend::start().await, HttpBackend::start().await, HttpBackend::start().await);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.json");
    let manifest = EVERYWHERE
        .replace("PROTOBUF", &protobuf.address.to_string())
        .replace("//JSON", &format!("//{}", json.address))
        .replace("SPANS", &spans.address.to_string())
        .replace("FILE", out.to_str().unwrap());
    let file = directory.path().join("pipeline.yaml");
    std::fs::write(&file, manifest).unwrap();
    let gateway = Process::start(&["gateway", "--pipeline", file.to_str().unwrap()]);
    let text = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":
        {"stringValue":"shop"}}]},"scopeLogs":[{"logRecords":[
        {"timeUnixNano":"7","severityNumber":"SEVERITY_NUMBER_WARN","severityText":"WARN",
         "body":{"stringValue":"out of stock"},"traceId":"0102030405060708090a0b0c0d0e0f10"},
        {"traceId":7}]}]}]}"#;
    let answer = post(&gateway.http(), "/v1/logs", &[JSON], text.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains(r#""rejectedLogRecords":"1""#), "{answer:?}");
    send_trace(&gateway.grpc(), trace(1, false)).await;
    let ended = gateway.stop_balanced();
    for (backend, path) in [(&protobuf, "/v1/logs"), (&json, "/api/v1/logs")] {
        let requests = backend.logs();
        let [record] = &records(&requests)[..] else { panic!("one record: {requests:?}") };
        assert_eq!((body(record), record.severity_number), ("out of stock".to_owned(), 13));
        assert_eq!(record.trace_id, (1..=16).collect::<Vec<u8>>());
        assert!(backend.heads().iter().any(|(_, taken)| taken == path), "{path}");
    }
    assert_eq!((protobuf.spans(), json.spans(), spans.spans()), (2, 0, 2));
    assert!(spans.logs().is_empty());
    let lines = std::fs::read_to_string(&out).unwrap();
    assert!(
        lines.contains(r#""resourceSpans":"#) && lines.contains(r#""resourceLogs":"#),
        "{lines}"
    );
    let printed =
        r#"WARN "out of stock" trace=0102030405060708090a0b0c0d0e0f10 service.name="shop""#;
    assert!(ended.printed.contains(printed), "{}", ended.printed);
    let names: Vec<&str> = books(&ended).exporters.keys().map(String::as_str).collect();
    assert_eq!(names, ["file", "json", "print", "protobuf"]);
    assert!(books(&ended).exporters.values().all(|line| line.sent == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_disk_keeps_records_over_a_kill() {
    let backend = Backend::start().await;
    let queue = "protocol: GRPC\n        queue: {persistent: {sizeLimit: 64Mi}}";
    let text = manifest("{}").replace("protocol: GRPC", queue);
    let directory = tempfile::tempdir().unwrap();
    let (file, data) = (directory.path().join("pipeline.yaml"), directory.path().join("data"));
    std::fs::write(&file, text).unwrap();
    std::fs::create_dir(&data).unwrap();
    let export = format!("backend={}", backend.address);
    let (file, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    let args = ["gateway", "--pipeline", file, "--data-dir", data, "--export", &export];
    backend.behave(Manner::Unavailable);
    let first = Process::start(&args);
    for number in 0..5 {
        let one = request("a", vec![record(vec![], &number.to_string())]);
        logs::send(&first.grpc(), one).await.unwrap();
    }
    wait_until("records on disk", || {
        first.metric("ringtail_exporter_log_disk_bytes", "backend") > 0.0
    });
    wait_until("an attempt", || backend.calls() > 0);
    first.signal("KILL");
    drop(first);
    backend.behave(Manner::Well);
    let second = Process::start(&args);
    wait_until("all records", || bodies(&backend.logs()).len() == 5);
    let ended = second.stop_balanced();
    assert_eq!(books(&ended).exporters["backend"].recovered, 5);
}

#[test]
fn the_example_is_a_pipeline_of_both_signals() {
    let example = include_str!("../../examples/logs.yaml");
    let pipeline = ringtail_crds::validate(example).unwrap();
    assert!(pipeline.logs.is_some());
    assert!(pipeline.exporters.iter().all(|exporter| exporter.signals.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_wait_for_gateways_that_take_no_records_yet() {
    let backend = Backend::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (without, with) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    std::fs::write(&without, ERRORS_AND_SLOW).unwrap();
    std::fs::write(&with, manifest("{}")).unwrap();
    let export = format!("backend={}", backend.address);
    let gateway = |file: &std::path::Path, address: &str| {
        let file = file.to_str().unwrap();
        let args = ["gateway", "--pipeline", file, "--identity", "gw", "--export", &export];
        Process::start(&[&args[..], &["--otlp-grpc", address]].concat())
    };
    let old = gateway(&without, "127.0.0.1:0");
    let address = old.grpc();
    let args = ["agent", "--pipeline", with.to_str().unwrap(), "--gateway", &address];
    let agent = Process::start(&args);
    agent.wait_for("a ring", |stats| stats.ring.members.len() == 1);
    logs::send(&agent.grpc(), request("a", vec![record(vec![], "patient")])).await.unwrap();
    old.stop_balanced();
    let new = gateway(&with, &address);
    wait_until("the record to arrive", || bodies(&backend.logs()).contains_key("patient"));
    let agent = agent.stop_balanced();
    assert_eq!((books(&agent).out, books(&new.stop_balanced()).kept), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_through_mutual_tls_between_the_tiers() {
    let (backend, authority) = (Backend::start().await, Authority::generate());
    let text = shop::manifest("1s", shop::ALL).replace("spec:\n", "spec:\n  logs: {}\n");
    let mut shop = Shop::open(&text, &backend.address.to_string());
    shop.certify(&authority, &[&authority]);
    for index in 0..2 {
        shop.add_gateway(&format!("gw-{index}"), &[]);
        shop.list(index, SERVING);
    }
    shop.add_agent("agent-0");
    shop.await_members(2);
    let all = (0..40).map(|number| record(trace(number, false).id(), &number.to_string()));
    logs::send(&shop.agents[0].grpc(), request("a", all.collect())).await.unwrap();
    let (agents, gateways) = shop.stop();
    assert_eq!(bodies(&backend.logs()).len(), 40);
    assert_eq!(books(&agents[0]).out, 40);
    assert!(gateways.iter().all(|ended| books(ended).kept > 0), "each has a share");
}
