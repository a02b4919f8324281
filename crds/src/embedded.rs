//! Types of Kubernetes inside ours: their schemas without their prose, and with the maxima that ours have.
//!
//! A definition with all the descriptions of a pod's fields is larger than `kubectl apply` can handle, and
//! `kubectl explain pod.spec` tells them better. The API server judges the contents once more when the
//! operator applies the pods; so bounds here only have to be wide enough for everybody, and texts, which no
//! rule looks at, have none.

use k8s_openapi::api::core::v1::Volume;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::pattern;

/// Entries of a list. Clusters have fewer taints, and pods fewer volumes, than this.
const ITEMS_MAX: u32 = 64;
/// Entries of a map, such as the labels of a selector.
const PROPERTIES_MAX: u32 = 64;
/// Kinds of volumes that hold nothing but what belongs to the pod or its namespace.
pub(crate) const VOLUME_KINDS: [&str; 7] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"];
/// Characters of a quantity: 19 digits, a sign, a point and a suffix, with room for zeros.
const QUANTITY_LENGTH_MAX: u32 = 32;

/// The schema of a type of Kubernetes, as a field of ours embeds it.
pub(crate) fn embed<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(map) = schema.as_object_mut() {
        bound(map);
    }
    schema
}

/// The schema of a list of a type of Kubernetes, whose entries differ in `key`.
pub(crate) fn embed_list<T: JsonSchema>(generator: &mut SchemaGenerator, key: &str) -> Schema {
    let mut schema = embed::<Vec<T>>(generator);
    schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
    schema
}

/// The schema of volumes, of the kinds that pods under the restricted profile may have and no other.
pub(crate) fn embed_volumes(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = embed_list::<Volume>(generator, "name");
    let properties = schema.pointer_mut("/items/properties").and_then(Value::as_object_mut);
    if let Some(properties) = properties {
        properties.retain(|name, _| name == "name" || VOLUME_KINDS.contains(&name.as_str()));
    }
    schema
}

fn bound(schema: &mut Map<String, Value>) {
    schema.remove("description");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(bound);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = schema.get_mut(inner) {
            bound(inner);
        }
    }
    for (keyword, value) in bounds(schema) {
        schema.entry(keyword).or_insert(value);
    }
}

fn bounds(schema: &Map<String, Value>) -> Vec<(&'static str, Value)> {
    // Every int-or-string of the types that we embed is a quantity; probes, whose ports are none, stand in
    // `podTemplate`.
    if schema.contains_key("x-kubernetes-int-or-string") {
        let pattern = json!(pattern::QUANTITY.regex);
        return vec![("maxLength", json!(QUANTITY_LENGTH_MAX)), ("pattern", pattern)];
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => vec![("maxItems", json!(ITEMS_MAX))],
        Some("object") if schema.contains_key("additionalProperties") => {
            vec![("maxProperties", json!(PROPERTIES_MAX))]
        }
        _ => Vec::new(),
    }
}
