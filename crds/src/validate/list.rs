//! Lists: how many entries, and no two that are the same.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use super::findings::Findings;
use crate::path::Path;

/// Adds a finding for a list that is too short or too long and for each entry that repeats an earlier one.
pub(crate) fn check(schema: &JSONSchemaProps, items: &[Value], at: &Path, findings: &mut Findings) {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if schema.min_items.is_some_and(|least| count < least) {
        findings.add(at.clone(), "must not be empty");
    }
    if let Some(most) = schema.max_items.filter(|most| count > *most) {
        findings.add(at.clone(), format!("has {count} entries, and at most {most} are allowed"));
        return;
    }
    match schema.x_kubernetes_list_type.as_deref() {
        Some("set") => check_set(items, at, findings),
        Some("map") => check_map(schema, items, at, findings),
        _ => {}
    }
}

fn check_set(items: &[Value], at: &Path, findings: &mut Findings) {
    for (index, item) in items.iter().enumerate() {
        if let Some(first) = items[..index].iter().position(|earlier| earlier == item) {
            findings.add(at.index(index), format!("repeats entry [{first}]"));
        }
    }
}

// Our list maps have one key each.
fn check_map(schema: &JSONSchemaProps, items: &[Value], at: &Path, findings: &mut Findings) {
    for key in schema.x_kubernetes_list_map_keys.iter().flatten() {
        for (index, item) in items.iter().enumerate() {
            let Some(name) = item.get(key) else { continue };
            if let Some(first) = items[..index].iter().position(|e| e.get(key) == Some(name)) {
                // The API server blames the entry too, and not its key.
                let message = format!("{key} {name} is that of entry [{first}] already");
                findings.add(at.index(index), message);
            }
        }
    }
}
