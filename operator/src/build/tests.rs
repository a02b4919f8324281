//! What is built for a few pipelines, as files, and what holds for whatever is built.

use std::collections::BTreeSet;

use ringtail_crds::{TracePipeline, ValidPipeline};
use serde_json::{Value, json};

use super::*;
use crate::live::Workload;

mod exporters; //  what exporters need in a pod
mod guarded; //    what applications have to show
mod overlays; //   podTemplate over what the operator sets
mod properties; // what holds for whatever is built
mod restarts; //   which changes restart which pods

/// The seed of all of them.
const SEED_HASH: &str = "5eed5eed5eed5eed";

/// A pipeline and the world around it.
#[derive(Clone, Debug)]
struct Scene {
    pipeline: TracePipeline,
    valid: ValidPipeline,
    settings: Settings,
    live: Live,
}

// === impl Scene ===

impl Scene {
    fn new(yaml: &str) -> Self {
        let mut pipeline: TracePipeline = serde_saphyr::from_str(yaml).unwrap();
        pipeline.metadata.uid = Some("0b0e8d7e-6a0e-4c9c-9a57-7f1f2f3f4f5f".to_owned());
        let settings = Settings {
            image: "ringtail:0.1.0".to_owned(),
            image_pull_policy: None,
            version: "0.1.0".to_owned(),
            optional_kinds: Kind::ALL.into_iter().filter(|kind| kind.is_optional()).collect(),
            allow_unsafe_pod_template: false,
        };
        let live = Live { seed_hash: SEED_HASH.to_owned(), ..Live::default() };
        Self {
            valid: ringtail_crds::validate_pipeline(&pipeline).unwrap(),
            pipeline,
            settings,
            live,
        }
    }

    /// The pipeline with everything set, and `replacements` in its text.
    fn edited(replacements: &[(&str, &str)]) -> Self {
        let mut yaml = include_str!("tests/pipelines/everything.yaml").to_owned();
        for (from, to) in replacements {
            assert!(yaml.contains(from), "{from:?} is not in the pipeline");
            yaml = yaml.replacen(from, to, 1);
        }
        Self::new(&yaml)
    }

    fn build(&self) -> Vec<Child> {
        build(&Inputs {
            pipeline: &self.pipeline,
            valid: &self.valid,
            settings: &self.settings,
            live: &self.live,
        })
    }

    fn child(&self, kind: Kind, name: &str) -> Option<Value> {
        let found = self.build().into_iter().find(|child| child.kind == kind && child.name == name);
        found.map(|child| child.manifest)
    }

    /// What the cluster would have after it made all of this.
    fn settle(&mut self) {
        for child in self.build() {
            let replicas = child.manifest["spec"]["replicas"].as_i64().unwrap_or(5);
            let workload = running(&child.manifest, i32::try_from(replicas).unwrap());
            match child.kind {
                Kind::Deployment => {
                    self.live.deployments.insert(child.name, workload);
                }
                Kind::DaemonSet => self.live.daemon_set = Some(workload),
                _ => {}
            }
        }
    }
}

/// A workload with so many pods, all of them as it should be.
fn running(manifest: &Value, pods: i32) -> Workload {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Workload {
        config_hash: text(
            &manifest["spec"]["template"]["metadata"]["annotations"][labels::CONFIG_HASH],
        ),
        template_hash: text(&manifest["metadata"]["annotations"][labels::TEMPLATE_HASH]),
        template: manifest["spec"]["template"].clone(),
        colour: text(&manifest["metadata"]["labels"][labels::COLOUR]),
        desired: pods,
        present: pods,
        ready: pods,
        updated: pods,
        available: pods,
        observed: true,
        replicas_owner: None,
    }
}

/// The test and its file have the pipeline's name.
macro_rules! golden {
    ($($test:ident: $pipeline:literal)*) => {$(
        #[test]
        fn $test() {
            let yaml = include_str!(concat!("tests/pipelines/", $pipeline, ".yaml"));
            check_golden($pipeline, &Scene::new(yaml));
        }
    )*};
}

golden! {
    minimal: "minimal"
    everything: "everything"
    external: "external"
    no_agents: "no-agents"
    sidecar: "sidecar"
    open_peers: "open-peers"
    own_certificates: "own-certificates"
    host_port: "host-port"
    preferred: "preferred"
    unsafe_: "unsafe"
}

#[test]
fn blue_green_midway() {
    let mut scene = Scene::new(include_str!("tests/pipelines/blue-green.yaml"));
    scene.settle();
    scene.settings.image = "ringtail:0.2.0".to_owned();
    scene.settle();
    check_golden("blue-green", &scene);
}

fn check_golden(name: &str, scene: &Scene) {
    let children = scene.build();
    children.iter().for_each(check_types);
    let manifests: Vec<&Value> = children.iter().map(|child| &child.manifest).collect();
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_yaml_snapshot!(name, manifests);
    });
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_yaml_snapshot!(format!("{name}-endpoints"), endpoints(&scene.pipeline));
    });
}

/// Every field is one that Kubernetes knows, with a value of its type.
fn check_types(child: &Child) {
    use k8s_openapi::api;
    let manifest = &child.manifest;
    match child.kind {
        Kind::ServiceAccount => check_type::<api::core::v1::ServiceAccount>(manifest),
        Kind::Role => check_type::<api::rbac::v1::Role>(manifest),
        Kind::RoleBinding => check_type::<api::rbac::v1::RoleBinding>(manifest),
        Kind::Secret => check_type::<api::core::v1::Secret>(manifest),
        Kind::ConfigMap => check_type::<api::core::v1::ConfigMap>(manifest),
        Kind::Service => check_type::<api::core::v1::Service>(manifest),
        Kind::NetworkPolicy => check_type::<api::networking::v1::NetworkPolicy>(manifest),
        Kind::PodDisruptionBudget => check_type::<api::policy::v1::PodDisruptionBudget>(manifest),
        Kind::Deployment => check_type::<api::apps::v1::Deployment>(manifest),
        Kind::DaemonSet => check_type::<api::apps::v1::DaemonSet>(manifest),
        Kind::HorizontalPodAutoscaler => {
            check_type::<api::autoscaling::v2::HorizontalPodAutoscaler>(manifest);
        }
        // Kinds of the Prometheus operator, whose types we do not have.
        Kind::PodMonitor | Kind::PrometheusRule => {}
    }
}

fn check_type<K: serde::Serialize + serde::de::DeserializeOwned>(manifest: &Value) {
    let typed: K = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(&serde_json::to_value(typed).unwrap(), manifest);
}
