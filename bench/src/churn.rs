//! Fleets of real processes under load while gateways come, go, die and hang: which traces survive it.

mod api;
mod arrivals;
mod board;
mod contender;
mod directory;
mod dns;
mod fleet;
mod gigabyte;
mod load;
mod probe;
mod proxy;
mod report;
mod scenario;
mod trial;
mod verdict;

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::collector;
use crate::failure::{Doing, Failure, Result};
use crate::run::build_ringtail;
use crate::run::machine::Machine;
use contender::{Programs, Side};
use load::Load;
use scenario::Scenario;
use trial::Trial;

/// Memory of a gateway: far more than a load of some thousand spans a second needs.
const MEMORY_LIMIT: &str = "1Gi";

/// Puts fleets through churn and prints which traces were split, wrongly decided, lost or doubled.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only the scenarios with these names.
    #[arg(long = "only", value_name = "SCENARIO")]
    only: Vec<String>,
    /// Only these contenders: ringtail, collector.
    #[arg(long = "contender", value_name = "NAME")]
    contenders: Vec<String>,
    /// Rounds of Ringtail; the table shows the worst.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Rounds of the Collector.
    #[arg(long, default_value_t = 1)]
    collector_rounds: usize,
    /// Spans a second of a fleet.
    #[arg(long, default_value_t = 3000.0)]
    rate: f64,
    /// Seconds that gateways wait for a trace.
    #[arg(long, default_value_t = 12.0)]
    decision_wait: f64,
    /// Seconds from the first span of a trace to its last; at most 5 less than the decision wait, or spans
    /// that come just before a decision are not judged.
    #[arg(long, default_value_t = 7.0)]
    spread: f64,
    /// Fleets at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The `ringtail` binary; by default the one beside this one, built first when cargo runs this.
    #[arg(long)]
    ringtail: Option<PathBuf>,
    /// Where the report goes; by default `bench` in the target directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// One scenario for one side.
#[derive(Clone, Copy, Debug)]
struct Job {
    scenario: Scenario,
    side: Side,
    round: usize,
}

/// What has been found so far.
struct Findings {
    trials: Vec<Trial>,
    not_measured: Vec<String>,
    lines: std::fs::File,
}

/// Runs everything that was asked for.
pub fn run(options: Options) -> Result<()> {
    let jobs = options.jobs()?;
    let (programs, output) = options.programs(&jobs)?;
    let machine = Machine::describe(&programs.ringtail, programs.collector.as_deref().ok());
    let lines = output.join("churn.jsonl");
    let findings = Mutex::new(Findings {
        trials: Vec::new(),
        not_measured: Vec::new(),
        lines: std::fs::File::create(&lines).doing(|| format!("creating {}", lines.display()))?,
    });
    let queue = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(job) = next(&queue) {
                    options.play(job, &programs, &findings);
                }
            });
        }
    });
    let found = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    let settings = format!("{} {}", options.describe(), machine.sentence());
    let markdown = report::markdown(&found.trials, &found.not_measured, &settings);
    println!("{markdown}");
    let path = output.join("churn.md");
    std::fs::write(&path, markdown).doing(|| format!("writing {}", path.display()))?;
    eprintln!("kept in {}", output.display());
    judge(&found)
}

fn next(queue: &Mutex<VecDeque<Job>>) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Nothing of ours may be wrong, and everything must have been tried.
fn judge(found: &Findings) -> Result<()> {
    let ours = found.trials.iter().filter(|trial| trial.contender == Side::Ringtail.name());
    let wrong = ours.filter(|trial| !trial.faults().is_empty()).count();
    match (wrong, found.not_measured.is_empty()) {
        (0, true) => Ok(()),
        (0, false) => Err(Failure::new("not everything could be measured")),
        (wrong, _) => Err(Failure::new(format!("Ringtail broke its promises in {wrong} trials"))),
    }
}

// === impl Options ===

impl Options {
    /// The trials that were asked for, rounds one after the other, the long ones of a round first.
    fn jobs(&self) -> Result<VecDeque<Job>> {
        let names: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        if let Some(unknown) = self.only.iter().find(|only| !names.contains(&only.as_str())) {
            let names = names.join(", ");
            return Err(Failure::new(format!("no scenario {unknown}; there are: {names}")));
        }
        let chosen =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        let mut jobs = VecDeque::new();
        for round in 0..self.rounds.max(self.collector_rounds) {
            for scenario in Scenario::ALL.into_iter().filter(|s| chosen(&self.only, s.name())) {
                for side in scenario.contenders().iter().copied() {
                    let rounds = match side {
                        Side::Ringtail => self.rounds,
                        Side::Collector => self.collector_rounds,
                    };
                    if round < rounds && chosen(&self.contenders, side.name()) {
                        jobs.push_back(Job { scenario, side, round });
                    }
                }
            }
        }
        Ok(jobs)
    }

    /// Finds or builds the binaries, makes the directories.
    fn programs(&self, jobs: &VecDeque<Job>) -> Result<(Programs, PathBuf)> {
        let bench = std::env::current_exe().doing(|| "looking for this binary".into())?;
        let no_target = || Failure::new(format!("{} is in no target directory", bench.display()));
        let profile = bench.parent().ok_or_else(no_target)?;
        let target = profile.parent().ok_or_else(no_target)?;
        let ringtail = self.ringtail.clone().unwrap_or_else(|| profile.join("ringtail"));
        if self.ringtail.is_none() {
            build_ringtail(profile)?;
        }
        let foreign = |job: &Job| job.side == Side::Collector || job.scenario == Scenario::Foreign;
        let collector = match jobs.iter().any(foreign) {
            true => collector::build(target).map_err(|failure| failure.to_string()),
            false => Err("the Collector was not asked for".into()),
        };
        let output = self.output.clone().unwrap_or_else(|| target.join("bench"));
        let scratch = output.join("churn");
        std::fs::create_dir_all(&scratch).doing(|| format!("creating {}", scratch.display()))?;
        let seed_file = scratch.join("ring-seed");
        trial::write_seed(Path::new(&seed_file))?;
        let programs = Programs {
            ringtail,
            collector,
            scratch,
            seed_file,
            decision_wait: Duration::from_secs_f64(self.decision_wait),
            memory_limit: MEMORY_LIMIT,
            alone: false,
        };
        Ok((programs, output))
    }

    /// Plays one scenario and tells of it.
    fn play(&self, job: Job, programs: &Programs, findings: &Mutex<Findings>) {
        let Job { scenario, side, round } = job;
        let load = Load {
            rate: self.rate,
            spread: Duration::from_secs_f64(self.spread),
            seed: round as u64 + 1,
        };
        let played = match scenario {
            Scenario::Gigabyte => gigabyte::run(round, programs),
            _ => trial::run(scenario, side, round, programs, load),
        };
        let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
        match played {
            Ok(trial) => findings.note(trial),
            Err(failure) => {
                let reason = format!("{} of {}: {failure}", scenario.name(), side.name());
                eprintln!("{reason}");
                if !findings.not_measured.contains(&reason) {
                    findings.not_measured.push(reason);
                }
            }
        }
    }

    fn describe(&self) -> String {
        format!(
            "{} spans a second to a fleet, 8 spans a trace over {} s and all agents in turn, decisions \
             after {} s; half of the traces have an ERROR, in their first span or in their last, and are to \
             be kept. Rows show the worst of their rounds; {} fleets at a time.",
            self.rate, self.spread, self.decision_wait, self.jobs
        )
    }
}

impl Findings {
    fn note(&mut self, trial: Trial) {
        let verdict = &trial.verdict;
        let faults = trial.faults();
        let told = if faults.is_empty() { "fine".to_owned() } else { faults.join(", ") };
        eprintln!(
            "{:<13} {:<10} round {}: {} traces, {} split, {} wrong, {} lost, {:.2} % doubled, rest {:?}, \
             late {:.2}/{:.2}/{:.1} s: {told}",
            trial.scenario,
            trial.contender,
            trial.round,
            verdict.traces,
            verdict.split,
            verdict.wrong,
            verdict.lost_spans,
            verdict.doubled_percent,
            trial.rest_seconds,
            verdict.delay_p50,
            verdict.delay_p99,
            verdict.delay_max,
        );
        let line = serde_json::to_string(&trial).unwrap_or_default();
        if let Err(error) = writeln!(self.lines, "{line}") {
            eprintln!("a line of the report could not be kept: {error}");
        }
        self.trials.push(trial);
    }
}
