//! The Secrets that a pipeline refers to, and the way back.

use kube::runtime::reflector::{ObjectRef, Store};
use ringtail_crds::TracePipeline;

use crate::stores::Guarded;

/// A key of a Secret in the pipeline's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// What the pipeline refers to, sorted.
pub fn of(_pipeline: &TracePipeline) -> Vec<SecretKey> {
    Vec::new()
}

/// The pipelines that refer to a Secret.
pub fn referring(pipelines: &Store<Guarded>, namespace: &str, secret: &str) -> Vec<ObjectRef<Guarded>> {
    let refers = |pipeline: &Guarded| {
        pipeline.0.as_ref().is_ok_and(|pipeline| {
            pipeline.metadata.namespace.as_deref() == Some(namespace)
                && of(pipeline).iter().any(|reference| reference.name == secret)
        })
    };
    let found = pipelines.state_filter(refers);
    found.iter().map(|pipeline| ObjectRef::from_obj(pipeline.as_ref())).collect()
}
