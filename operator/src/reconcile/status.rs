//! The stage that tells: conditions and counts, written only when they say something new.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ObjectMeta, Patch, PatchParams},
    core::{ApiResource, error_boundary::InvalidObject},
};
use ringtail_crds::{
    TracePipeline, agent::AgentMode, conditions as types, gateway::GatewayType,
    routing::RoutingKey, schema, security::PeerTlsMode, status::TracePipelineStatus,
};
use serde_json::{Value, json};

use super::{Progress, World, observe};
use crate::{
    build, conditions,
    events::{Happening, Reason},
    failure::{Category, Failure},
    labels::{self, Component},
    live::Workload,
    memory::Memory,
};

/// Observes what became of the children and tells it.
pub async fn tell(
    pipeline: &TracePipeline,
    world: &World,
    memory: &mut Memory,
    progress: &mut Progress,
) -> Result<(), Failure> {
    complete(pipeline, world, progress);
    let before = known(pipeline, memory);
    let conditions_before = conditions_of(&before);
    let conditions =
        conditions::conditions(&progress.observed, &conditions_before, Timestamp::now());
    progress.happenings.extend(transitions(&conditions_before, &conditions, progress));
    let status = status(pipeline, world, progress, conditions);
    let wanted = serde_json::to_value(status).unwrap_or_default();
    if own_part(before) != wanted {
        let written = write(world, &pipeline.metadata, &wanted).await?;
        memory.status = Some((version(&written.metadata), written.data["status"].clone()));
    }
    for happening in std::mem::take(&mut progress.happenings) {
        world.events.record(pipeline, happening).await;
    }
    Ok(())
}

/// Tells that a resource cannot be read.
pub async fn write_unreadable(world: &World, invalid: &InvalidObject) -> Result<(), Failure> {
    let meta = &invalid.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let live = api(world, meta).get_opt(name).await;
    let Some(live) = live.map_err(Failure::request("get", format!("TracePipeline {name}")))? else {
        return Ok(());
    };
    let before = live.data["status"].clone();
    let generation = meta.generation.unwrap_or_default();
    let conditions = conditions::unreadable(
        &invalid.error,
        generation,
        &conditions_of(&before),
        Timestamp::now(),
    );
    // What else the status says is about the last resource that could be read, and stays.
    let mut wanted = own_part(before.clone());
    wanted["observedGeneration"] = generation.into();
    wanted["conditions"] = serde_json::to_value(conditions).unwrap_or_default();
    if own_part(before) != wanted {
        write(world, meta, &wanted).await?;
    }
    Ok(())
}

fn complete(pipeline: &TracePipeline, world: &World, progress: &mut Progress) {
    let spec = &pipeline.spec;
    let uid = pipeline.uid().unwrap_or_default();
    let observed = &mut progress.observed;
    observed.generation = pipeline.metadata.generation.unwrap_or_default();
    observed.paused = spec.paused;
    observed.external_gateways = spec.gateway.type_ == GatewayType::External;
    observed.routed_by_service = spec.routing.key == RoutingKey::Service;
    observed.managed_agents = spec.agent.mode == AgentMode::DaemonSet;
    observed.peers_unauthenticated = spec.security.peer_tls.mode == PeerTlsMode::Disabled;
    observed.gateways = observe::observe(&world.stores, pipeline, Component::Gateway);
    observed.agents = observe::observe(&world.stores, pipeline, Component::Agent);
    observed.view = world.views.borrow().get(&uid).map(|view| view.as_ref().clone());
}

// The newest status that is known: the store may be a moment behind our own last write.
fn known(pipeline: &TracePipeline, memory: &Memory) -> Value {
    if let Some((written, status)) = &memory.status
        && *written > version(&pipeline.metadata)
    {
        return status.clone();
    }
    serde_json::to_value(&pipeline.status).unwrap_or_default()
}

fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn conditions_of(status: &Value) -> Vec<Condition> {
    serde_json::from_value(status["conditions"].clone()).unwrap_or_default()
}

// Without what the other writer owns.
fn own_part(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("ring");
        fields.remove("sampling");
    }
    if status.is_null() { json!({}) } else { status }
}

fn status(
    pipeline: &TracePipeline,
    world: &World,
    progress: &Progress,
    conditions: Vec<Condition>,
) -> TracePipelineStatus {
    let observed = &progress.observed;
    let counts = |workload: &Option<Workload>| {
        workload.as_ref().map(|workload| format!("{}/{}", workload.ready, workload.desired))
    };
    let present = observed.gateways.workload.as_ref().map_or(0, |workload| workload.present);
    let managed = !observed.external_gateways;
    TracePipelineStatus {
        observed_generation: pipeline.metadata.generation,
        conditions,
        gateways: counts(&observed.gateways.workload),
        agents: counts(&observed.agents.workload),
        replicas: managed.then(|| u32::try_from(present).unwrap_or_default()),
        selector: managed.then(|| selector(&pipeline.name_any())),
        version: Some(world.settings.version.clone()),
        config_hash: observed.config_hash.clone(),
        endpoints: Some(build::endpoints(pipeline)),
        ring: None,
        sampling: None,
    }
}

fn selector(pipeline: &str) -> String {
    let labels = labels::selector(pipeline, Component::Gateway);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

async fn write(world: &World, meta: &ObjectMeta, status: &Value) -> Result<DynamicObject, Failure> {
    let name = meta.name.as_deref().unwrap_or_default();
    // The UID keeps what belongs to a deleted pipeline out of a new one of the same name.
    let patch = json!({
        "apiVersion": schema::API_VERSION,
        "kind": schema::KIND,
        "metadata": {"name": name, "uid": meta.uid},
        "status": status,
    });
    let params = PatchParams::apply(labels::OPERATOR).force();
    let written = api(world, meta).patch_status(name, &params, &Patch::Apply(&patch)).await;
    world.metrics.status_patched("main", written.is_ok());
    written.map_err(Failure::request("write the status of", format!("TracePipeline {name}")))
}

fn api(world: &World, meta: &ObjectMeta) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<TracePipeline>(&());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    Api::namespaced_with(world.client.clone(), namespace, &resource)
}

// What happened, from what was and what is: one event for each change, none for a state that lasts.
fn transitions(before: &[Condition], after: &[Condition], progress: &Progress) -> Vec<Happening> {
    let status = |conditions: &[Condition], type_: &str| {
        conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.clone())
    };
    let becomes = |type_: &str, wanted: &str| {
        status(after, type_).as_deref() == Some(wanted)
            && status(before, type_).as_deref() != Some(wanted)
    };
    let message = |type_: &str| {
        after.iter().find(|c| c.type_ == type_).map(|c| c.message.clone()).unwrap_or_default()
    };
    let mut happened = Vec::new();
    let told = [
        (types::ACCEPTED, "True", Reason::PipelineAccepted),
        (types::ACCEPTED, "False", Reason::InvalidSpec),
        (types::RESOLVED_REFS, "False", Reason::ReferenceMissing),
        (types::RECONCILING, "True", Reason::RolloutStarted),
        (types::READY, "True", Reason::FleetReady),
        (types::PAUSED, "True", Reason::Paused),
        (types::SAMPLING_DEGRADED, "True", Reason::FleetDegraded),
    ];
    for (type_, wanted, reason) in told {
        if becomes(type_, wanted) {
            happened.push(Happening::new(reason, message(type_)));
        }
    }
    let was = |type_: &str, wanted: &str| status(before, type_).as_deref() == Some(wanted);
    if was(types::PAUSED, "True") && status(after, types::PAUSED).is_none() {
        happened.push(Happening::new(Reason::Resumed, "spec.paused is false again"));
    }
    if was(types::RESOLVED_REFS, "False") && becomes(types::RESOLVED_REFS, "True") {
        happened.push(Happening::new(Reason::ReferencesResolved, message(types::RESOLVED_REFS)));
    }
    if was(types::READY, "True") && becomes(types::READY, "False") {
        happened.push(Happening::new(Reason::FleetDegraded, message(types::READY)));
    }
    if becomes(types::STALLED, "True") {
        let category = progress.observed.failure.as_ref().map(|(category, _)| *category);
        let reason = match category {
            Some(Category::Foreign) => Some(Reason::NameTaken),
            Some(Category::Forbidden) => Some(Reason::PermissionDenied),
            _ => None,
        };
        happened.extend(reason.map(|reason| Happening::new(reason, message(types::STALLED))));
    }
    happened
}
