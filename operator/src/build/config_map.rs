//! ConfigMap `<name>-pipeline`: the manifest that the data plane reads.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use ringtail_crds::schema;
use serde_json::json;

use super::{Child, Inputs};
use crate::{kind::Kind, labels::Component};

/// The key of the manifest.
pub(crate) const KEY: &str = "pipeline.yaml";

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>) -> Child {
    let name = inputs.pipeline.name_any();
    let manifest = json!({
        "apiVersion": schema::API_VERSION,
        "kind": schema::KIND,
        "metadata": {"name": name},
        "spec": inputs.pipeline.spec,
    });
    let config_map = ConfigMap {
        metadata: inputs.meta(Component::Pipeline, format!("{name}-pipeline")),
        // JSON is YAML.
        data: Some(BTreeMap::from([(KEY.to_owned(), format!("{manifest:#}\n"))])),
        ..ConfigMap::default()
    };
    Child::new(Kind::ConfigMap, &config_map)
}
