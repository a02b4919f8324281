//! What the status stage sees of the gateways' answers. It changes only when something does that status
//! shows.

use std::{collections::HashMap, sync::Arc};

use super::ring::Ring;

/// What is known of one pipeline's gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The ring.
    pub ring: Ring,
    /// Gateways that answered the last poll.
    pub answered: u32,
    /// Gateways that should have.
    pub expected: u32,
    /// The configuration that each pod of those has in force, by pod.
    pub configs: Vec<Loaded>,
    /// What makes decisions worse than they should be, worst first.
    pub degraded: Vec<Degraded>,
}

/// The configuration that a gateway has in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The gateway.
    pub pod: String,
    /// A hash over the manifest.
    pub hash: String,
    /// Why it refused a newer one.
    pub error: Option<String>,
}

/// A way in which decisions are worse than the resource asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degraded {
    /// Traces were decided early for lack of memory.
    Evictions,
    /// Kept spans are lost on their way to a backend.
    Exporters,
    /// Spans arrive after the decision.
    LateSpans,
}

/// The views of all pipelines, by UID.
pub type Views = Arc<HashMap<String, Arc<View>>>;
