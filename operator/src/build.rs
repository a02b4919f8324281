//! Children as they should be: pure functions of a pipeline, the settings and what exists.
//!
//! Building cannot fail: what a pipeline may say is checked before. The same inputs give the same bytes,
//! because a difference is a write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use ringtail_crds::{TracePipeline, ValidPipeline};
use serde::Serialize;
use serde_json::Value;

use crate::{kind::Kind, labels, live::Live, settings::Settings};

mod colour; //                    which gateway Deployments, and how large
mod config_hash; //               what a restart is needed for
mod config_map; //                the resolved manifest
mod container; //                 the one that runs Ringtail
mod daemon_set; //                agents
mod deployment; //                gateways
mod endpoints; //                 the addresses that people rely on
mod hash; //                      of settings
mod horizontal_pod_autoscaler; // of the pipeline
mod network_policy; //            while the peer port asks for no certificate
mod overlay; //                   settings over settings
mod placement; //                 where pods may run
mod pod; //                       the template of a tier
mod pod_disruption_budget; //     of gateways
mod pod_monitor; //               for Prometheus
mod port; //                      names and numbers
mod prometheus_rule; //           alerts on the fleet
mod role; //                      what pods may ask the API server
mod role_binding; //              who may
mod service; //                   where spans go to, and where the ring is found
mod service_account; //           who pods are
mod tier; //                      agents or gateways
mod volume; //                    files that pods read

pub use endpoints::endpoints;
use tier::Tier;

/// Everything that children depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// As written.
    pub pipeline: &'a TracePipeline,
    /// As meant.
    pub valid: &'a ValidPipeline,
    /// What the operator was started with.
    pub settings: &'a Settings,
    /// What exists.
    pub live: &'a Live,
}

/// A child as it should be: only the fields that this operator means to own.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: Kind,
    /// Its name; its namespace is the pipeline's.
    pub name: String,
    /// The whole manifest, with `apiVersion` and `kind`.
    pub manifest: Value,
}

/// The children that a pipeline should have, in the order of applying, then by name. Secrets are not among
/// them: what is secret is made once and then kept, which is no function of the inputs.
pub fn build(inputs: &Inputs<'_>) -> Vec<Child> {
    let mut children =
        vec![config_map::build(inputs), pod_monitor::build(inputs), prometheus_rule::build(inputs)];
    for tier in Tier::ALL.into_iter().filter(|tier| tier.is_managed(inputs.pipeline)) {
        children.extend(identity(inputs, tier));
        children.extend(service::build(inputs, tier));
        children.extend(match tier {
            Tier::Agent => vec![daemon_set::build(inputs)],
            Tier::Gateway => gateways(inputs),
        });
    }
    children.retain(|child| {
        !child.kind.is_optional() || inputs.settings.optional_kinds.contains(&child.kind)
    });
    children.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    children
}

fn identity(inputs: &Inputs<'_>, tier: Tier) -> Vec<Child> {
    let mut children = Vec::from_iter(service_account::build(inputs, tier));
    if tier.asks_the_cluster(inputs.pipeline) {
        children.extend([role::build(inputs, tier), role_binding::build(inputs, tier)]);
    }
    children
}

fn gateways(inputs: &Inputs<'_>) -> Vec<Child> {
    let mut children = deployment::build(inputs);
    children.push(pod_disruption_budget::build(inputs));
    children.extend(horizontal_pod_autoscaler::build(inputs));
    children.extend(network_policy::build(inputs));
    children
}

/// What gateways say in `/stats` once they have loaded the manifest among these children: the first 16 hex
/// digits of the SHA-256 of its bytes.
pub fn config_hash(children: &[Child]) -> Option<String> {
    let manifests = children.iter().filter(|child| child.kind == Kind::ConfigMap);
    let text =
        manifests.filter_map(|child| child.manifest["data"][config_map::KEY].as_str()).next()?;
    Some(hash::short(text))
}

// === impl Inputs ===

impl Inputs<'_> {
    /// The metadata of a child: labels, and the pipeline as the controlling owner.
    pub fn meta(&self, component: labels::Component, name: String) -> ObjectMeta {
        meta(self.pipeline, component, name)
    }
}

/// The metadata of a child of `pipeline`.
pub fn meta(pipeline: &TracePipeline, component: labels::Component, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: pipeline.namespace(),
        labels: Some(labels::of(&pipeline.name_any(), component)),
        owner_references: Some(vec![owner(pipeline)]),
        ..ObjectMeta::default()
    }
}

// `blockOwnerDeletion` needs a right on finalizers where OwnerReferencesPermissionEnforcement is on, and
// nothing here waits for a foreground deletion.
fn owner(pipeline: &TracePipeline) -> OwnerReference {
    OwnerReference {
        api_version: TracePipeline::api_version(&()).into_owned(),
        kind: TracePipeline::kind(&()).into_owned(),
        name: pipeline.name_any(),
        uid: pipeline.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

// === impl Child ===

impl Child {
    /// From a typed object (or a JSON value) whose metadata is from [`Inputs::meta`].
    pub fn new<K: Serialize>(kind: Kind, object: &K) -> Self {
        // Objects of k8s-openapi have string keys throughout, so there is nothing that JSON cannot hold.
        let mut manifest = serde_json::to_value(object).unwrap_or_default();
        let resource = kind.resource();
        manifest["apiVersion"] = resource.api_version.into();
        manifest["kind"] = resource.kind.into();
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Self { kind, name, manifest }
    }
}

#[cfg(test)]
mod tests;
