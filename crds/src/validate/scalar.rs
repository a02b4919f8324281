//! Single values: type, enum, pattern, length, bounds.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Number, Value};

use super::suggest;
use crate::pattern;

/// What is wrong with `value`, if anything.
pub(crate) fn check(schema: &JSONSchemaProps, value: &Value) -> Option<String> {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return match value {
            Value::String(text) => check_text(schema, text),
            Value::Number(number) => check_whole_or_quoted(schema, number),
            _ => Some(format!("must be {}, not {}", wants(schema), named(value))),
        };
    }
    match (schema.type_.as_deref(), value) {
        (Some("string"), Value::String(text)) => check_text(schema, text),
        (Some("string"), _) => Some(not_text(schema, value)),
        (Some("integer"), Value::Number(number)) => check_whole(schema, number),
        (Some("boolean"), Value::Bool(_)) => None,
        (Some(kind), _) => Some(format!("must be {}, not {}", kind_named(kind), named(value))),
        (None, _) => None,
    }
}

fn check_text(schema: &JSONSchemaProps, text: &str) -> Option<String> {
    check_enum(schema, text)
        .or_else(|| check_length(schema, text))
        .or_else(|| check_pattern(schema.pattern.as_ref()?, text))
        .or_else(|| check_time(schema.format.as_ref()?, text))
}

// The conditions of a status have times.
fn check_time(format: &str, text: &str) -> Option<String> {
    let wrong = format == "date-time" && text.parse::<k8s_openapi::jiff::Timestamp>().is_err();
    wrong.then(|| format!("must be a time such as 2026-01-31T12:00:00Z, not {text:?}"))
}

fn check_pattern(regex: &str, text: &str) -> Option<String> {
    let wants = pattern::mismatch(regex, text)?;
    // The value of a header may be a secret that stands in the wrong place: it is not repeated.
    match regex == pattern::HEADER_VALUE.regex {
        true => Some(format!("must be {wants}")),
        false => Some(format!("must be {wants}, not {text:?}")),
    }
}

fn check_enum(schema: &JSONSchemaProps, text: &str) -> Option<String> {
    let allowed: Vec<_> = schema.enum_.as_ref()?.iter().filter_map(|v| v.0.as_str()).collect();
    if allowed.contains(&text) {
        return None;
    }
    let list = match allowed.as_slice() {
        [only] => (*only).to_owned(),
        _ => format!("one of {}", allowed.join(", ")),
    };
    let hint = suggest::nearest(text, allowed.iter().copied()).filter(|_| allowed.len() > 1);
    let hint = hint.map(|word| format!("; did you mean {word}?")).unwrap_or_default();
    Some(format!("must be {list}, not {text:?}{hint}"))
}

fn check_length(schema: &JSONSchemaProps, text: &str) -> Option<String> {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if schema.min_length.is_some_and(|least| length < least) {
        return Some("must not be empty".to_owned());
    }
    let most = schema.max_length.filter(|most| length > *most)?;
    Some(format!("has {length} characters, and at most {most} are allowed"))
}

fn check_whole(schema: &JSONSchemaProps, number: &Number) -> Option<String> {
    if number.is_f64() {
        return Some(format!("must be a whole number, not {number}"));
    }
    let value = number.as_f64()?;
    let low = schema.minimum.is_some_and(|least| value < least);
    let high = schema.maximum.is_some_and(|most| value > most);
    match (schema.minimum, schema.maximum) {
        (Some(least), Some(most)) if low || high => {
            Some(format!("must be from {least} to {most}, not {number}"))
        }
        (None, None) if schema.format.as_deref() == Some("int32") => {
            let fits = number.as_i64().is_some_and(|value| i32::try_from(value).is_ok());
            (!fits).then(|| "must fit 32 bits".to_owned())
        }
        // All others are int64.
        (None, None) if number.as_i64().is_none() => Some("must fit 64 bits".to_owned()),
        _ => None,
    }
}

// An unquoted 0.1 is a floating-point number, which the schema keeps out.
fn check_whole_or_quoted(schema: &JSONSchemaProps, number: &Number) -> Option<String> {
    if number.is_f64() {
        return Some(format!("must be quoted when it has a fraction: write \"{number}\""));
    }
    check_whole(schema, number)
}

fn not_text(schema: &JSONSchemaProps, value: &Value) -> String {
    match value {
        Value::Number(number) if check_text(schema, &number.to_string()).is_none() => {
            format!("must be text: write \"{number}\", with the quotes")
        }
        // The file may say `on` or `yes`, which YAML reads as true.
        Value::Bool(_) if schema.enum_.is_none() && schema.pattern.is_none() => {
            format!("must be text, not the value {value}: put quotes around it")
        }
        _ => format!("must be {}, not {}", wants(schema), named(value)),
    }
}

fn wants(schema: &JSONSchemaProps) -> String {
    let allowed = schema.enum_.iter().flatten().filter_map(|v| v.0.as_str()).collect::<Vec<_>>();
    match &schema.pattern {
        _ if !allowed.is_empty() => format!("one of {}", allowed.join(", ")),
        Some(regex) => pattern::wants(regex).to_owned(),
        None => "text".to_owned(),
    }
}

fn kind_named(kind: &str) -> &str {
    match kind {
        "object" => "a map of fields",
        "array" => "a list (each entry begins with '- ')",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}

fn named(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("the value {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}
