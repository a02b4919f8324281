//! PodDisruptionBudget: how many gateways may be away when nodes are drained.

use kube::ResourceExt;
use serde_json::json;

use super::{Child, Inputs, tier::Tier};
use crate::{kind::Kind, labels};

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>) -> Child {
    let gateway = &inputs.pipeline.spec.gateway;
    let selector = labels::selector(&inputs.pipeline.name_any(), Tier::Gateway.component());
    let budget = json!({
        "metadata": inputs.meta(Tier::Gateway.component(), Tier::Gateway.child_name(inputs.pipeline)),
        "spec": {
            "maxUnavailable": gateway.disruption_budget.max_unavailable.to_int_or_string(),
            "selector": {"matchLabels": selector},
            // A gateway that is not ready holds nothing that a drain could lose, and a rollout that crashes
            // must not keep nodes from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    Child::new(Kind::PodDisruptionBudget, &budget)
}
