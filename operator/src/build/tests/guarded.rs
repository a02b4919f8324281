//! What applications have to show reaches both tiers: files, flags, and how Services call their ports.

use super::*;

const GUARDED: &str = "  agent:\n    receivers:\n      otlp:\n        tls: {certificateRef: {name: cert}, \
                       clientCARef: {name: clients}}\n        bearerTokenSecretRef: {name: tokens, \
                       key: list}\n";

#[test]
fn both_tiers_get_the_files_and_the_flags() {
    let scene = Scene::edited(&[("  agent:\n", GUARDED)]);
    for (kind, name) in [(Kind::DaemonSet, "shop-agent"), (Kind::Deployment, "shop-gateway")] {
        let template = scene.child(kind, name).unwrap()["spec"]["template"]["spec"].clone();
        let arguments: Vec<&str> = template["containers"][0]["args"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let flags = [
            ["--otlp-tls", "/etc/ringtail/otlp-tls"],
            ["--otlp-client-ca", "/etc/ringtail/otlp-client-ca"],
            ["--otlp-tokens", "/etc/ringtail/otlp-tokens/tokens"],
        ];
        for flag in flags {
            assert!(arguments.windows(2).any(|pair| pair == flag), "{name}: {arguments:?}");
        }
        let volumes = template["volumes"].as_array().unwrap();
        let secret = |volume: &str| {
            let found = volumes.iter().find(|one| one["name"] == volume);
            found.map(|one| one["secret"].clone()).unwrap_or_default()
        };
        assert_eq!(secret("ringtail-otlp-tls")["secretName"], "cert");
        // Of each Secret only what is read.
        assert_eq!(secret("ringtail-otlp-tls")["items"].as_array().map(Vec::len), Some(2));
        assert_eq!(secret("ringtail-otlp-client-ca")["items"][0]["key"], "ca.crt");
        assert_eq!(secret("ringtail-otlp-tokens")["items"][0]["key"], "list");
    }
    let protocols = |service: &str| {
        let service = scene.child(Kind::Service, service).unwrap();
        [0, 1].map(|port| service["spec"]["ports"][port]["appProtocol"].clone())
    };
    for service in ["shop-agent", "shop-gateway"] {
        assert_eq!(protocols(service), ["tls", "https"], "{service}");
    }
    let endpoints = crate::build::endpoints::endpoints(&scene.pipeline);
    assert!(endpoints.otlp_http.unwrap().starts_with("https://"));
    let references = crate::references::of(&scene.pipeline);
    let keys: Vec<(&str, &str)> =
        references.iter().map(|one| (one.name.as_str(), one.key.as_str())).collect();
    for wanted in
        [("cert", "tls.crt"), ("cert", "tls.key"), ("clients", "ca.crt"), ("tokens", "list")]
    {
        assert!(keys.contains(&wanted), "{wanted:?}: {keys:?}");
    }
}

#[test]
fn a_pipeline_that_asks_for_nothing_is_as_it_was() {
    let scene = Scene::edited(&[]);
    let template = scene.child(Kind::Deployment, "shop-gateway").unwrap().to_string();
    assert!(!template.contains("/etc/ringtail/otlp-"), "{template}");
    let service = scene.child(Kind::Service, "shop-agent").unwrap();
    assert_eq!(service["spec"]["ports"][0]["appProtocol"], "grpc");
}
