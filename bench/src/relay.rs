//! The raw limit: Ringtail's own server and client with nothing between them, on one thread.
//!
//! Each request's message goes to the next upstream as it came (inflated, if it came compressed) and is
//! answered after the upstream has answered. The one copy is the client's: a frame is one buffer with its
//! prefix in front.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use ringtail::transport::{
    Admission, Call, CallError, Client, ClientLimits, Encoding, Handler, Protocol, Refusal, Reply,
    ServerLimits, bind, framed, serve,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Doing, Failure, Result};

/// Bytes of requests in memory: far more than a bench has in flight.
const BUDGET_BYTES: u64 = 1 << 30;

/// How long an upstream may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// When a client should try again after an upstream failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Forwards OTLP/gRPC requests unread until SIGTERM.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where to send, in turn.
    #[arg(long = "upstream", required = true)]
    pub upstreams: Vec<SocketAddr>,
}

struct Relay {
    upstreams: Vec<Client>,
    turn: AtomicUsize,
}

/// Runs the relay to its end.
pub async fn run(options: Options) -> Result<()> {
    let listener = bind(options.listen).doing(|| "starting the relay".into())?;
    let address = listener.local_addr().doing(|| "asking for an address".into())?;
    let clients = options.upstreams.iter().map(|upstream| {
        Client::new(&upstream.to_string(), &ClientLimits::default())
            .map_err(|error| Failure::new(error.to_string()))
    });
    let relay = Relay { upstreams: clients.collect::<Result<_>>()?, turn: AtomicUsize::new(0) };
    println!("{}", json!({"listening": address}));
    let (stop, stopped) = watch::channel(false);
    let budget = Admission::new(BUDGET_BYTES);
    let limits = ServerLimits::default();
    let served = serve(listener, Protocol::Grpc, limits, budget, relay, stopped);
    let served = tokio::spawn(served);
    let terminate = signal(SignalKind::terminate());
    terminate.doing(|| "installing a signal handler".into())?.recv().await;
    stop.send_replace(true);
    served.await.doing(|| "ending the relay".into())?;
    Ok(())
}

impl Handler for Relay {
    async fn handle(&self, call: Call) -> std::result::Result<Reply, Refusal> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.upstreams.len();
        let frame = framed(call.message.len(), |out| out.extend_from_slice(&call.message));
        let (upstream, none) = (&self.upstreams[turn], HeaderMap::new());
        let sending = upstream.call(call.method, frame, Encoding::Identity, &none, TIMEOUT);
        let message = sending.await.map_err(|error| refusal(&error))?;
        Ok(Reply { message })
    }
}

fn refusal(error: &CallError) -> Refusal {
    let message = format!("an upstream failed: {error}");
    if error.is_retryable() {
        Refusal::Unavailable { message, retry_after: RETRY_AFTER }
    } else {
        Refusal::Malformed(message)
    }
}
