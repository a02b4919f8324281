//! The operator's admin port: `/metrics`, `/livez` and `/readyz`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::encoding::text::encode;
use tokio::{net::TcpListener, sync::watch, time::Instant};

use crate::{lease::Leadership, metrics::Metrics};

/// What Prometheus asks for, and what the encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How often the event loop says that it turns.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Without a beat for this long something blocks it. A kubelet asks three times before it restarts the pod.
const BEAT_AGE_MAX: Duration = Duration::from_secs(15);
/// A watch that broke is open again after half a minute at most, unless the API server is away.
const WATCH_BROKEN_MAX: Duration = Duration::from_secs(60);

/// What the admin port shows.
#[derive(Clone)]
pub struct Shown {
    /// Counters, and the health of watches.
    pub metrics: Metrics,
    /// Where leadership stands.
    pub leadership: watch::Receiver<Leadership>,
    /// Whether all stores have been filled.
    pub synced: watch::Receiver<bool>,
    /// The last beat of the event loop.
    pub beat: watch::Receiver<Instant>,
}

/// Beats for as long as the event loop turns.
pub async fn beat(beats: watch::Sender<Instant>) {
    let mut interval = tokio::time::interval(BEAT_INTERVAL);
    loop {
        interval.tick().await;
        beats.send_replace(Instant::now());
    }
}

/// Serves until it is dropped.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, shown: Shown) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(shown));
    axum::serve(listener, router).await
}

async fn metrics(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &shown.metrics.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("metrics could not be written: {error}\n"),
        ),
    }
}

// Only a restart helps against a loop that does not turn, and against nothing else.
async fn livez(State(shown): State<Arc<Shown>>) -> (StatusCode, &'static str) {
    match shown.beat.borrow().elapsed() <= BEAT_AGE_MAX {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the event loop does not turn\n"),
    }
}

async fn readyz(State(shown): State<Arc<Shown>>) -> (StatusCode, String) {
    match unready(&shown) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Why the operator is not ready. One that stands by is, once it knows who leads and has the stores that it
/// would lead with.
pub fn unready(shown: &Shown) -> Option<String> {
    match *shown.leadership.borrow() {
        Leadership::Unknown => return Some("it is not known who leads".to_owned()),
        Leadership::Lost => return Some("leadership is lost; this process ends".to_owned()),
        Leadership::Standby { .. } | Leadership::Leading { .. } => {}
    }
    if !*shown.synced.borrow() {
        return Some("the stores are not filled yet".to_owned());
    }
    let broken = shown.metrics.watches_broken_for(WATCH_BROKEN_MAX);
    (!broken.is_empty()).then(|| format!("watches are broken: {}", broken.join(", ")))
}
