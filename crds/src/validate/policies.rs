//! Policies: from the manifest's types to the engine's, which compiles them for real.

use ringtail_engine::policy::{self, Role, Rule, Status, limits};
use serde_json::Value;

use super::{path::Path, resolve::Reader};
use crate::sampling::{
    self, LatencyPolicy, NumericAttributePolicy, Policy, PolicyNames, PolicyRole, PolicyType,
    ProbabilisticPolicy, StatusCode, StatusCodePolicy, StringAttributePolicy,
};

/// The list at `at` as the engine reads it. `None` when a policy could not be read or the list does not compile.
pub(crate) fn resolve(reader: &mut Reader<'_>, at: &Path) -> Option<Vec<policy::Policy>> {
    let entries = reader.entries(at);
    if entries.len() > limits::MAX_POLICIES {
        return None;
    }
    let read: Vec<_> = entries.iter().map(|entry| convert(reader, entry)).collect();
    compile(reader, at, &read);
    read.into_iter().collect()
}

// A policy that could not be read is compiled as one that always votes, so that what names it finds it; what the
// compiler says of the stand-in itself is not passed on.
fn compile(reader: &mut Reader<'_>, at: &Path, read: &[Option<policy::Policy>]) {
    let stand_in = |index: usize| {
        let name = reader
            .value(&at.index(index).key("name"))
            .and_then(Value::as_str);
        let name = name.map_or_else(|| format!("policies[{index}]"), str::to_owned);
        policy::Policy {
            name,
            role: Role::Vote,
            rule: Rule::AlwaysSample,
        }
    };
    let whole = read.iter().enumerate();
    let whole = whole.map(|(index, policy)| policy.clone().unwrap_or_else(|| stand_in(index)));
    let list: Vec<_> = whole.collect();
    for problem in compile_later(&list).err().into_iter().flatten() {
        let place = match problem.policy {
            Some(index) if read.get(index).is_some_and(Option::is_none) => continue,
            Some(index) => at.index(index).join(&problem.field),
            None => at.clone(),
        };
        reader.findings.add_unless_known(place, problem.message);
    }
}

fn convert(reader: &mut Reader<'_>, at: &Path) -> Option<policy::Policy> {
    let policy: Policy = reader.part(at)?;
    let role = match policy.role {
        PolicyRole::Vote => Role::Vote,
        PolicyRole::Part => Role::Part,
    };
    let rule = match policy.type_ {
        PolicyType::AlwaysSample => Rule::AlwaysSample,
        PolicyType::StatusCode => status_code(&policy.status_code?),
        PolicyType::Latency => latency(reader, &policy.latency?, &at.key("latency"))?,
        PolicyType::Probabilistic => {
            probabilistic(reader, policy.probabilistic?, &at.key("probabilistic"))?
        }
        PolicyType::StringAttribute => string_attribute(policy.string_attribute?),
        PolicyType::NumericAttribute => numeric_attribute(
            reader,
            policy.numeric_attribute?,
            &at.key("numericAttribute"),
        ),
        PolicyType::And => Rule::And {
            policies: names(policy.and?),
        },
        PolicyType::Or => Rule::Or {
            policies: names(policy.or?),
        },
        PolicyType::Not => Rule::Not {
            policy: policy.not?.policy,
        },
        PolicyType::Drop => Rule::Drop {
            policies: names(policy.drop?),
        },
    };
    Some(policy::Policy {
        name: policy.name,
        role,
        rule,
    })
}

fn names(written: PolicyNames) -> Vec<String> {
    written.policies
}

fn status_code(written: &StatusCodePolicy) -> Rule {
    let codes = written.status_codes.iter().map(|code| match code {
        StatusCode::Unset => Status::Unset,
        StatusCode::Ok => Status::Ok,
        StatusCode::Error => Status::Error,
    });
    Rule::StatusCode {
        codes: codes.collect(),
    }
}

fn latency(reader: &mut Reader<'_>, written: &LatencyPolicy, at: &Path) -> Option<Rule> {
    let mut read = |text, name: &str| {
        let value = reader.duration(text, sampling::LATENCY, at.key(name))?;
        u64::try_from(value.as_millis()).ok()
    };
    let threshold_ms = read(&written.threshold, "threshold");
    let upper_threshold_ms = match &written.upper_threshold {
        Some(text) => Some(read(text, "upperThreshold")?),
        None => None,
    };
    let threshold_ms = threshold_ms?;
    if upper_threshold_ms.is_some_and(|upper| upper <= threshold_ms) {
        reader
            .findings
            .add(at.key("upperThreshold"), sampling::UPPER_NOT_ABOVE);
    }
    Some(Rule::Latency {
        threshold_ms,
        upper_threshold_ms,
    })
}

fn probabilistic(reader: &mut Reader<'_>, written: ProbabilisticPolicy, at: &Path) -> Option<Rule> {
    let percentage = written.sampling_percentage.read();
    let here = at.key("samplingPercentage");
    let read = percentage.map_err(|message| reader.findings.add_unless_known(here, message));
    Some(Rule::Probabilistic {
        sampling_percentage: read.ok()?,
        hash_salt: written.hash_salt,
    })
}

fn string_attribute(written: StringAttributePolicy) -> Rule {
    Rule::StringAttribute {
        key: written.key,
        values: written.values,
        regex: written.enabled_regex_matching,
        invert_match: written.invert_match,
    }
}

fn numeric_attribute(reader: &mut Reader<'_>, written: NumericAttributePolicy, at: &Path) -> Rule {
    match (written.min_value, written.max_value) {
        (None, None) => reader.findings.add(at.clone(), sampling::NO_BOUND),
        (Some(least), Some(most)) if least > most => {
            reader
                .findings
                .add(at.key("maxValue"), sampling::BOUNDS_REVERSED);
        }
        _ => {}
    }
    Rule::NumericAttribute {
        key: written.key,
        min_value: written.min_value,
        max_value: written.max_value,
        invert_match: written.invert_match,
    }
}

// Until the engine's compiler is merged.
fn compile_later(_: &[policy::Policy]) -> Result<(), Vec<policy::Problem>> {
    Ok(())
}
