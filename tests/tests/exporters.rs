//! Exporters of a real gateway over real sockets: backends that are down, stall, fail half of the time,
//! refuse for good or take a part, each beside a healthy one that must not notice; conditions, files and the
//! log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use ringtail::stats::ExporterLedger;
use ringtail_tests::backend::Backend;
use ringtail_tests::exporting::{self, SPANS, gateway, logged, manifest, send, trace};
use ringtail_tests::http_backend::{HttpBackend, Manner};
use ringtail_tests::process::Process;

const TRACES: u64 = 40;
const ALL: u64 = TRACES * SPANS;

/// The protocols of the manifest.
const PROTOCOLS: [&str; 3] = ["GRPC", "HTTPProtobuf", "HTTPJSON"];

/// A backend of any protocol.
enum Any {
    Grpc(Backend),
    Http(HttpBackend),
}

impl Any {
    async fn start(protocol: &str) -> Self {
        Self::start_at(protocol, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_at(protocol: &str, address: SocketAddr) -> Self {
        match protocol {
            "GRPC" => Self::Grpc(Backend::start_at(address).await),
            _ => Self::Http(HttpBackend::start_at(address, None).await),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Grpc(backend) => backend.address,
            Self::Http(backend) => backend.address,
        }
    }

    fn behave(&self, manner: Manner) {
        match self {
            Self::Grpc(backend) => backend.behave(manner),
            Self::Http(backend) => backend.behave(manner),
        }
    }

    fn spans(&self) -> u64 {
        let spans = match self {
            Self::Grpc(backend) => backend.spans(),
            Self::Http(backend) => backend.spans(),
        };
        spans as u64
    }

    fn calls(&self) -> u64 {
        match self {
            Self::Grpc(backend) => backend.calls(),
            Self::Http(backend) => backend.calls(),
        }
    }
}

fn otlp(name: &str, protocol: &str, address: SocketAddr, more: &str) -> String {
    exporting::otlp(name, protocol, &format!("http://{address}"), more)
}

async fn send_all(gateway: &Process) {
    send(gateway, (0..TRACES).map(|number| trace(number).part(0, 1))).await;
}

fn line(gateway: &Process, name: &str) -> ExporterLedger {
    gateway.stats().ledger.exporters[name].clone()
}

/// The faulty exporter's line at the end, and how many spans and requests its backend took.
async fn run(protocol: &str, manner: Manner) -> (ExporterLedger, u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let (faulty, healthy) = (Any::start(protocol).await, Any::start(protocol).await);
    faulty.behave(manner);
    let exporters = otlp("faulty", protocol, faulty.address(), "")
        + &otlp("healthy", protocol, healthy.address(), "");
    let gateway = gateway(directory.path(), &manifest(&exporters), &[]);
    send_all(&gateway).await;
    gateway.wait_for("the healthy exporter", |stats| stats.ledger.exporters["healthy"].sent == ALL);
    let gives_up = matches!(manner, Manner::Refusing | Manner::AllButOne | Manner::HalfUnavailable);
    if !gives_up {
        let waits = line(&gateway, "faulty");
        assert_eq!((waits.sent, waits.held), (0, ALL), "{protocol} {manner:?}: {waits:?}");
        let calls = faulty.calls();
        while faulty.calls() < calls + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        faulty.behave(Manner::Well);
    }
    gateway.wait_for("the faulty exporter", |stats| stats.ledger.exporters["faulty"].held == 0);
    let ended = gateway.stop_balanced();
    let healthy_line = &ended.ledger.exporters["healthy"];
    assert_eq!((healthy_line.received, healthy_line.sent, healthy.spans()), (ALL, ALL, ALL));
    let line = ended.ledger.exporters["faulty"].clone();
    assert_eq!((line.received, line.held), (ALL, 0), "{protocol} {manner:?}: {line:?}");
    (line, faulty.spans(), faulty.calls())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_unavailable_or_stalls_gets_everything_later() {
    for protocol in PROTOCOLS {
        for manner in [Manner::Unavailable, Manner::Stalled] {
            let (line, spans, _) = run(protocol, manner).await;
            assert_eq!((line.sent, spans), (ALL, ALL), "{protocol} {manner:?}: {line:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_half_of_the_time_gets_everything_once() {
    for protocol in PROTOCOLS {
        let (line, spans, calls) = run(protocol, Manner::HalfUnavailable).await;
        assert_eq!((line.sent, spans), (ALL, ALL), "{protocol}: {line:?}");
        assert!(calls >= 2, "{protocol}: {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_refuses_for_good_is_dropped_and_never_repeated() {
    for protocol in PROTOCOLS {
        let (line, spans, calls) = run(protocol, Manner::Refusing).await;
        assert_eq!((line.sent, spans), (0, 0), "{protocol}: {line:?}");
        assert_eq!(line.dropped["refused_for_good"], ALL, "{protocol}: {line:?}");
        assert!((1..=TRACES).contains(&calls), "{protocol}: {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_success_is_counted_and_never_repeated() {
    for protocol in PROTOCOLS {
        let (line, spans, calls) = run(protocol, Manner::AllButOne).await;
        assert_eq!(line.dropped["partial_success"], calls, "{protocol}: {line:?}");
        assert_eq!((line.sent, spans), (ALL - calls, ALL), "{protocol}: {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_fills_its_queue_and_no_other() {
    for protocol in PROTOCOLS {
        let directory = tempfile::tempdir().unwrap();
        let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = place.local_addr().unwrap();
        drop(place);
        let healthy = Any::start(protocol).await;
        let small = "        queue: {maxBytes: 2Mi}\n";
        let exporters = otlp("down", protocol, address, small)
            + &otlp("healthy", protocol, healthy.address(), "");
        let gateway = gateway(directory.path(), &manifest(&exporters), &[]);
        // Some 3 MiB.
        send(&gateway, (0..50).map(padded)).await;
        let sent = 50 * SPANS;
        gateway.wait_for("the healthy exporter", |stats| {
            stats.ledger.exporters["healthy"].sent == sent
        });
        let waits = line(&gateway, "down");
        assert!(waits.dropped["queue_full"] > 0 && waits.held > 0, "{protocol}: {waits:?}");
        let queued = gateway.metric("otelcol_exporter_queue_size", "\"down\"");
        assert!(queued <= 2_097_152.0, "{protocol}: {queued}");
        let back = Any::start_at(protocol, address).await;
        gateway.wait_for("an empty queue", |stats| stats.ledger.exporters["down"].held == 0);
        let ended = gateway.stop_balanced();
        let line = &ended.ledger.exporters["down"];
        assert_eq!((line.sent, back.spans()), (waits.held, waits.held), "{protocol}: {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_decides_no_faster_than_slow_backends_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let (slow, fast) = (Any::start("GRPC").await, Any::start("GRPC").await);
    slow.behave(Manner::Slow);
    let small = "        queue: {maxBytes: 2Mi}\n";
    let exporters =
        otlp("slow", "GRPC", slow.address(), small) + &otlp("fast", "GRPC", fast.address(), small);
    let gateway = gateway(directory.path(), &manifest(&exporters), &["--decision-wait", "1h"]);
    // Three times what a queue takes.
    send(&gateway, (0..100).map(padded)).await;
    let ended = gateway.stop_balanced();
    let (all, line) = (100 * SPANS, |name: &str| ended.ledger.exporters[name].clone());
    assert_eq!((line("slow").sent, slow.spans()), (all, all), "{:?}", line("slow"));
    assert_eq!((line("fast").sent, fast.spans()), (all, all), "{:?}", line("fast"));
}

/// A trace of 60 KiB.
fn padded(number: u64) -> ExportTraceServiceRequest {
    let mut request = trace(number).part(0, 1);
    pad(&mut request, 20_000);
    request
}

fn pad(request: &mut ExportTraceServiceRequest, bytes: usize) {
    let mut noise = 7_u64;
    for spans in request.resource_spans.iter_mut().flat_map(|spans| &mut spans.scope_spans) {
        for span in &mut spans.spans {
            let mut text = String::with_capacity(bytes);
            while text.len() < bytes {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(&format!("{noise:016x}"));
            }
            span.name = text;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_names_a_pause_is_left_alone_for_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let (later, healthy) = (HttpBackend::start().await, HttpBackend::start().await);
    later.behave(Manner::Later);
    let exporters = otlp("later", "HTTPProtobuf", later.address, "")
        + &otlp("healthy", "HTTPProtobuf", healthy.address, "");
    let gateway = gateway(directory.path(), &manifest(&exporters), &[]);
    send_all(&gateway).await;
    gateway.wait_for("the healthy exporter", |stats| stats.ledger.exporters["healthy"].sent == ALL);
    // Its own backoff would have let it come back dozens of times by now.
    assert!((1..=4).contains(&later.calls()), "{} calls", later.calls());
    assert_eq!(line(&gateway, "later").held, ALL);
    // It would wait for the backend as long as a pod has.
    gateway.signal("KILL");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_requests_are_what_otlp_says() {
    for (protocol, kind) in
        [("HTTPProtobuf", "application/x-protobuf"), ("HTTPJSON", "application/json")]
    {
        for (compression, encoding) in
            [("None", None), ("Gzip", Some("gzip")), ("Zstd", Some("zstd"))]
        {
            let directory = tempfile::tempdir().unwrap();
            let backend = HttpBackend::start().await;
            let more = format!(
                "        compression: {compression}\n        headers: [{{name: x-org, value: shop}}]\n"
            );
            let path = if encoding.is_some() { "/otlp/v1/traces" } else { "" };
            let exporters = otlp("vendor", protocol, backend.address, &more).replace(
                &format!("{}\n", backend.address),
                &format!("{}{path}\n", backend.address),
            );
            let gateway = gateway(directory.path(), &manifest(&exporters), &[]);
            send_all(&gateway).await;
            gateway.wait_for("the spans", |stats| stats.ledger.exporters["vendor"].sent == ALL);
            gateway.stop_balanced();
            let wanted = if path.is_empty() { "/v1/traces" } else { path };
            for (headers, path) in backend.heads() {
                assert_eq!(path, wanted);
                assert_eq!(headers["content-type"], kind);
                assert_eq!(headers["x-org"], "shop");
                assert_eq!(headers["host"], backend.address.to_string().as_str());
                let told = headers.get("content-encoding").map(|name| name.to_str().unwrap());
                assert_eq!(told, encoding);
            }
            let traces = backend.traces();
            assert!((0..TRACES).all(|number| traces[&trace(number).id()] == SPANS as usize));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_gets_the_spans_for_which_its_condition_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (some, all) = (Any::start("GRPC").await, Any::start("GRPC").await);
    let filter = "      filter: 'name == \"operation-1\" or name == \"operation-2\"'\n";
    let odd = "      filter: 'attributes[\"http.route\"] + 1 > 2'\n";
    let exporters = otlp("some", "GRPC", some.address(), filter)
        + &otlp("odd", "GRPC", some.address(), odd)
        + &otlp("all", "GRPC", all.address(), "");
    // The condition belongs to the exporter, not to its settings.
    let gateway = gateway(directory.path(), &manifest(&exporters), &[]);
    send_all(&gateway).await;
    gateway.wait_for("the spans", |stats| {
        let held = |name: &str| &stats.ledger.exporters[name];
        held("all").sent == ALL && held("some").received == ALL && held("some").held == 0
    });
    let left_out = "ringtail_exporter_left_out_spans_total";
    assert_eq!(gateway.metric(left_out, "\"filtered\"") as u64, TRACES);
    let failed = gateway.metric("otelcol_exporter_send_failed_spans_total", "");
    assert_eq!(failed, 0.0, "what is left out is no failure");
    let ended = gateway.stop_balanced();
    let line = |name: &str| ended.ledger.exporters[name].clone();
    assert_eq!((line("some").sent, line("some").dropped["filtered"]), (ALL - TRACES, TRACES));
    assert_eq!((line("odd").sent, line("odd").dropped["filter_failed"]), (0, ALL));
    assert_eq!((some.spans(), all.spans()), (ALL - TRACES, ALL));
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_file_and_to_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("{identity}.jsonl");
    let exporters = format!(
        "    - {{name: files, type: File, file: {{path: \"{}\"}}}}
    - {{name: print, type: Debug, debug: {{verbosity: Normal, samplingInitial: 1000}}}}
    - {{name: full, type: File, file: {{path: /dev/full}}}}\n",
        path.display()
    );
    let (gateway, log) = logged(directory.path(), &manifest(&exporters), "info");
    send_all(&gateway).await;
    gateway.wait_for("the spans", |stats| {
        let done = |name: &str| {
            let line = &stats.ledger.exporters[name];
            line.received == ALL && line.held == 0
        };
        ["files", "print", "full"].into_iter().all(done)
    });
    let ended = gateway.stop_balanced();
    let line = |name: &str| ended.ledger.exporters[name].clone();
    assert_eq!((line("files").sent, line("print").sent), (ALL, ALL));
    assert_eq!((line("full").sent, line("full").dropped["write_failed"]), (0, ALL));
    let text = std::fs::read_to_string(directory.path().join("gw-0.jsonl")).unwrap();
    let read = |line: &str| serde_json::from_str::<ExportTraceServiceRequest>(line).unwrap();
    let scopes = text.lines().flat_map(|line| read(line).resource_spans);
    let spans = scopes.flat_map(|spans| spans.scope_spans).flat_map(|scope| scope.spans);
    let mut ids: Vec<Vec<u8>> = spans.map(|span| span.trace_id).collect();
    assert_eq!(ids.len() as u64, ALL);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, TRACES);
    let log = std::fs::read_to_string(log).unwrap();
    let lines =
        log.lines().filter(|line| line.contains("\"operation-1\"") && line.contains("trace="));
    assert_eq!(lines.count() as u64, TRACES, "{log}");
}
