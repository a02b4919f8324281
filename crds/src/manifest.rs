//! The text that the operator puts into a pipeline's ConfigMap: the resource with every default in place,
//! without what only the operator needs.
//!
//! It is a manifest as any other, so the data plane reads one format everywhere. It is the same text for the
//! same resource, whoever writes it and whenever, because its hash decides whether pods are restarted.

use serde_json::{Map, Value, json};

use crate::{TracePipeline, routing::RoutingKey, schema};

/// A tier of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// It takes spans in.
    Agent,
    /// It decides.
    Gateway,
}

/// A resource could not be written as text.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON.
    #[error("the pipeline cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// It is not YAML.
    #[error("the pipeline cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// What the data plane reads, of the parts of `spec` that it does not read as a whole.
const AGENT_FIELDS: [&str; 8] = [
    "mode",
    "receivers",
    "batch",
    "compression",
    "retention",
    "resourceDetection",
    "filter",
    "attributes",
];
const GATEWAY_FIELDS: [&str; 1] = ["type"];
/// A part of `spec` that need not be there.
const SPAN_METRICS: &str = "spanMetrics";
/// Another.
const LOGS: &str = "logs";

/// The manifest that pods read.
///
/// # Errors
/// When a value cannot be written; none that passed validation is known.
pub fn resolved_manifest(pipeline: &TracePipeline) -> Result<String, ManifestError> {
    let spec = with_defaults(pipeline)?;
    let part = |name: &str| spec.get(name).cloned().unwrap_or_default();
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(pipeline.metadata.name));
    if let Some(namespace) = &pipeline.metadata.namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let mut manifest = json!({
        "apiVersion": schema::API_VERSION,
        "kind": schema::KIND,
        "metadata": metadata,
        "spec": {
            "sampling": part("sampling"),
            "exporters": part("exporters"),
            "routing": part("routing"),
            "agent": only(&part("agent"), &AGENT_FIELDS),
            "gateway": only(&part("gateway"), &GATEWAY_FIELDS),
            "security": part("security"),
        },
    });
    if let Some(redaction) = spec.get("redaction") {
        manifest["spec"]["redaction"] = redaction.clone();
    }
    if let Some(metrics) = spec.get(SPAN_METRICS) {
        manifest["spec"][SPAN_METRICS] = metrics.clone();
    }
    if let Some(logs) = spec.get(LOGS) {
        manifest["spec"][LOGS] = logs.clone();
    }
    Ok(serde_saphyr::to_string(&sorted(&manifest))?)
}

/// The settings that a tier reads only when it starts, as a text that changes when, and only when, its pods
/// must be restarted. `spec.sampling` is not in it: running pods take it over.
///
/// # Errors
/// When a value cannot be written; none that passed validation is known.
pub fn startup_settings(pipeline: &TracePipeline, tier: Tier) -> Result<String, ManifestError> {
    let spec = with_defaults(pipeline)?;
    let part = |name: &str| spec.get(name).cloned().unwrap_or_default();
    let mut settings = match tier {
        Tier::Agent => json!({
            "routing": part("routing"),
            "agent": only(&part("agent"), &AGENT_FIELDS),
            "security": part("security"),
        }),
        Tier::Gateway => gateway_settings(&part("exporters"), &part("security"), pipeline),
    };
    if let (Tier::Gateway, Some(redaction)) = (tier, spec.get("redaction")) {
        settings["redaction"] = redaction.clone();
    }
    // Only where it is set: pods that do not count spans are not restarted because others can.
    if let (Tier::Gateway, Some(metrics)) = (tier, spec.get(SPAN_METRICS)) {
        settings[SPAN_METRICS] = metrics.clone();
    }
    // Agents take all records or none; what becomes of them is the gateways' business.
    if let Some(logs) = spec.get(LOGS) {
        settings[LOGS] = if tier == Tier::Gateway { logs.clone() } else { json!(true) };
    }
    Ok(serde_saphyr::to_string(&sorted(&settings))?)
}

/// What applications have to show is in it only where it is asked for: gateways of other pipelines must not
/// restart because there is such a thing.
fn gateway_settings(exporters: &Value, security: &Value, pipeline: &TracePipeline) -> Value {
    let mut settings = json!({ "exporters": exporters, "security": security });
    let otlp = &pipeline.spec.agent.receivers.otlp;
    if otlp.is_guarded() {
        settings["receivers"] = json!([otlp.tls, otlp.bearer_token_secret_ref]);
    }
    if pipeline.spec.routing.key == RoutingKey::Service {
        settings["routing"] = json!("Service");
    }
    settings
}

// The types put their defaults in when they are read, and write them.
fn with_defaults(pipeline: &TracePipeline) -> Result<Value, serde_json::Error> {
    serde_json::to_value(&pipeline.spec)
}

fn only(part: &Value, names: &[&str]) -> Value {
    let fields = part.as_object().into_iter().flatten();
    let kept = fields.filter(|(name, _)| names.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

// Whether maps keep their order depends on features that other crates switch on.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let sorted = entries.into_iter().map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(sorted.collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;

    const SHOP: &str = include_str!("../../examples/shop.yaml");
    const CLUSTER: &str = include_str!("../../examples/cluster.yaml");

    fn read(yaml: &str) -> TracePipeline {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn what_pods_read_means_the_same() {
        for yaml in [SHOP, CLUSTER] {
            let text = resolved_manifest(&read(yaml)).unwrap();
            let mut expected = validate(yaml).unwrap();
            // How many gateways there are is the ring's business in a cluster.
            expected.replicas = 3;
            assert_eq!(validate(&text).unwrap(), expected, "{text}");
            assert_eq!(resolved_manifest(&read(&text)).unwrap(), text, "written twice");
        }
    }

    #[test]
    fn the_text_of_a_cluster() {
        insta::assert_snapshot!(resolved_manifest(&read(CLUSTER)).unwrap());
    }

    #[test]
    fn only_what_a_process_reads_at_its_start_restarts_it() {
        let settings = |yaml: &str, tier| startup_settings(&read(yaml), tier).unwrap();
        // What is replaced, by what, and whether agents and gateways restart.
        let edits = [
            ("decisionWait: 30s", "decisionWait: 31s", false, false),
            ("replicas: 3", "replicas: 4", false, false),
            ("maxSpans: 8192", "maxSpans: 8193", true, false),
            ("timeout: 5s", "timeout: 6s", false, true),
            ("  gateway:\n", "  paused: true\n  gateway:\n", false, false),
            ("  gateway:\n", "  security: {peerTLS: {mode: Disabled}}\n  gateway:\n", true, true),
            ("  gateway:\n", "  spanMetrics: {}\n  gateway:\n", false, true),
            ("    replicas: 3", "    nodeSelector: {disk: fast}", false, false),
            ("  gateway:\n", "  redaction: {remove: [a]}\n  gateway:\n", false, true),
            ("  gateway:\n", "  logs: {}\n  gateway:\n", true, true),
            ("decisionWait: 30s", "decisionWait: 30s\n    recordPolicy: true", false, false),
            ("  agent:\n", "  agent:\n    filter: [IsRootSpan()]\n", true, false),
            (
                "  agent:\n",
                "  agent:\n    receivers: {otlp: {tls: {certificateRef: {name: a}}}}\n",
                true,
                true,
            ),
        ];
        for (from, to, agents, gateways) in edits {
            let changed = SHOP.replacen(from, to, 1);
            assert_ne!(changed, SHOP, "{from:?}");
            for (tier, restarts) in [(Tier::Agent, agents), (Tier::Gateway, gateways)] {
                assert_eq!(
                    settings(&changed, tier) != settings(SHOP, tier),
                    restarts,
                    "{to:?} {tier:?}"
                );
            }
        }
    }

    #[test]
    fn what_becomes_of_log_records_restarts_gateways_alone() {
        let with = |logs: &str| read(&SHOP.replacen("  gateway:\n", logs, 1));
        let all = with("  logs: {}\n  gateway:\n");
        let sampled = with("  logs: {keep: SampledTraces}\n  gateway:\n");
        let settings = |of: &TracePipeline, tier| startup_settings(of, tier).unwrap();
        assert_eq!(settings(&all, Tier::Agent), settings(&sampled, Tier::Agent));
        assert_ne!(settings(&all, Tier::Gateway), settings(&sampled, Tier::Gateway));
        assert!(resolved_manifest(&sampled).unwrap().contains("keep: SampledTraces"));
    }
}
