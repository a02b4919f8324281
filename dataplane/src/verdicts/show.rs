//! Verdicts as text for people and as JSON for programs.

use std::fmt::Write;

use ringtail_engine::policy::{Policy, Role, Rule};
use serde_json::{Value, json};

use super::judge::Judged;
use super::reason::{reason, statuses};

/// What `ringtail explain` prints of traces.
pub(super) fn text(policies: &[Policy], judged: &[&Judged]) -> String {
    let mut text = String::new();
    for trace in judged {
        // Writing to a string cannot fail.
        let _ = write_trace(&mut text, policies, trace);
    }
    text
}

fn write_trace(text: &mut String, policies: &[Policy], trace: &Judged) -> std::fmt::Result {
    let name = if trace.name.is_empty() { String::new() } else { format!(" ({})", trace.name) };
    writeln!(text, "trace {}{name}: {}", trace.id, verdict(policies, trace))?;
    let duration = trace.facts.duration_ms().map_or("no".to_owned(), |ms| format!("{ms} ms"));
    let root = if trace.facts.root { "root seen" } else { "no root" };
    writeln!(
        text,
        "  {} spans, {} bytes, {duration} duration, statuses {}, {root}",
        trace.facts.spans,
        trace.facts.bytes,
        statuses(trace.facts.statuses)
    )?;
    let width = policies.iter().map(|policy| policy.name.len()).max().unwrap_or_default();
    for answer in &trace.answers {
        let Some(policy) = policies.get(answer.policy) else { continue };
        let witness = trace.witnesses.get(answer.policy).and_then(Option::as_ref);
        let says = if answer.yes { "yes" } else { "no " };
        let name = &policy.name;
        let what = format!("{}{}", type_of(policy), role(policy));
        let why = reason(policies, policy, answer, witness);
        let changes = if trace.changed >> answer.policy & 1 == 1 {
            "; it would change the verdict"
        } else {
            ""
        };
        writeln!(text, "  {says} {name:width$}  {what}: {why}{changes}")?;
    }
    writeln!(text)
}

/// In a few words.
pub(super) fn verdict(policies: &[Policy], trace: &Judged) -> String {
    let name = trace.policy.and_then(|place| policies.get(place)).map(|policy| &policy.name);
    match (trace.keep, name) {
        (true, Some(name)) => format!("kept by {name}"),
        (false, Some(name)) => format!("dropped by {name}"),
        (true, None) => "kept".to_owned(),
        (false, None) => "sampled away: no policy keeps it".to_owned(),
    }
}

/// The same as a document.
pub(super) fn document(policies: &[Policy], judged: &[&Judged]) -> Value {
    let traces: Vec<Value> = judged.iter().map(|trace| trace_document(policies, trace)).collect();
    json!({ "traces": traces })
}

fn trace_document(policies: &[Policy], trace: &Judged) -> Value {
    let answers = trace.answers.iter().filter_map(|answer| {
        let policy = policies.get(answer.policy)?;
        let witness = trace.witnesses.get(answer.policy).and_then(Option::as_ref);
        let mut told = json!({
            "name": policy.name,
            "type": type_of(policy),
            "role": role_name(policy),
            "matches": answer.yes,
            "why": reason(policies, policy, answer, witness),
        });
        if let (Some(witness), Some(told)) = (witness, told.as_object_mut()) {
            told.insert("spanId".to_owned(), json!(witness.id));
        }
        Some(told)
    });
    let names = |set: u64| -> Vec<&str> {
        let bits = policies.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1);
        bits.map(|(_, policy)| policy.name.as_str()).collect()
    };
    json!({
        "traceId": trace.id,
        "index": trace.index,
        "name": trace.name,
        "kept": trace.keep,
        "policy": trace.policy.and_then(|place| policies.get(place)).map(|policy| &policy.name),
        "shadowsThatDiffer": names(trace.changed),
        "facts": {
            "spans": trace.facts.spans,
            "bytes": trace.facts.bytes,
            "durationMillis": trace.facts.duration_ms(),
            "statuses": statuses(trace.facts.statuses),
            "root": trace.facts.root,
        },
        "policies": answers.collect::<Vec<_>>(),
    })
}

fn role_name(policy: &Policy) -> &'static str {
    match policy.role {
        Role::Vote => "Vote",
        Role::Part => "Part",
        Role::Shadow => "Shadow",
    }
}

fn role(policy: &Policy) -> &'static str {
    match policy.role {
        Role::Vote => "",
        Role::Part => " (Part)",
        Role::Shadow => " (Shadow)",
    }
}

fn type_of(policy: &Policy) -> &'static str {
    match policy.rule {
        Rule::AlwaysSample => "AlwaysSample",
        Rule::StatusCode { .. } => "StatusCode",
        Rule::Latency { .. } => "Latency",
        Rule::Probabilistic { .. } => "Probabilistic",
        Rule::StringAttribute { .. } => "StringAttribute",
        Rule::NumericAttribute { .. } => "NumericAttribute",
        Rule::BooleanAttribute { .. } => "BooleanAttribute",
        Rule::SpanCount { .. } => "SpanCount",
        Rule::TraceState { .. } => "TraceState",
        Rule::TraceFlags => "TraceFlags",
        Rule::OttlCondition { .. } => "OTTLCondition",
        Rule::RateLimiting { .. } => "RateLimiting",
        Rule::BytesLimiting { .. } => "BytesLimiting",
        Rule::Composite { .. } => "Composite",
        Rule::And { .. } => "And",
        Rule::Or { .. } => "Or",
        Rule::Not { .. } => "Not",
        Rule::Drop { .. } => "Drop",
    }
}
