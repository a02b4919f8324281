//! Where every span went: the account that a process gives of itself, and the check that nothing is missing.

use std::collections::BTreeMap;
use std::fmt;

#[cfg(test)]
mod tests;

/// Spans by reason. The reasons are constants of the code, so the map stays small.
pub type Reasons = BTreeMap<&'static str, u64>;

/// Spans that came in, by the door they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incoming {
    /// From SDKs, Collectors and whoever else speaks plain OTLP.
    pub clients: u64,
    /// From agents and gateways of this fleet.
    pub peers: u64,
    /// From agents that sent again what a lost gateway held.
    pub replays: u64,
}

/// Where the kept spans went at one exporter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExporterLedger {
    /// Handed to the exporter.
    pub incoming: u64,
    /// Acknowledged by the backend.
    pub sent: u64,
    /// Given up, by reason.
    pub dropped: Reasons,
    /// In the queue or under way.
    pub held: u64,
}

/// Where every span went in one process.
///
/// ```
/// use ringtail_engine::ledger::{Imbalance, Ledger};
///
/// let mut ledger = Ledger::default();
/// ledger.incoming.clients = 10;
/// ledger.sampled_away = 7;
/// assert_eq!(ledger.balance(), Err(Imbalance { account: "spans".into(), incoming: 10, outgoing: 7 }));
/// ledger.refuse("queue_full", 3);
/// assert_eq!(ledger.balance(), Ok(()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Came in.
    pub incoming: Incoming,
    /// Went to a peer, which acknowledged them.
    pub out: u64,
    /// Decided: kept, and handed to the exporters.
    pub kept: u64,
    /// Decided: not kept.
    pub sampled_away: u64,
    /// Answered with a refusal, by reason: the sender still has them.
    pub refused: Reasons,
    /// Were here already.
    pub duplicate: u64,
    /// Lost, by reason.
    pub dropped: Reasons,
    /// Undecided, queued or under way.
    pub held: u64,
    /// One account for each exporter.
    pub exporters: BTreeMap<String, ExporterLedger>,
}

/// An account whose two sides differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger of {account} does not balance: {incoming} came in, {outgoing} are accounted for ({})",
    difference(*.incoming, *.outgoing)
)]
pub struct Imbalance {
    /// `spans`, or the name of an exporter.
    pub account: String,
    /// What came in.
    pub incoming: u64,
    /// What left, was refused or dropped, or is held.
    pub outgoing: u64,
}

// === impl Incoming ===

impl Incoming {
    /// Through all doors.
    pub fn total(&self) -> u64 {
        self.clients + self.peers + self.replays
    }
}

// === impl ExporterLedger ===

impl ExporterLedger {
    /// Adds spans given up for a reason.
    pub fn drop_spans(&mut self, reason: &'static str, spans: u64) {
        add(&mut self.dropped, reason, spans);
    }

    /// Where the spans that came in are now.
    pub fn outgoing(&self) -> u64 {
        self.sent + total(&self.dropped) + self.held
    }

    /// Adds another process's or thread's account of the same exporter.
    pub fn merge(&mut self, other: &Self) {
        self.incoming += other.incoming;
        self.sent += other.sent;
        self.held += other.held;
        merge_reasons(&mut self.dropped, &other.dropped);
    }
}

// === impl Ledger ===

impl Ledger {
    /// Adds spans refused for a reason.
    pub fn refuse(&mut self, reason: &'static str, spans: u64) {
        add(&mut self.refused, reason, spans);
    }

    /// Adds spans lost for a reason.
    pub fn drop_spans(&mut self, reason: &'static str, spans: u64) {
        add(&mut self.dropped, reason, spans);
    }

    /// The account of an exporter, opened when it is new.
    pub fn exporter(&mut self, name: &str) -> &mut ExporterLedger {
        self.exporters.entry(name.to_owned()).or_default()
    }

    /// Where the spans that came in are now.
    pub fn outgoing(&self) -> u64 {
        let decided = self.kept + self.sampled_away;
        self.out
            + decided
            + total(&self.refused)
            + self.duplicate
            + total(&self.dropped)
            + self.held
    }

    /// Adds the account of another thread or process.
    pub fn merge(&mut self, other: &Self) {
        self.incoming.clients += other.incoming.clients;
        self.incoming.peers += other.incoming.peers;
        self.incoming.replays += other.incoming.replays;
        self.out += other.out;
        self.kept += other.kept;
        self.sampled_away += other.sampled_away;
        self.duplicate += other.duplicate;
        self.held += other.held;
        merge_reasons(&mut self.refused, &other.refused);
        merge_reasons(&mut self.dropped, &other.dropped);
        for (name, exporter) in &other.exporters {
            self.exporter(name).merge(exporter);
        }
    }

    /// Whether every span is accounted for, here and at each exporter; the first account that is off.
    pub fn balance(&self) -> Result<(), Imbalance> {
        compare("spans", self.incoming.total(), self.outgoing())?;
        let mut exporters = self.exporters.iter();
        exporters
            .try_for_each(|(name, exporter)| compare(name, exporter.incoming, exporter.outgoing()))
    }
}

impl fmt::Display for Ledger {
    /// An aligned table for people; lines that say nothing are left out, the first and the verdict never.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "in", self.incoming.total())?;
        let doors = [("clients", self.incoming.clients), ("peers", self.incoming.peers)];
        lines(f, doors.into_iter().chain([("replays", self.incoming.replays)]))?;
        lines(f, [("out", self.out), ("kept", self.kept), ("sampled away", self.sampled_away)])?;
        reasons(f, "refused", &self.refused)?;
        lines(f, [("duplicate", self.duplicate)])?;
        reasons(f, "dropped", &self.dropped)?;
        lines(f, [("held", self.held)])?;
        for (name, exporter) in &self.exporters {
            line(f, &format!("exporter {name}: in"), exporter.incoming)?;
            lines(f, [("  sent", exporter.sent), ("  held", exporter.held)])?;
            reasons(f, "  dropped", &exporter.dropped)?;
        }
        match self.balance() {
            Ok(()) => write!(f, "balanced"),
            Err(imbalance) => write!(f, "{imbalance}"),
        }
    }
}

fn add(reasons: &mut Reasons, reason: &'static str, spans: u64) {
    if spans > 0 {
        *reasons.entry(reason).or_default() += spans;
    }
}

fn merge_reasons(into: &mut Reasons, from: &Reasons) {
    for (reason, spans) in from {
        add(into, reason, *spans);
    }
}

fn total(reasons: &Reasons) -> u64 {
    reasons.values().sum()
}

fn compare(account: &str, incoming: u64, outgoing: u64) -> Result<(), Imbalance> {
    match incoming == outgoing {
        true => Ok(()),
        false => Err(Imbalance { account: account.to_owned(), incoming, outgoing }),
    }
}

fn difference(incoming: u64, outgoing: u64) -> String {
    match outgoing.checked_sub(incoming) {
        Some(more) => format!("{more} too many"),
        None => format!("{} missing", incoming - outgoing),
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, spans: u64) -> fmt::Result {
    writeln!(f, "{name:<32}{spans:>14}")
}

fn lines<'a>(
    f: &mut fmt::Formatter<'_>,
    rows: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut rows = rows.into_iter().filter(|(_, spans)| *spans > 0);
    rows.try_for_each(|(name, spans)| line(f, name, spans))
}

fn reasons(f: &mut fmt::Formatter<'_>, name: &str, reasons: &Reasons) -> fmt::Result {
    reasons.iter().try_for_each(|(reason, spans)| line(f, &format!("{name}: {reason}"), *spans))
}
