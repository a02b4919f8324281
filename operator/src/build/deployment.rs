//! Deployments of the gateways: one, or two while one colour replaces the other.

use kube::ResourceExt;
use ringtail_crds::gateway::AntiAffinity;
use serde_json::{Value, json};

use super::{
    Child, Inputs,
    colour::{self, Colour, Order, Template, Wanted},
    hash,
    overlay::merge,
    pod,
    tier::Tier,
};
use crate::{kind::Kind, labels, live::Workload};

/// A new gateway has found its peers and taken over its share before the next one goes.
const MIN_READY_SECONDS: u32 = 5;
/// The one before, for a person who compares. A rollback is a change of the pipeline.
const REVISIONS_MAX: u32 = 2;

/// Builds them.
pub(super) fn build(inputs: &Inputs<'_>) -> Vec<Child> {
    let name = Tier::Gateway.child_name(inputs.pipeline);
    let template_hash = template_hash(inputs);
    let gateway = &inputs.pipeline.spec.gateway;
    let wanted = Wanted {
        name: &name,
        template_hash: &template_hash,
        replicas: i32::try_from(gateway.replicas).unwrap_or(i32::MAX),
        update: gateway.update_strategy.type_,
    };
    let orders = colour::plan(wanted, inputs.live);
    orders.into_iter().map(|(colour, order)| deployment(inputs, &wanted, colour, order)).collect()
}

/// Whether gateways of an older template are still there, or gateways are about to be of one.
pub(super) fn is_rolling(inputs: &Inputs<'_>) -> bool {
    let wanted = template_hash(inputs);
    let mut running = inputs.live.deployments.values().filter(|workload| workload.present > 0);
    let is_old = |workload: &Workload| workload.is_rolling(&wanted);
    Tier::Gateway.is_managed(inputs.pipeline)
        && (running.clone().any(is_old) || running.nth(1).is_some())
}

// Of one colour, so that it is the same for all of them.
fn template_hash(inputs: &Inputs<'_>) -> String {
    hash::of_value(&pod::template(inputs, Tier::Gateway, Colour::Plain))
}

fn deployment(inputs: &Inputs<'_>, wanted: &Wanted<'_>, colour: Colour, order: Order) -> Child {
    let name = colour.deployment(wanted.name);
    let (template, template_hash) = match (order.template, inputs.live.deployments.get(&name)) {
        (Template::Kept, Some(live)) => (kept(live), live.template_hash.as_deref()),
        _ => (pod::template(inputs, Tier::Gateway, colour), Some(wanted.template_hash)),
    };
    let mut selector = labels::selector(&inputs.pipeline.name_any(), Tier::Gateway.component());
    let mut deployment = json!({
        "metadata": inputs.meta(Tier::Gateway.component(), name),
        "spec": {
            "replicas": order.replicas,
            "minReadySeconds": MIN_READY_SECONDS,
            "revisionHistoryLimit": REVISIONS_MAX,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": pace(inputs)},
            "template": template,
        },
    });
    if let Some(label) = colour.label() {
        selector.insert(labels::COLOUR.to_owned(), label.to_owned());
        deployment["metadata"]["labels"][labels::COLOUR] = label.into();
    }
    deployment["spec"]["selector"] = json!({"matchLabels": selector});
    if let Some(hash) = template_hash {
        deployment["metadata"]["annotations"] = json!({labels::TEMPLATE_HASH: hash});
    }
    Child::new(Kind::Deployment, &deployment)
}

// A gateway more needs a node more when no two may share one. Without one the rollout would wait for ever.
fn pace(inputs: &Inputs<'_>) -> Value {
    match inputs.pipeline.spec.gateway.anti_affinity {
        AntiAffinity::Required => json!({"maxSurge": 0, "maxUnavailable": 1}),
        AntiAffinity::Preferred | AntiAffinity::None => json!({"maxSurge": 1, "maxUnavailable": 0}),
    }
}

fn kept(live: &Workload) -> Value {
    let mut template = Value::Null;
    merge(&mut template, &live.template);
    template
}
