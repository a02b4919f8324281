//! What is added to a pod: a container, and the settings that it reads.

use ringtail_crds::{Problem, TracePipeline, agent::AgentMode, gateway::GatewayType, schema};
use serde_json::{Map, Value, json};

use super::{CONTAINER, VOLUME, documents};

/// Where gateways take OTLP/gRPC.
const GATEWAY_PORT: u16 = 4317;
/// Metrics and probes.
const ADMIN_PORT: u16 = 8888;
/// The user of the image.
const USER: i64 = 65_532;
/// A quarter of what an agent of a whole node gets, and the least that works: one application sends less
/// than many.
const MEMORY: &str = "64Mi";
const CPU: &str = "20m";
/// Applications wait for it: it is up in a fraction of a second, and after a minute it never will be.
const STARTUP_PROBES_MAX: u32 = 60;

/// What is added to a pod.
#[derive(Clone, Debug)]
pub(super) struct Sidecar {
    /// The text of its settings.
    pub(super) manifest: String,
    /// The container.
    pub(super) container: Value,
    /// What it listens on.
    pub(super) ports: [u64; 3],
}

// === impl Sidecar ===

impl Sidecar {
    /// The sidecar that sends to the pipeline in this text, or what is wrong with that.
    pub(super) fn new(yaml: &str, image: Option<&str>) -> Result<Self, String> {
        ringtail_crds::validate(yaml).map_err(|problems| {
            problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
        })?;
        let pipeline = find(yaml)?;
        let receivers = &pipeline.spec.agent.receivers.otlp;
        let ports = [receivers.grpc.port, receivers.http.port, ADMIN_PORT].map(u64::from);
        let manifest = serde_saphyr::to_string(&settings(&pipeline)).map_err(|e| e.to_string())?;
        Ok(Self { manifest, container: container(&pipeline, image), ports })
    }
}

fn find(yaml: &str) -> Result<TracePipeline, String> {
    for document in documents::split(yaml) {
        let value = document.value().map_err(|error| error.to_string())?;
        if value["kind"] == schema::KIND {
            return serde_json::from_value(value).map_err(|error| error.to_string());
        }
    }
    Err(format!("holds no {}", schema::KIND))
}

/// Whom it sends to: the agent of its node where there is one, else the gateways.
fn targets(pipeline: &TracePipeline) -> Vec<String> {
    let name = pipeline.metadata.name.as_deref().unwrap_or_default();
    let suffix = pipeline.metadata.namespace.as_ref().map(|namespace| format!(".{namespace}.svc"));
    let suffix = suffix.unwrap_or_default();
    if pipeline.spec.agent.mode == AgentMode::DaemonSet {
        let port = pipeline.spec.agent.receivers.otlp.grpc.port;
        return vec![format!("{name}-agent{suffix}:{port}")];
    }
    match (pipeline.spec.gateway.type_, &pipeline.spec.routing.resolver.static_) {
        (GatewayType::External, Some(list)) => list.endpoints.clone(),
        _ => vec![format!("{name}-gateway{suffix}:{GATEWAY_PORT}")],
    }
}

// A manifest as any other, with what such an agent reads. Policies and exporters are the gateways'
// business, but a manifest has some: a policy that drops nothing, and the gateways as the backend.
fn settings(pipeline: &TracePipeline) -> Value {
    let agent = &pipeline.spec.agent;
    let mut own = json!({
        "mode": "Sidecar",
        "receivers": {"otlp": agent.receivers.otlp},
        "batch": agent.batch,
        "compression": agent.compression,
    });
    // What an agent of the node does to spans it does to those of sidecars too, but it does not know their
    // pods.
    let behind = agent.mode == AgentMode::DaemonSet;
    for (name, list, wanted) in [
        ("resourceDetection", json!(agent.resource_detection), true),
        ("filter", json!(agent.filter), !behind),
        ("attributes", json!(agent.attributes), !behind),
    ] {
        if wanted && list.as_array().is_some_and(|list| !list.is_empty()) {
            own[name] = list;
        }
    }
    let targets = targets(pipeline);
    let backend = format!("http://{}", targets.first().map_or("", String::as_str));
    json!({
        "apiVersion": schema::API_VERSION,
        "kind": schema::KIND,
        "metadata": {"name": pipeline.metadata.name},
        "spec": {
            "sampling": {"policies": [{"name": "elsewhere", "type": "AlwaysSample"}]},
            "exporters": [{"name": "gateways", "type": "OTLP", "otlp": {"endpoint": backend}}],
            "routing": {"resolver": {"type": "Static", "static": {"endpoints": targets}}},
            "agent": own,
            "gateway": {"type": "External"},
            "security": {"peerTLS": {"mode": "Disabled"}},
        },
    })
}

fn container(pipeline: &TracePipeline, image: Option<&str>) -> Value {
    let pod = &pipeline.spec.agent.pod;
    let default_image = format!("ringtail:{}", env!("CARGO_PKG_VERSION"));
    let variable = |name: &str, path: &str| {
        let field = json!({"fieldRef": {"fieldPath": path}});
        json!({"name": name, "valueFrom": field})
    };
    let mut env = vec![variable("POD_NAME", "metadata.name")];
    if !pipeline.spec.agent.resource_detection.is_empty() {
        env.push(variable("POD_NAMESPACE", "metadata.namespace"));
        env.push(variable("NODE_NAME", "spec.nodeName"));
    }
    env.extend(pod.env.iter().map(|variable| json!(variable)));
    let mut container = json!({
        "name": CONTAINER,
        "image": image.or(pod.image.as_deref()).unwrap_or(&default_image),
        // What makes it a sidecar: it starts before the others and ends after them.
        "restartPolicy": "Always",
        "args": arguments(pipeline),
        "env": env,
        "ports": [{"name": "ringtail-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": CPU, "memory": MEMORY},
            "limits": {"memory": MEMORY},
        },
        "securityContext": security_context(pipeline),
        // No readiness: gateways that are away must not take the application out of service.
        "startupProbe": probe(1, STARTUP_PROBES_MAX),
        "livenessProbe": probe(10, 6),
        "volumeMounts": [{"name": VOLUME, "mountPath": "/etc/ringtail/pipeline", "readOnly": true}],
    });
    if let Some(resources) = &pod.resources {
        container["resources"] = json!(resources);
    }
    if let Some(policy) = pod.image_pull_policy {
        container["imagePullPolicy"] = policy.name().into();
    }
    container
}

// Loopback: only the pod's own containers send here.
fn arguments(pipeline: &TracePipeline) -> Vec<String> {
    let otlp = &pipeline.spec.agent.receivers.otlp;
    let words = ["agent", "--thin", "--pipeline", "/etc/ringtail/pipeline/pipeline.yaml"];
    let mut arguments = words.map(str::to_owned).to_vec();
    arguments.extend(["--identity", "$(POD_NAME)"].map(str::to_owned));
    arguments.extend(["--otlp-grpc".to_owned(), format!("127.0.0.1:{}", otlp.grpc.port)]);
    arguments.extend(["--otlp-http".to_owned(), format!("127.0.0.1:{}", otlp.http.port)]);
    arguments
}

// Everything in the container: what the pod says is the application's.
fn security_context(pipeline: &TracePipeline) -> Value {
    let own = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "runAsUser": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let given = json!(pipeline.spec.agent.pod.security_context);
    let fields = [own, given].into_iter().filter_map(|value| match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    Value::Object(fields.flatten().collect::<Map<_, _>>())
}

fn probe(period_seconds: u32, failures_max: u32) -> Value {
    json!({
        "httpGet": {"path": "/livez", "port": ADMIN_PORT},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures_max,
    })
}
