//! Which changes restart which pods.

use super::*;

const AGENTS: (Kind, &str) = (Kind::DaemonSet, "shop-agent");
const GATEWAYS: (Kind, &str) = (Kind::Deployment, "shop-gateway");

fn template(scene: &Scene, (kind, name): (Kind, &str)) -> Value {
    scene.child(kind, name).unwrap()["spec"]["template"].clone()
}

#[test]
fn only_what_pods_read_at_their_start_restarts_them() {
    // What is replaced, by what, and whether agents and gateways restart.
    let edits = [
        ("statusCodes: [Error]", "statusCodes: [Ok]", false, false),
        ("  sampling:\n", "  sampling:\n    decisionWait: 31s\n", false, false),
        ("replicas: 4", "replicas: 5", false, false),
        ("maxReplicas: 12", "maxReplicas: 13", false, false),
        ("targetCPUUtilizationPercentage: 70", "targetCPUUtilizationPercentage: 71", false, false),
        ("maxUnavailable: 25%", "maxUnavailable: 1", false, false),
        ("http://tempo:4317", "http://tempo:4318", false, true),
        ("key: token", "key: other", false, true),
        ("  agent:\n", "  agent:\n    batch: {maxSpans: 1}\n", true, false),
        ("  agent:\n", "  agent:\n    receivers: {otlp: {grpc: {port: 5317}}}\n", true, false),
        (
            "  agent:\n",
            "  agent:\n    receivers: {otlp: {tls: {certificateRef: {name: a}}}}\n",
            true,
            true,
        ),
        (
            "  agent:\n",
            "  agent:\n    receivers: {otlp: {bearerTokenSecretRef: {name: a, key: b}}}\n",
            true,
            true,
        ),
        ("ringtail:0.2.0", "ringtail:0.2.1", true, false),
        ("value: trace", "value: info", true, false),
        ("example.com/mesh: disabled", "example.com/mesh: enabled", true, false),
        ("terminationGracePeriodSeconds: 90", "terminationGracePeriodSeconds: 91", true, false),
        ("  agent:\n", "  security: {peerTLS: {mode: Disabled}}\n  agent:\n", true, true),
    ];
    let before = Scene::edited(&[]);
    for (from, to, agents, gateways) in edits {
        let after = Scene::edited(&[(from, to)]);
        let restarts = |tier| template(&before, tier) != template(&after, tier);
        assert_eq!((restarts(AGENTS), restarts(GATEWAYS)), (agents, gateways), "{to:?}");
        assert!(before.build() != after.build(), "{to:?}");
    }
}

#[test]
fn a_pause_changes_nothing() {
    let paused = Scene::edited(&[("  sampling:\n", "  paused: true\n  sampling:\n")]);
    assert!(paused.pipeline.spec.paused && paused.build() == Scene::edited(&[]).build());
}

#[test]
fn another_seed_restarts_everybody() {
    let before = Scene::edited(&[]);
    let mut after = before.clone();
    after.live.seed_hash = "07e507e507e507e5".to_owned();
    for tier in [AGENTS, GATEWAYS] {
        assert_ne!(template(&before, tier), template(&after, tier));
    }
}

#[test]
fn a_pipeline_that_is_scaled_has_its_new_replicas_at_once() {
    let mut scene = Scene::edited(&[]);
    scene.settle();
    scene.pipeline.spec.gateway.replicas = 9;
    assert_eq!(scene.child(GATEWAYS.0, GATEWAYS.1).unwrap()["spec"]["replicas"], 9);
}

#[test]
fn agents_wait_until_the_gateways_are_done() {
    let mut scene = Scene::new(include_str!("pipelines/minimal.yaml"));
    let strategy = |scene: &Scene| {
        scene.child(AGENTS.0, AGENTS.1).unwrap()["spec"]["updateStrategy"]["type"].clone()
    };
    assert_eq!(strategy(&scene), "RollingUpdate", "a new fleet");
    scene.settle();
    assert_eq!(strategy(&scene), "RollingUpdate", "nothing to do");
    let agents = scene.live.daemon_set.clone();
    scene.settings.image = "ringtail:0.2.0".to_owned();
    assert_eq!(strategy(&scene), "OnDelete", "both tiers change");
    scene.settle();
    scene.live.daemon_set = agents;
    scene.live.deployments.get_mut("shop-gateway").unwrap().updated = 2;
    assert_eq!(strategy(&scene), "OnDelete", "one gateway is old");
    scene.live.deployments.get_mut("shop-gateway").unwrap().updated = 3;
    assert_eq!(strategy(&scene), "RollingUpdate", "it is the agents' turn");
    let agents = scene.live.daemon_set.as_mut().unwrap();
    (agents.updated, agents.ready) = (1, 4);
    assert_eq!(strategy(&scene), "RollingUpdate", "agents are replaced");
    scene.pipeline.spec.gateway.pod.image = Some("ringtail:0.3.0".to_owned());
    assert_eq!(strategy(&scene), "OnDelete", "gateways change meanwhile");
    scene.pipeline.spec.gateway.pod.image = None;
    scene.live.deployments.get_mut("shop-gateway").unwrap().ready = 0;
    assert_eq!(
        strategy(&scene),
        "RollingUpdate",
        "gateways are not ready, for reasons of their own"
    );
}
