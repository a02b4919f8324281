//! `spec.logs`: log records beside the spans, by the traces that they belong to.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::NodeRule;

/// Log records. Agents and gateways take them where they take spans, records of a trace go to the gateway of
/// that trace, and gateways forward them to the exporters. `{}` stands for the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = UNDECIDED_OF_TRACES.rule())]
pub struct Logs {
    /// Which records are forwarded. All: every one, at once. SampledTraces: those of kept traces, and those
    /// that belong to no trace; records of other traces wait for the decision on theirs.
    #[serde(default)]
    pub keep: LogsKept,

    /// What becomes of a record of whose trace no decision is known by decisionWait and ten seconds after it
    /// came, or when there is no more room to wait: Keep or Drop. Only with keep SampledTraces; Keep without
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<Undecided>,
}

/// Which log records are forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum LogsKept {
    #[default]
    All,
    SampledTraces,
}

/// What becomes of log records of undecided traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum Undecided {
    #[default]
    Keep,
    Drop,
}

/// What is sent to an exporter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum Signal {
    Traces,
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Traces, Self::Logs];

    /// What one of it is called, in the plural.
    pub const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Logs => "log records",
        }
    }
}

/// Nothing waits where every record is forwarded.
pub(crate) static UNDECIDED_OF_TRACES: NodeRule = NodeRule {
    cel: "!has(self.undecided) || self.keep == 'SampledTraces'",
    holds: |logs| {
        logs.get("undecided").is_none()
            || logs.get("keep").is_some_and(|keep| keep == "SampledTraces")
    },
    message: "has no effect unless keep is SampledTraces: otherwise no record waits for a decision",
    field: ".undecided",
};

/// The exporters of a spec, each with whether it takes a signal: as it says, or `otherwise`.
fn takers<'a>(
    spec: &'a Value,
    signal: &'static str,
    otherwise: bool,
) -> impl Iterator<Item = (&'a Value, bool)> {
    let exporters = spec.get("exporters").and_then(Value::as_array).into_iter().flatten();
    exporters.map(move |exporter| {
        let signals = exporter.get("signals").and_then(Value::as_array);
        let listed = |signals: &Vec<Value>| signals.iter().any(|one| one == signal);
        (exporter, signals.map_or(otherwise, listed))
    })
}

/// Traces that nobody gets are not worth deciding.
pub(crate) static TRACES_HAVE_A_TAKER: NodeRule = NodeRule {
    cel: "self.exporters.exists(e, !has(e.signals) || 'Traces' in e.signals)",
    holds: |spec| takers(spec, "Traces", true).any(|(_, takes)| takes),
    message: "none takes Traces: add it to the signals of one of them",
    field: ".exporters",
};

/// Log records that nobody gets are not worth taking.
pub(crate) static LOGS_HAVE_A_TAKER: NodeRule = NodeRule {
    cel: "!has(self.logs) || self.exporters.exists(e, !has(e.signals) || 'Logs' in e.signals)",
    holds: |spec| spec.get("logs").is_none() || takers(spec, "Logs", true).any(|(_, takes)| takes),
    message: "no exporter takes Logs: add it to the signals of one of them",
    field: ".logs",
};

/// Nothing is taken that could be sent.
pub(crate) static TAKERS_HAVE_LOGS: NodeRule = NodeRule {
    cel: "has(self.logs) || self.exporters.all(e, !has(e.signals) || !('Logs' in e.signals))",
    holds: |spec| {
        spec.get("logs").is_some() || !takers(spec, "Logs", false).any(|(_, takes)| takes)
    },
    message: "have Logs among their signals, but the pipeline takes none: set logs",
    field: ".exporters",
};

/// A condition on spans says nothing of log records, and whoever reads it might take it to.
pub(crate) static FILTERS_ARE_OF_SPANS: NodeRule = NodeRule {
    cel: "!has(self.logs) || self.exporters.all(e, !has(e.filter) || \
          (has(e.signals) && !('Logs' in e.signals)))",
    holds: |spec| {
        let filters = |(exporter, takes): (&Value, bool)| takes && exporter.get("filter").is_some();
        spec.get("logs").is_none() || !takers(spec, "Logs", true).any(filters)
    },
    message: "filter is asked of spans alone: set signals to [Traces] where there is a filter, and let \
              another exporter take Logs",
    field: ".exporters",
};

/// Gateways of somebody else do not read this resource.
pub(crate) static KEPT_BY_GATEWAYS: NodeRule = NodeRule {
    cel: "self.gateway.type != 'External' || !has(self.logs) || self.logs.keep == 'All'",
    holds: |spec| {
        let is = |pointer: &str, word: &str| spec.pointer(pointer).is_some_and(|is| is == word);
        !is("/gateway/type", "External") || !is("/logs/keep", "SampledTraces")
    },
    message: "needs gateway.type Managed: gateways of somebody else are asked for nothing",
    field: ".logs.keep",
};
