//! The TracePipeline that Ringtail runs in a comparison; addresses come from flags.

use std::net::SocketAddr;

use super::case::Extra;

/// What differs between the runs.
pub(super) struct Manifest {
    /// None, Gzip or Zstd: of the hop from agent to gateway.
    pub(super) hop_compression: &'static str,
    pub(super) decision_wait_s: u64,
    pub(super) export: SocketAddr,
    pub(super) gateways: Vec<SocketAddr>,
    pub(super) extra: Extra,
}

/// Policies that read attributes of every span and say yes to none.
const POLICIES: &str = r#"
    - name: route
      type: StringAttribute
      stringAttribute: {key: http.route, values: [/nowhere, /none]}
    - name: agents
      type: StringAttribute
      stringAttribute: {key: user_agent.original, values: ["^curl/"], enabledRegexMatching: true}
    - name: codes
      type: NumericAttribute
      numericAttribute: {key: http.response.status_code, minValue: 900}
    - name: old
      type: OTTLCondition
      ottlCondition:
        span: ['resource.attributes["service.version"] == "1.0.0" and kind == SPAN_KIND_SERVER']
    - name: ports
      type: OTTLCondition
      ottlCondition:
        span: ['attributes["server.port"] == 1 or attributes["url.scheme"] == "ftp"']
    - name: place
      type: OTTLCondition
      ottlCondition: {span: ['IsMatch(attributes["http.route"], "^/nowhere")']}
    - name: long
      type: OTTLCondition
      ottlCondition: {span: ['end_time - start_time > Duration("1h")']}"#;

const SPAN_METRICS: &str = "
  spanMetrics:
    dimensions: [{name: http.route}, {name: http.response.status_code}, {name: network.protocol.version}]";

const REDACTION: &str = r#"
  redaction:
    remove: [client.address]
    hash: [server.address]
    mask: [{key: user_agent.original, valuePattern: "[(].*[)]", replacement: "(…)"}]"#;

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
    - {{name: tenth, type: Probabilistic, probabilistic: {{samplingPercentage: 10}}}}{}{}
  exporters:
  - name: sink
    type: OTLP
    otlp: {{endpoint: \"http://{}\", protocol: GRPC, compression: None, queue: {{maxBytes: 256Mi}}}}
{}  agent:
    compression: {}
",
            self.decision_wait_s,
            if self.extra == Extra::Policies { POLICIES } else { "" },
            match self.extra {
                Extra::SpanMetrics => SPAN_METRICS,
                Extra::Redaction => REDACTION,
                Extra::Nothing | Extra::Policies => "",
            },
            self.export,
            // Gateways of our own are found through the cluster, and have no list of addresses.
            match self.extra {
                Extra::Redaction => String::new(),
                _ => format!(
                    "  routing:
    resolver: {{type: Static, static: {{endpoints: [{}]}}}}
  gateway: {{type: External}}
",
                    gateways.join(", ")
                ),
            },
            self.hop_compression
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_valid() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4317));
        for extra in [Extra::Nothing, Extra::Policies, Extra::SpanMetrics, Extra::Redaction] {
            let manifest = Manifest {
                hop_compression: "None",
                decision_wait_s: 3,
                export: address,
                gateways: vec![address],
                extra,
            };
            let problems = ringtail_crds::validate(&manifest.render()).err();
            assert!(problems.is_none(), "{extra:?}: {problems:?}");
        }
    }
}
