//! The tiers that the operator runs, and what differs between them.

use kube::ResourceExt;
use ringtail_crds::{
    TracePipeline,
    agent::AgentMode,
    gateway::GatewayType,
    pod::Pod,
    security::{PeerTls, PeerTlsMode},
};

use crate::labels::Component;

/// A tier of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// One on every node.
    Agent,
    /// As many as `spec.gateway.replicas`.
    Gateway,
}

// === impl Tier ===

impl Tier {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Agent, Self::Gateway];

    /// Whether the operator runs this tier.
    pub(super) fn is_managed(self, pipeline: &TracePipeline) -> bool {
        match self {
            Self::Agent => pipeline.spec.agent.mode == AgentMode::DaemonSet,
            Self::Gateway => pipeline.spec.gateway.type_ == GatewayType::Managed,
        }
    }

    /// Whether its pods ask the API server: for gateways that come and go, and for newer policies. Agents
    /// with a fixed list of gateways have nothing to ask for.
    pub(super) fn asks_the_cluster(self, pipeline: &TracePipeline) -> bool {
        match self {
            Self::Agent => pipeline.spec.gateway.type_ == GatewayType::Managed,
            Self::Gateway => true,
        }
    }

    /// As in labels.
    pub(super) fn component(self) -> Component {
        match self {
            Self::Agent => Component::Agent,
            Self::Gateway => Component::Gateway,
        }
    }

    /// The settings of its pods.
    pub(super) fn pod(self, pipeline: &TracePipeline) -> &Pod {
        match self {
            Self::Agent => &pipeline.spec.agent.pod,
            Self::Gateway => &pipeline.spec.gateway.pod,
        }
    }

    /// What its children are called, such as `shop-agent`.
    pub(super) fn child_name(self, pipeline: &TracePipeline) -> String {
        format!("{}-{}", pipeline.name_any(), self.component().name())
    }

    /// The ServiceAccount that its pods run as.
    pub(super) fn service_account(self, pipeline: &TracePipeline) -> String {
        let given = self.pod(pipeline).service_account_name.clone();
        given.unwrap_or_else(|| self.child_name(pipeline))
    }

    /// The Secret with the certificate of its pods, if they have one.
    pub(super) fn peer_tls_secret(self, pipeline: &TracePipeline) -> Option<String> {
        let PeerTls { mode, secret_ref } = &pipeline.spec.security.peer_tls;
        match mode {
            PeerTlsMode::Disabled => None,
            PeerTlsMode::SecretRef => secret_ref.as_ref().map(|secrets| match self {
                Self::Agent => secrets.agent.clone(),
                Self::Gateway => secrets.gateway.clone(),
            }),
            // Gateways of somebody else cannot have a certificate of a CA that the operator keeps to itself.
            PeerTlsMode::Managed => Self::Gateway
                .is_managed(pipeline)
                .then(|| format!("{}-peer-tls", self.child_name(pipeline))),
        }
    }
}
