//! Which policies name which: names resolved, cycles found, an order in which each comes after those it
//! names.

use std::collections::HashMap;

use super::ast::{Policy, Problem, Role, Rule};
use super::attributes::bit;

/// What the policies of a list name, by place.
pub(super) struct Graph<'a> {
    policies: &'a [Policy],
    edges: Vec<Vec<Edge>>,
}

/// One policy named by another.
struct Edge {
    /// Where in the container it is named.
    field: String,
    /// Which policy it is.
    target: usize,
}

/// How far the walk through the graph is with a policy.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

impl<'a> Graph<'a> {
    /// Resolves all names, reporting those that cannot stand where they are.
    pub(super) fn new(policies: &'a [Policy], problems: &mut Vec<Problem>) -> Self {
        let mut places = HashMap::with_capacity(policies.len());
        for (place, policy) in policies.iter().enumerate() {
            places.entry(policy.name.as_str()).or_insert(place);
        }
        let mut edges = Vec::with_capacity(policies.len());
        for (place, policy) in policies.iter().enumerate() {
            let mut own: Vec<Edge> = Vec::new();
            for (field, name) in references(&policy.rule) {
                match target(policies, &places, place, name, &own) {
                    Ok(target) => own.push(Edge { field, target }),
                    Err(message) => problems.push(Problem { policy: Some(place), field, message }),
                }
            }
            edges.push(own);
        }
        let graph = Self { policies, edges };
        graph.report_unused_parts(problems);
        graph
    }

    /// The policies that this one names.
    pub(super) fn named_by(&self, place: usize) -> impl Iterator<Item = usize> {
        self.edges.get(place).into_iter().flatten().map(|edge| edge.target)
    }

    /// All places, each after those that it names; every reference that closes a cycle is reported and not
    /// followed.
    ///
    /// It recurses as deep as containers nest, at most once a policy of the list.
    pub(super) fn order(&self, problems: &mut Vec<Problem>) -> Vec<usize> {
        let mut walk = Walk {
            graph: self,
            marks: vec![Mark::New; self.policies.len()],
            path: Vec::new(),
            order: Vec::with_capacity(self.policies.len()),
            problems,
        };
        for place in 0..self.policies.len() {
            walk.visit(place);
        }
        walk.order
    }

    /// The policies that are a budget or name one, directly or through others. Reports those that ask for the
    /// contrary of one, or drop by it: what a budget says depends on what else is kept. `order` is what
    /// [`Graph::order`] says.
    pub(super) fn asking_budgets(&self, order: &[usize], problems: &mut Vec<Problem>) -> u64 {
        let mut asking = 0;
        // By place: the budgets that a policy asks.
        let mut asked = vec![0_u64; self.policies.len()];
        for place in order {
            let Some(rule) = self.policies.get(*place).map(|policy| &policy.rule) else { continue };
            let is_budget = matches!(
                rule,
                Rule::RateLimiting { .. } | Rule::BytesLimiting { .. } | Rule::Composite { .. }
            );
            let edges = self.edges.get(*place).into_iter().flatten();
            let limited = |edge: &&Edge| asking & bit(edge.target) != 0;
            let first = edges.clone().find(limited);
            let of = |edge: &Edge| asked.get(edge.target).copied().unwrap_or_default();
            let own = if is_budget { bit(*place) } else { 0 };
            let budgets = edges.map(of).fold(own, |set, budgets| set | budgets);
            if budgets != 0 {
                asking |= bit(*place);
            }
            if let Some(asked) = asked.get_mut(*place) {
                *asked = budgets;
            }
            if let (Rule::Not { .. } | Rule::Drop { .. }, Some(edge)) = (rule, first) {
                let name = self.policies.get(edge.target).map_or("", |policy| policy.name.as_str());
                let message = format!(
                    "\"{name}\" has a budget or names a policy that has one; a budget keeps traces, and \
                     nothing can be said of those that it has no room for"
                );
                problems.push(Problem { policy: Some(*place), field: edge.field.clone(), message });
            }
        }
        self.report_shared_budgets(&asked, problems);
        asking
    }

    /// A policy that is only counted must take nothing from those that vote.
    fn report_shared_budgets(&self, asked: &[u64], problems: &mut Vec<Problem>) {
        let with_role = |role| {
            let policies = self.policies.iter().enumerate();
            policies.filter(move |(_, policy)| policy.role == role).map(|(place, _)| place)
        };
        let budgets = |place: usize| asked.get(place).copied().unwrap_or_default();
        let voting = with_role(Role::Vote).fold(0, |set, place| set | budgets(place));
        for place in with_role(Role::Shadow) {
            let shared = budgets(place) & voting;
            let Some(policy) = self.policies.get(shared.trailing_zeros() as usize) else {
                continue;
            };
            problems.push(Problem {
                policy: Some(place),
                field: "role".to_owned(),
                message: format!(
                    "a Shadow takes from the budget of \"{}\", which policies that vote take from: give it \
                     one of its own",
                    policy.name
                ),
            });
        }
    }

    fn report_unused_parts(&self, problems: &mut Vec<Problem>) {
        let mut used = vec![false; self.policies.len()];
        for edge in self.edges.iter().flatten() {
            if let Some(used) = used.get_mut(edge.target) {
                *used = true;
            }
        }
        for (place, policy) in self.policies.iter().enumerate() {
            let unused = policy.role == Role::Part && used.get(place) == Some(&false);
            if unused && !matches!(policy.rule, Rule::Drop { .. }) {
                let message = "has no effect: no container names this Part; name it in one, or give it \
                               the role Vote";
                problems.push(Problem {
                    policy: Some(place),
                    field: "role".to_owned(),
                    message: message.to_owned(),
                });
            }
        }
    }
}

/// A depth-first walk.
struct Walk<'g, 'a> {
    graph: &'g Graph<'a>,
    marks: Vec<Mark>,
    /// The policies that are open, outermost first.
    path: Vec<usize>,
    order: Vec<usize>,
    problems: &'g mut Vec<Problem>,
}

impl Walk<'_, '_> {
    fn visit(&mut self, place: usize) {
        if self.mark(place) != Mark::New {
            return;
        }
        self.set(place, Mark::Open);
        self.path.push(place);
        let graph = self.graph;
        for edge in graph.edges.get(place).into_iter().flatten() {
            match self.mark(edge.target) {
                Mark::New => self.visit(edge.target),
                Mark::Open => self.report_cycle(place, edge),
                Mark::Done => {}
            }
        }
        self.path.pop();
        self.set(place, Mark::Done);
        self.order.push(place);
    }

    fn mark(&self, place: usize) -> Mark {
        self.marks.get(place).copied().unwrap_or(Mark::Done)
    }

    fn set(&mut self, place: usize, mark: Mark) {
        if let Some(slot) = self.marks.get_mut(place) {
            *slot = mark;
        }
    }

    fn report_cycle(&mut self, place: usize, edge: &Edge) {
        let policies = self.graph.policies;
        let cycle = self.path.iter().skip_while(|open| **open != edge.target).chain([&edge.target]);
        let names: Vec<&str> =
            cycle.filter_map(|p| policies.get(*p)).map(|p| p.name.as_str()).collect();
        self.problems.push(Problem {
            policy: Some(place),
            field: edge.field.clone(),
            message: format!("closes a cycle: {}", names.join(" -> ")),
        });
    }
}

/// Which policy a name in the container at `place` stands for, or why it cannot stand there.
fn target(
    policies: &[Policy],
    places: &HashMap<&str, usize>,
    place: usize,
    name: &str,
    before: &[Edge],
) -> Result<usize, String> {
    let Some(&target) = places.get(name) else {
        return Err(format!("no policy is named \"{name}\""));
    };
    if target == place {
        return Err("names the policy itself".to_owned());
    }
    if matches!(policies.get(target).map(|policy| &policy.rule), Some(Rule::Drop { .. })) {
        return Err(format!(
            "\"{name}\" is a Drop policy, which no other may name: name what it names"
        ));
    }
    if before.iter().any(|edge| edge.target == target) {
        return Err(format!("\"{name}\" is named twice"));
    }
    Ok(target)
}

/// The names that a rule mentions and where.
fn references(rule: &Rule) -> Vec<(String, &str)> {
    let list = |container: &str, names: &'_ [String]| -> Vec<String> {
        (0..names.len()).map(|n| format!("{container}.policies[{n}]")).collect()
    };
    let (fields, names) = match rule {
        Rule::And { policies } => (list("and", policies), policies.as_slice()),
        Rule::Or { policies } => (list("or", policies), policies.as_slice()),
        Rule::Drop { policies } => (list("drop", policies), policies.as_slice()),
        Rule::Not { policy } => (vec!["not.policy".to_owned()], std::slice::from_ref(policy)),
        Rule::Composite { sub_policies, .. } => {
            let field = |n: usize| format!("composite.subPolicies[{n}].policy");
            let named = sub_policies.iter().enumerate();
            return named.map(|(n, sub)| (field(n), sub.policy.as_str())).collect();
        }
        _ => (Vec::new(), [].as_slice()),
    };
    fields.into_iter().zip(names.iter().map(String::as_str)).collect()
}
