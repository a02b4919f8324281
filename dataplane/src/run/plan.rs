//! Which processes a local fleet has, and how each is started.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringtail_crds::ValidPipeline;
use ringtail_crds::resolved::ReceiverGuard;

use super::RunOptions;
use crate::stats::Role;

/// Two, so that traces whose services send to different agents are seen to meet.
pub const AGENTS: usize = 2;
/// The second agent's ports are the first's plus this.
const PORT_STEP: u16 = 10;
/// Children take any free port here, and tell which.
const ANY_PORT: &str = "127.0.0.1:0";

/// The fleet to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// How many gateways.
    pub gateways: usize,
    /// How long a gateway waits before it decides.
    pub decision_wait: Duration,
    program: PathBuf,
    agents: [Addresses; AGENTS],
    /// Flags of every process.
    shared: Vec<OsString>,
    /// Flags of gateways.
    decides: Vec<OsString>,
    /// Where gateways keep queues on disk, each in a directory of its own.
    data_dir: Option<PathBuf>,
}

/// One process to be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What it is called here and calls itself.
    pub identity: String,
    /// Its tier.
    pub role: Role,
    /// What to run.
    pub program: PathBuf,
    /// With which arguments.
    pub arguments: Vec<OsString>,
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    grpc: SocketAddr,
    http: SocketAddr,
}

// === impl Plan ===

impl Plan {
    /// Derives the processes from the manifest and the flags.
    pub fn new(
        options: &RunOptions,
        pipeline: &ValidPipeline,
        exports: &[String],
    ) -> io::Result<Self> {
        let gateways = usize::try_from(pipeline.replicas).unwrap_or(usize::MAX);
        let first = Addresses { grpc: options.otlp_grpc, http: options.otlp_http };
        let second = Addresses { grpc: next_port(first.grpc)?, http: next_port(first.http)? };
        let mut shared =
            vec!["--exit-with-parent".into(), "--pipeline".into(), options.file.clone().into()];
        if pipeline.guard != ReceiverGuard::default() {
            // A laptop has no Secrets; the addresses must be of loopback then.
            shared.push("--otlp-unguarded".into());
        }
        if let Some(bytes) = options.memory_limit {
            let share = bytes / (gateways + AGENTS) as u64;
            shared.extend(["--memory-limit".into(), share.to_string().into()]);
        }
        let mut decides: Vec<OsString> = Vec::new();
        for export in exports {
            decides.extend(["--export".into(), export.into()]);
        }
        if let Some(secrets_dir) = &options.secrets_dir {
            decides.extend(["--secrets-dir".into(), secrets_dir.into()]);
        }
        if let Some(wait) = options.decision_wait {
            decides.extend(["--decision-wait".into(), format!("{}ms", wait.as_millis()).into()]);
        }
        Ok(Self {
            pipeline: pipeline.name.clone(),
            gateways,
            decision_wait: options.decision_wait.unwrap_or(pipeline.decision_wait),
            program: std::env::current_exe()?,
            agents: [first, second],
            shared,
            decides,
            data_dir: options.data_dir.clone(),
        })
    }

    /// The gateway number `index`.
    pub fn gateway(&self, index: usize) -> Spec {
        self.gateway_named(format!("{}-{index}", Role::Gateway.name()))
    }

    /// A gateway of this name.
    pub fn gateway_named(&self, identity: String) -> Spec {
        let data_dir = self.data_dir.as_ref().map(|data_dir| data_dir.join(&identity));
        let mut spec = self.spec(Role::Gateway, identity, ANY_PORT, ANY_PORT);
        if let Some(data_dir) = data_dir {
            spec.arguments.extend(["--data-dir".into(), data_dir.into()]);
        }
        spec.arguments.extend(self.decides.iter().cloned());
        spec
    }

    /// The agent number `index`.
    pub fn agent(&self, index: usize) -> Spec {
        let Addresses { grpc, http } = self.agents[index];
        let identity = format!("{}-{index}", Role::Agent.name());
        self.spec(Role::Agent, identity, &grpc.to_string(), &http.to_string())
    }

    fn spec(&self, role: Role, identity: String, grpc: &str, http: &str) -> Spec {
        let mut arguments: Vec<OsString> = vec![role.name().into()];
        for (flag, value) in
            [("--identity", identity.as_str()), ("--otlp-grpc", grpc), ("--otlp-http", http)]
        {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.extend(["--admin".into(), ANY_PORT.into()]);
        arguments.extend(self.shared.iter().cloned());
        Spec { identity, role, program: self.program.clone(), arguments }
    }
}

fn next_port(address: SocketAddr) -> io::Result<SocketAddr> {
    let port = match address.port() {
        0 => Some(0),
        port => port.checked_add(PORT_STEP),
    };
    let too_high = || {
        let why =
            format!("{address} leaves no room for the second agent, {PORT_STEP} ports higher");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    };
    Ok(SocketAddr::new(address.ip(), port.ok_or_else(too_high)?))
}
