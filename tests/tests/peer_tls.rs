//! Mutual TLS between agents and gateways as real processes: who gets in, and certificates that change under
//! load.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail::membership::asker;
use ringtail::peer::{Identity, Role, State};
use ringtail::stats;
use ringtail::transport::{CallError, Client, ClientLimits, Code, Keyring};
use ringtail_tests::api::SERVING;
use ringtail_tests::backend::Backend;
use ringtail_tests::certificates::Authority;
use ringtail_tests::process::{Process, wait_until};
use ringtail_tests::shop::{ALL, Shop, manifest};
use ringtail_tests::traces::Trace;

const HANDSHAKES: &str = "ringtail_peer_handshakes_total";

/// A fleet whose tiers have certificates.
fn start(backend: &Backend, authority: &Authority, agents: usize, gateways: usize) -> Shop {
    let mut shop = Shop::open(&manifest("1s", ALL), &backend.address.to_string());
    shop.certify(authority, &[authority]);
    for index in 0..gateways {
        shop.add_gateway(&format!("gw-{index}"), &[]);
        shop.list(index, SERVING);
    }
    for index in 0..agents {
        shop.add_agent(&format!("agent-{index}"));
    }
    shop.await_members(gateways);
    shop
}

async fn send(process: &Process, numbers: std::ops::Range<u64>) {
    let mut sender = TraceServiceClient::connect(format!("http://{}", process.grpc()))
        .await
        .expect("it listens");
    for number in numbers {
        let trace = Trace { number, spans: 3, error: false, duration_ms: 20 };
        sender.export(trace.part(0, 1)).await.expect("spans are taken");
    }
}

fn peer_port(gateway: &Process) -> String {
    gateway.listening.peer.expect("a peer port").to_string()
}

/// Says Hello as an agent called `a-9`, with these certificates.
async fn hello(
    address: &str,
    keyring: Option<&std::sync::Arc<Keyring>>,
) -> Result<String, CallError> {
    let client =
        Client::with_keyring(address, &ClientLimits::default(), keyring).expect("a client");
    let me = Identity { id: "a-9".to_owned(), inst: 1, role: Role::Agent };
    let answer = asker::ask(&client, me.hello(State::Serving, 0)).await?;
    Ok(answer.and_then(|answer| answer.member).map(|member| member.id).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_this_pipeline_get_in() {
    let (backend, authority) = (Backend::start().await, Authority::generate());
    let shop = start(&backend, &authority, 1, 2);
    send(&shop.agents[0], 0..50).await;
    let gateway = &shop.gateways[0];
    let port = peer_port(gateway);
    let counted = |outcome: &str| gateway.metric(HANDSHAKES, outcome);

    // An agent's certificate opens the door, for an agent.
    let ours = Keyring::open(&shop.directory().join("agent"), "shop", stats::Role::Agent)
        .expect("certificates");
    assert_eq!(hello(&port, Some(&ours)).await.expect("an answer"), "gw-0");
    let posing = Keyring::open(&shop.directory().join("gateway"), "shop", stats::Role::Gateway)
        .expect("certificates");
    let refused = hello(&port, Some(&posing)).await.expect_err("a gateway that calls itself agent");
    assert!(matches!(refused, CallError::Status { code: Code::PermissionDenied, .. }), "{refused}");

    // Another authority's, under the right name, trusting ours.
    let stranger = Authority::generate();
    let elsewhere = tempfile::tempdir().expect("a directory");
    let theirs = stranger.issue(elsewhere.path(), "agent", &[&authority]);
    let theirs = Keyring::open(&theirs, "shop", stats::Role::Agent).expect("certificates");
    hello(&port, Some(&theirs)).await.expect_err("a stranger");
    wait_until("a certificate that is not ours", || counted("bad_certificate") >= 1.0);

    // No TLS at all.
    hello(&port, None).await.expect_err("no certificate");
    wait_until("no TLS", || counted("broken") >= 1.0);
    let mut socket = TcpStream::connect(&port).expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is sent");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "nothing is served in the clear");

    // The port of clients takes OTLP from anybody, and no peers.
    let refused = hello(&gateway.grpc(), None).await.expect_err("a peer at the wrong door");
    assert!(matches!(refused, CallError::Status { code: Code::PermissionDenied, .. }), "{refused}");
    assert!(gateway.metric("ringtail_peer_turned_away_total", "") >= 1.0);
    send(gateway, 50..60).await;

    let (agents, _) = shop.stop();
    assert_eq!(agents[0].ledger.out, 150);
    assert_eq!(backend.traces().len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_certificates_sends_nothing_in_the_clear() {
    let (backend, authority) = (Backend::start().await, Authority::generate());
    let shop = start(&backend, &authority, 0, 1);
    let file = shop.manifest_file().to_str().expect("UTF-8");
    let gateway = &shop.gateways[0];
    let (peer, grpc) = (peer_port(gateway), gateway.grpc());
    let plain = Process::start(&[
        "agent",
        "--identity",
        "plain",
        "--pipeline",
        file,
        "--gateway",
        &peer,
        "--gateway",
        &grpc,
    ]);
    wait_until("its refusals", || {
        gateway.metric(HANDSHAKES, "broken") >= 2.0
            && gateway.metric("ringtail_peer_turned_away_total", "") >= 2.0
    });
    assert_eq!(plain.stats().ring.members, Vec::<String>::new());
    plain.stop_balanced();
    shop.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_nothing_is_dropped() {
    const ROUNDS: u64 = 3;
    let backend = Backend::start().await;
    let mut authority = Authority::generate();
    let mut shop = start(&backend, &authority, 1, 2);
    let reloads = |process: &Process| process.metric("ringtail_peer_certificates_total", "applied");
    for round in 0..ROUNDS {
        // First everybody trusts both authorities, then the new one signs, then the old one is forgotten.
        let next = Authority::generate();
        let steps: [(&Authority, &[&Authority]); 3] =
            [(&authority, &[&authority, &next]), (&next, &[&authority, &next]), (&next, &[&next])];
        for (signer, trusted) in steps {
            let before: Vec<f64> = shop.processes().map(reloads).collect();
            shop.certify(signer, trusted);
            send(&shop.agents[0], 0..20).await;
            for (process, before) in shop.processes().zip(before) {
                wait_until("new certificates", || reloads(process) > before);
            }
        }
        authority = next;
        // Who comes now is let in by the new certificates alone, and so is the gateway that it finds.
        shop.add_agent(&format!("late-{round}"));
        shop.add_gateway(&format!("late-gw-{round}"), &[]);
        let index = shop.gateways.len() - 1;
        shop.list(index, SERVING);
        shop.await_members(index + 1);
        let late = shop.agents.last().expect("an agent");
        send(late, 1000 * (round + 1)..1000 * (round + 1) + 20).await;
    }
    let (agents, _) = shop.stop();
    let [sent, out, dropped] = [
        agents.iter().map(|end| end.ledger.received.clients).sum::<u64>(),
        agents.iter().map(|end| end.ledger.out).sum(),
        agents.iter().map(|end| stats::total(&end.ledger.dropped)).sum(),
    ];
    assert_eq!((sent, out, dropped), (ROUNDS * (3 * 20 + 20) * 3, sent, 0));
}
