//! The life of one process: read the manifest, bind, serve, drain, say where every span went.
//!
//! Order at the end: readiness goes off and no new span is taken; requests under way are answered; what is
//! held is delivered (agent) or decided and exported (gateway); the ledger is printed as the last line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ringtail_crds::resolved::{ReceiverPorts, Resolver};
use ringtail_crds::{Compression, ValidPipeline};
use ringtail_engine::key::KeySeed;
use ringtail_engine::scan::ScanLimits;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::agent::splitter::BatchLimits;
use crate::agent::{self, Agent};
use crate::gateway::{self, Gateway};
use crate::memory::{self, Budget, Tier};
use crate::metrics::Source;
use crate::peer::Identity;
use crate::stats::{LedgerReport, Listening, Report};
use crate::transport::{
    Admission, BindError, Encoding, EndpointError, Handler, Protocol, ServerLimits, bind, serve,
};
use crate::{admin, export};

mod backends; // from the manifest's exporters to the tasks' settings

/// How long a stopping process may take to hand on what it holds. Under the 60 s of grace that its pod gets.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);
/// How long a stopping gateway still answers agents with "draining" before it closes its receivers: two of
/// their hellos.
const LEAVE_NOTICE: Duration = Duration::from_millis(1600);
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
    /// Threads: receivers of an agent, shards of a gateway. Default: 1 (agent), one less than the processors
    /// (gateway), but at least one.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Stop when standard input ends, as it does when the parent dies.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Flags of `ringtail agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentOptions {
    #[command(flatten)]
    /// Flags of both roles.
    pub role: RoleOptions,
    /// A gateway; may be repeated. Replaces `routing.resolver.static`.
    #[arg(long = "gateway", value_name = "HOST:PORT")]
    pub gateways: Vec<String>,
    /// Beside one application, outside of the fleet: whoever answers gets plain OTLP, and is not asked who it is.
    #[arg(long)]
    pub thin: bool,
}

/// Flags of `ringtail gateway`.
#[derive(Args, Clone, Debug)]
pub struct GatewayOptions {
    #[command(flatten)]
    /// Flags of both roles.
    pub role: RoleOptions,
    /// Replaces the endpoint of an exporter; may be repeated.
    #[arg(long = "export", value_name = "NAME=HOST:PORT")]
    pub exports: Vec<String>,
    /// Directory with the Secrets that headers refer to, as files NAME/KEY.
    #[arg(long, value_name = "DIR", default_value = "/etc/ringtail/secrets")]
    pub secrets_dir: PathBuf,
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

/// Sockets of a role, bound and not yet serving.
struct Sockets {
    grpc: TcpListener,
    http: TcpListener,
    admin: TcpListener,
}

// === impl RoleError ===

impl RoleError {
    /// 64 (EX_USAGE) for what the user can mend in flags or manifest, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Endpoint(_) => ExitCode::from(64),
            Self::Bind(_) | Self::Fleet(_) | Self::System { .. } => ExitCode::FAILURE,
        }
    }
}

// === the two roles ===

/// Runs an agent until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run_agent(
    options: AgentOptions,
    pipeline: ValidPipeline,
) -> Result<ExitCode, RoleError> {
    let AgentOptions { role, gateways, thin } = options;
    let gateways = known_gateways(gateways, &pipeline.resolver)?;
    let sockets = Sockets::bind(&role, pipeline.receivers)?;
    let budget = Budget::share(Tier::Agent, memory::limit(Tier::Agent, role.memory_limit), 0);
    let (stop, stopping) = watch::channel(false);
    let config = agent::Config {
        identity: identity(&role)?,
        seed: seed(&role)?,
        gateways,
        thin,
        batch: BatchLimits {
            bytes: usize::try_from(pipeline.batch.max_bytes).unwrap_or(usize::MAX),
            spans: pipeline.batch.max_spans as usize,
        },
        batch_timeout: pipeline.batch.timeout,
        hop_encoding: encoding(pipeline.hop_compression),
        send_budget: budget.send,
        scan: ScanLimits::default(),
    };
    tracing::info!(identity = %config.identity.id, ?budget, gateways = ?config.gateways, "agent");
    let agent = Agent::start(config, stopping.clone())?;
    let source = Source::Agent(Arc::clone(agent.core()));
    let receivers = sockets.serve(agent.intake(), source.clone(), budget.receive, &stopping)?;
    wait_for_stop(role.exit_with_parent).await;
    stop.send_replace(true);
    receivers.finish().await;
    agent.drain(DRAIN_WITHIN).await;
    Ok(report(source.ledger()))
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run_gateway(
    options: GatewayOptions,
    pipeline: ValidPipeline,
) -> Result<ExitCode, RoleError> {
    let GatewayOptions { role, exports, secrets_dir, decision_wait } = options;
    let program = ringtail_engine::policy::compile(&pipeline.policies).map_err(|problems| {
        RoleError::Usage(format!("the policies do not compile: {problems:?}"))
    })?;
    let sockets = Sockets::bind(&role, GATEWAY_PORTS)?;
    let wanted = pipeline.exporters.iter().map(|exporter| exporter.queue_max_bytes).sum();
    let limit = memory::limit(Tier::Gateway, role.memory_limit);
    let budget = Budget::share(Tier::Gateway, limit, wanted);
    let mut exporters = Vec::new();
    let mut tasks = JoinSet::new();
    for config in backends::configs(&pipeline, &exports, &secrets_dir, budget.send)? {
        let (handle, task) = export::ExporterHandle::new(config)?;
        tasks.spawn(task.run());
        exporters.push(handle);
    }
    let config = gateway::Config {
        identity: identity(&role)?,
        seed: seed(&role)?,
        shards: u32::try_from(shards(&role)).unwrap_or(1),
        decision_wait: decision_wait.unwrap_or(pipeline.decision_wait),
        max_trace_spans: pipeline.max_trace_spans,
        buffer_bytes: budget.buffer,
        decisions_bytes: budget.decisions,
        scan: ScanLimits::default(),
    };
    tracing::info!(identity = %config.identity.id, shards = config.shards, ?budget, "gateway");
    let (stop, stopping) = watch::channel(false);
    let gateway = Gateway::start(config, &pipeline.policies, program, exporters)
        .map_err(|source| RoleError::System { what: "starting shard threads", source })?;
    let source = Source::Gateway(Arc::clone(&gateway));
    let intake = gateway::Intake(Arc::clone(&gateway));
    let receivers = sockets.serve(intake, source.clone(), budget.receive, &stopping)?;
    wait_for_stop(role.exit_with_parent).await;
    gateway.leave();
    tokio::time::sleep(LEAVE_NOTICE).await;
    stop.send_replace(true);
    receivers.finish().await;
    gateway.drain(DRAIN_WITHIN).await;
    Ok(report(source.ledger()))
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

// === impl Sockets ===

/// Receivers under way.
struct Receivers {
    tasks: JoinSet<usize>,
}

impl Sockets {
    fn bind(role: &RoleOptions, ports: ReceiverPorts) -> Result<Self, RoleError> {
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Ok(Self {
            grpc: bind(role.otlp_grpc.unwrap_or_else(|| everywhere(ports.grpc)))?,
            http: bind(role.otlp_http.unwrap_or_else(|| everywhere(ports.http)))?,
            admin: bind(role.admin)?,
        })
    }

    /// Serves all three and prints the addresses.
    fn serve<H: Handler + Clone>(
        self,
        handler: H,
        source: Source,
        receive_budget: u64,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Receivers, RoleError> {
        let listening = Listening {
            otlp_grpc: local(&self.grpc)?,
            otlp_http: Some(local(&self.http)?),
            admin: local(&self.admin)?,
        };
        let admission = Admission::new(receive_budget);
        let mut tasks = JoinSet::new();
        for (listener, protocol) in [(self.grpc, Protocol::Grpc), (self.http, Protocol::Http)] {
            let limits = ServerLimits::default();
            let (handler, admission) = (handler.clone(), admission.clone());
            tasks.spawn(serve(listener, protocol, limits, admission, handler, stopping.clone()));
        }
        let admin = admin::serve(self.admin, source, stopping.clone());
        tokio::spawn(async move {
            if let Err(error) = admin.await {
                tracing::error!(%error, "the admin port stopped");
            }
        });
        print_line(&Report::Listening(listening));
        Ok(Receivers { tasks })
    }
}

impl Receivers {
    /// Waits until every request under way is answered.
    async fn finish(mut self) {
        while let Some(cut_off) = self.tasks.join_next().await {
            if let Ok(connections @ 1..) = cut_off {
                tracing::warn!(connections, "connections were cut off with requests under way");
            }
        }
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, RoleError> {
    listener
        .local_addr()
        .map_err(|source| RoleError::System { what: "asking for a socket's address", source })
}

// === from flags and manifest to plain data ===

fn identity(role: &RoleOptions) -> Result<Identity, RoleError> {
    let id = match &role.identity {
        Some(id) => id.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .map_err(|source| RoleError::System { what: "reading the host name", source })?,
    };
    if id.is_empty() {
        return Err(RoleError::Usage("--identity must not be empty".to_owned()));
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let inst = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    Ok(Identity { id, inst })
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

fn known_gateways(flags: Vec<String>, resolver: &Resolver) -> Result<Vec<String>, RoleError> {
    match resolver {
        _ if !flags.is_empty() => Ok(flags),
        Resolver::Static(endpoints) => Ok(endpoints.clone()),
        Resolver::Kubernetes => Err(RoleError::Usage(
            "the agent knows no gateway: name them with --gateway HOST:PORT, or in \
             spec.routing.resolver.static.endpoints with spec.gateway.type External"
                .to_owned(),
        )),
    }
}

/// Resolves on SIGTERM, SIGINT, or the end of standard input when that means the end of the parent.
///
/// A second signal ends the process at once.
async fn wait_for_stop(exit_with_parent: bool) {
    let (Ok(mut term), Ok(mut int)) = (
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()),
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received; stopping");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = stdin_ends(), if exit_with_parent => {}
    }
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::error!("stopped by a second signal before everything was handed on");
        std::process::exit(1);
    });
}

async fn stdin_ends() {
    use std::io::Read;
    // A thread of its own: reading standard input cannot be interrupted, and must not keep the runtime from
    // ending.
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut sink = [0_u8; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(read) if read > 0) {}
        drop(ended);
    });
    let _ = wait.await;
}
