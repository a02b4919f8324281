//! The main job with real processes: traces enter through two agents, meet whole at three gateways, are
//! decided and arrive at a backend; every ledger balances.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail_tests::backend::Backend;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::process::Process;
use ringtail_tests::traces::Trace;
use tonic::codec::CompressionEncoding;

const TRACES: u64 = 300;

fn traces() -> impl Iterator<Item = Trace> {
    (0..TRACES).map(|number| Trace {
        number,
        spans: 2 + u32::try_from(number % 7).unwrap(),
        error: number % 10 == 0,
        duration_ms: if number % 10 == 5 { 900 } else { 20 },
    })
}

fn wanted(trace: &Trace) -> bool {
    trace.error || trace.duration_ms > 500
}

async fn client(address: String) -> TraceServiceClient<tonic::transport::Channel> {
    TraceServiceClient::connect(format!("http://{address}"))
        .await
        .expect("the receiver listens")
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip)
}

/// Sends every trace in as many parts as there are receivers, part by part, so that all traces are open at
/// once.
async fn send_all(receivers: &[String]) {
    let parts = u32::try_from(receivers.len()).unwrap();
    for (part, receiver) in receivers.iter().enumerate() {
        let mut client = client(receiver.clone()).await;
        for trace in traces() {
            let request = trace.part(u32::try_from(part).unwrap(), parts);
            let answer = client.export(request).await.expect("spans are taken").into_inner();
            assert_eq!(answer.partial_success, None);
        }
    }
}

fn check_backend(backend: &Backend) {
    let received = backend.traces();
    for trace in traces() {
        let spans = received.get(&trace.id()).map_or(0, Vec::len);
        let expected = if wanted(&trace) { trace.spans as usize } else { 0 };
        assert_eq!(spans, expected, "{trace:?}");
    }
    assert_eq!(received.len(), traces().filter(wanted).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_meet_whole_at_one_gateway() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 2, 3, &backend.address.to_string(), &[]);
    let receivers: Vec<String> = fleet.agents.iter().map(Process::grpc).collect();
    send_all(&receivers).await;

    let digests: Vec<String> = fleet.agents.iter().map(|agent| agent.stats().ring.digest).collect();
    assert_eq!(digests[0], digests[1], "both agents route by the same ring");

    let total: u64 = traces().map(|trace| u64::from(trace.spans)).sum();
    let (agents, gateways) = fleet.stop();
    let sum = |ends: &[ringtail_tests::process::Ended],
               pick: fn(&ringtail::stats::LedgerReport) -> u64|
     -> u64 { ends.iter().map(|end| pick(&end.ledger)).sum() };
    assert_eq!(sum(&agents, |ledger| ledger.received.clients), total);
    assert_eq!(sum(&agents, |ledger| ledger.out), total);
    assert_eq!(sum(&gateways, |ledger| ledger.received.peers), total);
    assert_eq!(sum(&gateways, |ledger| ledger.kept + ledger.sampled_away), total);
    assert!(gateways.iter().all(|end| end.ledger.received.peers > 0), "every gateway has a share");
    check_backend(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_take_otlp_from_anybody_and_decide_by_the_clock() {
    let backend = Backend::start().await;
    let fleet =
        Fleet::start(ERRORS_AND_SLOW, 0, 1, &backend.address.to_string(), &["--threads", "2"]);
    send_all(&[fleet.gateways[0].grpc()]).await;
    let decided = |stats: &ringtail::stats::Stats| {
        stats.decisions.is_some_and(|decisions| decisions.kept + decisions.dropped == TRACES)
    };
    let stats = fleet.gateways[0].wait_for("decisions", decided);
    assert_eq!(stats.held.spans, 0);
    assert_eq!(stats.decisions.unwrap().early, 0);
    // Spans that come after the decision follow it.
    send_late(&fleet.gateways[0].grpc()).await;
    let (_, gateways) = fleet.stop();
    let ledger = &gateways[0].ledger;
    assert_eq!(ledger.exporters["backend"].sent, ledger.kept);
    assert_eq!(backend.spans() as u64, ledger.kept);
}

async fn send_late(address: &str) {
    let mut client = client(address.to_owned()).await;
    for trace in traces().take(20) {
        let mut request = trace.part(0, 1);
        for spans in &mut request.resource_spans {
            for span in spans.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
                span.span_id = vec![9; 8];
            }
        }
        client.export(request).await.expect("late spans are taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_speaks_plain_otlp_to_a_peer_that_knows_nothing_else() {
    // The backend plays a Collector gateway: it answers Hello with UNIMPLEMENTED, and gzip with gzip.
    let collector = Backend::start().await;
    let manifest = ERRORS_AND_SLOW.replace("spec:\n", "spec:\n  agent: {compression: Gzip}\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipeline.yaml");
    std::fs::write(&path, manifest).unwrap();
    let address = collector.address.to_string();
    let file = path.to_str().unwrap();
    let agent = Process::start(&["agent", "--pipeline", file, "--gateway", &address]);
    agent.wait_for("a ring", |stats| stats.ring.members == [address.clone()]);
    send_all(&[agent.grpc()]).await;
    let ended = agent.stop();
    let total: usize = traces().map(|trace| trace.spans as usize).sum();
    assert!(ended.ledger.balanced, "{:#?}", ended.ledger);
    assert_eq!(ended.ledger.out, total as u64);
    // Not one more: an answer in gzip that the agent could not read would look like a failure and be sent
    // again.
    assert_eq!(collector.spans(), total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_from_the_start_gets_everything_when_it_comes() {
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let fleet = Fleet::start(ERRORS_AND_SLOW, 1, 2, &address.to_string(), &[]);
    send_all(&[fleet.agents[0].grpc()]).await;
    for gateway in &fleet.gateways {
        gateway.wait_for("a full queue", |stats| {
            stats.held.traces == 0 && stats.ledger.exporters["backend"].held > 0
        });
    }
    let backend = Backend::start_at(address).await;
    backend.unavailable(true);
    while backend.calls() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    backend.unavailable(false);
    fleet.stop();
    check_backend(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_gateways_share_goes_to_the_next_choice() {
    let backend = Backend::start().await;
    let mut fleet = Fleet::start(ERRORS_AND_SLOW, 1, 3, &backend.address.to_string(), &[]);
    let dead = fleet.gateways.pop().unwrap();
    dead.signal("KILL");
    drop(dead);
    send_all(&[fleet.agents[0].grpc()]).await;
    fleet.agents[0].wait_for("a ring of two", |stats| stats.ring.members.len() == 2);
    fleet.agents[0].wait_for("empty queues", |stats| stats.held.spans == 0);
    fleet.stop();
    check_backend(&backend);
}
