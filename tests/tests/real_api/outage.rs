//! An API server that cuts watches, forgets, refuses, and is away for a minute, as a real operator and real
//! agents and gateways live through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::DeleteParams;
use ringtail_cluster::{Audit, AuditEvent, Level, require};
use ringtail_operator::kind::Kind;
use ringtail_tests::backend::Backend;
use ringtail_tests::bench::{Bench, Operator, SYSTEM, eventually, most_in_a_second};
use ringtail_tests::kubelet::{self, Kubelet};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fleet::{Load, NAMESPACE, has_network, nothing_is_lost, options, pipeline};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// Cuts of all watches, and the time between two of them.
const CUTS: u32 = 5;
const CUT_EVERY: Duration = Duration::from_secs(3);
/// How long it refuses everything: longer than a few attempts, shorter than the operator's lease.
const REFUSED: Duration = Duration::from_secs(5);
/// In one second, of one operator: it lists and watches 15 kinds when it begins, which makes 30 requests, and
/// a reconcile of one pipeline makes some 20.
const OPERATOR_REQUESTS_MAX: usize = 120;
/// Writes in one second: all children of the pipeline, its status twice, and their events.
const WRITES_MAX: usize = 40;
/// What allocators and connections may take beside what is kept.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_in_trouble_is_outlived_by_all() {
    if require(Level::ControlPlane).is_none() || !has_network("an_api_server_in_trouble") {
        return;
    }
    let backend = Backend::start().await;
    // Every watch is answered by etcd, so that what etcd forgets is gone.
    let bench = Arc::new(Bench::start(options().api_server_flag("--watch-cache=false")).await);
    let mut scene = Scene::open(&bench, &backend).await;
    let load = Load::start(&scene.kubelet);
    let resident = scene.resident();

    scene.cut().await;
    scene.refuse().await;
    scene.leave().await;

    let sent = load.stop().await;
    nothing_is_lost(&scene.kubelet, &backend, sent).await;
    println!("{sent} traces meanwhile, all of them at the backend");
    scene.has_not_grown(&resident);
    for pod in scene.kubelet.stop().await {
        pod.process.stop_balanced();
    }
    drop(scene.operator);
}

struct Scene {
    bench: Arc<Bench>,
    kubelet: Kubelet,
    operator: Operator,
    audit: Audit,
    digest: String,
    waits: u32,
}

impl Scene {
    async fn open(bench: &Arc<Bench>, backend: &Backend) -> Self {
        let operator = bench.operator(&[]).await;
        kubelet::register_nodes(bench, 3).await;
        bench.namespace(NAMESPACE).await;
        bench.apply(&pipeline("all")).await;
        let kubelet = Kubelet::start(bench, NAMESPACE, &backend.address.to_string());
        bench.wait_for_reason(NAMESPACE, "Ready", "AllTiersReady").await;
        let digest = kubelet.await_ring(6, 3).await;
        let mut audit = bench.cluster.audit();
        audit.skip().unwrap();
        Self { bench: Arc::clone(bench), kubelet, operator, audit, digest, waits: 0 }
    }

    /// All watches end every few seconds, and what was between them is forgotten.
    async fn cut(&mut self) {
        for _ in 0..CUTS {
            self.bench.cluster.compact().await.unwrap();
            self.operator.wire.cut();
            self.kubelet.all().iter().for_each(|pod| pod.wire.cut());
            tokio::time::sleep(CUT_EVERY).await;
            self.keeps_its_view();
        }
        let forgotten = self
            .operator
            .log()
            .matches("The resourceVersion for the provided watch is too old")
            .count();
        println!("{forgotten} watches of the operator were answered 410");
        assert!(forgotten > 0, "nothing was forgotten");
        self.converges().await;
        let events = self.audit.events().unwrap();
        self.count("watches cut and history forgotten", &events);
    }

    /// 429 to everything that operator, agents and gateways ask.
    async fn refuse(&mut self) {
        for object in refusal() {
            self.bench.apply(&object).await;
        }
        let mut refused = BTreeSet::new();
        let mut events = Vec::new();
        // The level has one seat. While etcd stands still, whoever has it keeps it, and all others get 429.
        eventually("operator, agents and gateways are refused", async || {
            self.bench.cluster.etcd().freeze().unwrap();
            self.operator.wire.cut();
            self.kubelet.all().iter().for_each(|pod| pod.wire.cut());
            tokio::time::sleep(REFUSED).await;
            self.keeps_its_view();
            self.bench.cluster.etcd().thaw().unwrap();
            let new = self.audit.events().unwrap();
            let with_429 = new.iter().filter(|event| event.code == 429);
            refused.extend(with_429.map(|event| event.user.clone()));
            events.extend(new);
            refused.len() == 3
        })
        .await;
        for object in refusal().iter().rev() {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            self.bench.kubectl(&format!("delete {kind} refusal")).await;
        }
        // Refused for longer than it may lead, it ends.
        if self.operator.has_ended() {
            self.operator.restart();
        }
        self.converges().await;
        events.extend(self.audit.events().unwrap());
        self.count("everything refused", &events);
    }

    /// It is away for a minute. The operator ends, since it cannot renew its Lease, and is started again.
    async fn leave(&mut self) {
        self.bench.cluster.api_server().kill().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < AWAY {
            if self.operator.has_ended() {
                self.operator.restart();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.keeps_its_view();
        }
        self.bench.cluster.api_server().restart().unwrap();
        self.bench.cluster.wait_until_ready(AWAY).await.unwrap();
        let back = Instant::now();
        self.converges().await;
        println!("converged {:.1} s after it was back", back.elapsed().as_secs_f64());
        let events = self.audit.events().unwrap();
        self.count("away for a minute", &events);
    }

    fn keeps_its_view(&self) {
        for pod in self.kubelet.all() {
            let ring = pod.process.stats().ring;
            assert_eq!((ring.members.len(), &ring.digest), (3, &self.digest));
        }
    }

    /// A child that was deleted is back, and a new policy is with every process.
    async fn converges(&mut self) {
        let services = self.bench.children(Kind::Service, NAMESPACE);
        services.delete("shop-agent", &DeleteParams::default()).await.unwrap();
        self.waits += 1;
        let wait = format!("{}ms", 1_000 + self.waits);
        let sampling = json!({"sampling": {"decisionWait": wait}});
        self.bench.change(NAMESPACE, &json!({"spec": sampling})).await;
        if self.operator.has_ended() {
            self.operator.restart();
        }
        eventually("the Service", async || services.get_opt("shop-agent").await.unwrap().is_some())
            .await;
        let config = self.bench.children(Kind::ConfigMap, NAMESPACE);
        eventually("the policy in every process", async || {
            let config = config.get("shop-pipeline").await.unwrap();
            let text = config.data["data"]["pipeline.yaml"].as_str().unwrap().to_owned();
            let hash = ringtail::config::hash(&text);
            let pods = self.kubelet.all();
            text.contains(&wait) && pods.iter().all(|pod| pod.process.stats().config.hash == hash)
        })
        .await;
        self.keeps_its_view();
    }

    /// Says and bounds what everybody asked, by the audit log.
    fn count(&self, what: &str, events: &[AuditEvent]) {
        let mut accounts: BTreeMap<&str, Vec<&AuditEvent>> = BTreeMap::new();
        for event in events.iter().filter(|event| event.resource != "leases") {
            let Some(account) = event.user.strip_prefix("system:serviceaccount:") else { continue };
            accounts.entry(account).or_default().push(event);
        }
        for (account, events) in accounts {
            let refused = events.iter().filter(|event| event.code == 429).count();
            let lists = events.iter().filter(|event| event.verb == "list").count();
            let most = most_in_a_second(events.iter().copied());
            let writes = most_in_a_second(events.iter().copied().filter(|event| event.is_write()));
            println!(
                "{what}: {account} asked {} times, {most} in a second at most, {writes} of them writes; \
                 {lists} lists, {refused} times refused",
                events.len()
            );
            assert!(writes <= WRITES_MAX, "{account}");
            assert!(most <= OPERATOR_REQUESTS_MAX, "{account}");
        }
    }

    fn resident(&self) -> BTreeMap<String, u64> {
        let pods = self.kubelet.all();
        let mut resident: BTreeMap<String, u64> = pods
            .iter()
            .map(|pod| (pod.process.stats().identity, pod.process.resident_bytes()))
            .collect();
        resident.insert(SYSTEM.to_owned(), self.operator.resident_bytes());
        resident
    }

    fn has_not_grown(&self, before: &BTreeMap<String, u64>) {
        for (who, now) in self.resident() {
            let before = before[&who];
            println!("{who}: {} MiB have become {} MiB", before >> 20, now >> 20);
            assert!(now < before + GROWTH_BYTES_MAX, "{who}");
        }
    }
}

/// A level with a single seat and no queue, and everybody on it.
fn refusal() -> [Value; 2] {
    let api = "flowcontrol.apiserver.k8s.io/v1";
    let limited = json!({
        "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    });
    let groups = [SYSTEM, NAMESPACE].map(|namespace| {
        json!({"kind": "Group", "group": {"name": format!("system:serviceaccounts:{namespace}")}})
    });
    let resources = json!({
        "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
    });
    [
        json!({
            "apiVersion": api, "kind": "PriorityLevelConfiguration", "metadata": {"name": "refusal"},
            "spec": {"type": "Limited", "limited": limited},
        }),
        json!({
            "apiVersion": api, "kind": "FlowSchema", "metadata": {"name": "refusal"},
            "spec": {
                "priorityLevelConfiguration": {"name": "refusal"}, "matchingPrecedence": 2,
                "rules": [{"subjects": groups, "resourceRules": [resources]}],
            },
        }),
    ]
}
