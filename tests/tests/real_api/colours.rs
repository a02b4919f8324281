//! A second set of gateways takes over from the first under load, while traces are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail::stats;
use ringtail_cluster::{Level, require};
use ringtail_tests::backend::Backend;
use ringtail_tests::bench::{Bench, eventually};
use ringtail_tests::kubelet::{self, Kubelet};
use ringtail_tests::traces::Trace;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::fleet;

const NAMESPACE: &str = "colours";
const GATEWAYS: usize = 3;
const AGENTS: usize = 4;
/// Traces between the first half of a trace and the second: 4 s of the wait of 8 s, by another agent.
const APART: u64 = 100;
/// Between two traces.
const PAUSE: Duration = Duration::from_millis(40);

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

    let load = Load::start(&kubelet);
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

    eventually(&format!("{sent} traces at the backend"), async || {
        backend.traces().len() as u64 >= sent && backend.spans() as u64 >= sent * u64::from(SPANS)
    })
    .await;
    let traces = backend.traces();
    let torn = traces.values().filter(|spans| spans.len() != SPANS as usize).count();
    println!("{sent} traces of {SPANS} spans in two halves; {torn} not whole, or doubled");
    assert_eq!((traces.len() as u64, torn), (sent, 0));
    for pod in kubelet.all() {
        let ledger = pod.process.stats().ledger;
        assert_eq!(stats::total(&ledger.dropped), 0, "{ledger:#?}");
    }
    for pod in kubelet.stop().await {
        pod.process.stop_balanced();
    }
    drop(operator);
}

fn names(kubelet: &Kubelet) -> Vec<String> {
    let identity = |pod: &Arc<kubelet::Pod>| pod.process.stats().identity;
    kubelet.pods("gateway").iter().map(identity).collect()
}

/// Spans of a trace.
const SPANS: u32 = 4;

/// Traces in two halves, which go to different agents.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Load {
    fn start(kubelet: &Kubelet) -> Self {
        let agents: Vec<String> =
            kubelet.pods("agent").iter().map(|pod| pod.process.grpc()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut senders = Vec::new();
            for agent in agents {
                senders.push(TraceServiceClient::connect(format!("http://{agent}")).await.unwrap());
            }
            let (mut begun, mut ended) = (0, 0);
            while ended < begun || !stopped.load(SeqCst) {
                let mut send = async |number: u64, half| {
                    let trace = Trace { number, spans: SPANS, error: false, duration_ms: 20 };
                    let turn = usize::try_from(number + u64::from(half)).unwrap() % senders.len();
                    senders[turn].export(trace.part(half, 2)).await.expect("spans are taken");
                };
                let more = !stopped.load(SeqCst);
                if more {
                    send(begun, 0).await;
                    begun += 1;
                }
                if ended + APART < begun || !more {
                    send(ended, 1).await;
                    ended += 1;
                }
                tokio::time::sleep(PAUSE).await;
            }
            begun
        });
        Self { stop, task }
    }

    /// Ends it when every trace has both halves; returns how many there are.
    async fn stop(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap()
    }
}
