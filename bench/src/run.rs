//! Runs the contenders one after the other, round by round, and prints what that says about them.

mod case;
mod contender;
pub(crate) mod machine;
mod manifest;
mod otelcol;
pub(crate) mod process;
mod report;
mod trial;
mod usage;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::collector;
use crate::failure::{Doing, Failure, Result};
use case::{Case, Contender};
use machine::Machine;
use report::Report;
use trial::{Bench, Trial};

/// Measures Ringtail, the raw limit and the OpenTelemetry Collector side by side, interleaved, on loopback.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds: each runs every contender of a case once; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load that are measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before that.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// One short round: shows that everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Only the cases with these names.
    #[arg(long = "only", value_name = "CASE")]
    only: Vec<String>,
    /// Only these contenders: relay, ringtail, collector.
    #[arg(long = "contender", value_name = "NAME")]
    contenders: Vec<String>,
    /// The `ringtail` binary; by default the one beside this one, built first when cargo runs this.
    #[arg(long)]
    ringtail: Option<PathBuf>,
}

/// Spans held in memory cases, by Ringtail and by the Collector (about 2 GiB at its 5 KB a span).
const HELD: (u64, u64) = (2_000_000, 400_000);
const HELD_QUICK: (u64, u64) = (200_000, 40_000);

/// Runs everything that was asked for.
pub fn run(options: Options) -> Result<()> {
    let options = options.resolve();
    let cases = options.cases()?;
    let (bench, output) = options.bench(&cases)?;
    let machine = Machine::describe(&bench.ringtail, bench.collector.as_deref().ok());
    let (trials, not_measured) = options.trials(&bench, &cases);
    let settings = options.describe();
    let report = Report {
        machine: &machine,
        settings: &settings,
        trials: &trials,
        not_measured: &not_measured,
    };
    let markdown = report.markdown(&cases);
    println!("{markdown}");
    keep(&output, &markdown, &report)?;
    if trials.iter().any(|trial| trial.contender == "ringtail" && trial.fault().is_some()) {
        return Err(Failure::new("Ringtail lost, doubled, altered or wrongly decided spans"));
    }
    Ok(())
}

// === impl Options ===

impl Options {
    fn resolve(self) -> Self {
        if self.quick { Self { rounds: 1, seconds: 1.0, warmup: 0.3, ..self } } else { self }
    }

    /// The cases and contenders that were chosen.
    fn cases(&self) -> Result<Vec<Case>> {
        let mut cases = case::cases();
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        if let Some(unknown) = self.only.iter().find(|only| !names.contains(&only.as_str())) {
            return Err(Failure::new(format!(
                "no case {unknown}; there are: {}",
                names.join(", ")
            )));
        }
        let chosen =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        cases.retain(|case| chosen(&self.only, case.name));
        for case in &mut cases {
            case.contenders.retain(|contender| chosen(&self.contenders, contender.name()));
        }
        Ok(cases)
    }

    /// Finds or builds the binaries, makes the directories.
    fn bench(&self, cases: &[Case]) -> Result<(Bench, PathBuf)> {
        let bench = std::env::current_exe().doing(|| "looking for this binary".into())?;
        let no_target = || Failure::new(format!("{} is in no target directory", bench.display()));
        let profile = bench.parent().ok_or_else(no_target)?;
        let target = profile.parent().ok_or_else(no_target)?;
        let wanted =
            |name| cases.iter().flat_map(|case| &case.contenders).any(|c| c.name() == name);
        let ringtail = self.ringtail.clone().unwrap_or_else(|| profile.join("ringtail"));
        if wanted("ringtail") && self.ringtail.is_none() {
            build_ringtail(profile)?;
        }
        let collector = match wanted("collector") {
            true => collector::build(target).map_err(|failure| failure.to_string()),
            false => Err("the Collector was not asked for".into()),
        };
        let output = target.join("bench");
        let scratch = output.join("scratch");
        std::fs::create_dir_all(&scratch).doing(|| format!("creating {}", scratch.display()))?;
        let (seconds, warmup) = (self.seconds, self.warmup);
        let held = if self.quick { HELD_QUICK } else { HELD };
        Ok((Bench { bench, ringtail, collector, scratch, seconds, warmup, held }, output))
    }

    /// All rounds of all cases; the contenders take turns within a round.
    fn trials(&self, bench: &Bench, cases: &[Case]) -> (Vec<Trial>, Vec<String>) {
        let (mut trials, mut not_measured) = (Vec::new(), Vec::new());
        for case in cases {
            for round in 0..self.rounds {
                for contender in &case.contenders {
                    match attempt(bench, case, *contender, round) {
                        Ok(trial) => trials.push(trial),
                        Err(reason) if not_measured.contains(&reason) => {}
                        Err(reason) => not_measured.push(reason),
                    }
                }
            }
        }
        (trials, not_measured)
    }

    fn describe(&self) -> String {
        format!(
            "Medians (least-most) of {} rounds, contenders interleaved; {} s of load each after {} s of \
             warm-up; CPU is user + system time of the process under test from the first span to the last \
             one's arrival at the sink. Loads: 8 spans a trace, 11 attributes, about 450 bytes a span, 16 \
             requests in flight on 4 connections, everything on loopback. Agents spread over 10 sinks; \
             gateways decide after 3 s by three policies (errors, > 500 ms, 10 %) and export plain to one.",
            self.rounds, self.seconds, self.warmup
        )
    }
}

/// One trial, told on stderr; a failure becomes a reason why there is no figure.
fn attempt(
    bench: &Bench,
    case: &Case,
    contender: Contender,
    round: usize,
) -> std::result::Result<Trial, String> {
    let name = contender.name();
    let trial = bench.trial(case, contender, round).map_err(|failure| {
        eprintln!("{:<18} {name:<10} failed: {failure}", case.name);
        format!("{name} in {}: {failure}", case.name)
    })?;
    let fine = if trial.right.is_some() { "exact" } else { "counted" };
    let verdict = trial.fault().unwrap_or_else(|| fine.into());
    eprintln!(
        "{:<18} {name:<10} {:>9.0} spans/CPU-s {:>7.2} CPU-s {:>9.0} spans/s  RSS {:>5} MiB, \
         peak {:>5}  {verdict}",
        case.name,
        trial.spans_per_cpu_second,
        trial.cpu_seconds,
        trial.spans as f64 / trial.wall_seconds,
        trial.resident_bytes >> 20,
        trial.peak_bytes >> 20,
    );
    Ok(trial)
}

/// A binary from an earlier build must not be measured by mistake; under `cargo run` cargo can build it.
pub(crate) fn build_ringtail(profile: &Path) -> Result<()> {
    let (Some(cargo), Some(package)) =
        (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    else {
        return Ok(());
    };
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("dist");
    let name = if name == "debug" { "dev" } else { name };
    let mut command = Command::new(cargo);
    command.current_dir(package).args(["build", "-p", "ringtail", "--bin", "ringtail"]);
    // What cargo tells of the package that it runs is not of the one that it builds: build scripts that look
    // at it would run again, and everything above them.
    let told = |key: &str| key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_");
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_str().is_some_and(told)) {
        command.env_remove(key);
    }
    let status = command.args(["--profile", name]).status().doing(|| "running cargo".into())?;
    let failed = || Failure::new("building ringtail failed");
    status.success().then_some(()).ok_or_else(failed)
}

fn keep(output: &Path, markdown: &str, report: &Report<'_>) -> Result<()> {
    let json = serde_json::to_string_pretty(report).doing(|| "writing the report".into())?;
    for (name, text) in [("report.md", markdown), ("report.json", &json)] {
        let path = output.join(name);
        std::fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
    }
    eprintln!("kept in {}", output.display());
    Ok(())
}
