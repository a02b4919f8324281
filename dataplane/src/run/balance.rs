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
    /// One sentence for each thing that is as it must be after what was done to the fleet.
    pub notes: Vec<String>,
}

impl FleetLedger {
    /// Adds up what the members said at their end.
    pub fn of(members: &[Member]) -> Self {
        let empty = || LedgerReport { balanced: true, ..LedgerReport::default() };
        let (agents, gateways) = (empty(), empty());
        let mut sum = Self { agents, gateways, problems: Vec::new(), notes: Vec::new() };
        for member in members {
            sum.add(member);
        }
        // Without the ledger of somebody who ended on their own there is nothing to compare.
        if members.iter().all(|member| member.ledger.is_some() || member.was_killed()) {
            sum.compare_tiers(members);
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
            Some(_) if member.was_killed() && member.ledger.is_none() => return,
            Some(ending) if !ending.is_fine() => {
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

    fn compare_tiers(&mut self, members: &[Member]) {
        // What agents send again after a loss has left them once, and comes twice.
        let received = self.gateways.received;
        let (sent, arrived) = (self.handed_over(), received.total() - received.replays);
        let silent = members.iter().filter(|member| member.was_killed() && member.ledger.is_none());
        let killed: Vec<&str> = silent.map(|member| member.identity.as_str()).collect();
        let was_frozen = members.iter().any(|member| member.was_frozen);
        if !killed.is_empty() {
            self.infer(&killed.join(", "), sent, arrived);
        } else if sent < arrived && was_frozen {
            // What it was sent before it stood still it reads when it goes on; the sender has given up by
            // then, and has sent it elsewhere.
            let twice = number(arrived - sent);
            self.notes
                .push(format!("{twice} spans came to a frozen gateway too late to be answered"));
        } else if sent != arrived {
            let (sent, arrived) = (number(sent), number(arrived));
            self.problems.push(format!("{sent} spans were handed over, gateways took {arrived}"));
        }
        self.problems.extend(unlike_kept("spans", &self.gateways));
        self.compare_records(!killed.is_empty() || was_frozen);
    }

    /// Log records are delivered once, or again to another gateway when the first one gives no answer.
    fn compare_records(&mut self, disturbed: bool) {
        let (Some(agents), Some(gateways)) = (&self.agents.logs, &self.gateways.logs) else {
            return;
        };
        let (sent, arrived) = (agents.out, gateways.received.total());
        self.problems.extend(unlike_kept("log records", gateways));
        if sent != arrived {
            let (sent, arrived) = (number(sent), number(arrived));
            let place = if disturbed { &mut self.notes } else { &mut self.problems };
            place.push(format!("{sent} log records were handed over, gateways took {arrived}"));
        }
    }

    /// Who was killed told no ledger. What the others gave it and did not get from it lay there, and agents
    /// have sent again what was not decided.
    fn infer(&mut self, killed: &str, sent: u64, arrived: u64) {
        let again = number(self.gateways.received.replays);
        let lay = match sent.checked_sub(arrived) {
            Some(lay) => format!("{} spans lay with it, decided or not", number(lay)),
            None => format!("{} spans came from it", number(arrived - sent)),
        };
        self.notes.push(format!(
            "{killed} was killed and told no ledger: {lay}; {again} were sent again"
        ));
    }

    /// Spans that left a process of ours for a gateway of ours.
    fn handed_over(&self) -> u64 {
        self.agents.out + self.gateways.out
    }

    /// The ledger as a few lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = book("spans", &self.agents, &self.gateways);
        if let (Some(agents), Some(gateways)) = (&self.agents.logs, &self.gateways.logs) {
            lines.extend(book("log records", agents, gateways));
        }
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        if self.balances() {
            lines.push("  balances from end to end".to_owned());
        }
        lines.extend(self.problems.iter().map(|problem| format!("  DOES NOT BALANCE: {problem}")));
        lines
    }
}

/// One sentence for each exporter that was not given what was kept.
fn unlike_kept(what: &str, gateways: &LedgerReport) -> Vec<String> {
    let kept = gateways.kept;
    let given = gateways.exporters.iter();
    let given = given.map(|(name, exporter)| (name, exporter.received - exporter.recovered));
    let other = given.filter(|(_, given)| *given != kept);
    let tell = |(name, given): (&String, u64)| {
        let (kept, given) = (number(kept), number(given));
        format!("{kept} {what} were kept, exporter {name} was given {given}")
    };
    other.map(tell).collect()
}

/// The lines of both tiers and the exporters.
fn book(what: &str, agents: &LedgerReport, gateways: &LedgerReport) -> Vec<String> {
    let mut lines = vec![
        format!("ledger ({what})"),
        format!("  agents    {}", account(agents)),
        format!("  gateways  {}", account(gateways)),
    ];
    for (name, exporter) in &gateways.exporters {
        let (due, sent) = (number(exporter.received), number(exporter.sent));
        let dropped = reasons("dropped", &exporter.dropped);
        let left = match exporter.held {
            0 => String::new(),
            held => format!(" + held {}", number(held)),
        };
        lines.push(format!("  {name:<8}  in {due} = sent {sent}{dropped}{left}"));
    }
    lines
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
