//! Who is in the ring, as real agents and gateways learn it from an API server that misbehaves; and the
//! manifest, as they take it over while they run.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail::discovery::Discovery;
use ringtail::membership::asker;
use ringtail::membership::instance::learn;
use ringtail::peer::{Identity, Role, State};
use ringtail::stats;
use ringtail::transport::{Client, ClientLimits};
use ringtail_tests::api::{SERVING, STARTING, TERMINATING};
use ringtail_tests::backend::Backend;
use ringtail_tests::process::{Process, wait_until};
use ringtail_tests::shop::{ALL, ERRORS, Shop, manifest};
use ringtail_tests::traces::Trace;

type Sender = TraceServiceClient<tonic::transport::Channel>;

async fn sender(process: &Process) -> Sender {
    TraceServiceClient::connect(format!("http://{}", process.grpc())).await.expect("it listens")
}

fn trace(number: u64) -> Trace {
    Trace { number, spans: 3, error: number.is_multiple_of(2), duration_ms: 20 }
}

/// Sends traces of three spans; every request is taken.
async fn send(sender: &mut Sender, numbers: std::ops::Range<u64>) {
    for number in numbers {
        sender.export(trace(number).part(0, 1)).await.expect("spans are taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_of_three_gateways_becomes_ready_and_agrees() {
    let backend = Backend::start().await;
    let mut shop = Shop::open(&manifest("1s", ERRORS), &backend.address.to_string());
    for index in 0..3 {
        shop.add_gateway(&format!("gw-{index}"), &[]);
        shop.list(index, STARTING);
    }
    // Nobody is ready in any slice, and every one of them is.
    for gateway in &shop.gateways {
        assert_eq!(gateway.admin("/readyz"), "ok\n");
    }
    (0..3).for_each(|index| shop.list(index, SERVING));
    shop.add_agent("agent-0");
    let digest = shop.await_members(3);

    let expected = [
        ("agent-0", stats::Role::Agent),
        ("gw-0", stats::Role::Gateway),
        ("gw-1", stats::Role::Gateway),
        ("gw-2", stats::Role::Gateway),
    ];
    for gateway in &shop.gateways {
        let identity = gateway.stats().identity;
        let others = expected.iter().filter(|(id, _)| *id != identity);
        let others: Vec<_> =
            others.map(|(id, role)| ((*id).to_owned(), *role, digest.clone())).collect();
        gateway.wait_for("observers that agree", |stats| {
            let observers = stats.ring.observers.iter();
            observers.map(|o| (o.identity.clone(), o.role, o.digest.clone())).eq(others.clone())
        });
    }
    shop.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_move_members_and_no_span_is_lost() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 2);
    let mut agent = sender(&shop.agents[0]).await;
    send(&mut agent, 0..200).await;

    // One more is listed, and joins.
    shop.add_gateway("gw-2", &[]);
    shop.list(2, SERVING);
    let three = shop.await_members(3);
    send(&mut agent, 200..400).await;

    // One is being deleted: it leaves the ring at once, although it still answers.
    shop.list(0, TERMINATING);
    let left = |stats: &stats::Stats| stats.ring.members == ["gw-1", "gw-2"];
    shop.agents[0].wait_for("a smaller ring", left);
    assert_eq!(shop.agents[0].stats().ring.draining, 1);
    send(&mut agent, 400..600).await;
    shop.unlist("gw-0");
    let end = shop.gateways.remove(0).stop_balanced();
    assert!(end.ledger.received.peers > 0);
    let two = shop.await_members(2);
    assert_ne!(two, three);

    // One freezes and vanishes from the slices: what it has not acknowledged goes to the next choice.
    shop.gateways[0].signal("STOP");
    send(&mut agent, 600..700).await;
    shop.unlist("gw-1");
    let alone = |stats: &stats::Stats| stats.ring.members == ["gw-2"] && stats.held.spans == 0;
    shop.agents[0].wait_for("everything with the last gateway", alone);
    shop.gateways[0].signal("CONT");

    let (agents, _) = shop.stop();
    let ledger = &agents[0].ledger;
    assert_eq!((ledger.received.clients, ledger.out), (2100, 2100), "{ledger:?}");
    let kept = (0..700).filter(|number| trace(*number).error).count();
    assert_eq!(backend.traces().len(), kept, "no trace with an error is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_everybody_keeps_the_last_view() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 2);
    let digest = shop.await_members(2);
    let mut agent = sender(&shop.agents[0]).await;

    shop.api.go_away();
    for process in shop.processes() {
        wait_until("failures of both watches", || {
            ["endpointslices", "configmaps"].iter().all(|resource| {
                process.metric("ringtail_discovery_stale_seconds", resource) > 0.0
                    && process.metric("ringtail_discovery_watch_failures_total", resource) >= 2.0
            })
        });
    }
    send(&mut agent, 0..100).await;
    assert_eq!(shop.await_members(2), digest);
    // Who starts now knows nobody, and is ready all the same.
    shop.add_gateway("gw-2", &[]);
    assert_eq!(shop.gateways[2].admin("/readyz"), "ok\n");
    shop.gateways[2].wait_for("a ring of one", |stats| stats.ring.members.len() == 1);

    shop.api.come_back();
    shop.list(2, SERVING);
    assert_ne!(shop.await_members(3), digest);
    for process in shop.processes() {
        wait_until("a watch that is up again", || {
            process.metric("ringtail_discovery_stale_seconds", "") == 0.0
        });
    }
    send(&mut agent, 100..200).await;
    let (agents, _) = shop.stop();
    assert_eq!(agents[0].ledger.out, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_watches_and_refusals_are_ridden_out_without_a_burst() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 1);
    let started = Instant::now();
    let before = shop.api.requests();
    for round in 0..4 {
        match round {
            // Ended as often as it is asked for.
            0 => (0..50).for_each(|_| {
                shop.api.cut_watches();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }),
            1 => {
                shop.api.compact();
                shop.api.cut_watches();
            }
            2 | 3 => {
                shop.api.refuse_with(Some(if round == 2 { 429 } else { 403 }));
                shop.api.cut_watches();
                for process in shop.processes() {
                    wait_until("a refusal", || {
                        process.metric("ringtail_discovery_stale_seconds", "slices") > 0.0
                    });
                }
                shop.api.refuse_with(None);
            }
            _ => {}
        }
        let index = shop.gateways.len();
        shop.add_gateway(&format!("gw-{index}"), &[]);
        shop.list(index, SERVING);
        shop.await_members(index + 1);
    }
    // Each process sends one request a second on average, after its first four.
    let (asked, processes) = (shop.api.requests() - before, shop.processes().count());
    let most = processes as f64 * (4.0 + 2.0 * started.elapsed().as_secs_f64());
    assert!(asked as f64 <= most, "{asked} requests in {:?}", started.elapsed());
    shop.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_not_believed_over_gateways_that_answer() {
    let backend = Backend::start().await;
    let shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 2);
    let digest = shop.await_members(2);
    shop.unlist("gw-0");
    shop.unlist("gw-1");
    // The list with one gateway is taken over; the empty one is not.
    shop.agents[0].wait_for("a ring of one", |stats| stats.ring.members == ["gw-1"]);
    shop.list(0, SERVING);
    shop.agents[0].wait_for("the other one", |stats| stats.ring.members == ["gw-0"]);
    shop.list(1, SERVING);
    assert_eq!(shop.await_members(2), digest);
    shop.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_another_seed_is_no_member() {
    let backend = Backend::start().await;
    let mut shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 1);
    let seed = shop.directory().join("seed");
    std::fs::write(&seed, "000102030405060708090a0b0c0d0e0f\n").unwrap();
    shop.add_gateway("stranger", &["--seed-file", seed.to_str().unwrap()]);
    shop.list(1, SERVING);
    for process in shop.processes() {
        process.wait_for("a stranger, and a ring of one", |stats| {
            stats.ring.foreign == 1 && stats.ring.members.len() == 1
        });
        wait_until("the metric", || process.metric("ringtail_discovery_foreign", "") == 1.0);
    }
    shop.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_gets_a_higher_instance_whatever_the_clock_says() {
    let backend = Backend::start().await;
    let shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 0, 1);
    let address = shop.gateways[0].grpc();
    // A gateway whose clock is far ahead introduces itself, and starts again when the clock is right.
    let far_ahead = Identity { id: "gw-9".to_owned(), inst: 1 << 50, role: Role::Gateway };
    let client = Client::new(&address, &ClientLimits::default()).unwrap();
    let answer = asker::ask(&client, far_ahead.hello(State::Serving, 1)).await.unwrap().unwrap();
    assert_eq!(answer.member.unwrap().id, "gw-0");
    let again = Identity { inst: 1000, ..far_ahead.clone() };
    let peers = Discovery::fixed(&[address, "127.0.0.1:1".to_owned()]);
    assert_eq!(learn(again, peers.candidates, None).await.inst, (1 << 50) + 1);
    shop.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_change_is_used_without_restart_and_nothing_is_lost() {
    let backend = Backend::start().await;
    let shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 2);
    let mut agent = sender(&shop.agents[0]).await;
    send(&mut agent, 0..100).await;
    let before = shop.gateways[0].stats().config.hash;
    for gateway in &shop.gateways {
        let decided = gateway.wait_for("decisions", |stats| stats.held.traces == 0);
        assert_eq!((decided.config.hash.len(), &decided.config.hash), (16, &before));
    }
    wait_until("the first hundred", || backend.traces().len() == 50);

    let wrong = manifest("1s", "{name: errors, type: Sometimes}");
    shop.api.put_manifest("shop", &wrong);
    for process in shop.processes() {
        let stats = process.wait_for("a refusal", |stats| stats.config.error.is_some());
        assert_eq!(stats.config.hash, before);
        assert!(stats.config.error.unwrap().contains("policies[0].type"));
        assert_eq!(process.metric("ringtail_config_refused", ""), 1.0);
    }

    let newer = manifest("1500ms", ALL);
    shop.api.put_manifest("shop", &newer);
    let hash = ringtail::config::hash(&newer);
    for process in shop.processes() {
        let stats = process.wait_for("the new manifest", |stats| stats.config.hash == hash);
        assert_eq!(stats.config.error, None);
    }
    send(&mut agent, 100..200).await;
    wait_until("every trace of the second hundred", || backend.traces().len() == 150);
    for gateway in &shop.gateways {
        let policies = gateway.stats().policies;
        assert_eq!(policies.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["all"]);
        assert!(policies[0].kept > 0);
    }
    let (_, gateways) = shop.stop();
    let kept: u64 = gateways.iter().map(|end| end.ledger.kept).sum();
    assert_eq!(kept, 150 * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_the_file_itself_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipeline.yaml");
    std::fs::write(&path, manifest("1s", ERRORS)).unwrap();
    let file = path.to_str().unwrap();
    let gateway = Process::start(&["gateway", "--identity", "gw-0", "--pipeline", file]);
    let newer = manifest("2s", ALL);
    std::fs::write(&path, &newer).unwrap();
    let hash = ringtail::config::hash(&newer);
    gateway.wait_for("the new manifest", |stats| stats.config.hash == hash);
    gateway.stop_balanced();
}
