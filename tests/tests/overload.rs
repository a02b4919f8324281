//! Five times more load than fits: the gateway decides early or refuses with a hint, stays within its
//! memory, and every span is in the ledger.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::Span;
use ringtail_tests::backend::Backend;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};
use ringtail_tests::traces::{request, text};

const MIB: u64 = 1 << 20;
/// The flag, and the budget that it means: three quarters of it.
const LIMIT: &str = "96Mi";
const BUDGET: u64 = 72 * MIB;
/// Spans in one request, of about 450 bytes each.
const SPANS: u64 = 1000;
/// 5 x the whole budget, although only a part of it is for the buffer.
const REQUESTS: u64 = 5 * BUDGET / (450 * SPANS);

fn heavy(number: u64) -> Vec<Span> {
    (0..SPANS)
        .map(|index| Span {
            trace_id: [(number * SPANS + index).to_be_bytes(), [7; 8]].concat(),
            span_id: [3; 8].to_vec(),
            name: "heavy".to_owned(),
            attributes: vec![text("payload", &format!("{:x>400}", index))],
            ..Span::default()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stays_within_its_budget_under_five_times_its_load() {
    let backend = Backend::start().await;
    // A wait that no trace lives to see: nothing leaves the buffer by the clock.
    let extra = ["--memory-limit", LIMIT, "--decision-wait", "1h", "--threads", "2"];
    let fleet = Fleet::start(ERRORS_AND_SLOW, 0, 1, &backend.address.to_string(), &extra);
    let gateway = &fleet.gateways[0];
    let mut client =
        TraceServiceClient::connect(format!("http://{}", gateway.grpc())).await.unwrap();
    let (mut taken, mut refused, mut most) = (0, 0, 0);
    for number in 0..REQUESTS {
        match client.export(request("flood", heavy(number))).await {
            Ok(_) => taken += SPANS,
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                assert!(!status.details().is_empty(), "RetryInfo says when to come back");
                refused += SPANS;
            }
        }
        most = most.max(gateway.resident_bytes());
    }
    assert!(most <= BUDGET, "{most} bytes resident with a budget of {BUDGET}");
    assert!(refused > 0, "the buffer cannot hold this");
    let (_, gateways) = fleet.stop();
    let ledger = &gateways[0].ledger;
    assert_eq!(ledger.received.clients, taken + refused);
    assert_eq!(ledger.refused["no_room"], refused);
    assert_eq!(ledger.sampled_away, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_traces_are_decided_early_before_anything_is_refused() {
    let backend = Backend::start().await;
    let extra = ["--memory-limit", LIMIT, "--decision-wait", "1s"];
    let fleet = Fleet::start(ERRORS_AND_SLOW, 0, 1, &backend.address.to_string(), &extra);
    let gateway = &fleet.gateways[0];
    let mut client =
        TraceServiceClient::connect(format!("http://{}", gateway.grpc())).await.unwrap();
    let mut refused = 0;
    for number in 0..REQUESTS {
        if client.export(request("flood", heavy(number))).await.is_err() {
            refused += SPANS;
        }
    }
    let stats = gateway.wait_for("an empty buffer", |stats| stats.held.traces == 0);
    let decisions = stats.decisions.unwrap();
    assert_eq!(decisions.kept + decisions.dropped + refused, REQUESTS * SPANS);
    let (_, gateways) = fleet.stop();
    assert_eq!(gateways[0].ledger.sampled_away + refused, REQUESTS * SPANS);
}
