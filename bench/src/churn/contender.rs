//! How agents and gateways of either side are configured and started.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ringtail_engine::ownership::timers::RETAIN_AFTER_WAIT;
use serde_json::Value;

use super::board::{Board, PORT};
use super::probe::Admin;
use super::{api, dns};
use crate::failure::{Doing, Failure, Result};
use crate::run::process::Process;

/// How long a process may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// Any free port.
const ANY: &str = "127.0.0.1:0";
/// Where a Collector agent listens, on an IP of its own.
const COLLECTOR_PORT: u16 = 14_316;
/// Where Collectors show their metrics.
const TELEMETRY_PORT: u16 = 14_888;
/// A mount namespace of its own lets a process have another resolver configuration than the machine.
const WITH_RESOLVER: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

/// Who does the work of a tier.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub(super) enum Side {
    Ringtail,
    Collector,
}

/// What processes are started with.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) ringtail: PathBuf,
    /// Why there is no Collector, if there is none.
    pub(super) collector: std::result::Result<PathBuf, String>,
    pub(super) scratch: PathBuf,
    /// Keys the ring.
    pub(super) seed_file: PathBuf,
    pub(super) decision_wait: Duration,
    /// Of each gateway.
    pub(super) memory_limit: &'static str,
    /// Gateways do not know each other: the rules of ownership have nothing to do.
    pub(super) alone: bool,
}

/// A process that has just been started.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) otlp: SocketAddr,
    pub(super) admin: Admin,
}

// === impl Side ===

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ringtail => "ringtail",
            Self::Collector => "collector",
        }
    }
}

// === impl Programs ===

impl Programs {
    /// How long an agent keeps what it has delivered.
    pub(super) fn retained_for(&self) -> Duration {
        self.decision_wait + Duration::from_millis(RETAIN_AFTER_WAIT)
    }

    /// Starts a gateway at the address with this number; `log` names the files that are its own.
    pub(super) fn gateway(
        &self,
        side: Side,
        board: &Board,
        (name, number): (&str, u8),
        log: &str,
    ) -> Result<Started> {
        let address = board.gateway(number);
        if side == Side::Collector {
            let config = self.collector_gateway(board, address);
            return self.collector(log, &config, None, address);
        }
        let mut command = self.ringtail("gateway", board, name, log)?;
        command.args(["--otlp-grpc", &address.to_string()]);
        command.args(["--memory-limit", self.memory_limit, "--threads", "1"]);
        self.listen(command, log)
    }

    /// Starts an agent.
    pub(super) fn agent(
        &self,
        side: Side,
        board: &Board,
        (name, number): (&str, u8),
        log: &str,
    ) -> Result<Started> {
        if side == Side::Collector {
            let address = SocketAddr::new(board.gateway(number).ip(), COLLECTOR_PORT);
            let config = collector_agent(name, address);
            return self.collector(log, &config, Some(board.nameserver()), address);
        }
        let mut command = self.ringtail("agent", board, name, log)?;
        command.args(["--otlp-grpc", ANY]);
        self.listen(command, log)
    }

    fn ringtail(&self, role: &str, board: &Board, name: &str, log: &str) -> Result<Command> {
        let [manifest, kubeconfig] = ["yaml", "kubeconfig"].map(|kind| self.file(log, kind));
        write(&manifest, &self.manifest(board.backend))?;
        write(&kubeconfig, &api::kubeconfig(board.api, name))?;
        let mut command = Command::new(&self.ringtail);
        command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
        command.args([role, "--identity", name, "--otlp-http", ANY, "--admin", ANY, "--pipeline"]);
        command.arg(&manifest).arg("--seed-file").arg(&self.seed_file);
        if role == "agent" || !self.alone {
            command.arg("--kubeconfig").arg(&kubeconfig);
        }
        Ok(command)
    }

    fn listen(&self, mut command: Command, log: &str) -> Result<Started> {
        let mut process = Process::spawn(log, &mut command, &self.scratch)?;
        let line = process.answer(PATIENCE)?;
        let address = |key: &str| -> Result<SocketAddr> {
            let text = line["listening"][key].as_str();
            let missing = || Failure::new(format!("{log} said {line}, no {key} in it"));
            text.and_then(|text| text.parse().ok()).ok_or_else(missing)
        };
        let (otlp, admin) = (address("otlpGrpc")?, Admin::Ringtail(address("admin")?));
        Ok(Started { process, otlp, admin })
    }

    fn collector(
        &self,
        log: &str,
        config: &str,
        nameserver: Option<IpAddr>,
        listen: SocketAddr,
    ) -> Result<Started> {
        let binary = self.collector.as_ref().map_err(|why| Failure::new(why.clone()))?;
        let [file, resolver] = ["yaml", "resolv.conf"].map(|kind| self.file(log, kind));
        write(&file, config)?;
        let mut command = match nameserver {
            Some(nameserver) => {
                write(&resolver, &format!("nameserver {nameserver}\n"))?;
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", WITH_RESOLVER]).arg(&resolver).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.arg("--config").arg(&file);
        let mut process = Process::spawn(log, &mut command, &self.scratch)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(listen).is_err() {
            if Instant::now() > deadline || !process.is_running() {
                process.answer(Duration::ZERO)?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let admin = Admin::Collector(SocketAddr::new(listen.ip(), TELEMETRY_PORT));
        Ok(Started { process, otlp: listen, admin })
    }

    fn file(&self, log: &str, kind: &str) -> PathBuf {
        self.scratch.join(format!("{log}.{kind}"))
    }

    /// The TracePipeline: agents at their defaults, gateways found in the cluster.
    fn manifest(&self, backend: SocketAddr) -> String {
        format!(
            "apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {{name: churn}}
spec:
  sampling:
    decisionWait: {}
    policies:
    - {{name: errors, type: StatusCode, statusCode: {{statusCodes: [Error]}}}}
  exporters:
  - name: sink
    type: OTLP
    otlp: {{endpoint: \"http://{backend}\", protocol: GRPC, compression: None}}
",
            duration(self.decision_wait)
        )
    }

    fn collector_gateway(&self, board: &Board, listen: SocketAddr) -> String {
        // Room for every trace, and memory for every decision: at its defaults a Collector evicts traces
        // undecided, and lets late spans start traces of their own.
        let processors = format!(
            "  batch:\n  tail_sampling:\n    decision_wait: {}\n    num_traces: 2000000\n    \
             decision_cache: {{sampled_cache_size: 1000000, non_sampled_cache_size: 1000000}}\n    \
             policies:\n    - {{name: errors, type: status_code, status_code: {{status_codes: [ERROR]}}}}\n",
            duration(self.decision_wait)
        );
        let exporter = format!(
            "  otlp_grpc:\n    endpoint: {}\n    tls: {{insecure: true}}\n    compression: none\n",
            board.backend
        );
        collector_config(listen, &processors, "tail_sampling, batch", &exporter, "otlp_grpc")
    }
}

/// The load-balancing exporter at its defaults, with the resolver that its documentation shows for
/// Kubernetes' headless Services.
fn collector_agent(name: &str, listen: SocketAddr) -> String {
    let exporter = format!(
        "  load_balancing:\n    protocol:\n      otlp:\n        tls: {{insecure: true}}\n    \
         resolver:\n      dns:\n        hostname: {name}.{}\n        port: \"{PORT}\"\n",
        dns::ZONE
    );
    collector_config(listen, "  batch:\n", "", &exporter, "load_balancing")
}

fn collector_config(
    listen: SocketAddr,
    processors: &str,
    used: &str,
    exporters: &str,
    exporter: &str,
) -> String {
    format!(
        "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: {listen}\n\
         processors:\n{processors}exporters:\n{exporters}\
         service:\n  telemetry:\n    metrics:\n      readers:\n      - pull:\n          \
         exporter:\n            prometheus: {{host: {}, port: {TELEMETRY_PORT}}}\n  pipelines:\n    \
         traces:\n      receivers: [otlp]\n      \
         processors: [{used}]\n      exporters: [{exporter}]\n",
        listen.ip()
    )
}

/// As both sides write it; a manifest takes five digits.
fn duration(wait: Duration) -> String {
    match wait.subsec_millis() {
        0 => format!("{}s", wait.as_secs()),
        _ => format!("{}ms", wait.as_millis()),
    }
}

/// The ledger among the last words of a process.
pub(super) fn ledger(last_words: &[Value]) -> Option<Value> {
    last_words.iter().find_map(|line| line.get("ledger")).cloned()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).doing(|| format!("writing {}", path.display()))
}
