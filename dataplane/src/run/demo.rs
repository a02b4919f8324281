//! `--demo`: a shop that makes traces, a backend that takes the kept ones, and the comparison of the two.
//!
//! The shop knows what it sent, the backend what arrived; nothing between them is asked for its opinion.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use ringtail_crds::ValidPipeline;
use ringtail_crds::resolved::Destination;
use ringtail_engine::policy::{self, Policy, Program};
use tokio::time::Instant;

use self::churn::Script;
use self::report::Report;
use self::shop::Shop;
use self::sink::Sink;
use self::truth::Watching;
use super::RunOptions;
use super::balance::FleetLedger;
use super::control::Command;
use super::fleet::{Fleet, Member};
use super::plan::Plan;
use super::screen::Screen;
use super::table::{Truth, number};
use crate::stats::Role;

pub mod churn;
pub mod journey;
pub mod menu;
pub mod report;
pub mod service;
pub mod shop;
pub mod sink;
pub mod truth;

/// Where one agent listens.
#[derive(Clone, Copy, Debug)]
pub struct AgentAddress {
    /// OTLP/gRPC.
    pub grpc: SocketAddr,
    /// OTLP/HTTP.
    pub http: SocketAddr,
}

/// Why the demo could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The backend found no port.
    #[error("the backend could not listen: {0}")]
    Listen(std::io::Error),
    /// The manifest's policies did not compile, although it was found valid.
    #[error("the policies do not compile: {0}")]
    Policies(String),
    /// An exporter of the SDK could not be built.
    #[error("an exporter of the OpenTelemetry SDK could not be built: {0}")]
    Exporter(String),
    /// There would be no time for a trace.
    #[error(
        "--duration must be at least {least:?} with --demo: some time for traces, and {wait:?} until \
         the last of them is decided"
    )]
    TooShort {
        /// What would do.
        least: Duration,
        /// The decision wait.
        wait: Duration,
    },
    /// An agent has no OTLP/HTTP port.
    #[error("{0} does not serve both OTLP protocols")]
    Agent(String),
}

/// The shop and the backend.
#[derive(Debug)]
pub struct Demo {
    /// A backend for each exporter that the flags do not send elsewhere, by its name.
    sinks: Vec<(String, Sink)>,
    shop: Option<Shop>,
    policies: Vec<Policy>,
    script: Option<Script>,
    watching: Watching,
}

// === impl Demo ===

impl Demo {
    /// Opens the backend, when the flags ask for a demo.
    pub async fn open(
        options: &RunOptions,
        pipeline: &ValidPipeline,
    ) -> Result<Option<Self>, DemoError> {
        if !options.demo {
            return Ok(None);
        }
        let wait = options.decision_wait.unwrap_or(pipeline.decision_wait);
        let least = wait + shop::SETTLE + shop::OPEN_LEAST;
        if options.duration.is_some_and(|duration| duration < least) {
            return Err(DemoError::TooShort { least, wait });
        }
        let elsewhere: HashSet<&str> =
            options.exports.iter().filter_map(|export| export.split('=').next()).collect();
        let mut sinks = Vec::new();
        for exporter in &pipeline.exporters {
            let name = exporter.name.as_str();
            // What is printed or written to a file has no endpoint to replace.
            let is_otlp = matches!(exporter.destination, Destination::Otlp(_));
            if is_otlp && !elsewhere.contains(name) {
                let sink = Sink::open(compile(&pipeline.policies)?).await?;
                sinks.push((name.to_owned(), sink));
            }
        }
        let policies = pipeline.policies.clone();
        let watching = Watching::default();
        Ok(Some(Self { sinks, shop: None, policies, script: None, watching }))
    }

    /// What turns the fleet's exporters to the backend, as values of `--export`.
    pub fn exports(&self) -> impl Iterator<Item = String> {
        self.sinks.iter().map(|(name, sink)| format!("{name}=grpc://{}", sink.address()))
    }

    /// Lets the customers in, and sends them home early enough that the last traces are decided within
    /// `duration`. Says so in a line.
    pub fn start_shop(
        &mut self,
        fleet: &Fleet,
        plan: &Plan,
        duration: Option<Duration>,
    ) -> Result<String, DemoError> {
        let mut agents = Vec::new();
        for member in fleet.of(Role::Agent) {
            let listening = member.listening.as_ref();
            let address = listening
                .and_then(|at| Some(AgentAddress { grpc: at.otlp_grpc, http: at.otlp_http? }));
            agents.push(address.ok_or_else(|| DemoError::Agent(member.identity.clone()))?);
        }
        let open = duration.map(|all| all.saturating_sub(plan.decision_wait + shop::SETTLE));
        let now = Instant::now();
        self.shop = Some(Shop::open(&agents, open.map(|open| now + open))?);
        let script = Script::new(now, open);
        let until = open.map_or("Ctrl-C".to_owned(), |open| format!("{open:.0?} from now"));
        let churn =
            if script.is_empty() { "" } else { "; a gateway comes, one leaves, one is killed" };
        self.script = Some(script);
        Ok(format!("the shop sends {} traces a second until {until}{churn}", shop::TRACES_A_SECOND))
    }

    /// When something is to be done to the fleet.
    pub fn next_step(&self) -> Option<Instant> {
        self.script.as_ref()?.due()
    }

    /// What that is.
    pub fn take_step(&mut self) -> Option<Command> {
        self.script.as_mut()?.take()
    }

    /// How many traces have arrived whole, and how many in part; by the first backend.
    pub fn truth(&mut self) -> Option<Truth> {
        let (_, sink) = self.sinks.first()?;
        let shop = self.shop.as_ref()?;
        Some(self.watching.look(&shop.sent(), &sink.arrivals(), Instant::now()))
    }

    /// Sends the customers home and flushes the SDKs.
    pub async fn close_shop(&mut self) {
        if let Some(shop) = &mut self.shop {
            shop.close().await;
        }
    }

    /// Compares what was sent with what arrived; false when a promise was broken.
    pub async fn judge(self, fleet: &Fleet, ledger: &FleetLedger, screen: &mut Screen) -> bool {
        let Some(shop) = self.shop.map(Shop::into_closed) else {
            screen.say("WRONG: the demo ended before the shop could open");
            return false;
        };
        let mut satisfied = true;
        // Decisions of one that was killed are made again, and what it had just exported may come twice.
        let repeats = fleet.members().iter().any(|member| member.was_killed() || member.was_frozen);
        for (name, sink) in self.sinks {
            let Some(arrivals) = sink.close().await else {
                screen.say(&format!("WRONG: the backend of exporter {name} broke down"));
                return false;
            };
            let mut report = Report::compare(&shop, &arrivals, &self.policies, repeats);
            if let Some(counted) = kept_by_gateways(fleet.members()).filter(|_| !repeats) {
                report.compare_counts(&counted);
            }
            report.lines().iter().for_each(|line| screen.say(line));
            let said = ledger.gateways.exporters.get(&name).map_or(0, |exporter| exporter.sent);
            let arrived = arrivals.spans();
            // Who was killed has sent something, too, and who was frozen may not have heard of it.
            let agree = said == arrived || repeats && said < arrived;
            if !agree {
                let (said, arrived) = (number(said), number(arrived));
                screen.say(&format!("WRONG: exporter {name} sent {said} spans, {arrived} arrived"));
            }
            satisfied &= report.satisfied() && agree;
        }
        satisfied
    }
}

/// What the gateways counted as kept, by policy; nothing while some decision was still to come.
fn kept_by_gateways(members: &[Member]) -> Option<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    for member in members {
        let stats = member.stats.as_ref().filter(|stats| stats.held.spans == 0)?;
        for policy in stats.policies.iter().filter(|policy| policy.kept > 0) {
            *counted.entry(policy.name.clone()).or_default() += policy.kept;
        }
    }
    Some(counted)
}

fn compile(policies: &[Policy]) -> Result<Program, DemoError> {
    policy::compile(policies).map_err(|problems| {
        let problems: Vec<String> =
            problems.iter().map(|problem| problem.message.clone()).collect();
        DemoError::Policies(problems.join("; "))
    })
}
