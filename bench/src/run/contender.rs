//! Starts the process under test and finds out where it listens.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::case::{Contender, Extra, Tier};
use super::manifest::Manifest;
use super::otelcol::{AgentConfig, GatewayConfig};
use super::process::Process;
use super::trial::Bench;
use crate::failure::{Doing, Failure, Result};

/// How long a process may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a gateway may use: more than any case holds, so that nothing is decided early. Agents keep their
/// default.
const MEMORY_LIMIT: &str = "8Gi";

/// Any free port.
const ANY: &str = "127.0.0.1:0";

/// What to start.
pub(super) struct Start<'a> {
    pub(super) bench: &'a Bench,
    pub(super) name: &'a str,
    pub(super) tier: Tier,
    pub(super) contender: Contender,
    pub(super) upstreams: Vec<SocketAddr>,
    pub(super) decision_wait_s: u64,
    pub(super) extra: Extra,
}

/// The running process and the address that takes OTLP/gRPC.
pub(super) fn start(start: &Start<'_>) -> Result<(Process, SocketAddr)> {
    match start.contender {
        Contender::Relay => start.relay(),
        Contender::Ringtail { compression } => start.ringtail(compression),
        Contender::Collector { batch, compression } => start.collector(batch, compression),
    }
}

// === impl Start ===

impl Start<'_> {
    fn relay(&self) -> Result<(Process, SocketAddr)> {
        let mut command = Command::new(&self.bench.bench);
        command.args(["relay", "--listen", ANY]);
        command.args(self.upstreams.iter().flat_map(|a| ["--upstream".into(), a.to_string()]));
        self.listening(&mut command, |line| &line["listening"])
    }

    fn ringtail(&self, compression: &'static str) -> Result<(Process, SocketAddr)> {
        let manifest = Manifest {
            hop_compression: compression,
            decision_wait_s: self.decision_wait_s,
            export: self.first_upstream()?,
            gateways: self.upstreams.clone(),
            extra: self.extra,
        };
        let file = self.bench.scratch.join(format!("{}.yaml", self.name));
        write(&file, &manifest.render())?;
        let mut command = Command::new(&self.bench.ringtail);
        command.arg(match self.tier {
            Tier::Agent => "agent",
            Tier::Gateway => "gateway",
        });
        command.arg("--pipeline").arg(&file);
        command.args(["--otlp-grpc", ANY, "--otlp-http", ANY, "--admin", ANY]);
        if self.tier == Tier::Gateway {
            command.args(["--memory-limit", MEMORY_LIMIT]);
        }
        self.listening(&mut command, |line| &line["listening"]["otlpGrpc"])
    }

    fn collector(&self, batch: bool, compression: &str) -> Result<(Process, SocketAddr)> {
        let binary = self.bench.collector.as_ref().map_err(|why| Failure::new(why.clone()))?;
        let (listen, telemetry) = (free_address()?, free_address()?);
        let config = match self.tier {
            Tier::Agent => {
                let upstreams = &self.upstreams;
                AgentConfig { listen, telemetry, upstreams, batch, compression }.render()
            }
            Tier::Gateway => {
                let (export, decision_wait_s) = (self.first_upstream()?, self.decision_wait_s);
                GatewayConfig { listen, telemetry, export, decision_wait_s }.render()
            }
        };
        let file = self.bench.scratch.join(format!("{}.yaml", self.name));
        write(&file, &config)?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(&file);
        let mut process = Process::spawn(self.name, &mut command, &self.bench.scratch)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(listen).is_err() {
            if Instant::now() > deadline || !process.is_running() {
                process.answer(Duration::ZERO)?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((process, listen))
    }

    fn listening(
        &self,
        command: &mut Command,
        address: impl Fn(&serde_json::Value) -> &serde_json::Value,
    ) -> Result<(Process, SocketAddr)> {
        let mut process = Process::spawn(self.name, command, &self.bench.scratch)?;
        let line = process.answer(PATIENCE)?;
        let parsed = address(&line).as_str().and_then(|text| text.parse().ok());
        let missing = || Failure::new(format!("{} said {line}, no address in it", self.name));
        Ok((process, parsed.ok_or_else(missing)?))
    }

    fn first_upstream(&self) -> Result<SocketAddr> {
        self.upstreams.first().copied().ok_or_else(|| Failure::new("no upstream"))
    }
}

/// An address that was free a moment ago: the Collector does not say which port it took if it is given 0.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(ANY);
    listener.and_then(|listener| listener.local_addr()).doing(|| "looking for a free port".into())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).doing(|| format!("writing {}", path.display()))
}
