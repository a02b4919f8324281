//! `tail_sampling.policies`: what a Collector nests becomes named policies with role Part.

use std::collections::BTreeSet;

use super::leaves::Leaf;
use super::report::Place;
use super::source::{Entry, Fields, Reader};
use super::tree::Tree;

/// What a policy's name may be long.
const NAME_BYTES_MAX: usize = 63;

/// A policy of the manifest.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) tree: Tree,
    /// The policies that it names.
    pub(super) names: Vec<String>,
}

/// Policies so far, and the names that are taken.
#[derive(Debug)]
pub(super) struct Policies<'a, 'r> {
    pub(super) reader: &'a mut Reader<'r>,
    pub(super) list: Vec<Written>,
    taken: BTreeSet<String>,
}

/// Type, settings and the names of other policies.
pub(super) struct Rule {
    pub(super) type_: &'static str,
    pub(super) member: Option<(&'static str, Tree)>,
    names: Vec<String>,
}

/// Where a policy stands, and its name.
struct Seat<'n> {
    name: &'n str,
    part: bool,
}

// === impl Rule ===

impl Rule {
    pub(super) fn new(type_: &'static str, member: &'static str, settings: Tree) -> Self {
        Self { type_, member: Some((member, settings)), names: Vec::new() }
    }

    pub(super) fn bare(type_: &'static str) -> Self {
        Self { type_, member: None, names: Vec::new() }
    }

    /// A policy that says no to every trace.
    pub(super) fn never() -> Self {
        let none = Tree::map([("samplingPercentage", Tree::Number(0))]);
        Self::new("Probabilistic", "probabilistic", none)
    }

    fn naming(type_: &'static str, member: &'static str, names: Vec<String>) -> Self {
        let settings = Tree::map([("policies", Tree::texts(names.clone()))]);
        Self { names, ..Self::new(type_, member, settings) }
    }
}

// === impl Policies ===

impl<'a, 'r> Policies<'a, 'r> {
    /// Converts a list of policies.
    pub(super) fn read(reader: &'a mut Reader<'r>, list: &Entry<'_>) -> Vec<Written> {
        let mut policies = Self { reader, list: Vec::new(), taken: BTreeSet::new() };
        let entries = list.items();
        // Names of the top come first: they are the ones that dashboards know.
        let mut names = Vec::new();
        for entry in &entries {
            names.push(policies.name(entry, None));
        }
        for (entry, name) in entries.iter().zip(&names) {
            policies.add(entry, &Seat { name, part: false });
        }
        policies.list
    }

    /// Adds a policy, and before it those inside it; false when nothing is like it.
    fn add(&mut self, entry: &Entry<'_>, seat: &Seat<'_>) -> bool {
        let mut fields = Fields::of(entry, self.reader.report);
        fields.take("name");
        let Some(type_) = fields.take("type").and_then(|entry| self.reader.text(&entry)) else {
            self.reader.report.error(&entry.place, "is a policy without a type");
            return false;
        };
        let settings = fields.take_bare(&type_);
        fields.finish(self.reader.report);
        let before = self.list.len();
        let Some(rule) = self.rule(entry, settings.as_ref(), &type_, seat.name) else {
            // Parts of what is left out serve nobody.
            self.list.truncate(before);
            return false;
        };
        let role = seat.part.then(|| Tree::text("Part"));
        let tree = Tree::map([("name", Tree::text(seat.name)), ("type", Tree::text(rule.type_))]);
        let tree = tree.with_some("role", role);
        let tree = match rule.member {
            Some((member, settings)) => tree.with(member, settings),
            None => tree,
        };
        self.list.push(Written {
            name: seat.name.to_owned(),
            place: entry.place.clone(),
            tree,
            names: rule.names,
        });
        true
    }

    fn rule(
        &mut self,
        entry: &Entry<'_>,
        settings: Option<&Entry<'_>>,
        type_: &str,
        name: &str,
    ) -> Option<Rule> {
        match type_ {
            "and" => self.all_of(entry, settings, name, "and_sub_policy").map(|names| {
                match names.is_empty() {
                    // The Collector's empty list says yes.
                    true => Rule::bare("AlwaysSample"),
                    false => Rule::naming("And", "and", names),
                }
            }),
            "drop" => {
                let mut names = self.all_of(entry, settings, name, "drop_sub_policy")?;
                if names.is_empty() {
                    self.reader.report.differs(&entry.place, "drops every trace, as it does there");
                    names.push(self.everything(name, &entry.place));
                }
                Some(Rule::naming("Drop", "drop", names))
            }
            "not" => self.not(entry, settings, name),
            "composite" => self.composite(entry, settings, name),
            _ => Leaf { reader: self.reader, place: &entry.place }.rule(type_, settings),
        }
    }

    /// The names of the policies inside a container; `None` when one of them is lost.
    fn all_of(
        &mut self,
        entry: &Entry<'_>,
        settings: Option<&Entry<'_>>,
        name: &str,
        field: &str,
    ) -> Option<Vec<String>> {
        let mut fields = Fields::of(settings?, self.reader.report);
        let list = fields.take(field);
        fields.finish(self.reader.report);
        let mut names = Vec::new();
        for child in list.iter().flat_map(Entry::items) {
            let own = self.name(&child, Some(name));
            if !self.add(&child, &Seat { name: &own, part: true }) {
                let why = format!("{name} is left out: nothing is like a policy inside it");
                self.reader.report.lost(&entry.place, why);
                return None;
            }
            names.push(own);
        }
        Some(names)
    }

    fn not(&mut self, entry: &Entry<'_>, settings: Option<&Entry<'_>>, name: &str) -> Option<Rule> {
        let mut fields = Fields::of(settings?, self.reader.report);
        let child = fields.take("not_sub_policy");
        fields.finish(self.reader.report);
        let Some(child) = child else {
            self.reader.report.error(&entry.place, "needs a not_sub_policy");
            return None;
        };
        let own = self.name(&child, Some(name));
        if !self.add(&child, &Seat { name: &own, part: true }) {
            let why = format!("{name} is left out: nothing is like the policy inside it");
            self.reader.report.lost(&entry.place, why);
            return None;
        }
        let settings = Tree::map([("policy", Tree::text(own.clone()))]);
        Some(Rule { names: vec![own], ..Rule::new("Not", "not", settings) })
    }

    fn composite(
        &mut self,
        entry: &Entry<'_>,
        settings: Option<&Entry<'_>>,
        name: &str,
    ) -> Option<Rule> {
        let mut fields = Fields::of(settings?, self.reader.report);
        let total = fields.take("max_total_spans_per_second");
        let order = fields.take("policy_order");
        let shares = fields.take("rate_allocation");
        let subs = fields.take("composite_sub_policy");
        fields.finish(self.reader.report);
        let total = total.and_then(|total| self.reader.number(&total)).unwrap_or_default();
        if total < 1 {
            self.reader
                .report
                .differs(&entry.place, "has no spans a second and never keeps a trace");
            return Some(Rule::never());
        }
        let shares = self.shares(shares.as_ref());
        let (mut parts, mut names, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for child in subs.iter().flat_map(Entry::items) {
            let theirs = child.field("name").and_then(|name| name.raw()).unwrap_or_default();
            let own = self.name(&child, Some(name));
            if !self.add(&child, &Seat { name: &own, part: true }) {
                continue;
            }
            let share = shares.iter().find(|(policy, _)| *policy == theirs);
            let share = share.map(|(_, percent)| Tree::Number(*percent));
            let part = Tree::map([("policy", Tree::text(own.clone()))]);
            parts.push(part.with_some("rateAllocation", share));
            seen.push((theirs, own.clone()));
            names.push(own);
        }
        if names.is_empty() {
            self.reader
                .report
                .lost(&entry.place, format!("{name} is left out: it has no policies"));
            return None;
        }
        self.reader.report.differs(
            &entry.place,
            "the budget is that of all gateways together, a policy lends what it does not need, and the next \
             one is asked when a budget is used up; the Collector has one a replica and does neither",
        );
        let order = self.order(order.as_ref(), &seen);
        let settings = Tree::map([
            ("maxTotalSpansPerSecond", Tree::Number(total)),
            ("subPolicies", Tree::List(parts)),
        ]);
        let settings = settings.with_some("policyOrder", order);
        Some(Rule { names, ..Rule::new("Composite", "composite", settings) })
    }

    fn shares(&mut self, list: Option<&Entry<'_>>) -> Vec<(String, i64)> {
        let mut shares = Vec::new();
        for item in list.into_iter().flat_map(Entry::items) {
            let mut fields = Fields::of(&item, self.reader.report);
            let policy = fields.take("policy").and_then(|policy| self.reader.text(&policy));
            let percent = fields.take("percent").and_then(|percent| self.reader.number(&percent));
            fields.finish(self.reader.report);
            match (policy, percent) {
                // None is an equal part there.
                (Some(policy), Some(percent)) if percent > 0 => shares.push((policy, percent)),
                _ => {}
            }
        }
        shares
    }

    fn order(&mut self, order: Option<&Entry<'_>>, seen: &[(String, String)]) -> Option<Tree> {
        let order = order?;
        let own = |theirs: &String| {
            seen.iter().find(|(name, _)| name == theirs).map(|(_, own)| own.clone())
        };
        let written = self.reader.texts(order);
        let mut names: Vec<String> = Vec::new();
        for name in written.iter().filter_map(own) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let listed: Vec<_> = seen.iter().map(|(_, own)| own.clone()).collect();
        if names == listed {
            return None;
        }
        let rest: Vec<_> = listed.into_iter().filter(|name| !names.contains(name)).collect();
        names.extend(rest);
        self.reader.report.differs(
            &order.place,
            "is followed here; the Collector reads it and asks in the order of composite_sub_policy",
        );
        Some(Tree::texts(names))
    }

    /// A policy that says yes to everything, for a container.
    fn everything(&mut self, parent: &str, place: &Place) -> String {
        let name = self.free(&format!("{parent}-everything"));
        let tree = Tree::map([
            ("name", Tree::text(name.clone())),
            ("type", Tree::text("AlwaysSample")),
            ("role", Tree::text("Part")),
        ]);
        let names = Vec::new();
        self.list.push(Written { name: name.clone(), place: place.clone(), tree, names });
        name
    }

    /// A name that nobody has, near the one that a policy has.
    fn name(&mut self, entry: &Entry<'_>, parent: Option<&str>) -> String {
        let text = |field| entry.field(field).and_then(|field| field.raw()).unwrap_or_default();
        let (written, type_) = (text("name"), text("type"));
        let wanted = match (written.is_empty(), parent) {
            (false, _) => fitting(&written),
            (true, Some(parent)) => fitting(&format!("{parent}-{type_}")),
            (true, None) => fitting(&type_),
        };
        let wanted = match parent {
            Some(parent) if self.taken.contains(&wanted) => fitting(&format!("{parent}-{wanted}")),
            _ => wanted,
        };
        let name = self.free(&wanted);
        if !written.is_empty() && name != written {
            let why = format!("the policy {written:?} is called {name}, in metrics too");
            self.reader.report.differs(&entry.place, why);
        }
        name
    }

    fn free(&mut self, wanted: &str) -> String {
        let wanted = fitting(wanted);
        let mut name = wanted.clone();
        let mut number = 2;
        while !self.taken.insert(name.clone()) {
            let end = format!("-{number}");
            let room = wanted.floor_char_boundary(NAME_BYTES_MAX - end.len());
            name = format!("{}{end}", &wanted[..room.min(wanted.len())]);
            number += 1;
        }
        name
    }
}

/// The nearest name that the schema takes.
fn fitting(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let ends = |c: char| !c.is_ascii_alphanumeric();
    let text = text.trim_matches(ends);
    let text = text[..text.len().min(NAME_BYTES_MAX)].trim_matches(ends);
    if text.is_empty() { "policy".to_owned() } else { text.to_owned() }
}
