//! ConfigMap `<name>-pipeline`: the manifest that the data plane reads.

use kube::ResourceExt;
use ringtail_crds::{TracePipeline, resolved_manifest};
use serde_json::json;

use super::{Child, Inputs};
use crate::{kind::Kind, labels::Component};

/// The key of the manifest.
pub(crate) const KEY: &str = "pipeline.yaml";

/// Its name.
pub(super) fn name(pipeline: &TracePipeline) -> String {
    format!("{}-pipeline", pipeline.name_any())
}

/// Builds it.
pub(super) fn build(inputs: &Inputs<'_>) -> Child {
    // Whatever passed validation can be written. Should a writer ever disagree, no pod takes an empty
    // manifest over for the one that it has.
    let manifest = resolved_manifest(inputs.pipeline).unwrap_or_default();
    let config_map = json!({
        "metadata": inputs.meta(Component::Pipeline, name(inputs.pipeline)),
        "data": {KEY: manifest},
    });
    Child::new(Kind::ConfigMap, &config_map)
}
