//! A fleet under steady load, and what can be done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtail_engine::ownership::timers::COLD;
use serde::Serialize;
use serde_json::Value;

use super::board::Board;
use super::contender::{self, Programs, Side, Started};
use super::directory::{Entry, Standing};
use super::load::Load;
use super::probe::{Moved, Probe, Sample};
use super::proxy::Way;
use crate::failure::{Failure, Result};
use crate::generate::{self, journal::Journal};
use crate::local;
use crate::run::process::Process;
use crate::truth::World;

mod rest; // waiting until a fleet has come to rest, and its end

/// How long a process that was told to stop may take: Kubernetes kills after 30 s by default.
const EXIT_PATIENCE: Duration = Duration::from_secs(40);
/// Until a list no longer has a gateway that was killed: a kubelet looks at its containers every second.
const NOTICED_AFTER: Duration = Duration::from_secs(1);
/// A fleet that has just begun waits for agents that may not have heard of it yet. No gateway joins later
/// than two seconds after the clock of the fleet has started.
const OLD_AFTER: Duration = Duration::from_millis(COLD + 2_000);
/// Numbers of agents' addresses start here, those of gateways at 1.
const AGENT_NUMBERS: u8 = 200;

/// A change of who is in the ring.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) at: Instant,
    pub(super) before: BTreeSet<String>,
    pub(super) after: BTreeSet<String>,
}

/// How a process ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ended {
    pub(super) name: String,
    /// `None` from a Collector, and from who was killed.
    pub(super) ledger: Option<Value>,
    /// From SIGTERM on.
    pub(super) seconds: f64,
    /// What it counted last.
    pub(super) events: BTreeMap<String, u64>,
}

/// What an agent keeps to send it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retained {
    pub(super) bytes: u64,
    pub(super) spans: u64,
}

/// Who the fleet is made of.
#[derive(Clone, Debug)]
pub(super) struct Crew {
    pub(super) gateways: usize,
    pub(super) gateway_side: Side,
    /// One agent each.
    pub(super) agents: Vec<Side>,
    /// The load also goes to the first gateway, past all agents: an SDK that was told so.
    pub(super) direct: bool,
    /// Gateways reach each other through ways that can be closed. A dead one does not refuse connections
    /// there, it ends them.
    pub(super) ways: bool,
}

/// A running process.
struct Member {
    process: Process,
    probe: Probe,
    side: Side,
    otlp: std::net::SocketAddr,
    since: Instant,
}

/// See the module.
pub(super) struct Fleet {
    /// What its log files are called.
    name: String,
    programs: Programs,
    crew: Crew,
    pub(super) load: Load,
    pub(super) world: World,
    pub(super) board: Board,
    gateways: BTreeMap<String, Member>,
    leaving: BTreeMap<String, Member>,
    agents: BTreeMap<String, Member>,
    /// Of addresses: a gateway that comes back has the one that it had.
    numbers: BTreeMap<String, u8>,
    starts: usize,
    expected: BTreeSet<String>,
    pub(super) steps: Vec<Step>,
    pub(super) ended: Vec<Ended>,
    /// Seconds from each step that was waited for until the fleet had come to rest.
    pub(super) rests: Vec<Option<f64>>,
    /// What those had moved that are gone.
    moved_before: Moved,
    pub(super) journal: Arc<Journal>,
    sender: Option<JoinHandle<Result<Value>>>,
    pub(super) retained: Vec<Retained>,
    /// Traces that agents let go before their time.
    pub(super) unprotected: u64,
}

// === Begin ===

impl Fleet {
    /// Starts gateways and agents, and waits until they agree.
    pub(super) fn start(name: &str, programs: Programs, crew: Crew, load: Load) -> Result<Self> {
        let world = World::of_ends(load.seed);
        let collectors = crew.agents.contains(&Side::Collector);
        let mut fleet = Self {
            name: name.to_owned(),
            board: Board::start(world, collectors)?,
            programs,
            load,
            world,
            gateways: BTreeMap::new(),
            leaving: BTreeMap::new(),
            agents: BTreeMap::new(),
            numbers: BTreeMap::new(),
            starts: 0,
            expected: BTreeSet::new(),
            steps: Vec::new(),
            ended: Vec::new(),
            rests: Vec::new(),
            moved_before: Moved::default(),
            journal: Arc::default(),
            sender: None,
            retained: Vec::new(),
            unprotected: 0,
            crew,
        };
        let gateways: Vec<String> = (0..fleet.crew.gateways).map(|i| format!("gw-{i}")).collect();
        if fleet.crew.ways {
            fleet.lay_ways(&gateways)?;
        }
        fleet.begin(&gateways)?;
        for (index, side) in fleet.crew.agents.clone().into_iter().enumerate() {
            let name = format!("agent-{index}");
            let number = AGENT_NUMBERS + index as u8;
            let log = fleet.log(&name);
            let started = fleet.programs.agent(side, &fleet.board, (&name, number), &log)?;
            fleet.agents.insert(name, Member::new(started, side));
        }
        fleet.rest()?;
        if fleet.crew.gateway_side == Side::Ringtail {
            fleet.carry_on(OLD_AFTER.saturating_sub(fleet.board.epoch.elapsed()));
        }
        fleet.steps.clear();
        fleet.rests.clear();
        fleet.send()?;
        Ok(fleet)
    }

    fn lay_ways(&mut self, gateways: &[String]) -> Result<()> {
        for from in gateways {
            for to in gateways.iter().filter(|to| *to != from) {
                let number = self.number(to);
                let target = self.board.gateway(number);
                let way = Way { from: from.clone(), to: to.clone(), target };
                let address = self.board.open_way(way)?;
                self.board.directory.detour(from, to, address);
            }
        }
        Ok(())
    }

    /// Starts the load.
    fn send(&mut self) -> Result<()> {
        let mut targets: Vec<_> = self.agents.values().map(|agent| agent.otlp).collect();
        if self.crew.direct {
            targets.extend(self.gateways.values().next().map(|gateway| gateway.otlp));
        }
        let (options, world) = (self.load.options(targets), self.world);
        let journal = Arc::clone(&self.journal);
        let load = move || local::run(generate::send(options, world, Some(journal)));
        self.sender = Some(std::thread::spawn(load));
        Ok(())
    }

    fn number(&mut self, gateway: &str) -> u8 {
        let next = self.numbers.len() as u8 + 1;
        *self.numbers.entry(gateway.to_owned()).or_insert(next)
    }

    /// A name for the files of the next process.
    fn log(&mut self, process: &str) -> String {
        self.starts += 1;
        format!("{}-{process}-{}", self.name, self.starts)
    }
}

// === What can be done to it ===

impl Fleet {
    /// Starts gateways and lists them.
    pub(super) fn begin(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            let (number, log) = (self.number(name), self.log(name));
            let side = self.crew.gateway_side;
            let started = self.programs.gateway(side, &self.board, (name, number), &log)?;
            self.gateways.insert(name.clone(), Member::new(started, side));
        }
        let after = self.expected.iter().chain(names).cloned().collect();
        self.step(after);
        names.iter().for_each(|name| self.list(name, Standing::Ready));
        Ok(())
    }

    /// Sends SIGTERM to gateways, at once; the list says that they are on their way out.
    pub(super) fn tell_to_stop(&mut self, names: &[String]) -> Result<()> {
        self.step(self.expected.iter().filter(|name| !names.contains(name)).cloned().collect());
        for name in names {
            self.list(name, Standing::Terminating);
            let mut member = self.take(name)?;
            member.process.signal("TERM")?;
            member.since = Instant::now();
            self.leaving.insert(name.clone(), member);
        }
        Ok(())
    }

    /// Waits until everybody who was told to stop has ended; then they are no longer listed.
    pub(super) fn await_exits(&mut self) -> Result<()> {
        while let Some((name, mut member)) = self.leaving.pop_first() {
            let (last_words, _) = member.process.finish(EXIT_PATIENCE)?;
            self.moved_before += member.moved();
            let seconds = member.since.elapsed().as_secs_f64();
            self.board.directory.remove(&name);
            let (ledger, events) = (contender::ledger(&last_words), member.events());
            self.ended.push(Ended { name, ledger, seconds, events });
        }
        Ok(())
    }

    /// Sends SIGKILL to a gateway; a little later it is listed no longer.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        self.strike_down(name)?;
        self.board.directory.remove(name);
        Ok(())
    }

    /// Sends SIGKILL to a gateway that will be started again; a little later it is listed as not ready.
    pub(super) fn crash(&mut self, name: &str) -> Result<()> {
        self.strike_down(name)?;
        self.list(name, Standing::NotReady);
        Ok(())
    }

    fn strike_down(&mut self, name: &str) -> Result<()> {
        self.note_retained();
        self.step(self.expected.iter().filter(|other| *other != name).cloned().collect());
        let mut member = self.take(name)?;
        self.moved_before += member.moved();
        member.process.signal("KILL")?;
        member.process.finish(EXIT_PATIENCE)?;
        std::thread::sleep(NOTICED_AFTER);
        let (name, events) = (name.to_owned(), member.events());
        self.ended.push(Ended { name, ledger: None, seconds: 0.0, events });
        Ok(())
    }

    /// Stops a gateway where it stands.
    pub(super) fn freeze(&mut self, name: &str) -> Result<()> {
        let member = self.gateways.get(name).ok_or_else(|| unknown(name))?;
        member.process.signal("STOP")?;
        self.step(self.expected.iter().filter(|other| *other != name).cloned().collect());
        Ok(())
    }

    /// Lets a gateway go on.
    pub(super) fn thaw(&mut self, name: &str) -> Result<()> {
        let member = self.gateways.get(name).ok_or_else(|| unknown(name))?;
        member.process.signal("CONT")?;
        let name = name.to_owned();
        self.step(self.expected.iter().chain([&name]).cloned().collect());
        Ok(())
    }

    /// How a gateway is listed.
    pub(super) fn list(&mut self, name: &str, standing: Standing) {
        let number = self.number(name);
        let address = self.board.gateway(number);
        self.board.directory.put(name, Entry { address, standing });
    }

    /// Opens or closes the way from one gateway to another.
    pub(super) fn open_way(&mut self, from: &str, to: &str, open: bool) {
        self.board.gates.set(from, to, open);
        self.step(self.expected.clone());
    }

    /// Lets the load go on for a while.
    pub(super) fn carry_on(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn step(&mut self, after: BTreeSet<String>) {
        let before = std::mem::replace(&mut self.expected, after.clone());
        self.steps.push(Step { at: Instant::now(), before, after });
    }

    fn take(&mut self, name: &str) -> Result<Member> {
        self.gateways.remove(name).ok_or_else(|| unknown(name))
    }

    fn note_retained(&mut self) {
        let keeps = self.programs.retained_for();
        let now = Instant::now();
        let taken = self.journal.taken();
        let targets = self.agents.len() + usize::from(self.crew.direct);
        for (index, agent) in self.agents.values().enumerate() {
            let lies = |taken: &&generate::journal::Taken| {
                taken.step.target == index % targets && taken.at + keeps > now
            };
            let requests = taken.iter().filter(lies).count() as u64;
            let Some(sample) = agent.probe.latest().filter(|sample| sample.retained_bytes > 0)
            else {
                continue;
            };
            let spans = requests * self.load.traces_per_block();
            self.retained.push(Retained { bytes: sample.retained_bytes, spans });
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("there is no gateway {name}"))
}

// === impl Member ===

impl Member {
    fn new(started: Started, side: Side) -> Self {
        let Started { process, otlp, admin } = started;
        Self { process, probe: Probe::start(admin), side, otlp, since: Instant::now() }
    }

    fn latest(&self) -> Option<Sample> {
        self.probe.latest()
    }

    fn events(&self) -> BTreeMap<String, u64> {
        self.latest().map(|sample| sample.events).unwrap_or_default()
    }

    fn moved(&self) -> Moved {
        self.latest().map(|sample| sample.moved).unwrap_or_default()
    }
}
