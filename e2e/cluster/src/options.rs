//! What a cluster should be like.

use crate::capabilities::Level;

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) level: Level,
    pub(crate) nodes: u8,
    pub(crate) api_server_flags: Vec<String>,
    pub(crate) controller_flags: Vec<String>,
}

// === impl Options ===

impl Options {
    /// A control plane on loopback, as any user: no nodes, so no pod ever runs.
    pub fn control_plane() -> Self {
        Self {
            level: Level::ControlPlane,
            nodes: 0,
            api_server_flags: Vec::new(),
            controller_flags: Vec::new(),
        }
    }

    /// A control plane and this many nodes in namespaces; more can be added later. Needs root.
    pub fn nodes(count: u8) -> Self {
        Self { level: Level::Nodes, nodes: count, ..Self::control_plane() }
    }

    /// Adds a flag of kube-apiserver, such as `--watch-cache=false`. A later flag wins over an earlier one.
    pub fn api_server_flag(mut self, flag: &str) -> Self {
        self.api_server_flags.push(flag.to_owned());
        self
    }

    /// Adds a flag of kube-controller-manager.
    pub fn controller_flag(mut self, flag: &str) -> Self {
        self.controller_flags.push(flag.to_owned());
        self
    }
}
