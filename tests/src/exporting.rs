//! One gateway that keeps everything, with the exporters of a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;

use crate::process::Process;
use crate::traces::Trace;

/// Spans of each trace.
pub const SPANS: u64 = 3;
/// Requests between two pauses, so that a gateway has several batches to export.
const WAVE: usize = 10;

/// A pipeline that keeps everything, with these exporters, each indented by four.
pub fn manifest(exporters: &str) -> String {
    format!(
        "apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {{name: test}}
spec:
  sampling:
    decisionWait: 1s
    policies: [{{name: all, type: AlwaysSample}}]
  exporters:
{exporters}"
    )
}

/// An exporter that comes back soon after a failure; `more` is indented by eight.
pub fn otlp(name: &str, protocol: &str, endpoint: &str, more: &str) -> String {
    format!(
        "    - name: {name}
      type: OTLP
      otlp:
        endpoint: {endpoint}
        protocol: {protocol}
        timeout: 500ms
        retry: {{initialInterval: 20ms, maxInterval: 100ms}}
{more}"
    )
}

/// A gateway of this manifest, with more flags.
pub fn gateway(directory: &Path, manifest: &str, flags: &[&str]) -> Process {
    let path = written(directory, manifest);
    Process::start(&arguments(&path, flags))
}

/// One whose Secrets are below `secrets`, and whose log at `level` goes to a file, since a full pipe would
/// stop it.
pub fn logged(directory: &Path, manifest: &str, level: &str) -> (Process, PathBuf) {
    let (path, log) = (written(directory, manifest), directory.join("log"));
    let secrets = directory.join("secrets");
    let flags = ["--secrets-dir", secrets.to_str().unwrap()];
    (Process::start_logged(&arguments(&path, &flags), level, &log), log)
}

fn written(directory: &Path, manifest: &str) -> String {
    let path = directory.join("pipeline.yaml");
    std::fs::write(&path, manifest).unwrap();
    path.to_str().unwrap().to_owned()
}

fn arguments<'a>(path: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["gateway", "--pipeline", path, "--identity", "gw-0"], flags].concat()
}

/// A trace; every second one has failed.
pub fn trace(number: u64) -> Trace {
    let spans = u32::try_from(SPANS).unwrap();
    Trace { number, spans, error: number.is_multiple_of(2), duration_ms: 20 }
}

/// Sends requests, all of which must be taken.
pub async fn send(
    gateway: &Process,
    requests: impl IntoIterator<Item = ExportTraceServiceRequest>,
) {
    let address = format!("http://{}", gateway.grpc());
    let mut client = TraceServiceClient::connect(address).await.unwrap();
    for (place, request) in requests.into_iter().enumerate() {
        client.export(request).await.expect("spans are taken");
        if place % WAVE == WAVE - 1 {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
}
