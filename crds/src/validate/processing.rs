//! Redaction, filters and attribute actions: from the manifest's types to the engine's, which compiles them
//! for real.

use ringtail_engine::policy::Filter;
use ringtail_engine::rewrite::attributes::{Action, Given, Home, Verb};
use ringtail_engine::rewrite::redaction::{self, Hasher, Plan, Texts};
use serde_json::Value;

use super::findings::Findings;
use crate::{
    path::Path,
    processing::{AttributeAction, AttributeHome, AttributeType, AttributeVerb},
    redaction::{RedactedText, Redaction},
    resolved,
};

/// Adds what no schema can say: patterns and conditions that do not compile, values that are none of their
/// type.
pub(crate) fn check(document: &Value, findings: &mut Findings) {
    let part = |pointer: &str| document.pointer(pointer).cloned().unwrap_or(Value::Null);
    let at = Path::default().join("spec.redaction");
    if !findings.touches(&at)
        && let Ok(written) = serde_json::from_value::<Redaction>(part("/spec/redaction"))
    {
        let problems = redaction::Redaction::new(&redaction_of(&written).plan, Hasher::default());
        for problem in problems.err().into_iter().flatten() {
            findings.add_unless_known(at.join(&problem.field), problem.message);
        }
    }
    let at = Path::default().join("spec.agent.filter");
    if !findings.touches(&at)
        && let Ok(texts) = serde_json::from_value::<Vec<String>>(part("/spec/agent/filter"))
    {
        for problem in Filter::new(&texts).err().into_iter().flatten() {
            let place = problem.place.map_or_else(|| at.clone(), |place| at.index(place));
            findings.add_unless_known(place, problem.message);
        }
    }
    let at = Path::default().join("spec.agent.attributes");
    if !findings.touches(&at)
        && let Ok(written) =
            serde_json::from_value::<Vec<AttributeAction>>(part("/spec/agent/attributes"))
    {
        for (place, action) in written.iter().enumerate() {
            if action_of(action).is_none() {
                let wanted = match action.value_type {
                    AttributeType::Int => "a whole number such as 5",
                    AttributeType::Double => "a number such as 0.5",
                    AttributeType::Bool | AttributeType::String => "true or false",
                };
                let message = format!("must be {wanted}, as valueType says");
                findings.add_unless_known(at.index(place).key("value"), message);
            }
        }
    }
}

/// What must not leave.
pub(super) fn redaction_of(written: &Redaction) -> resolved::Redaction {
    let list = |keys: &Option<Vec<String>>| keys.clone().unwrap_or_default();
    let mask = |mask: &crate::redaction::Mask| redaction::Mask {
        key: mask.key.clone(),
        key_pattern: mask.key_pattern.clone(),
        value_pattern: mask.value_pattern.clone(),
        replacement: mask.replacement.clone(),
    };
    let texts = written.texts.as_deref().unwrap_or_default();
    let plan = Plan {
        remove: list(&written.remove),
        hash: list(&written.hash),
        masks: written.mask.iter().flatten().map(mask).collect(),
        allow_only: written.allow_only.clone(),
        texts: Texts {
            span_names: texts.contains(&RedactedText::SpanName),
            event_names: texts.contains(&RedactedText::EventName),
            status_messages: texts.contains(&RedactedText::StatusMessage),
        },
    };
    let secret = written.hash_secret_ref.as_ref();
    resolved::Redaction { plan, hash_secret: secret.map(|key| (key.name.clone(), key.key.clone())) }
}

/// One action; `None` when its value is none of its type.
pub(super) fn action_of(written: &AttributeAction) -> Option<Action> {
    let given = || {
        let text = written.value.as_ref()?;
        Some(match written.value_type {
            AttributeType::String => Given::Text(text.clone()),
            AttributeType::Int => Given::Int(text.parse().ok()?),
            AttributeType::Double => Given::Double(text.parse().ok()?),
            AttributeType::Bool => Given::Bool(text.parse().ok()?),
        })
    };
    let home = match written.context {
        AttributeHome::Span => Home::Span,
        AttributeHome::Resource => Home::Resource,
    };
    let verb = match written.action {
        AttributeVerb::Insert => Verb::Insert(given()?),
        AttributeVerb::Update => Verb::Update(given()?),
        AttributeVerb::Upsert => Verb::Upsert(given()?),
        AttributeVerb::Delete => Verb::Delete,
        AttributeVerb::Hash => Verb::Hash,
    };
    Some(Action { home, key: written.key.clone(), verb })
}
