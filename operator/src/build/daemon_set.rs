//! DaemonSet of the agents.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Child, Inputs, colour::Colour, deployment, hash, pod, tier::Tier};
use crate::{kind::Kind, labels};

/// A new agent has found the gateways before the old one of its node goes.
const MIN_READY_SECONDS: u32 = 5;
/// The one before, for a person who compares. A rollback is a change of the pipeline.
const REVISIONS_MAX: u32 = 2;

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>) -> Child {
    let pipeline = inputs.pipeline;
    let template = pod::template(inputs, Tier::Agent, Colour::Plain);
    let template_hash = hash::of_value(&template);
    let mut meta = inputs.meta(Tier::Agent.component(), Tier::Agent.child_name(pipeline));
    meta.annotations = Some([(labels::TEMPLATE_HASH.to_owned(), template_hash.clone())].into());
    let daemon_set = json!({
        "metadata": meta,
        "spec": {
            "minReadySeconds": MIN_READY_SECONDS,
            "revisionHistoryLimit": REVISIONS_MAX,
            "selector": {"matchLabels": labels::selector(&pipeline.name_any(), Tier::Agent.component())},
            "updateStrategy": update_strategy(inputs, &template_hash),
            "template": template,
        },
    });
    Child::new(Kind::DaemonSet, &daemon_set)
}

fn update_strategy(inputs: &Inputs<'_>, template_hash: &str) -> Value {
    let agents_roll =
        inputs.live.daemon_set.as_ref().is_some_and(|live| live.is_rolling(template_hash));
    if agents_roll && deployment::is_rolling(inputs) {
        // What an agent retains for a lost gateway is lost with the agent: the tiers change one after the
        // other. So agents stay as they are until the gateways are done; only nodes that are new get the
        // new template.
        return json!({"type": "OnDelete"});
    }
    // Two agents can share a node for a moment, but not its ports.
    let pace = match inputs.pipeline.spec.agent.receivers.host_port {
        true => json!({"maxSurge": 0, "maxUnavailable": 1}),
        false => json!({"maxSurge": 1, "maxUnavailable": 0}),
    };
    json!({"type": "RollingUpdate", "rollingUpdate": pace})
}
