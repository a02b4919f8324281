//! What must hold for every node of the schema, so that the API server takes it and the offline check
//! understands it.

use serde_json::Value;

use super::*;
use crate::{rules, union, validate};

/// What the offline check looks at, and what does not restrict values.
const UNDERSTOOD: [&str; 22] = [
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "additionalProperties",
    "maxProperties",
];

/// Fields that hold types of Kubernetes.
const EMBEDDED: [&str; 12] = [
    "affinity",
    "behavior",
    "conditions",
    "env",
    "imagePullSecrets",
    "podSecurityContext",
    "resources",
    "securityContext",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
];

/// Whether the node is one of Kubernetes' own, below the field of ours that holds it.
fn is_foreign(path: &str) -> bool {
    let mut steps = path.split(['.', '[']).skip_while(|step| !EMBEDDED.contains(step));
    steps.next().is_some() && steps.next().is_some()
}

/// Every node of the schema with its path.
fn nodes() -> Vec<(String, JSONSchemaProps)> {
    let mut found = Vec::new();
    collect("", root(), &mut found);
    found
}

fn collect(path: &str, schema: &JSONSchemaProps, found: &mut Vec<(String, JSONSchemaProps)>) {
    found.push((path.to_owned(), schema.clone()));
    for (name, property) in schema.properties.iter().flatten() {
        collect(&format!("{path}.{name}"), property, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        collect(&format!("{path}[]"), item, found);
    }
}

#[test]
fn the_offline_check_understands_every_keyword() {
    for (path, node) in nodes() {
        let value = serde_json::to_value(&node).unwrap();
        for keyword in value.as_object().unwrap().keys() {
            assert!(UNDERSTOOD.contains(&keyword.as_str()), "{path}: {keyword}");
        }
        assert!(node.type_.as_deref() != Some("number"), "{path}: no floating-point numbers");
        assert!(node.pattern.iter().all(|regex| pattern::is_known(regex)), "{path}: {node:?}");
    }
}

// The API server estimates the cost of rules by these, and refuses a definition whose rules could cost too
// much.
#[test]
fn every_list_map_and_string_has_a_maximum() {
    for (path, node) in nodes() {
        let bounded = match node.type_.as_deref() {
            // A list without a type is replaced as a whole.
            Some("array") if is_foreign(&path) => node.max_items.is_some(),
            Some("array") => {
                let replaced = EMBEDDED.iter().any(|name| path.ends_with(name));
                node.max_items.is_some() && (replaced || node.x_kubernetes_list_type.is_some())
            }
            // No rule looks at them.
            Some("string") if is_foreign(&path) => true,
            Some("string") => node.max_length.is_some() || node.enum_.is_some(),
            // The offline check knows bounded whole numbers, int32 and int64.
            Some("integer") => match (node.minimum, node.maximum) {
                (None, None) => matches!(node.format.as_deref(), Some("int32" | "int64")),
                bounds => bounds.0.is_some() && bounds.1.is_some(),
            },
            Some("object") => node.additional_properties.is_none() || node.max_properties.is_some(),
            _ => true,
        };
        assert!(bounded, "{path} has no maximum");
    }
}

#[test]
fn every_field_is_described() {
    for (path, node) in nodes() {
        let ours = path.starts_with(".spec") || path.starts_with(".status");
        let ours = ours && !path.ends_with("[]") && !is_foreign(&path);
        assert!(!ours || node.description.is_some(), "{path} has no description");
        let theirs = is_foreign(&path) && node.description.is_some();
        assert!(!theirs, "{path}: the descriptions of Kubernetes make the definition too large");
    }
}

#[test]
fn no_field_is_a_boolean_of_yaml() {
    // The API server's reader of YAML takes these for true and false, also where a name stands.
    for (path, _) in nodes() {
        let name = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        assert!(!["y", "n", "yes", "no", "on", "off"].contains(&name.as_str()), "{path}");
    }
}

#[test]
fn unions_are_the_same_for_the_api_server_and_offline() {
    let mut unions = 0;
    for (path, node) in nodes() {
        let members = validate::union_members(&node);
        let expected: Vec<_> =
            members.iter().map(|(kind, name)| union::member(kind, name).rule).collect();
        let rules = node.x_kubernetes_validations.iter().flatten();
        let found: Vec<_> =
            rules.map(|rule| rule.rule.clone()).filter(|rule| rule.contains("self.type")).collect();
        assert_eq!(found, expected, "{path}");
        unions += usize::from(!members.is_empty());
    }
    assert_eq!(unions, 3, "policies, exporters, resolver");
}

#[test]
fn the_definition_is_structural() {
    let definition = definition();
    let version = &definition.spec.versions[0];
    assert_eq!(definition.metadata.name.as_deref(), Some("tracepipelines.ringtail.dev"));
    assert_eq!(format!("{}/{}", definition.spec.group, version.name), API_VERSION);
    let subresources = version.subresources.as_ref().unwrap();
    assert!(subresources.status.is_some());
    assert_eq!(subresources.scale.as_ref().unwrap().spec_replicas_path, ".spec.gateway.replicas");
    let value = serde_json::to_value(root()).unwrap();
    let enums = nodes().into_iter().flat_map(|(_, node)| node.enum_.unwrap_or_default());
    assert!(enums.into_iter().all(|choice| choice.0.is_string()));
    assert!(!has_key(&value, "nullable") && !has_key(&value, "anyOf") && !has_key(&value, "$ref"));
}

fn has_key(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, v)| key == wanted || has_key(v, wanted)),
        Value::Array(items) => items.iter().any(|item| has_key(item, wanted)),
        _ => false,
    }
}

#[test]
fn every_rule_has_its_twin_offline() {
    for (path, node) in nodes() {
        for rule in node.x_kubernetes_validations.iter().flatten() {
            let union = rule.rule.contains("self.type");
            assert!(union || rules::twin(&rule.rule).is_some(), "{path}: {}", rule.rule);
        }
    }
}
