//! The fleet's ledger: does every span that came in have a place where it went, from end to end.

use super::fleet::Member;
use super::table::{number, reasons};
use crate::stats::{LedgerReport, Role};

/// The ledgers of both tiers, and what does not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetLedger {
    /// Sum over the agents.
    pub agents: LedgerReport,
    /// Sum over the gateways.
    pub gateways: LedgerReport,
    /// One sentence for each thing that is wrong; none when the fleet balances.
    pub problems: Vec<String>,
}

impl FleetLedger {
    /// Adds up what the members said at their end.
    pub fn of(members: &[Member]) -> Self {
        let empty = || LedgerReport { balanced: true, ..LedgerReport::default() };
        let mut sum = Self { agents: empty(), gateways: empty(), problems: Vec::new() };
        for member in members {
            sum.add(member);
        }
        // Without the ledger of somebody who was killed there is nothing to compare.
        if members.iter().all(|member| member.ledger.is_some()) {
            sum.compare_tiers();
        }
        sum
    }

    /// Whether every span is accounted for.
    pub fn balances(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, member: &Member) {
        let name = &member.identity;
        match &member.ended {
            None => self.problems.push(format!("{name} still runs")),
            Some(ending) if !ending.expected || !ending.clean => {
                self.problems.push(format!("{name} ended with {}", ending.status));
            }
            Some(_) => {}
        }
        let Some(ledger) = &member.ledger else {
            return self.problems.push(format!("{name} told no ledger"));
        };
        if !ledger.balanced || !ledger.balances() {
            let (all, found) = (number(ledger.received.total()), number(ledger.explained()));
            self.problems.push(format!("{name} does not balance: {all} in, {found} explained"));
        }
        match member.role {
            Role::Agent => self.agents += ledger,
            Role::Gateway => self.gateways += ledger,
        }
    }

    fn compare_tiers(&mut self) {
        let (sent, arrived) = (self.handed_over(), self.gateways.received.total());
        if sent != arrived {
            let (sent, arrived) = (number(sent), number(arrived));
            self.problems.push(format!("{sent} spans were handed over, gateways took {arrived}"));
        }
        for (name, exporter) in &self.gateways.exporters {
            if exporter.received != self.gateways.kept {
                let (kept, due) = (number(self.gateways.kept), number(exporter.received));
                self.problems
                    .push(format!("{kept} spans were kept, exporter {name} was given {due}"));
            }
        }
    }

    /// Spans that left a process of ours for a gateway of ours.
    fn handed_over(&self) -> u64 {
        self.agents.out + self.gateways.out
    }

    /// The ledger as a few lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["ledger (spans)".to_owned()];
        lines.push(format!("  agents    {}", account(&self.agents)));
        lines.push(format!("  gateways  {}", account(&self.gateways)));
        for (name, exporter) in &self.gateways.exporters {
            let (due, sent) = (number(exporter.received), number(exporter.sent));
            let dropped = reasons("dropped", &exporter.dropped);
            lines.push(format!("  {name:<8}  in {due} = sent {sent}{dropped}"));
        }
        if self.balances() {
            lines.push("  balances from end to end".to_owned());
        }
        lines.extend(self.problems.iter().map(|problem| format!("  DOES NOT BALANCE: {problem}")));
        lines
    }
}

fn account(ledger: &LedgerReport) -> String {
    let mut places = String::new();
    for (name, spans) in [
        ("out", ledger.out),
        ("kept", ledger.kept),
        ("sampled away", ledger.sampled_away),
        ("duplicate", ledger.duplicate),
        ("held", ledger.held),
    ] {
        if spans > 0 {
            places.push_str(&format!(" + {name} {}", number(spans)));
        }
    }
    places.push_str(&reasons("refused", &ledger.refused));
    places.push_str(&reasons("dropped", &ledger.dropped));
    let places = places.strip_prefix(" + ").unwrap_or("0");
    format!("in {} = {places}", number(ledger.received.total()))
}
