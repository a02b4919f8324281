//! The conditions of a TracePipeline: their types and reasons.
//!
//! Reasons are part of the contract, as field names are: people write alerts on them. A False or Unknown
//! condition says what is in the way, and `Ready` repeats the reason of the first one of those below it,
//! word for word.

/// Whether the fleet works: every condition below it that is always there is True.
pub const READY: &str = "Ready";
/// Whether the resource makes sense.
pub const ACCEPTED: &str = "Accepted";
/// Whether everything that the resource refers to exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Whether running pods use what the resource says.
pub const PROGRAMMED: &str = "Programmed";
/// Whether enough gateways are ready.
pub const GATEWAY_AVAILABLE: &str = "GatewayAvailable";
/// Whether every node that should have an agent has one.
pub const AGENTS_AVAILABLE: &str = "AgentsAvailable";
/// Whether all agents and gateways agree who owns which trace.
pub const RING_CONVERGED: &str = "RingConverged";
/// Present while decisions are worse than the resource asks for.
pub const SAMPLING_DEGRADED: &str = "SamplingDegraded";
/// Present while agents and gateways trust whoever reaches them.
pub const PEERS_UNAUTHENTICATED: &str = "PeersUnauthenticated";
/// Present while the operator leaves the fleet as it is.
pub const PAUSED: &str = "Paused";
/// Present while a change is under way.
pub const RECONCILING: &str = "Reconciling";
/// Present while nothing but a change by a person can help.
pub const STALLED: &str = "Stalled";

/// Types that are always there, in the order in which `Ready` looks for the first one that is not True.
pub const ALWAYS: [&str; 6] =
    [ACCEPTED, RESOLVED_REFS, PROGRAMMED, GATEWAY_AVAILABLE, AGENTS_AVAILABLE, RING_CONVERGED];
/// Types that are there only while they are True.
pub const WHILE_TRUE: [&str; 5] =
    [SAMPLING_DEGRADED, PEERS_UNAUTHENTICATED, PAUSED, RECONCILING, STALLED];

/// Reasons of conditions.
pub mod reason {
    /// Ready: all of it works.
    pub const ALL_TIERS_READY: &str = "AllTiersReady";

    /// Accepted: nothing is wrong.
    pub const VALID: &str = "Valid";
    /// Accepted, Stalled: the message says which field is wrong.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Accepted, Stalled: a pod setting reaches for more than the namespace gives.
    pub const UNSAFE_POD: &str = "UnsafePod";
    /// Accepted: the image is too far from the operator's version.
    pub const IMAGE_VERSION_UNSUPPORTED: &str = "ImageVersionUnsupported";

    /// ResolvedRefs: everything exists.
    pub const RESOLVED: &str = "Resolved";
    /// ResolvedRefs: a Secret does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// ResolvedRefs: a Secret lacks a key.
    pub const KEY_MISSING: &str = "KeyMissing";
    /// ResolvedRefs: a certificate is missing, expired or of another CA.
    pub const CERTIFICATE_NOT_READY: &str = "CertificateNotReady";

    /// Programmed: every gateway reports the configuration that is wanted.
    pub const CONFIG_ACKNOWLEDGED: &str = "ConfigAcknowledged";
    /// Programmed: some gateways do not report it yet.
    pub const CONFIG_PROPAGATING: &str = "ConfigPropagating";
    /// Programmed: a gateway refused it and runs on with the one before.
    pub const CONFIG_REJECTED: &str = "ConfigRejected";
    /// Programmed is Unknown: no gateway answers.
    pub const REPORTERS_MISSING: &str = "ReportersMissing";

    /// GatewayAvailable: enough gateways are ready.
    pub const MINIMUM_REPLICAS_AVAILABLE: &str = "MinimumReplicasAvailable";
    /// GatewayAvailable: somebody else runs them.
    pub const EXTERNAL: &str = "External";
    /// GatewayAvailable: too few gateways are ready.
    pub const INSUFFICIENT_REPLICAS: &str = "InsufficientReplicas";
    /// GatewayAvailable, AgentsAvailable: pods are being replaced.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// GatewayAvailable, AgentsAvailable: containers end again and again.
    pub const CRASH_LOOPING: &str = "CrashLooping";
    /// GatewayAvailable, AgentsAvailable: no node takes a pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// GatewayAvailable, AgentsAvailable: an image cannot be pulled.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// GatewayAvailable, AgentsAvailable: the API server refuses the pods.
    pub const PODS_REFUSED: &str = "PodsRefused";

    /// AgentsAvailable: every node that should have an agent has one.
    pub const ALL_NODES_READY: &str = "AllNodesReady";
    /// AgentsAvailable: no node should have one.
    pub const NO_ELIGIBLE_NODES: &str = "NoEligibleNodes";
    /// AgentsAvailable: agents run in the pods of applications, or there are none.
    pub const NOT_MANAGED: &str = "NotManaged";
    /// AgentsAvailable: some nodes have no ready agent.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// AgentsAvailable: a node's port is taken.
    pub const HOST_PORT_CONFLICT: &str = "HostPortConflict";

    /// RingConverged: all observers have the same ring.
    pub const CONVERGED: &str = "Converged";
    /// RingConverged: gateways come or go.
    pub const MEMBERSHIP_CHANGING: &str = "MembershipChanging";
    /// RingConverged: some observers have another ring for longer than a change takes.
    pub const SPLIT_VIEW: &str = "SplitView";
    /// RingConverged: there is no gateway.
    pub const NO_MEMBERS: &str = "NoMembers";
    /// RingConverged: a gateway does not get rid of what it holds.
    pub const DRAIN_TIMEOUT: &str = "DrainTimeout";
    /// RingConverged is Unknown: the last observation is too old.
    pub const STALE_OBSERVATIONS: &str = "StaleObservations";

    /// SamplingDegraded: traces were decided early for lack of memory.
    pub const BUFFER_EVICTIONS: &str = "BufferEvictions";
    /// SamplingDegraded: spans arrive after the decision.
    pub const LATE_SPANS: &str = "LateSpans";
    /// SamplingDegraded: decisions are made without the agreement of the peers.
    pub const DECISION_TIMEOUTS: &str = "DecisionTimeouts";
    /// SamplingDegraded: kept spans are lost on their way to a backend.
    pub const EXPORTER_BACKPRESSURE: &str = "ExporterBackpressure";

    /// SamplingDegraded, RingConverged: routing.key is Service, so that gateways decide parts of traces.
    pub const ROUTED_BY_SERVICE: &str = "RoutedByService";

    /// PeersUnauthenticated: security.peerTLS.mode is Disabled.
    pub const PEER_TLS_DISABLED: &str = "PeerTLSDisabled";
    /// Paused: spec.paused is true.
    pub const SPEC_PAUSED: &str = "SpecPaused";
    /// Reconciling: a change is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// Stalled: a change takes longer than it should.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// Stalled: the API server forbids the operator something.
    pub const PERMISSION_DENIED: &str = "PermissionDenied";
    /// Stalled: a child of that name belongs to somebody else.
    pub const NAME_TAKEN: &str = "NameTaken";
}
