//! `ringtail run`: a manifest as a local fleet, two agents and its gateways as processes on loopback.
//!
//! The fleet is started, watched until Ctrl-C or the end of `--duration`, drained agents first, and judged by
//! its ledger: every span that came in must have a place where it went.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringtail_crds::ValidPipeline;
use ringtail_crds::resolved::ReceiverGuard;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::balance::FleetLedger;
use self::control::socket::ControlSocket;
use self::demo::Demo;
use self::fleet::Fleet;
use self::plan::{AGENTS, Plan};
use self::screen::Screen;
use self::watch::Watch;
use crate::stats::Role;

pub mod balance;
pub mod child;
pub mod control;
#[cfg(feature = "demo")]
pub mod demo;
#[cfg(not(feature = "demo"))]
#[path = "run/no_demo.rs"]
pub mod demo;
pub mod fleet;
pub mod keys;
pub mod plan;
pub mod poll;
pub mod screen;
pub mod table;
pub mod watch;

/// The port that SDKs send OTLP/gRPC to when they are not told another.
const GRPC: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4317);
/// The same for OTLP/HTTP.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4318);

/// Flags of `ringtail run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// The TracePipeline manifest.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Add a small shop that makes traces, and a backend that checks what arrives.
    #[cfg(feature = "demo")]
    #[arg(long)]
    pub demo: bool,
    /// Stop after this long. Default: run until Ctrl-C.
    #[arg(long, value_name = "DURATION", value_parser = ringtail_crds::parse_duration)]
    pub duration: Option<Duration>,
    /// Replaces `sampling.decisionWait`.
    #[arg(long, value_name = "DURATION", value_parser = ringtail_crds::parse_duration)]
    pub decision_wait: Option<Duration>,
    /// Replaces the endpoint of an exporter; may be repeated.
    #[arg(long = "export", value_name = "NAME=HOST:PORT")]
    pub exports: Vec<String>,
    /// Directory with the Secrets that exporters refer to, as files NAME/KEY.
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// Directory for queues on disk (`queue.persistent`), a directory in it for each gateway.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Memory for all processes together, e.g. 1Gi; each gets an equal share. Gateways that are added later
    /// get as much each.
    #[arg(long, value_name = "SIZE", value_parser = ringtail_crds::parse_size)]
    pub memory_limit: Option<u64>,
    /// Where the first agent takes OTLP/gRPC; the second does ten ports higher.
    #[arg(long, value_name = "ADDR", default_value_t = GRPC)]
    pub otlp_grpc: SocketAddr,
    /// Where the first agent takes OTLP/HTTP; the second does ten ports higher.
    #[arg(long, value_name = "ADDR", default_value_t = HTTP)]
    pub otlp_http: SocketAddr,
    /// Where `ringtail control` reaches this fleet. Default: a socket of its own in a directory that only
    /// you can enter.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Why a fleet could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The flags make no fleet.
    #[error("{0}")]
    Plan(io::Error),
    /// The operating system refused to tell of signals.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    /// A process was refused.
    #[error("{identity} could not be started: {source}")]
    Spawn {
        /// Which one.
        identity: String,
        /// Why.
        source: io::Error,
    },
    /// A process ended while the fleet was starting.
    #[error("{identity} did not start ({status}); its own words stand above. The fleet is stopped")]
    Ended {
        /// Which one.
        identity: String,
        /// How.
        status: String,
    },
    /// The fleet did not come up in time.
    #[error("{identity} did not report {what} within {after:?}. The fleet is stopped")]
    Overdue {
        /// Which one.
        identity: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// Nobody could be listened to.
    #[error("--socket: {0}")]
    Control(io::Error),
    /// The demo could not be set up.
    #[error("the demo could not be set up: {0}")]
    Demo(#[from] demo::DemoError),
}

/// Runs the manifest until Ctrl-C, SIGTERM or the end of `--duration`.
///
/// # Errors
/// When the fleet does not come up. What goes wrong later is told, and makes the exit code 1.
pub async fn run(options: RunOptions, pipeline: ValidPipeline) -> Result<ExitCode, RunError> {
    let mut screen = Screen::open();
    let mut stop = Stop::listen().map_err(RunError::Signals)?;
    let control = open_control(&options, &pipeline, &mut screen)?;
    let mut demo = Demo::open(&options, &pipeline).await?;
    let exports = options.exports.iter().cloned();
    let exports: Vec<String> = exports.chain(demo.iter().flat_map(Demo::exports)).collect();
    let plan = Plan::new(&options, &pipeline, &exports).map_err(RunError::Plan)?;

    if pipeline.guard != ReceiverGuard::default() {
        screen.say(
            "Note: a local fleet takes OTLP in the clear and without tokens, on loopback alone; \
             agent.receivers.otlp.tls and bearerTokenSecretRef are for clusters.\n",
        );
    }
    let mut fleet = Fleet::empty();
    let up = tokio::select! {
        up = fleet.start(&plan, &mut screen) => up.map(|()| true),
        () = stop.asked() => Ok(false),
    };
    if !matches!(up, Ok(true)) {
        fleet.kill(&mut screen).await;
        return up.map(|_| ExitCode::FAILURE);
    }
    welcome(&plan, &fleet, control.as_ref(), &mut screen);
    if let Some(demo) = &mut demo {
        screen.say(&demo.start_shop(&fleet, &plan, options.duration)?);
    }
    Watch::new(&plan, &mut fleet, &mut screen, demo.as_mut(), control)
        .run(&mut stop, options.duration)
        .await;
    tokio::select! {
        () = wind_down(&mut demo, &mut fleet, &mut screen) => {}
        () = stop.asked() => fleet.kill(&mut screen).await,
    }

    let ledger = FleetLedger::of(fleet.members());
    let satisfied = match demo {
        Some(demo) => demo.judge(&fleet, &ledger, &mut screen).await,
        None => true,
    };
    ledger.lines().iter().for_each(|line| screen.say(line));
    let fine = ledger.balances() && satisfied;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A fleet runs without commands too, unless somebody said where it is to take them.
fn open_control(
    options: &RunOptions,
    pipeline: &ValidPipeline,
    screen: &mut Screen,
) -> Result<Option<ControlSocket>, RunError> {
    let path = options.socket.as_deref();
    match ControlSocket::open(path, &pipeline.name) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if path.is_some() => Err(RunError::Control(error)),
        Err(error) => {
            screen.say(&format!("`ringtail control` cannot reach this fleet: {error}"));
            Ok(None)
        }
    }
}

fn welcome(plan: &Plan, fleet: &Fleet, control: Option<&ControlSocket>, screen: &mut Screen) {
    let (name, gateways) = (&plan.pipeline, plan.gateways);
    screen.say(&format!("{name}: {gateways} gateways and {AGENTS} agents are up"));
    // Agents first: theirs are the addresses that somebody wants to send to.
    for member in fleet.of(Role::Agent).chain(fleet.of(Role::Gateway)) {
        let Some(listening) = &member.listening else {
            continue;
        };
        let (name, grpc, admin) = (&member.identity, listening.otlp_grpc, listening.admin);
        let http = listening.otlp_http.map_or("no HTTP".to_owned(), |at| format!("HTTP {at}"));
        screen.say(&format!("  {name:<10}  OTLP gRPC {grpc}, {http}; http://{admin}/metrics"));
    }
    if let Some(control) = control {
        let socket = control.path().display();
        screen
            .say(&format!("  ringtail control add|drain|kill|freeze|thaw [GATEWAY], at {socket}"));
    }
}

/// Shop first, then agents, then gateways, so that nothing is sent to somebody who has left.
async fn wind_down(demo: &mut Option<Demo>, fleet: &mut Fleet, screen: &mut Screen) {
    screen.settle();
    screen.say("draining: agents first, then gateways; Ctrl-C again kills");
    if let Some(demo) = demo {
        demo.close_shop().await;
    }
    // The last figures of processes that are about to leave.
    fleet.poll().await;
    fleet.stop(screen).await;
}

/// Ctrl-C, SIGTERM, and what a terminal sends when it is closed or somebody loses patience: none of them may
/// leave it in a state that it was not found in.
#[derive(Debug)]
struct Stop {
    signals: [Signal; 4],
}

// === impl Stop ===

impl Stop {
    fn listen() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let [a, b, c, d] = kinds.map(signal);
        Ok(Self { signals: [a?, b?, c?, d?] })
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
