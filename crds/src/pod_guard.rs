//! The guard: what pods of a pipeline must not reach for.
//!
//! Whoever may write a TracePipeline has the operator make pods. Those pods get what any pod under the
//! restricted profile of pod security may have, in the pipeline's own namespace, and nothing more: no part
//! of a node, no host namespaces, no privileges, no ServiceAccount behind the operator's back. Secrets of
//! other namespaces are out of reach because nothing here can name them.
//!
//! Fields are allowed by name (a test goes through all that Kubernetes has), so a field that a later version
//! adds is refused until somebody has looked at it.

mod security; // users, privileges, profiles
mod surface; //  which fields are allowed at all

use serde_json::{Map, Value};

use crate::{TracePipeline, path::Path, pod::TIERS, problem::Problem};

/// What is appended to every refusal.
const WAY_OUT: &str = "the operator refuses this unless it runs with --allow-unsafe-pod-template";

/// Places with what is wrong there.
type Refusals = Vec<(Path, String)>;

/// Everything in the pod settings of both tiers that reaches for more than the namespace gives.
pub fn check(pipeline: &TracePipeline) -> Vec<Problem> {
    let spec = serde_json::to_value(&pipeline.spec).unwrap_or_default();
    let refused = look(&spec).into_iter();
    refused.map(|(at, message)| Problem { path: at.to_string(), message, line: None }).collect()
}

/// The same for a `spec` that nobody has checked.
pub(crate) fn look(spec: &Value) -> Refusals {
    let mut refusals = Vec::new();
    for tier in TIERS {
        if let Some(Value::Object(settings)) = spec.get(tier) {
            check_tier(settings, &Path::default().key("spec").key(tier), &mut refusals);
        }
    }
    for (_, told) in &mut refusals {
        told.push_str("; ");
        told.push_str(WAY_OUT);
    }
    refusals
}

fn check_tier(settings: &Map<String, Value>, at: &Path, refusals: &mut Refusals) {
    let part = |name: &str| settings.get(name).unwrap_or(&Value::Null);
    check_volumes(part("volumes"), &at.key("volumes"), refusals);
    check_mounts(part("volumeMounts"), &at.key("volumeMounts"), refusals);
    check_annotations(part("podAnnotations"), &at.key("podAnnotations"), refusals);
    security::check(part("podSecurityContext"), &at.key("podSecurityContext"), refusals);
    security::check(part("securityContext"), &at.key("securityContext"), refusals);
    let template = at.key("podTemplate");
    let metadata = part("podTemplate").pointer("/metadata/annotations").unwrap_or(&Value::Null);
    check_annotations(metadata, &template.key("metadata").key("annotations"), refusals);
    if let Some(Value::Object(spec)) = part("podTemplate").get("spec") {
        check_pod(spec, &template.key("spec"), refusals);
    }
}

fn check_pod(spec: &Map<String, Value>, at: &Path, refusals: &mut Refusals) {
    for (name, value) in spec {
        let here = at.key(name);
        match name.as_str() {
            "containers" | "initContainers" | "ephemeralContainers" => {
                for (place, container) in entries(value, &here) {
                    check_container(container, &place, refusals);
                }
            }
            "volumes" => check_volumes(value, &here, refusals),
            "securityContext" => security::check(value, &here, refusals),
            "hostNetwork" | "hostPID" | "hostIPC" if *value == false => {}
            _ => surface::check(&surface::POD, name, &here, refusals),
        }
    }
}

fn check_container(container: &Map<String, Value>, at: &Path, refusals: &mut Refusals) {
    for (name, value) in container {
        let here = at.key(name);
        match name.as_str() {
            "securityContext" => security::check(value, &here, refusals),
            "volumeMounts" => check_mounts(value, &here, refusals),
            "ports" => check_ports(value, &here, refusals),
            "lifecycle" | "livenessProbe" | "readinessProbe" | "startupProbe" => {
                check_handler(value, &here, refusals);
            }
            _ => surface::check(&surface::CONTAINER, name, &here, refusals),
        }
    }
}

fn check_volumes(volumes: &Value, at: &Path, refusals: &mut Refusals) {
    for (place, volume) in entries(volumes, at) {
        for (name, value) in volume {
            let here = place.key(name);
            surface::check(&surface::VOLUME, name, &here, refusals);
            let sources = value.get("sources").filter(|_| name == "projected");
            let sources = sources.unwrap_or(&Value::Null);
            for (place, source) in entries(sources, &here.key("sources")) {
                for kind in source.keys() {
                    surface::check(&surface::PROJECTED, kind, &place.key(kind), refusals);
                }
            }
        }
    }
}

fn check_mounts(mounts: &Value, at: &Path, refusals: &mut Refusals) {
    for (place, mount) in entries(mounts, at) {
        if mount.get("mountPropagation").is_some_and(|mode| mode == "Bidirectional") {
            let told = "Bidirectional mounts into the node".to_owned();
            refusals.push((place.key("mountPropagation"), told));
        }
    }
}

fn check_ports(ports: &Value, at: &Path, refusals: &mut Refusals) {
    for (place, port) in entries(ports, at) {
        if port.get("hostPort").is_some_and(|port| *port != 0) {
            let told =
                "takes a port of the node: agents do that with receivers.hostPort".to_owned();
            refusals.push((place.key("hostPort"), told));
        }
    }
}

// The kubelet calls the address from the node, where more can be reached than from a pod.
fn check_handler(value: &Value, at: &Path, refusals: &mut Refusals) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        let here = at.key(name);
        match name.as_str() {
            "httpGet" | "tcpSocket" if inner.get("host").is_some() => {
                let told = "has the node call any address: leave it out, and the pod is called";
                refusals.push((here.key("host"), told.to_owned()));
            }
            "preStop" | "postStart" => check_handler(inner, &here, refusals),
            _ => {}
        }
    }
}

// Before there was a field, this annotation switched AppArmor off, and old clusters still read it.
fn check_annotations(annotations: &Value, at: &Path, refusals: &mut Refusals) {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if key.starts_with(APP_ARMOR) && value == "unconfined" {
            refusals.push((at.key(key), "unconfined switches AppArmor off".to_owned()));
        }
    }
}

/// The maps of a list, with their places.
fn entries<'a>(list: &'a Value, at: &Path) -> impl Iterator<Item = (Path, &'a Map<String, Value>)> {
    let items = list.as_array().into_iter().flatten().enumerate();
    items.filter_map(move |(index, item)| Some((at.index(index), item.as_object()?)))
}

#[cfg(test)]
mod tests;
