//! What applications may send and have to show, at the ports of real agents and gateways.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use ringtail_tests::backend::Backend;
use ringtail_tests::certificates::Authority;
use ringtail_tests::compression::{gzip, zstd};
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::http::post;
use ringtail_tests::process::{Process, binary, wait_until};
use ringtail_tests::traces::Trace;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const JSON: &str = "content-type: application/json";
const FIRST: &str = "the-first-token-of-all";
const SECOND: &str = "the-second-token-of-all";
/// What certificates of this file are for.
const NAME: &str = "otlp.test";

/// A failed trace of two spans, as a browser's SDK writes it: IDs in hex, times as strings, and a field that
/// nobody here knows.
fn in_json(trace: &str) -> String {
    let span = |id: u32, parent: &str, code: u32| {
        format!(
            r#"{{"traceId":"{trace}","spanId":"000000000000000{id}","parentSpanId":"{parent}",
            "name":"GET \u00fc","kind":2,"startTimeUnixNano":"1700000000000000000",
            "endTimeUnixNano":"1700000000250000000","attributes":[
            {{"key":"http.status_code","value":{{"intValue":"500"}}}},
            {{"key":"list","value":{{"arrayValue":{{"values":[{{"doubleValue":0.5}}]}}}}}}],
            "droppedAttributesCount":0,"events":[],"droppedEventsCount":0,"links":[],
            "droppedLinksCount":0,"status":{{"code":{code}}},"fromTheFuture":{{"a":[1,2]}}}}"#
        )
    };
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name",
        "value":{{"stringValue":"browser"}}}}],"droppedAttributesCount":0}},"scopeSpans":[{{
        "scope":{{"name":"document-load","version":"1.2"}},"spans":[{},{}]}}]}}]}}"#,
        span(1, "", 0),
        span(2, "0000000000000001", 2)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_taken_as_protobuf_is() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 1, &backend.address.to_string(), &[]);
    let agent = fleet.agents[0].http();
    let ids: Vec<String> = (1..=4).map(|number| format!("{number:032X}")).collect();
    // Larger than what is converted where it is read.
    let padded = in_json(&ids[3]) + &" ".repeat(300 << 10);
    let gzipped = [JSON, "content-encoding: gzip"];
    let zstded = ["content-type: Application/JSON; charset=utf-8", "content-encoding: zstd"];
    let ports = [agent.clone(), agent.clone(), fleet.gateways[0].http(), agent.clone()];
    let bodies = [
        (&[JSON][..], in_json(&ids[0]).into_bytes()),
        (&gzipped[..], gzip(in_json(&ids[1]).as_bytes())),
        (&zstded[..], zstd(in_json(&ids[2]).as_bytes())),
        (&[JSON][..], padded.into_bytes()),
    ];
    for (port, (headers, body)) in ports.iter().zip(&bodies) {
        let answer = post(port, "/v1/traces", headers, body);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{answer:?}");
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
    }

    // One span of three is wrong, and one has an ID that is none.
    let wrong =
        in_json("00000000000000000000000000000009").replacen("\"kind\":2", "\"kind\":{}", 1);
    let answer = post(&agent, "/v1/traces", &[JSON], wrong.as_bytes());
    assert_eq!(answer.status, 200);
    let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["partialSuccess"]["rejectedSpans"], "1", "{told}");
    let words = told["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(words.contains("kind at byte"), "{words}");
    for (body, words) in [("{", "ends too early"), ("[]", "an object"), ("{\"a\" 1}", "not JSON")] {
        let answer = post(&agent, "/v1/traces", &[JSON], body.as_bytes());
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(told["message"].as_str().unwrap().contains(words), "{body}: {told}");
    }

    let (agents, _) = fleet.stop();
    assert_eq!(agents[0].ledger.refused["malformed"], 1);
    let traces = backend.traces();
    assert_eq!(traces.len(), 5);
    for id in &ids {
        let id = u128::from_str_radix(id, 16).unwrap().to_be_bytes().to_vec();
        let (service, span) = &traces[&id][0];
        assert_eq!((service.as_str(), span.name.as_str(), span.kind), ("browser", "GET ü", 2));
        let value = span.attributes[0].value.as_ref().unwrap().value.clone();
        assert_eq!((traces[&id].len(), value), (2, Some(Value::IntValue(500))));
    }
}

/// Files for the receivers: a certificate, the clients' authority, tokens.
struct Files {
    directory: tempfile::TempDir,
    servers: Authority,
    clients: Authority,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (servers, clients) = (Authority::generate(), Authority::generate());
        let files = Self { directory, servers, clients };
        files.renew();
        std::fs::write(files.path("ca.crt"), files.clients.pem()).unwrap();
        files.write_tokens(FIRST);
        files
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn renew(&self) {
        let presented = self.servers.sign(NAME);
        std::fs::write(self.path("tls.crt"), presented.certificate).unwrap();
        std::fs::write(self.path("tls.key"), presented.key).unwrap();
    }

    fn write_tokens(&self, text: &str) {
        std::fs::write(self.path("tokens"), text).unwrap();
    }

    /// A client that trusts the servers, and shows a certificate of an authority, if told to.
    async fn connect(&self, address: &str, shown: Option<&Authority>) -> Option<Channel> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.servers.pem()))
            .domain_name(NAME);
        if let Some(authority) = shown {
            let own = authority.sign("app.test");
            tls = tls.identity(Identity::from_pem(own.certificate, own.key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.ok()
    }
}

/// Sends a failed trace and gives the code of the answer.
async fn send(channel: Channel, number: u64, token: Option<&str>) -> tonic::Code {
    let trace = Trace { number, spans: 2, error: true, duration_ms: 1 };
    let mut request = tonic::Request::new(trace.part(0, 1));
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let answer = TraceServiceClient::new(channel).export(request).await;
    answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_have_to_show_a_certificate_and_a_token() {
    let (backend, files) = (Backend::start().await, Files::new());
    let (tls, tokens) = (files.path(""), files.path("tokens"));
    let guarded = ["--otlp-tls", &tls, "--otlp-client-ca", &tls, "--otlp-tokens", &tokens];
    let backend_at = backend.address.to_string();
    let fleet = Fleet::start_each(ERRORS_AND_SLOW, (1, &guarded), (1, &[]), &backend_at);
    let agent = &fleet.agents[0];
    let address = agent.grpc();

    let ours = files.connect(&address, Some(&files.clients)).await.unwrap();
    assert_eq!(send(ours.clone(), 1, Some(FIRST)).await, tonic::Code::Ok);
    assert_eq!(send(ours.clone(), 2, None).await, tonic::Code::Unauthenticated);
    assert_eq!(send(ours.clone(), 2, Some(SECOND)).await, tonic::Code::Unauthenticated);
    // With TLS 1.3 a client hears that it is refused when it first reads.
    for shown in [None, Some(&files.servers)] {
        if let Some(channel) = files.connect(&address, shown).await {
            assert_ne!(send(channel, 3, Some(FIRST)).await, tonic::Code::Ok);
        }
    }
    let handshakes = |outcome: &str| agent.metric("ringtail_receiver_handshakes_total", outcome);
    wait_until("the refusals are counted", || {
        handshakes("no_certificate") >= 1.0 && handshakes("bad_certificate") >= 1.0
    });

    // An old and a new token are taken together; then the old one no more.
    files.write_tokens(&format!("{FIRST}\n{SECOND}\n"));
    let applied = |files: &str| {
        let text = agent.admin("/metrics");
        let line =
            format!("ringtail_receiver_files_total{{files=\"{files}\",outcome=\"applied\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    wait_until("two tokens", || applied("tokens") == 1);
    for token in [FIRST, SECOND] {
        assert_eq!(send(ours.clone(), 4, Some(token)).await, tonic::Code::Ok);
    }
    files.write_tokens(SECOND);
    wait_until("one token", || applied("tokens") == 2);
    assert_eq!(send(ours.clone(), 5, Some(FIRST)).await, tonic::Code::Unauthenticated);
    // A new certificate is for new connections; the one that stands goes on.
    files.renew();
    wait_until("another certificate", || applied("certificates") >= 1);
    let again = files.connect(&address, Some(&files.clients)).await.unwrap();
    for channel in [ours, again] {
        assert_eq!(send(channel, 6, Some(SECOND)).await, tonic::Code::Ok);
    }
    let metrics = agent.admin("/metrics") + &agent.admin("/stats");
    assert!(!metrics.contains(FIRST) && !metrics.contains(SECOND));
    let (agents, _) = fleet.stop();
    assert_eq!(agents[0].ledger.received.clients, 2 * 5);
    assert_eq!(backend.traces().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_the_wrong_port_is_told() {
    let (backend, files) = (Backend::start().await, Files::new());
    let tls = files.path("");
    let backend_at = backend.address.to_string();
    let fleet =
        Fleet::start_each(ERRORS_AND_SLOW, (1, &["--otlp-tls", &tls]), (1, &[]), &backend_at);
    let (agent, gateway) = (&fleet.agents[0], &fleet.gateways[0]);

    // Plain text where TLS is spoken, over HTTP and over gRPC.
    let answer = post(&agent.http(), "/v1/traces", &[JSON], in_json("1").as_bytes());
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("https://"), "{answer:?}");
    let plain = Endpoint::from_shared(format!("http://{}", agent.grpc())).unwrap();
    let status = TraceServiceClient::new(plain.connect().await.unwrap())
        .export(Trace { number: 1, spans: 1, error: true, duration_ms: 1 }.part(0, 1))
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("https://"), "{status:?}");
    // TLS where plain text is spoken: an alert, at once.
    let mut stream = TcpStream::connect(gateway.grpc()).unwrap();
    stream.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 40]);
    // Neither; and a handshake that never goes on.
    let mut stream = TcpStream::connect(agent.http()).unwrap();
    stream.write_all(b"\x00\x01\x02\x03\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    let stalled: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(agent.grpc()).unwrap();
            stream.write_all(&[22, 3, 1]).unwrap();
            stream
        })
        .collect();

    let channel = files.connect(&agent.grpc(), None).await.unwrap();
    assert_eq!(send(channel, 1, None).await, tonic::Code::Ok);
    drop(stalled);
    let closed = |process: &Process, cause: &str| {
        process.metric("ringtail_receiver_closed_connections_total", &format!("\"{cause}\""))
    };
    assert!(closed(agent, "plain_on_tls") >= 2.0);
    // It is counted when the other side has gone, or after a second.
    wait_until("the alert is counted", || closed(gateway, "tls_on_plain") >= 1.0);
    let (agents, _) = fleet.stop();
    assert_eq!(agents[0].ledger.received.clients, 2);
}

#[test]
fn a_process_that_lacks_what_the_manifest_asks_for_does_not_start() {
    let files = Files::new();
    let manifest = |receivers: &str| {
        let text = format!("{ERRORS_AND_SLOW}  agent: {{receivers: {{otlp: {receivers}}}}}\n");
        let path = Path::new(&files.path("")).join("pipeline.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tls = "{tls: {certificateRef: {name: a}}}";
    let mutual = "{tls: {certificateRef: {name: a}, clientCARef: {name: b}}}";
    let tokens = "{bearerTokenSecretRef: {name: a, key: b}}";
    let (here, nowhere) = (files.path(""), files.path("nowhere"));
    let short = files.path("short");
    std::fs::write(&short, "secret").unwrap();
    let cases: [(&str, &[&str], &str); 7] = [
        (tls, &[], "--otlp-tls DIR"),
        (mutual, &["--otlp-tls", &here], "--otlp-client-ca DIR"),
        (tokens, &[], "--otlp-tokens FILE"),
        (tls, &["--otlp-tls", &nowhere], "tls.crt"),
        (tokens, &["--otlp-tokens", &short], "16 characters"),
        (tls, &["--otlp-unguarded"], "loopback"),
        (tls, &["--otlp-tls", &here], "--peer-tls"),
    ];
    for (receivers, flags, words) in cases {
        let path = manifest(receivers);
        let role: &[&str] = if words == "--peer-tls" {
            &["gateway"]
        } else {
            &["agent", "--gateway", "127.0.0.1:1"]
        };
        let output = Command::new(binary())
            .args(role)
            .args(["--pipeline", &path])
            .args(flags)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{words}: {text}");
        assert!(text.contains(words) && !text.contains("secret"), "{words}: {text}");
    }
}
