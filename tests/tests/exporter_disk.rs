//! A queue on disk survives a kill of its gateway: every span that was on it arrives, and only what was under
//! way arrives twice; and a disk that fails costs no gateway.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;

use ringtail_tests::backend::Backend;
use ringtail_tests::exporting::{SPANS, gateway, manifest, otlp, send, trace};
use ringtail_tests::http_backend::Manner;
use ringtail_tests::process::Process;

const TRACES: u64 = 120;
const ALL: u64 = TRACES * SPANS;

fn queued(backend: &Backend) -> String {
    let queue = "        queue: {maxBytes: 8Mi, persistent: {sizeLimit: 64Mi}}\n";
    manifest(&otlp("backend", "GRPC", &format!("http://{}", backend.address), queue))
}

fn start(directory: &Path, manifest: &str) -> Process {
    let data = directory.join("data");
    gateway(directory, manifest, &["--data-dir", data.to_str().unwrap()])
}

async fn send_padded(gateway: &Process, numbers: std::ops::Range<u64>, padding: usize) {
    let padded = |number: u64| {
        let mut request = trace(number).part(0, 1);
        for spans in request.resource_spans.iter_mut().flat_map(|spans| &mut spans.scope_spans) {
            spans.spans.iter_mut().for_each(|span| span.name = "x".repeat(padding));
        }
        request
    };
    send(gateway, numbers.map(padded)).await;
}

/// Spans by trace and span ID, each with how often it came.
fn arrivals(backend: &Backend) -> HashMap<(Vec<u8>, Vec<u8>), u64> {
    let mut arrivals = HashMap::new();
    for (trace, spans) in backend.traces() {
        for (_, span) in spans {
            *arrivals.entry((trace.clone(), span.span_id)).or_default() += 1;
        }
    }
    arrivals
}

fn on_disk(gateway: &Process) -> u64 {
    gateway.metric("ringtail_exporter_disk_spans", "\"backend\"") as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn every_span_on_disk_arrives_after_a_kill() {
    let (directory, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    // Memory for about half of 7 MiB, so that some are on disk alone.
    let manifest = queued(&backend);
    backend.behave(Manner::Unavailable);
    let gateway = start(directory.path(), &manifest);
    send_padded(&gateway, 0..TRACES, 20_000).await;
    gateway.wait_for("the queue", |_| on_disk(&gateway) == ALL);
    gateway.signal("KILL");
    drop(gateway);
    assert_eq!(backend.spans(), 0);

    // The next one is killed while it delivers what the first one left.
    backend.behave(Manner::HalfUnavailable);
    let gateway = start(directory.path(), &manifest);
    while backend.spans() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    gateway.signal("KILL");
    drop(gateway);

    backend.behave(Manner::Well);
    let gateway = start(directory.path(), &manifest);
    send_padded(&gateway, TRACES..TRACES + 10, 10).await;
    gateway.wait_for("an empty queue", |stats| {
        let line = &stats.ledger.exporters["backend"];
        line.held == 0 && line.received >= 10 * SPANS && arrivals(&backend).len() as u64 == ALL + 30
    });
    assert_eq!(gateway.metric("ringtail_exporter_disk_corrupt_records_total", ""), 0.0);
    let ended = gateway.stop_balanced();
    let line = &ended.ledger.exporters["backend"];
    assert_eq!(line.received, line.recovered + ended.ledger.kept, "{line:?}");
    assert_eq!((line.sent, line.held), (line.received, 0), "{line:?}");
    let arrivals = arrivals(&backend);
    assert_eq!(arrivals.len() as u64, ALL + 10 * SPANS);
    // Only what was under way at the second kill came twice.
    let twice: u64 = arrivals.values().map(|times| times - 1).sum();
    assert!(twice <= ALL / 2, "{twice} of {ALL} spans came again");
    assert!(arrivals.values().all(|times| *times <= 2), "{arrivals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_gateway_could_not_deliver_is_left_for_the_next() {
    let (directory, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let manifest = queued(&backend);
    backend.behave(Manner::Unavailable);
    let gateway = start(directory.path(), &manifest);
    send_padded(&gateway, 0..10, 10).await;
    gateway.wait_for("the queue", |_| on_disk(&gateway) == 10 * SPANS);
    let ended = gateway.stop_balanced();
    let line = &ended.ledger.exporters["backend"];
    assert_eq!((line.held, line.sent), (10 * SPANS, 0), "{line:?}");
    backend.behave(Manner::Well);
    let gateway = start(directory.path(), &manifest);
    gateway.wait_for("the rest", |stats| stats.ledger.exporters["backend"].sent == 10 * SPANS);
    let ended = gateway.stop_balanced();
    assert_eq!(ended.ledger.exporters["backend"].recovered, 10 * SPANS);
    assert_eq!(backend.spans() as u64, 10 * SPANS);
    // Nothing is left for a third one.
    let gateway = start(directory.path(), &manifest);
    send_padded(&gateway, 90..91, 10).await;
    gateway.wait_for("a trace", |stats| stats.ledger.exporters["backend"].sent == SPANS);
    assert_eq!(gateway.stop_balanced().ledger.exporters["backend"].recovered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_disk_memory_is_used_and_that_is_counted() {
    let (directory, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    // A file stands where the directory should be: every call to the disk fails.
    std::fs::write(directory.path().join("data"), "").unwrap();
    let gateway = start(directory.path(), &queued(&backend));
    send_padded(&gateway, 0..10, 10).await;
    gateway.wait_for("the spans", |stats| stats.ledger.exporters["backend"].sent == 10 * SPANS);
    let failed = gateway.metric("ringtail_exporter_memory_only_spans_total", "\"failed\"");
    assert_eq!(failed as u64, 10 * SPANS);
    gateway.stop_balanced();
    assert_eq!(backend.spans() as u64, 10 * SPANS);
}

#[test]
fn two_gateways_do_not_share_a_queue_and_none_has_one_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipeline.yaml");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let backend = runtime.block_on(Backend::start());
    let text = queued(&backend);
    let first = start(directory.path(), &text);
    let data = directory.path().join("data");
    for (flags, told) in [
        (vec!["--data-dir", data.to_str().unwrap()], "in use by another process"),
        (vec![], "start with --data-dir DIR"),
    ] {
        let output = std::process::Command::new(ringtail_tests::process::binary())
            .args(["gateway", "--pipeline", path.to_str().unwrap(), "--identity", "gw-1"])
            .args(["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .args(flags)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{words}");
        assert!(
            words.contains("exporter backend: queue.persistent") && words.contains(told),
            "{words}"
        );
    }
    first.stop_balanced();
}
