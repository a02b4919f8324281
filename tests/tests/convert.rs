//! The configurations of a Collector's two tiers, run as they are and, converted, by Ringtail: the same
//! traces are kept, whole, and reach both backends.
//!
//! For the run addresses are of loopback, the resolver of the Collector's agent is a static list, since
//! nobody answers for a headless Service here, and the decision wait is 8 s on both sides. Everything else
//! is as in `examples/collector`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail_tests::backend::Backend;
use ringtail_tests::collector::{self, Collector, free_port};
use ringtail_tests::process::{Process, binary, wait_until};
use ringtail_tests::traces::Trace;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/collector");
/// Of each kind there are dozens, and a tenth of the plain ones is kept.
const TRACES: u64 = 500;
/// Traces of a request to an agent.
const TRACES_PER_REQUEST: u64 = 25;
const DECIDED: &str = "otelcol_processor_tail_sampling_global_count_traces_sampled";

fn trace(number: u64) -> Trace {
    // Around the threshold of the policy `slow`, which a trace must pass.
    const DURATIONS_MS: [u64; 7] = [20, 999, 1_000, 1_001, 40, 60, 1_500];
    let place = usize::try_from(number % 7).unwrap();
    Trace {
        number,
        spans: 2 + u32::try_from(number % 5).unwrap(),
        error: number.is_multiple_of(11),
        duration_ms: DURATIONS_MS[place],
    }
}

/// How many spans of each trace a backend has.
fn received(backend: &Backend) -> BTreeMap<Vec<u8>, usize> {
    backend.traces().into_iter().map(|(id, spans)| (id, spans.len())).collect()
}

/// The text of an example with these pieces in the places of others, all of which must be there.
fn example(name: &str, pieces: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(format!("{EXAMPLES}/{name}.yaml")).unwrap();
    pieces.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name}.yaml has no {from:?} any more");
        text.replace(from, to)
    })
}

/// The gateways' configuration with these backends.
fn gateway(backends: &[Backend; 2]) -> String {
    let [tempo, jaeger] = backends.each_ref().map(|backend| backend.address.to_string());
    let pieces = [
        ("tempo:4317", tempo.as_str()),
        ("jaeger-collector:4317", &jaeger),
        ("decision_wait: 30s", "decision_wait: 8s"),
    ];
    example("gateway", &pieces)
}

/// Sends all traces, half of the spans of each to the one address and half to the other.
async fn send(addresses: [&str; 2]) {
    for (part, address) in (0..).zip(addresses) {
        let mut client = TraceServiceClient::connect(format!("http://{address}")).await.unwrap();
        for first in (0..TRACES).step_by(usize::try_from(TRACES_PER_REQUEST).unwrap()) {
            let mut request = trace(first).part(part, 2);
            for number in first + 1..first + TRACES_PER_REQUEST {
                request.resource_spans.extend(trace(number).part(part, 2).resource_spans);
            }
            client.export(request).await.unwrap();
        }
    }
}

// === The Collector ===

/// One with this configuration, whose receivers get ports of their own.
fn collector(program: &Path, config: &str) -> Collector {
    let config = config.replace("0.0.0.0:8889", &format!("127.0.0.1:{}", free_port()));
    Collector::start(program, serde_saphyr::from_str(&config).unwrap())
}

/// What the Collector's two tiers keep.
async fn run_collectors(program: &Path, backends: &[Backend; 2]) {
    let gateways: Vec<_> = (0..2).map(|_| collector(program, &gateway(backends))).collect();
    let list: Vec<String> = gateways.iter().map(Collector::grpc).collect();
    let dns = "      dns:\n        hostname: otel-gateway-headless.observability.svc.cluster.local\n        \
               port: 4317\n        interval: 5s\n        timeout: 1s\n";
    let fixed = format!("      static:\n        hostnames: [{}]\n", list.join(", "));
    let config = example("agent", &[(dns, &fixed)]);
    let agents: Vec<_> = (0..2).map(|_| collector(program, &config)).collect();
    send([&agents[0].grpc(), &agents[1].grpc()]).await;
    let sum = |label| gateways.iter().map(|gateway| gateway.metric(DECIDED, label)).sum::<u64>();
    wait_until("all decisions of the Collector", || sum("") >= TRACES);
    let kept = usize::try_from(sum("sampled=\"true\"")).unwrap();
    let arrived = || backends.iter().all(|backend| received(backend).len() >= kept);
    wait_until("all that the Collector kept", arrived);
}

// === Ringtail ===

/// What `ringtail convert` makes of the pair.
fn converted(directory: &Path, backends: &[Backend; 2]) -> String {
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files =
        [write("agent.yaml", example("agent", &[])), write("gateway.yaml", gateway(backends))];
    let output = Command::new(binary()).arg("convert").args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = write("pipeline.yaml", String::from_utf8(output.stdout).unwrap());
    path.to_str().unwrap().to_owned()
}

/// What the converted pipeline keeps.
async fn run_ringtail(backends: &[Backend; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let file = converted(directory.path(), backends);
    let gateways: Vec<Process> = ["gw-0", "gw-1"]
        .map(|identity| Process::start(&["gateway", "--pipeline", &file, "--identity", identity]))
        .into();
    let peers: Vec<String> = gateways.iter().map(Process::grpc).collect();
    let agents: Vec<Process> = ["agent-0", "agent-1"]
        .iter()
        .map(|identity| {
            let mut args = vec!["agent", "--pipeline", &file, "--identity", identity];
            args.extend(peers.iter().flat_map(|peer| ["--gateway", peer]));
            Process::start(&args)
        })
        .collect();
    for agent in &agents {
        agent.wait_for("both gateways in the ring", |stats| stats.ring.members.len() == 2);
    }
    send([&agents[0].grpc(), &agents[1].grpc()]).await;
    let decided = || gateways.iter().map(|gateway| gateway.metric(DECIDED, "")).sum::<f64>();
    wait_until("all decisions of Ringtail", || decided() >= TRACES as f64);
    for process in agents.into_iter().chain(gateways) {
        process.stop_balanced();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_converted_pair_keeps_the_traces_that_the_collectors_keep() {
    let test = "the_converted_pair_keeps_the_traces_that_the_collectors_keep";
    let components = ["load_balancing", "memory_limiter", "span_metrics", "prometheus"];
    let Some(program) = collector::program(test, &components) else { return };
    let theirs = [Backend::start().await, Backend::start().await];
    let ours = [Backend::start().await, Backend::start().await];
    run_collectors(&program, &theirs).await;
    run_ringtail(&ours).await;
    let expected = received(&theirs[0]);
    for backend in theirs.iter().chain(&ours) {
        assert_eq!(received(backend), expected);
    }
    // Every policy has decided something, and most traces are gone.
    let of = |is: fn(&Trace) -> bool| {
        (0..TRACES)
            .map(trace)
            .filter(|trace| is(trace) && expected.contains_key(&trace.id()))
            .count()
    };
    let plain = of(|trace| !trace.error && trace.duration_ms <= 1_000);
    assert!(of(|trace| trace.error) >= 45 && of(|trace| trace.duration_ms > 1_000) >= 140);
    assert!((10..90).contains(&plain), "{plain} of the plain traces");
    let whole = (0..TRACES).map(trace).filter(|trace| expected.contains_key(&trace.id()));
    assert!(whole.into_iter().all(|trace| expected[&trace.id()] == trace.spans as usize));
}
