//! The admin port: metrics, probes and `/stats`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use ringtail_engine::ring::View;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::membership::Counts;
use crate::metrics::span_metrics::Pages;
use crate::metrics::{Source, TierSource};
use crate::stats::{
    BudgetStats, ChurnStats, ConfigStats, DecisionStats, HeldStats, LedgerReport, ObserverStats,
    PolicyStats, RingStats, Role, Stats,
};

/// What Prometheus asks for, and what the encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What ends it.
const EOF: &str = "# EOF\n";

/// What the admin port shows.
#[derive(Clone, Debug)]
struct Shown {
    source: Source,
    registry: Arc<Registry>,
    stopping: watch::Receiver<bool>,
}

/// Serves the admin port until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    source: Source,
    stopping: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(source.clone()));
    let shown = Shown { source, registry: Arc::new(registry), stopping };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/stats", get(stats))
        .with_state(shown);
    axum::serve(listener, router).await
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let counted = match &shown.source.tier {
        TierSource::Gateway(gateway) => gateway.span_metrics.as_ref(),
        TierSource::Agent(_) => None,
    };
    // First: what is told of the counting is as of this moment.
    let pages = match counted {
        Some(metrics) => Some(Pages::new(Arc::clone(metrics), metrics.show().await)),
        None => None,
    };
    let mut text = String::new();
    if let Err(error) = text::encode_registry(&mut text, &shown.registry) {
        let told = format!("metrics could not be written: {error}\n");
        return (StatusCode::INTERNAL_SERVER_ERROR, told).into_response();
    }
    let head = [(header::CONTENT_TYPE, OPENMETRICS)];
    match pages {
        None => (head, text + EOF).into_response(),
        Some(pages) => {
            let all = std::iter::once(text).chain(pages).chain([EOF.to_owned()]);
            let all = futures::stream::iter(all.map(Ok::<String, Infallible>));
            (head, Body::from_stream(all)).into_response()
        }
    }
}

/// Ready means listening with a loaded policy, never load, peers or backends: a fleet whose backend is down
/// must not lose its gateways as well.
async fn readyz(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    if *shown.stopping.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn stats(State(shown): State<Shown>) -> Json<Stats> {
    Json(snapshot(&shown.source))
}

/// What `/stats` shows now.
pub fn snapshot(source: &Source) -> Stats {
    let ledger = source.ledger();
    let spans = ledger.held;
    let config = source.config.stats();
    match &source.tier {
        TierSource::Agent(core) => {
            let ring = core.ring();
            let bytes = core.held_bytes();
            Stats {
                role: Role::Agent,
                identity: core.identity.id.clone(),
                inst: core.identity.inst,
                config,
                ring: ring_stats(ring.as_ref().map(|ring| &ring.view), Vec::new(), &core.counts),
                ledger,
                held: HeldStats { spans, bytes, traces: 0 },
                budget: BudgetStats { bytes: core.send_budget, used: bytes },
                policies: Vec::new(),
                decisions: None,
                churn: ChurnStats {
                    replayed_traces: core.kept.replayed.load(Relaxed),
                    unprotected_spans: core.kept.unprotected_spans.load(Relaxed),
                    ..ChurnStats::default()
                },
            }
        }
        TierSource::Gateway(gateway) => gateway_snapshot(gateway, config, ledger, spans),
    }
}

fn ring_stats(view: Option<&View>, observers: Vec<ObserverStats>, counts: &Counts) -> RingStats {
    let members = view.map_or(&[][..], View::members);
    RingStats {
        digest: format!("{:016x}", view.map_or(0, View::digest)),
        members: members.iter().map(|member| member.id.clone()).collect(),
        observers,
        draining: counts.draining.load(Relaxed),
        foreign: counts.foreign.load(Relaxed),
    }
}

fn gateway_snapshot(
    gateway: &Gateway,
    config: ConfigStats,
    ledger: LedgerReport,
    spans: u64,
) -> Stats {
    let shards = || gateway.shards().iter().map(|shard| &shard.gauges);
    let decisions = DecisionStats {
        kept: shards().map(|g| g.traces_kept.load(Relaxed)).sum(),
        dropped: shards().map(|g| g.traces_dropped.load(Relaxed)).sum(),
        early: shards().map(|g| g.early_pressure.load(Relaxed) + g.early_size.load(Relaxed)).sum(),
    };
    let infos = gateway.policies();
    let policies = infos.iter().map(|policy| PolicyStats {
        name: policy.name.clone(),
        kept: if policy.drops { 0 } else { gateway.decided_by(&policy.name) },
    });
    let peers = &gateway.peers;
    let view = peers.view();
    Stats {
        role: Role::Gateway,
        identity: peers.identity.id.clone(),
        inst: peers.identity.inst,
        config,
        ring: ring_stats(Some(&*view), peers.observers.list(), &peers.counts),
        ledger,
        held: HeldStats {
            spans,
            bytes: shards().map(|g| g.bytes.load(Relaxed)).sum(),
            traces: shards().map(|g| g.traces.load(Relaxed)).sum(),
        },
        budget: BudgetStats { bytes: gateway.room().limit(), used: gateway.room().used() },
        policies: policies.collect(),
        decisions: Some(decisions),
        churn: ChurnStats::of_gateway(
            (*peers.life().borrow()).into(),
            &gateway.conduct(),
            gateway.counters.handed_over.load(Relaxed),
            gateway.counters.repeated.load(Relaxed),
        ),
    }
}
