//! Unions: an object whose `type` says which one of its members is set.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Map, Value};

use super::findings::Findings;
use crate::path::Path;

/// The members of a union with the value of `type` that each belongs to: every property whose name is such
/// a value, apart from case.
pub(crate) fn members(schema: &JSONSchemaProps) -> Vec<(&str, &str)> {
    let Some(properties) = &schema.properties else {
        return Vec::new();
    };
    let kinds = properties.get("type").and_then(|kind| kind.enum_.as_ref()).into_iter().flatten();
    let pairs = kinds.filter_map(|kind| kind.0.as_str()).flat_map(|kind| {
        let same = properties.keys().filter(move |name| name.eq_ignore_ascii_case(kind));
        same.map(move |name| (kind, name.as_str()))
    });
    pairs.collect()
}

/// The value that `type` should have, judging by the one member that is set.
pub(crate) fn kind_of<'a>(
    schema: &'a JSONSchemaProps,
    map: &Map<String, Value>,
) -> Option<&'a str> {
    let mut set = members(schema).into_iter().filter(|(_, name)| map.contains_key(*name));
    match (set.next(), set.next()) {
        (Some((kind, _)), None) => Some(kind),
        _ => None,
    }
}

/// Adds a finding for the member that `type` asks for and that is missing, and for each one that it does
/// not ask for.
pub(crate) fn check(
    schema: &JSONSchemaProps,
    map: &Map<String, Value>,
    at: &Path,
    findings: &mut Findings,
) {
    let Some(kind) = map.get("type").and_then(Value::as_str) else {
        return;
    };
    if findings.is_broken(&at.key("type")) {
        return;
    }
    for (owner, name) in members(schema) {
        match (owner == kind, map.contains_key(name)) {
            (true, false) => findings.add(at.key(name), format!("is required when type is {kind}")),
            (false, true) => findings.add(
                at.key(name),
                format!("must not be set when type is {kind}: remove it, or set type to {owner}"),
            ),
            _ => {}
        }
    }
}
