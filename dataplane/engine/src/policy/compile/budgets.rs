//! What budgets are checked for, and the plans that they come to.

use super::super::ast::{Rule, SubPolicy};
use super::super::budget::Plan;
use super::super::limits::MAX_RATE;
use super::Compiler;

/// How much more than a second brings can be saved up, unless the manifest says it; the Collector's factor.
const BURST_SECONDS: u64 = 2;

impl Compiler {
    pub(super) fn check_rate(
        &mut self,
        (kind, field): (&str, &str),
        rate: u64,
        burst: Option<u64>,
    ) {
        self.check_amount(format!("{kind}.{field}"), rate);
        if let Some(burst) = burst {
            self.check_amount(format!("{kind}.burstCapacity"), burst);
        }
    }

    fn check_amount(&mut self, field: String, amount: u64) {
        if !(1..=MAX_RATE).contains(&amount) {
            self.report(field, format!("{amount} is not from 1 to {MAX_RATE}"));
        }
    }

    pub(super) fn check_composite(&mut self, rate: u64, parts: &[SubPolicy], order: &[String]) {
        self.check_amount("composite.maxTotalSpansPerSecond".to_owned(), rate);
        self.check_present("composite.subPolicies", parts.len(), "policy");
        let mut total = 0_u64;
        for (index, part) in parts.iter().enumerate() {
            let Some(percent) = part.rate_allocation_percent else { continue };
            total += u64::from(percent);
            if !(1..=100).contains(&percent) {
                let field = format!("composite.subPolicies[{index}].rateAllocation");
                self.report(field, format!("{percent} percent is not from 1 to 100"));
            }
        }
        if total > 100 {
            let message =
                format!("the shares are {total} percent together, at most 100 are possible");
            self.report("composite.subPolicies", message);
        }
        self.check_order(parts, order);
    }

    fn check_order(&mut self, parts: &[SubPolicy], order: &[String]) {
        const FIELD: &str = "composite.policyOrder";
        if order.is_empty() {
            return;
        }
        for (index, name) in order.iter().enumerate() {
            if !parts.iter().any(|part| part.policy == *name) {
                let message = format!("\"{name}\" is not among the subPolicies");
                self.report(format!("{FIELD}[{index}]"), message);
            } else if order.iter().take(index).any(|before| before == name) {
                self.report(format!("{FIELD}[{index}]"), format!("\"{name}\" is named twice"));
            }
        }
        if let Some(part) = parts.iter().find(|part| !order.contains(&part.policy)) {
            let message = format!("\"{}\" is missing: name all subPolicies, or none", part.policy);
            self.report(FIELD, message);
        }
    }
}

/// The budget that a rule asks for, and its parts in order by their place among those that it names.
pub(super) fn plan(rule: &Rule) -> Option<(Plan, Vec<usize>)> {
    let burst =
        |burst: &Option<u64>, rate: u64| burst.unwrap_or(rate.saturating_mul(BURST_SECONDS));
    match rule {
        Rule::RateLimiting { spans_per_second: rate, burst_capacity } => {
            let burst = burst(burst_capacity, *rate);
            Some((Plan::Spans { rate: *rate, burst }, Vec::new()))
        }
        Rule::BytesLimiting { bytes_per_second: rate, burst_capacity } => {
            let burst = burst(burst_capacity, *rate);
            Some((Plan::Bytes { rate: *rate, burst }, Vec::new()))
        }
        Rule::Composite { max_total_spans_per_second: rate, sub_policies, policy_order } => {
            let place = |name: &String| sub_policies.iter().position(|sub| sub.policy == *name);
            let order: Vec<usize> = match policy_order.is_empty() {
                true => (0..sub_policies.len()).collect(),
                false => policy_order.iter().filter_map(place).collect(),
            };
            let parts = order.iter().filter_map(|place| sub_policies.get(*place));
            let percent = parts.map(|sub| (sub.policy.clone(), sub.rate_allocation_percent));
            Some((Plan::Parts { rate: *rate, percent: percent.collect() }, order))
        }
        _ => None,
    }
}
