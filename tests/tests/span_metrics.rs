//! Span metrics of real processes: what is scraped and pushed is what was sent, by whichever way it came,
//! and never more while gateways come and go.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail_tests::api::SERVING;
use ringtail_tests::backend::Backend;
use ringtail_tests::certificates::Authority;
use ringtail_tests::exporting;
use ringtail_tests::exposition::{self, Samples, sum};
use ringtail_tests::metrics_sink::{MetricsSink, Point};
use ringtail_tests::process::{Process, wait_until};
use ringtail_tests::shop::{ERRORS, Shop, manifest};
use ringtail_tests::traces::Trace;

const CALLS: &str = "traces_span_metrics_calls_total";
const TRACES: u64 = 300;

fn with(wait: &str, metrics: &str) -> String {
    manifest(wait, ERRORS) + &format!("  spanMetrics: {metrics}\n")
}

fn scrape(process: &Process) -> Samples {
    exposition::parse(&process.admin("/metrics"))
}

fn calls(gateways: &[Process]) -> f64 {
    gateways.iter().map(|gateway| sum(&scrape(gateway), CALLS)).sum()
}

fn trace(number: u64) -> Trace {
    Trace { number, spans: 4, error: number.is_multiple_of(2), duration_ms: 20 }
}

async fn send(to: &Process, numbers: impl Iterator<Item = u64>, part: u32, parts: u32) {
    let address = format!("http://{}", to.grpc());
    let mut client = TraceServiceClient::connect(address).await.expect("it listens");
    for number in numbers {
        client.export(trace(number).part(part, parts)).await.expect("spans are taken");
    }
}

/// Half of the spans come by agents, half straight to a gateway that does not own most of them; all are sent
/// twice by a client that did not hear the answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_span_is_counted_once_where_it_comes_in() {
    let backend = Backend::start().await;
    let sink = MetricsSink::start().await;
    let metrics = format!(
        "{{dimensions: [{{name: http.route}}, {{name: zone, default: none}}], \
         exemplars: {{enabled: true}}, \
         otlp: {{endpoint: \"http://{}\", interval: 1s}}}}",
        sink.address
    );
    let shop = Shop::start(&with("30s", &metrics), &backend.address.to_string(), 1, 3);
    send(&shop.agents[0], 0..TRACES, 0, 2).await;
    send(&shop.gateways[0], 0..TRACES, 1, 2).await;
    wait_until("all spans", || calls(&shop.gateways) >= (TRACES * 4) as f64);
    // What is repeated where it lies is known there. What was passed on is known to its owner alone.
    send(&shop.agents[0], 0..TRACES, 0, 2).await;
    wait_until("duplicates", || {
        let of = |gateway: &Process| gateway.metric("ringtail_duplicate_spans_total", "");
        shop.gateways.iter().map(of).sum::<f64>() >= (TRACES * 2) as f64
    });
    assert_eq!(calls(&shop.gateways), (TRACES * 4) as f64);
    let page = shop.gateways[0].admin("/metrics");
    assert!(page.ends_with("# EOF\n"), "{page}");
    assert!(page.contains("# {trace_id=\""), "exemplars are there");
    let samples = exposition::parse(&page);
    let labels = samples.keys().find(|(name, _)| name == CALLS).map(|(_, labels)| labels);
    let names: Vec<&str> = labels.into_iter().flat_map(|l| l.keys()).map(String::as_str).collect();
    let wanted = [
        "collector_instance_id",
        "http_route",
        "job",
        "service_name",
        "span_kind",
        "span_name",
        "status_code",
        "zone",
    ];
    assert_eq!(names, wanted);
    let of =
        |name: &str| sum(&samples, &format!("traces_span_metrics_duration_milliseconds{name}"));
    assert_eq!(of("_count"), sum(&samples, CALLS));
    assert!(of("_sum") > 0.0 && of("_bucket") > of("_count"));
    let counted = sum(&samples, "ringtail_span_metrics_spans_total");
    assert_eq!(counted, sum(&samples, CALLS));
    shop.stop();
    // The last push of each gateway has all that it counted.
    assert_eq!(sink.sum("traces.span.metrics.calls"), TRACES as i64 * 4);
    let points = sink.points();
    let explicit = points.values().filter_map(|point| match point {
        Point::Explicit(counts, _) => Some(counts.iter().sum::<u64>()),
        _ => None,
    });
    assert_eq!(explicit.sum::<u64>(), TRACES * 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_counted_where_nobody_asked_for_it() {
    let backend = Backend::start().await;
    let shop = Shop::start(&manifest("1s", ERRORS), &backend.address.to_string(), 1, 1);
    send(&shop.agents[0], 0..10, 0, 1).await;
    shop.gateways[0].wait_for("all spans", |stats| stats.ledger.received.total() >= 40);
    assert!(!shop.gateways[0].admin("/metrics").contains("span_metrics"));
    shop.stop();
}

/// Spans that come after the decision on their trace count, too.
#[tokio::test(flavor = "multi_thread")]
async fn late_spans_are_counted() {
    let backend = Backend::start().await;
    let shop = Shop::start(&with("1s", "{}"), &backend.address.to_string(), 1, 2);
    send(&shop.agents[0], 0..TRACES, 0, 2).await;
    for gateway in &shop.gateways {
        gateway.wait_for("decisions", |stats| {
            stats.held.traces == 0 && stats.decisions.as_ref().is_some_and(|it| it.dropped > 0)
        });
    }
    send(&shop.agents[0], 0..TRACES, 1, 2).await;
    wait_until("all spans", || calls(&shop.gateways) >= (TRACES * 4) as f64);
    shop.stop();
}

/// Spans a second of the churn: four, and a hundred times.
const TICK: std::time::Duration = std::time::Duration::from_millis(10);
const STEADY: u64 = 900;
const SPREAD: u64 = 60;

async fn send_steadily(agents: Vec<String>) -> u64 {
    let mut clients = Vec::new();
    for address in agents {
        let address = format!("http://{address}");
        clients.push(TraceServiceClient::connect(address).await.expect("it listens"));
    }
    let mut tick = tokio::time::interval(TICK);
    let mut sent = 0;
    for now in 0..STEADY + 3 * SPREAD {
        tick.tick().await;
        for (part, client) in (0..4).zip([0, 1, 0, 1]) {
            let number = now.checked_sub(u64::from(part) * SPREAD).filter(|n| *n < STEADY);
            if let Some(number) = number {
                let request = trace(number).part(part, 4);
                clients[client].export(request).await.expect("agents take spans");
                sent += 1;
            }
        }
    }
    sent
}

/// What each push told last, by the gateway that told it: a gateway that is gone has told it for the last
/// time.
fn pushed(sink: &MetricsSink) -> i64 {
    sink.sum("traces.span.metrics.calls")
}

/// A gateway joins and another leaves under load: what all of them have told is what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_rolled_counts_every_span_once() {
    let backend = Backend::start().await;
    let sink = MetricsSink::start().await;
    let metrics = format!("{{otlp: {{endpoint: \"http://{}\", interval: 1s}}}}", sink.address);
    let mut shop = Shop::start(&with("6s", &metrics), &backend.address.to_string(), 2, 2);
    let agents = shop.agents.iter().map(Process::grpc).collect();
    let sending = tokio::spawn(send_steadily(agents));
    wait_until("traces everywhere", || {
        shop.gateways.iter().all(|gateway| gateway.stats().held.traces > 20)
    });
    shop.add_gateway("gw-2", &[]);
    shop.list(2, SERVING);
    shop.await_members(3);
    shop.gateways.remove(0).stop_balanced();
    shop.unlist("gw-0");
    let sent = sending.await.expect("all was sent");
    shop.stop();
    let told = pushed(&sink);
    assert!(told <= sent as i64, "{told} of {sent}");
    // What was on a connection when it closed may be missing.
    assert!(told * 100 >= sent as i64 * 98, "{told} of {sent}");
}

/// A gateway is killed under load: its spans are sent again, and are not counted again.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_loses_a_gateway_never_counts_a_span_twice() {
    let backend = Backend::start().await;
    let sink = MetricsSink::start().await;
    let metrics = format!("{{otlp: {{endpoint: \"http://{}\", interval: 1s}}}}", sink.address);
    let mut shop = Shop::start(&with("6s", &metrics), &backend.address.to_string(), 2, 3);
    let agents = shop.agents.iter().map(Process::grpc).collect();
    let sending = tokio::spawn(send_steadily(agents));
    wait_until("traces everywhere", || {
        shop.gateways.iter().all(|gateway| gateway.stats().held.traces > 20)
    });
    let killed = shop.gateways.remove(1);
    let told = sum(&scrape(&killed), CALLS);
    killed.signal("KILL");
    drop(killed);
    shop.unlist("gw-1");
    for process in shop.processes() {
        process.wait_for("the new ring", |stats| stats.ring.members == ["gw-0", "gw-2"]);
    }
    let sent = sending.await.expect("all was sent") as f64;
    wait_until("agents that are done", || {
        shop.agents.iter().all(|agent| agent.stats().held.spans == 0)
    });
    let all = calls(&shop.gateways) + told;
    assert!(all <= sent, "{all} of {sent}");
    // What was on its way to the killed one is missing, and what it counted after its last scrape.
    assert!(all >= sent * 0.9, "{all} of {sent}");
    let replays: u64 = shop.gateways.iter().map(|g| g.stats().ledger.received.replays).sum();
    assert!(replays > 0, "a third of the traces was there");
    shop.stop();
    assert!(pushed(&sink) as f64 <= sent);
}

/// The push shows a certificate and trusts an authority of its own; both are followed.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_in_mutual_tls_and_their_certificates_change() {
    const NAME: &str = "metrics.test";
    let (directory, backend) = (tempfile::tempdir().expect("a directory"), Backend::start().await);
    let (ours, other) = (Authority::generate(), Authority::generate());
    let sink = MetricsSink::start_tls(&ours.sign(NAME), &ours).await;
    let put = |files: &[(&str, &str)]| {
        let target = directory.path().join("secrets/push");
        std::fs::create_dir_all(&target).expect("a directory");
        for (key, text) in files {
            let fresh = target.join(format!("{key}.new"));
            std::fs::write(&fresh, text).expect("a file");
            std::fs::rename(&fresh, target.join(key)).expect("in its place");
        }
    };
    // A certificate that nobody there knows, first.
    let stranger = other.sign("client");
    let trusted = ours.pem();
    let (certificate, key) = (stranger.certificate.as_str(), stranger.key.as_str());
    put(&[("tls.crt", certificate), ("tls.key", key), ("ca.crt", trusted.as_str())]);
    let url = format!("http://{}", backend.address);
    let metrics = format!(
        "  spanMetrics: {{otlp: {{endpoint: \"https://{}\", interval: 1s, tls: {{caRef: {{name: push}}, \
         clientCertificateRef: {{name: push}}, serverName: {NAME}}}}}}}\n",
        sink.address
    );
    let manifest = exporting::manifest(&exporting::otlp("backend", "GRPC", &url, "")) + &metrics;
    let (gateway, _) = exporting::logged(directory.path(), &manifest, "info");
    exporting::send(&gateway, (0..10).map(|number| exporting::trace(number).part(0, 1))).await;
    let told = |metric: &str, outcome: &str| {
        gateway.metric(&format!("ringtail_span_metrics_{metric}_total"), outcome)
    };
    wait_until("a push that is refused", || told("pushes", "failed") >= 1.0);
    assert_eq!(sink.sum("traces.span.metrics.calls"), 0);
    let known = ours.sign("client");
    put(&[("tls.key", known.key.as_str())]);
    wait_until("a key that fits nothing", || told("credentials", "refused") >= 1.0);
    put(&[("tls.crt", known.certificate.as_str())]);
    wait_until("a certificate that is known", || told("credentials", "applied") >= 1.0);
    wait_until("all spans", || sink.sum("traces.span.metrics.calls") == 30);
    gateway.stop_balanced();
}
