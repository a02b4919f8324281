//! Whole traces while gateways come and go, with real processes: halves of traces are sent before and after,
//! and every trace that is kept arrives with all of its spans, once.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail::stats::Life;
use ringtail_tests::api::SERVING;
use ringtail_tests::backend::Backend;
use ringtail_tests::process::{Process, wait_until};
use ringtail_tests::shop::{ERRORS, Shop, manifest};
use ringtail_tests::traces::Trace;

/// Traces of a test: enough for every gateway to have some of each kind.
const TRACES: u64 = 200;
/// Longer than a gateway needs to join or to leave, so that both halves of a trace are in before it is due.
const WAIT: &str = "10s";

fn traces() -> impl Iterator<Item = Trace> {
    (0..TRACES).map(|number| Trace {
        number,
        spans: 4,
        // The error is in the second half: whoever decides on the first alone lets the trace go.
        error: number.is_multiple_of(2),
        duration_ms: 20,
    })
}

fn kept() -> usize {
    traces().filter(|trace| trace.error).count()
}

/// Sends one of two halves of every trace to each of these processes in turn.
async fn send_half(half: u32, to: &[&Process]) {
    for (index, process) in to.iter().enumerate() {
        let address = format!("http://{}", process.grpc());
        let mut client = TraceServiceClient::connect(address).await.expect("it listens");
        for trace in traces().skip(index).step_by(to.len()) {
            client.export(trace.part(half, 2)).await.expect("spans are taken");
        }
    }
}

/// Waits until all that is kept is there, and checks that it is whole and came once.
fn check(backend: &Backend) {
    wait_until("every trace with an error", || backend.traces().len() >= kept());
    wait_until("every span", || backend.spans() >= kept() * 4);
    let received = backend.traces();
    for trace in traces() {
        let expected = if trace.error { trace.spans as usize } else { 0 };
        let spans = received.get(&trace.id()).map_or(0, Vec::len);
        assert_eq!(spans, expected, "{trace:?}");
    }
}

fn forwarded(gateways: &[Process]) -> f64 {
    gateways.iter().map(|gateway| gateway.metric("ringtail_ownership", "forwarded")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_meet_whichever_gateway_they_are_sent_to() {
    let backend = Backend::start().await;
    let shop = Shop::start(&manifest("3s", ERRORS), &backend.address.to_string(), 0, 3);
    let [a, b, c] = &shop.gateways[..] else { unreachable!("three were started") };
    send_half(0, &[a, b, c]).await;
    send_half(1, &[b, c, a]).await;
    assert!(forwarded(&shop.gateways) > 0.0, "two thirds were sent to the wrong one");
    check(&backend);
    shop.stop();
    check(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_move_to_a_gateway_that_joins() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest(WAIT, ERRORS), &backend.address.to_string(), 1, 2);
    send_half(0, &[&shop.agents[0]]).await;
    shop.add_gateway("gw-2", &[]);
    shop.list(2, SERVING);
    shop.await_members(3);
    send_half(1, &[&shop.agents[0]]).await;
    shop.gateways[2].wait_for("its share", |stats| stats.held.traces > 0);
    check(&backend);
    let moved: f64 =
        shop.gateways[..2].iter().map(|g| g.metric("ringtail_ownership", "handed_over")).sum();
    assert!(moved > 0.0, "a third of the traces has a new owner");
    for gateway in &shop.gateways[..2] {
        let handed_over = gateway.stats().churn.handed_over;
        assert!(handed_over.traces > 0 && handed_over.spans >= handed_over.traces);
        assert!(handed_over.bytes > 0 && gateway.metric("ringtail_hand_over_bytes", "") > 0.0);
    }
    let (_, gateways) = shop.stop();
    assert!(gateways[2].ledger.received.peers > 0);
    check(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_stop_hands_its_traces_over() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest(WAIT, ERRORS), &backend.address.to_string(), 1, 3);
    send_half(0, &[&shop.agents[0]]).await;
    shop.agents[0].wait_for("all sent", |stats| stats.held.spans == 0);
    let leaver = shop.gateways.remove(0);
    let held = leaver.wait_for("its share", |stats| stats.held.traces > 0).held.spans;
    let end = leaver.stop_balanced();
    assert!(end.ledger.out >= held, "all of it went to others: {:?}", end.ledger);
    assert_eq!(end.ledger.kept + end.ledger.sampled_away, 0, "it decided nothing early");
    send_half(1, &[&shop.agents[0]]).await;
    check(&backend);
    shop.stop();
    check(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_gateway_decides_what_it_has_when_it_is_told_to_stop() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest("1h", ERRORS), &backend.address.to_string(), 1, 2);
    send_half(0, &[&shop.agents[0]]).await;
    send_half(1, &[&shop.agents[0]]).await;
    shop.agents[0].wait_for("all sent", |stats| stats.held.spans == 0);
    shop.gateways.remove(0).stop_balanced();
    shop.gateways[0].wait_for("all traces", |stats| stats.held.traces == TRACES);
    shop.stop();
    check(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_held_is_sent_again() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest(WAIT, ERRORS), &backend.address.to_string(), 2, 3);
    // Before it is killed each of its traces has a span of either agent and lacks the one with the error.
    send_part(&shop.agents[0], 0).await;
    send_part(&shop.agents[1], 1).await;
    for agent in &shop.agents {
        agent.wait_for("all sent", |stats| stats.held.spans == 0);
    }
    let killed = shop.gateways.remove(1);
    killed.wait_for("its share", |stats| stats.held.traces > 0);
    killed.signal("KILL");
    drop(killed);
    send_part(&shop.agents[0], 2).await;
    send_part(&shop.agents[1], 3).await;
    check(&backend);
    let replayed: f64 = shop.agents.iter().map(|a| a.metric("ringtail_replayed_traces", "")).sum();
    assert!(replayed > 0.0, "a third of the traces was there");
    for gateway in &shop.gateways {
        let churn = gateway.stats().churn;
        assert_eq!((churn.losses, churn.life), (1, Some(Life::Serving)));
        assert!(churn.fences["agents"].times > 0, "it waited for what lay there: {churn:?}");
        assert!(gateway.metric("ringtail_fence_seconds", "agents") > 0.0);
    }
    let (_, gateways) = shop.stop();
    assert!(gateways.iter().any(|end| end.ledger.received.replays > 0));
    check(&backend);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_cannot_keep_is_counted_where_anybody_looks() {
    let backend = Backend::start().await;
    let manifest = manifest(WAIT, ERRORS) + "  agent: {retention: {maxBytes: 1Ki}}\n";
    let shop = Shop::start(&manifest, &backend.address.to_string(), 1, 1);
    send_half(0, &[&shop.agents[0]]).await;
    let unprotected = |agent: &Process| agent.stats().churn.unprotected_spans;
    let half = TRACES * 2;
    wait_until("some of them let go", || unprotected(&shop.agents[0]) > 0);
    assert!(unprotected(&shop.agents[0]) <= half);
    assert!(shop.agents[0].metric("ringtail_unprotected_spans", "") > 0.0);
    shop.gateways[0].wait_for("the agent's word", |stats| {
        stats.ring.observers.iter().any(|observer| observer.unprotected_spans > 0)
    });
    send_half(1, &[&shop.agents[0]]).await;
    check(&backend);
    shop.stop();
}

/// Sends one of the four spans of every trace.
async fn send_part(to: &Process, part: u32) {
    let address = format!("http://{}", to.grpc());
    let mut client = TraceServiceClient::connect(address).await.expect("it listens");
    for trace in traces() {
        client.export(trace.part(part, 4)).await.expect("spans are taken");
    }
}

/// Traces that are under way at any time of the churn: one begins every tick.
const STEADY: u64 = 1_000;
/// Ticks between two spans of a trace.
const SPREAD: u64 = 60;
/// How long a tick is: a hundred traces and four hundred spans a second.
const TICK: std::time::Duration = std::time::Duration::from_millis(10);

fn steady(number: u64) -> Trace {
    Trace { number, spans: 4, error: number.is_multiple_of(2), duration_ms: 20 }
}

/// Sends the spans of many traces, each a while after the one before and through the other agent.
async fn send_steadily(agents: Vec<String>) {
    let mut clients = Vec::new();
    for address in agents {
        let address = format!("http://{address}");
        clients.push(TraceServiceClient::connect(address).await.expect("it listens"));
    }
    let mut tick = tokio::time::interval(TICK);
    for now in 0..STEADY + 3 * SPREAD {
        tick.tick().await;
        for (part, client) in (0..4).zip([0, 1, 0, 1]) {
            let number = now.checked_sub(u64::from(part) * SPREAD).filter(|n| *n < STEADY);
            if let Some(number) = number {
                let request = steady(number).part(part, 4);
                clients[client].export(request).await.expect("agents take spans");
            }
        }
    }
}

/// One gateway is killed, one joins, one is told to stop, while spans keep coming.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_under_load_keeps_every_trace_whole() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest("6s", ERRORS), &backend.address.to_string(), 2, 3);
    let agents = shop.agents.iter().map(Process::grpc).collect();
    let sending = tokio::spawn(send_steadily(agents));
    wait_until("the first decisions or a full pipeline", || {
        shop.gateways.iter().all(|gateway| gateway.stats().held.traces > 20)
    });
    let killed = shop.gateways.remove(1);
    killed.signal("KILL");
    drop(killed);
    shop.unlist("gw-1");
    shop.add_gateway("gw-3", &[]);
    shop.list(2, SERVING);
    for process in shop.processes() {
        process.wait_for("the new ring", |stats| stats.ring.members == ["gw-0", "gw-2", "gw-3"]);
    }
    shop.gateways.remove(0).stop_balanced();
    shop.unlist("gw-0");
    sending.await.expect("all was sent");
    let wanted = (0..STEADY).filter(|number| steady(*number).error).count();
    wait_until("every trace with an error", || backend.traces().len() >= wanted);
    wait_until("every span", || whole(&backend) == wanted);
    shop.stop();
    assert_eq!((backend.traces().len(), whole(&backend)), (wanted, wanted));
    let doubled = backend.spans() - wanted * 4;
    assert!(doubled * 100 <= wanted * 4, "{doubled} spans came twice");
}

/// Traces with an error that have all of their spans.
fn whole(backend: &Backend) -> usize {
    let received = backend.traces();
    let spans = |number: u64| {
        let spans = received.get(&steady(number).id()).into_iter().flatten();
        let ids: std::collections::BTreeSet<_> =
            spans.map(|(_, span)| span.span_id.clone()).collect();
        ids.len()
    };
    (0..STEADY).filter(|number| steady(*number).error && spans(*number) == 4).count()
}
