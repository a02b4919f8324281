//! The Secrets that a pipeline refers to, and the way back.

use kube::runtime::reflector::{ObjectRef, Store};
use ringtail_crds::{
    TracePipeline,
    exporter::{OtlpExporter, TlsSettings},
};

use crate::stores::Guarded;

/// A key of a Secret in the pipeline's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// What the pipeline refers to, sorted.
pub fn of(pipeline: &TracePipeline) -> Vec<SecretKey> {
    let mut found = of_files(pipeline);
    if let Some(peers) = &pipeline.spec.security.peer_tls.secret_ref {
        let pairs = [&peers.gateway, &peers.agent].into_iter();
        let keys = |name: &String| ["tls.crt", "tls.key", "ca.crt"].map(|key| (name.clone(), key));
        found.extend(
            pairs.flat_map(keys).map(|(name, key)| SecretKey { name, key: key.to_owned() }),
        );
    }
    found.extend(of_receivers(pipeline));
    found.sort();
    found.dedup();
    found
}

fn of_receivers(pipeline: &TracePipeline) -> Vec<SecretKey> {
    let otlp = &pipeline.spec.agent.receivers.otlp;
    let mut found = Vec::new();
    let mut add = |name: &str, key: &str| {
        found.push(SecretKey { name: name.to_owned(), key: key.to_owned() });
    };
    if let Some(tls) = &otlp.tls {
        add(&tls.certificate_ref.name, "tls.crt");
        add(&tls.certificate_ref.name, "tls.key");
        if let Some(clients) = &tls.client_ca_ref {
            add(&clients.name, "ca.crt");
        }
    }
    if let Some(token) = &otlp.bearer_token_secret_ref {
        add(&token.name, &token.key);
    }
    found
}

/// What gateways read from files, sorted: headers, tokens and certificates of exporters, certificates of the
/// push of span metrics, and the key of the redaction's HMAC.
pub fn of_files(pipeline: &TracePipeline) -> Vec<SecretKey> {
    let exporters = pipeline.spec.exporters.iter().filter_map(|exporter| exporter.otlp.as_ref());
    let mut found: Vec<_> = exporters.flat_map(of_otlp).collect();
    let redaction = pipeline.spec.redaction.as_ref();
    let hashed = redaction.and_then(|known| known.hash_secret_ref.as_ref());
    found.extend(hashed.map(|key| SecretKey { name: key.name.clone(), key: key.key.clone() }));
    let push = pipeline.spec.span_metrics.as_ref().and_then(|metrics| metrics.otlp.as_ref());
    found.extend(push.and_then(|push| push.tls.as_ref()).into_iter().flat_map(of_tls));
    found.sort();
    found.dedup();
    found
}

fn key(name: &str, key: &str) -> SecretKey {
    SecretKey { name: name.to_owned(), key: key.to_owned() }
}

fn of_otlp(otlp: &OtlpExporter) -> Vec<SecretKey> {
    let headers = otlp.headers.iter().filter_map(|header| header.secret_key_ref.as_ref());
    let texts = headers.chain(&otlp.bearer_token_secret_ref);
    let mut found: Vec<_> = texts.map(|text| key(&text.name, &text.key)).collect();
    found.extend(otlp.tls.iter().flat_map(of_tls));
    found
}

fn of_tls(tls: &TlsSettings) -> Vec<SecretKey> {
    let authorities = tls.ca_ref.iter().map(|ca| key(&ca.name, &ca.key));
    let shown = tls.client_certificate_ref.iter();
    let shown = shown.flat_map(|own| ["tls.crt", "tls.key"].map(|part| key(&own.name, part)));
    authorities.chain(shown).collect()
}

/// The pipelines that refer to a Secret.
pub fn referring(
    pipelines: &Store<Guarded>,
    namespace: &str,
    secret: &str,
) -> Vec<ObjectRef<Guarded>> {
    let refers = |pipeline: &Guarded| {
        pipeline.0.as_ref().is_ok_and(|pipeline| {
            pipeline.metadata.namespace.as_deref() == Some(namespace)
                && of(pipeline).iter().any(|reference| reference.name == secret)
        })
    };
    let found = pipelines.state_filter(refers);
    found.iter().map(|pipeline| ObjectRef::from_obj(pipeline.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_push_of_span_metrics_has_files_too() {
        let text =
            "{apiVersion: ringtail.dev/v1alpha1, kind: TracePipeline, metadata: {name: a}, spec: {
            sampling: {policies: [{name: all, type: AlwaysSample}]},
            exporters: [{name: b, type: OTLP, otlp: {endpoint: 'http://b:1'}}],
            spanMetrics: {otlp: {endpoint: 'https://c', tls: {
                caRef: {name: push}, clientCertificateRef: {name: own}}}}}}";
        let pipeline: TracePipeline = serde_saphyr::from_str(text).unwrap();
        let expected = [("own", "tls.crt"), ("own", "tls.key"), ("push", "ca.crt")];
        assert_eq!(of_files(&pipeline), expected.map(|(name, part)| key(name, part)));
    }
}
