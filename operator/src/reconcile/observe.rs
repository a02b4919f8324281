//! The stage that looks at what became of the children: their workloads, pods, and what gateways say.

use std::sync::Arc;

use kube::{ResourceExt, api::DynamicObject};
use ringtail_crds::TracePipeline;
use serde_json::Value;

use crate::{
    kind::Kind,
    labels::{self, Component},
    live::Workload,
    stores::Stores,
};

/// A tier as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// Its workload, or the sum of two while one replaces the other; none before it is applied.
    pub workload: Option<Workload>,
    /// Whether its controller has given up waiting for a change to finish.
    pub deadline_exceeded: bool,
    /// Why the API server refuses its pods.
    pub refused: Option<String>,
    /// Pods that wait for something that may never come, by name.
    pub waiting: Vec<Waiting>,
}

/// A pod that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// The pod.
    pub pod: String,
    /// What for.
    pub cause: Cause,
}

/// What a pod may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its container ends again and again.
    CrashLooping,
    /// Its image.
    ImagePullFailed,
    /// A free port of its node.
    HostPortConflict,
    /// A node.
    Unschedulable,
}

/// The tier of that kind of workload.
pub fn observe(stores: &Stores, pipeline: &TracePipeline, component: Component) -> Tier {
    let kind = if component == Component::Agent { Kind::DaemonSet } else { Kind::Deployment };
    let uid = pipeline.uid().unwrap_or_default();
    let workloads = stores.workloads_of(kind, &uid);
    let pods = stores.pods_of(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any());
    let of_tier = |pod: &&Arc<DynamicObject>| {
        pod.labels().get(labels::COMPONENT).is_some_and(|tier| tier == component.name())
    };
    Tier {
        workload: sum(workloads.iter().map(|object| workload(kind, object))),
        deadline_exceeded: workloads.iter().any(|object| {
            condition(object, "Progressing")
                .is_some_and(|condition| condition["reason"] == "ProgressDeadlineExceeded")
        }),
        refused: workloads.iter().find_map(|object| refusal(object)),
        waiting: pods.iter().filter(of_tier).filter_map(|pod| waiting(pod)).collect(),
    }
}

/// What there is of a Deployment or DaemonSet.
pub fn workload(kind: Kind, object: &DynamicObject) -> Workload {
    let (spec, status) = (&object.data["spec"], &object.data["status"]);
    let number =
        |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let [desired, present, ready, updated, available] = if kind == Kind::DaemonSet {
        let field = |name: &str| number(&status[name]);
        [
            field("desiredNumberScheduled"),
            field("currentNumberScheduled"),
            field("numberReady"),
            field("updatedNumberScheduled"),
            field("numberAvailable"),
        ]
    } else {
        [
            number(&spec["replicas"]),
            number(&status["replicas"]),
            number(&status["readyReplicas"]),
            number(&status["updatedReplicas"]),
            number(&status["availableReplicas"]),
        ]
    };
    let annotations = &spec["template"]["metadata"]["annotations"];
    Workload {
        config_hash: annotations[labels::CONFIG_HASH].as_str().map(str::to_owned),
        template_hash: object.annotations().get(labels::TEMPLATE_HASH).cloned(),
        template: spec["template"].clone(),
        colour: object.labels().get(labels::COLOUR).cloned(),
        desired,
        present,
        ready,
        updated,
        available,
        observed: status["observedGeneration"].as_i64() >= object.metadata.generation,
        replicas_owner: replicas_owner(object),
    }
}

// While one colour replaces the other the tier is both of them.
fn sum(workloads: impl Iterator<Item = Workload>) -> Option<Workload> {
    workloads.reduce(|a, b| Workload {
        config_hash: if a.config_hash == b.config_hash { a.config_hash } else { None },
        template_hash: None,
        template: Value::Null,
        colour: None,
        desired: a.desired + b.desired,
        present: a.present + b.present,
        ready: a.ready + b.ready,
        updated: a.updated + b.updated,
        available: a.available + b.available,
        observed: a.observed && b.observed,
        replicas_owner: a.replicas_owner.or(b.replicas_owner),
    })
}

fn replicas_owner(object: &DynamicObject) -> Option<String> {
    let owns_replicas = |fields: &Value| fields["f:spec"].get("f:replicas").is_some();
    let entries = object.metadata.managed_fields.iter().flatten();
    let mut others = entries.filter(|entry| {
        entry.manager.as_deref() != Some(labels::OPERATOR)
            && entry.fields_v1.as_ref().is_some_and(|fields| owns_replicas(&fields.0))
    });
    others.next().and_then(|entry| entry.manager.clone())
}

fn condition<'a>(object: &'a DynamicObject, type_: &str) -> Option<&'a Value> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)
}

// Quotas, admission policies and the restricted profile refuse pods, and no pod is there to say so.
fn refusal(object: &DynamicObject) -> Option<String> {
    let condition =
        condition(object, "ReplicaFailure").filter(|condition| condition["status"] == "True")?;
    Some(condition["message"].as_str().unwrap_or_default().to_owned())
}

fn waiting(pod: &DynamicObject) -> Option<Waiting> {
    let status = &pod.data["status"];
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array());
    let containers = lists.into_iter().flatten().flatten();
    let mut causes: Vec<_> = containers
        .filter_map(|container| container["state"]["waiting"]["reason"].as_str())
        .filter_map(|reason| match reason {
            "CrashLoopBackOff" => Some(Cause::CrashLooping),
            "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => {
                Some(Cause::ImagePullFailed)
            }
            _ => None,
        })
        .collect();
    let scheduled =
        condition(pod, "PodScheduled").filter(|condition| condition["status"] == "False");
    if let Some(condition) = scheduled {
        let message = condition["message"].as_str().unwrap_or_default();
        let ports = message.contains("free ports");
        causes.push(if ports { Cause::HostPortConflict } else { Cause::Unschedulable });
    }
    let cause = causes.into_iter().min()?;
    Some(Waiting { pod: pod.name_any(), cause })
}
