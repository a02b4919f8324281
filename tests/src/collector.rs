//! A real OpenTelemetry Collector beside ours, for comparison.
//!
//! It is the one that `RINGTAIL_OTELCOL` names, a Collector of v0.157 or later, or that `make otelcol` has
//! built. Without it there is nothing to compare with.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};

use crate::http::{fetch, post};
use crate::process::wait_until;

/// A Collector that receives OTLP and shows its metrics.
#[derive(Debug)]
pub struct Collector {
    process: Child,
    grpc: u16,
    http: u16,
    metrics: u16,
    // Removed with it.
    _home: tempfile::TempDir,
}

/// The Collector's program, if it has these components. Says that `test` is skipped when there is none.
pub fn program(test: &str, components: &[&str]) -> Option<PathBuf> {
    let named = std::env::var_os("RINGTAIL_OTELCOL").map(PathBuf::from);
    let Some(program) = named.or_else(built) else {
        eprintln!("skipped: {test}: no OpenTelemetry Collector (`make otelcol` builds one)");
        return None;
    };
    let told = Command::new(&program).arg("components").output().expect("the Collector's program");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let has = |name: &&str| told.lines().any(|line| line.trim() == format!("- name: {name}"));
    if let Some(lacks) = components.iter().find(|name| !has(name)) {
        eprintln!("skipped: {test}: the Collector at {} has no {lacks}", program.display());
        return None;
    }
    Some(program)
}

/// A test lies in `target/PROFILE/deps`, and what the repository builds of the Collector beside it.
fn built() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    ringtail_bench::collector::built(own.ancestors().nth(3)?)
}

/// A port of loopback that nobody has. The kernel gives none of these to whoever takes any, so that nobody
/// gets it before a Collector listens there.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const PORTS: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Tests that run beside each other begin at different places.
        let place = (std::process::id() * 97 + NEXT.fetch_add(1, Relaxed)) % PORTS;
        let port = u16::try_from(FIRST + place).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// === impl Collector ===

impl Collector {
    /// Starts one with this configuration, to which the receiver `otlp` and its own metrics are added, and
    /// waits until it listens.
    pub fn start(program: &Path, mut config: Value) -> Self {
        let [grpc, http, metrics] = [(); 3].map(|()| free_port());
        let reader =
            json!({"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}}});
        let at = |port: u16| json!({"endpoint": address(port)});
        config["receivers"]["otlp"] = json!({"protocols": {"grpc": at(grpc), "http": at(http)}});
        config["service"]["telemetry"] = json!({"logs": {"level": "fatal"},
            "metrics": {"level": "detailed", "readers": [reader]}});
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("collector.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(&file).stdout(Stdio::null()).stderr(Stdio::inherit());
        let process = command.spawn().expect("the Collector's program starts");
        let mut collector = Self { process, grpc, http, metrics, _home: home };
        collector.await_ports();
        collector
    }

    fn await_ports(&mut self) {
        let ended = std::cell::Cell::new(None);
        let process = std::cell::RefCell::new(&mut self.process);
        wait_until("the Collector's ports", || {
            ended.set(process.borrow_mut().try_wait().unwrap());
            let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
            ended.get().is_some() || [self.grpc, self.http].iter().all(listens)
        });
        assert_eq!(ended.get(), None, "the Collector has ended");
    }

    /// `host:port` of its OTLP/gRPC receiver.
    pub fn grpc(&self) -> String {
        address(self.grpc)
    }

    /// `host:port` of its OTLP/HTTP receiver.
    pub fn http(&self) -> String {
        address(self.http)
    }

    /// Sends a request, which it must take.
    pub fn send(&self, request: &ExportTraceServiceRequest) {
        let kind = "content-type: application/x-protobuf";
        let answer = post(&self.http(), "/v1/traces", &[kind], &request.encode_to_vec());
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The page of its metrics; empty while it starts.
    pub fn metrics(&self) -> String {
        fetch(&address(self.metrics), "/metrics").unwrap_or_default()
    }

    /// The sum of the rows of a metric that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let rows = counted(&self.metrics(), name).into_iter();
        rows.filter(|(row, _)| row.contains(label)).map(|(_, value)| value).sum()
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The rows of a metric, with their values.
pub fn counted(metrics: &str, name: &str) -> Vec<(String, u64)> {
    let rows = metrics.lines().filter(|row| !row.starts_with('#'));
    let rows = rows.filter(|row| row.split('{').next().is_some_and(|row| row.contains(name)));
    let value = |row: &str| row.rsplit(' ').next()?.parse::<f64>().ok();
    rows.filter_map(|row| Some((row.to_owned(), value(row)? as u64))).collect()
}

/// The value of a label of a row.
pub fn label(row: &str, name: &str) -> String {
    let rest = row.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default().to_owned()
}
