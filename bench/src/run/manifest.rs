//! The TracePipeline that Ringtail runs in a comparison; addresses come from flags.

use std::net::SocketAddr;

/// What differs between the runs.
pub(super) struct Manifest {
    /// None, Gzip or Zstd: of the hop from agent to gateway.
    pub(super) hop_compression: &'static str,
    pub(super) decision_wait_s: u64,
    pub(super) export: SocketAddr,
    pub(super) gateways: Vec<SocketAddr>,
}

impl Manifest {
    pub(super) fn render(&self) -> String {
        let gateways: Vec<String> = self.gateways.iter().map(|a| format!("\"{a}\"")).collect();
        format!(
            "apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {{name: bench}}
spec:
  sampling:
    decisionWait: {}s
    policies:
    - {{name: errors, type: StatusCode, statusCode: {{statusCodes: [Error]}}}}
    - {{name: slow, type: Latency, latency: {{threshold: 500ms}}}}
    - {{name: tenth, type: Probabilistic, probabilistic: {{samplingPercentage: 10}}}}
  exporters:
  - name: sink
    type: OTLP
    otlp: {{endpoint: \"http://{}\", protocol: GRPC, compression: None, queue: {{maxBytes: 256Mi}}}}
  routing:
    resolver: {{type: Static, static: {{endpoints: [{}]}}}}
  gateway: {{type: External}}
  agent:
    compression: {}
",
            self.decision_wait_s,
            self.export,
            gateways.join(", "),
            self.hop_compression
        )
    }
}
