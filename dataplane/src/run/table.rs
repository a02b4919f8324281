//! The fleet's figures as text: a table for a terminal, one line for everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fleet::Member;
use super::keys;
use super::plan::Plan;
use crate::stats::{ChurnStats, DecisionStats, Reasons, Role, Stats, total};

/// What is shown beside the figures of the processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// How long the fleet has run.
    pub elapsed: Duration,
    /// What sender and backend know, in a demo.
    pub truth: Option<Truth>,
    /// Whether keys are read.
    pub keys: bool,
    /// The gateway that they are about.
    pub chosen: Option<&'a str>,
}

/// Traces that arrived, by whoever knows what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Arrived with every span.
    pub whole: u64,
    /// Arrived in part, and the rest has not come within seconds.
    pub split: u64,
}

/// The table that a terminal shows.
pub fn table(plan: &Plan, members: &[Member], around: &Around<'_>) -> Vec<String> {
    let fleet = Figures::of(members);
    let end = if around.keys { "" } else { "   Ctrl-C drains" };
    let (name, clock) = (&plan.pipeline, clock(around.elapsed));
    let mut lines = vec![
        String::new(),
        format!("{name}   {clock}   decision wait {:?}{end}", plan.decision_wait),
        format!(
            "  {:<12}{:<16}{:>10}{:>6}{:>8}{:>9}{:>11}{:>8}{:>8}  {}",
            "", "", "spans in", "share", "traces", "spans", "memory", "refused", "dropped", "ring"
        ),
    ];
    lines.extend(newest(members).map(|member| {
        let mark = if around.chosen == Some(member.identity.as_str()) { ">" } else { " " };
        format!("{mark} {}", row(member, &fleet))
    }));
    lines.push(String::new());
    lines.push(format!("traces      {}", fleet.decided()));
    lines.push(format!("kept by     {}", fleet.kept_by()));
    lines.push(format!("ring        {}", fleet.ring()));
    lines.push(format!("moves       {}", fleet.moves()));
    lines.push(fleet.split(around.truth));
    if around.keys {
        let chosen = around.chosen.unwrap_or("the oldest gateway");
        lines.push(format!("keys        {}   ({chosen} is meant)", keys::HELP));
    }
    lines
}

/// The line that is written every few seconds where there is no terminal.
pub fn line(members: &[Member], around: &Around<'_>) -> String {
    let fleet = Figures::of(members);
    let (spans, held) = (number(fleet.spans), number(fleet.held));
    let (decided, kept_by, ring) = (fleet.decided(), fleet.kept_by(), fleet.ring());
    let moved = if fleet.has_moved() { format!(" | {}", fleet.moves()) } else { String::new() };
    format!(
        "{}  {spans} spans in, {held} held | traces {decided} | kept by {kept_by} | {ring}{moved}",
        clock(around.elapsed)
    )
}

/// Of processes with one name only the last one is shown.
fn newest(members: &[Member]) -> impl Iterator<Item = &Member> {
    let later = |index: usize, name: &str| {
        members.iter().skip(index + 1).any(|member| member.identity == name)
    };
    let shown = members.iter().enumerate();
    shown.filter(move |(index, member)| !later(*index, &member.identity)).map(|(_, member)| member)
}

/// Sums over the fleet.
#[derive(Debug, Default)]
struct Figures {
    /// Spans that agents took in.
    spans: u64,
    /// Spans that gateways took in: what shares are shares of.
    gathered: u64,
    held: u64,
    traces: u64,
    decisions: DecisionStats,
    kept_by: BTreeMap<String, u64>,
    policies: Vec<String>,
    digests: BTreeSet<String>,
    agreeing: usize,
    gateways: usize,
    churn: ChurnStats,
    /// Gateways that decide nothing now.
    fenced: usize,
}

// === impl Figures ===

impl Figures {
    fn of(members: &[Member]) -> Self {
        let mut sum = Self::default();
        for member in members {
            let runs = member.ended.is_none();
            sum.gateways += usize::from(runs && member.role == Role::Gateway);
            if let Some(stats) = &member.stats {
                sum.add(stats);
                if runs {
                    sum.add_present(stats);
                }
            }
        }
        sum
    }

    /// What was done stays done, also by those who are gone.
    fn add(&mut self, stats: &Stats) {
        match stats.role {
            Role::Agent => self.spans += stats.ledger.received.total(),
            Role::Gateway => self.gathered += stats.ledger.received.total(),
        }
        if let Some(decisions) = stats.decisions {
            self.decisions.kept += decisions.kept;
            self.decisions.dropped += decisions.dropped;
            self.decisions.early += decisions.early;
        }
        for policy in &stats.policies {
            if !self.kept_by.contains_key(&policy.name) {
                self.policies.push(policy.name.clone());
            }
            *self.kept_by.entry(policy.name.clone()).or_default() += policy.kept;
        }
        self.churn += &stats.churn;
    }

    fn add_present(&mut self, stats: &Stats) {
        if stats.role == Role::Agent {
            self.agreeing += 1;
            self.digests.insert(stats.ring.digest.clone());
        }
        self.held += stats.held.spans;
        self.traces += stats.held.traces;
        self.fenced += usize::from(stats.churn.fence.is_some());
    }

    fn has_moved(&self) -> bool {
        let ChurnStats { handed_over, replayed_traces, conflicts, .. } = &self.churn;
        handed_over.traces + replayed_traces + conflicts > 0 || self.fenced > 0
    }

    /// What keeping traces whole took so far.
    fn moves(&self) -> String {
        let ChurnStats { handed_over, replayed_traces, fences, .. } = &self.churn;
        let (traces, again) = (number(handed_over.traces), number(*replayed_traces));
        let waited: u64 = fences.values().map(|fences| fences.millis).sum();
        let (fenced, gateways) = (self.fenced, self.gateways);
        format!(
            "{traces} traces handed over, {again} sent again after a loss, {fenced} of {gateways} \
             gateways wait to decide ({}.{} s so far)",
            waited / 1_000,
            waited % 1_000 / 100
        )
    }

    /// Only who knows what was sent and what arrived can say that a trace is split. Without both there are
    /// decisions that contradict each other, which is how gateways notice.
    fn split(&self, truth: Option<Truth>) -> String {
        match truth {
            Some(Truth { whole, split }) => {
                let (split, whole) = (number(split), number(whole));
                format!("split       {split}, {whole} kept traces have arrived whole")
            }
            None => {
                let conflicts = number(self.churn.conflicts);
                format!("conflicts   {conflicts} traces were decided twice and differently")
            }
        }
    }

    fn decided(&self) -> String {
        let DecisionStats { kept, dropped, early } = self.decisions;
        let mut text = format!(
            "{} held, {} kept, {} sampled away",
            number(self.traces),
            number(kept),
            number(dropped)
        );
        if early > 0 {
            text.push_str(&format!(", {} of them early", number(early)));
        }
        text
    }

    fn kept_by(&self) -> String {
        let kept = self.policies.iter().filter(|name| self.kept_by[*name] > 0);
        let kept: Vec<String> =
            kept.map(|name| format!("{name} {}", number(self.kept_by[name]))).collect();
        if kept.is_empty() { "nobody yet".to_owned() } else { kept.join(", ") }
    }

    fn ring(&self) -> String {
        let mut digests = self.digests.iter();
        match (digests.next(), digests.next()) {
            (Some(digest), None) => {
                let (agents, gateways) = (self.agreeing, self.gateways);
                format!("{digest}, {agents} agents agree, {gateways} gateways run")
            }
            (Some(_), Some(_)) => "agents do not agree yet".to_owned(),
            (None, _) => "not known yet".to_owned(),
        }
    }
}

// === Rows and figures ===

fn row(member: &Member, fleet: &Figures) -> String {
    let (name, state) = (&member.identity, member.state());
    if member.ended.is_some() {
        return format!("{name:<12}{state}");
    }
    let Some(stats) = &member.stats else {
        return format!("{name:<12}{state}");
    };
    let spans = stats.ledger.received.total();
    let whole = if member.role == Role::Agent { fleet.spans } else { fleet.gathered };
    let share = (spans * 100 + whole / 2).checked_div(whole);
    let share = share.map_or("-".to_owned(), |percent| format!("{percent}%"));
    let traces = match stats.role {
        Role::Agent => String::new(),
        Role::Gateway => number(stats.held.traces),
    };
    let digest = stats.ring.digest.get(..8).unwrap_or_default();
    format!(
        "{name:<12}{state:<16}{:>10}{share:>6}{traces:>8}{:>9}{:>11}{:>8}{:>8}  {digest}",
        number(spans),
        number(stats.held.spans),
        bytes(stats.held.bytes),
        number(total(&stats.ledger.refused)),
        number(total(&stats.ledger.dropped)),
    )
}

/// ` + refused 12 (invalidTraceId 10, memory 2)`, or nothing.
pub fn reasons(what: &str, reasons: &Reasons) -> String {
    let sum = total(reasons);
    if sum == 0 {
        return String::new();
    }
    let each = reasons.iter().filter(|(_, spans)| **spans > 0);
    let each: Vec<String> =
        each.map(|(reason, spans)| format!("{reason} {}", number(*spans))).collect();
    format!(" + {what} {} ({})", number(sum), each.join(", "))
}

/// `1,234,567`.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 MiB`.
fn bytes(value: u64) -> String {
    let (unit, name) = match value {
        0..0x400 => return format!("{value} B"),
        0x400..0x10_0000 => (0x400, "KiB"),
        0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
        _ => (0x4000_0000, "GiB"),
    };
    let tenths = (u128::from(value) * 10) / unit;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// `01:05`.
pub fn clock(elapsed: Duration) -> String {
    format!("{:02}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        let numbers = [0, 999, 1_000, 1_234_567, u64::MAX].map(number);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
        let sizes = [0, 1_023, 1_024, 1_300_000, 3 << 30, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.2 MiB", "3.0 GiB", "17179869183.9 GiB"]);
        assert_eq!(clock(Duration::from_secs(3_661)), "61:01");
    }

    #[test]
    fn reasons_without_spans_are_not_told() {
        let mut some = Reasons::from([("memory".to_owned(), 2), ("invalidTraceId".to_owned(), 0)]);
        assert_eq!(reasons("refused", &some), " + refused 2 (memory 2)");
        some.clear();
        assert_eq!(reasons("refused", &some), "");
    }
}
