//! Why each policy says what it says of a trace, for people: a decision never comes here.

use super::attributes::bit;
use super::grant::Receipt;
use super::program::{Program, Question};
use crate::facts::TraceFacts;

/// What one policy says of a trace, and what it looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its place in the list.
    pub policy: usize,
    /// Whether it says yes.
    pub yes: bool,
    /// What it looked at.
    pub why: Why,
}

/// What a policy looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing.
    Always,
    /// The statuses of the spans, as in [`TraceFacts::statuses`].
    Statuses(u8),
    /// The duration in milliseconds.
    Duration(Option<u64>),
    /// The trace ID: its hash, and the highest that is kept.
    Hash {
        /// Of salt and trace ID.
        hash: u64,
        /// The highest that is kept.
        threshold: u64,
    },
    /// Whether any span or resource passes its test; some policies turn the answer around.
    Found(bool),
    /// A condition failed, and the policy says no for it.
    Failed,
    /// The number of spans.
    Spans(u32),
    /// A budget: whether it was asked, which it is only when nothing else keeps or drops the trace.
    Budget {
        /// Whether it was.
        asked: bool,
    },
    /// Other policies: those that it names and that say yes, one bit a policy.
    Named(u64),
}

impl Program {
    /// What every policy says of a trace, in the order of the list, when its decision took this from budgets.
    pub fn explain(&self, facts: &TraceFacts, receipt: &Receipt) -> Vec<Answer> {
        let asked = self.has_budgets() && self.decide(facts).policy.is_none();
        let (mut yes, mut answers) = (0, Vec::with_capacity(self.steps.len()));
        for step in &self.steps {
            let says = match step.question {
                Question::Budget(budget) => receipt.took(budget),
                question => question.holds(facts, yes),
            };
            yes |= if says { step.bit } else { 0 };
            let policy = step.bit.trailing_zeros() as usize;
            let why = step.question.why(facts, yes, asked);
            answers.push(Answer { policy, yes: says, why });
        }
        answers.sort_by_key(|answer| answer.policy);
        answers
    }

    /// The bit of a policy's own question about spans in [`TraceFacts::bits`]; 0 when it has none.
    pub fn question_bit(&self, policy: usize) -> u64 {
        let step = self.steps.iter().find(|step| step.bit == bit(policy));
        match step.map(|step| step.question) {
            Some(Question::Predicate { bit, .. } | Question::Condition { bit, .. }) => bit,
            _ => 0,
        }
    }
}

impl Question {
    fn why(&self, facts: &TraceFacts, yes: u64, asked: bool) -> Why {
        match self {
            Self::Always => Why::Always,
            Self::Status { .. } => Why::Statuses(facts.statuses),
            Self::Latency { .. } => Why::Duration(facts.duration_ms()),
            Self::Probability(probability) => {
                let (hash, threshold) = probability.weigh(&facts.id);
                Why::Hash { hash, threshold }
            }
            Self::Condition { failure, .. } if facts.bits & failure != 0 => Why::Failed,
            Self::Predicate { bit, .. } | Self::Condition { bit, .. } => {
                Why::Found(facts.bits & bit != 0)
            }
            Self::Spans { .. } => Why::Spans(facts.spans),
            Self::Budget(_) => Why::Budget { asked },
            Self::All(named) | Self::Any(named) | Self::None(named) => Why::Named(yes & named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Occasion, Policy, Role, Rule, Status, compile};

    fn policy(name: &str, role: Role, rule: Rule) -> Policy {
        Policy { name: name.to_owned(), role, rule }
    }

    fn facts() -> TraceFacts {
        TraceFacts {
            spans: 3,
            start_ns: 1_000_000,
            end_ns: 8_000_000,
            statuses: Status::Ok.bit(),
            ..TraceFacts::new([1; 16])
        }
    }

    #[test]
    fn every_policy_says_what_it_looked_at() {
        let rules = [
            policy("errors", Role::Vote, Rule::StatusCode { codes: vec![Status::Error] }),
            policy("slow", Role::Part, Rule::Latency { threshold_ms: 5, upper_threshold_ms: None }),
            policy("not", Role::Vote, Rule::Not { policy: "slow".to_owned() }),
            policy(
                "few",
                Role::Vote,
                Rule::RateLimiting { spans_per_second: 2, burst_capacity: None },
            ),
        ];
        let program = compile(&rules).expect("the policies compile");
        let (verdict, receipt) = program.decide_within(&facts(), Occasion { now: 0, members: 1 });
        assert_eq!((verdict.keep, verdict.policy), (true, Some(3)));
        let told = program.explain(&facts(), &receipt);
        let answers: Vec<_> = told.iter().map(|answer| (answer.yes, answer.why)).collect();
        let expected = [
            (false, Why::Statuses(Status::Ok.bit())),
            (true, Why::Duration(Some(7))),
            (false, Why::Named(0b10)),
            (true, Why::Budget { asked: true }),
        ];
        assert_eq!(answers, expected);
        // The budget of four spans has one left.
        let (verdict, receipt) = program.decide_within(&facts(), Occasion { now: 0, members: 1 });
        assert!(!verdict.keep && !program.explain(&facts(), &receipt)[3].yes);
    }
}
