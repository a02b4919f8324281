//! Defaults as the API server puts them in before it checks anything: from the schema, wherever a map lacks
//! the field.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::Value;

/// Puts the defaults of `schema` into `value` and everything in it.
pub(crate) fn fill_in(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties.iter().flatten() {
                if let (false, Some(default)) = (map.contains_key(name), &property.default) {
                    map.insert(name.clone(), default.0.clone());
                }
                if let Some(member) = map.get_mut(name) {
                    fill_in(property, member);
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
                items.iter_mut().for_each(|value| fill_in(item, value));
            }
        }
        _ => {}
    }
}
