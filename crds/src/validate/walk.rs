//! Compares a document with the schema that is installed in clusters, and says everything that does not fit.
//!
//! It understands what our schema uses: types, properties, required, enums, patterns, lengths, bounds, list
//! maps and sets, int-or-string, open maps, and unions by `type`. A test proves that the schema uses nothing
//! else.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use super::{findings::Findings, list, scalar, suggest, union};
use crate::{path::Path, rules};

/// Adds to `findings` everything in `value` that does not fit `schema`.
pub(crate) fn walk(schema: &JSONSchemaProps, value: &Value, at: &Path, findings: &mut Findings) {
    let open = schema.x_kubernetes_preserve_unknown_fields == Some(true);
    match (schema.type_.as_deref(), value) {
        (None | Some("object"), Value::Object(_)) if open => {}
        (Some("object"), Value::Object(map)) => walk_map(schema, map, at, findings),
        (Some("array"), Value::Array(items)) => walk_list(schema, items, at, findings),
        _ => scalar::check(schema, value).into_iter().for_each(|m| findings.add(at.clone(), m)),
    }
    check_rules(schema, value, at, findings);
}

fn check_rules(schema: &JSONSchemaProps, value: &Value, at: &Path, findings: &mut Findings) {
    if findings.is_broken(at) {
        return;
    }
    let rules = schema.x_kubernetes_validations.iter().flatten();
    let broken = rules.filter_map(|rule| rules::twin(&rule.rule)?.broken(value));
    broken.for_each(|(field, message)| findings.add_unless_known(at.join(field), message));
}

fn walk_map(
    schema: &JSONSchemaProps,
    map: &Map<String, Value>,
    at: &Path,
    findings: &mut Findings,
) {
    for (key, value) in map {
        let here = at.key(key);
        match (property(schema, key), &schema.additional_properties) {
            (Some(property), _) => walk(property, value, &here, findings),
            (None, Some(JSONSchemaPropsOrBool::Schema(any))) => walk(any, value, &here, findings),
            (None, _) => findings.add(here, unknown(schema, key)),
        }
    }
    for name in schema.required.iter().flatten().filter(|name| !map.contains_key(*name)) {
        findings.add(at.key(name), required(schema, name, map));
    }
    union::check(schema, map, at, findings);
}

fn walk_list(schema: &JSONSchemaProps, items: &[Value], at: &Path, findings: &mut Findings) {
    list::check(schema, items, at, findings);
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        for (index, value) in items.iter().enumerate() {
            walk(item, value, &at.index(index), findings);
        }
    }
}

fn property<'a>(schema: &'a JSONSchemaProps, key: &str) -> Option<&'a JSONSchemaProps> {
    schema.properties.as_ref()?.get(key)
}

fn unknown(schema: &JSONSchemaProps, key: &str) -> String {
    let names = || schema.properties.iter().flatten().map(|(name, _)| name.as_str());
    if let Some(name) = suggest::nearest(key, names()) {
        return format!("unknown field; did you mean {name}?");
    }
    if key == "namespace" {
        return "unknown field; what is named here is always of the pipeline's own namespace"
            .to_owned();
    }
    let mut members = schema.properties.iter().flatten();
    match members.find(|(_, member)| property(member, key).is_some()) {
        Some((member, _)) => format!("unknown field here; it belongs under {member}"),
        None => format!("unknown field; known ones are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

fn required(schema: &JSONSchemaProps, name: &str, map: &Map<String, Value>) -> String {
    let guess = if name == "type" { union::kind_of(schema, map) } else { None };
    match guess {
        Some(kind) => format!("is required; from the other fields it should be {kind}"),
        None => "is required".to_owned(),
    }
}
