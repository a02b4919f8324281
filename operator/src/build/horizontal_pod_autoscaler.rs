//! HorizontalPodAutoscaler: sets the replicas of the pipeline, never those of a Deployment.

use kube::ResourceExt;
use ringtail_crds::{autoscaling::Autoscaling, schema};
use serde_json::{Value, json};

use super::{Child, Inputs, tier::Tier};
use crate::kind::Kind;

/// The gateways' metric of how full their buffers are. An adapter has to serve it as a metric of pods.
const BUFFER_UTILIZATION: &str = "ringtail_buffer_utilization_percent";

/// Builds it, if the pipeline wants one.
pub(super) fn build(inputs: &Inputs<'_>) -> Option<Child> {
    let autoscaling = inputs.pipeline.spec.gateway.autoscaling.as_ref()?;
    let name = inputs.pipeline.name_any();
    let mut autoscaler = json!({
        "metadata": inputs.meta(Tier::Gateway.component(), name.clone()),
        "spec": {
            "scaleTargetRef": {"apiVersion": schema::API_VERSION, "kind": schema::KIND, "name": name},
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": metrics(autoscaling),
        },
    });
    if let Some(behavior) = &autoscaling.behavior {
        autoscaler["spec"]["behavior"] = json!(behavior);
    }
    Some(Child::new(Kind::HorizontalPodAutoscaler, &autoscaler))
}

fn metrics(autoscaling: &Autoscaling) -> Vec<Value> {
    let cpu = autoscaling.target_cpu_utilization_percentage.map(|percent| {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    });
    let buffer = autoscaling.target_buffer_utilization_percentage.map(|percent| {
        let target = json!({"type": "AverageValue", "averageValue": percent.to_string()});
        let metric = json!({"name": BUFFER_UTILIZATION});
        json!({"type": "Pods", "pods": {"metric": metric, "target": target}})
    });
    [cpu, buffer].into_iter().flatten().collect()
}
