//! Agents that route by service, and agents that find gateways by DNS, as processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail_tests::backend::Backend;
use ringtail_tests::process::Process;
use ringtail_tests::traces::{Trace, request};

const SERVICES: usize = 12;
const TRACES: u64 = 40;

/// A manifest that keeps everything, with this routing.
fn manifest(directory: &std::path::Path, routing: &str) -> String {
    let text = format!(
        "{{apiVersion: ringtail.dev/v1alpha1, kind: TracePipeline, metadata: {{name: test}}, spec: \
         {{routing: {routing}, sampling: {{decisionWait: 1s, policies: [{{name: all, type: \
         AlwaysSample}}]}}, exporters: [{{name: backend, type: OTLP, \
         otlp: {{endpoint: \"http://127.0.0.1:1\"}}}}]}}}}"
    );
    let path = directory.join("pipeline.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The services that a backend has seen.
fn services(backend: &Backend) -> BTreeSet<String> {
    backend.traces().into_values().flatten().map(|(service, _)| service).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_at_one_gateway_and_what_it_has_is_decided_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = manifest(directory.path(), "{key: Service}");
    let backends = [Backend::start().await, Backend::start().await];
    let gateways: Vec<Process> = ["gw-0", "gw-1"]
        .iter()
        .zip(&backends)
        .map(|(id, backend)| {
            let export = format!("backend={}", backend.address);
            let args = ["gateway", "--pipeline", &file, "--identity", id, "--export", &export];
            Process::start(&args)
        })
        .collect();
    let addresses: Vec<String> = gateways.iter().map(Process::grpc).collect();
    let mut args = vec!["agent", "--pipeline", &file, "--identity", "agent"];
    args.extend(addresses.iter().flat_map(|address| ["--gateway", address]));
    let agent = Process::start(&args);
    agent.wait_for("both gateways", |stats| stats.ring.members.len() == 2);
    let mut client = TraceServiceClient::connect(format!("http://{}", agent.grpc())).await.unwrap();
    // Every trace has a span of every service.
    for number in 0..TRACES {
        let spans = u32::try_from(SERVICES).unwrap();
        let trace = Trace { number, spans, error: false, duration_ms: 5 };
        let mut all = request("", Vec::new());
        all.resource_spans.clear();
        for (place, (_, span)) in trace.spans().into_iter().enumerate() {
            let one = request(&format!("service-{place}"), vec![span]);
            all.resource_spans.extend(one.resource_spans);
        }
        client.export(all).await.unwrap();
    }
    agent.stop_balanced();
    for gateway in gateways {
        gateway.stop_balanced();
    }
    let seen = backends.each_ref().map(services);
    assert!(seen.iter().all(|services| !services.is_empty()), "{seen:?}");
    assert!(seen[0].is_disjoint(&seen[1]), "{seen:?}");
    assert_eq!(seen[0].len() + seen[1].len(), SERVICES, "{seen:?}");
    for backend in &backends {
        assert_eq!(backend.traces().len() as u64, TRACES, "a part of every trace");
    }
    assert_eq!(backends.iter().map(Backend::spans).sum::<usize>() as u64, TRACES * SERVICES as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_finds_its_gateway_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::start().await;
    let file = manifest(directory.path(), "{}");
    let export = format!("backend={}", backend.address);
    let args = ["gateway", "--pipeline", &file, "--identity", "gw-0", "--export", &export];
    let gateway = Process::start(&args);
    let port = gateway.listening.otlp_grpc.port();
    // Every machine knows its own name; nobody listens at its address of IPv6, so that one is no gateway.
    let routing = format!(
        "routing: {{resolver: {{type: DNS, dns: {{hostname: localhost, port: {port}}}}}}}, gateway: {{type: \
         External}}"
    );
    let text = std::fs::read_to_string(&file).unwrap().replace("routing: {}", &routing);
    let agents = directory.path().join("agents.yaml");
    std::fs::write(&agents, text).unwrap();
    let agents = agents.to_str().unwrap();
    let agent = Process::start(&["agent", "--pipeline", agents, "--identity", "agent"]);
    agent.wait_for("its gateway", |stats| stats.ring.members == ["gw-0"]);
    assert!(agent.metric("otelcol_loadbalancer_num_resolutions_total", "success=\"true\"") >= 1.0);
    assert!(agent.metric("otelcol_loadbalancer_num_backends", "dns") >= 1.0);
    let mut client = TraceServiceClient::connect(format!("http://{}", agent.grpc())).await.unwrap();
    let trace = Trace { number: 1, spans: 3, error: false, duration_ms: 5 };
    client.export(trace.part(0, 1)).await.unwrap();
    agent.stop_balanced();
    gateway.stop_balanced();
    assert_eq!(backend.spans(), 3);
}
