//! The body of `/stats` as far as status needs it. What is missing is empty and what is new is skipped,
//! because operator and gateways may be one minor version apart.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a gateway says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// What it calls itself: its pod.
    pub identity: String,
    /// When it started, in milliseconds since 1970, or a little more.
    pub inst: u64,
    /// The configuration in force.
    pub config: Config,
    /// Its ring, and those of who talks to it.
    pub ring: Ring,
    /// Where every span went since the start.
    pub ledger: Ledger,
    /// Traces decided since the start.
    pub decisions: Decisions,
    /// What keeping traces whole took since the start.
    pub churn: Churn,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// A hash over the manifest.
    pub hash: String,
    /// Why a newer one was refused.
    pub error: Option<String>,
}

/// A view of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ring {
    /// A hash over it.
    pub digest: String,
    /// Identities of its members.
    pub members: Vec<String>,
    /// Who stamped which digest on what it sent lately.
    pub observers: Vec<Observer>,
    /// Gateways on their way out, this one included.
    pub draining: u32,
}

/// Another process as a gateway hears it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observer {
    /// What it calls itself.
    pub identity: String,
    /// The digest of its ring.
    pub digest: String,
    /// How long ago it said so.
    pub age_millis: u64,
    /// Spans that an agent could not keep until they were decided, since its start.
    pub unprotected_spans: u64,
}

/// Where spans went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// Spans that came in, by who sent them.
    #[serde(rename = "in")]
    pub received: Received,
    /// Lost after having been accepted, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// What became of kept spans, by backend.
    pub exporters: BTreeMap<String, Exporter>,
}

/// Spans that came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Received {
    /// Sent again after a gateway was lost.
    pub replays: u64,
}

/// What keeping traces whole took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Churn {
    /// What went to new owners.
    pub handed_over: HandedOver,
    /// Why nothing was decided, and for how long.
    pub fences: BTreeMap<String, Fences>,
}

/// What went to new owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HandedOver {
    /// Traces.
    pub traces: u64,
}

/// Times in which nothing was decided for one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fences {
    /// For how long together.
    pub millis: u64,
}

/// What became of kept spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exporter {
    /// Given up, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Traces decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decisions {
    /// Kept by some policy.
    pub kept: u64,
    /// Sampled away.
    pub dropped: u64,
    /// Decided before their time.
    pub early: u64,
    /// Spans that came after the decision on their trace.
    pub late_spans: u64,
}

// === impl Answer ===

impl Answer {
    /// For how many milliseconds nothing was decided for this cause.
    pub fn fenced_millis(&self, cause: &str) -> u64 {
        self.churn.fences.get(cause).map_or(0, |fences| fences.millis)
    }

    /// Spans lost inside the gateway.
    pub fn dropped_spans(&self) -> u64 {
        self.ledger.dropped.values().sum()
    }

    /// Kept spans that no backend took.
    pub fn unexported_spans(&self) -> u64 {
        self.ledger.exporters.values().flat_map(|exporter| exporter.dropped.values()).sum()
    }
}
