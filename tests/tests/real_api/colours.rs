//! A second set of gateways takes over from the first under load, while traces are under way.

use std::sync::Arc;

use ringtail_cluster::{Level, require};
use ringtail_tests::backend::Backend;
use ringtail_tests::bench::{Bench, eventually};
use ringtail_tests::kubelet::{self, Kubelet};
use serde_json::json;

use crate::fleet;

const NAMESPACE: &str = "colours";
const GATEWAYS: usize = 3;
const AGENTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn green_gateways_take_over_from_blue_ones_with_every_trace_whole() {
    let network = fleet::has_network("green_gateways_take_over");
    if require(Level::ControlPlane).is_none() || !network {
        return;
    }
    let backend = Backend::start().await;
    let bench = Arc::new(Bench::start(fleet::options()).await);
    let operator = bench.operator(&[]).await;
    kubelet::register_nodes(&bench, AGENTS).await;
    bench.namespace(NAMESPACE).await;
    let mut pipeline = fleet::pipeline("all");
    pipeline["metadata"]["namespace"] = NAMESPACE.into();
    pipeline["spec"]["sampling"]["decisionWait"] = "8s".into();
    pipeline["spec"]["gateway"] = json!({"updateStrategy": {"type": "BlueGreen"}});
    bench.apply(&pipeline).await;
    let kubelet = Kubelet::start(&bench, NAMESPACE, &backend.address.to_string());
    kubelet.await_ring(AGENTS + GATEWAYS, GATEWAYS).await;
    let blue = names(&kubelet);

    let load = fleet::Load::start_halves(&kubelet);
    let change = json!({"spec": {"gateway": {"podAnnotations": {"example.com/change": "1"}}}});
    bench.change(NAMESPACE, &change).await;
    eventually("green gateways alone", async || {
        let now = names(&kubelet);
        now.len() == GATEWAYS && now.iter().all(|name| !blue.contains(name))
    })
    .await;
    kubelet.await_ring(AGENTS + GATEWAYS, GATEWAYS).await;
    bench.wait_for_reason(NAMESPACE, "Ready", "AllTiersReady").await;
    let sent = load.stop().await;

    fleet::nothing_is_lost(&kubelet, &backend, sent).await;
    for pod in kubelet.stop().await {
        pod.process.stop_balanced();
    }
    drop(operator);
}

fn names(kubelet: &Kubelet) -> Vec<String> {
    let identity = |pod: &Arc<kubelet::Pod>| pod.process.stats().identity;
    kubelet.pods("gateway").iter().map(identity).collect()
}
