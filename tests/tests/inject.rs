//! `ringtail inject` from its files to spans: what it prints is started as a pod would start it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail::stats::Stats;
use ringtail_tests::backend::Backend;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::process::{self, Process};
use ringtail_tests::traces::Trace;
use serde_json::Value;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: app}\n\
                   spec: {containers: [{name: app, image: app}]}\n";
const TRACES: u64 = 50;

/// The pod with its sidecar, for the pipeline of the tests.
fn injected(directory: &std::path::Path) -> Value {
    let (pipeline, pod) = (directory.join("shop.yaml"), directory.join("pod.yaml"));
    std::fs::write(&pipeline, ERRORS_AND_SLOW).unwrap();
    std::fs::write(&pod, POD).unwrap();
    let mut command = Command::new(process::binary());
    let output = command.arg("inject").arg("--pipeline").arg(pipeline).arg(pod).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_saphyr::from_slice(&output.stdout).unwrap()
}

/// Starts the sidecar with its own arguments; only what a pod gives is given by the test: the file, the
/// pod's name, ports of its own, and the address behind the name of a Service.
fn start(pod: &Value, directory: &std::path::Path, gateway: &str) -> Process {
    let file = directory.join("pipeline.yaml");
    let settings = pod["metadata"]["annotations"]["ringtail.dev/sidecar"].as_str().unwrap();
    std::fs::write(&file, settings).unwrap();
    let arguments = pod["spec"]["initContainers"][0]["args"].as_array().unwrap();
    let mut arguments: Vec<&str> = arguments.iter().map(|one| one.as_str().unwrap()).collect();
    let ports = arguments.iter().position(|word| *word == "--otlp-grpc").unwrap();
    assert_eq!(arguments.split_off(ports).len(), 4, "the ports are all that follows");
    for word in &mut arguments {
        match *word {
            "/etc/ringtail/pipeline/pipeline.yaml" => *word = file.to_str().unwrap(),
            "$(POD_NAME)" => *word = "app",
            _ => {}
        }
    }
    arguments.extend(["--gateway", gateway]);
    Process::start(&arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_sends_in_plain_otlp_and_says_nothing_of_itself() {
    let directory = tempfile::tempdir().unwrap();
    let pod = injected(directory.path());
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 0, 1, &backend.address.to_string(), &[]);
    let gateway = fleet.gateways[0].grpc();
    let one = |stats: &Stats| stats.ring.members.len() == 1;
    let ring = fleet.gateways[0].wait_for("itself as the ring", one).ring;
    let sidecar = start(&pod, directory.path(), &gateway);
    sidecar.wait_for("its gateway", |stats| stats.ring.members == [gateway.clone()]);

    let mut client =
        TraceServiceClient::connect(format!("http://{}", sidecar.grpc())).await.unwrap();
    let traces =
        || (0..TRACES).map(|number| Trace { number, spans: 4, error: true, duration_ms: 20 });
    for trace in traces() {
        client.export(trace.part(0, 1)).await.expect("spans are taken");
    }
    let ended = sidecar.stop();
    assert!(ended.ledger.balanced, "{:#?}", ended.ledger);
    assert_eq!(ended.ledger.out, 4 * TRACES);
    assert_eq!(fleet.gateways[0].stats().ring.digest, ring.digest, "nobody was added to the fleet");
    let (_, gateways) = fleet.stop();
    let received = &gateways[0].ledger.received;
    assert_eq!(
        (received.clients, received.peers),
        (4 * TRACES, 0),
        "an application like any other"
    );
    assert_eq!(backend.traces().len() as u64, TRACES);
}
