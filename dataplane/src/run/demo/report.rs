//! What the shop sent beside what the backend got: which traces were kept, why, and whether they are whole.

use std::collections::{BTreeMap, HashSet};

use ringtail_engine::policy::{Policy, Role, Rule, Status};

use super::journey::Sent;
use super::menu::Kind;
use super::shop::Closed;
use super::sink::{Arrivals, Arrived};
use crate::run::table::number;

/// What a slow trace of the shop takes at least; a Latency policy up to here promises to keep it.
const SLOW_MS: u64 = 700;
/// Complaints beyond the first few say the same.
const COMPLAINTS_MAX: usize = 10;

/// The comparison.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<Kind, Row>,
    crossed: u64,
    examples: Vec<Example>,
    wrongs: Vec<String>,
    /// Whether spans may come twice.
    repeats: bool,
    /// Spans that did.
    doubled: u64,
    /// Kept traces of which spans are missing.
    split: u64,
}

/// One kind of trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    traces: u64,
    spans: u64,
    kept: u64,
    whole: u64,
    /// Kept traces by the policy that kept them.
    kept_by: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Example {
    kind: Kind,
    id: [u8; 16],
    policy: String,
    tree: Vec<String>,
}

// === impl Report ===

impl Report {
    /// Compares the two sides. `repeats` says that gateways were killed or stood still, so that some spans
    /// may have come twice.
    pub fn compare(shop: &Closed, arrivals: &Arrivals, policies: &[Policy], repeats: bool) -> Self {
        let mut report = Self { wrongs: shop.complaints.clone(), repeats, ..Self::default() };
        for sent in &shop.sent {
            report.add(sent, arrivals, promised(sent.kind, policies));
        }
        let known: HashSet<_> = shop.sent.iter().map(|sent| sent.id).collect();
        let strangers = arrivals.traces.keys().filter(|id| !known.contains(*id)).count();
        if strangers > 0 {
            report.wrongs.push(format!("{strangers} traces arrived that the shop did not send"));
        }
        if arrivals.unreadable > 0 {
            report.wrongs.push(format!("{} spans could not be read", arrivals.unreadable));
        }
        report
    }

    /// Whether every promise was kept.
    pub fn satisfied(&self) -> bool {
        self.wrongs.is_empty()
    }

    fn add(&mut self, sent: &Sent, arrivals: &Arrivals, promised: bool) {
        let row = self.rows.entry(sent.kind).or_default();
        row.traces += 1;
        row.spans += u64::from(sent.spans);
        self.crossed += u64::from(sent.agents.count_ones() > 1);
        let Some(arrived) = arrivals.traces.get(&sent.id) else {
            if promised {
                self.wrongs.push(format!(
                    "{} trace {} was not kept",
                    sent.kind.name(),
                    hex(&sent.id)
                ));
            }
            return;
        };
        row.kept += 1;
        let (made, all, distinct) = (sent.spans as usize, arrived.spans.len(), arrived.distinct());
        self.split += u64::from(distinct < made);
        self.doubled += all.saturating_sub(distinct) as u64;
        if distinct == made && (all == made || self.repeats) {
            row.whole += 1;
        } else {
            let (kind, id) = (sent.kind.name(), hex(&sent.id));
            self.wrongs.push(format!(
                "{kind} trace {id} has {made} spans, {all} arrived, {distinct} of them different"
            ));
        }
        self.explain(sent, arrived, arrivals);
    }

    fn explain(&mut self, sent: &Sent, arrived: &Arrived, arrivals: &Arrivals) {
        let verdict = arrivals.verdict(arrived);
        let name = verdict.policy.and_then(|policy| arrivals.policies().get(usize::from(policy)));
        let (true, Some(policy)) = (verdict.keep, name) else {
            let wrong =
                format!("{} trace {} was kept by no policy", sent.kind.name(), hex(&sent.id));
            return self.wrongs.push(wrong);
        };
        let row = self.rows.entry(sent.kind).or_default();
        *row.kept_by.entry(policy.clone()).or_default() += 1;
        let shown = self.examples.iter().any(|example| example.kind == sent.kind);
        if !shown && matches!(sent.kind, Kind::Error | Kind::Slow) {
            let (policy, tree) = (policy.clone(), arrived.tree());
            self.examples.push(Example { kind: sent.kind, id: sent.id, policy, tree });
        }
    }

    /// The comparison as text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for example in &self.examples {
            let (kind, id, policy) = (example.kind.name(), hex(&example.id), &example.policy);
            lines.push(String::new());
            lines.push(format!("a kept {kind} trace, {id}, kept by policy {policy}"));
            lines.extend(example.tree.iter().map(|line| format!("  {line}")));
        }
        lines.push(String::new());
        lines.push(heading());
        lines.extend(Kind::ALL.iter().filter_map(|kind| Some(self.rows.get(kind)?.line(*kind))));
        lines.push(format!("{} traces crossed both agents", number(self.crossed)));
        let kept: u64 = self.rows.values().map(|row| row.kept).sum();
        let twice = match (self.repeats, number(self.doubled)) {
            (true, doubled) => format!("; {doubled} spans came twice"),
            (false, _) => String::new(),
        };
        lines.push(format!("split {} of {} kept traces{twice}", number(self.split), number(kept)));
        lines.extend(self.verdict());
        lines.push(String::new());
        lines
    }

    /// Compares why traces were kept with what the gateways counted.
    pub fn compare_counts(&mut self, counted: &BTreeMap<String, u64>) {
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for (policy, traces) in self.rows.values().flat_map(|row| &row.kept_by) {
            *found.entry(policy.clone()).or_default() += traces;
        }
        if found != *counted {
            let (found, counted) = (by_policy(&found), by_policy(counted));
            self.wrongs.push(format!("gateways counted {counted} as kept, but it was {found}"));
        }
    }

    fn verdict(&self) -> Vec<String> {
        if self.satisfied() {
            let count = |kind| self.rows.get(&kind).map_or(0, |row: &Row| row.traces);
            let (errors, slow) = (number(count(Kind::Error)), number(count(Kind::Slow)));
            let all = format!("all {errors} error and {slow} slow traces were kept as promised");
            return vec![format!("{all}, every kept trace is whole")];
        }
        let more = self.wrongs.len().saturating_sub(COMPLAINTS_MAX);
        let shown = self.wrongs.iter().take(COMPLAINTS_MAX);
        let mut lines: Vec<String> = shown.map(|wrong| format!("WRONG: {wrong}")).collect();
        if more > 0 {
            lines.push(format!("WRONG: and {more} more"));
        }
        lines
    }
}

// === impl Row ===

fn heading() -> String {
    format!(
        "{:<10}{:>8}{:>8}{:>8}{:>8}   {}",
        "traces", "sent", "spans", "kept", "whole", "kept by"
    )
}

impl Row {
    fn line(&self, kind: Kind) -> String {
        let (name, kept_by) = (kind.name(), by_policy(&self.kept_by));
        let [sent, spans, kept, whole] =
            [self.traces, self.spans, self.kept, self.whole].map(number);
        format!("{name:<10}{sent:>8}{spans:>8}{kept:>8}{whole:>8}   {kept_by}")
    }
}

fn by_policy(traces: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> =
        traces.iter().map(|(policy, traces)| format!("{policy} {}", number(*traces))).collect();
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}

/// Whether the manifest says that traces of this kind are kept.
fn promised(kind: Kind, policies: &[Policy]) -> bool {
    policies.iter().filter(|policy| policy.role == Role::Vote).any(|policy| {
        match (kind, &policy.rule) {
            (Kind::Error, Rule::StatusCode { codes }) => codes.contains(&Status::Error),
            (Kind::Slow, Rule::Latency { threshold_ms, upper_threshold_ms: None }) => {
                *threshold_ms < SLOW_MS
            }
            (Kind::Error | Kind::Slow, Rule::AlwaysSample) => true,
            _ => false,
        }
    })
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
