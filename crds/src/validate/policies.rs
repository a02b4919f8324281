//! Policies: from the manifest's types to the engine's, which compiles them for real.

use ringtail_engine::policy::{self, Role, Rule, Status, limits};
use serde_json::Value;

use super::{findings::Findings, suggest};
use crate::{
    path::Path,
    sampling::{
        BytesLimitingPolicy, CompositePolicy, ErrorMode, LatencyPolicy, OttlConditionPolicy,
        Policy, PolicyRole, PolicyType, ProbabilisticPolicy, StatusCode, StatusCodePolicy,
        StringAttributePolicy,
    },
};

/// The list at `at` as the engine reads it; what keeps it from compiling is added to `findings`.
pub(crate) fn resolve(list: &Value, at: &Path, findings: &mut Findings) -> Vec<policy::Policy> {
    let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() || entries.len() > limits::MAX_POLICIES {
        return Vec::new();
    }
    let read = entries.iter().enumerate().map(|(index, entry)| {
        let broken = findings.touches(&at.index(index));
        if broken { None } else { convert(serde_json::from_value(entry.clone()).ok()?) }
    });
    let read: Vec<_> = read.collect();
    compile(entries, &read, at, findings);
    read.into_iter().flatten().collect()
}

fn compile(entries: &[Value], read: &[Option<policy::Policy>], at: &Path, findings: &mut Findings) {
    let whole =
        entries.iter().zip(read).enumerate().map(|(index, (entry, policy))| {
            policy.clone().unwrap_or_else(|| stand_in(entry, index))
        });
    let whole: Vec<_> = whole.collect();
    for problem in policy::compile(&whole).err().into_iter().flatten() {
        let (place, hint) = match problem.policy {
            // What the compiler says of a stand-in is not passed on.
            Some(index) if read.get(index).is_some_and(Option::is_none) => continue,
            // A repeated name was told already.
            Some(index) if findings.is_broken(&at.index(index)) => continue,
            Some(index) => {
                let field = Path::default().join(&problem.field);
                (at.index(index).join(&problem.field), near_name(&entries[index], &field, &whole))
            }
            None => (at.clone(), String::new()),
        };
        findings.add_unless_known(place, format!("{}{hint}", problem.message));
    }
}

// A policy that could not be read is compiled as one that votes and names what can be seen that it names:
// so neither those that name it nor those that it names are blamed.
fn stand_in(entry: &Value, index: usize) -> policy::Policy {
    let name = entry.get("name").and_then(Value::as_str);
    let name = name.map_or_else(|| format!("policies[{index}]"), str::to_owned);
    let policies = NAMING.iter().filter_map(|pointer| entry.pointer(pointer)).flat_map(texts);
    let policies: Vec<_> = policies.collect();
    let rule = if policies.is_empty() { Rule::AlwaysSample } else { Rule::Or { policies } };
    policy::Policy { name, role: Role::Vote, rule }
}

/// Where a policy names others.
const NAMING: [&str; 5] =
    ["/and/policies", "/or/policies", "/drop/policies", "/not/policy", "/composite/subPolicies"];

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let name = |item: &Value| Some(item.get("policy").unwrap_or(item).as_str()?.to_owned());
    items.iter().filter_map(name).collect()
}

// Where the problem is a name that no policy has, the one that may be meant.
fn near_name(entry: &Value, field: &Path, whole: &[policy::Policy]) -> String {
    let pointer: String = field.steps().iter().map(|step| format!("/{step}")).collect();
    let naming = NAMING.iter().any(|prefix| pointer.starts_with(prefix));
    let Some(name) = entry.pointer(&pointer).and_then(Value::as_str).filter(|_| naming) else {
        return String::new();
    };
    let others: Vec<_> = whole.iter().map(|policy| policy.name.as_str()).collect();
    match suggest::nearest(name, others.iter().copied()) {
        Some(near) if !others.contains(&name) => format!("; did you mean {near}?"),
        _ => String::new(),
    }
}

// `None` when a text cannot be read or a member is missing, which the walk does not let pass.
fn convert(written: Policy) -> Option<policy::Policy> {
    let role = match written.role {
        PolicyRole::Vote => Role::Vote,
        PolicyRole::Part => Role::Part,
        PolicyRole::Shadow => Role::Shadow,
    };
    let rule = match written.type_ {
        PolicyType::AlwaysSample => Rule::AlwaysSample,
        PolicyType::StatusCode => status_code(&written.status_code?),
        PolicyType::Latency => latency(&written.latency?)?,
        PolicyType::Probabilistic => probabilistic(written.probabilistic?)?,
        PolicyType::StringAttribute => string_attribute(written.string_attribute?),
        PolicyType::NumericAttribute => {
            let attribute = written.numeric_attribute?;
            Rule::NumericAttribute {
                key: attribute.key,
                min_value: attribute.min_value,
                max_value: attribute.max_value,
                invert_match: attribute.invert_match,
            }
        }
        PolicyType::BooleanAttribute => {
            let attribute = written.boolean_attribute?;
            Rule::BooleanAttribute {
                key: attribute.key,
                value: attribute.value,
                invert_match: attribute.invert_match,
            }
        }
        PolicyType::SpanCount => {
            let count = written.span_count?;
            Rule::SpanCount { min_spans: count.min_spans, max_spans: count.max_spans }
        }
        PolicyType::TraceState => {
            let state = written.trace_state?;
            Rule::TraceState { key: state.key, values: state.values }
        }
        PolicyType::TraceFlags => Rule::TraceFlags,
        PolicyType::OttlCondition => ottl_condition(written.ottl_condition?),
        PolicyType::RateLimiting => {
            let limit = written.rate_limiting?;
            Rule::RateLimiting {
                spans_per_second: limit.spans_per_second.into(),
                burst_capacity: limit.burst_capacity.map(u64::from),
            }
        }
        PolicyType::BytesLimiting => bytes_limiting(&written.bytes_limiting?)?,
        PolicyType::Composite => composite(written.composite?),
        PolicyType::And => Rule::And { policies: written.and?.policies },
        PolicyType::Or => Rule::Or { policies: written.or?.policies },
        PolicyType::Not => Rule::Not { policy: written.not?.policy },
        PolicyType::Drop => Rule::Drop { policies: written.drop?.policies },
    };
    Some(policy::Policy { name: written.name, role, rule })
}

fn status_code(written: &StatusCodePolicy) -> Rule {
    let codes = written.status_codes.iter().map(|code| match code {
        StatusCode::Unset => Status::Unset,
        StatusCode::Ok => Status::Ok,
        StatusCode::Error => Status::Error,
    });
    Rule::StatusCode { codes: codes.collect() }
}

fn latency(written: &LatencyPolicy) -> Option<Rule> {
    let threshold_ms = u64::try_from(written.threshold.parse()?.as_millis()).ok()?;
    let upper_threshold_ms = match &written.upper_threshold {
        Some(text) => Some(u64::try_from(text.parse()?.as_millis()).ok()?),
        None => None,
    };
    Some(Rule::Latency { threshold_ms, upper_threshold_ms })
}

fn probabilistic(written: ProbabilisticPolicy) -> Option<Rule> {
    let sampling_percentage = written.sampling_percentage.parse()?;
    Some(Rule::Probabilistic { sampling_percentage, hash_salt: written.hash_salt })
}

fn ottl_condition(written: OttlConditionPolicy) -> Rule {
    Rule::OttlCondition {
        span: written.span.unwrap_or_default(),
        span_event: written.span_event.unwrap_or_default(),
        error_mode: match written.error_mode {
            ErrorMode::Silent => policy::ErrorMode::Silent,
            ErrorMode::Ignore => policy::ErrorMode::Ignore,
            ErrorMode::Propagate => policy::ErrorMode::Propagate,
        },
    }
}

fn bytes_limiting(written: &BytesLimitingPolicy) -> Option<Rule> {
    let burst_capacity = match &written.burst_capacity {
        Some(size) => Some(size.parse()?),
        None => None,
    };
    Some(Rule::BytesLimiting {
        bytes_per_second: written.bytes_per_second.parse()?,
        burst_capacity,
    })
}

fn composite(written: CompositePolicy) -> Rule {
    let parts = written.sub_policies.into_iter().map(|part| policy::SubPolicy {
        policy: part.policy,
        rate_allocation_percent: part.rate_allocation,
    });
    Rule::Composite {
        max_total_spans_per_second: written.max_total_spans_per_second.into(),
        sub_policies: parts.collect(),
        policy_order: written.policy_order.unwrap_or_default(),
    }
}

fn string_attribute(written: StringAttributePolicy) -> Rule {
    Rule::StringAttribute {
        key: written.key,
        values: written.values,
        regex: written.enabled_regex_matching,
        invert_match: written.invert_match,
    }
}
