//! What exporters need in a pod: the keys of Secrets, volumes for queues, the flags that name them.

use super::*;

const EXPORTERS: &str = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: shop, namespace: observability}
spec:
  sampling: {policies: [{name: all, type: AlwaysSample}]}
  exporters:
    - name: tempo
      type: OTLP
      otlp:
        endpoint: https://tempo:4317
        tls: {caRef: {name: tempo, key: root.pem}, clientCertificateRef: {name: tempo-client}}
        queue: {persistent: {sizeLimit: 1Gi}}
    - name: vendor
      type: OTLP
      otlp:
        endpoint: https://otlp.example.com
        protocol: HTTPProtobuf
        bearerTokenSecretRef: {name: vendor, key: token}
        headers: [{name: x-org, secretKeyRef: {name: tempo, key: org}}]
        queue: {persistent: {sizeLimit: 16Mi, storageClassName: fast}}
    - {name: print, type: Debug, debug: {}}
"#;

fn gateway(yaml: &str) -> Value {
    let children = Scene::new(yaml).build();
    let deployment = children.iter().find(|child| child.kind == Kind::Deployment).unwrap();
    deployment.manifest["spec"]["template"]["spec"].clone()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap()
}

#[test]
fn every_key_that_an_exporter_names_is_a_file() {
    let pod = gateway(EXPORTERS);
    let sources = &named(&pod["volumes"], "ringtail-secrets")["projected"]["sources"];
    let keys = |secret: &str, keys: &[&str]| {
        let item = |key: &&str| json!({"key": key, "path": format!("{secret}/{key}")});
        let items: Vec<Value> = keys.iter().map(item).collect();
        json!({"secret": {"name": secret, "items": items}})
    };
    let expected = [
        keys("tempo", &["org", "root.pem"]),
        keys("tempo-client", &["tls.crt", "tls.key"]),
        keys("vendor", &["token"]),
    ];
    assert_eq!(*sources, json!(expected));
}

#[test]
fn every_queue_on_disk_has_a_volume_of_its_own() {
    let pod = gateway(EXPORTERS);
    let container = &pod["containers"][0];
    let flags = container["args"].as_array().unwrap();
    assert!(flags.windows(2).any(|pair| pair == [json!("--data-dir"), json!("/var/lib/ringtail")]));
    // An eighth more, and 16 MiB.
    let bytes = ((1_u64 << 30) / 8 * 9 + (16 << 20)).to_string();
    assert_eq!(
        *named(&pod["volumes"], "ringtail-queue-0"),
        json!({"name": "ringtail-queue-0", "emptyDir": {"sizeLimit": bytes}})
    );
    let claim = &named(&pod["volumes"], "ringtail-queue-1")["ephemeral"]["volumeClaimTemplate"];
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    for (index, exporter) in ["tempo", "vendor"].iter().enumerate() {
        let mount = named(&container["volumeMounts"], &format!("ringtail-queue-{index}"));
        assert_eq!(mount["mountPath"], format!("/var/lib/ringtail/{exporter}"));
        assert_eq!(mount["readOnly"], Value::Null);
    }
    // Without a queue on disk there is nothing of it.
    let plain = EXPORTERS
        .replace("persistent: {sizeLimit: 1Gi}", "maxBytes: 1Mi")
        .replace("persistent: {sizeLimit: 16Mi, storageClassName: fast}", "maxBytes: 1Mi");
    let text = gateway(&plain).to_string();
    assert!(!text.contains("ringtail-queue") && !text.contains("data-dir"), "{text}");
}
