//! What the operator was started with and found in the cluster, as far as children depend on it.

use std::collections::BTreeSet;

use crate::kind::Kind;

/// What children depend on besides their pipeline. It does not change while the operator runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data plane's image, for tiers that name none.
    pub image: String,
    /// `imagePullPolicy` of the data plane's containers; the kubelet's default without it.
    pub image_pull_policy: Option<String>,
    /// The version of this operator, for labels and `status.observedVersion`.
    pub version: String,
    /// The optional kinds that the cluster serves.
    pub optional_kinds: BTreeSet<Kind>,
    /// Whether a `podTemplate` may reach for more than its author has.
    pub allow_unsafe_pod_template: bool,
}
