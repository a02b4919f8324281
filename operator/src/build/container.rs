//! The container that runs Ringtail.

use serde_json::{Value, json};

use super::{
    Inputs,
    overlay::merge,
    port::{self, ADMIN, PEER},
    tier::Tier,
    volume::{
        DATA_DIRECTORY, Mounted, OTLP_CLIENT_CA_DIRECTORY, OTLP_TLS_DIRECTORY, OTLP_TOKEN_FILE,
        PEER_TLS_DIRECTORY, PIPELINE_FILE, SEED_FILE,
    },
};

/// What it is called, in every pod of every pipeline.
pub(super) const NAME: &str = "ringtail";
/// The namespace and name of the pod and so on, by the downward API.
const VARIABLES: [(&str, &str); 4] = [
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("NODE_NAME", "spec.nodeName"),
    ("POD_IP", "status.podIP"),
];
/// A process that reads a large manifest on a busy node is up after a second or two; after a minute it
/// never will be.
const STARTUP_PROBES_MAX: u32 = 60;
/// A minute without an answer is a hung process. Less could be a node that is busy, where a restart makes
/// it worse.
const LIVENESS_FAILURES_MAX: u32 = 6;

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>, tier: Tier, mounted: &[Mounted]) -> Value {
    let pod = tier.pod(inputs.pipeline);
    let mut env: Vec<Value> = VARIABLES.map(variable).into();
    env.extend(pod.env.iter().map(|variable| json!(variable)));
    let mut mounts: Vec<Value> = mounted.iter().map(|mounted| mounted.mount.clone()).collect();
    mounts.extend(pod.volume_mounts.iter().map(|mount| json!(mount)));
    let mut container = json!({
        "name": NAME,
        "image": pod.image.as_ref().unwrap_or(&inputs.settings.image),
        "args": arguments(inputs, tier),
        "env": env,
        "ports": ports(inputs, tier),
        "resources": resources(tier),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "startupProbe": probe("/livez", 1, STARTUP_PROBES_MAX),
        "livenessProbe": probe("/livez", 10, LIVENESS_FAILURES_MAX),
        "readinessProbe": probe("/readyz", 2, 2),
        // The last line says where every span went; a crash says why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    let of_pod = pod.image_pull_policy.map(|policy| policy.name().to_owned());
    if let Some(policy) = of_pod.or_else(|| inputs.settings.image_pull_policy.clone()) {
        container["imagePullPolicy"] = policy.into();
    }
    if let Some(resources) = &pod.resources {
        container["resources"] = json!(resources);
    }
    merge(&mut container["securityContext"], &json!(pod.security_context));
    container
}

fn arguments(inputs: &Inputs<'_>, tier: Tier) -> Vec<&'static str> {
    let role = tier.component().name();
    let mut arguments = vec![role, "--pipeline", PIPELINE_FILE, "--seed-file", SEED_FILE];
    arguments.extend(["--identity", "$(POD_NAME)"]);
    if tier.peer_tls_secret(inputs.pipeline).is_some() {
        arguments.extend(["--peer-tls", PEER_TLS_DIRECTORY]);
    }
    let otlp = &inputs.pipeline.spec.agent.receivers.otlp;
    if let Some(tls) = &otlp.tls {
        arguments.extend(["--otlp-tls", OTLP_TLS_DIRECTORY]);
        if tls.client_ca_ref.is_some() {
            arguments.extend(["--otlp-client-ca", OTLP_CLIENT_CA_DIRECTORY]);
        }
    }
    if otlp.bearer_token_secret_ref.is_some() {
        arguments.extend(["--otlp-tokens", OTLP_TOKEN_FILE]);
    }
    if tier == Tier::Gateway && keeps_queues(inputs) {
        arguments.extend(["--data-dir", DATA_DIRECTORY]);
    }
    arguments
}

fn keeps_queues(inputs: &Inputs<'_>) -> bool {
    let exporters = inputs.pipeline.spec.exporters.iter();
    let mut of_otlp = exporters.filter_map(|exporter| exporter.otlp.as_ref());
    of_otlp.any(|otlp| otlp.queue.persistent.is_some())
}

fn variable((name, path): (&str, &str)) -> Value {
    // `apiVersion` is what the API server would add: lists that are compared as a whole should not differ.
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

fn ports(inputs: &Inputs<'_>, tier: Tier) -> Vec<Value> {
    let host_ports = tier == Tier::Agent && inputs.pipeline.spec.agent.receivers.host_port;
    let of_otlp = |port: port::Port| {
        let mut entry = port.of_container();
        if host_ports {
            entry["hostPort"] = port.number.into();
        }
        entry
    };
    let mut ports = port::otlp(inputs, tier).map(of_otlp).to_vec();
    if tier == Tier::Gateway {
        ports.push(PEER.of_container());
    }
    ports.push(ADMIN.of_container());
    ports
}

// Memory that is requested is there; what a limit promises beyond it is taken away first when a node runs
// out. No limit of CPU: a process that is throttled answers late, and its peers take it for dead. The
// amounts are the data plane's own defaults.
fn resources(tier: Tier) -> Value {
    let (cpu, memory) = match tier {
        Tier::Agent => ("100m", "128Mi"),
        Tier::Gateway => ("500m", "2Gi"),
    };
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}})
}

fn probe(path: &str, period_seconds: u32, failures_max: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": ADMIN.name},
        "periodSeconds": period_seconds,
        // A node that is busy answers late, not wrongly.
        "timeoutSeconds": 5,
        "failureThreshold": failures_max,
    })
}
