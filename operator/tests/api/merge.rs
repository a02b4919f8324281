//! Server-side apply in small: objects are merged, lists are replaced, and what a manager no longer sets
//! goes.

use serde_json::{Map, Value};

/// Sets everything that `wanted` says.
pub(crate) fn set(value: &mut Value, wanted: &Value) {
    match wanted {
        Value::Object(fields) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            for (field, wanted) in fields {
                set(&mut value[field.as_str()], wanted);
            }
        }
        _ => *value = wanted.clone(),
    }
}

/// Removes what was in `before` and is not in `wanted`.
pub(crate) fn remove_gone(value: &mut Value, before: &Value, wanted: &Value) {
    let (Some(fields), Some(before)) = (value.as_object_mut(), before.as_object()) else {
        return;
    };
    for (field, before) in before {
        match wanted.get(field) {
            None => {
                fields.remove(field);
            }
            Some(wanted) => {
                if let Some(value) = fields.get_mut(field) {
                    remove_gone(value, before, wanted);
                }
            }
        }
    }
}
