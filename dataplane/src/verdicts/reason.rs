//! Why a policy says yes or no, in words.

use ringtail_engine::policy::{Answer, Policy, Rule, Status, Why};

use super::judge::Witness;

/// The share of all trace IDs below a hash, in percent.
fn percent(hash: u64) -> f64 {
    hash as f64 / u64::MAX as f64 * 100.0
}

/// What a policy looked at, and what it found.
pub(super) fn reason(
    policies: &[Policy],
    policy: &Policy,
    answer: &Answer,
    witness: Option<&Witness>,
) -> String {
    let found = |what: &str| match witness {
        Some(Witness { id, name }) => format!("{what} at span {id} ({name})"),
        None => format!("{what} in no span"),
    };
    match (answer.why, &policy.rule) {
        (Why::Always, _) => "matches every trace".to_owned(),
        (Why::Statuses(seen), Rule::StatusCode { codes }) => {
            format!("statuses {} of {}", statuses(seen), words(codes.iter().map(status)))
        }
        (Why::Duration(None), _) => "no span has a start and an end".to_owned(),
        (Why::Duration(Some(ms)), Rule::Latency { threshold_ms, upper_threshold_ms }) => {
            let most = upper_threshold_ms.map(|most| format!(" and at most {most} ms"));
            format!("{ms} ms; more than {threshold_ms} ms{}", most.unwrap_or_default())
        }
        (Why::Hash { hash, threshold }, _) => format!(
            "the trace ID falls at {:.4} % of all, and {:.4} % are kept",
            percent(hash),
            percent(threshold)
        ),
        (Why::Found(_), rule) => found(&question(rule)),
        (Why::Failed, _) => "a condition asked what a value cannot answer".to_owned(),
        (Why::Spans(count), Rule::SpanCount { min_spans, max_spans }) => {
            let least = min_spans.map(|least| format!("; at least {least}")).unwrap_or_default();
            let most = max_spans.map(|most| format!("; at most {most}")).unwrap_or_default();
            format!("{count} spans{least}{most}")
        }
        (Why::Budget { asked: false }, _) => {
            "the budget is not asked: another policy decides, or none that asks it votes".to_owned()
        }
        (Why::Budget { asked: true }, _) if answer.yes => "the budget had room for it".to_owned(),
        (Why::Budget { asked: true }, _) => "the budget had no room, or no part matches".to_owned(),
        (Why::Named(yes), rule) => named(policies, rule, yes),
        (Why::Statuses(_) | Why::Duration(_) | Why::Spans(_), _) => String::new(),
    }
}

fn question(rule: &Rule) -> String {
    match rule {
        Rule::StringAttribute { key, values, regex, invert_match } => {
            let how = if *regex { "~" } else { "=" };
            format!(
                "{}{key} {how} {}",
                not(*invert_match),
                words(values.iter().map(String::as_str))
            )
        }
        Rule::NumericAttribute { key, min_value, max_value, invert_match } => {
            let side =
                |value: &Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
            format!("{}{key} in {}..{}", not(*invert_match), side(min_value), side(max_value))
        }
        Rule::BooleanAttribute { key, value, invert_match } => {
            format!("{}{key} = {value}", not(*invert_match))
        }
        Rule::TraceState { key, values } => {
            format!("trace state {key} = {}", words(values.iter().map(String::as_str)))
        }
        Rule::TraceFlags => "the flag sampled".to_owned(),
        Rule::OttlCondition { span, span_event, .. } => {
            words(span.iter().chain(span_event).map(String::as_str))
        }
        _ => String::new(),
    }
}

// The question is what was looked for; turned around, finding it is a no.
fn not(inverted: bool) -> &'static str {
    if inverted { "unless " } else { "" }
}

fn named(policies: &[Policy], rule: &Rule, yes: u64) -> String {
    let list = match rule {
        Rule::And { policies } | Rule::Or { policies } | Rule::Drop { policies } => {
            policies.clone()
        }
        Rule::Not { policy } => vec![policy.clone()],
        _ => Vec::new(),
    };
    let says = |name: &String| {
        let place = policies.iter().position(|policy| policy.name == *name).unwrap_or_default();
        let says = if yes >> place & 1 == 1 { "yes" } else { "no" };
        format!("{name} says {says}")
    };
    list.iter().map(says).collect::<Vec<_>>().join(", ")
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(" or ")
}

fn status(status: &Status) -> &'static str {
    match status {
        Status::Unset => "Unset",
        Status::Ok => "Ok",
        Status::Error => "Error",
    }
}

/// Statuses that were seen, as a list.
pub(super) fn statuses(seen: u8) -> String {
    let all = [Status::Unset, Status::Ok, Status::Error];
    let names = all.iter().filter(|one| seen & one.bit() != 0).map(status);
    let text = names.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".to_owned() } else { text }
}
