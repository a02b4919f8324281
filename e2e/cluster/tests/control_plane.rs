//! A control plane on loopback does what tests need of it: identities, rules, garbage, faults, and no
//! traces left.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use ringtail_cluster::{Cluster, Level, Options, require};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

async fn start() -> Option<Cluster> {
    require(Level::ControlPlane)?;
    Some(Cluster::start(Options::control_plane()).await.expect("a cluster"))
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    }
}

/// Waits for what the API server comes to say.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_service_account_may_what_it_was_granted_and_the_audit_log_tells() {
    let Some(cluster) = start().await else { return };
    cluster.kubectl(["create", "serviceaccount", "reader"]).await.unwrap();
    let role = ["create", "role", "reader", "--verb=list", "--resource=configmaps"];
    cluster.kubectl(role).await.unwrap();
    let binding =
        ["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"];
    cluster.kubectl(binding).await.unwrap();
    let reader = cluster.client_for_service_account("default", "reader").await.unwrap();
    let mut audit = cluster.audit();
    audit.skip().unwrap();

    let maps: Api<ConfigMap> = Api::default_namespaced(reader);
    eventually("the grant", async || maps.list(&ListParams::default()).await.is_ok()).await;
    let refused = maps.create(&PostParams::default(), &config_map("mine")).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403));

    let mut seen = Vec::new();
    eventually("the audit events", async || {
        let events = audit.events().unwrap();
        seen.extend(
            events.into_iter().filter(|event| event.user == "system:serviceaccount:default:reader"),
        );
        seen.iter().any(|event| event.verb == "create")
    })
    .await;
    let told: Vec<_> =
        seen.iter().map(|e| (e.verb.as_str(), e.resource.as_str(), e.code)).collect();
    assert!(told.contains(&("list", "configmaps", 200)), "{told:?}");
    assert!(told.contains(&("create", "configmaps", 403)), "{told:?}");
}

#[tokio::test]
async fn garbage_is_collected_and_faults_are_survived() {
    let Some(cluster) = start().await else { return };
    let client = cluster.client().await.unwrap();
    garbage(&client).await;
    faults(&cluster, &client).await;
}

/// A child goes when its owner goes.
async fn garbage(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let owner = maps.create(&PostParams::default(), &config_map("owner")).await.unwrap();
    let child = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "child", "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
        }]},
    });
    maps.create(&PostParams::default(), &serde_json::from_value(child).unwrap()).await.unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    eventually("the child's end", async || maps.get_opt("child").await.unwrap().is_none()).await;
}

/// A frozen API server answers nobody, a killed one refuses; afterwards everything is as before.
async fn faults(cluster: &Cluster, client: &Client) {
    let spaces: Api<Namespace> = Api::all(client.clone());
    cluster.api_server().freeze().unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(2), spaces.get("default")).await;
    assert!(asked.is_err(), "a frozen API server answered: {asked:?}");
    cluster.api_server().thaw().unwrap();
    cluster.wait_until_ready(SOON).await.unwrap();
    spaces.get("default").await.unwrap();

    cluster.kubectl(["create", "configmap", "kept"]).await.unwrap();
    cluster.api_server().kill().unwrap();
    assert!(spaces.get("default").await.is_err(), "a dead API server answered");
    cluster.etcd().restart().unwrap();
    cluster.api_server().restart().unwrap();
    cluster.wait_until_ready(SOON).await.unwrap();
    cluster.kubectl(["get", "configmap", "kept"]).await.unwrap();
}

#[tokio::test]
async fn a_compaction_ends_what_goes_on_from_before() {
    if require(Level::ControlPlane).is_none() {
        return;
    }
    let options = Options::control_plane().api_server_flag("--watch-cache=false");
    let cluster = Cluster::start(options).await.expect("a cluster");
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await.unwrap());
    let first = maps.create(&PostParams::default(), &config_map("first")).await.unwrap();
    let version = first.metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &config_map("second")).await.unwrap();
    let watch = async || {
        let mut events = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        events.next().await.expect("an event")
    };
    assert!(matches!(watch().await, Ok(WatchEvent::Added(map)) if map.name_any() == "second"));
    cluster.compact().await.unwrap();
    let expired = watch().await;
    assert!(matches!(&expired, Ok(WatchEvent::Error(status)) if status.code == 410), "{expired:?}");
}

#[tokio::test]
async fn two_clusters_know_nothing_of_each_other_and_leave_nothing() {
    let Some(one) = start().await else { return };
    let two = Cluster::start(Options::control_plane()).await.unwrap();
    one.kubectl(["create", "namespace", "shop"]).await.unwrap();
    let releases = one.helm(["list", "--all-namespaces", "--output", "json"]).await.unwrap();
    assert_eq!(releases.trim(), "[]");
    let other = two.kubectl(["get", "namespaces", "-o", "name"]).await.unwrap();
    assert!(!other.contains("shop"), "{other}");
    let (logs, pid) = (one.logs(), one.api_server().pid().unwrap());
    drop(one);
    assert!(!logs.exists(), "{} is left", logs.display());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
    two.kubectl(["get", "namespaces"]).await.unwrap();
}
