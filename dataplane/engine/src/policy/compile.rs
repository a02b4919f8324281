//! From policies as data to a program, or to everything that is wrong with them.

use super::ast::{Policy, Problem, Role, Rule};
use super::attributes::{Attributes, Leaf, Test, bit};
use super::graph::Graph;
use super::limits::{
    MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_POLICIES, MAX_SALT_BYTES, MAX_VALUE_BYTES, MAX_VALUES,
};
use super::pattern;
use super::probability::Probability;
use super::program::{Program, Question, Step};

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
    // A list that is too long is refused already; following its references could nest too deep.
    let mut order = Vec::new();
    let mut graph = None;
    if policies.len() <= MAX_POLICIES {
        let found = Graph::new(policies, &mut compiler.problems);
        order = found.order(&mut compiler.problems);
        graph = Some(found);
    }
    match graph {
        Some(graph) if compiler.problems.is_empty() => Ok(compiler.build(policies, &graph, &order)),
        _ => Err(compiler.into_problems()),
    }
}

/// What is known after a look at each policy by itself.
#[derive(Default)]
struct Compiler {
    problems: Vec<Problem>,
    /// The distinct attribute tests; the place of a leaf is the number of its bit.
    leaves: Vec<Leaf>,
    /// The place of each policy's leaf, if it has one.
    leaf_of: Vec<Option<usize>>,
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
        let mut leaf = None;
        match rule {
            Rule::AlwaysSample => {}
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
                self.check_key("stringAttribute.key", key);
                leaf = self.check_values(key, values, *regex);
            }
            Rule::NumericAttribute { key, min_value, max_value, .. } => {
                self.check_key("numericAttribute.key", key);
                leaf = self.check_range(key, *min_value, *max_value);
            }
            Rule::And { policies } => self.check_present("and.policies", policies.len(), "policy"),
            Rule::Or { policies } => self.check_present("or.policies", policies.len(), "policy"),
            Rule::Drop { policies } => {
                self.check_present("drop.policies", policies.len(), "policy")
            }
            Rule::Not { .. } => {}
        }
        let leaf = leaf.map(|leaf| self.intern(leaf));
        self.leaf_of.push(leaf);
    }

    fn check_present(&mut self, field: &str, count: usize, what: &str) {
        if count == 0 {
            self.report(field, format!("is empty: name at least one {what}"));
        }
    }

    fn check_latency(&mut self, threshold_ms: u64, upper_threshold_ms: Option<u64>) {
        if let Some(upper) = upper_threshold_ms.filter(|upper| *upper <= threshold_ms) {
            let message = format!(
                "{upper} ms is not above the threshold of {threshold_ms} ms, so no trace would match"
            );
            self.report("latency.upperThreshold", message);
        }
    }

    fn check_probability(&mut self, percentage: f64, salt: &str) {
        if !(0.0..=100.0).contains(&percentage) {
            let message = format!("{percentage} is not between 0 and 100");
            self.report("probabilistic.samplingPercentage", message);
        }
        if salt.len() > MAX_SALT_BYTES {
            let message =
                format!("has {} bytes, at most {MAX_SALT_BYTES} are possible", salt.len());
            self.report("probabilistic.hashSalt", message);
        }
    }

    fn check_key(&mut self, field: &str, key: &str) {
        if key.is_empty() {
            self.report(field, "is empty");
        } else if key.len() > MAX_KEY_BYTES {
            self.report(
                field,
                format!("has {} bytes, at most {MAX_KEY_BYTES} are possible", key.len()),
            );
        }
    }

    fn check_values(&mut self, key: &str, values: &[String], regex: bool) -> Option<Leaf> {
        const FIELD: &str = "stringAttribute.values";
        self.check_present(FIELD, values.len(), "value");
        if values.len() > MAX_VALUES {
            let message = format!("has {} values, at most {MAX_VALUES} are possible", values.len());
            self.report(FIELD, message);
        }
        let before = self.problems.len();
        for (index, value) in values.iter().enumerate() {
            if let Err(message) = check_value(value, regex) {
                self.report(format!("{FIELD}[{index}]"), message);
            }
        }
        if self.problems.len() > before {
            return None;
        }
        let test = match regex {
            false => Test::one_of(values),
            true => match pattern::compile(values) {
                Ok(set) => Test::Patterns { sources: values.to_vec(), set },
                Err(error) => {
                    self.report(FIELD, format!("together, {error}"));
                    return None;
                }
            },
        };
        Some(Leaf { key: key.to_owned(), test })
    }

    fn check_range(&mut self, key: &str, min: Option<i64>, max: Option<i64>) -> Option<Leaf> {
        if min.is_none() && max.is_none() {
            self.report("numericAttribute", "has neither minValue nor maxValue: give at least one");
        }
        let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
        if min > max {
            let message = format!("{max} is below the minValue {min}, so no trace would match");
            self.report("numericAttribute.maxValue", message);
        }
        Some(Leaf { key: key.to_owned(), test: Test::Range { min, max } })
    }

    /// The place of a leaf; leaves that ask the same share one, and with it a bit.
    fn intern(&mut self, leaf: Leaf) -> usize {
        let same = |known: &Leaf| known.key == leaf.key && known.test.same(&leaf.test);
        self.leaves.iter().position(same).unwrap_or_else(|| {
            self.leaves.push(leaf);
            self.leaves.len() - 1
        })
    }

    fn build(self, policies: &[Policy], graph: &Graph<'_>, order: &[usize]) -> Program {
        let (mut drops, mut votes) = (0, 0);
        for (place, policy) in policies.iter().enumerate() {
            match (&policy.rule, policy.role) {
                (Rule::Drop { .. }, _) => drops |= bit(place),
                (_, Role::Vote) => votes |= bit(place),
                (_, Role::Part) => {}
            }
        }
        let step = |place: &usize| {
            let rule = &policies.get(*place)?.rule;
            let named = graph.named_by(*place).fold(0, |set, place| set | bit(place));
            let leaf = self.leaf_of.get(*place).copied().flatten().map_or(0, bit);
            Some(Step { bit: bit(*place), question: question(rule, leaf, named) })
        };
        Program {
            steps: order.iter().filter_map(step).collect(),
            names: policies.iter().map(|policy| policy.name.clone()).collect(),
            attributes: Attributes::new(self.leaves),
            drops,
            votes,
        }
    }

    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.policy);
        self.problems
    }
}

/// What a rule asks, given the bit of its attribute test and the set of policies that it names.
fn question(rule: &Rule, leaf: u64, named: u64) -> Question {
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
        | Rule::NumericAttribute { invert_match, .. } => {
            Question::Attribute { bit: leaf, invert: *invert_match }
        }
        Rule::And { .. } | Rule::Drop { .. } => Question::All(named),
        Rule::Or { .. } => Question::Any(named),
        Rule::Not { .. } => Question::None(named),
    }
}

fn check_value(value: &str, regex: bool) -> Result<(), String> {
    if value.is_empty() {
        return Err(match regex {
            true => {
                "is empty and would match every value: write \".*\" if that is meant".to_owned()
            }
            false => "is empty and would match no span: leave it out".to_owned(),
        });
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!("has {} bytes, at most {MAX_VALUE_BYTES} are possible", value.len()));
    }
    match regex {
        true => pattern::check(value).map_err(|error| error.to_string()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
