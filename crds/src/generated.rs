//! The files that are made from the types: the definition in YAML, and the table of fields in the reference
//! page.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::{Number, Value};

use crate::{pattern, schema};

/// Where the written part of the reference page ends.
pub const MARKER: &str =
    "<!-- Below this line: generated from the types by `make generate`. Do not edit. -->\n";

/// A file could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The definition is not JSON.
    #[error("the definition cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The definition is not YAML.
    #[error("the definition cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// The text of `crds/tracepipeline.yaml`.
pub fn definition_yaml() -> Result<String, GenerateError> {
    let mut value = serde_json::to_value(schema::definition())?;
    shorten_numbers(&mut value);
    let yaml = serde_saphyr::to_string(&value)?;
    Ok(format!("# Generated from the types in crds/src by `make generate`. Do not edit.\n{yaml}"))
}

// Bounds are floating-point numbers in the definition's types; `64` reads better than `64.0`.
fn shorten_numbers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(shorten_numbers),
        Value::Array(items) => items.iter_mut().for_each(shorten_numbers),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && number.is_f64());
            if let Some(float) = whole {
                *number = Number::from(float as i64);
            }
        }
        _ => {}
    }
}

/// The reference page with its table of fields renewed: what stands below [`MARKER`].
pub fn with_fields(page: &str) -> String {
    let written = page.split(MARKER).next().unwrap_or_default();
    let mut text = format!("{written}{MARKER}");
    let properties = schema::root().properties.iter().flatten();
    for (name, property) in properties.filter(|(name, _)| *name != "metadata") {
        describe(property, name, &mut text);
    }
    text
}

// One section for an object and then one for each object in it, so that a section is a short table.
fn describe(object: &JSONSchemaProps, path: &str, text: &mut String) {
    let summary = object.description.as_deref().unwrap_or_default();
    let head = "| Field | Type | Default | Meaning |\n|---|---|---|---|";
    let mut section = format!("\n### {path}\n\n{summary}\n\n{head}\n");
    let required = object.required.iter().flatten().collect::<Vec<_>>();
    for (name, property) in object.properties.iter().flatten() {
        let default = match &property.default {
            Some(value) if !value.0.is_object() => format!("`{}`", plain(&value.0)),
            _ if required.contains(&name) => "**required**".to_owned(),
            _ => String::new(),
        };
        let meaning = property.description.as_deref().unwrap_or_default().replace('|', "\\|");
        // Writing to a String cannot fail.
        let _ = writeln!(section, "| `{name}` | {} | {default} | {meaning} |", type_of(property));
    }
    text.push_str(&section);
    for (name, property) in object.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        if has_fields(property) && !is_foreign(property) {
            describe(property, &path, text);
        }
        if let Some(item) = item_of(property).filter(|item| has_fields(item) && !is_foreign(item)) {
            describe(item, &format!("{path}[]"), text);
        }
    }
}

fn has_fields(schema: &JSONSchemaProps) -> bool {
    schema.properties.is_some()
}

// Kubernetes' own types have lost their descriptions; `kubectl explain pod.spec` has them.
fn is_foreign(object: &JSONSchemaProps) -> bool {
    let mut fields = object.properties.iter().flatten();
    fields.all(|(_, field)| field.description.is_none())
}

fn item_of(list: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &list.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => Some(item),
        _ => None,
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    match (schema.type_.as_deref(), schema.pattern.as_deref()) {
        (_, Some(regex)) if regex == pattern::DURATION.regex => "duration".to_owned(),
        (_, Some(regex)) if regex == pattern::SIZE.regex => "size".to_owned(),
        (_, Some(regex)) if regex == pattern::PERCENTAGE.regex => "percentage".to_owned(),
        (_, Some(regex)) if regex == pattern::SHARE.regex => {
            "whole number or percentage".to_owned()
        }
        (Some("string"), _) => choices(schema).unwrap_or_else(|| "text".to_owned()),
        (Some("integer"), _) => match (schema.minimum, schema.maximum) {
            (Some(least), Some(most)) => format!("whole number, {least} to {most}"),
            _ => "whole number".to_owned(),
        },
        (Some("boolean"), _) => "true or false".to_owned(),
        (Some("array"), _) => list_type(schema),
        (None, _) => "whole number or text".to_owned(),
        _ if schema.x_kubernetes_preserve_unknown_fields == Some(true) => "any fields".to_owned(),
        _ if !has_fields(schema) => "names with texts".to_owned(),
        _ if is_foreign(schema) => "fields as in Kubernetes".to_owned(),
        _ => "fields below".to_owned(),
    }
}

fn choices(schema: &JSONSchemaProps) -> Option<String> {
    let values = schema.enum_.as_ref()?.iter().map(|value| format!("`{}`", plain(&value.0)));
    Some(values.collect::<Vec<_>>().join(", "))
}

fn list_type(schema: &JSONSchemaProps) -> String {
    let counts = match (schema.min_items, schema.max_items) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (_, Some(most)) => format!("up to {most}"),
        _ => String::new(),
    };
    match item_of(schema) {
        Some(item) if !has_fields(item) => format!("list of {counts} entries: {}", type_of(item)),
        Some(item) if is_foreign(item) => format!("list of {counts} entries, as in Kubernetes"),
        _ => format!("list of {counts} entries, fields below"),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
