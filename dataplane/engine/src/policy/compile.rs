//! From policies as data to a program, or to everything that is wrong with them.

use super::ast::{ErrorMode, Policy, Problem, Role, Rule};
use super::attributes::bit;
use super::budget::Budget;
use super::grant::Budgets;
use super::graph::Graph;
use super::limits::{MAX_NAME_BYTES, MAX_POLICIES, MAX_PREDICATES};
use super::predicates::{Predicate, Predicates, failure_bit};
use super::probability::Probability;
use super::program::{Program, Question, Step};
use super::record::Records;

mod budgets;
mod leaves;

use budgets::plan;

/// Compiles a list of policies. All problems are reported at once, in the order of the list, those of the
/// list as a whole first.
pub fn compile(policies: &[Policy]) -> Result<Program, Vec<Problem>> {
    let mut compiler = Compiler::default();
    compiler.check_list(policies);
    for (place, policy) in policies.iter().enumerate() {
        compiler.place = place;
        compiler.check_names(policies, policy);
        compiler.check_rule(&policy.rule);
    }
    compiler.check_predicates();
    // A list that is too long is refused already; following its references could nest too deep.
    let (mut order, mut asking) = (Vec::new(), 0);
    let mut graph = None;
    if policies.len() <= MAX_POLICIES {
        let found = Graph::new(policies, &mut compiler.problems);
        order = found.order(&mut compiler.problems);
        asking = found.asking_budgets(&order, &mut compiler.problems);
        graph = Some(found);
    }
    match graph {
        Some(graph) if compiler.problems.is_empty() => {
            Ok(compiler.build(policies, &graph, (&order, asking)))
        }
        _ => Err(compiler.into_problems()),
    }
}

/// What is known after a look at each policy by itself.
#[derive(Default)]
struct Compiler {
    problems: Vec<Problem>,
    /// The distinct predicates; the place of one is the number of its bit.
    predicates: Vec<Predicate>,
    /// The place of each policy's predicate, if it has one.
    predicate_of: Vec<Option<usize>>,
    /// The policy that is being checked.
    place: usize,
}

impl Compiler {
    fn report(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let policy = Some(self.place);
        self.problems.push(Problem { policy, field: field.into(), message: message.into() });
    }

    fn check_list(&mut self, policies: &[Policy]) {
        let mut report = |message: String| {
            self.problems.push(Problem { policy: None, field: String::new(), message });
        };
        if policies.len() > MAX_POLICIES {
            report(format!("{} policies, at most {MAX_POLICIES} are possible", policies.len()));
        }
        let votes = |policy: &&Policy| {
            policy.role == Role::Vote && !matches!(policy.rule, Rule::Drop { .. })
        };
        if !policies.iter().any(|policy| votes(&policy)) {
            let message = "no policy votes to keep a trace, so none would be kept: add one with the \
                           role Vote";
            report(message.to_owned());
        }
    }

    fn check_names(&mut self, policies: &[Policy], policy: &Policy) {
        let name = policy.name.as_str();
        if name.is_empty() {
            self.report("name", "is empty");
        } else if name.len() > MAX_NAME_BYTES {
            self.report(
                "name",
                format!("has {} bytes, at most {MAX_NAME_BYTES} are possible", name.len()),
            );
        }
        let same = |other: &Policy| other.name == name;
        if let Some(first) = policies.iter().take(self.place).position(same) {
            self.report("name", format!("\"{name}\" is the name of policies[{first}] too"));
        }
        if policy.role == Role::Part && matches!(policy.rule, Rule::Drop { .. }) {
            self.report("role", "a Drop policy acts by itself: leave its role out");
        }
    }

    fn check_rule(&mut self, rule: &Rule) {
        let mut predicate = None;
        match rule {
            Rule::AlwaysSample | Rule::Not { .. } => {}
            Rule::StatusCode { codes } => {
                self.check_present("statusCode.statusCodes", codes.len(), "status code");
            }
            Rule::Latency { threshold_ms, upper_threshold_ms } => {
                self.check_latency(*threshold_ms, *upper_threshold_ms);
            }
            Rule::Probabilistic { sampling_percentage, hash_salt } => {
                self.check_probability(*sampling_percentage, hash_salt);
            }
            Rule::StringAttribute { key, values, regex, .. } => {
                predicate = self.string(key, values, *regex);
            }
            Rule::NumericAttribute { key, min_value, max_value, .. } => {
                predicate = Some(self.range(key, *min_value, *max_value));
            }
            Rule::BooleanAttribute { key, value, .. } => {
                predicate = Some(self.boolean(key, *value));
            }
            Rule::SpanCount { min_spans, max_spans } => self.check_count(*min_spans, *max_spans),
            Rule::TraceState { key, values } => predicate = Some(self.state(key, values)),
            Rule::TraceFlags => predicate = Some(Predicate::Sampled),
            Rule::OttlCondition { span, span_event, error_mode } => {
                predicate = self.conditions([span, span_event], *error_mode);
            }
            Rule::RateLimiting { spans_per_second, burst_capacity } => {
                self.check_rate(
                    ("rateLimiting", "spansPerSecond"),
                    *spans_per_second,
                    *burst_capacity,
                );
            }
            Rule::BytesLimiting { bytes_per_second, burst_capacity } => {
                self.check_rate(
                    ("bytesLimiting", "bytesPerSecond"),
                    *bytes_per_second,
                    *burst_capacity,
                );
            }
            Rule::Composite { max_total_spans_per_second, sub_policies, policy_order } => {
                self.check_composite(*max_total_spans_per_second, sub_policies, policy_order);
            }
            Rule::And { policies } => self.check_present("and.policies", policies.len(), "policy"),
            Rule::Or { policies } => self.check_present("or.policies", policies.len(), "policy"),
            Rule::Drop { policies } => {
                self.check_present("drop.policies", policies.len(), "policy");
            }
        }
        let predicate = predicate.map(|predicate| self.intern(predicate));
        self.predicate_of.push(predicate);
    }

    fn check_predicates(&mut self) {
        let count = self.predicates.len();
        if count > MAX_PREDICATES && self.predicate_of.len() <= MAX_POLICIES {
            let message = format!(
                "the policies ask {count} questions of spans, at most {MAX_PREDICATES} are possible: \
                 an OTTLCondition with errorMode Propagate counts twice"
            );
            self.problems.push(Problem { policy: None, field: String::new(), message });
        }
    }

    /// The place of a predicate; those that ask the same share one, and with it a bit.
    fn intern(&mut self, predicate: Predicate) -> usize {
        let same = |known: &Predicate| known.same(&predicate);
        self.predicates.iter().position(same).unwrap_or_else(|| {
            let propagates = matches!(
                &predicate,
                Predicate::Condition(conditions) if conditions.mode == ErrorMode::Propagate
            );
            let place = self.predicates.len();
            self.predicates.push(predicate);
            if propagates {
                self.predicates.push(Predicate::Failure);
            }
            place
        })
    }

    fn build(
        self,
        policies: &[Policy],
        graph: &Graph<'_>,
        (order, asking): (&[usize], u64),
    ) -> Program {
        let (mut drops, mut votes, mut shadows, mut shadow_drops) = (0, 0, 0, 0);
        for (place, policy) in policies.iter().enumerate() {
            let is_drop = matches!(policy.rule, Rule::Drop { .. });
            match (is_drop, policy.role) {
                (_, Role::Shadow) => {
                    shadows |= bit(place);
                    shadow_drops |= if is_drop { bit(place) } else { 0 };
                }
                (true, _) => drops |= bit(place),
                (false, Role::Vote) => votes |= bit(place),
                (false, Role::Part) => {}
            }
        }
        let mut budgets = Budgets { asking, ..Budgets::default() };
        for (place, policy) in policies.iter().enumerate() {
            let named: Vec<usize> = graph.named_by(place).collect();
            let predicate = self.predicate_of.get(place).copied().flatten();
            let bits = predicate.map_or((0, 0), |place| (bit(place), failure_bit(place)));
            let set = named.iter().fold(0, |set, place| set | bit(*place));
            let question = match plan(&policy.rule) {
                Some((plan, parts)) => {
                    let places = parts.iter().filter_map(|part| named.get(*part).copied());
                    budgets.parts.push(places.collect());
                    budgets.list.push(Budget::new(plan));
                    Question::Budget(budgets.list.len() - 1)
                }
                None => question(&policy.rule, bits, set),
            };
            budgets.questions.push(question);
        }
        let step = |place: &usize| {
            Some(Step { bit: bit(*place), question: *budgets.questions.get(*place)? })
        };
        Program {
            steps: order.iter().filter_map(step).collect(),
            names: policies.iter().map(|policy| policy.name.clone()).collect(),
            predicates: Predicates::new(self.predicates),
            drops,
            votes,
            shadows,
            shadow_drops,
            budgets,
            records: Records::default(),
            stamp: 0,
            levels: Vec::new(),
        }
    }

    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.policy);
        self.problems
    }
}

/// What a rule asks, given the bits of its predicate and the set of policies that it names.
fn question(rule: &Rule, (bit, failure): (u64, u64), named: u64) -> Question {
    match rule {
        Rule::AlwaysSample => Question::Always,
        Rule::StatusCode { codes } => {
            Question::Status { any_of: codes.iter().fold(0, |mask, code| mask | code.bit()) }
        }
        Rule::Latency { threshold_ms, upper_threshold_ms } => Question::Latency {
            above_ms: *threshold_ms,
            up_to_ms: upper_threshold_ms.unwrap_or(u64::MAX),
        },
        Rule::Probabilistic { sampling_percentage, hash_salt } => {
            Question::Probability(Probability::new(*sampling_percentage, hash_salt))
        }
        Rule::StringAttribute { invert_match, .. }
        | Rule::NumericAttribute { invert_match, .. }
        | Rule::BooleanAttribute { invert_match, .. } => {
            Question::Predicate { bit, invert: *invert_match }
        }
        Rule::TraceState { .. } | Rule::TraceFlags => Question::Predicate { bit, invert: false },
        Rule::OttlCondition { error_mode, .. } => {
            let propagates = *error_mode == ErrorMode::Propagate;
            Question::Condition { bit, failure: if propagates { failure } else { 0 } }
        }
        Rule::SpanCount { min_spans, max_spans } => {
            Question::Spans { min: min_spans.unwrap_or(0), max: max_spans.unwrap_or(u32::MAX) }
        }
        Rule::And { .. } | Rule::Drop { .. } => Question::All(named),
        // Budgets are questions of their own.
        Rule::RateLimiting { .. } | Rule::BytesLimiting { .. } | Rule::Composite { .. } => {
            Question::Any(0)
        }
        Rule::Or { .. } => Question::Any(named),
        Rule::Not { .. } => Question::None(named),
    }
}

#[cfg(test)]
mod tests;
