//! The command line of `ringtail-operator`.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;

use crate::peer_tls::CERTIFICATE_LIFETIME;

/// The version, which is also that of the data plane's image.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reconciles TracePipelines into fleets that sample traces by their tails.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ringtail-operator",
    version,
    after_help = "ringtail-operator check URL asks another one."
)]
pub struct Cli {
    /// Care for pipelines of this namespace only, for which a Role is enough. Can be given several times.
    /// Without it the operator cares for all namespaces.
    #[arg(long, env = "RINGTAIL_WATCH_NAMESPACE", value_name = "NS", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,

    /// The image of agents and gateways that name none themselves.
    #[arg(long, env = "RINGTAIL_DATA_PLANE_IMAGE", value_name = "IMAGE")]
    pub data_plane_image: String,

    /// When kubelets pull that image: Always, IfNotPresent or Never.
    #[arg(long, env = "RINGTAIL_IMAGE_PULL_POLICY", value_name = "POLICY",
        value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,

    /// Where /metrics, /livez and /readyz are.
    #[arg(long, env = "RINGTAIL_ADMIN", value_name = "ADDR", default_value = "0.0.0.0:8080")]
    pub admin: SocketAddr,

    /// The namespace of the Lease that decides which of several operators leads.
    #[arg(long, env = "RINGTAIL_LEADER_ELECTION_NAMESPACE", value_name = "NS")]
    pub leader_election_namespace: String,

    /// The name of that Lease.
    #[arg(
        long,
        env = "RINGTAIL_LEADER_ELECTION_NAME",
        value_name = "NAME",
        default_value = "ringtail-operator"
    )]
    pub leader_election_name: String,

    /// What this process calls itself in the Lease and in events: its pod's name.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: String,

    /// Let a podTemplate reach for more than its author may have: host paths, host namespaces, privileges,
    /// other ServiceAccounts.
    #[arg(long, env = "RINGTAIL_ALLOW_UNSAFE_POD_TEMPLATE")]
    pub allow_unsafe_pod_template: bool,

    /// How long certificates between agents and gateways live; they are renewed at two thirds of it.
    #[arg(long, env = "RINGTAIL_PEER_CERTIFICATE_LIFETIME", value_name = "DURATION",
        value_parser = lifetime, default_value_t = Lifetime(CERTIFICATE_LIFETIME))]
    pub peer_certificate_lifetime: Lifetime,
}

/// A duration as manifests write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub Duration);

/// Kubelets need a minute or two to bring a new certificate to its pods; a third of less than that is too
/// late.
const LIFETIME_MIN: Duration = Duration::from_secs(60);

fn lifetime(text: &str) -> Result<Lifetime, String> {
    let duration = ringtail_crds::parse_duration(text)?;
    match duration >= LIFETIME_MIN {
        true => Ok(Lifetime(duration)),
        false => Err(format!("must be at least {}s", LIFETIME_MIN.as_secs())),
    }
}

impl std::fmt::Display for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}
