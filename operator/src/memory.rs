//! What is remembered of a pipeline between two reconciles. All of it can be lost: it only saves requests.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::kind::Kind;

/// What is remembered of one pipeline.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Failed reconciles in a row.
    pub failures: u32,
    /// Children that were seen to be as they should.
    pub verified: HashMap<(Kind, String), Verified>,
    /// The Secrets of ours, by name, with the fingerprint that they had.
    pub secrets: HashMap<String, (u64, Secret)>,
    /// The status that was written last, and the version that the pipeline had then.
    pub status: Option<(u64, Value)>,
}

/// A child that was as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The hash of what was wanted.
    pub hash: String,
    /// The fingerprint of what was there.
    pub print: u64,
}

/// The memories of all pipelines, by UID.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

// === impl Memories ===

impl Memories {
    /// Takes a memory out. A reconcile that never ends loses it, which costs its pipeline a few requests.
    pub fn take(&self, uid: &str) -> Memory {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid).unwrap_or_default()
    }

    /// Puts it back.
    pub fn put(&self, uid: &str, memory: Memory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), memory);
    }

    /// Counts a failure and says how many in a row it makes.
    pub fn fail(&self, uid: &str) -> u32 {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.entry(uid.to_owned()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    }

    /// Forgets all but those.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| exists(uid));
    }
}
