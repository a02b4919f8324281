//! The OpenTelemetry Collector to compare with: built once from pinned Go modules, configured for a tier.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure, Result};
use crate::truth::mix;

const MANIFEST: &str = include_str!("../../otelcol/builder.yaml");
const GO_MOD: &str = include_str!("../../otelcol/go.mod");
const GO_SUM: &str = include_str!("../../otelcol/go.sum");

/// Turns the manifest into a main package; of the same version as the modules.
const BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder@v0.159.0";

/// How often a long build says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The Collector's binary, built if this version of it is not there yet.
pub(crate) fn build(target: &Path) -> Result<PathBuf> {
    let home = target.join("otelcol").join(fingerprint());
    let binary = home.join("otelcol-bench");
    if binary.exists() {
        return Ok(binary);
    }
    if Command::new("go").arg("version").output().is_err() {
        return Err(Failure::new(
            "`go` is not on the PATH; the Collector is built from Go modules",
        ));
    }
    eprintln!("building the Collector in {} (once, about 7 CPU minutes)", home.display());
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
    let unfinished = home.join("otelcol-bench.unfinished");
    let mut compile = go(&package);
    compile.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&unfinished).arg(".");
    step("compiling", &mut compile)?;
    std::fs::rename(&unfinished, &binary).doing(|| format!("moving {}", binary.display()))?;
    Ok(binary)
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

/// An agent: spans spread by trace ID over the sinks.
pub(super) struct AgentConfig<'a> {
    pub(super) listen: SocketAddr,
    pub(super) telemetry: SocketAddr,
    pub(super) upstreams: &'a [SocketAddr],
    pub(super) batch: bool,
    pub(super) compression: &'a str,
}

impl AgentConfig<'_> {
    pub(super) fn render(&self) -> String {
        let hosts: Vec<String> = self.upstreams.iter().map(ToString::to_string).collect();
        let exporter = format!(
            "  load_balancing:\n    protocol:\n      otlp:\n        tls: {{insecure: true}}\n        \
             compression: {}\n    resolver:\n      static:\n        hostnames: [{}]\n",
            self.compression,
            hosts.join(", ")
        );
        let processors = if self.batch { "batch" } else { "" };
        render(self.listen, self.telemetry, "  batch:\n", &exporter, processors, "load_balancing")
    }
}

/// A gateway: the three policies of the comparison, kept traces in batches to the sink.
pub(super) struct GatewayConfig {
    pub(super) listen: SocketAddr,
    pub(super) telemetry: SocketAddr,
    pub(super) export: SocketAddr,
    pub(super) decision_wait_s: u64,
}

impl GatewayConfig {
    pub(super) fn render(&self) -> String {
        let exporter = format!(
            "  otlp_grpc:\n    endpoint: {}\n    tls: {{insecure: true}}\n    compression: none\n",
            self.export
        );
        // Room for every trace of a run: at the default of 50,000 traces are evicted undecided.
        let processors = format!(
            "  batch:\n  tail_sampling:\n    decision_wait: {}s\n    num_traces: 2000000\n    policies:\n    \
             - {{name: errors, type: status_code, status_code: {{status_codes: [ERROR]}}}}\n    \
             - {{name: slow, type: latency, latency: {{threshold_ms: 500}}}}\n    \
             - {{name: tenth, type: probabilistic, probabilistic: {{sampling_percentage: 10}}}}\n",
            self.decision_wait_s
        );
        let used = "tail_sampling, batch";
        render(self.listen, self.telemetry, &processors, &exporter, used, "otlp_grpc")
    }
}

fn render(
    listen: SocketAddr,
    telemetry: SocketAddr,
    processors: &str,
    exporters: &str,
    used: &str,
    exporter: &str,
) -> String {
    format!(
        "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: {listen}\n\
         processors:\n{processors}exporters:\n{exporters}\
         service:\n  telemetry:\n    metrics:\n      readers:\n      - pull:\n          \
         exporter:\n            prometheus: {{host: {}, port: {}}}\n  pipelines:\n    \
         traces:\n      receivers: [otlp]\n      \
         processors: [{used}]\n      exporters: [{exporter}]\n",
        telemetry.ip(),
        telemetry.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_name_what_they_are_given() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let agent = AgentConfig {
            listen: address(1),
            telemetry: address(2),
            upstreams: &[address(3), address(4)],
            batch: false,
            compression: "gzip",
        };
        let agent = agent.render();
        assert!(agent.contains("hostnames: [127.0.0.1:3, 127.0.0.1:4]"), "{agent}");
        assert!(
            agent.contains("compression: gzip\n") && agent.contains("processors: []"),
            "{agent}"
        );
        let gateway = GatewayConfig {
            listen: address(1),
            telemetry: address(2),
            export: address(5),
            decision_wait_s: 3,
        };
        let gateway = gateway.render();
        assert!(gateway.contains("decision_wait: 3s") && gateway.contains("endpoint: 127.0.0.1:5"));
    }
}
