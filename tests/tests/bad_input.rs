//! Bad input to a real agent: each kind gets a clear answer, costs bounded memory, and loses nothing else.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use ringtail_tests::backend::Backend;
use ringtail_tests::compression::gzip;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::http::{Answer, post, post_declared};
use ringtail_tests::process::binary;
use ringtail_tests::traces::{Trace, request};

const PROTOBUF: &str = "content-type: application/x-protobuf";
const MIB: usize = 1 << 20;

fn good() -> Trace {
    Trace { number: 77, spans: 5, error: true, duration_ms: 10 }
}

/// A request with `count` spans that have nothing but a distinct valid trace ID: 20 bytes each on the wire.
fn minimal_spans(count: u32) -> Vec<u8> {
    let span = |number: u32| Span {
        trace_id: [u64::from(number).to_be_bytes(), [1; 8]].concat(),
        ..Span::default()
    };
    request("minimal", (0..count).map(span).collect()).encode_to_vec()
}

/// A valid request of 4 MiB: spans of two bytes, tag and length, without anything in them.
fn empty_spans() -> Vec<u8> {
    let scope: Vec<u8> = [0x12, 0x00].repeat(2 * MIB - 16);
    let field = |number: u8, body: &[u8]| {
        let mut out = vec![number << 3 | 2];
        ringtail_engine::wire::put_varint(&mut out, body.len() as u64);
        out.extend_from_slice(body);
        out
    };
    field(1, &field(2, &scope))
}

fn check(answer: &Answer, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    for word in words {
        assert!(answer.body.contains(word) || answer.head.contains(word), "{word}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_gets_a_clear_answer_and_loses_nothing_else() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 1, &backend.address.to_string(), &[]);
    let agent = &fleet.agents[0];
    let http = agent.http();
    let body = good().part(0, 1).encode_to_vec();

    let truncated = gzip(&body);
    let gzipped = [PROTOBUF, "content-encoding: gzip"];
    check(&post(&http, "/v1/traces", &gzipped, &truncated[..truncated.len() - 9]), 400, &["gzip"]);
    check(&post(&http, "/v1/traces", &[PROTOBUF], &body[..body.len() - 1]), 400, &["OTLP"]);
    check(
        &post(&http, "/v1/traces", &["content-type: text/csv"], &body),
        415,
        &["application/x-protobuf"],
    );
    check(
        &post(&http, "/v1/traces", &["content-type: application/json"], b"{]"),
        400,
        &["not JSON", "application/json"],
    );
    check(&post(&http, "/v1/traces", &[PROTOBUF, "content-encoding: br"], &body), 415, &["gzip"]);
    check(&post(&http, "/v1/metrics", &[PROTOBUF], b""), 404, &["metrics"]);
    check(&post(&http, "/v1/nothing", &[PROTOBUF], b""), 404, &[]);
    let declared = 64 * MIB as u64;
    check(&post_declared(&http, "/v1/traces", &[PROTOBUF], declared, &[0; 1024]), 413, &[]);
    let bomb = gzip(&vec![0_u8; 64 * MIB]);
    check(&post(&http, "/v1/traces", &gzipped, &bomb), 413, &[]);

    // The spans that are right in a request with wrong ones are taken.
    let mut mixed = good().part(0, 1);
    let wrong = Span { trace_id: vec![0; 16], span_id: vec![1; 8], ..Span::default() };
    let short = Span { trace_id: vec![1; 15], ..wrong.clone() };
    mixed.resource_spans.extend(request("wrong", vec![wrong, short]).resource_spans);
    let mut client = TraceServiceClient::connect(format!("http://{}", agent.grpc())).await.unwrap();
    let partial = client.export(mixed).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.contains("invalid trace ID"), "{}", partial.error_message);

    let (agents, _) = fleet.stop();
    assert_eq!(agents[0].ledger.refused["invalid_trace_id"], 2);
    assert_eq!(backend.traces()[&good().id()].len(), 5);
    assert_eq!(backend.spans(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_64_mib_grpc_request_is_refused_for_good() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 1, &backend.address.to_string(), &[]);
    let mut client =
        TraceServiceClient::connect(format!("http://{}", fleet.agents[0].grpc())).await.unwrap();
    let huge = Span { trace_id: vec![1; 16], name: "x".repeat(64 * MIB), ..Span::default() };
    let status = client.export(request("huge", vec![huge])).await.unwrap_err();
    let retried =
        [tonic::Code::Unavailable, tonic::Code::OutOfRange, tonic::Code::ResourceExhausted];
    assert!(!retried.contains(&status.code()), "OTLP clients would send it again: {status:?}");
    client.export(good().part(0, 1)).await.expect("the connection still works");
    fleet.stop();
    assert_eq!(backend.spans(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tiny_spans_are_charged_and_not_multiplied() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(
        ERRORS_AND_SLOW,
        1,
        2,
        &backend.address.to_string(),
        &["--memory-limit", "512Mi"],
    );
    let agent = &fleet.agents[0];
    let before = agent.resident_bytes();

    let empty = empty_spans();
    check(&post(&agent.http(), "/v1/traces", &[PROTOBUF], &empty), 200, &["invalid trace ID"]);
    let minimal = minimal_spans(200_000);
    check(&post(&agent.http(), "/v1/traces", &[PROTOBUF], &minimal), 200, &[]);
    // Each of the two bodies is about 4 MiB; decoded they would be 530 MiB and more.
    let grown = agent.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB as u64, "the agent grew by {grown} bytes");

    let (agents, gateways) = fleet.stop();
    assert_eq!(agents[0].ledger.out, 200_000);
    assert_eq!(agents[0].ledger.refused["invalid_trace_id"], 2 * MIB as u64 - 16);
    let away: u64 = gateways.iter().map(|end| end.ledger.sampled_away).sum();
    assert_eq!(away, 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_logs_get_unimplemented_over_grpc() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 1, &backend.address.to_string(), &[]);
    let address = format!("http://{}", fleet.agents[0].grpc());
    let mut client = MetricsServiceClient::connect(address).await.unwrap();
    let status = client.export(ExportMetricsServiceRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().contains("metrics"), "{status:?}");
    fleet.stop();
}

/// Runs `ringtail` to its end.
fn ringtail(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary()).args(args).output().expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_wrong_manifest_is_refused_with_every_problem() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.yaml");
    let wrong = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: shop}
spec:
  sampling:
    decisonWait: 30s
    policies:
      - {name: errors, type: StatusCode, statusCode: {statusCodes: [Failure]}}
      - {name: baseline, type: Probabilistic, probabilistic: {samplingPercentage: 0.1}}
      - {name: both, type: And, and: {policies: [errors, nobody]}}
  exporters: []
"#;
    std::fs::write(&path, wrong).unwrap();
    let file = path.to_str().unwrap();
    for args in [
        &["validate", file][..],
        &["gateway", "--pipeline", file],
        &["agent", "--pipeline", file, "--gateway", "127.0.0.1:1"],
        &["run", file],
    ] {
        let (code, text) = ringtail(args);
        assert_eq!(code, Some(64), "{args:?}: {text}");
        for problem in [
            "spec.sampling.decisonWait",
            "decisionWait",
            "spec.sampling.policies[0].statusCode.statusCodes[0]",
            "spec.sampling.policies[1].probabilistic.samplingPercentage",
            "quote",
            "spec.exporters",
        ] {
            assert!(text.contains(problem), "{args:?} does not name {problem}: {text}");
        }
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_said() {
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop.yaml");
    let cases: [(&[&str], &str); 5] = [
        (&["agent", "--pipeline", shop, "--otlp-grpc", "127.0.0.1:0"], "--gateway"),
        (&["agent", "--pipeline", "nowhere.yaml", "--gateway", "a:1"], "nowhere.yaml"),
        (&["gateway", "--pipeline", shop, "--export", "nobody=127.0.0.1:1"], "tempo"),
        (&["gateway", "--pipeline", shop, "--memory-limit", "lots"], "512Mi"),
        (&["gateway", "--pipeline", shop, "--seed-file", "nowhere"], "--seed-file"),
    ];
    for (args, words) in cases {
        let (code, text) = ringtail(args);
        assert_eq!(code, Some(64), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?} does not say {words}: {text}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop.yaml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = ringtail(&["gateway", "--pipeline", shop, "--otlp-grpc", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("in use"), "{text}");
    // What is wrong on the command line comes first: that is so on every machine.
    let wrong = ["--export", "nobody=127.0.0.1:1"];
    let args = [&["gateway", "--pipeline", shop, "--otlp-grpc", &address][..], &wrong].concat();
    let (code, text) = ringtail(&args);
    assert_eq!(code, Some(64), "{text}");
}
