//! Hand-overs that do not go smoothly: the receiver dies, hangs or has no room, others leave or join at the
//! same time. Nothing is split, nothing is lost without being counted, and memory stays within its budget.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::thread::{ScopedJoinHandle, scope};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::Span;
use ringtail_tests::api::SERVING;
use ringtail_tests::backend::Backend;
use ringtail_tests::process::{Ended, Process, wait_until};
use ringtail_tests::shop::{ALL, ERRORS, Shop, manifest};
use ringtail_tests::traces::{Trace, request, text};

/// Traces of a test: enough for every gateway to have some of each kind.
const TRACES: u64 = 200;
/// Longer than a gateway needs to be taken for dead and its traces to be sent again.
const WAIT: &str = "25s";

fn traces() -> impl Iterator<Item = Trace> {
    // The error is in the second half: whoever decides on the first alone lets the trace go.
    let trace = |number: u64| (number, number.is_multiple_of(2));
    (0..TRACES).map(trace).map(|(number, error)| Trace { number, spans: 4, error, duration_ms: 20 })
}

/// Sends one of two halves of every trace, and waits until gateways have it.
async fn send_half(half: u32, agent: &Process) {
    let address = format!("http://{}", agent.grpc());
    let mut client = TraceServiceClient::connect(address).await.expect("it listens");
    for trace in traces() {
        client.export(trace.part(half, 2)).await.expect("spans are taken");
    }
    agent.wait_for("all sent", |stats| stats.held.spans == 0);
}

/// Waits until all that is kept is there, and checks that it is whole and came once.
fn check(backend: &Backend) {
    let kept = traces().filter(|trace| trace.error).count();
    wait_until("every trace with an error", || backend.traces().len() >= kept);
    wait_until("every span", || backend.spans() >= kept * 4);
    let received = backend.traces();
    for trace in traces() {
        let expected = if trace.error { trace.spans as usize } else { 0 };
        assert_eq!(received.get(&trace.id()).map_or(0, Vec::len), expected, "{trace:?}");
    }
}

fn joined(handle: ScopedJoinHandle<'_, Ended>) -> Ended {
    handle.join().expect("its ledger balances and it exits with 0")
}

fn handed_over(process: &Process) -> f64 {
    process.metric("ringtail_ownership", "handed_over")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_leave_at_once_hand_over_to_the_one_that_stays() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest(WAIT, ERRORS), &backend.address.to_string(), 1, 3);
    send_half(0, &shop.agents[0]).await;
    let stays = shop.gateways.pop().expect("three were started");
    let ends: Vec<Ended> = scope(|threads| {
        let stop = |process: Process| threads.spawn(|| process.stop_balanced());
        let handles: Vec<_> = shop.gateways.drain(..).map(stop).collect();
        handles.into_iter().map(joined).collect()
    });
    for end in ends {
        assert_eq!(end.ledger.kept + end.ledger.sampled_away, 0, "nobody decided early");
    }
    stays.wait_for("all traces", |stats| stats.held.traces == TRACES);
    shop.gateways.push(stays);
    send_half(1, &shop.agents[0]).await;
    check(&backend);
    shop.stop();
    check(&backend);
}

/// One gateway hangs and is killed, while another one hands over to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_dies_meanwhile_takes_nothing_with_it() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest(WAIT, ERRORS), &backend.address.to_string(), 1, 3);
    send_half(0, &shop.agents[0]).await;
    let (leaver, receiver) = (shop.gateways.remove(0), shop.gateways.remove(0));
    receiver.signal("STOP");
    leaver.signal("TERM");
    wait_until("a hand-over", || handed_over(&leaver) > 0.0);
    receiver.signal("KILL");
    drop(receiver);
    shop.unlist("gw-1");
    let end = leaver.end_balanced();
    assert_eq!(end.ledger.kept + end.ledger.sampled_away, 0, "it decided nothing early");
    send_half(1, &shop.agents[0]).await;
    check(&backend);
    shop.stop();
    check(&backend);
}

/// One gateway hangs while another one hands over to it; a third one joins, then the first goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_ring_changes_again_meanwhile() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest(WAIT, ERRORS), &backend.address.to_string(), 1, 3);
    send_half(0, &shop.agents[0]).await;
    let leaver = shop.gateways.remove(0);
    shop.gateways[0].signal("STOP");
    leaver.signal("TERM");
    wait_until("a hand-over", || handed_over(&leaver) > 0.0);
    shop.add_gateway("gw-3", &[]);
    shop.list(2, SERVING);
    shop.gateways[2].wait_for("its share", |stats| stats.held.traces > 0);
    shop.gateways[0].signal("CONT");
    let end = leaver.end_balanced();
    assert_eq!(end.ledger.kept + end.ledger.sampled_away, 0, "it decided nothing early");
    send_half(1, &shop.agents[0]).await;
    check(&backend);
    shop.stop();
    check(&backend);
}

fn assert_nothing_dropped(end: &Ended) {
    let mut lines = end.ledger.exporters.values();
    assert!(lines.all(|line| line.dropped.is_empty()), "{end:#?}");
}

const MIB: u64 = 1 << 20;
/// The flag, and the budget that it means: three quarters of it.
const LIMIT: &str = "64Mi";
const BUDGET: u64 = 48 * MIB;
/// Spans in one request, of about 450 bytes each.
const SPANS: u64 = 1000;
/// Three times the budget of those who are to take it.
const REQUESTS: u64 = 3 * BUDGET / (450 * SPANS);

fn heavy(number: u64) -> Vec<Span> {
    let id = |index: u64| [(number * SPANS + index).to_be_bytes(), [7; 8]].concat();
    (0..SPANS)
        .map(|index| Span {
            trace_id: id(index),
            span_id: [3; 8].to_vec(),
            name: "heavy".to_owned(),
            attributes: vec![text("payload", &format!("{index:x>400}"))],
            ..Span::default()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_at_their_budget_take_what_fits_and_the_rest_is_decided() {
    let backend = Backend::start().await;
    let mut shop = Shop::open(&manifest("1h", ALL), &backend.address.to_string());
    for (index, extra) in
        [&[][..], &["--memory-limit", LIMIT], &["--memory-limit", LIMIT]].into_iter().enumerate()
    {
        shop.add_gateway(&format!("gw-{index}"), extra);
        shop.list(index, SERVING);
    }
    shop.await_members(3);
    let address = format!("http://{}", shop.gateways[0].grpc());
    let mut client = TraceServiceClient::connect(address).await.expect("it listens");
    for number in 0..REQUESTS {
        client.export(request("flood", heavy(number))).await.expect("there is room in one of them");
    }
    let leaver = shop.gateways.remove(0);
    let most = |process: &Process| process.resident_bytes();
    let end = scope(|threads| {
        let leaving = threads.spawn(|| leaver.stop_balanced());
        while !leaving.is_finished() {
            for process in &shop.gateways {
                assert!(most(process) <= BUDGET, "{} bytes", most(process));
            }
        }
        joined(leaving)
    });
    assert!(end.ledger.out > 0, "some of it fitted");
    assert!(end.ledger.kept > 0, "not all of it did");
    scope(|threads| {
        let stop = |process: Process| threads.spawn(|| process.stop_balanced());
        let handles: Vec<_> = shop.gateways.drain(..).map(stop).collect();
        handles.into_iter().map(joined).chain([end]).for_each(|end| assert_nothing_dropped(&end));
    });
    wait_until("every span", || backend.spans() as u64 >= REQUESTS * SPANS);
    assert_eq!(backend.traces().len() as u64, REQUESTS * SPANS);
    assert_eq!(backend.spans() as u64, REQUESTS * SPANS, "each came once");
}
