//! What agents do to spans before they send them: the parts of `spec.agent` that say it.

use kube::KubeSchema;
use ringtail_engine::policy::limits::MAX_KEY_BYTES;
use ringtail_engine::rewrite::limits::MAX_ACTION_VALUE_BYTES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::NodeRule;

/// Where facts about the place of an agent come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum Detector {
    Environment,
    Host,
    Kubernetes,
}

/// One change of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = VALUE_IF_GIVEN.rule())]
pub struct AttributeAction {
    /// What is done. Insert: the attribute gets the value if it is not there; Update: if it is there; Upsert:
    /// in any case. Delete: it goes. Hash: its value becomes the hexadecimal digits of its SHA-256.
    pub action: AttributeVerb,

    /// Whose attribute: Span, of every span; Resource, of their resource.
    #[serde(default)]
    pub context: AttributeHome,

    /// The name of the attribute.
    #[schemars(length(min = 1, max = MAX_KEY_BYTES))]
    pub key: String,

    /// The value that Insert, Update and Upsert give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ACTION_VALUE_BYTES))]
    pub value: Option<String>,

    /// What the value is: String, Int, Double or Bool.
    #[serde(default)]
    pub value_type: AttributeType,
}

/// What is done to an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum AttributeVerb {
    Insert,
    Update,
    Upsert,
    Delete,
    Hash,
}

/// Whose attribute it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum AttributeHome {
    #[default]
    Span,
    Resource,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum AttributeType {
    #[default]
    String,
    Int,
    Double,
    Bool,
}

/// Some actions give a value, others have none.
pub(crate) static VALUE_IF_GIVEN: NodeRule = NodeRule {
    cel: "has(self.value) == (self.action in ['Insert', 'Update', 'Upsert'])",
    holds: |action| {
        let gives = action.get("action").and_then(serde_json::Value::as_str);
        let gives = gives.is_none_or(|verb| ["Insert", "Update", "Upsert"].contains(&verb));
        action.get("value").is_some() == gives
    },
    message: "is what Insert, Update and Upsert need, and Delete and Hash do not take",
    field: ".value",
};
