//! The pod template of a tier: what the operator sets, the pipeline's own settings, and its overlay over
//! both.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::{
    Inputs, colour::Colour, config_hash, container, overlay::merge, placement, tier::Tier, volume,
};
use crate::labels;

/// The user of the image, by number: the kubelet cannot tell whether a name is root.
const USER: i64 = 65_532;

/// Builds it.
pub(super) fn template(inputs: &Inputs<'_>, tier: Tier, colour: Colour) -> Value {
    let pod = tier.pod(inputs.pipeline);
    let mut template = json!({
        "metadata": {"labels": pod.pod_labels, "annotations": pod.pod_annotations},
        "spec": spec(inputs, tier, colour),
    });
    if let Some(overlay) = &pod.pod_template {
        merge(&mut template, &Value::Object(overlay.clone()));
    }
    // After everything else: selectors, the ring and restarts hang on them.
    for (key, value) in labels(inputs, tier, colour) {
        template["metadata"]["labels"][key] = value.into();
    }
    template["metadata"]["annotations"][labels::CONFIG_HASH] = config_hash::of(inputs, tier).into();
    template
}

fn labels(inputs: &Inputs<'_>, tier: Tier, colour: Colour) -> BTreeMap<String, String> {
    let mut labels = labels::of(&inputs.pipeline.name_any(), tier.component());
    if let Some(colour) = colour.label() {
        labels.insert(labels::COLOUR.to_owned(), colour.to_owned());
    }
    labels
}

fn spec(inputs: &Inputs<'_>, tier: Tier, colour: Colour) -> Value {
    let pod = tier.pod(inputs.pipeline);
    let mounted = volume::of(inputs, tier);
    let container = container::build(inputs, tier, &mounted);
    let mut volumes: Vec<Value> = mounted.into_iter().map(|mounted| mounted.volume).collect();
    volumes.extend(pod.volumes.iter().map(|volume| json!(volume)));
    let mut spec = json!({
        "serviceAccountName": tier.service_account(inputs.pipeline),
        "automountServiceAccountToken": tier.asks_the_cluster(inputs.pipeline),
        // Variables about every Service of the namespace serve nobody here.
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": pod.termination_grace_period_seconds,
        "containers": [container],
        "volumes": volumes,
    });
    merge(&mut spec["securityContext"], &json!(pod.pod_security_context));
    let settings = json!({
        "affinity": placement::affinity(inputs, tier, colour),
        "imagePullSecrets": pod.image_pull_secrets,
        "nodeSelector": pod.node_selector,
        "priorityClassName": pod.priority_class_name,
        "tolerations": pod.tolerations,
        "topologySpreadConstraints": placement::spread(inputs, tier, colour),
    });
    merge(&mut spec, &Value::Object(set(settings)));
    spec
}

// Only what says something: a field that is sent is a field that is owned.
fn set(settings: Value) -> Map<String, Value> {
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let fields = if let Value::Object(fields) = settings { fields } else { Map::new() };
    fields.into_iter().filter(|(_, value)| is_set(value)).collect()
}
