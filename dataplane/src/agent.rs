//! The agent: receive -> scan -> route -> queue -> send.
//!
//! A request is checked, counted and split by trace into one open batch a gateway; the answer OK means that
//! its spans are in this process's bounded memory. Batches go out by size or age through one link a
//! gateway.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringtail_crds::logs::Signal;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ownership::agent::AgentConfig;
use ringtail_engine::ownership::rules::Rules;
use ringtail_engine::rewrite::processing::Processing;
use ringtail_engine::scan::{ScanLimits, Shape};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::core::Core;
use self::core::{Offer, Wiring};
use self::keeper::{Keeper, News};
use self::link::Sender;
use self::splitter::{BatchLimits, Ring};
use crate::discovery::Discovery;
use crate::ledger::{Dropped, Refused};
use crate::membership::{self, Membership, Place, Roster, Tier};
use crate::otlp::{self, Checked, CheckedLogs};
use crate::peer::{Dialect, Identity};
use crate::transport::{
    Call, Client, ClientLimits, Encoding, EndpointError, Handler, Keyring, Method, Refusal, Reply,
};

pub mod core;
mod frame;
mod keeper;
pub mod link;
pub mod links;
pub mod splitter;

/// How long a request may wait for room before it is refused: long enough to ride out a burst, short
/// against the 10 s that SDKs wait for an answer.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(500);
/// Where there are fewer than three gateways, agents remember decisions for them: in 1/8 of what they may
/// retain, 96 bytes each (48 with their place in the order, in tables that double).
const WITNESS_SHARE: u64 = 8;
const WITNESS_BYTES: u64 = 96;
/// What a refused client is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What an agent needs to know.
#[derive(Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Keys the ring.
    pub seed: KeySeed,
    /// Where gateways may be.
    pub gateways: Discovery,
    /// Certificates, where there is TLS between the tiers.
    pub keyring: Option<Arc<Keyring>>,
    /// Whether it speaks nothing but OTLP: a sidecar is no part of the fleet.
    pub thin: bool,
    /// Whether spans go by their service, and not by their trace.
    pub by_service: bool,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// When a batch is old.
    pub batch_timeout: Duration,
    /// Compression of the hop.
    pub hop_encoding: Encoding,
    /// Bytes for spans on their way.
    pub send_budget: u64,
    /// Bytes for spans that were delivered, to send them again when the gateway that holds them is lost.
    pub retention_budget: u64,
    /// How long gateways wait for a trace.
    pub decision_wait: Duration,
    /// Limits of the scanner.
    pub scan: ScanLimits,
    /// What is done to spans before they are split.
    pub processing: Option<Processing>,
    /// Bytes for log records on their way, if any are taken.
    pub logs_budget: Option<u64>,
}

/// A running agent.
pub struct Agent {
    core: Arc<Core>,
    /// The tasks of links, which come and go with candidates.
    senders: Arc<Mutex<JoinSet<()>>>,
    scan: ScanLimits,
    stopping: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

/// What an agent makes of membership: a link a candidate, and a ring of links.
struct Links {
    core: Arc<Core>,
    keyring: Option<Arc<Keyring>>,
    senders: Arc<Mutex<JoinSet<()>>>,
    /// By the place of a link, that of the link for log records to the same gateway.
    of_logs: HashMap<Place, Place>,
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
    /// Starts membership, which starts links, and the batch clock. `stopping` turns true when no more
    /// requests are to be taken.
    pub fn start(config: Config, stopping: watch::Receiver<bool>) -> Self {
        // A sidecar's spans are kept by the agent behind it.
        let keeps = !config.thin && config.retention_budget > 0;
        let (keeper, news) = tokio::sync::mpsc::unbounded_channel();
        let logs = config.logs_budget.map(|budget| core_of_logs(&config, budget));
        let core = Arc::new(Core::new(
            config.identity.clone(),
            config.seed,
            config.batch,
            config.hop_encoding,
            config.send_budget,
            Wiring {
                keeper: keeps.then_some(keeper),
                processing: config.processing,
                by_service: config.by_service,
                logs: logs.clone(),
                dice: None,
            },
        ));
        let senders = Arc::default();
        let mut tasks = JoinSet::new();
        if keeps {
            let decisions = config.retention_budget / WITNESS_SHARE / WITNESS_BYTES;
            let side = AgentConfig {
                name: config.identity.id.as_str().into(),
                seed: config.seed,
                decision_wait: u64::try_from(config.decision_wait.as_millis()).unwrap_or(0),
                retained_max: config.retention_budget - config.retention_budget / WITNESS_SHARE,
                decisions_max: usize::try_from(decisions).unwrap_or(usize::MAX),
                rules: Rules::ALL,
            };
            tasks.spawn(Keeper::new(Arc::clone(&core), side, news).run());
        }
        let membership = membership::Config {
            seed: config.seed,
            candidates: config.gateways.candidates,
            keyring: config.keyring.clone(),
            thin: config.thin,
            voice: Arc::clone(&core) as _,
            counts: Arc::clone(&core.counts),
        };
        let links = Links {
            core: Arc::clone(&core),
            keyring: config.keyring,
            senders: Arc::clone(&senders),
            of_logs: HashMap::new(),
        };
        tasks.spawn(Membership::run(membership, links));
        for core in [Some(&core), logs.as_ref()].into_iter().flatten() {
            tasks.spawn(flush_by_age(Arc::clone(core), config.batch_timeout));
        }
        Self { core, senders, scan: config.scan, stopping, tasks }
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
        let cores = [Some(&self.core), self.core.logs.as_ref()];
        for core in cores.into_iter().flatten() {
            // Records go on while spans do: their links have tasks of their own.
            while core.held_spans() > 0 && tokio::time::Instant::now() < deadline {
                let room = core.room();
                self.core.flush(Duration::ZERO);
                self.core.logs.iter().for_each(|logs| logs.flush(Duration::ZERO));
                let poll = tokio::time::sleep(Duration::from_millis(20));
                tokio::select! { () = room => {}, () = poll => {} }
            }
        }
        // What came back from a gateway that would not hold it is sent from there.
        while !self.core.kept.settled.load(Relaxed) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tasks.shutdown().await;
        let mut senders = std::mem::take(&mut *lock(&self.senders));
        senders.shutdown().await;
        let left = self.core.abandon();
        if left > 0 {
            tracing::error!(spans = left, "stopped before the gateways took everything");
        }
        let left = self.core.logs.as_ref().map_or(0, |logs| logs.abandon());
        if left > 0 {
            tracing::error!(records = left, "stopped before the gateways took all log records");
        }
    }
}

/// The same state for log records. Nothing keeps what was delivered, so that a gateway which is lost takes
/// it along.
fn core_of_logs(config: &Config, budget: u64) -> Arc<Core> {
    let dice = Some(fastrand::Rng::new());
    let wiring = Wiring { by_service: config.by_service, dice, ..Wiring::default() };
    let identity = config.identity.clone();
    let (batch, encoding) = (config.batch, config.hop_encoding);
    Arc::new(Core::new(identity, config.seed, batch, encoding, budget, wiring))
}

fn lock(senders: &Mutex<JoinSet<()>>) -> std::sync::MutexGuard<'_, JoinSet<()>> {
    senders.lock().unwrap_or_else(PoisonError::into_inner)
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

// === impl Links ===

impl Tier for Links {
    fn open(
        &mut self,
        address: &str,
        dialect: watch::Receiver<Dialect>,
    ) -> Result<Place, EndpointError> {
        let (limits, keyring) = (ClientLimits::default(), self.keyring.as_ref());
        let client = Arc::new(Client::with_keyring(address, &limits, keyring)?);
        let (link, queue) = self.core.add_link(address);
        let place = link.index;
        self.core.keep(|| News::Opened(place, Arc::clone(&client)));
        let sender = Sender::new(link, Arc::clone(&self.core), Arc::clone(&client), dialect, queue);
        let of_logs = self.core.logs.as_ref().map(|logs| {
            let (link, queue) = logs.add_link(address);
            self.of_logs.insert(place, link.index);
            // Gateways and Collectors take log records by the same name.
            let otlp = watch::channel(Dialect::Otlp).1;
            Sender::new(link, Arc::clone(logs), client, otlp, queue)
        });
        let mut senders = lock(&self.senders);
        // The results of those that have ended are of no interest, but they take room.
        while senders.try_join_next().is_some() {}
        senders.spawn(sender.run());
        if let Some(sender) = of_logs {
            senders.spawn(sender.run());
        }
        Ok(place)
    }

    fn close(&mut self, place: Place) {
        self.core.keep(|| News::Closed(place));
        self.core.retire_link(place);
        if let (Some(logs), Some(place)) = (&self.core.logs, self.of_logs.remove(&place)) {
            logs.retire_link(place);
        }
    }

    fn publish(&mut self, roster: Roster) {
        let named = roster.view.members().iter().zip(&roster.places);
        let named =
            named.filter_map(|(member, place)| Some((member.id.as_str().into(), (*place)?)));
        let named = named.collect();
        self.core.keep(|| News::Roster(named));
        if roster.view.is_empty() {
            tracing::warn!("no gateway serves; requests are refused until one does");
            self.core.logs.iter().for_each(|logs| logs.publish(None));
            return self.core.publish(None);
        }
        if let Some(logs) = &self.core.logs {
            let links = roster.places.iter().flatten();
            let links = links.filter_map(|place| self.of_logs.get(place).copied()).collect();
            logs.publish(Some(Ring { view: roster.view.clone(), links }));
        }
        let links = roster.places.into_iter().flatten().collect();
        self.core.publish(Some(Ring { view: roster.view, links }));
    }
}

// === impl Intake ===

impl Intake {
    async fn export(&self, call: Call) -> Result<Reply, Refusal> {
        let counters = &self.core.counters;
        let mut permit = call.permit;
        let Checked { request, shape, malformed } =
            otlp::check(call.message, &mut permit, call.left_out, &self.scan)?;
        let (valid, invalid) = (u64::from(shape.spans), u64::from(shape.invalid_ids));
        let taken = if valid > 0 { self.take(&self.core, &request, &shape).await } else { Ok(0) };
        // Counted together with what became of them: a client that goes away while its request waits for
        // room drops this future at the await above, and then the spans were never ours.
        counters.from_clients.fetch_add(valid + invalid + malformed.spans, Relaxed);
        counters.refused.add(Refused::InvalidTraceId, invalid);
        counters.refused.add(Refused::Malformed, malformed.spans);
        match taken {
            Ok(filtered) => {
                counters.left_out.add(&shape);
                counters.dropped.add(Dropped::Filtered, filtered);
                Ok(otlp::export_reply(invalid, &malformed))
            }
            Err((reason, refusal)) => {
                counters.refused.add(reason, valid);
                Err(refusal)
            }
        }
    }

    async fn export_logs(&self, call: Call) -> Result<Reply, Refusal> {
        let Some(logs) = &self.core.logs else { return Err(Method::ExportLogs.unserved()) };
        let (counters, mut permit) = (&logs.counters, call.permit);
        let CheckedLogs { request, records, malformed } =
            otlp::check_logs(call.message, &mut permit, call.left_out, &self.scan)?;
        let count = u64::from(records.shape.spans);
        let taken = if count > 0 { self.take(logs, &request, &records.shape).await } else { Ok(0) };
        // Together, as with spans.
        counters.from_clients.fetch_add(count + malformed.spans, Relaxed);
        counters.refused.add(Refused::Malformed, malformed.spans);
        match taken {
            Ok(_) => {
                counters.left_out.add(&records.shape);
                Ok(otlp::logs_reply(&malformed))
            }
            Err((reason, refusal)) => {
                counters.refused.add(reason, count);
                Err(refusal)
            }
        }
    }

    /// Takes all spans of the request into memory but those that the filter drops, and says how many those
    /// are; waits a little for room.
    async fn take(
        &self,
        core: &Core,
        message: &[u8],
        shape: &Shape,
    ) -> Result<u64, (Refused, Refusal)> {
        let deadline = tokio::time::Instant::now() + WAIT_FOR_ROOM;
        loop {
            if *self.stopping.borrow() {
                let refusal = unavailable("the agent is stopping; send elsewhere");
                return Err((Refused::Stopping, refusal));
            }
            let room = core.room();
            let full = match core.offer(message, shape) {
                Offer::Taken(routed) => return Ok(routed.filtered),
                Offer::Full => true,
                Offer::NoGateway => false,
            };
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(if full { no_room(core.signal) } else { no_gateway() });
            }
        }
    }
}

fn no_room(signal: Signal) -> (Refused, Refusal) {
    let what = signal.items();
    let why = format!(
        "the agent's queues are full because gateways take {what} more slowly than they come; \
         retry after the given delay"
    );
    (Refused::NoRoom, unavailable(&why))
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
    fn admits(&self, method: Method) -> Result<(), Refusal> {
        match method {
            Method::ExportTraces => Ok(()),
            Method::ExportLogs if self.core.logs.is_some() => Ok(()),
            other => Err(other.unserved()),
        }
    }

    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        match call.method {
            Method::ExportLogs => self.export_logs(call).await,
            _ => self.export(call).await,
        }
    }
}
