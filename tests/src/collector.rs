//! A real OpenTelemetry Collector beside ours, for comparison.
//!
//! It is named by `RINGTAIL_OTELCOL`: a Collector of v0.157 or later with the components that a test
//! configures, such as `make bench` builds. Without it there is nothing to compare with.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};

/// A Collector that receives OTLP/HTTP and shows its metrics.
#[derive(Debug)]
pub struct Collector {
    process: Child,
    receiver: u16,
    metrics: u16,
    // Removed with it.
    _home: tempfile::TempDir,
}

/// The Collector's program. Says that `test` is skipped when there is none.
pub fn binary(test: &str) -> Option<OsString> {
    let named = std::env::var_os("RINGTAIL_OTELCOL");
    if named.is_none() {
        eprintln!("skipped: {test}: RINGTAIL_OTELCOL names no Collector");
    }
    named
}

/// A port of loopback that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Collector {
    /// Starts one with this configuration, to which the receiver `otlp` and its own metrics are added.
    pub fn start(binary: &OsString, mut config: Value) -> Self {
        let (receiver, metrics) = (free_port(), free_port());
        let reader =
            json!({"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}}});
        let http = json!({"http": {"endpoint": format!("127.0.0.1:{receiver}")}});
        config["receivers"]["otlp"] = json!({"protocols": http});
        config["service"]["telemetry"] = json!({"logs": {"level": "fatal"},
            "metrics": {"level": "detailed", "readers": [reader]}});
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("collector.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let process = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("RINGTAIL_OTELCOL names a program");
        Self { process, receiver, metrics, _home: home }
    }

    /// Sends a request, again while the Collector still starts.
    pub fn send(&mut self, request: &ExportTraceServiceRequest) {
        let body = request.encode_to_vec();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let message = [head.into_bytes(), body].concat();
        while !ask(self.receiver, &message).is_some_and(|answer| answer.contains(" 200 OK")) {
            assert!(self.process.try_wait().unwrap().is_none(), "the Collector has ended");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The page of its metrics; empty while it starts.
    pub fn metrics(&self) -> String {
        let message = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        ask(self.metrics, message).unwrap_or_default()
    }
}

/// Sends `message` to a port of loopback and reads all of the answer.
pub fn ask(port: u16, message: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(message).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
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
