//! Nodes made of namespaces run real pods, and can be broken and mended.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use ringtail_cluster::{Cluster, Level, Options, PAUSE_IMAGE, Toolchain, require};
use ringtail_image::image::{self, Image};

/// The node monitor's grace of 15 s is the longest that anything here waits for; the rest is for a busy
/// machine.
const SOON: Duration = Duration::from_secs(120);

const PORT: u16 = 8080;

/// One pod a node, in the strictest class of pod security, behind a Service.
const ECHO: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: echo, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: echo
          image: IMAGE
          args: [serve, "8080"]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {selector: {app: echo}, ports: [{port: 8080}]}
"#;

#[tokio::test]
async fn three_nodes_run_pods_and_survive_faults() {
    let Some(toolchain) = require(Level::Nodes) else { return };
    let cluster = Cluster::start(Options::nodes(3)).await.expect("three Ready nodes");
    let client = cluster.client().await.unwrap();
    cluster.load_image(&echo_image(&cluster, &toolchain)).await.unwrap();
    cluster.kubectl_with(&["apply", "-f", "-"], &ECHO.replace("IMAGE", "echo:1")).await.unwrap();
    pods_ready(&client, 3).await;

    pods_are_reached(&cluster, &client).await;
    a_frozen_node_is_missed(&cluster, &client).await;
    a_dead_kubelet_leaves_pods_alone(&cluster, &client).await;
    a_node_comes_back_after_a_power_cut(&cluster, &client).await;
}

#[tokio::test]
async fn clusters_with_nodes_run_side_by_side_and_leave_nothing() {
    if require(Level::Nodes).is_none() {
        return;
    }
    let (one, two) =
        tokio::join!(Cluster::start(Options::nodes(1)), Cluster::start(Options::nodes(1)));
    let (one, mut two) = (one.expect("a cluster"), two.expect("a second cluster"));
    assert_ne!(one.nodes()[0].address(), two.nodes()[0].address());
    two.add_nodes(1).await.expect("a second node");
    let manifest = ECHO.replace("IMAGE", PAUSE_IMAGE);
    two.kubectl_with(&["apply", "-f", "-"], &manifest).await.unwrap();
    pods_ready(&two.client().await.unwrap(), 2).await;
    let folder = one.kubeconfig().parent().unwrap().to_owned();
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    // A test that fails in the middle leaves things as they are.
    one.nodes()[0].freeze().unwrap();
    one.api_server().freeze().unwrap();
    drop(one);
    assert!(!folder.exists(), "{} is left", folder.display());
    for left in [
        format!("/sys/class/net/{name}"),
        format!("/run/netns/{name}"),
        format!("/run/netns/{name}-n1"),
    ] {
        assert!(!std::path::Path::new(&left).exists(), "{left} is left");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
    two.kubectl(["get", "nodes"]).await.unwrap();
}

/// A scratch image under a name of its own.
fn echo_image(cluster: &Cluster, toolchain: &Toolchain) -> PathBuf {
    let binary = std::fs::read(toolchain.program("pause")).unwrap();
    let archive = cluster.logs().join("echo.tar");
    let out = std::fs::File::create(&archive).unwrap();
    image::write(&Image { name: "echo", tag: "1", binary: &binary }, out).unwrap();
    archive
}

/// From this machine and from a node, by a pod's address and by the Service's.
async fn pods_are_reached(cluster: &Cluster, client: &Client) {
    let service: Api<Service> = Api::namespaced(client.clone(), "shop");
    let service = service.get("echo").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let (name, status) = (pod.metadata.name.unwrap(), pod.status.unwrap());
        assert_eq!(ask(&status.pod_ip.unwrap()), name);
        let log = cluster.kubectl(["logs", "-n", "shop", &name]).await.unwrap();
        assert_eq!(log, "");
        let to = format!("echo.shop.svc:{PORT}");
        let answer = cluster
            .kubectl(["exec", "-n", "shop", &name, "--", "/echo", "ask", &to])
            .await
            .unwrap();
        assert!(answer.starts_with("echo-"), "{answer:?}");
    }
    eventually("an answer of the Service", async || ask(&service).starts_with("echo-")).await;
}

/// What the pod behind this address calls itself; empty when it cannot be reached.
fn ask(address: &str) -> String {
    let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), PORT);
    let mut answer = String::new();
    let reached = TcpStream::connect_timeout(&address, Duration::from_secs(5));
    let _ = reached.map(|mut stream| stream.read_to_string(&mut answer));
    answer.trim().to_owned()
}

async fn a_frozen_node_is_missed(cluster: &Cluster, client: &Client) {
    let node = &cluster.nodes()[0];
    node.freeze().unwrap();
    eventually("the node to be missed", async || !ready(client, node.name()).await).await;
    node.thaw().unwrap();
    eventually("the node's return", async || ready(client, node.name()).await).await;
}

async fn a_dead_kubelet_leaves_pods_alone(cluster: &Cluster, client: &Client) {
    let node = &cluster.nodes()[1];
    let before = restarts(client).await;
    node.kubelet().kill().unwrap();
    node.containerd().kill().unwrap();
    let pod = pod_on(client, node.name()).await;
    assert!(ask(&pod.status.unwrap().pod_ip.unwrap()).starts_with("echo-"));
    node.containerd().restart().unwrap();
    node.kubelet().restart().unwrap();
    pods_ready(client, 3).await;
    assert_eq!(restarts(client).await, before);
}

async fn a_node_comes_back_after_a_power_cut(cluster: &Cluster, client: &Client) {
    let node = &cluster.nodes()[2];
    let before = restarts(client).await;
    node.restart().await.unwrap();
    eventually("restarted pods", async || restarts(client).await > before).await;
    pods_ready(client, 3).await;
    let pod = pod_on(client, node.name()).await;
    let (name, address) = (pod.metadata.name.unwrap(), pod.status.unwrap().pod_ip.unwrap());
    eventually("an answer after the power cut", async || ask(&address) == name).await;
    assert_eq!(node.exec(["hostname"]).await.unwrap().trim(), node.name());
}

async fn ready(client: &Client, name: &str) -> bool {
    let node: Node = Api::all(client.clone()).get(name).await.unwrap();
    let conditions = node.status.unwrap().conditions.unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn pods_ready(client: &Client, count: usize) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    eventually("ready pods", async || {
        let list = pods.list(&ListParams::default()).await.unwrap();
        let all_ready = |pod: &&Pod| {
            let conditions =
                pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        list.iter().filter(all_ready).count() == count
    })
    .await;
}

async fn pod_on(client: &Client, node: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let there = ListParams::default().fields(&format!("spec.nodeName={node}"));
    pods.list(&there).await.unwrap().items.pop().expect("a pod on the node")
}

/// How often containers have been started again, over all pods.
async fn restarts(client: &Client) -> i32 {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let list = pods.list(&ListParams::default()).await.unwrap();
    let statuses = list.iter().flat_map(|pod| pod.status.iter());
    statuses
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|one| one.restart_count)
        .sum()
}

/// Waits for what the cluster comes to do.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
