//! What a role tells about itself: its lines on stdout and the body of `GET /stats`.
//!
//! Agents and gateways write these types; `ringtail run`, the tests and the bench read them. Names are
//! camelCase on the wire, and a reader ignores fields it does not know, so that neighbours one version apart
//! understand each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

pub use self::churn::{ChurnStats, FenceStats, HandedOver, Life};

mod churn; // what keeping traces whole took

/// Counts of spans by the reason that explains them.
pub type Reasons = BTreeMap<String, u64>;

/// One JSON line on the stdout of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// All sockets are bound.
    Listening(Listening),
    /// The last line: where every span went.
    Ledger(LedgerReport),
}

/// The addresses that a role really got, since port 0 may have been asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listening {
    /// OTLP/gRPC; a gateway without certificates takes spans from its agents here too.
    pub otlp_grpc: SocketAddr,
    /// OTLP/HTTP, when the role serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp_http: Option<SocketAddr>,
    /// `ringtail.peer.v1` in TLS, on a gateway with certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// Metrics, probes and `/stats`.
    pub admin: SocketAddr,
}

/// Which tier a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Spreads spans over the gateways.
    Agent,
    /// Holds traces and decides them.
    Gateway,
}

impl Role {
    /// The word for it on the command line, in `/stats` and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Gateway => "gateway",
        }
    }
}

/// The body of `GET /stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Agent or gateway.
    pub role: Role,
    /// What the process calls itself.
    pub identity: String,
    /// Grows with every start of this identity.
    pub inst: u64,
    /// The manifest in force.
    #[serde(default)]
    pub config: ConfigStats,
    /// The view of the ring that the process routes by.
    pub ring: RingStats,
    /// Where every span went so far.
    pub ledger: LedgerReport,
    /// What waits in memory right now.
    pub held: HeldStats,
    /// The memory budget.
    pub budget: BudgetStats,
    /// Traces kept by each policy, in the manifest's order; gateways only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyStats>,
    /// Traces decided; gateways only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<DecisionStats>,
    /// What keeping traces whole took.
    #[serde(default)]
    pub churn: ChurnStats,
}

/// Which manifest is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStats {
    /// The first 16 hex digits of the SHA-256 of its bytes.
    pub hash: String,
    /// Why a newer one is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A view of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingStats {
    /// 16 hex digits; equal digests mean equal owners for every trace.
    pub digest: String,
    /// Identities of the members, sorted.
    pub members: Vec<String>,
    /// Who stamped which digest on what a gateway got lately; gateways only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<ObserverStats>,
    /// Gateways that are on their way out, this process included.
    #[serde(default)]
    pub draining: u64,
    /// Candidates that are not taken as gateways: they have another seed, or are not what they should be.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub foreign: u64,
}

/// Another process as a gateway hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObserverStats {
    /// What it calls itself.
    pub identity: String,
    /// Its tier.
    pub role: Role,
    /// The digest that it stamped last.
    pub digest: String,
    /// How long ago that was.
    pub age_millis: u64,
    /// Spans that an agent let go before they must have been decided, as it says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unprotected_spans: u64,
}

/// What is buffered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldStats {
    /// Spans, the same figure as the ledger's `held`.
    pub spans: u64,
    /// Resident bytes, index and slack included.
    pub bytes: u64,
    /// Undecided traces; zero on an agent.
    pub traces: u64,
}

/// The memory budget of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetStats {
    /// The most that may be charged.
    pub bytes: u64,
    /// What is charged now.
    pub used: u64,
}

/// What one policy did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStats {
    /// As the manifest names it.
    pub name: String,
    /// Traces that it decided to keep.
    pub kept: u64,
}

/// Traces decided since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionStats {
    /// Kept by some policy.
    pub kept: u64,
    /// Sampled away.
    pub dropped: u64,
    /// Decided before their time, for memory, size or drain; counted in the other two as well.
    pub early: u64,
}

/// Where every span of a process went:
/// `in = out + kept + sampledAway + refused + duplicate + dropped + held`, and one such line per exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerReport {
    /// Spans that came in.
    #[serde(rename = "in")]
    pub received: Received,
    /// Handed to peers, and acknowledged by them.
    pub out: u64,
    /// Decided: keep.
    pub kept: u64,
    /// Decided: sample away.
    pub sampled_away: u64,
    /// Answered with an error or a partial success, so that the sender knows.
    pub refused: Reasons,
    /// Came twice with the same content.
    pub duplicate: u64,
    /// Lost after having been accepted.
    pub dropped: Reasons,
    /// In memory now.
    pub held: u64,
    /// What became of kept spans, per backend.
    pub exporters: BTreeMap<String, ExporterLedger>,
    /// The same of log records, where the pipeline has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Box<LedgerReport>>,
    /// Whether the sums above are equal, as the process itself sees it.
    pub balanced: bool,
}

/// Spans that came in, by who sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// From SDKs and foreign collectors.
    pub clients: u64,
    /// From our own agents and gateways.
    pub peers: u64,
    /// Sent again after a gateway was lost.
    pub replays: u64,
}

/// The ledger of one exporter: `in = sent + dropped + held`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExporterLedger {
    /// Kept spans that were due to this backend.
    #[serde(rename = "in")]
    pub received: u64,
    /// Of these, spans that an earlier process of this gateway left on disk.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recovered: u64,
    /// Acknowledged by the backend.
    pub sent: u64,
    /// Given up, by reason.
    pub dropped: Reasons,
    /// Queued or in flight; at the end, on disk for the next start.
    pub held: u64,
}

// === impl Received ===

impl Received {
    /// All spans that came in.
    pub const fn total(&self) -> u64 {
        self.clients + self.peers + self.replays
    }
}

impl AddAssign for Received {
    fn add_assign(&mut self, other: Self) {
        self.clients += other.clients;
        self.peers += other.peers;
        self.replays += other.replays;
    }
}

// === impl ExporterLedger ===

impl ExporterLedger {
    /// Whether every span that was due to this backend is accounted for.
    pub fn balances(&self) -> bool {
        self.received == self.sent + total(&self.dropped) + self.held
    }
}

impl AddAssign<&Self> for ExporterLedger {
    fn add_assign(&mut self, other: &Self) {
        self.received += other.received;
        self.recovered += other.recovered;
        self.sent += other.sent;
        add_reasons(&mut self.dropped, &other.dropped);
        self.held += other.held;
    }
}

// === impl LedgerReport ===

impl LedgerReport {
    /// Spans that are accounted for; equal to `received.total()` when nothing was lost from view.
    pub fn explained(&self) -> u64 {
        self.out
            + self.kept
            + self.sampled_away
            + total(&self.refused)
            + self.duplicate
            + total(&self.dropped)
            + self.held
    }

    /// Whether the process and each of its exporters account for every span, computed from the figures.
    pub fn balances(&self) -> bool {
        self.received.total() == self.explained()
            && self.exporters.values().all(ExporterLedger::balances)
            && self.logs.as_ref().is_none_or(|logs| logs.balances())
    }

    /// The same with the books of log records beside it, if there are any.
    pub fn with_logs(self, logs: Option<Self>) -> Self {
        Self { logs: logs.map(Box::new), ..self }.settle()
    }

    /// Writes the outcome of [`Self::balances`] into the report.
    pub fn settle(mut self) -> Self {
        self.balanced = self.balances();
        self
    }
}

impl AddAssign<&Self> for LedgerReport {
    fn add_assign(&mut self, other: &Self) {
        self.received += other.received;
        self.out += other.out;
        self.kept += other.kept;
        self.sampled_away += other.sampled_away;
        add_reasons(&mut self.refused, &other.refused);
        self.duplicate += other.duplicate;
        add_reasons(&mut self.dropped, &other.dropped);
        self.held += other.held;
        for (name, exporter) in &other.exporters {
            *self.exporters.entry(name.clone()).or_default() += exporter;
        }
        if let Some(logs) = &other.logs {
            match &mut self.logs {
                Some(sum) => **sum += logs,
                none => *none = Some(logs.clone()),
            }
        }
        self.balanced &= other.balanced;
    }
}

/// The sum over all reasons.
pub fn total(reasons: &Reasons) -> u64 {
    reasons.values().sum()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn add_reasons(sum: &mut Reasons, more: &Reasons) {
    for (reason, spans) in more {
        *sum.entry(reason.clone()).or_default() += spans;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER_LINE: &str = concat!(
        r#"{"ledger":{"in":{"clients":10,"peers":0,"replays":0},"out":4,"kept":2,"sampledAway":1,"#,
        r#""refused":{"memory":1},"duplicate":1,"dropped":{"queueFull":1},"held":0,"exporters":"#,
        r#"{"tempo":{"in":2,"sent":1,"dropped":{"timeout":1},"held":0}},"balanced":true}}"#,
    );

    fn ledger() -> LedgerReport {
        match serde_json::from_str(LEDGER_LINE).unwrap() {
            Report::Ledger(ledger) => ledger,
            Report::Listening(_) => panic!("read as an address"),
        }
    }

    #[test]
    fn lines_survive_a_round_trip() {
        let listening = concat!(
            r#"{"listening":{"otlpGrpc":"127.0.0.1:4317","otlpHttp":"127.0.0.1:4318","#,
            r#""admin":"127.0.0.1:8888"}}"#,
        );
        for line in [LEDGER_LINE, listening] {
            let report: Report = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&report).unwrap(), line);
        }
    }

    #[test]
    fn stats_of_an_agent_need_no_policies() {
        let body = format!(
            r#"{{"role":"agent","identity":"a-0","inst":7,"ring":{{"digest":"00","members":["gw-0"]}},
                "ledger":{},"held":{{"spans":0,"bytes":0,"traces":0}},
                "budget":{{"bytes":0,"used":0}},"newer":true}}"#,
            serde_json::to_string(&ledger()).unwrap()
        );
        let stats: Stats = serde_json::from_str(&body).unwrap();
        assert_eq!(stats.role, Role::Agent);
        assert_eq!((stats.policies.len(), stats.decisions), (0, None));
    }

    #[test]
    fn a_span_out_of_place_unbalances() {
        assert!(ledger().balances());
        let tampers: [fn(&mut LedgerReport); 4] = [
            |l| l.received.replays += 1,
            |l| l.held += 1,
            |l| *l.dropped.entry("x".into()).or_default() += 1,
            |l| l.exporters.values_mut().for_each(|e| e.sent += 1),
        ];
        for (case, tamper) in tampers.into_iter().enumerate() {
            let mut wrong = ledger();
            tamper(&mut wrong);
            assert!(!wrong.settle().balanced, "case {case}");
        }
    }

    #[test]
    fn sums_add_every_column() {
        let mut sum = ledger();
        sum += &ledger();
        assert_eq!((sum.received.total(), sum.explained()), (20, 20));
        assert_eq!(sum.exporters["tempo"].dropped["timeout"], 2);
        assert!(sum.balances());
    }
}
