//! What pods read from files: the manifest, the ring's seed, certificates, Secrets of exporters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Inputs, config_map, tier::Tier};
use crate::{references, seed};

/// Readable for the group, which is the pod's own.
const SECRET_MODE: u32 = 0o440;

/// A volume and where the container sees it.
pub(super) struct Mounted {
    /// As the pod lists it.
    pub(super) volume: Value,
    /// As the container lists it.
    pub(super) mount: Value,
}

/// Where the manifest is.
pub(super) const PIPELINE_FILE: &str = "/etc/ringtail/pipeline/pipeline.yaml";
/// Where the ring's seed is.
pub(super) const SEED_FILE: &str = "/etc/ringtail/seed/seed";
/// Where the certificates are.
pub(super) const PEER_TLS_DIRECTORY: &str = "/etc/ringtail/peer-tls";

/// Where the certificate is that applications see.
pub(super) const OTLP_TLS_DIRECTORY: &str = "/etc/ringtail/otlp-tls";
/// Where the authority of applications' certificates is.
pub(super) const OTLP_CLIENT_CA_DIRECTORY: &str = "/etc/ringtail/otlp-client-ca";
/// Where the tokens are that applications show, and in which file.
const OTLP_TOKEN_DIRECTORY: &str = "/etc/ringtail/otlp-tokens";
pub(super) const OTLP_TOKEN_FILE: &str = "/etc/ringtail/otlp-tokens/tokens";
/// Where queues on disk are, a directory for each exporter.
pub(super) const DATA_DIRECTORY: &str = "/var/lib/ringtail";
/// A large request or two.
const VOLUME_SPARE_BYTES: u64 = 16 << 20;

/// The volumes of a tier. They are mounted as directories, because files that are mounted one by one never
/// change.
pub(super) fn of(inputs: &Inputs<'_>, tier: Tier) -> Vec<Mounted> {
    let pipeline = inputs.pipeline;
    let manifest = json!({"name": config_map::name(pipeline)});
    let mut all = vec![
        mounted("ringtail-pipeline", "/etc/ringtail/pipeline", "configMap", manifest),
        mounted(
            "ringtail-seed",
            "/etc/ringtail/seed",
            "secret",
            secret(&seed::secret_name(pipeline)),
        ),
    ];
    if let Some(name) = tier.peer_tls_secret(pipeline) {
        all.push(mounted("ringtail-peer-tls", PEER_TLS_DIRECTORY, "secret", secret(&name)));
    }
    all.extend(of_receivers(inputs));
    let sources = secret_sources(inputs);
    if tier == Tier::Gateway && !sources.is_empty() {
        let projected = json!({"defaultMode": SECRET_MODE, "sources": sources});
        all.push(mounted("ringtail-secrets", "/etc/ringtail/secrets", "projected", projected));
    }
    if tier == Tier::Gateway {
        all.extend(queues(inputs));
    }
    all
}

/// A volume for each queue on disk: they may be of different kinds, and one must not fill another's.
fn queues(inputs: &Inputs<'_>) -> Vec<Mounted> {
    let exporters = inputs.pipeline.spec.exporters.iter().enumerate();
    let queues = exporters.filter_map(|(index, exporter)| {
        let disk = exporter.otlp.as_ref()?.queue.persistent.as_ref()?;
        // The name of an exporter may be as long as that of a volume.
        let volume = format!("ringtail-queue-{index}");
        let bytes = volume_bytes(disk.size_limit.parse()?).to_string();
        let source = match &disk.storage_class_name {
            None => json!({"name": volume, "emptyDir": {"sizeLimit": bytes}}),
            Some(class) => json!({"name": volume, "ephemeral": {"volumeClaimTemplate": {"spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": class,
                "resources": {"requests": {"storage": bytes}},
            }}}}),
        };
        let path = format!("{DATA_DIRECTORY}/{}", exporter.name);
        let mount = json!({"name": volume, "mountPath": path});
        Some(Mounted { volume: source, mount })
    });
    queues.collect()
}

/// What a volume must hold so that a full queue does not fill it: a pod that overfills its emptyDir is
/// evicted, and file systems take a share for themselves.
fn volume_bytes(queue_bytes: u64) -> u64 {
    queue_bytes.saturating_add(queue_bytes / 8).saturating_add(VOLUME_SPARE_BYTES)
}

fn mounted(name: &str, path: &str, kind: &str, source: Value) -> Mounted {
    Mounted {
        volume: json!({"name": name, kind: source}),
        mount: json!({"name": name, "mountPath": path, "readOnly": true}),
    }
}

/// What applications have to show, and what they see. Of each Secret only what is read.
fn of_receivers(inputs: &Inputs<'_>) -> Vec<Mounted> {
    let otlp = &inputs.pipeline.spec.agent.receivers.otlp;
    let secret = |name: &str, items: &[(&str, &str)]| {
        let items: Vec<Value> =
            items.iter().map(|(key, path)| json!({"key": key, "path": path})).collect();
        json!({"secretName": name, "defaultMode": SECRET_MODE, "items": items})
    };
    let mut all = Vec::new();
    if let Some(tls) = &otlp.tls {
        let files = [("tls.crt", "tls.crt"), ("tls.key", "tls.key")];
        let source = secret(&tls.certificate_ref.name, &files);
        all.push(mounted("ringtail-otlp-tls", OTLP_TLS_DIRECTORY, "secret", source));
        if let Some(clients) = &tls.client_ca_ref {
            let source = secret(&clients.name, &[("ca.crt", "ca.crt")]);
            all.push(mounted(
                "ringtail-otlp-client-ca",
                OTLP_CLIENT_CA_DIRECTORY,
                "secret",
                source,
            ));
        }
    }
    if let Some(token) = &otlp.bearer_token_secret_ref {
        let source = secret(&token.name, &[(token.key.as_str(), "tokens")]);
        all.push(mounted("ringtail-otlp-tokens", OTLP_TOKEN_DIRECTORY, "secret", source));
    }
    all
}

fn secret(name: &str) -> Value {
    json!({"secretName": name, "defaultMode": SECRET_MODE})
}

// Of each Secret only the keys that something names, as files NAME/KEY. A pod whose Secret does not exist
// waits for it, and `ResolvedRefs` says so.
fn secret_sources(inputs: &Inputs<'_>) -> Vec<Value> {
    let references = references::of_files(inputs.pipeline);
    let names: BTreeSet<&str> =
        references.iter().map(|reference| reference.name.as_str()).collect();
    let source = |name: &str| {
        let keys = references.iter().filter(|reference| reference.name == name);
        let items: Vec<Value> = keys
            .map(|reference| json!({"key": reference.key, "path": format!("{name}/{}", reference.key)}))
            .collect();
        json!({"secret": {"name": name, "items": items}})
    };
    names.into_iter().map(source).collect()
}
