//! One contender carries one load once: start, warm up, sample, load, drain, sample, check.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::case::{Case, Contender, Measure, Tier, UPSTREAMS};
use super::contender::{Start, start};
use super::process::Process;
use super::usage::Memory;
use crate::failure::{Failure, Result};
use crate::truth::{Policies, SPANS, World};

/// The seed of every load.
const SEED: u64 = 1;

/// How long a child may take to answer, to drain, to end.
const PATIENCE: Duration = Duration::from_secs(30);
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions to the sink whether everything has arrived.
const POLL: Duration = Duration::from_millis(100);

/// With nothing arriving for this long, what has not come is missing.
const QUIET: Duration = Duration::from_secs(5);

/// Requests in flight and connections of every load.
const IN_FLIGHT: usize = 16;
const CONNECTIONS: usize = 4;

/// Blocks between the fragments of a trace.
const LAG: u64 = 4;

/// How long gateways wait in a speed case, and in a memory case, where nothing may be decided meanwhile.
const WAIT_S: u64 = 3;
const MEMORY_WAIT_S: u64 = 300;

/// A gateway's measured load ends at this many traces, so that 2 million spans are held at most.
const GATEWAY_TRACES_MAX: u64 = 250_000;

/// Before memory is weighed, what is in flight settles.
const SETTLE: Duration = Duration::from_secs(2);

/// What every trial of a run shares.
pub(super) struct Bench {
    /// This binary: load, sink and relay.
    pub(super) bench: PathBuf,
    pub(super) ringtail: PathBuf,
    /// Why there is no Collector, if there is none.
    pub(super) collector: std::result::Result<PathBuf, String>,
    /// Manifests, configurations and logs.
    pub(super) scratch: PathBuf,
    pub(super) seconds: f64,
    pub(super) warmup: f64,
    /// Spans held in a memory case: by Ringtail, by the Collector.
    pub(super) held: (u64, u64),
}

/// What a trial found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trial {
    pub(super) case: &'static str,
    pub(super) contender: &'static str,
    pub(super) settings: String,
    pub(super) round: usize,
    /// Spans of the measured load.
    pub(super) spans: u64,
    pub(super) cpu_seconds: f64,
    pub(super) spans_per_cpu_second: f64,
    pub(super) wall_seconds: f64,
    pub(super) idle_bytes: u64,
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
    /// Resident bytes above idle, a span held; memory cases only.
    pub(super) bytes_per_span: Option<f64>,
    /// The same in relation to the bytes on the wire.
    pub(super) wire_factor: Option<f64>,
    /// Bytes sent on for each byte that came in: as sent, and before compression. Agents only.
    pub(super) bytes_out_in: Option<(f64, f64)>,
    /// Every span was where it should be, once, with its bytes; None if the load repeats itself.
    pub(super) right: Option<bool>,
    /// Spans that arrived with other bytes, though they say the same.
    pub(super) rewritten: Option<u64>,
    /// What the product says of its own ledger.
    pub(super) balanced: Option<bool>,
    pub(super) loads: Vec<Value>,
    pub(super) sink: Value,
    pub(super) ledger: Option<Value>,
}

/// A trial under way.
struct Stage<'a> {
    bench: &'a Bench,
    case: &'a Case,
    contender: Contender,
    name: String,
    sink: Process,
    tested: Process,
    entry: SocketAddr,
    /// First trace that no load has used.
    next: u64,
    /// Spans that the sink must have seen so far.
    expected: u64,
    loads: Vec<Value>,
}

impl Trial {
    /// What is wrong with it, if anything is: the product must also leave every byte as it was.
    pub(super) fn fault(&self) -> Option<String> {
        match (self.right, self.rewritten, self.balanced) {
            (Some(false), _, _) => Some(format!("WRONG: {}", self.sink["check"])),
            (_, Some(1..), _) if self.contender == "ringtail" => {
                Some("spans were rewritten".into())
            }
            (_, _, Some(false)) => Some("the ledger does not balance".into()),
            _ => None,
        }
    }
}

impl Bench {
    /// Runs one trial.
    pub(super) fn trial(&self, case: &Case, contender: Contender, round: usize) -> Result<Trial> {
        let mut stage = Stage::set(self, case, contender, round)?;
        let idle = stage.tested.memory()?;
        let found = match case.measure {
            Measure::Speed => stage.speed(),
            Measure::Memory => stage.memory(),
        }?;
        stage.strike(round, idle, found)
    }

    fn tool(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.bench);
        command.arg(subcommand);
        command
    }
}

/// What was measured while the load ran.
struct Found {
    load: Value,
    cpu_seconds: f64,
    memory: Memory,
}

// === impl Stage ===

impl<'a> Stage<'a> {
    fn set(bench: &'a Bench, case: &'a Case, contender: Contender, round: usize) -> Result<Self> {
        let name = format!("{}-{}-{round}", case.name, contender.name());
        let mut command = bench.tool("sink");
        let ports = if case.tier == Tier::Agent { UPSTREAMS } else { 1 };
        command.args(std::iter::repeat_n(["--listen", "127.0.0.1:0"], ports).flatten());
        if case.is_checked() {
            command.args(["--check", "--seed", &SEED.to_string()]);
        }
        if policies(case, contender) == Policies::THREE {
            command.args(["--errors", "--slower-than-ms", "500", "--percent", "10"]);
        }
        let mut sink = Process::spawn(&format!("{name}-sink"), &mut command, &bench.scratch)?;
        let listening = sink.answer(PATIENCE)?;
        let upstreams = addresses(&listening["listening"])?;
        let wait_s = if case.measure == Measure::Memory { MEMORY_WAIT_S } else { WAIT_S };
        let (tested, entry) = start(&Start {
            bench,
            name: &name,
            tier: case.tier,
            contender,
            upstreams,
            decision_wait_s: wait_s,
            extra: case.extra,
        })?;
        let loads = Vec::new();
        Ok(Self { bench, case, contender, name, sink, tested, entry, next: 0, expected: 0, loads })
    }

    /// CPU of a load from its first span to the arrival of its last, after a warm-up that has drained.
    fn speed(&mut self) -> Result<Found> {
        let limit = (self.case.tier == Tier::Gateway).then_some(GATEWAY_TRACES_MAX);
        self.load(Some(self.bench.warmup), limit)?;
        self.drain()?;
        let before = self.tested.cpu()?;
        let load = self.load(Some(self.bench.seconds), limit)?;
        self.drain()?;
        let cpu_seconds = self.tested.cpu()?.seconds_since(&before);
        Ok(Found { load, cpu_seconds, memory: self.tested.memory()? })
    }

    /// Resident memory with a load held, of which nothing is decided yet.
    fn memory(&mut self) -> Result<Found> {
        let (ours, theirs) = self.bench.held;
        let spans = match self.contender {
            Contender::Collector { .. } => theirs,
            Contender::Relay | Contender::Ringtail { .. } => ours,
        };
        let before = self.tested.cpu()?;
        let load = self.load(None, Some(spans / SPANS as u64))?;
        std::thread::sleep(SETTLE);
        let cpu_seconds = self.tested.cpu()?.seconds_since(&before);
        Ok(Found { load, cpu_seconds, memory: self.tested.memory()? })
    }

    /// Sends a load of new traces and returns the generator's summary.
    fn load(&mut self, seconds: Option<f64>, traces: Option<u64>) -> Result<Value> {
        let mut command = self.bench.tool("generate");
        let mut option = |name: &str, value: String| {
            command.args([format!("--{name}"), value]);
        };
        option("target", self.entry.to_string());
        option("spans", self.case.spans_per_request.to_string());
        option("fragments", self.case.fragments.to_string());
        option("lag", LAG.to_string());
        option("in-flight", IN_FLIGHT.to_string());
        option("connections", CONNECTIONS.to_string());
        option("seed", SEED.to_string());
        option("first", self.next.to_string());
        let optional = [
            ("seconds", seconds.map(|seconds| seconds.to_string())),
            ("traces", traces.map(|traces| traces.to_string())),
            ("gzip", self.case.gzip.map(|level| level.to_string())),
        ];
        for (name, value) in optional.into_iter().filter_map(|(n, v)| v.map(|v| (n, v))) {
            option(name, value);
        }
        let name = format!("{}-load{}", self.name, self.loads.len());
        let mut generator = Process::spawn(&name, &mut command, &self.bench.scratch)?;
        let patience = Duration::from_secs_f64(seconds.unwrap_or(0.0)) + DRAIN_PATIENCE;
        let load = generator.answer(patience)?;
        self.note(&load)?;
        Ok(load)
    }

    /// Works out what the load must do at the sink.
    fn note(&mut self, load: &Value) -> Result<()> {
        if load["failed"]["requests"] != 0 || load["rejectedSpans"] != 0 {
            return Err(Failure::new(format!("{} did not take its load: {load}", self.name)));
        }
        let end = number(&load["traces"]["end"])? as u64;
        if self.case.is_checked() {
            self.sink.ask(&format!("expect {}..{end}", self.next), PATIENCE)?;
        }
        self.expected += match policies(self.case, self.contender) {
            Policies { everything: true, .. } => number(&load["taken"]["spans"])? as u64,
            policies => {
                let world = World::new(SEED);
                let kept = (self.next..end).filter(|index| world.trace(*index).kept_by(&policies));
                kept.count() as u64 * SPANS as u64
            }
        };
        self.next = end;
        self.loads.push(load.clone());
        Ok(())
    }

    /// Waits until the sink has all that it must get, or nothing more comes.
    fn drain(&mut self) -> Result<()> {
        let (mut seen, mut changed) = (0, Instant::now());
        let quiet = QUIET + Duration::from_secs(WAIT_S);
        while seen < self.expected && changed.elapsed() < quiet {
            std::thread::sleep(POLL);
            let spans = number(&self.sink.ask("count", PATIENCE)?["spans"])? as u64;
            if spans != seen {
                (seen, changed) = (spans, Instant::now());
            }
        }
        Ok(())
    }

    /// Ends everything and puts the result together.
    fn strike(mut self, round: usize, idle: Memory, found: Found) -> Result<Trial> {
        let (last_words, _) = self.tested.terminate(DRAIN_PATIENCE)?;
        let ledger = last_words.iter().find_map(|line| line.get("ledger")).cloned();
        let (reports, _) = self.sink.terminate(PATIENCE)?;
        let missing = || Failure::new(format!("the sink of {} ended without a report", self.name));
        let sink = reports.into_iter().next_back().ok_or_else(missing)?;
        let spans = number(&found.load["taken"]["spans"])?;
        let payload = number(&found.load["payloadBytes"])?;
        let held = found.memory.resident.saturating_sub(idle.resident) as f64;
        let weighed = self.case.measure == Measure::Memory;
        Ok(Trial {
            case: self.case.name,
            contender: self.contender.name(),
            settings: self.contender.settings(),
            round,
            spans: spans as u64,
            cpu_seconds: found.cpu_seconds,
            spans_per_cpu_second: spans / found.cpu_seconds,
            wall_seconds: number(&found.load["seconds"])?,
            idle_bytes: idle.resident,
            resident_bytes: found.memory.resident,
            peak_bytes: found.memory.peak,
            bytes_per_span: weighed.then_some(held / spans),
            wire_factor: weighed.then_some(held / payload),
            bytes_out_in: self.bytes_out_in(&sink)?,
            right: sink["check"]["right"].as_bool(),
            rewritten: sink["check"]["rewrittenSpans"].as_u64(),
            balanced: ledger.as_ref().and_then(|ledger| ledger["balanced"].as_bool()),
            loads: self.loads.clone(),
            sink,
            ledger,
        })
    }

    fn bytes_out_in(&self, sink: &Value) -> Result<Option<(f64, f64)>> {
        if self.case.tier == Tier::Gateway {
            return Ok(None);
        }
        let ratio = |key: &str| -> Result<f64> {
            let sent = self.loads.iter().map(|load| number(&load[key])).sum::<Result<f64>>()?;
            Ok(number(&sink[key])? / sent)
        };
        Ok(Some((ratio("wireBytes")?, ratio("payloadBytes")?)))
    }
}

/// What the sink must see: a relay forwards everything, whatever the tier.
fn policies(case: &Case, contender: Contender) -> Policies {
    match (case.tier, contender) {
        (Tier::Agent, _) | (_, Contender::Relay) => Policies::EVERYTHING,
        (Tier::Gateway, _) => Policies::THREE,
    }
}

fn addresses(listening: &Value) -> Result<Vec<SocketAddr>> {
    let addresses: Option<Vec<SocketAddr>> = listening.as_array().and_then(|addresses| {
        addresses.iter().map(|address| address.as_str()?.parse().ok()).collect()
    });
    addresses.ok_or_else(|| Failure::new(format!("{listening} are no addresses")))
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().ok_or_else(|| Failure::new(format!("{value} is no number")))
}
