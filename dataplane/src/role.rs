//! The life of one process: read the manifest, bind, serve, drain, say where every span went.
//!
//! Order at the end: readiness goes off and no new span is taken; requests under way are answered; what is
//! held is delivered (agent) or decided and exported (gateway); the ledger is printed as the last line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ringtail_crds::resolved::ReceiverPorts;
use ringtail_crds::routing::RoutingKey;
use ringtail_crds::{Compression, ValidPipeline};
use ringtail_engine::key::KeySeed;
use ringtail_engine::scan::ScanLimits;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::neighbours::Neighbours;
use self::sockets::Sockets;
use self::stop::{Parent, Signals, wait_for_stop};
use crate::agent::splitter::BatchLimits;
use crate::agent::{self, Agent, Core};
use crate::config::{Apply, Loaded};
use crate::export;
use crate::gateway::{self, Door, Gateway};
use crate::membership::instance;
use crate::memory::{self, Budget, Tier, Wanted};
use crate::metrics::{Shown, TierSource};
use crate::peer::{Identity, Role};
use crate::stats::{self, LedgerReport, Report};
use crate::transport::{BindError, Encoding, EndpointError, Keyring};

mod backends; //   from the manifest's exporters to the tasks' settings
mod counting; //   from the manifest's span metrics to what shards count with
mod detection; //  facts about where an agent runs
mod guard; //      what clients have to show
pub mod neighbours; // where gateways and a newer manifest are looked for
mod processing; // from the manifest's settings to what is done to spans
mod sockets; //    what a role listens on
pub mod stop; //   signals, and the parent

/// How long a stopping process may take to hand on what it holds. Under the 60 s of grace that its pod gets.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);
/// Shard threads of a gateway at most: more than any pod has processors, since each needs a buffer of its
/// own.
const SHARDS_MAX: usize = 16;
/// Where gateways take OTLP: the Services of a pipeline count on it.
const GATEWAY_PORTS: ReceiverPorts = ReceiverPorts { grpc: 4317, http: 4318 };
/// Keys the ring when no seed file is given. It is public, so whoever can choose trace IDs can aim at one
/// gateway: right for a laptop; the operator gives every pipeline a seed of its own.
const DEFAULT_SEED: [u8; 16] = *b"ringtail-no-seed";

/// Flags that both roles take.
#[derive(Args, Clone, Debug)]
pub struct RoleOptions {
    /// The TracePipeline manifest.
    #[arg(long, value_name = "FILE")]
    pub pipeline: PathBuf,
    /// What the process calls itself; placement on the ring depends on it. Default: the host name.
    #[arg(long, value_name = "ID")]
    pub identity: Option<String>,
    /// Where to take OTLP/gRPC. Default: all addresses, port 4317, or the manifest's for agents.
    #[arg(long, value_name = "ADDR")]
    pub otlp_grpc: Option<SocketAddr>,
    /// Where to take OTLP/HTTP. Default: all addresses, port 4318, or the manifest's for agents.
    #[arg(long, value_name = "ADDR")]
    pub otlp_http: Option<SocketAddr>,
    /// Where to serve metrics, probes and stats.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8888")]
    pub admin: SocketAddr,
    /// Memory limit, e.g. 512Mi; 3/4 of it are used. Default: the cgroup's limit, else 128Mi (agent) or 2Gi
    /// (gateway).
    #[arg(long, value_name = "SIZE", value_parser = ringtail_crds::parse_size)]
    pub memory_limit: Option<u64>,
    /// File with the seed of the ring: 32 hexadecimal digits, the same for every process of a fleet.
    #[arg(long, value_name = "FILE")]
    pub seed_file: Option<PathBuf>,
    /// Namespace of the pipeline. Default: POD_NAMESPACE, else the one that the configuration names.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How to reach the API server. Default: KUBECONFIG, else the pod's service account; without either it is
    /// not asked.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory with the certificates of this tier: tls.crt, tls.key, ca.crt. Agents and gateways then speak
    /// mutual TLS, on a port of its own. New files are used for new connections.
    #[arg(long, value_name = "DIR")]
    pub peer_tls: Option<PathBuf>,
    /// Directory with the certificate that clients see: tls.crt, tls.key. Their OTLP ports then speak TLS
    /// alone. New files are used for new connections.
    #[arg(long, value_name = "DIR")]
    pub otlp_tls: Option<PathBuf>,
    /// Directory with the authority of clients' certificates: ca.crt. Each must then show one.
    #[arg(long, value_name = "DIR", requires = "otlp_tls")]
    pub otlp_client_ca: Option<PathBuf>,
    /// File with the bearer tokens that clients must show, one a line.
    #[arg(long, value_name = "FILE")]
    pub otlp_tokens: Option<PathBuf>,
    /// Take OTLP in the clear and without tokens whatever the manifest says, on loopback alone.
    #[arg(long, hide = true)]
    pub otlp_unguarded: bool,
    /// Threads: receivers of an agent, shards of a gateway. Default: 1 (agent), one less than the processors
    /// (gateway), but at least one.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Stop when standard input ends, as it does when the parent dies; its lines may list the gateways.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Flags of `ringtail agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentOptions {
    #[command(flatten)]
    /// Flags of both roles.
    pub role: RoleOptions,
    /// A gateway; may be repeated. Replaces `routing.resolver`.
    #[arg(long = "gateway", value_name = "HOST:PORT")]
    pub gateways: Vec<String>,
    /// Beside one application, outside of the fleet: whoever answers gets plain OTLP, and is not asked who
    /// it is.
    #[arg(long)]
    pub thin: bool,
}

/// Flags of `ringtail gateway`.
#[derive(Args, Clone, Debug)]
pub struct GatewayOptions {
    #[command(flatten)]
    /// Flags of both roles.
    pub role: RoleOptions,
    /// Another gateway; may be repeated, this gateway itself may be among them. Replaces `routing.resolver`.
    #[arg(long = "peer", value_name = "HOST:PORT")]
    pub peers: Vec<String>,
    /// Where to take agents and other gateways, with --peer-tls.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:4319")]
    pub peer_listen: SocketAddr,
    /// Replaces the endpoint of an OTLP exporter; may be repeated. Without a scheme, or with http://, it is
    /// spoken to in the clear; with grpc:// by gRPC, whatever the manifest says.
    #[arg(long = "export", value_name = "NAME=HOST:PORT")]
    pub exports: Vec<String>,
    /// Directory with the Secrets that exporters refer to, as files NAME/KEY.
    #[arg(long, value_name = "DIR", default_value = "/etc/ringtail/secrets")]
    pub secrets_dir: PathBuf,
    /// Directory for queues on disk (`queue.persistent`), a directory in it for each exporter.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Replaces `sampling.decisionWait`.
    #[arg(long, value_name = "DURATION", value_parser = ringtail_crds::parse_duration)]
    pub decision_wait: Option<Duration>,
}

/// Why a role did not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// Something on the command line or in the manifest is wrong; says what to change.
    #[error("{0}")]
    Usage(String),
    /// A socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An address is not one.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// An exporter cannot be made of what the manifest and the files say.
    #[error(transparent)]
    Exporter(#[from] export::ConfigError),
    /// A fleet did not start, or failed.
    #[error("{0}")]
    Fleet(String),
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

// === impl RoleError ===

impl RoleError {
    /// 64 (EX_USAGE) for what the user can mend in flags or manifest, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Endpoint(_) | Self::Exporter(_) => ExitCode::from(64),
            Self::Bind(_) | Self::Fleet(_) | Self::System { .. } => ExitCode::FAILURE,
        }
    }
}

// === the two roles ===

/// Runs an agent until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run_agent(options: AgentOptions, loaded: Loaded) -> Result<ExitCode, RoleError> {
    let AgentOptions { role, gateways, thin } = options;
    let signals = Signals::catch()
        .map_err(|source| RoleError::System { what: "catching signals", source })?;
    let parent = role.exit_with_parent.then(Parent::listen);
    let neighbours =
        Neighbours::of_agent(&role, &gateways, &loaded.pipeline, parent.as_ref()).await?;
    let keyring = keyring(&role, &loaded, stats::Role::Agent)?;
    let guard = guard::of_clients(&role, loaded.pipeline.guard)?;
    let seed = seed(&role)?;
    let sockets = Sockets::bind(&role, loaded.pipeline.receivers, None)?;
    let by_service = loaded.pipeline.routing_key == RoutingKey::Service;
    let budget = {
        // Gateways that get services know nothing of each other, so nobody says what is to be sent again.
        let retention = if by_service { Some(0) } else { loaded.pipeline.retention_bytes };
        let limit = memory::limit(Tier::Agent, role.memory_limit);
        let logs = loaded.pipeline.logs.is_some();
        Budget::share(Tier::Agent, limit, Wanted { retention, logs, ..Wanted::default() })
    };
    let (stop, stopping) = watch::channel(false);
    let pipeline = &loaded.pipeline;
    let processing = processing::of_agent(pipeline, thin)?;
    let config = agent::Config {
        identity: identity(&role, Role::Agent)?,
        seed,
        gateways: neighbours.discovery.clone(),
        keyring: keyring.clone(),
        thin,
        by_service,
        batch: BatchLimits {
            bytes: usize::try_from(pipeline.batch.max_bytes).unwrap_or(usize::MAX),
            spans: pipeline.batch.max_spans as usize,
        },
        batch_timeout: pipeline.batch.timeout,
        hop_encoding: encoding(pipeline.hop_compression),
        send_budget: budget.send,
        retention_budget: budget.retention,
        decision_wait: pipeline.decision_wait,
        scan: processing::scan_limits(processing.as_ref()),
        processing,
        logs_budget: pipeline.logs.map(|_| budget.logs),
    };
    tracing::info!(identity = %config.identity.id, ?budget, "agent");
    let agent = Agent::start(config, stopping.clone());
    let tier = TierSource::Agent(Arc::clone(agent.core()));
    let shown = Shown::new(keyring, &guard, budget.receive);
    let (source, follower) = neighbours.follow(&role, &loaded, tier, shown);
    let following = tokio::spawn(follower.run(Retain(Arc::clone(agent.core()))));
    let clients = sockets::Door::new(agent.intake(), guard);
    let receivers = sockets.serve(clients, None, source.clone(), &stopping)?;
    wait_for_stop(signals, parent).await;
    following.abort();
    stop.send_replace(true);
    receivers.finish().await;
    agent.drain(DRAIN_WITHIN).await;
    Ok(report(source.ledger()))
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run_gateway(options: GatewayOptions, loaded: Loaded) -> Result<ExitCode, RoleError> {
    let GatewayOptions { role, peers, peer_listen, exports, secrets_dir, data_dir, decision_wait } =
        options;
    let signals = Signals::catch()
        .map_err(|source| RoleError::System { what: "catching signals", source })?;
    let parent = role.exit_with_parent.then(Parent::listen);
    let pipeline = &loaded.pipeline;
    let neighbours = Neighbours::of_gateway(&role, &peers, pipeline, parent.as_ref()).await?;
    let program = processing::program(pipeline)?;
    let redaction = processing::redaction(pipeline, &secrets_dir)?;
    let keyring = keyring(&role, &loaded, stats::Role::Gateway)?;
    let guard = guard::of_gateway(&role, pipeline.guard, keyring.is_some())?;
    // Whatever can be wrong with the command line is said before ports are looked at.
    let seed = seed(&role)?;
    let shards = u32::try_from(shards(&role)).unwrap_or(1);
    let (budget, span_metrics) =
        counting::share(pipeline, role.memory_limit, shards, &secrets_dir)?;
    let identity = identity(&role, Role::Gateway)?;
    let local = backends::Local { secrets_dir, identity: identity.id.clone(), data_dir };
    let configs = backends::configs(pipeline, &exports, &local, budget.send)?;
    let sockets = Sockets::bind(&role, GATEWAY_PORTS, keyring.as_ref().map(|_| peer_listen))?;
    let mut tasks = JoinSet::new();
    let (exporters, log_exporters) = backends::start(configs, &mut tasks)?;
    let config = gateway::Config {
        identity: instance::learn(
            identity,
            neighbours.discovery.candidates.clone(),
            keyring.as_ref(),
        )
        .await,
        seed,
        shards,
        limits: limits(pipeline, decision_wait),
        buffer_bytes: budget.buffer,
        decisions_bytes: budget.decisions,
        spare_bytes: budget.spare,
        scan: ScanLimits::default(),
        redaction,
        span_metrics,
        logs: backends::of_logs(pipeline, log_exporters, budget.logs),
    };
    tracing::info!(identity = %config.identity.id, shards = config.shards, ?budget, "gateway");
    let (stop, stopping) = watch::channel(false);
    let discovery = neighbours.discovery.clone();
    let (policies, keys) = (&pipeline.policies, keyring.clone());
    let (gateway, fleet) = Gateway::start(config, policies, program, exporters, discovery, keys)
        .map_err(|source| RoleError::System { what: "starting shard threads", source })?;
    let tier = TierSource::Gateway(Arc::clone(&gateway));
    let shown = Shown::new(keyring.clone(), &guard, budget.receive);
    let (source, follower) = neighbours.follow(&role, &loaded, tier, shown);
    tasks.spawn(follower.run(Reload { gateway: Arc::clone(&gateway), decision_wait }));
    let intake = |door| gateway::Intake { gateway: Arc::clone(&gateway), door };
    let door = if keyring.is_some() { Door::Clients } else { Door::Open };
    let of_peers = |keyring| sockets::Door::new(intake(Door::Peers), guard.for_peers(keyring));
    let peers = keyring.map(of_peers);
    let clients = sockets::Door::new(intake(door), guard.clone());
    let receivers = sockets.serve(clients, peers, source.clone(), &stopping)?;
    // Others are asked once this gateway can be asked itself.
    tasks.spawn(fleet.run());
    wait_for_stop(signals, parent).await;
    gateway.leave().await;
    stop.send_replace(true);
    receivers.finish().await;
    gateway.drain(DRAIN_WITHIN).await;
    Ok(report(source.ledger()))
}

/// When traces are decided; `decision_wait` is the flag that replaces the manifest's.
fn limits(pipeline: &ValidPipeline, decision_wait: Option<Duration>) -> gateway::Limits {
    gateway::Limits {
        decision_wait: decision_wait.unwrap_or(pipeline.decision_wait),
        after_root: pipeline.decision_wait_after_root,
        max_trace_spans: pipeline.max_trace_spans,
        max_trace_bytes: pipeline.max_trace_bytes,
    }
}

/// Takes the sampling of a new manifest into use.
struct Reload {
    gateway: Arc<Gateway>,
    /// The flag that replaces the manifest's.
    decision_wait: Option<Duration>,
}

impl Apply for Reload {
    async fn apply(&mut self, pipeline: ValidPipeline) -> Result<(), String> {
        let limits = limits(&pipeline, self.decision_wait);
        self.gateway.reload(&pipeline.policies, limits, pipeline.records).await
    }
}

/// Keeps delivered spans for as long as the wait of a new manifest asks for. Agents decide nothing, so that
/// nothing else of `spec.sampling` is theirs.
struct Retain(Arc<Core>);

impl Apply for Retain {
    async fn apply(&mut self, pipeline: ValidPipeline) -> Result<(), String> {
        self.0.set_decision_wait(pipeline.decision_wait);
        Ok(())
    }
}

fn report(ledger: LedgerReport) -> ExitCode {
    let ledger = ledger.settle();
    let balanced = ledger.balanced;
    print_line(&Report::Ledger(ledger));
    if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_line(line: &Report) {
    use std::io::Write;
    // A parent that no longer reads is no reason to stop draining.
    let text = serde_json::to_string(line).unwrap_or_default();
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

// === from flags and manifest to plain data ===

fn identity(role: &RoleOptions, tier: Role) -> Result<Identity, RoleError> {
    let id = match &role.identity {
        Some(id) => id.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .map_err(|source| RoleError::System { what: "reading the host name", source })?,
    };
    if id.is_empty() {
        return Err(RoleError::Usage("--identity must not be empty".to_owned()));
    }
    Ok(Identity { id, inst: instance::now(), role: tier })
}

/// The certificates, followed from now on.
fn keyring(
    role: &RoleOptions,
    loaded: &Loaded,
    tier: stats::Role,
) -> Result<Option<Arc<Keyring>>, RoleError> {
    let Some(directory) = &role.peer_tls else { return Ok(None) };
    let keyring = Keyring::open(directory, &loaded.pipeline.name, tier)
        .map_err(|error| RoleError::Usage(format!("--peer-tls: {error}")))?;
    tokio::spawn(Arc::clone(&keyring).follow());
    Ok(Some(keyring))
}

fn seed(role: &RoleOptions) -> Result<KeySeed, RoleError> {
    let Some(path) = &role.seed_file else { return Ok(KeySeed::new(DEFAULT_SEED)) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| RoleError::Usage(format!("--seed-file {}: {error}", path.display())))?;
    KeySeed::from_hex(&text)
        .map_err(|error| RoleError::Usage(format!("--seed-file {}: {error}", path.display())))
}

/// The shards of a gateway. One processor is left to receiving, checking and sending, which is half of the
/// work of one shard; and a shard more walks every request once more.
fn shards(role: &RoleOptions) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    role.threads.unwrap_or(processors.saturating_sub(1)).clamp(1, SHARDS_MAX)
}

fn encoding(compression: Compression) -> Encoding {
    match compression {
        Compression::None => Encoding::Identity,
        Compression::Gzip => Encoding::Gzip,
        Compression::Zstd => Encoding::Zstd,
    }
}
