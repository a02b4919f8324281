//! What holds for whatever is built.

use proptest::prelude::*;
use ringtail_crds::{
    agent::AgentMode,
    gateway::{AntiAffinity, GatewayType, UpdateType},
    security::PeerTlsMode,
};

use super::*;

/// Words that mean something in a pod template, and one that does not.
const WORDS: [&str; 14] = [
    "metadata",
    "labels",
    "annotations",
    "spec",
    "containers",
    "initContainers",
    "volumes",
    "env",
    "name",
    "ringtail",
    "value",
    labels::PIPELINE,
    labels::CONFIG_HASH,
    "other",
];

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned)
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Overlays that reach where it matters, and some that are anything.
fn overlay() -> impl Strategy<Value = Value> {
    let shaped =
        (anything(), anything(), anything()).prop_map(|(labels, containers, container)| {
            json!({
                "metadata": {"labels": labels},
                "spec": {"containers": [containers, {"name": "ringtail", "env": container}]},
            })
        });
    prop_oneof![anything(), shaped]
}

fn scene() -> impl Strategy<Value = Scene> {
    let choices = (
        prop::sample::select(vec![AgentMode::DaemonSet, AgentMode::Sidecar, AgentMode::None]),
        prop::sample::select(vec![GatewayType::Managed, GatewayType::External]),
        prop::sample::select(vec![
            AntiAffinity::Required,
            AntiAffinity::Preferred,
            AntiAffinity::None,
        ]),
        prop::sample::select(vec![UpdateType::RollingUpdate, UpdateType::BlueGreen]),
        prop::sample::select(vec![PeerTlsMode::Managed, PeerTlsMode::Disabled]),
        any::<bool>(),
        1..=64_u32,
        prop::option::of(overlay()),
        0..3_usize,
    );
    choices.prop_map(
        |(mode, type_, anti, update, tls, host_port, replicas, overlay, generations)| {
            let mut scene = Scene::new(include_str!("pipelines/minimal.yaml"));
            let spec = &mut scene.pipeline.spec;
            spec.agent.mode = mode;
            spec.agent.receivers.host_port = host_port;
            spec.gateway.type_ = type_;
            spec.gateway.anti_affinity = anti;
            spec.gateway.update_strategy.type_ = update;
            spec.gateway.replicas = replicas;
            spec.security.peer_tls.mode = tls;
            for pod in [&mut spec.agent.pod, &mut spec.gateway.pod] {
                pod.pod_template = overlay.as_ref().and_then(Value::as_object).cloned();
            }
            for generation in 0..generations {
                scene.settings.image = format!("ringtail:0.{generation}.0");
                scene.settle();
            }
            scene
        },
    )
}

fn contains(all: &Value, some: &Value) -> bool {
    let has = |(key, value): (&String, &Value)| all.get(key) == Some(value);
    some.as_object().unwrap().iter().all(has)
}

fn check(scene: &Scene) {
    let children = scene.build();
    assert_eq!(scene.build(), children, "the same twice");
    assert_eq!(scene.clone().build(), children, "the same of a copy");
    let names: BTreeSet<_> = children.iter().map(|child| (child.kind, &child.name)).collect();
    assert_eq!(names.len(), children.len(), "no name twice");
    for Child { kind, name, manifest } in &children {
        let metadata = &manifest["metadata"];
        assert_eq!(
            (metadata["name"].as_str(), manifest["kind"].as_str()),
            (Some(&**name), Some(kind.name()))
        );
        assert_eq!(metadata["namespace"], "observability", "{kind} {name}");
        assert_eq!(metadata["ownerReferences"][0]["uid"], json!(scene.pipeline.metadata.uid));
        assert_eq!(metadata["ownerReferences"][0]["controller"], true, "{kind} {name}");
        for label in [labels::PIPELINE, labels::COMPONENT, labels::INSTANCE, labels::MANAGED_BY] {
            assert!(metadata["labels"][label].is_string(), "{kind} {name}: {label}");
        }
        if let Kind::Deployment | Kind::DaemonSet = kind {
            check_workload(&manifest["spec"]);
        }
    }
}

fn check_workload(spec: &Value) {
    let (template, selector) = (&spec["template"], &spec["selector"]["matchLabels"]);
    assert!(contains(&template["metadata"]["labels"], selector), "{selector} of {template}");
    let containers = template["spec"]["containers"].as_array().unwrap();
    let ours: Vec<_> = containers.iter().filter(|one| one["name"] == container::NAME).collect();
    assert_eq!(ours.len(), 1, "{template}");
    for variable in ["POD_NAME", "POD_NAMESPACE", "NODE_NAME", "POD_IP"] {
        let names = ours[0]["env"].as_array().unwrap().iter().map(|one| &one["name"]);
        assert_eq!(names.filter(|name| *name == variable).count(), 1, "{variable}");
    }
    let hash = template["metadata"]["annotations"][labels::CONFIG_HASH].as_str();
    assert_eq!(hash.map(str::len), Some(16), "{template}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn holds_for_every_pipeline(scene in scene()) {
        check(&scene);
    }

    #[test]
    fn services_and_budgets_select_gateways_of_every_colour(scene in scene()) {
        let children = scene.build();
        let templates = children.iter().filter(|child| child.kind == Kind::Deployment);
        let labels: Vec<_> =
            templates.map(|child| &child.manifest["spec"]["template"]["metadata"]["labels"]).collect();
        let selectors = children.iter().filter_map(|child| match child.kind {
            Kind::Service if child.name != "shop-agent" => Some(&child.manifest["spec"]["selector"]),
            Kind::PodDisruptionBudget => Some(&child.manifest["spec"]["selector"]["matchLabels"]),
            _ => None,
        });
        for selector in selectors {
            prop_assert!(labels.iter().all(|labels| contains(labels, selector)));
        }
    }
}
