//! Which namespaces an operator cares for.

use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicResourceScope},
};

use crate::stores::Guarded;

/// One namespace, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Needs a ClusterRole.
    Cluster,
    /// A Role in the namespace is enough.
    Namespace(String),
}

// === impl Scope ===

impl Scope {
    /// One for each namespace; none stands for all of them.
    pub fn from_namespaces(namespaces: &[String]) -> Vec<Self> {
        if namespaces.is_empty() {
            return vec![Self::Cluster];
        }
        let mut names = namespaces.to_vec();
        names.sort();
        names.dedup();
        names.into_iter().map(Self::Namespace).collect()
    }

    /// Where to list and watch pipelines.
    pub fn pipelines(&self, client: &Client) -> Api<Guarded> {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(name) => Api::namespaced(client.clone(), name),
        }
    }

    /// Where to list and watch anything else.
    pub fn objects<K>(&self, client: &Client, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        match self {
            Self::Cluster => Api::all_with(client.clone(), resource),
            Self::Namespace(name) => Api::namespaced_with(client.clone(), name, resource),
        }
    }
}
