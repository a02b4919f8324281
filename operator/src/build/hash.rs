//! Hashes that tell one setting from another.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The first 16 hex digits of the SHA-256: 64 bits, for a few versions of one thing.
pub(super) fn short(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same for a value, whatever order its maps have: that depends on features of other crates, and an
/// operator that was built otherwise must not restart fleets.
pub(super) fn of_value(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    short(text)
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in entries {
                text.push_str(&format!("{key:?}:"));
                write(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}
