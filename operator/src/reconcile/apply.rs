//! The stage that makes children so: server-side apply of what is not as it should be, and nothing else.

use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
};
use ringtail_crds::TracePipeline;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    build::Child,
    coverage,
    failure::Failure,
    fingerprint, labels,
    memory::{Memory, Verified},
    stores::{Stores, is_owned_by},
};

/// What was done to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as it should be.
    Unchanged,
    /// It was not there.
    Created,
    /// The pipeline, or this operator, wants it otherwise than before.
    Changed,
    /// Somebody had deleted or edited it.
    Restored,
    /// It is being deleted, which has to end first.
    Terminating,
}

/// Applies children of one pipeline.
pub struct Applier<'a> {
    /// Behind the gate.
    pub client: &'a Client,
    /// What is known of the cluster.
    pub stores: &'a Stores,
    /// The owner.
    pub pipeline: &'a TracePipeline,
}

// === impl Applier ===

impl Applier<'_> {
    /// Makes a child as it should be.
    pub async fn apply(&self, child: &Child, memory: &mut Memory) -> Result<Outcome, Failure> {
        let (manifest, hash) = stamped(child);
        let key = (child.kind, child.name.clone());
        let known = memory.verified.get(&key).cloned();
        if self.is_verified(child, &hash, known.as_ref()) {
            return Ok(Outcome::Unchanged);
        }
        // What follows asks the API server itself: a store may be a moment behind our own last write.
        let live = self.live(child).await?;
        let outcome = match &live {
            None if known.is_some() => Outcome::Restored,
            None => Outcome::Created,
            Some(live) => match self.judge(child, &manifest, &hash, live)? {
                Outcome::Unchanged => {
                    memory.verified.insert(key, verified(hash, &live.metadata));
                    return Ok(Outcome::Unchanged);
                }
                Outcome::Terminating => return Ok(Outcome::Terminating),
                outcome => outcome,
            },
        };
        let uid = live.and_then(|live| live.metadata.uid);
        let written = self.write(child, manifest, uid).await?;
        memory.verified.insert(key, verified(hash, &written.metadata));
        tracing::info!(kind = %child.kind, name = child.name, ?outcome, "applied");
        Ok(outcome)
    }

    /// Makes a child that must not be there yet. If it is, somebody was faster, and what is known of the
    /// cluster is out of date.
    pub async fn create(&self, child: &Child, memory: &mut Memory) -> Result<Outcome, Failure> {
        let (manifest, hash) = stamped(child);
        let object: DynamicObject = serde_json::from_value(manifest)
            .map_err(|error| Failure::Mint { what: "a manifest", reason: error.to_string() })?;
        let params = PostParams {
            field_manager: Some(labels::OPERATOR.to_owned()),
            ..PostParams::default()
        };
        let written = self.api(child).create(&params, &object).await;
        let written = written.map_err(Failure::request("create", described(child)))?;
        memory.verified.insert((child.kind, child.name.clone()), verified(hash, &written.metadata));
        tracing::info!(kind = %child.kind, name = child.name, "created");
        Ok(Outcome::Created)
    }

    fn is_verified(&self, child: &Child, hash: &str, known: Option<&Verified>) -> bool {
        let (Some(known), Some(meta)) =
            (known, self.stores.child(child.kind, &self.namespace(), &child.name))
        else {
            return false;
        };
        known.hash == hash && known.print == fingerprint::of(&meta)
    }

    async fn live(&self, child: &Child) -> Result<Option<DynamicObject>, Failure> {
        let live = self.api(child).get_opt(&child.name).await;
        live.map_err(Failure::request("get", described(child)))
    }

    // What is to be done about a child that exists.
    fn judge(
        &self,
        child: &Child,
        manifest: &Value,
        hash: &str,
        live: &DynamicObject,
    ) -> Result<Outcome, Failure> {
        if !self.may_own(live) {
            return Err(Failure::Foreign { kind: child.kind, name: child.name.clone() });
        }
        if live.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Terminating);
        }
        let applied = live.annotations().get(labels::APPLIED_HASH).map(String::as_str);
        if applied != Some(hash) {
            return Ok(Outcome::Changed);
        }
        // An object that was parsed from JSON has string keys throughout.
        let live = serde_json::to_value(live).unwrap_or_default();
        let covers = coverage::covers(child.kind, manifest, &live);
        Ok(if covers { Outcome::Unchanged } else { Outcome::Restored })
    }

    // Ours, or an orphan that still says that it was (of `kubectl delete --cascade=orphan`). An object that
    // belongs to somebody else, or to nobody we know, is left alone.
    fn may_own(&self, live: &DynamicObject) -> bool {
        let uid = self.pipeline.uid().unwrap_or_default();
        if is_owned_by(&live.metadata, &uid) {
            return true;
        }
        let label = |key: &str, value: &str| live.labels().get(key).is_some_and(|v| v == value);
        let is_orphan = !live.owner_references().iter().any(|owner| owner.controller == Some(true));
        is_orphan
            && label(labels::MANAGED_BY, labels::OPERATOR)
            && label(labels::PIPELINE, &self.pipeline.name_any())
    }

    // The UID of the object that was judged goes along, so that one that took its name since is not taken
    // over.
    async fn write(
        &self,
        child: &Child,
        mut manifest: Value,
        uid: Option<String>,
    ) -> Result<DynamicObject, Failure> {
        if let Some(uid) = uid {
            manifest["metadata"]["uid"] = uid.into();
        }
        let params = PatchParams::apply(labels::OPERATOR).force();
        let written = self.api(child).patch(&child.name, &params, &Patch::Apply(&manifest)).await;
        written.map_err(Failure::request("apply", described(child)))
    }

    fn api(&self, child: &Child) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace(), &child.kind.resource())
    }

    fn namespace(&self) -> String {
        self.pipeline.namespace().unwrap_or_default()
    }
}

fn described(child: &Child) -> String {
    format!("{} {}", child.kind, child.name)
}

fn verified(hash: String, meta: &ObjectMeta) -> Verified {
    Verified { hash, print: fingerprint::of(meta) }
}

// The manifest with its own hash in an annotation, by which a field is found that we set once and no longer
// do.
fn stamped(child: &Child) -> (Value, String) {
    let digest = Sha256::digest(child.manifest.to_string());
    let hash: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut manifest = child.manifest.clone();
    manifest["metadata"]["annotations"][labels::APPLIED_HASH] = hash.clone().into();
    (manifest, hash)
}
