//! The OpenTelemetry Collector that is measured and that tests compare with: built once from pinned modules.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure, Result};
use crate::truth::mix;

const MANIFEST: &str = include_str!("../otelcol/builder.yaml");
const GO_MOD: &str = include_str!("../otelcol/go.mod");
const GO_SUM: &str = include_str!("../otelcol/go.sum");

const BINARY: &str = "otelcol-bench";

/// Turns the manifest into a main package; of the same version as the modules.
const BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder@v0.159.0";

/// How often a long build says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Builds the Collector to compare with, unless this version of it is there, and prints where it is.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {}

/// Builds it beside what cargo builds, where tests look for it.
pub fn run(_options: Options) -> Result<()> {
    let own = std::env::current_exe().doing(|| "looking for this binary".into())?;
    let no_target = || Failure::new(format!("{} is in no target directory", own.display()));
    let binary = build(own.ancestors().nth(2).ok_or_else(no_target)?)?;
    println!("{}", binary.display());
    Ok(())
}

/// The Collector of this version below a target directory, if it has been built there.
pub fn built(target: &Path) -> Option<PathBuf> {
    let binary = home(target).join(BINARY);
    binary.exists().then_some(binary)
}

/// The same, built if it is not there yet.
pub(crate) fn build(target: &Path) -> Result<PathBuf> {
    if let Some(binary) = built(target) {
        return Ok(binary);
    }
    let home = home(target);
    if Command::new("go").arg("version").output().is_err() {
        return Err(Failure::new(
            "`go` is not on the PATH; the Collector is built from Go modules",
        ));
    }
    eprintln!(
        "building the Collector in {} (once, about 7 minutes of CPU when Go has nothing of it cached)",
        home.display()
    );
    let source = home.join("source");
    std::fs::create_dir_all(&source).doing(|| format!("creating {}", source.display()))?;
    write(&source.join("builder.yaml"), MANIFEST)?;
    step("fetching the builder", go(&source).env("GOBIN", &home).args(["install", BUILDER]))?;
    let mut generate = Command::new(home.join("builder"));
    generate.current_dir(&source).args(["--config", "builder.yaml"]);
    step("generating", generate.args(["--skip-compilation", "--skip-get-modules"]))?;
    let package = source.join("dist");
    write(&package.join("go.mod"), GO_MOD)?;
    write(&package.join("go.sum"), GO_SUM)?;
    // Under another name first: a build that was interrupted must not look finished.
    let unfinished = home.join(format!("{BINARY}.unfinished"));
    let mut compile = go(&package);
    compile.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&unfinished).arg(".");
    step("compiling", &mut compile)?;
    let binary = home.join(BINARY);
    std::fs::rename(&unfinished, &binary).doing(|| format!("moving {}", binary.display()))?;
    Ok(binary)
}

/// Where this version is, or will be.
fn home(target: &Path) -> PathBuf {
    target.join("otelcol").join(fingerprint())
}

/// A name for this version of the three files.
fn fingerprint() -> String {
    let bytes = [MANIFEST, GO_MOD, GO_SUM].into_iter().flat_map(str::bytes);
    format!("{:016x}", bytes.fold(0, |hash, byte| mix(hash ^ u64::from(byte))))
}

/// A go command that uses the installed toolchain and exactly the pinned modules.
fn go(directory: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(directory).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    command.env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

/// Runs one command of the build, saying now and then that it still runs.
fn step(what: &str, command: &mut Command) -> Result<()> {
    let doing = || format!("{what} (part of building the Collector)");
    eprintln!("  {what} …");
    let mut child = command.stdout(Stdio::null()).spawn().doing(doing)?;
    let started = Instant::now();
    let mut beats = 1;
    loop {
        if let Some(status) = child.try_wait().doing(doing)? {
            let failed = || Failure::new(format!("{} failed: {status}", doing()));
            return status.success().then_some(()).ok_or_else(failed);
        }
        if started.elapsed() > HEARTBEAT * beats {
            eprintln!("  {what} … {} s", started.elapsed().as_secs());
            beats += 1;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the build would take another version, or none for want of the pin.
    #[test]
    fn every_part_is_pinned_as_the_manifest_names_it() {
        let parts: Vec<&str> =
            MANIFEST.lines().filter_map(|line| line.trim().strip_prefix("- gomod: ")).collect();
        assert!(parts.len() > 10, "{parts:?}");
        for part in parts {
            assert!(GO_MOD.contains(&format!("\t{part}\n")), "go.mod has no {part}");
            assert!(GO_SUM.contains(&format!("{part} h1:")), "go.sum has no {part}");
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_was_built() {
        assert_eq!(built(Path::new(env!("CARGO_MANIFEST_DIR"))), None);
    }
}
