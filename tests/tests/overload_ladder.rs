//! Five times the load that fits, in a control group of 256 MiB: nothing is killed, load is shed in the order
//! that is documented, and when it ends the process is as it was.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::Span;
use ringtail_tests::backend::Backend;
use ringtail_tests::cgroup::Cgroup;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::process::Process;
use ringtail_tests::traces::{request, text};

const MIB: u64 = 1 << 20;
const LIMIT_BYTES: u64 = 256 * MIB;
const LIMIT: [&str; 2] = ["--memory-limit", "256Mi"];
/// Three quarters of it.
const BUDGET: u64 = 192 * MIB;
/// Spans of a request, of some 450 bytes each.
const SPANS: u64 = 1000;
/// What fits: the buffer's part of a gateway's budget is 78 MiB.
const FITS: u64 = 80 * MIB;
const REQUESTS: u64 = 5 * FITS / (450 * SPANS);
/// Who sends at the same time.
const CLIENTS: u64 = 4;

/// 400 characters that do not compress to much less: what waits in an agent is compressed.
fn noise(seed: u64) -> String {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 58) as u8)
    };
    (0..400).map(|_| next()).collect()
}

fn heavy(number: u64) -> Vec<Span> {
    (0..SPANS)
        .map(|index| Span {
            trace_id: [(number * SPANS + index).to_be_bytes(), [7; 8]].concat(),
            span_id: [3; 8].to_vec(),
            name: "heavy".to_owned(),
            attributes: vec![text("payload", &noise(number * SPANS + index))],
            ..Span::default()
        })
        .collect()
}

/// What a process had refused, and decided early, when it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rung {
    early: f64,
    refused: f64,
}

fn rung(process: &Process) -> Rung {
    Rung {
        early: process.metric("ringtail_early_decisions_total", "memory"),
        refused: process.metric("otelcol_receiver_refused_spans_total", "no_room"),
    }
}

/// Sends requests with these numbers; gives how many spans were taken and refused.
async fn send(address: String, numbers: impl Iterator<Item = u64>) -> (u64, u64) {
    let mut client = TraceServiceClient::connect(format!("http://{address}")).await.unwrap();
    let (mut taken, mut refused) = (0, 0);
    for number in numbers {
        match client.export(request("flood", heavy(number))).await {
            Ok(_) => taken += SPANS,
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                assert!(!status.details().is_empty(), "RetryInfo says when to come back");
                refused += SPANS;
            }
        }
    }
    (taken, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_sheds_in_order_and_recovers() {
    let backend = Backend::start().await;
    let extra = [&LIMIT[..], &["--decision-wait", "4s", "--threads", "2"]].concat();
    let fleet = Fleet::start(ERRORS_AND_SLOW, 0, 1, &backend.address.to_string(), &extra);
    let gateway = &fleet.gateways[0];
    let group = Cgroup::with_limit("gateway", LIMIT_BYTES);
    group.iter().for_each(|group| group.take(gateway.id()));

    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let numbers = (0..REQUESTS).filter(move |number| number % CLIENTS == client);
            tokio::spawn(send(gateway.grpc(), numbers))
        })
        .collect();
    let (mut rungs, mut most) = (Vec::new(), 0);
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        rungs.push(rung(gateway));
        most = most.max(gateway.resident_bytes());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (mut taken, mut refused) = (0, 0);
    for client in clients {
        let (more_taken, more_refused) = client.await.unwrap();
        (taken, refused) = (taken + more_taken, refused + more_refused);
    }
    rungs.push(rung(gateway));
    assert!(most <= BUDGET, "{most} bytes resident with a budget of {BUDGET}");
    // Traces are decided early once a quarter of their wait has passed, and what comes faster than that is
    // refused. Which comes first depends on how fast this machine sends: `overload.rs` holds that still.
    let last = rungs.last().copied().unwrap();
    assert!(last.early > 0.0 && last.refused > 0.0, "{last:?}");

    // The load is over: nothing is held for it, and what comes now is treated as before it.
    gateway.wait_for("an empty buffer", |stats| stats.held.traces == 0);
    let after = rung(gateway);
    let (later, none) = send(gateway.grpc(), REQUESTS..REQUESTS + 3).await;
    gateway.wait_for("those that came later", |stats| stats.held.traces == 0);
    assert_eq!((later, none, rung(gateway)), (3 * SPANS, 0, after), "it has left the state");
    if let Some(group) = &group {
        println!("{:?} bytes at most in the group, {most} resident", group.peak());
        assert_eq!(group.killed(), 0);
        assert!(group.peak().is_none_or(|peak| peak <= LIMIT_BYTES));
    }
    println!("{taken} spans taken, {refused} refused, {last:?}");
    let (_, gateways) = fleet.stop();
    let ledger = &gateways[0].ledger;
    assert_eq!(ledger.received.clients, taken + refused + later);
    assert_eq!(ledger.sampled_away, taken + later);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_gateway_stands_still_refuses_and_recovers() {
    let backend = Backend::start().await;
    let (agents, gateways) = ((1, &LIMIT[..]), (1, &LIMIT[..]));
    let fleet = Fleet::start_each(ERRORS_AND_SLOW, agents, gateways, &backend.address.to_string());
    let (agent, gateway) = (&fleet.agents[0], &fleet.gateways[0]);
    let group = Cgroup::with_limit("agent", LIMIT_BYTES);
    group.iter().for_each(|group| group.take(agent.id()));

    let (taken, none) = send(agent.grpc(), 0..5).await;
    assert_eq!((taken, none), (5 * SPANS, 0));
    gateway.signal("STOP");
    // Refusals take half a second each, so that it is less than the gateway's five times the budget.
    let (mut taken, mut refused, mut most) = (taken, 0, 0);
    for number in 5..REQUESTS / 3 {
        let (more_taken, more_refused) = send(agent.grpc(), number..number + 1).await;
        (taken, refused) = (taken + more_taken, refused + more_refused);
        most = most.max(agent.resident_bytes());
        if refused >= 10 * SPANS {
            break;
        }
    }
    gateway.signal("CONT");
    assert!(refused > 0, "the agent cannot hold all this");
    assert!(most <= BUDGET, "{most} bytes resident with a budget of {BUDGET}");
    agent.wait_for("what was queued is sent", |stats| {
        stats.ring.members.len() == 1 && stats.ledger.held == 0
    });
    let (later, none) = send(agent.grpc(), REQUESTS..REQUESTS + 5).await;
    assert_eq!((later, none), (5 * SPANS, 0), "it has left the state");
    if let Some(group) = &group {
        println!("{:?} bytes at most in the group, {most} resident", group.peak());
        assert_eq!(group.killed(), 0);
    }
    let (agents, _) = fleet.stop();
    let ledger = &agents[0].ledger;
    assert_eq!(ledger.received.clients, taken + refused + later);
    assert_eq!(ledger.refused.values().sum::<u64>(), refused);
}
