//! What exists already of a pipeline, as far as its next children depend on it.

use std::collections::BTreeMap;

use serde_json::Value;

/// The present of one pipeline. Everything is empty for a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// First 16 hex digits of the SHA-256 of the ring seed. Pods that hold another seed would compute another
    /// ring, so it belongs into their config hash.
    pub seed_hash: String,
    /// Its Deployments by name: the gateways, of one colour or two.
    pub deployments: BTreeMap<String, Workload>,
    /// Its agents.
    pub daemon_set: Option<Workload>,
    /// Gateways that say at `/stats` that they are part of the ring, by pod name.
    pub ring_members: Vec<String>,
    /// Gateways that say there that they are on their way out.
    pub ring_draining: u32,
    /// Pods of gateways that are being deleted, for when no gateway can be asked.
    pub leaving_gateways: u32,
}

/// What there is of one Deployment or DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `ringtail.dev/config-hash` of its pod template.
    pub config_hash: Option<String>,
    /// `ringtail.dev/template-hash`.
    pub template_hash: Option<String>,
    /// `spec.template` of a Deployment as it is, for one that is to stay so; null for a DaemonSet.
    pub template: Value,
    /// `ringtail.dev/colour`.
    pub colour: Option<String>,
    /// `spec.replicas`; for a DaemonSet the nodes that should run it.
    pub desired: i32,
    /// Pods that exist.
    pub present: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that are available.
    pub available: i32,
    /// Whether its controller has seen the newest spec.
    pub observed: bool,
    /// The field manager that owns `spec.replicas`, if it is not this operator.
    pub replicas_owner: Option<String>,
}

// === impl Workload ===

impl Workload {
    /// Whether every pod is of the newest template and ready.
    pub fn is_rolled_out(&self) -> bool {
        self.observed
            && [self.ready, self.updated, self.available].iter().all(|n| *n >= self.desired)
    }

    /// Whether it has pods of another template than the one with this hash.
    pub fn is_rolling(&self, template_hash: &str) -> bool {
        let is_told = self.template_hash.as_deref() == Some(template_hash) && self.observed;
        self.present > 0 && !(is_told && self.updated >= self.present)
    }
}
