//! Role of a tier: the addresses of gateways, and the pipeline's own ConfigMap.

use serde_json::json;

use super::{Child, Inputs, config_map, tier::Tier};
use crate::kind::Kind;

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>, tier: Tier) -> Child {
    let role = json!({
        "metadata": inputs.meta(tier.component(), tier.child_name(inputs.pipeline)),
        "rules": [
            {
                "apiGroups": ["discovery.k8s.io"],
                // Names of slices are made up by the cluster, so they cannot be named here.
                "resources": ["endpointslices"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": [config_map::name(inputs.pipeline)],
                "verbs": ["get", "list", "watch"],
            },
        ],
    });
    Child::new(Kind::Role, &role)
}
