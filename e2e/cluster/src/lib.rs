//! A real Kubernetes on one machine: boots clusters side by side, breaks parts of them, and removes them.
//!
//! ```no_run
//! # async fn example() -> Result<(), ringtail_cluster::Error> {
//! use ringtail_cluster::{Cluster, Level, Options, require};
//!
//! // In a test: says `skipped: <test>: <reason>` where the machine cannot.
//! let Some(_) = require(Level::ControlPlane) else { return Ok(()) };
//! let cluster = Cluster::start(Options::control_plane()).await?;
//! cluster.kubectl(["create", "namespace", "shop"]).await?;
//! cluster.api_server().freeze()?;
//! # Ok(()) }
//! ```
//!
//! `e2e/README.md` says how to use it, and how it is made.

mod audit;
mod capabilities;
mod cgroup;
mod cluster;
mod command;
mod control_plane;
mod dns;
mod error;
mod etcd;
mod image;
mod kubeconfig;
mod network;
mod node;
mod options;
mod pki;
mod process;
mod run;
mod toolchain;
mod wait;

pub use audit::{Audit, AuditEvent};
pub use capabilities::{Capabilities, Capability, Level, STRICT_VARIABLE, require};
pub use cluster::Cluster;
pub use error::Error;
pub use image::PAUSE as PAUSE_IMAGE;
pub use node::Node;
pub use options::Options;
pub use process::Process;
pub use run::end_others;
pub use toolchain::{CACHE_VARIABLE, Toolchain};
