//! What is known of the cluster, kept up to date by the watches.

use std::{collections::HashMap, sync::Arc};

use kube::{
    Resource, ResourceExt,
    api::{DynamicObject, ObjectMeta, PartialObjectMeta},
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use ringtail_crds::TracePipeline;

use crate::{kind::Kind, labels};

/// A pipeline, or what is left of one that cannot be read.
pub type Guarded = DeserializeGuard<TracePipeline>;
/// Metadata of a child.
pub type ChildMeta = PartialObjectMeta<DynamicObject>;

/// What is known of the cluster.
#[derive(Clone)]
pub struct Stores {
    /// The pipelines.
    pub pipelines: Store<Guarded>,
    /// The children that are no workloads.
    pub children: Arc<HashMap<Kind, Store<ChildMeta>>>,
    /// Deployments and DaemonSets.
    pub workloads: Arc<HashMap<Kind, Store<DynamicObject>>>,
    /// The pods of both tiers.
    pub pods: Store<DynamicObject>,
}

// === impl Stores ===

impl Stores {
    /// The metadata of a child, if there is one.
    pub fn child(&self, kind: Kind, namespace: &str, name: &str) -> Option<ObjectMeta> {
        if let Some(store) = self.workloads.get(&kind) {
            let key = ObjectRef::new_with(name, kind.resource()).within(namespace);
            return store.get(&key).map(|object| object.metadata.clone());
        }
        let key = ObjectRef::new_with(name, kind.resource()).within(namespace);
        self.children.get(&kind)?.get(&key).map(|object| object.metadata.clone())
    }

    /// The metadata of all children that a pipeline owns, by kind and name.
    pub fn children_of(&self, uid: &str) -> Vec<(Kind, ObjectMeta)> {
        let mut found = Vec::new();
        for (kind, store) in self.children.iter() {
            let owned = store.state_filter(|child| is_owned_by(child.meta(), uid));
            found.extend(owned.into_iter().map(|child| (*kind, child.metadata.clone())));
        }
        for (kind, store) in self.workloads.iter() {
            let owned = store.state_filter(|child| is_owned_by(child.meta(), uid));
            found.extend(owned.into_iter().map(|child| (*kind, child.metadata.clone())));
        }
        found.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        found
    }

    /// The workloads of a kind that a pipeline owns, by name.
    pub fn workloads_of(&self, kind: Kind, uid: &str) -> Vec<Arc<DynamicObject>> {
        let Some(store) = self.workloads.get(&kind) else {
            return Vec::new();
        };
        let mut found = store.state_filter(|workload| is_owned_by(workload.meta(), uid));
        found.sort_by_key(|workload| workload.name_any());
        found
    }

    /// The pods of a pipeline, by name.
    pub fn pods_of(&self, namespace: &str, pipeline: &str) -> Vec<Arc<DynamicObject>> {
        let mut found = self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.labels().get(labels::PIPELINE).is_some_and(|name| name == pipeline)
        });
        found.sort_by_key(|pod| pod.name_any());
        found
    }

    /// Comes back when every store has been filled once.
    pub async fn wait_until_ready(&self) {
        let mut ready = self.pipelines.wait_until_ready().await.is_ok();
        ready &= self.pods.wait_until_ready().await.is_ok();
        for store in self.children.values() {
            ready &= store.wait_until_ready().await.is_ok();
        }
        for store in self.workloads.values() {
            ready &= store.wait_until_ready().await.is_ok();
        }
        // A writer lives as long as its watch; without it the process is on its way out.
        if !ready {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the pipeline with that UID is the controlling owner.
pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == uid)
}
