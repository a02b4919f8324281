//! The gateway: receive -> scan -> insert -> decide -> export.
//!
//! A request is checked and charged on the receiving thread, then every shard takes the spans whose keys
//! are its own: it stores them, or passes them on to the gateway that owns their trace. The answer OK means
//! that all of them are stored. Shards decide what is due and theirs to decide, and hand kept spans to the
//! exporters. The fleet's task knows the other gateways, and carries what shards send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use prost::Message;
use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::ownership::facts::{Instance, State};
use ringtail_engine::ownership::message::Outcome;
use ringtail_engine::ownership::rules::Rules;
use ringtail_engine::ownership::timers::JOIN_SETTLE;
use ringtail_engine::ownership::{
    Conduct, Config as OwnershipConfig, DECISION_BYTES_MAX, Stats, Steward,
};
use ringtail_engine::policy::{Policy, Program, Records, Role, Rule};
use ringtail_engine::rewrite::redaction::Redaction;
use ringtail_engine::scan::{self, ScanLimits, Shape};
use ringtail_engine::shard::{ShardConfig, TraceLimits};
use tokio::time::Instant;

use self::clock::Clock;
use self::fleet::{Fleet, FleetTask, Setting};
pub use self::intake::{Door, Intake};
use self::logs::Logs;
use self::output::Output;
use self::peers::Peers;
use self::refusals::{no_holder, no_room, stopping, wrong};
use self::room::Room;
use self::shards::{Outside, PolicyGauge, Sampling, ShardHandle, Slot, Work};
use self::span_metrics::SpanMetrics;
use crate::discovery::Discovery;
use crate::export::ExporterHandle;
use crate::ledger::{Counters, Refused};
use crate::otlp::{Checked, Malformed, invalid_ids};
use crate::peer::messages::{self, Manner};
use crate::peer::{DeliverRequest, DeliverResponse, Identity};
use crate::transport::{Keyring, Permit, Refusal, Reply};

pub mod clock;
pub mod fleet;
mod intake;
pub mod logs;
pub mod output;
pub mod peers;
mod refusals;
pub mod room;
pub mod shards;
pub mod span_metrics;

/// What the buffer stores beside a span's bytes, when the span opens a trace: its record's head, the
/// trace's entry with its place in the index, its deadline and its duplicates (320), and what is known of its
/// ownership (64 in a table that doubles).
const SPAN_BYTES_MAX: u64 = 480;
/// What the buffer stores beside the headers of a group.
const GROUP_BYTES_MAX: u64 = 128;
/// A trace with more bytes is decided at once: it is handed over in a message of 16 MiB, beside up to 1 MiB
/// of others, its headers and what came meanwhile.
const TRACE_BYTES_MAX: u64 = 12 << 20;
/// How long a request waits for a gateway that settles, for 1.5 s, and is then accepted in a hello or two.
const WAIT_TO_SERVE: Duration = Duration::from_secs(3);

/// What a gateway needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Keys shards and the decision memory.
    pub seed: KeySeed,
    /// Shard threads.
    pub shards: u32,
    /// When a trace is decided.
    pub limits: Limits,
    /// Bytes for undecided spans.
    pub buffer_bytes: u64,
    /// Bytes for remembered decisions.
    pub decisions_bytes: u64,
    /// Bytes of buffers that wait for the next export requests.
    pub spare_bytes: u64,
    /// Limits of the scanner.
    pub scan: ScanLimits,
    /// What must not leave with kept spans.
    pub redaction: Option<Arc<Redaction>>,
    /// How spans are counted before any sampling, if they are.
    pub span_metrics: Option<span_metrics::Config>,
    /// What becomes of log records, if any are taken.
    pub logs: Option<logs::Config>,
}

/// When a trace is decided, as a manifest says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it is held.
    pub decision_wait: Duration,
    /// How long it is held after a span without a parent, if that is shorter.
    pub after_root: Option<Duration>,
    /// Past it a trace is decided at once.
    pub max_trace_spans: u32,
    /// The same, in bytes.
    pub max_trace_bytes: u64,
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
    /// What is counted of all spans, if anything is.
    pub span_metrics: Option<Arc<SpanMetrics>>,
    /// Log records, if any are taken.
    pub logs: Option<Arc<Logs>>,
    policies: ArcSwap<Vec<PolicyInfo>>,
    /// The policies in force, compiled.
    program: ArcSwap<Program>,
    seed: KeySeed,
    buffer_bytes: u64,
    room: Arc<Room>,
    shards: Vec<ShardHandle>,
    fleet: Fleet,
    stopped: AtomicBool,
    scan: ScanLimits,
}

/// What became of a request.
#[derive(Debug, Default)]
struct Stored {
    /// Spans with an invalid trace ID.
    invalid: u64,
    /// Spans that nobody takes now.
    refused: u64,
    /// Traces that are not simply held here.
    elsewhere: Vec<(TraceKey, Outcome)>,
}

/// What is shown of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    /// As the manifest names it.
    pub name: String,
    /// Whether its decisions are against a trace.
    pub drops: bool,
    /// Whether it is only counted what it would change.
    pub shadow: bool,
}

// === impl Gateway ===

impl Gateway {
    /// Starts the shard threads. The task that comes with the gateway finds the others, once this one can be
    /// asked itself.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        config: Config,
        policies: &[Policy],
        program: Program,
        exporters: Vec<ExporterHandle>,
        discovery: Discovery,
        keyring: Option<Arc<Keyring>>,
    ) -> std::io::Result<(Arc<Self>, FleetTask)> {
        let (program, counters) = (Arc::new(program), Arc::new(Counters::default()));
        let exporters: Arc<[ExporterHandle]> = exporters.into();
        let room = Arc::new(Room::new(config.buffer_bytes));
        let clock = Clock::start();
        let steward = Steward::new(&ownership(&config, &discovery), clock.now());
        let stand = steward.stand().clone();
        let peers = Arc::new(Peers::new(config.identity.clone(), config.seed, stand));
        let (verdicts, told) = logs::channel(config.logs.as_ref());
        let logs = config.logs.as_ref().map(|logs| {
            let of = (config.seed, config.redaction.clone());
            Logs::start(logs, of, (clock, config.limits.decision_wait), told)
        });
        let (letters, outgoing) = tokio::sync::mpsc::unbounded_channel();
        let outside = Outside {
            counters: Arc::clone(&counters),
            room: Arc::clone(&room),
            output: Output::new(Arc::clone(&exporters), config.spare_bytes),
            redaction: config.redaction.clone(),
            stands: Arc::clone(&peers.stands),
            outgoing: letters,
            clock,
            remember_max: remembered_keys(&config),
            span_metrics: config.span_metrics.clone(),
            shards: u64::from(config.shards),
            verdicts,
        };
        let shards: Vec<ShardHandle> = (0..config.shards)
            .map(|shard| {
                ShardHandle::spawn(shard_config(&config, shard), &program, outside.clone())
            })
            .collect::<std::io::Result<_>>()?;
        let span_metrics = config.span_metrics.as_ref().map(|settings| {
            SpanMetrics::spawn(settings, shards.clone(), config.identity.id.clone(), clock)
        });
        let setting = Setting {
            steward,
            peers: Arc::clone(&peers),
            shards: shards.clone(),
            exporters: Arc::clone(&exporters),
            outgoing,
            clock,
        };
        let (fleet, task) = FleetTask::new(setting, discovery.candidates, keyring);
        let gateway = Self {
            peers,
            counters,
            exporters,
            span_metrics,
            logs,
            policies: ArcSwap::from_pointee(policies.iter().map(PolicyInfo::of).collect()),
            program: ArcSwap::new(program),
            seed: config.seed,
            buffer_bytes: config.buffer_bytes,
            room,
            shards,
            fleet,
            stopped: AtomicBool::new(false),
            scan: config.scan,
        };
        Ok((Arc::new(gateway), task))
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
        limits: Limits,
        records: Records,
    ) -> Result<(), String> {
        let mut program = ringtail_engine::policy::compile(policies)
            .map_err(|problems| format!("the policies do not compile: {problems:?}"))?
            .recording(records);
        program.adopt_budgets(&self.program.load());
        let program = Arc::new(program);
        self.program.store(Arc::clone(&program));
        if let Some(logs) = &self.logs {
            logs.set_decision_wait(limits.decision_wait);
        }
        let limits = limits.of_buffer(self.buffer_bytes);
        let sampling = Arc::new(Sampling { program, limits });
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
        self.sum_of(name, |gauge| &gauge.decided)
    }

    /// Traces that the policy of this name would have decided otherwise, had it a vote.
    pub fn changed_by(&self, name: &str) -> u64 {
        self.sum_of(name, |gauge| &gauge.changed)
    }

    fn sum_of(&self, name: &str, traces: fn(&PolicyGauge) -> &AtomicU64) -> u64 {
        let of_shard = |shard: &ShardHandle| {
            let by_policy = shard.gauges.by_policy.load();
            let row = by_policy.iter().find(|gauge| gauge.name == name);
            row.map_or(0, |gauge| traces(gauge).load(Relaxed))
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// What keeping traces whole took so far.
    pub fn conduct(&self) -> Conduct {
        let process = **self.peers.conduct.load();
        let shards = self.shards.iter().map(|shard| **shard.gauges.ownership.load());
        Conduct { stats: shards.fold(process.stats, Stats::plus), ..process }
    }

    /// Undecided spans in memory.
    pub fn held_spans(&self) -> u64 {
        self.shards.iter().map(|shard| shard.gauges.spans.load(Relaxed)).sum()
    }

    /// Hands everything that is held to the other gateways, while what still comes is passed on; decides it
    /// when there is no other. Then takes no more spans.
    pub async fn leave(&self) {
        self.fleet.leave().await;
        self.stopped.store(true, Relaxed);
    }

    /// Decides and exports everything that is still held; gives backends `within`, the last quarter of
    /// it for their queues alone. The receivers must have stopped before.
    pub async fn drain(&self, within: Duration) {
        let deadline = Instant::now() + within;
        if let Some(metrics) = &self.span_metrics {
            metrics.finish().await;
        }
        for shard in &self.shards {
            shard.finish(deadline - within / 4).await;
        }
        let mut exporters: Vec<&ExporterHandle> = self.exporters.iter().collect();
        if let Some(logs) = &self.logs {
            logs.finish(deadline - within / 8).await;
            exporters.extend(logs.exporters.iter());
        }
        // Side by side: one dead backend must not take the others' time.
        futures::future::join_all(exporters.iter().map(|one| one.drain(deadline))).await;
        exporters.into_iter().for_each(ExporterHandle::abandon);
    }

    async fn deliver(&self, request: DeliverRequest, permit: Permit) -> Result<Reply, Refusal> {
        self.peers.hear(request.from.as_ref(), request.digest);
        let manner = Manner::of(&request).map_err(wrong)?;
        // Whoever sent it has checked it, so what is wrong now is no single span.
        let shape = scan::check(&request.spans, &self.scan)
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let malformed = Malformed::default();
        let checked = Checked { request: request.spans, shape, malformed };
        let stored = self.store(checked, manner, permit, true).await?;
        if stored.refused > 0 && !request.wants_outcomes {
            return Err(no_holder());
        }
        let rejected_spans = stored.invalid;
        let mut answer = DeliverResponse {
            holder: Some(self.peers.member()),
            rejected_spans,
            message: if rejected_spans == 0 { String::new() } else { invalid_ids(rejected_spans) },
            ..DeliverResponse::default()
        };
        messages::add_outcomes(&mut answer, stored.elsewhere);
        Ok(Reply { message: answer.encode_to_vec().into() })
    }

    /// Finds a place for every valid span of a request, or for none.
    async fn store(
        &self,
        checked: Checked,
        manner: Manner,
        permit: Permit,
        from_peer: bool,
    ) -> Result<Stored, Refusal> {
        let Checked { request, shape, malformed } = checked;
        let (valid, invalid) = (u64::from(shape.spans), u64::from(shape.invalid_ids));
        self.serve().await;
        // Slots first: until all are there, the sender may go away and nothing has happened.
        let slots = if valid > 0 { self.slots().await } else { Some(Vec::new()) };
        let counters = &self.counters;
        let source = if from_peer { &counters.from_peers } else { &counters.from_clients };
        source.fetch_add(invalid + malformed.spans, Relaxed);
        counters.refused.add(Refused::InvalidTraceId, invalid);
        counters.refused.add(Refused::Malformed, malformed.spans);
        let refuse = |reason, refusal| {
            source.fetch_add(valid, Relaxed);
            counters.refused.add(reason, valid);
            Err(refusal)
        };
        let Some(slots) = slots.filter(|_| !self.stopped.load(Relaxed)) else {
            return refuse(Refused::Stopping, stopping());
        };
        let Some(reservation) = self.room.reserve(most_bytes(&shape)) else {
            return refuse(Refused::NoRoom, no_room());
        };
        counters.left_out.add(&shape);
        let (_reservation, _permit) = (reservation, permit);
        let work = Arc::new(Work { request, shape, manner, from_peer, _reservation, _permit });
        // From here on every shard takes its part, whether or not the sender still waits for the answer.
        let taken: Vec<_> = slots.into_iter().map(|slot| slot.deliver(&work)).collect();
        drop(work);
        let mut stored = Stored { invalid, ..Stored::default() };
        for part in taken {
            // An error would mean that a shard's thread is gone: nothing then holds the spans.
            let part = part
                .await
                .map_err(|_| Refusal::Internal("a shard has ended; restart the gateway".into()))?;
            stored.refused += part.refused;
            stored.elsewhere.extend(part.elsewhere);
        }
        Ok(stored)
    }

    /// Waits a little for a gateway that is about to serve.
    async fn serve(&self) {
        let mut life = self.peers.life();
        if *life.borrow() == State::Joining {
            let serves = life.wait_for(|life| *life != State::Joining);
            // Who serves later refuses what it cannot pass on.
            let _ = tokio::time::timeout(WAIT_TO_SERVE, serves).await;
        }
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
    let limits = config.limits.of_buffer(config.buffer_bytes);
    ShardConfig {
        seed: config.seed,
        shard,
        shards: config.shards,
        decision_wait_ms: limits.decision_wait_ms,
        after_root_ms: limits.after_root_ms,
        max_trace_spans: limits.max_trace_spans,
        max_trace_bytes: limits.max_trace_bytes,
        // The state machine remembers.
        memory_keys: 0,
    }
}

/// Decisions that one shard remembers.
fn remembered_keys(config: &Config) -> usize {
    let bytes = config.decisions_bytes / u64::from(config.shards.max(1));
    usize::try_from(bytes / DECISION_BYTES_MAX).unwrap_or(usize::MAX)
}

fn ownership(config: &Config, discovery: &Discovery) -> OwnershipConfig {
    let listed = discovery.candidates.borrow();
    let alone = listed.as_ref().is_some_and(|list| list.is_empty());
    OwnershipConfig {
        me: Instance::new(&config.identity.id, config.identity.inst),
        seed: config.seed,
        // The shards remember, each for itself.
        remember: 0,
        remember_max: 0,
        settle: if alone { 0 } else { JOIN_SETTLE },
        rules: Rules::ALL,
    }
}

// === impl Limits ===

impl Limits {
    /// The same for the shards of a gateway with a buffer of so many bytes.
    fn of_buffer(self, buffer_bytes: u64) -> TraceLimits {
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        // One trace may take an eighth of the buffer: a single endless one cannot push out all others.
        let most = (buffer_bytes / 8).min(TRACE_BYTES_MAX);
        TraceLimits {
            decision_wait_ms: ms(self.decision_wait),
            after_root_ms: self.after_root.map(ms),
            max_trace_spans: self.max_trace_spans,
            max_trace_bytes: self.max_trace_bytes.min(most),
        }
    }
}

// === impl PolicyInfo ===

impl PolicyInfo {
    fn of(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            drops: matches!(policy.rule, Rule::Drop { .. }),
            shadow: policy.role == Role::Shadow,
        }
    }
}
