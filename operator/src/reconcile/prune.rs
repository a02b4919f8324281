//! The stage that deletes children that are no longer wanted.

use std::collections::HashSet;

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ObjectMeta, Preconditions, PropagationPolicy},
};
use ringtail_crds::TracePipeline;

use crate::{build::Child, failure::Failure, kind::Kind, labels, stores::Stores};

/// Deletes what the pipeline owns and nobody wants, and says what that was. Only for after everything that is
/// wanted was applied: what replaces a child must be there before the child goes.
pub async fn prune(
    client: &Client,
    stores: &Stores,
    pipeline: &TracePipeline,
    wanted: &[Child],
) -> Result<Vec<String>, Failure> {
    let uid = pipeline.uid().unwrap_or_default();
    let names: HashSet<_> = wanted.iter().map(|child| (child.kind, child.name.as_str())).collect();
    let mut pruned = Vec::new();
    for (kind, meta) in stores.children_of(&uid) {
        let name = meta.name.clone().unwrap_or_default();
        if names.contains(&(kind, name.as_str())) || !is_ours(&meta, pipeline) {
            continue;
        }
        delete(client, kind, &name, &meta).await?;
        tracing::info!(%kind, name, "pruned");
        pruned.push(format!("{kind} {name}"));
    }
    Ok(pruned)
}

// By owner and by labels: an object that somebody hung under the pipeline is theirs.
fn is_ours(meta: &ObjectMeta, pipeline: &TracePipeline) -> bool {
    let label = |key| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    meta.deletion_timestamp.is_none()
        && meta.namespace == pipeline.namespace()
        && label(labels::MANAGED_BY) == Some(labels::OPERATOR)
        && label(labels::PIPELINE) == Some(pipeline.name_any().as_str())
}

async fn delete(client: &Client, kind: Kind, name: &str, meta: &ObjectMeta) -> Result<(), Failure> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource());
    let params = DeleteParams {
        // As it was seen: a Deployment that got pods since is looked at again.
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        // Gone already, or another object has its name by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        answer => answer.map(drop).map_err(Failure::request("delete", format!("{kind} {name}"))),
    }
}
