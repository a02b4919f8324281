//! RoleBinding of a tier: its Role for the ServiceAccount that its pods run as.

use kube::ResourceExt;
use serde_json::json;

use super::{Child, Inputs, tier::Tier};
use crate::kind::Kind;

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>, tier: Tier) -> Child {
    let name = tier.child_name(inputs.pipeline);
    let role_binding = json!({
        "metadata": inputs.meta(tier.component(), name.clone()),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{
            "kind": "ServiceAccount",
            "name": tier.service_account(inputs.pipeline),
            "namespace": inputs.pipeline.namespace(),
        }],
    });
    Child::new(Kind::RoleBinding, &role_binding)
}
