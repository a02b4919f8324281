//! Where gateways may run.

use kube::ResourceExt;
use ringtail_crds::gateway::AntiAffinity;
use serde_json::{Value, json};

use super::{Inputs, colour::Colour, tier::Tier};
use crate::labels;

/// The largest: nothing but Required should decide in its place.
const WEIGHT_MAX: u32 = 100;

/// The affinity of a tier's pods.
pub(super) fn affinity(inputs: &Inputs<'_>, tier: Tier, colour: Colour) -> Value {
    let mut affinity = json!(tier.pod(inputs.pipeline).affinity);
    if tier == Tier::Gateway {
        let term = json!({
            "labelSelector": selector(inputs, tier, colour),
            "topologyKey": "kubernetes.io/hostname",
        });
        // Validation does not let `affinity.podAntiAffinity` and this one meet.
        match inputs.pipeline.spec.gateway.anti_affinity {
            AntiAffinity::Required => {
                affinity["podAntiAffinity"] =
                    json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
            }
            AntiAffinity::Preferred => {
                let weighted = json!({"weight": WEIGHT_MAX, "podAffinityTerm": term});
                affinity["podAntiAffinity"] =
                    json!({"preferredDuringSchedulingIgnoredDuringExecution": [weighted]});
            }
            AntiAffinity::None => {}
        }
    }
    affinity
}

/// The constraints of spread. One that does not say which pods it counts counts those that the pod would
/// share the node with by anti-affinity too.
pub(super) fn spread(inputs: &Inputs<'_>, tier: Tier, colour: Colour) -> Vec<Value> {
    let constraints = &tier.pod(inputs.pipeline).topology_spread_constraints;
    let with_selector = |constraint: &_| {
        let mut constraint = json!(constraint);
        if constraint["labelSelector"].is_null() {
            constraint["labelSelector"] = selector(inputs, tier, colour);
        }
        constraint
    };
    constraints.iter().map(with_selector).collect()
}

// The pods of one Deployment. While one Deployment replaces another each of them has every node to itself:
// with three nodes and three gateways there would be no place for a fourth.
fn selector(inputs: &Inputs<'_>, tier: Tier, colour: Colour) -> Value {
    let mut labels = labels::selector(&inputs.pipeline.name_any(), tier.component());
    match (tier, colour.label()) {
        (Tier::Agent, _) => json!({"matchLabels": labels}),
        (Tier::Gateway, Some(colour)) => {
            labels.insert(labels::COLOUR.to_owned(), colour.to_owned());
            json!({"matchLabels": labels})
        }
        (Tier::Gateway, None) => json!({
            "matchLabels": labels,
            "matchExpressions": [{"key": labels::COLOUR, "operator": "DoesNotExist"}],
        }),
    }
}
