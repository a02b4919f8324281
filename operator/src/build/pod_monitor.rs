//! PodMonitor: lets Prometheus scrape the pods of a pipeline, where its operator is installed.

use kube::ResourceExt;
use serde_json::json;

use super::{Child, Inputs, port::ADMIN};
use crate::{
    kind::Kind,
    labels::{self, Component},
};

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>) -> Child {
    let name = inputs.pipeline.name_any();
    let monitor = json!({
        "metadata": inputs.meta(Component::Pipeline, name.clone()),
        "spec": {
            "selector": {"matchLabels": {labels::PIPELINE: name}},
            "podMetricsEndpoints": [{
                "port": ADMIN.name,
                "path": "/metrics",
                // What the dashboard and the alerts call them.
                "relabelings": [
                    {
                        "sourceLabels": ["__meta_kubernetes_pod_label_ringtail_dev_pipeline"],
                        "targetLabel": "pipeline",
                    },
                    {
                        "sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"],
                        "targetLabel": "component",
                    },
                ],
            }],
        },
    });
    Child::new(Kind::PodMonitor, &monitor)
}
