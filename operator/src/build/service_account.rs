//! ServiceAccount of a tier, unless its pods run as one that somebody else made.

use serde_json::json;

use super::{Child, Inputs, tier::Tier};
use crate::kind::Kind;

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>, tier: Tier) -> Option<Child> {
    if tier.pod(inputs.pipeline).service_account_name.is_some() {
        return None;
    }
    let service_account = json!({
        "metadata": inputs.meta(tier.component(), tier.child_name(inputs.pipeline)),
        // Pods that need a token ask for it themselves.
        "automountServiceAccountToken": false,
    });
    Some(Child::new(Kind::ServiceAccount, &service_account))
}
