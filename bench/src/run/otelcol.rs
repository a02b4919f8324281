//! The configurations of a Collector that is measured: an agent, a gateway.

use std::net::SocketAddr;

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
