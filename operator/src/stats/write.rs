//! `status.ring` and `status.sampling`, by a field manager of their own so that two writers never fight.

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use ringtail_crds::{
    TracePipeline, schema,
    status::{FencedStatus, RingStatus, SamplingStatus},
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
                handed_over_traces: two_digits(sums.handed_over),
                replayed_spans: two_digits(sums.replayed_spans),
                unprotected_spans: two_digits(sums.unprotected_spans),
                fenced_seconds: FencedStatus {
                    peers: seconds(sums.fenced_peers),
                    agents: seconds(sums.fenced_agents),
                    minority: seconds(sums.fenced_minority),
                },
                reporting_pods: Some(format!("{}/{}", view.answered, view.expected)),
            },
        }
    }
}

fn seconds(millis: u64) -> i64 {
    two_digits((millis + 500) / 1_000)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ring::Ring;

    #[test]
    fn numbers_are_rounded_and_who_is_missing_is_counted() {
        let ring = Ring {
            standing: Standing::Converged,
            digest: "d".to_owned(),
            members: ["g0", "g1", "g2"].map(str::to_owned).to_vec(),
            observers: 1_234,
            agreeing: 1_233,
            ..Ring::default()
        };
        let view = View { ring, answered: 2, expected: 3, ..View::default() };
        let churn = Sums {
            handed_over: 5_678,
            unprotected_spans: 3,
            fenced_peers: 499,
            fenced_agents: 4_250,
            ..Sums::default()
        };
        let sums = Sums { kept: 1_234, sampled_away: 98_766, late_spans: 7, ..churn };
        let written = Written::of(&view, sums);
        insta::assert_json_snapshot!(json!([written.ring, written.sampling]), @r#"
        [
          {
            "agreeing": 1233,
            "digest": "d",
            "draining": 0,
            "members": 3,
            "observers": 1234,
            "ready": 2
          },
          {
            "droppedSpans": 0,
            "earlyTraces": 0,
            "fencedSeconds": {
              "agents": 4,
              "minority": 0,
              "peers": 0
            },
            "handedOverTraces": 5700,
            "keptPermille": 12,
            "lateSpans": 7,
            "replayedSpans": 0,
            "reportingPods": "2/3",
            "tracesDecided": 100000,
            "unprotectedSpans": 3,
            "window": "5m"
          }
        ]
        "#);
        let idle = Written::of(&view, Sums::default());
        assert_eq!(idle.sampling.kept_permille, None, "nothing of nothing is not zero");
    }
}
