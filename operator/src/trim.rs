//! What is kept of workloads and pods, and which of their changes matter.
//!
//! A fleet of 2,000 agents is 2,000 pods: some 600 bytes each are kept instead of ten thousand.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::{
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Map, Value, json};

use crate::fingerprint;

/// What a dynamic client needs to know of pods.
pub fn pod_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods")
}

/// Keeps of a Deployment or DaemonSet its replicas, its template (there are three a pipeline at most), and
/// its status.
pub fn workload(object: &mut DynamicObject) {
    let data = &object.data;
    object.data = json!({
        "spec": {
            "replicas": data["spec"]["replicas"],
            "template": data["spec"]["template"],
        },
        "status": data["status"],
    });
}

/// A workload matters with its status.
pub fn workload_print(object: &DynamicObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    fingerprint::of(&object.metadata).hash(&mut hasher);
    let mut status = object.data["status"].clone();
    // Their times change with every message.
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.retain(|key, _| matches!(key.as_str(), "type" | "status" | "reason"));
        }
    }
    status.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Keeps of a pod where it is and how it does.
pub fn pod(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
    object.metadata.owner_references = None;
    let status = &object.data["status"];
    let mut kept = Map::new();
    for field in ["phase", "reason", "podIP"] {
        kept.insert(field.to_owned(), status[field].clone());
    }
    kept.insert(
        "conditions".to_owned(),
        each(&status["conditions"], &["type", "status", "reason", "message"]),
    );
    for list in ["initContainerStatuses", "containerStatuses"] {
        kept.insert(
            list.to_owned(),
            each(&status[list], &["name", "ready", "restartCount", "state"]),
        );
    }
    object.data = json!({"status": kept});
}

/// A pod matters when its health does, not when it restarts once more.
pub fn pod_print(object: &DynamicObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    let status = &object.data["status"];
    object.metadata.uid.hash(&mut hasher);
    object.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    (status["phase"].as_str(), status["podIP"].as_str()).hash(&mut hasher);
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let fields = ["type", "status", "reason"].map(|field| condition[field].as_str());
        fields.hash(&mut hasher);
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in status[list].as_array().into_iter().flatten() {
            container["state"]["waiting"]["reason"].as_str().hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn each(list: &Value, fields: &[&str]) -> Value {
    let items = list.as_array().into_iter().flatten();
    let pick = |item: &Value| -> Value {
        fields
            .iter()
            .map(|field| ((*field).to_owned(), item[field].clone()))
            .collect::<Map<_, _>>()
            .into()
    };
    items.map(pick).collect()
}
