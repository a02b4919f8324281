//! What of an object's metadata changes when somebody means something by it, as a number.
//!
//! Status updates change `resourceVersion` and nothing else that anybody means. What they do not touch is
//! what is hashed here: labels, annotations, owners, the generation, and who last set which fields.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::api::ObjectMeta;

/// The fingerprint of everything but the status.
pub fn of(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, &meta.labels, &meta.annotations).hash(&mut hasher);
    meta.deletion_timestamp.as_ref().map(|time| time.0).hash(&mut hasher);
    for owner in meta.owner_references.iter().flatten() {
        (&owner.uid, owner.controller).hash(&mut hasher);
    }
    for entry in meta.managed_fields.iter().flatten() {
        if entry.subresource.as_deref() == Some("status") {
            continue;
        }
        (&entry.manager, &entry.operation, entry.time.as_ref().map(|time| time.0))
            .hash(&mut hasher);
        // Two edits within one second have the same time.
        entry.fields_v1.as_ref().map(|fields| fields.0.to_string()).hash(&mut hasher);
    }
    hasher.finish()
}

/// The fingerprint of what was asked for: the spec, and whether it is going away.
pub fn of_intent(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation).hash(&mut hasher);
    meta.deletion_timestamp.as_ref().map(|time| time.0).hash(&mut hasher);
    hasher.finish()
}
