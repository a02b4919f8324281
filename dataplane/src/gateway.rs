//! The gateway: receive -> scan -> insert -> decide -> export.
//!
//! A request is checked and charged on the receiving thread, then every shard takes the spans whose keys
//! are its own; the answer OK means that all of them are stored. Shards decide on their own clocks and hand
//! kept spans to the exporters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prost::Message;
use ringtail_engine::key::KeySeed;
use ringtail_engine::policy::{Policy, Program, Rule};
use ringtail_engine::scan::{self, ScanLimits, Shape};
use ringtail_engine::shard::ShardConfig;

use self::output::Output;
use self::peers::{Peers, Seats};
use self::room::Room;
use self::shards::{Sampling, ShardHandle, Slot, Work};
use crate::discovery::Discovery;
use crate::export::ExporterHandle;
use crate::ledger::{Counters, Refused};
use crate::membership::{self, Membership};
use crate::otlp::{export_reply, invalid_ids};
use crate::peer::{DeliverRequest, DeliverResponse, HelloRequest, Identity, Member, Role};
use crate::transport::{Call, Handler, Keyring, Method, Peer, Permit, Refusal, Reply};

pub mod output;
pub mod peers;
pub mod room;
pub mod shards;

/// What a refused sender is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Traces of one shard's index are looked up by 64-bit keys; 16 bytes a key and control bytes cover a table
/// that is half full. The decision memory's budget divided by this is how many keys it may hold.
const MEMORY_BYTES_PER_KEY: u64 = 18;
/// What the buffer stores beside a span's bytes, when the span opens a trace: its record's head, the
/// trace's entry with its place in the index, its deadline and its duplicates.
const SPAN_BYTES_MAX: u64 = 320;
/// What the buffer stores beside the headers of a group.
const GROUP_BYTES_MAX: u64 = 128;
/// Generations of the decision memory.
const MEMORY_GENERATIONS: u64 = 2;

/// What a gateway needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Keys shards and the decision memory.
    pub seed: KeySeed,
    /// Shard threads.
    pub shards: u32,
    /// How long a trace is held before it is decided.
    pub decision_wait: Duration,
    /// Past it a trace is decided at once.
    pub max_trace_spans: u32,
    /// Bytes for undecided spans.
    pub buffer_bytes: u64,
    /// Bytes for remembered decisions.
    pub decisions_bytes: u64,
    /// Limits of the scanner.
    pub scan: ScanLimits,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Who it is, and what it knows of the others.
    pub peers: Arc<Peers>,
    /// Where every span went.
    pub counters: Arc<Counters>,
    /// Backends.
    pub exporters: Arc<[ExporterHandle]>,
    policies: ArcSwap<Vec<PolicyInfo>>,
    seed: KeySeed,
    room: Arc<Room>,
    shards: Vec<ShardHandle>,
    scan: ScanLimits,
}

/// What is shown of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    /// As the manifest names it.
    pub name: String,
    /// Whether its decisions are against a trace.
    pub drops: bool,
}

/// The gateway's side of its receivers.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Behind the door.
    pub gateway: Arc<Gateway>,
    /// Which door.
    pub door: Door,
}

/// Who may come in where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everybody: there is no TLS between the tiers.
    Open,
    /// SDKs and Collectors; peers have a port of their own.
    Clients,
    /// Peers, by their certificate.
    Peers,
}

// === impl Gateway ===

impl Gateway {
    /// Starts the shard threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        config: Config,
        policies: &[Policy],
        program: Program,
        exporters: Vec<ExporterHandle>,
    ) -> std::io::Result<Arc<Self>> {
        let (program, counters) = (Arc::new(program), Arc::new(Counters::default()));
        let exporters: Arc<[ExporterHandle]> = exporters.into();
        let room = Arc::new(Room::new(config.buffer_bytes));
        let shards = (0..config.shards)
            .map(|shard| {
                let output = Output::new(Arc::clone(&exporters));
                let config = shard_config(&config, shard);
                ShardHandle::spawn(
                    config,
                    &program,
                    Arc::clone(&counters),
                    Arc::clone(&room),
                    output,
                )
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Arc::new(Self {
            peers: Arc::new(Peers::new(config.identity, config.seed)),
            counters,
            exporters,
            policies: ArcSwap::from_pointee(policies.iter().map(PolicyInfo::of).collect()),
            seed: config.seed,
            room,
            shards,
            scan: config.scan,
        }))
    }

    /// Finds the other gateways, and follows who they are until the task is aborted.
    pub fn join_ring(
        &self,
        discovery: Discovery,
        keyring: Option<Arc<Keyring>>,
    ) -> impl Future<Output = ()> + use<> {
        let config = membership::Config {
            identity: self.peers.identity.clone(),
            seed: self.seed,
            candidates: discovery.candidates,
            keyring,
            thin: false,
            voice: Arc::clone(&self.peers) as _,
            counts: Arc::clone(&self.peers.counts),
            own_state: Some(self.peers.state()),
        };
        Membership::run(config, Seats(Arc::clone(&self.peers)))
    }

    /// The shards, for metrics and stats.
    pub fn shards(&self) -> &[ShardHandle] {
        &self.shards
    }

    /// The buffer's budget and its use, in bytes.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The policies as the manifest in force lists them.
    pub fn policies(&self) -> Arc<Vec<PolicyInfo>> {
        self.policies.load_full()
    }

    /// Decides traces first seen from now on by these policies and limits. Nothing that is held is touched.
    ///
    /// # Errors
    /// When the policies do not compile; then nothing has changed.
    pub async fn reload(
        &self,
        policies: &[Policy],
        decision_wait: Duration,
        max_trace_spans: u32,
    ) -> Result<(), String> {
        let program = ringtail_engine::policy::compile(policies)
            .map_err(|problems| format!("the policies do not compile: {problems:?}"))?;
        let program = Arc::new(program);
        let sampling = Arc::new(Sampling { program, decision_wait, max_trace_spans });
        self.policies.store(Arc::new(policies.iter().map(PolicyInfo::of).collect()));
        for shard in &self.shards {
            if !shard.reload(Arc::clone(&sampling)).await {
                return Err("a shard has ended; restart the gateway".to_owned());
            }
        }
        Ok(())
    }

    /// Traces that the policy of this name decided, over all shards.
    pub fn decided_by(&self, name: &str) -> u64 {
        let of_shard = |shard: &ShardHandle| {
            let by_policy = shard.gauges.by_policy.load();
            let row = by_policy.iter().find(|(known, _)| known == name);
            row.map_or(0, |(_, traces)| traces.load(Relaxed))
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Undecided spans in memory.
    pub fn held_spans(&self) -> u64 {
        self.shards.iter().map(|shard| shard.gauges.spans.load(Relaxed)).sum()
    }

    /// Says `Draining` to whoever asks, and refuses spans, so that agents turn to others.
    pub fn leave(&self) {
        self.peers.leave();
    }

    /// Decides and exports everything that is held; gives backends at most `within`.
    ///
    /// The receivers must have stopped before.
    pub async fn drain(&self, within: Duration) {
        self.leave();
        for shard in &self.shards {
            shard.finish().await;
        }
        for exporter in self.exporters.iter() {
            exporter.drain(within).await;
        }
    }

    async fn deliver(&self, request: DeliverRequest, permit: Permit) -> Result<Reply, Refusal> {
        self.peers.hear(request.from.as_ref(), request.digest);
        let rejected_spans = self.store(request.spans, permit, &self.counters.from_peers).await?;
        let answer = DeliverResponse {
            holder: Some(self.peers.member()),
            rejected_spans,
            message: if rejected_spans == 0 { String::new() } else { invalid_ids(rejected_spans) },
        };
        Ok(Reply { message: answer.encode_to_vec().into() })
    }

    /// Stores every valid span of a request, or none; returns how many had an invalid trace ID.
    async fn store(
        &self,
        request: Bytes,
        permit: Permit,
        source: &AtomicU64,
    ) -> Result<u64, Refusal> {
        let shape = scan::check(&request, &self.scan)
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let (valid, invalid) = (u64::from(shape.spans), u64::from(shape.invalid_ids));
        // Slots first: until all are there, the sender may go away and nothing has happened.
        let slots = if valid > 0 { self.slots().await } else { Some(Vec::new()) };
        source.fetch_add(valid + invalid, Relaxed);
        let refused = &self.counters.refused;
        refused.add(Refused::InvalidTraceId, invalid);
        let Some(slots) = slots.filter(|_| !self.peers.is_leaving()) else {
            refused.add(Refused::Stopping, valid);
            return Err(stopping());
        };
        let Some(reservation) = self.room.reserve(most_bytes(&shape)) else {
            refused.add(Refused::NoRoom, valid);
            return Err(no_room());
        };
        self.counters.left_out.add(&shape);
        let work = Arc::new(Work { request, shape, _reservation: reservation, _permit: permit });
        // From here on every shard stores its part, whether or not the sender still waits for the answer.
        let stored: Vec<_> = slots.into_iter().map(|slot| slot.insert(&work)).collect();
        drop(work);
        for part in stored {
            // An error would mean that a shard's thread is gone: nothing then holds the spans.
            part.await
                .map_err(|_| Refusal::Internal("a shard has ended; restart the gateway".into()))?;
        }
        Ok(invalid)
    }

    /// A place in the queue of every shard; `None` when one has ended.
    async fn slots(&self) -> Option<Vec<Slot<'_>>> {
        let mut slots = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            slots.push(shard.slot().await?);
        }
        Some(slots)
    }
}

/// The most that a request adds to the buffer: every span may open a trace, every group may bring a new
/// resource.
///
/// A hash table that doubles is not in it; its few bytes a trace are in the slack of the memory table.
fn most_bytes(shape: &Shape) -> u64 {
    shape.span_bytes
        + shape.header_bytes
        + u64::from(shape.spans) * SPAN_BYTES_MAX
        + u64::from(shape.groups) * GROUP_BYTES_MAX
}

fn shard_config(config: &Config, shard: u32) -> ShardConfig {
    let shards = u64::from(config.shards.max(1));
    let keys = config.decisions_bytes / shards / MEMORY_BYTES_PER_KEY / MEMORY_GENERATIONS;
    ShardConfig {
        seed: config.seed,
        shard,
        shards: config.shards,
        decision_wait_ms: u64::try_from(config.decision_wait.as_millis()).unwrap_or(u64::MAX),
        max_trace_spans: config.max_trace_spans,
        // One trace may take an eighth of the buffer: a single endless one cannot push out all others.
        max_trace_bytes: config.buffer_bytes / 8,
        memory_keys: usize::try_from(keys).unwrap_or(usize::MAX),
    }
}

fn no_room() -> Refusal {
    let why = "the gateway's buffer is full; retry after the given delay, add gateways, or raise \
               their memory limit";
    Refusal::Unavailable { message: why.to_owned(), retry_after: RETRY_AFTER }
}

fn stopping() -> Refusal {
    let why = "the gateway is stopping; send to another one";
    Refusal::Unavailable { message: why.to_owned(), retry_after: RETRY_AFTER }
}

// === impl PolicyInfo ===

impl PolicyInfo {
    fn of(policy: &Policy) -> Self {
        Self { name: policy.name.clone(), drops: matches!(policy.rule, Rule::Drop { .. }) }
    }
}

// === impl Intake ===

impl Intake {
    /// Whether the process that a message is from may be behind this connection.
    fn admit(&self, from: Option<&Member>, peer: Peer) -> Result<(), Refusal> {
        let claimed = from.map_or(Role::Unspecified, Member::role);
        let shown = peer.certified.map(Role::from);
        if self.door != Door::Peers || shown == Some(claimed) {
            return Ok(());
        }
        tracing::warn!(%peer, ?claimed, ?shown, "a peer claims to be what its certificate does not say");
        Err(Refusal::Forbidden("the certificate is not of the tier that the message claims".into()))
    }
}

impl Handler for Intake {
    fn admits(&self, method: Method) -> Result<(), Refusal> {
        let for_peers = "peers of this pipeline speak TLS to the peer port (4319); plain OTLP is \
                         taken here";
        match (method, self.door) {
            (Method::ExportTraces, Door::Open | Door::Clients)
            | (Method::Hello | Method::Deliver, Door::Open | Door::Peers) => Ok(()),
            (Method::Hello | Method::Deliver, Door::Clients) => {
                self.gateway.peers.turned_away.fetch_add(1, Relaxed);
                Err(Refusal::Forbidden(for_peers.to_owned()))
            }
            (other, _) => Err(other.unserved()),
        }
    }

    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        let gateway = &self.gateway;
        match call.method {
            Method::Hello => {
                let hello = HelloRequest::decode(call.message)
                    .map_err(|error| Refusal::Malformed(format!("not a HelloRequest: {error}")))?;
                self.admit(hello.from.as_ref(), call.peer)?;
                Ok(Reply { message: gateway.peers.answer(&hello).encode_to_vec().into() })
            }
            Method::Deliver => {
                let request = DeliverRequest::decode(call.message).map_err(|error| {
                    Refusal::Malformed(format!("not a DeliverRequest: {error}"))
                })?;
                self.admit(request.from.as_ref(), call.peer)?;
                gateway.deliver(request, call.permit).await
            }
            Method::ExportTraces => {
                let source = &gateway.counters.from_clients;
                gateway.store(call.message, call.permit, source).await.map(export_reply)
            }
            other => Err(other.unserved()),
        }
    }
}
