//! `spec.gateway`: the tier that gathers traces and decides.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The largest fleet that is supported and measured.
pub(crate) const REPLICAS_MAX: u32 = 64;

/// The tier that gathers the spans of each trace, decides, and exports what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gateway {
    /// How many gateways share the traces.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub replicas: u32,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { replicas: replicas() }
    }
}

// Three keep two while one is away, which is what a tier that buffers undecided traces needs.
fn replicas() -> u32 {
    3
}
