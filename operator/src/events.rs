//! Events: what happened to a pipeline, once each time that it happens.

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use ringtail_crds::TracePipeline;

use crate::labels;

/// Why an event is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the reasons that users see")]
pub enum Reason {
    PipelineAccepted,
    InvalidSpec,
    ReferenceMissing,
    ReferencesResolved,
    RolloutStarted,
    ChildRestored,
    ChildPruned,
    NameTaken,
    PermissionDenied,
    CertificateRenewed,
    FleetReady,
    FleetDegraded,
    Paused,
    Resumed,
}

/// Something to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub note: String,
}

/// Records events. Equal ones are counted up on one object instead of making many.
#[derive(Clone)]
pub struct Events(Recorder);

// === impl Reason ===

impl Reason {
    fn is_warning(self) -> bool {
        matches!(
            self,
            Self::InvalidSpec
                | Self::ReferenceMissing
                | Self::NameTaken
                | Self::PermissionDenied
                | Self::FleetDegraded
        )
    }

    fn action(self) -> &'static str {
        match self {
            Self::PipelineAccepted | Self::InvalidSpec => "Validate",
            Self::ReferenceMissing | Self::ReferencesResolved => "Dereference",
            Self::ChildPruned => "Prune",
            Self::FleetReady | Self::FleetDegraded => "Observe",
            Self::Paused | Self::Resumed => "Pause",
            _ => "Apply",
        }
    }
}

// === impl Happening ===

impl Happening {
    /// Something that happened.
    pub fn new(reason: Reason, note: impl Into<String>) -> Self {
        Self { reason, note: note.into() }
    }
}

// === impl Events ===

impl Events {
    /// `client` is behind the gate, so that only the leader records.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: labels::OPERATOR.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Records it. An event that gets lost is only told: what it says is in the conditions too.
    pub async fn record(&self, pipeline: &TracePipeline, happening: Happening) {
        let event = Event {
            type_: if happening.reason.is_warning() {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: format!("{:?}", happening.reason),
            note: Some(happening.note),
            action: happening.reason.action().to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &pipeline.object_ref(&())).await {
            tracing::debug!(%error, reason = event.reason, "an event was not recorded");
        }
    }
}
