//! `status.ring` and `status.sampling`, by a field manager of their own so that two writers never fight.

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use ringtail_crds::{
    TracePipeline, schema,
    status::{RingStatus, SamplingStatus},
};
use serde_json::json;

use super::{
    ring::Standing,
    tally::{Sums, WINDOW},
    view::View,
};
use crate::quantise::two_digits;

/// Owns `status.ring` and `status.sampling`.
pub const FIELD_MANAGER: &str = "ringtail-operator/stats";

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// A change of it is written at once.
    pub standing: Standing,
    /// `status.ring`.
    pub ring: RingStatus,
    /// `status.sampling`.
    pub sampling: SamplingStatus,
}

// === impl Written ===

impl Written {
    /// The status of a view.
    pub fn of(view: &View, sums: Sums) -> Self {
        let ring = &view.ring;
        let members = u32::try_from(ring.members.len()).unwrap_or(u32::MAX);
        Self {
            standing: ring.standing,
            ring: RingStatus {
                digest: Some(ring.digest.clone()).filter(|digest| !digest.is_empty()),
                members,
                ready: view.answered.min(members),
                draining: ring.draining,
                observers: ring.observers,
                agreeing: ring.agreeing,
            },
            sampling: SamplingStatus {
                window: Some(WINDOW.to_owned()),
                traces_decided: two_digits(sums.decided()),
                kept_permille: sums.kept_permille().and_then(|n| u32::try_from(two_digits(n)).ok()),
                late_spans: two_digits(sums.late_spans),
                early_traces: two_digits(sums.early),
                dropped_spans: two_digits(sums.dropped_spans + sums.unexported_spans),
                reporting_pods: Some(format!("{}/{}", view.answered, view.expected)),
            },
        }
    }
}

/// Writes it.
pub async fn write(
    client: &Client,
    pipeline: &TracePipeline,
    wanted: &Written,
) -> kube::Result<()> {
    let namespace = pipeline.namespace().unwrap_or_default();
    let api: Api<TracePipeline> = Api::namespaced(client.clone(), &namespace);
    // The UID keeps what belongs to a deleted pipeline out of a new one of the same name.
    let patch = json!({
        "apiVersion": schema::API_VERSION,
        "kind": schema::KIND,
        "metadata": {"name": pipeline.name_any(), "uid": pipeline.uid()},
        "status": {"ring": wanted.ring, "sampling": wanted.sampling},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&pipeline.name_any(), &params, &Patch::Apply(&patch)).await.map(drop)
}
