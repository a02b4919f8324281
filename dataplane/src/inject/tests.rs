//! Manifests before and after.

use super::*;

const PIPELINE: &str = include_str!("../../../examples/shop.yaml");
const WORKLOADS: &str = include_str!("tests/workloads.yaml");

fn pipeline(agent: &str) -> String {
    format!(
        "apiVersion: ringtail.dev/v1alpha1\nkind: TracePipeline\n\
         metadata: {{name: shop, namespace: tracing}}\nspec:\n\
         \x20 sampling: {{policies: [{{name: all, type: AlwaysSample}}]}}\n\
         \x20 exporters: [{{name: tempo, type: OTLP, otlp: {{endpoint: \"http://tempo:4317\"}}}}]\n\
         \x20 agent: {agent}\n"
    )
}

fn sidecar(pipeline: &str) -> Sidecar {
    Sidecar::new(pipeline, None).unwrap()
}

fn one(yaml: &str) -> Value {
    documents::split(yaml)
        .iter()
        .map(|document| document.value().unwrap())
        .find(|v| !v.is_null())
        .unwrap()
}

#[test]
fn a_file_of_workloads() {
    let injected = inject(WORKLOADS, &sidecar(&pipeline("{mode: Sidecar}"))).unwrap();
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("workloads", injected);
    });
}

#[test]
fn what_is_not_touched_means_the_same() {
    let sidecar = sidecar(&pipeline("{mode: Sidecar}"));
    let injected = inject(WORKLOADS, &sidecar).unwrap();
    let values = |text: &str| -> Vec<Value> {
        documents::split(text).iter().map(|document| document.value().unwrap()).collect()
    };
    for (before, mut after) in values(WORKLOADS).into_iter().zip(values(&injected)) {
        let place = match before["kind"].as_str() {
            Some("Deployment") => "/spec/template",
            Some("CronJob") => "/spec/jobTemplate/spec/template",
            Some("Pod") => "",
            _ => {
                assert_eq!(before, after);
                continue;
            }
        };
        let template = after.pointer_mut(place).unwrap();
        let annotation =
            template["metadata"]["annotations"].as_object_mut().unwrap().remove(ANNOTATION);
        assert_eq!(annotation, Some(sidecar.manifest.clone().into()));
        for list in ["initContainers", "volumes"] {
            let ours = |one: &Value| one["name"] == CONTAINER || one["name"] == VOLUME;
            let entries = template["spec"][list].as_array_mut().unwrap();
            assert_eq!(entries.iter().filter(|one| ours(one)).count(), 1);
            entries.retain(|one| !ours(one));
        }
        assert_eq!(without_empty(&after), without_empty(&before));
    }
}

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), without_empty(value)));
            let empty = |value: &Value| *value == json!({}) || *value == json!([]);
            Value::Object(kept.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

#[test]
fn numbers_and_words_are_read_as_kubernetes_reads_them() {
    let deployment =
        one(&inject(WORKLOADS, &sidecar(PIPELINE)).unwrap()[WORKLOADS.find("---").unwrap()..]);
    let spec = &deployment["spec"]["template"]["spec"];
    assert_eq!(spec["volumes"][0]["secret"]["defaultMode"], 0o440);
    let values = spec["containers"][0]["env"].as_array().unwrap().iter().map(|one| &one["value"]);
    let texts: Vec<_> = values.map(|value| value.as_str().unwrap()).collect();
    assert_eq!(texts, ["0440", "no", "", "~", "1e3", "12:30:45"]);
}

#[test]
fn twice_is_once_and_a_newer_pipeline_replaces_an_older_one() {
    let first = sidecar(&pipeline("{mode: Sidecar}"));
    let second = sidecar(&pipeline("{mode: Sidecar, batch: {maxSpans: 7}, image: 'ringtail:9'}"));
    let once = inject(WORKLOADS, &first).unwrap();
    assert_eq!(inject(&once, &first).unwrap(), once);
    let renewed = inject(&once, &second).unwrap();
    assert_eq!(renewed, inject(WORKLOADS, &second).unwrap());
    assert_ne!(renewed, once);
}

#[test]
fn settings_are_a_manifest_that_an_agent_can_read() {
    // The agent section, and whom the sidecar sends to.
    let cases = [
        ("{mode: Sidecar}", "shop-gateway.tracing.svc:4317"),
        ("{mode: None}", "shop-gateway.tracing.svc:4317"),
        ("{mode: DaemonSet}", "shop-agent.tracing.svc:4317"),
        ("{receivers: {otlp: {grpc: {port: 5317}}}}", "shop-agent.tracing.svc:5317"),
    ];
    for (agent, target) in cases {
        let valid = ringtail_crds::validate(&sidecar(&pipeline(agent)).manifest).unwrap();
        let wanted = ringtail_crds::validate(&pipeline(agent)).unwrap();
        assert_eq!(
            valid.resolver,
            ringtail_crds::resolved::Resolver::Static(vec![target.to_owned()])
        );
        assert_eq!((valid.batch, valid.receivers), (wanted.batch, wanted.receivers), "{agent}");
        assert_eq!(valid.hop_compression, wanted.hop_compression);
    }
    let collectors = "{mode: Sidecar}\n  gateway: {type: External}\n  \
                      routing: {resolver: {type: Static, static: {endpoints: ['a:4317', 'b:4317']}}}";
    let valid = ringtail_crds::validate(&sidecar(&pipeline(collectors)).manifest).unwrap();
    let both = vec!["a:4317".to_owned(), "b:4317".to_owned()];
    assert_eq!(valid.resolver, ringtail_crds::resolved::Resolver::Static(both));
}

#[test]
fn a_list_of_kubectl_is_taken_apart() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- kind: Service\n- kind: Pod\n  spec: {containers: []}\n";
    let injected = one(&inject(list, &sidecar(PIPELINE)).unwrap());
    assert_eq!(injected["items"][0], json!({"kind": "Service"}));
    assert_eq!(injected["items"][1]["spec"]["initContainers"][0]["name"], CONTAINER);
}

#[test]
fn what_cannot_be_done_is_told() {
    // A manifest, and what the message says.
    let cases = [
        ("kind: Pod\nmetadata: {name: a}", "Pod a: spec of the pod"),
        ("kind: Pod\nmetadata: {name: a}\nspec: {volumes: 1}", "Pod a: spec.volumes"),
        ("kind: Job\nmetadata: {name: a}\nspec: {}", "Job a: spec.template"),
        ("kind: Service\n---\nkind: {", "line 3"),
        (
            "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: b, ports: [{containerPort: 4318}]}]}",
            "Pod a: container b has port 4318",
        ),
        (
            "kind: Pod\nmetadata: {name: a}\n\
             spec: {initContainers: [{name: b, ports: [{containerPort: 8888}]}]}",
            "container b has port 8888",
        ),
    ];
    for (manifest, told) in cases {
        let error = inject(manifest, &sidecar(PIPELINE)).unwrap_err().to_string();
        assert!(error.contains(told), "{manifest:?}: {error}");
    }
    let error = Sidecar::new("kind: TracePipeline", None).unwrap_err();
    assert!(error.contains("spec"), "{error}");
}
