//! Where a role looks for gateways and for a newer manifest, from its flags and the manifest that it has.

use std::sync::Arc;

use ringtail_crds::ValidPipeline;

use super::stop::Parent;
use super::{RoleError, RoleOptions};
use crate::config::{Follower, InForce, Loaded, READ_EVERY, Remote};
use crate::discovery::Discovery;
use crate::discovery::cluster::Cluster;
use crate::discovery::slices::PortChoice;
use crate::metrics::{Source, TierSource};

/// Where a pod says in which namespace it is, by the downward API.
const NAMESPACE_VARIABLE: &str = "POD_NAMESPACE";
/// The port of a gateway that takes OTLP/gRPC and, without TLS between the tiers, the peer protocol.
const GRPC_PORT: PortChoice<'static> = PortChoice { names: &["otlp-grpc"], otherwise: 4317 };

/// The outside of a role.
#[derive(Debug)]
pub struct Neighbours {
    /// Where gateways may be.
    pub discovery: Discovery,
    /// The manifest in the cluster.
    remote: Option<Remote>,
}

// === impl Neighbours ===

impl Neighbours {
    /// An agent needs gateways: `given` by flags, in the manifest, or in the cluster.
    pub(super) async fn of_agent(
        role: &RoleOptions,
        given: &[String],
        pipeline: &ValidPipeline,
    ) -> Result<Self, RoleError> {
        if role.watch_kubernetes && given.is_empty() {
            let service = format!("{}-gateway-headless", pipeline.name);
            return Self::in_cluster(role, &service, pipeline).await;
        }
        let fixed = if given.is_empty() { &pipeline.gateways } else { given };
        if fixed.is_empty() {
            let why = "the agent knows no gateway: name them in \
                       spec.routing.resolver.static.endpoints, or with --gateway HOST:PORT";
            return Err(RoleError::Usage(why.to_owned()));
        }
        Ok(Self { discovery: Discovery::fixed(fixed), remote: None })
    }

    /// A gateway may be the only one.
    pub(super) async fn of_gateway(
        role: &RoleOptions,
        given: &[String],
        pipeline: &ValidPipeline,
        parent: Option<&Parent>,
    ) -> Result<Self, RoleError> {
        let discovery = match parent {
            _ if !given.is_empty() => Discovery::fixed(given),
            Some(parent) => Discovery::told(parent.peers.clone()),
            None if role.watch_kubernetes => {
                let service = format!("{}-gateway-peers", pipeline.name);
                return Self::in_cluster(role, &service, pipeline).await;
            }
            None => Discovery::fixed(&pipeline.gateways),
        };
        Ok(Self { discovery, remote: None })
    }

    async fn in_cluster(
        role: &RoleOptions,
        service: &str,
        pipeline: &ValidPipeline,
    ) -> Result<Self, RoleError> {
        let namespace = role.namespace.clone().or_else(|| std::env::var(NAMESPACE_VARIABLE).ok());
        let cluster = Cluster::configure(role.kubeconfig.as_deref(), namespace)
            .await
            .map_err(|error| RoleError::Usage(error.to_string()))?;
        let (texts, health) = cluster.manifest(&format!("{}-pipeline", pipeline.name));
        let discovery = cluster.gateways(service, GRPC_PORT);
        Ok(Self { discovery, remote: Some(Remote { texts, health }) })
    }

    /// What the role shows of itself, and the task that follows its manifest.
    pub(super) fn follow(
        self,
        role: &RoleOptions,
        loaded: &Loaded,
        tier: TierSource,
    ) -> (Source, Follower) {
        let config = Arc::new(InForce::new(loaded.hash.clone()));
        let follower = Follower {
            path: role.pipeline.clone(),
            name: loaded.pipeline.name.clone(),
            remote: self.remote.clone(),
            in_force: Arc::clone(&config),
            read_every: READ_EVERY,
        };
        let manifest = self.remote.map(|remote| remote.health);
        (Source { tier, discovery: self.discovery.health, manifest, config }, follower)
    }
}
