//! The agent: receive -> scan -> route -> queue -> send.
//!
//! A request is checked, counted and split by trace into one open batch a gateway; the answer OK means that
//! its spans are in this process's bounded memory. Batches go out by size or age through one link a
//! gateway.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ringtail_engine::key::KeySeed;
use ringtail_engine::scan::{self, ScanLimits, Shape};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use self::core::Core;
use self::core::Offer;
use self::link::{Link, Sender};
use self::members::{Membership, Watcher};
use self::splitter::BatchLimits;
use crate::ledger::Refused;
use crate::otlp;
use crate::peer::{Dialect, Identity};
use crate::transport::{
    Call, Client, ClientLimits, Encoding, EndpointError, Handler, Refusal, Reply,
};

pub mod core;
mod frame;
pub mod link;
pub mod members;
pub mod splitter;

/// How long a request may wait for room before it is refused: long enough to ride out a burst, short
/// against the 10 s that SDKs wait for an answer.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(500);
/// What a refused client is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// News of candidates under way to the membership task: each sends at most one every hello, so this never
/// fills.
const EVENTS_MAX: usize = 64;

/// What an agent needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Keys the ring.
    pub seed: KeySeed,
    /// Candidates, `host:port`.
    pub gateways: Vec<String>,
    /// Whether it speaks nothing but OTLP: a sidecar is no part of the fleet.
    pub thin: bool,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// When a batch is old.
    pub batch_timeout: Duration,
    /// Compression of the hop.
    pub hop_encoding: Encoding,
    /// Bytes for spans on their way.
    pub send_budget: u64,
    /// Limits of the scanner.
    pub scan: ScanLimits,
}

/// A running agent.
pub struct Agent {
    core: Arc<Core>,
    scan: ScanLimits,
    stopping: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

/// The agent's side of its receivers.
#[derive(Clone)]
pub struct Intake {
    core: Arc<Core>,
    scan: ScanLimits,
    stopping: watch::Receiver<bool>,
}

// === impl Agent ===

impl Agent {
    /// Starts links, membership and the batch clock. `stopping` turns true when no more requests are to be
    /// taken.
    ///
    /// # Errors
    /// When a gateway is not `host:port`.
    pub fn start(config: Config, stopping: watch::Receiver<bool>) -> Result<Self, EndpointError> {
        let core = Arc::new(Core::new(
            config.identity,
            config.seed,
            config.batch,
            config.hop_encoding,
            config.send_budget,
            config.gateways.len(),
        ));
        let mut tasks = JoinSet::new();
        let (events, news) = mpsc::channel(EVENTS_MAX);
        let mut links = Vec::with_capacity(config.gateways.len());
        for (index, endpoint) in config.gateways.iter().enumerate() {
            let (link, queue) = Link::new(index, endpoint.clone());
            let link = Arc::new(link);
            links.push(Arc::clone(&link));
            let (dialect, dialect_rx) = watch::channel(Dialect::Otlp);
            let client = || Client::new(endpoint, &ClientLimits::default()).map(Arc::new);
            let watcher = Watcher {
                link: index,
                endpoint: endpoint.clone(),
                thin: config.thin,
                client: client()?,
                core: Arc::clone(&core),
                dialect,
                events: events.clone(),
            };
            tasks.spawn(watcher.run());
            let client = client()?;
            tasks.spawn(Sender::new(link, Arc::clone(&core), client, dialect_rx, queue).run());
        }
        core.set_links(links);
        let membership = Membership::new(Arc::clone(&core), config.seed, config.gateways.len());
        tasks.spawn(membership.run(news));
        tasks.spawn(flush_by_age(Arc::clone(&core), config.batch_timeout));
        Ok(Self { core, scan: config.scan, stopping, tasks })
    }

    /// The handler for the agent's receivers.
    pub fn intake(&self) -> Intake {
        Intake { core: Arc::clone(&self.core), scan: self.scan, stopping: self.stopping.clone() }
    }

    /// Shared state, for metrics and stats.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Sends what is held, for at most `within`; what then is left is counted as dropped, and nothing is
    /// held any more.
    ///
    /// The receivers must have stopped before.
    pub async fn drain(mut self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        while self.core.held_spans() > 0 && tokio::time::Instant::now() < deadline {
            let room = self.core.room();
            self.core.flush(Duration::ZERO);
            let poll = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! { () = room => {}, () = poll => {} }
        }
        self.tasks.shutdown().await;
        let left = self.core.abandon();
        if left > 0 {
            tracing::error!(spans = left, "stopped before the gateways took everything");
        }
    }
}

async fn flush_by_age(core: Arc<Core>, age: Duration) {
    // A batch is sealed at most a quarter late.
    let mut tick = tokio::time::interval((age / 4).max(Duration::from_millis(5)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        core.flush(age);
    }
}

// === impl Intake ===

impl Intake {
    async fn export(&self, call: Call) -> Result<Reply, Refusal> {
        let counters = &self.core.counters;
        let shape = scan::check(&call.message, &self.scan)
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let (valid, invalid) = (u64::from(shape.spans), u64::from(shape.invalid_ids));
        let taken = if valid > 0 { self.take(&call.message, &shape).await } else { Ok(()) };
        // Counted together with what became of them: a client that goes away while its request waits for
        // room drops this future at the await above, and then the spans were never ours.
        counters.from_clients.fetch_add(valid + invalid, Relaxed);
        counters.refused.add(Refused::InvalidTraceId, invalid);
        match taken {
            Ok(()) => {
                counters.left_out.add(&shape);
                Ok(otlp::export_reply(invalid))
            }
            Err((reason, refusal)) => {
                counters.refused.add(reason, valid);
                Err(refusal)
            }
        }
    }

    /// Takes all spans of the request into memory; waits a little for room.
    async fn take(&self, message: &[u8], shape: &Shape) -> Result<(), (Refused, Refusal)> {
        let deadline = tokio::time::Instant::now() + WAIT_FOR_ROOM;
        loop {
            if *self.stopping.borrow() {
                let refusal = unavailable("the agent is stopping; send elsewhere");
                return Err((Refused::Stopping, refusal));
            }
            let room = self.core.room();
            let full = match self.core.offer(message, shape) {
                Offer::Taken(_) => return Ok(()),
                Offer::Full => true,
                Offer::NoGateway => false,
            };
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(if full { no_room() } else { no_gateway() });
            }
        }
    }
}

fn no_room() -> (Refused, Refusal) {
    let why = "the agent's queues are full because gateways take spans more slowly than they come; \
               retry after the given delay";
    (Refused::NoRoom, unavailable(why))
}

fn no_gateway() -> (Refused, Refusal) {
    let why = "no gateway can be reached; check the gateways that the agent was given, and retry \
               after the given delay";
    (Refused::NoGateway, unavailable(why))
}

fn unavailable(why: &str) -> Refusal {
    Refusal::Unavailable { message: why.to_owned(), retry_after: RETRY_AFTER }
}

impl Handler for Intake {
    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        self.export(call).await
    }
}
