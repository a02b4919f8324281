//! Merging of pod settings, as `kubectl` merges patches: maps by key, lists by what tells their entries
//! apart.
//!
//! What is merged can add and change, and never take away: a null is as good as absent. So what was checked
//! about both sides holds for the result, and nothing that the operator counts on gets lost.

use ringtail_crds::validate::without_nulls;
use serde_json::{Map, Value};

/// Lists whose entries are merged, and the field by which; other lists are replaced as a whole.
const KEYS: [(&str, &str); 11] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Merges `over` into `base`. What cannot be merged, a list over a text, leaves `base` as it is.
pub(super) fn merge(base: &mut Value, over: &Value) {
    merge_field("", base, over);
}

fn merge_field(field: &str, base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => merge_maps(base, over),
        (Value::Array(base), Value::Array(over)) => merge_lists(field, base, over),
        (Value::Array(_) | Value::Object(_), _) => {}
        (base @ Value::Null, over) => *base = without_nulls(over),
        (_, Value::Array(_) | Value::Object(_)) => {}
        (base, over) => *base = over.clone(),
    }
}

fn merge_maps(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, over) in over.iter().filter(|(_, over)| !over.is_null()) {
        merge_field(key, base.entry(key).or_insert(Value::Null), over);
    }
}

fn merge_lists(field: &str, base: &mut Vec<Value>, over: &[Value]) {
    let Some((_, key)) = KEYS.iter().find(|(list, _)| *list == field) else {
        *base = over.iter().map(without_nulls).collect();
        return;
    };
    for entry in over {
        let same =
            |other: &&mut Value| entry.get(key).is_some() && entry.get(key) == other.get(key);
        match base.iter_mut().find(same) {
            Some(other) => merge(other, entry),
            None => base.push(without_nulls(entry)),
        }
    }
}
