//! `spec.redaction`: what must not leave with kept spans.

use kube::KubeSchema;
use ringtail_engine::policy::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use ringtail_engine::rewrite::limits::{MAX_KEYS, MAX_MASKS, MAX_REPLACEMENT_BYTES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{exporter::SecretKeyRef, rules::NodeRule};

/// What gateways take out of kept spans before any exporter gets them: from the attributes of resources,
/// scopes, spans, events and links, however deep lists and maps in their values go. Policies are asked
/// before, and see everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = SOME_REDACTION.rule(),
    validation = SECRET_WITH_HASH.rule(),
    validation = TEXTS_WITH_MASKS.rule()
)]
pub struct Redaction {
    /// Keys of attributes that are taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_KEYS), inner(length(min = 1, max = MAX_KEY_BYTES)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub remove: Option<Vec<String>>,

    /// Keys of attributes whose values are replaced by a hash: 64 hexadecimal digits of SHA-256, or of
    /// HMAC-SHA-256 when hashSecretRef is set. Equal values have equal hashes, so they can still be counted
    /// and joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_KEYS), inner(length(min = 1, max = MAX_KEY_BYTES)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hash: Option<Vec<String>>,

    /// A Secret of this namespace with the key of the HMAC. Without one, whoever has a list of all possible
    /// values, such as telephone numbers, finds out which of them a hash is. Gateways read it when they
    /// start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_secret_ref: Option<SecretKeyRef>,

    /// What is replaced in values, one rule after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_MASKS))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub mask: Option<Vec<Mask>>,

    /// The keys of all attributes that may leave; every other one is taken out. An empty list lets none
    /// leave. Keys inside of maps are not asked: what is in the value of an attribute that may leave, may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_KEYS), inner(length(min = 1, max = MAX_KEY_BYTES)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_only: Option<Vec<String>>,

    /// Texts beside attributes that rules of mask without key and keyPattern look at too: SpanName, EventName
    /// and StatusMessage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub texts: Option<Vec<RedactedText>>,
}

/// A text beside attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum RedactedText {
    SpanName,
    EventName,
    StatusMessage,
}

/// What is replaced in values: of attributes with a key, of those in whose key a pattern is found, or of
/// all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ONE_KEY.rule(), validation = SOME_AIM.rule())]
pub struct Mask {
    /// The attribute, also inside of maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_KEY_BYTES))]
    pub key: Option<String>,

    /// A regular expression (RE2 syntax) for keys. It is found anywhere in a key: anchor it with ^ and $ to
    /// match all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_VALUE_BYTES))]
    pub key_pattern: Option<String>,

    /// A regular expression (RE2 syntax) for what is replaced in values. Numbers and booleans are looked at
    /// as text, and become one where it is found. Without it the whole value is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_VALUE_BYTES))]
    pub value_pattern: Option<String>,

    /// What stands there instead, as it is written: $1 means nothing.
    #[serde(default = "asterisks")]
    #[schemars(length(max = MAX_REPLACEMENT_BYTES))]
    pub replacement: String,
}

/// Fixed, so that nothing is told of the length.
fn asterisks() -> String {
    "****".to_owned()
}

/// A redaction of nothing would be taken for one.
pub(crate) static SOME_REDACTION: NodeRule = NodeRule {
    cel: "has(self.remove) || has(self.hash) || has(self.mask) || has(self.allowOnly)",
    holds: |redaction| {
        ["remove", "hash", "mask", "allowOnly"].iter().any(|name| redaction.get(name).is_some())
    },
    message: "redacts nothing: set remove, hash, mask or allowOnly",
    field: "",
};

/// The key of an HMAC that is never made.
pub(crate) static SECRET_WITH_HASH: NodeRule = NodeRule {
    cel: "!has(self.hashSecretRef) || has(self.hash)",
    holds: |redaction| redaction.get("hashSecretRef").is_none() || redaction.get("hash").is_some(),
    message: "has no effect without hash",
    field: ".hashSecretRef",
};

/// Texts have no keys.
pub(crate) static TEXTS_WITH_MASKS: NodeRule = NodeRule {
    cel: "!has(self.texts) || (has(self.mask) && \
          self.mask.exists(m, !has(m.key) && !has(m.keyPattern)))",
    holds: |redaction| {
        let masks = redaction.get("mask").and_then(serde_json::Value::as_array);
        let keyless = |mask: &serde_json::Value| {
            mask.get("key").is_none() && mask.get("keyPattern").is_none()
        };
        redaction.get("texts").is_none() || masks.is_some_and(|masks| masks.iter().any(keyless))
    },
    message: "needs a rule of mask without key and keyPattern: texts have no keys",
    field: ".texts",
};

/// Two keys would be one too many.
pub(crate) static ONE_KEY: NodeRule = NodeRule {
    cel: "!has(self.key) || !has(self.keyPattern)",
    holds: |mask| mask.get("key").is_none() || mask.get("keyPattern").is_none(),
    message: "has both key and keyPattern: give one of them",
    field: "",
};

/// Everything is not what anybody means.
pub(crate) static SOME_AIM: NodeRule = NodeRule {
    cel: "has(self.key) || has(self.keyPattern) || has(self.valuePattern)",
    holds: |mask| ["key", "keyPattern", "valuePattern"].iter().any(|name| mask.get(name).is_some()),
    message: "would replace everything: give key, keyPattern or valuePattern",
    field: "",
};
