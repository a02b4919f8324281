//! Whether an object in the cluster still is what was applied: every field that was set holds what it was
//! set to.
//!
//! The API server adds defaults and others add fields of their own; neither matters. Where it writes a
//! value in another way than we do (quantities), the value counts. In a list that Kubernetes merges by a
//! key, others may have items too (an injected sidecar); any other list is ours as a whole.

use serde_json::{Map, Value};

use crate::kind::Kind;

/// The lists that are merged by key, by kind and field.
const PODS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("ports", &["containerPort", "protocol"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("imagePullSecrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("hostAliases", &["ip"]),
    ("ownerReferences", &["uid"]),
];
const SERVICES: &[(&str, &[&str])] =
    &[("ports", &["port", "protocol"]), ("ownerReferences", &["uid"])];
const OTHERS: &[(&str, &[&str])] = &[("ownerReferences", &["uid"])];

/// Whether `live` has everything that `wanted` says.
pub fn covers(kind: Kind, wanted: &Value, live: &Value) -> bool {
    let keyed = match kind {
        Kind::Deployment | Kind::DaemonSet => PODS,
        Kind::Service => SERVICES,
        _ => OTHERS,
    };
    Comparison { keyed }.value("", wanted, live)
}

struct Comparison {
    keyed: &'static [(&'static str, &'static [&'static str])],
}

// === impl Comparison ===

impl Comparison {
    fn value(&self, field: &str, wanted: &Value, live: &Value) -> bool {
        match (wanted, live) {
            (Value::Object(wanted), Value::Object(live)) => self.object(wanted, live),
            (Value::Array(wanted), Value::Array(live)) => self.list(field, wanted, live),
            (Value::String(wanted), Value::String(live)) => {
                wanted == live || same_quantity(wanted, live)
            }
            (Value::Number(wanted), Value::Number(live)) => wanted.as_f64() == live.as_f64(),
            (Value::Number(number), Value::String(text))
            | (Value::String(text), Value::Number(number)) => *text == number.to_string(),
            _ => wanted == live,
        }
    }

    fn object(&self, wanted: &Map<String, Value>, live: &Map<String, Value>) -> bool {
        wanted.iter().all(|(field, wanted)| match live.get(field) {
            Some(live) => self.value(field, wanted, live),
            // Servers leave out what is empty.
            None => is_empty(wanted),
        })
    }

    fn list(&self, field: &str, wanted: &[Value], live: &[Value]) -> bool {
        match self.keyed.iter().find(|(name, _)| *name == field) {
            Some((_, keys)) => wanted.iter().all(|item| {
                live.iter().any(|other| same_keys(keys, item, other) && self.value("", item, other))
            }),
            None => {
                wanted.len() == live.len()
                    && wanted.iter().zip(live).all(|(item, other)| self.value("", item, other))
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

// A key that one side leaves to its default (the protocol) does not tell items apart.
fn same_keys(keys: &[&str], wanted: &Value, live: &Value) -> bool {
    keys.iter().all(|key| match (wanted.get(key), live.get(key)) {
        (Some(wanted), Some(live)) => wanted == live,
        _ => true,
    })
}

fn same_quantity(a: &str, b: &str) -> bool {
    matches!((quantity(a), quantity(b)), (Some(a), Some(b)) if a == b)
}

// In thousandths, the finest that any field of ours is given in.
fn quantity(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = digits.checked_mul(factor)?;
    let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    (scaled % divisor == 0).then_some(scaled / divisor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn covers_what_others_may_add_and_nothing_that_they_may_not() {
        let cases = [
            ("equal", Kind::Role, json!({"a": [1, 2]}), json!({"a": [1, 2]}), true),
            ("a default", Kind::Role, json!({"a": 1}), json!({"a": 1, "b": 2}), true),
            ("another value", Kind::Role, json!({"a": 1}), json!({"a": 2}), false),
            ("a field gone", Kind::Role, json!({"a": 1}), json!({}), false),
            ("empty is absent", Kind::Role, json!({"a": {"b": []}}), json!({}), true),
            (
                "a rule more",
                Kind::Role,
                json!({"rules": [{"a": 1}]}),
                json!({"rules": [{"a": 1}, {}]}),
                false,
            ),
            ("quantities", Kind::Deployment, json!({"cpu": "0.5"}), json!({"cpu": "500m"}), true),
            ("memory", Kind::Deployment, json!({"m": "1024Mi"}), json!({"m": "1Gi"}), true),
            (
                "other quantity",
                Kind::Deployment,
                json!({"m": "1000Mi"}),
                json!({"m": "1Gi"}),
                false,
            ),
            (
                "an injected container",
                Kind::Deployment,
                json!({"containers": [{"name": "a", "image": "x"}]}),
                json!({"containers": [{"name": "b"}, {"name": "a", "image": "x", "tty": false}]}),
                true,
            ),
            (
                "an edited container",
                Kind::Deployment,
                json!({"containers": [{"name": "a", "image": "x"}]}),
                json!({"containers": [{"name": "a", "image": "y"}]}),
                false,
            ),
            (
                "a port with the default protocol",
                Kind::Service,
                json!({"ports": [{"port": 1, "name": "x"}]}),
                json!({"ports": [{"port": 1, "name": "x", "protocol": "TCP", "nodePort": 3}]}),
                true,
            ),
            (
                "arguments are a whole",
                Kind::Deployment,
                json!({"args": ["a"]}),
                json!({"args": ["a", "b"]}),
                false,
            ),
            ("int or string", Kind::Service, json!({"p": "8888"}), json!({"p": 8888}), true),
        ];
        for (name, kind, wanted, live, covered) in cases {
            assert_eq!(covers(kind, &wanted, &live), covered, "{name}: {wanted} in {live}");
        }
    }
}
