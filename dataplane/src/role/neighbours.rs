//! Where a role looks for gateways and for a newer manifest, from its flags and the manifest that it has.

use std::sync::Arc;

use ringtail_crds::ValidPipeline;
use ringtail_crds::resolved::{Dns, Resolver};
use ringtail_crds::routing::RoutingKey;

use super::stop::Parent;
use super::{RoleError, RoleOptions};
use crate::config::{Follower, InForce, Loaded, READ_EVERY, Remote};
use crate::discovery::Discovery;
use crate::discovery::cluster::Cluster;
use crate::discovery::slices::PortChoice;
use crate::metrics::{Shown, Source, TierSource};

/// Where a pod says in which namespace it is, by the downward API.
const NAMESPACE_VARIABLE: &str = "POD_NAMESPACE";
/// The port of a gateway that takes OTLP/gRPC and, without TLS between the tiers, the peer protocol.
const GRPC_PORT: PortChoice<'static> = PortChoice { names: &["otlp-grpc"], otherwise: 4317 };
/// The port of a gateway that takes the peer protocol in TLS.
const PEER_PORT: PortChoice<'static> =
    PortChoice { names: &["peer", "otlp-grpc"], otherwise: 4319 };

/// The outside of a role.
#[derive(Debug)]
pub struct Neighbours {
    /// Where gateways may be.
    pub discovery: Discovery,
    /// The manifest in the cluster.
    remote: Option<Remote>,
}

/// Whether somebody has said where the API server is. What lies in a home directory is for kubectl: a fleet
/// on a laptop must not turn to whatever cluster was used last.
fn has_cluster(role: &RoleOptions) -> bool {
    let named = |variable| std::env::var_os(variable).is_some();
    role.kubeconfig.is_some() || named("KUBECONFIG") || named("KUBERNETES_SERVICE_HOST")
}

// === impl Neighbours ===

impl Neighbours {
    /// An agent needs gateways: `given` by flags, in the manifest, or in the cluster.
    pub(super) async fn of_agent(
        role: &RoleOptions,
        given: &[String],
        pipeline: &ValidPipeline,
        parent: Option<&Parent>,
    ) -> Result<Self, RoleError> {
        if let Some(parent) = parent.filter(|_| given.is_empty()) {
            return Ok(Self::told(parent));
        }
        match &pipeline.resolver {
            _ if !given.is_empty() => Ok(Self::fixed(given)),
            Resolver::Static(endpoints) => Ok(Self::fixed(endpoints)),
            Resolver::Dns(settings) => Self::named(settings),
            Resolver::Kubernetes if has_cluster(role) => {
                let service = format!("{}-gateway-headless", pipeline.name);
                Self::in_cluster(role, &service, pipeline).await
            }
            Resolver::Kubernetes => Err(RoleError::Usage(
                "the agent knows no gateway: run it in a pod, set KUBECONFIG or --kubeconfig, name \
                 gateways with --gateway HOST:PORT, or in spec.routing.resolver with \
                 spec.gateway.type External"
                    .to_owned(),
            )),
        }
    }

    /// A gateway may be the only one.
    pub(super) async fn of_gateway(
        role: &RoleOptions,
        given: &[String],
        pipeline: &ValidPipeline,
        parent: Option<&Parent>,
    ) -> Result<Self, RoleError> {
        if pipeline.routing_key == RoutingKey::Service {
            return Self::alone(role, pipeline).await;
        }
        match (&pipeline.resolver, parent) {
            _ if !given.is_empty() => Ok(Self::fixed(given)),
            (_, Some(parent)) => Ok(Self::told(parent)),
            (Resolver::Static(endpoints), None) => Ok(Self::fixed(endpoints)),
            (Resolver::Dns(settings), None) => Self::named(settings),
            (Resolver::Kubernetes, None) if has_cluster(role) => {
                let service = format!("{}-gateway-peers", pipeline.name);
                Self::in_cluster(role, &service, pipeline).await
            }
            (Resolver::Kubernetes, None) => {
                tracing::warn!(
                    "no cluster and no --peer: this gateway takes itself for the only one"
                );
                Ok(Self::fixed(&[]))
            }
        }
    }

    /// The parent lists gateways, and does so again when they change.
    fn told(parent: &Parent) -> Self {
        Self { discovery: Discovery::told(parent.peers.clone()), remote: None }
    }

    fn fixed(addresses: &[String]) -> Self {
        Self { discovery: Discovery::fixed(addresses), remote: None }
    }

    fn named(settings: &Dns) -> Result<Self, RoleError> {
        let discovery = Discovery::dns(settings.clone())
            .map_err(|problem| RoleError::Usage(problem.to_string()))?;
        Ok(Self { discovery, remote: None })
    }

    /// A gateway that gets services decides what it has: to pass spans on to the owner of their trace would
    /// undo what agents do.
    async fn alone(role: &RoleOptions, pipeline: &ValidPipeline) -> Result<Self, RoleError> {
        let alone = Self::fixed(&[]);
        let watches = pipeline.resolver == Resolver::Kubernetes && has_cluster(role);
        if !watches {
            return Ok(alone);
        }
        let service = format!("{}-gateway-peers", pipeline.name);
        let Self { remote, .. } = Self::in_cluster(role, &service, pipeline).await?;
        Ok(Self { remote, ..alone })
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
        let port = if role.peer_tls.is_some() { PEER_PORT } else { GRPC_PORT };
        let discovery = cluster.gateways(service, port);
        Ok(Self { discovery, remote: Some(Remote { texts, health }) })
    }

    /// What the role shows of itself, and the task that follows its manifest.
    pub(super) fn follow(
        self,
        role: &RoleOptions,
        loaded: &Loaded,
        tier: TierSource,
        shown: Shown,
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
        let Shown { keyring, guard, receiving } = shown;
        let discovery = self.discovery.health;
        (Source { tier, discovery, manifest, config, keyring, guard, receiving }, follower)
    }
}
