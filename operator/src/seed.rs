//! The ring seed: 128 random bits that a pipeline gets once and keeps.
//!
//! Who knows it can compute which gateway a trace goes to, so it is a Secret. Gateways and agents with
//! different seeds would compute different rings, so it is never written again, not even by hand: the
//! Secret is immutable.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use ringtail_crds::TracePipeline;
use sha2::{Digest, Sha256};

use crate::{
    build::{self, Child},
    failure::Failure,
    kind::Kind,
    labels::Component,
};

/// The key in the Secret.
pub const KEY: &str = "seed";
/// 128 bits, as the keyed hash of trace IDs takes them.
const SEED_BYTES: usize = 16;

/// The name of the Secret.
pub fn secret_name(pipeline: &TracePipeline) -> String {
    format!("{}-ring-seed", pipeline.name_any())
}

/// The Secret with a new seed, and the seed's hash.
pub fn mint(pipeline: &TracePipeline) -> Result<(Child, String), Failure> {
    let mut bytes = [0; SEED_BYTES];
    let failure =
        |error: getrandom::Error| Failure::Mint { what: "a ring seed", reason: error.to_string() };
    getrandom::fill(&mut bytes).map_err(failure)?;
    let seed = hex(&bytes).into_bytes();
    let hash = hash_of(&seed);
    Ok((child(pipeline, seed), hash))
}

/// The Secret as it is, and its seed's hash; none if what it holds is no seed.
pub fn keep(pipeline: &TracePipeline, secret: &Secret) -> Option<(Child, String)> {
    let ByteString(seed) = secret.data.as_ref()?.get(KEY)?;
    let digits = seed.trim_ascii();
    let is_seed = digits.len() == 2 * SEED_BYTES && digits.iter().all(u8::is_ascii_hexdigit);
    is_seed.then(|| (child(pipeline, seed.clone()), hash_of(digits)))
}

fn child(pipeline: &TracePipeline, seed: Vec<u8>) -> Child {
    let secret = Secret {
        metadata: build::meta(pipeline, Component::Pipeline, secret_name(pipeline)),
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(seed))])),
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        ..Secret::default()
    };
    Child::new(Kind::Secret, &secret)
}

fn hash_of(seed: &[u8]) -> String {
    hex(&Sha256::digest(seed)[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
