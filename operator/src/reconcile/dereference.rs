//! The stage that looks up what a pipeline refers to and what exists of it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use ringtail_crds::{TracePipeline, ValidPipeline, conditions::reason, security::PeerTlsMode};

use super::{World, observe};
use crate::{
    build::Child,
    conditions::Unresolved,
    failure::Failure,
    fingerprint,
    kind::Kind,
    labels::{self, Component},
    live::Live,
    memory::Memory,
    peer_tls::{self, Present},
    references, seed,
    stats::ring::Standing,
};

/// What was found.
pub struct Dereferenced {
    /// What exists.
    pub live: Live,
    /// What the pipeline refers to and does not exist, sorted.
    pub unresolved: Vec<Unresolved>,
    /// The Secrets that the pipeline should have, the seed first.
    pub secrets: Vec<Child>,
    /// Whether the seed is new.
    pub seed_is_new: bool,
    /// When a certificate has to be renewed.
    pub renew_in: Option<Duration>,
    /// The certificates that are new.
    pub renewed: Vec<&'static str>,
}

struct Reader<'a> {
    world: &'a World,
    namespace: String,
    memory: &'a mut Memory,
}

/// Looks everything up.
pub async fn dereference(
    pipeline: &TracePipeline,
    valid: &ValidPipeline,
    world: &World,
    memory: &mut Memory,
) -> Result<Dereferenced, Failure> {
    let namespace = pipeline.namespace().unwrap_or_default();
    let mut reader = Reader { world, namespace, memory };
    let mut unresolved = reader.unresolved(pipeline).await?;
    let name = seed::secret_name(pipeline);
    let there = reader.own(&name).await?;
    let seed_is_new = there.is_none();
    let (seed, seed_hash) = match there {
        None => seed::mint(pipeline).map(Some)?,
        Some(secret) => seed::keep(pipeline, &secret),
    }
    .unzip();
    if seed.is_none() {
        let message = format!("Secret {name} holds no seed; delete it, and a new one is made");
        unresolved.push(Unresolved { reason: reason::KEY_MISSING, message });
    }
    let mut found = Dereferenced {
        live: live(pipeline, world, seed_hash.unwrap_or_default()),
        unresolved,
        secrets: seed.into_iter().collect(),
        seed_is_new,
        renew_in: None,
        renewed: Vec::new(),
    };
    if valid.peer_tls == PeerTlsMode::Managed {
        let [ca, gateway, agent] = peer_tls::secret_names(pipeline);
        let present = Present {
            ca: reader.own(&ca).await?,
            gateway: reader.own(&gateway).await?,
            agent: reader.own(&agent).await?,
        };
        let renewed = peer_tls::renew(pipeline, &present, world.lifetimes, SystemTime::now())?;
        found.secrets.extend(renewed.secrets);
        found.renew_in = Some(renewed.due_in);
        found.renewed = renewed.made;
    }
    Ok(found)
}

fn live(pipeline: &TracePipeline, world: &World, seed_hash: String) -> Live {
    let uid = pipeline.uid().unwrap_or_default();
    let deployments = world.stores.workloads_of(Kind::Deployment, &uid);
    let daemon_sets = world.stores.workloads_of(Kind::DaemonSet, &uid);
    let view = world.views.borrow().get(&uid).cloned();
    // What they said when they last answered is no longer so.
    let view = view.filter(|view| view.ring.standing != Standing::Unknown);
    let pods =
        world.stores.pods_of(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any());
    let leaving = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_some()
            && pod.labels().get(labels::COMPONENT).map(String::as_str)
                == Some(Component::Gateway.name())
    });
    Live {
        seed_hash,
        deployments: deployments
            .iter()
            .map(|object| (object.name_any(), observe::workload(Kind::Deployment, object)))
            .collect::<BTreeMap<_, _>>(),
        daemon_set: daemon_sets.first().map(|object| observe::workload(Kind::DaemonSet, object)),
        ring_draining: view.as_ref().map_or(0, |view| view.ring.draining),
        ring_members: view.map(|view| view.ring.members.clone()).unwrap_or_default(),
        leaving_gateways: u32::try_from(leaving.count()).unwrap_or(u32::MAX),
    }
}

// === impl Reader ===

impl Reader<'_> {
    // A Secret of ours. It is read again only when its metadata says that it changed.
    async fn own(&mut self, name: &str) -> Result<Option<Secret>, Failure> {
        let meta = self.world.stores.child(Kind::Secret, &self.namespace, name);
        let print = meta.as_ref().map(fingerprint::of);
        if let (Some(print), Some((known, secret))) = (print, self.memory.secrets.get(name))
            && *known == print
        {
            return Ok(Some(secret.clone()));
        }
        let secret = self.read(name).await?;
        match &secret {
            Some(secret) => {
                let print = fingerprint::of(&secret.metadata);
                self.memory.secrets.insert(name.to_owned(), (print, secret.clone()));
            }
            None => {
                self.memory.secrets.remove(name);
            }
        }
        Ok(secret)
    }

    async fn read(&self, name: &str) -> Result<Option<Secret>, Failure> {
        let api: Api<Secret> = Api::namespaced(self.world.client.clone(), &self.namespace);
        api.get_opt(name).await.map_err(Failure::request("get", format!("Secret {name}")))
    }

    // Each Secret that the pipeline refers to is read once, for its keys. Its values are not kept.
    async fn unresolved(&self, pipeline: &TracePipeline) -> Result<Vec<Unresolved>, Failure> {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for reference in references::of(pipeline) {
            keys.entry(reference.name).or_default().push(reference.key);
        }
        let mut unresolved = Vec::new();
        for (name, keys) in keys {
            match self.read(&name).await? {
                None => unresolved.push(Unresolved {
                    reason: reason::SECRET_NOT_FOUND,
                    message: format!(
                        "Secret {name} does not exist in namespace {}",
                        self.namespace
                    ),
                }),
                Some(secret) => {
                    let has = |key: &String| {
                        secret.data.as_ref().is_some_and(|data| data.contains_key(key))
                    };
                    let missing = keys.iter().filter(|key| !has(key)).map(|key| Unresolved {
                        reason: reason::KEY_MISSING,
                        message: format!("Secret {name} has no key {key}"),
                    });
                    unresolved.extend(missing);
                }
            }
        }
        Ok(unresolved)
    }
}
