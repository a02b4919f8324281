//! The operator as a process against a real API server, with no more rights than its table says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop where it cannot go on"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use clap::Parser;
use futures::{
    StreamExt,
    future::{self, Either, Ready},
};
use http::Request;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use ringtail_cluster::{Audit, AuditEvent, Cluster, Level, Options, require};
use ringtail_operator::{
    cli::Cli,
    gate::Gate,
    kind::Kind,
    lease::Leadership,
    metrics::Metrics,
    rbac::{Place, TABLE},
    runtime::{self, Clients},
    stats::poll,
};
use ringtail_tests::process::operator_binary;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tower::{BoxError, Service, layer::layer_fn};

const SYSTEM: &str = "ringtail-system";
const SOON: Duration = Duration::from_secs(60);

// === The cluster and the operators in it ===

struct Bench {
    cluster: Cluster,
    client: Client,
}

/// A running operator; it is killed when it is dropped.
struct Operator {
    child: Child,
    log: PathBuf,
    config: PathBuf,
    account: String,
}

impl Bench {
    async fn start() -> Option<Self> {
        require(Level::ControlPlane)?;
        let cluster = Cluster::start(Options::control_plane()).await.expect("a cluster");
        let client = cluster.client().await.unwrap();
        let bench = Self { cluster, client };
        let definition = ringtail_crds::schema::definition();
        bench.apply(&serde_json::to_value(definition).unwrap()).await;
        let established =
            ["wait", "--for=condition=Established", "crd/tracepipelines.ringtail.dev"];
        // kubectl does not wait for an object that has no conditions at all yet.
        eventually("the definition", async || bench.cluster.kubectl(established).await.is_ok())
            .await;
        bench
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}))
            .await;
        Some(bench)
    }

    async fn apply(&self, manifest: &Value) {
        let told = self.cluster.kubectl_with(&["apply", "-f", "-"], &manifest.to_string()).await;
        told.unwrap_or_else(|error| panic!("{error}: {manifest:#}"));
    }

    /// An account with what the table says, in the whole cluster or in one namespace.
    async fn account(&self, name: &str, namespace: Option<&str>) {
        let role_namespace = namespace.unwrap_or_default();
        let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
        let rules = |places: &[Place]| -> Vec<Value> {
            let rules = TABLE.iter().filter(|rule| places.contains(&rule.place));
            rules
                .map(|r| json!({"apiGroups": [r.group], "resources": [r.resource], "verbs": r.verbs}))
                .collect()
        };
        let api = "rbac.authorization.k8s.io/v1";
        let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}]);
        let meta = json!({"name": name, "namespace": SYSTEM});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta});
        self.apply(&account).await;
        for (kind, name, namespace, places) in [
            (kind, name.to_owned(), role_namespace, &[Place::Watched, Place::Granted][..]),
            ("Role", format!("{name}-lease"), SYSTEM, &[Place::Lease][..]),
        ] {
            let meta = json!({"name": name, "namespace": namespace});
            self.apply(
                &json!({"apiVersion": api, "kind": kind, "metadata": meta, "rules": rules(places)}),
            )
            .await;
            self.apply(&json!({
                "apiVersion": api, "kind": format!("{kind}Binding"), "metadata": meta, "subjects": subjects,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            }))
            .await;
        }
    }

    async fn operator(&self, account: &str, flags: &[&str]) -> Operator {
        let config = self.cluster.kubeconfig_for_service_account(SYSTEM, account).await.unwrap();
        self.operator_with(account, config, flags)
    }

    fn operator_with(&self, account: &str, config: PathBuf, flags: &[&str]) -> Operator {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let log = self.cluster.logs().join(format!("{account}-{number}.log"));
        let child = Command::new(operator_binary())
            .args(["--data-plane-image=ringtail:test", "--admin=127.0.0.1:0"])
            .arg(format!("--leader-election-namespace={SYSTEM}"))
            .arg(format!("--identity={account}"))
            .args(flags)
            .env("KUBECONFIG", &config)
            .env("RINGTAIL_LOG", "info,kube=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let account = format!("system:serviceaccount:{SYSTEM}:{account}");
        Operator { child, log, config, account }
    }

    async fn wait_for_holder(&self, identity: &str) {
        let lease = ["get", "lease", "ringtail-operator", "--namespace", SYSTEM];
        let holder =
            lease.iter().chain(&["-o", "jsonpath={.spec.holderIdentity} {.spec.renewTime}"]);
        let holder: Vec<_> = holder.copied().collect();
        let before = self.cluster.kubectl(&holder).await.unwrap();
        eventually(&format!("{identity} leads"), async || {
            let now = self.cluster.kubectl(&holder).await.unwrap();
            now != before && now.starts_with(identity)
        })
        .await;
    }

    async fn namespace(&self, name: &str) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await;
    }

    fn pipelines(&self, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("ringtail.dev", "v1alpha1", "TracePipeline");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "tracepipelines");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    fn children(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    async fn child(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let found = self.children(kind, namespace).get_opt(name).await.unwrap();
        found.map(|found| serde_json::to_value(found).unwrap())
    }

    async fn change(&self, namespace: &str, patch: Value) {
        let params = PatchParams::default();
        self.pipelines(namespace).patch("shop", &params, &Patch::Merge(&patch)).await.unwrap();
    }

    /// `Kind/name` of everything of a pipeline.
    async fn names(&self, namespace: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_optional()) {
            let params =
                ListParams::default().labels("app.kubernetes.io/managed-by=ringtail-operator");
            let found = self.children(kind, namespace).list(&params).await.unwrap();
            names.extend(found.iter().map(|child| format!("{kind}/{}", child.name_any())));
        }
        names
    }

    async fn condition(&self, namespace: &str, type_: &str) -> Value {
        let shop = self.pipelines(namespace).get("shop").await.unwrap();
        let conditions = shop.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    }

    async fn wait_for_condition(&self, namespace: &str, type_: &str, reason: &str) {
        let what = format!("{type_} with reason {reason}");
        eventually(&what, async || self.condition(namespace, type_).await["reason"] == reason)
            .await;
    }

    /// Until nothing is written for longer than it takes to ask gateways for their statistics once more.
    async fn settle(&self, audit: &mut Audit, operator: &Operator) -> Vec<AuditEvent> {
        let mut all = Vec::new();
        loop {
            tokio::time::sleep(poll::INTERVAL + Duration::from_secs(5)).await;
            let events = operator.requests(audit);
            let quiet = !events.iter().any(is_write);
            all.extend(events);
            if quiet {
                return all;
            }
        }
    }
}

impl Operator {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    }

    fn requests(&self, audit: &mut Audit) -> Vec<AuditEvent> {
        let events = audit.events().unwrap();
        events.into_iter().filter(|event| event.user == self.account).collect()
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the operator's end", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.account, self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Lease is renewed for as long as an operator leads.
fn is_write(event: &AuditEvent) -> bool {
    event.is_write() && event.resource != "leases"
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn pipeline(namespace: &str) -> Value {
    json!({
        "apiVersion": "ringtail.dev/v1alpha1",
        "kind": "TracePipeline",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {
            "sampling": {"policies": [{
                "name": "errors", "type": "StatusCode", "statusCode": {"statusCodes": ["Error"]},
            }]},
            "exporters": [{"name": "tempo", "type": "OTLP", "otlp": {"endpoint": "http://tempo:4317"}}],
            "gateway": {"resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}},
        },
    })
}

// === Scenarios ===

#[tokio::test]
async fn a_pipeline_lives_and_goes_within_the_rights_of_the_table() {
    let Some(bench) = Bench::start().await else { return };
    bench.account("ringtail-operator", None).await;
    let operator = bench.operator("ringtail-operator", &[]).await;
    let mut audit = bench.cluster.audit();
    bench.namespace("life").await;
    bench.apply(&pipeline("life")).await;
    bench.wait_for_condition("life", "Accepted", "Valid").await;
    let mut requests = bench.settle(&mut audit, &operator).await;
    let names = bench.names("life").await;
    assert!(names.contains("Deployment/shop-gateway"), "{names:?}\n{}", operator.log());

    changed(&bench).await;
    scaled(&bench).await;
    restored(&bench).await;
    paused(&bench).await;
    pruned(&bench, &names).await;
    gone(&bench).await;
    requests.extend(bench.settle(&mut audit, &operator).await);
    audited(&requests);
}

async fn template(bench: &Bench) -> Value {
    let deployment = bench.child(Kind::Deployment, "life", "shop-gateway").await.unwrap();
    deployment["spec"]["template"].clone()
}

/// A policy reaches the ConfigMap and leaves pods alone; resources reach the pods.
async fn changed(bench: &Bench) {
    let before = template(bench).await;
    bench.change("life", json!({"spec": {"sampling": {"decisionWait": "31s"}}})).await;
    eventually("the policy in the ConfigMap", async || {
        let config_map = bench.child(Kind::ConfigMap, "life", "shop-pipeline").await.unwrap();
        config_map["data"]["pipeline.yaml"].as_str().unwrap().contains("31s")
    })
    .await;
    assert_eq!(template(bench).await, before);
    let resources = json!({"requests": {"cpu": "1", "memory": "1024Mi"}});
    bench.change("life", json!({"spec": {"gateway": {"resources": resources}}})).await;
    eventually("the resources in the Deployment", async || {
        template(bench).await["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"
    })
    .await;
}

async fn scaled(bench: &Bench) {
    let scale = ["scale", "--namespace=life", "--replicas=5", "tp/shop"];
    bench.cluster.kubectl(scale).await.unwrap();
    eventually("five replicas", async || {
        let deployment = bench.child(Kind::Deployment, "life", "shop-gateway").await.unwrap();
        deployment["spec"]["replicas"] == 5
    })
    .await;
}

/// Of every kind of child one is edited or deleted by hand.
async fn restored(bench: &Bench) {
    for name in bench.names("life").await {
        let (kind, name) = name.split_once('/').unwrap();
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
        let uid = |child: Option<Value>| child.map(|child| child["metadata"]["uid"].clone());
        let before = uid(bench.child(kind, "life", name).await);
        bench.children(kind, "life").delete(name, &DeleteParams::default()).await.unwrap();
        eventually(&format!("{kind} {name} again"), async || {
            let now = uid(bench.child(kind, "life", name).await);
            now.is_some() && now != before
        })
        .await;
    }
    let args = ["--namespace=life", "deployment/shop-gateway"];
    let edits: [&[&str]; 3] =
        [&["set", "image", "*=nginx"], &["label", "team=checkout"], &["annotate", "note=theirs"]];
    for edit in edits {
        let (verb, rest) = edit.split_at(if edit[0] == "set" { 2 } else { 1 });
        bench.cluster.kubectl(verb.iter().chain(&args).chain(rest)).await.unwrap();
    }
    eventually("the image", async || {
        template(bench).await["spec"]["containers"][0]["image"] == "ringtail:test"
    })
    .await;
    let deployment = bench.child(Kind::Deployment, "life", "shop-gateway").await.unwrap();
    assert_eq!(deployment["metadata"]["labels"]["team"], "checkout");
    assert_eq!(deployment["metadata"]["annotations"]["note"], "theirs");
}

async fn paused(bench: &Bench) {
    bench.change("life", json!({"spec": {"paused": true}})).await;
    bench.wait_for_condition("life", "Paused", "SpecPaused").await;
    let services = bench.children(Kind::Service, "life");
    services.delete("shop-agent", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(services.get_opt("shop-agent").await.unwrap().is_none(), "restored while paused");
    bench.change("life", json!({"spec": {"paused": false}})).await;
    eventually("the Service", async || services.get_opt("shop-agent").await.unwrap().is_some())
        .await;
}

async fn pruned(bench: &Bench, names: &BTreeSet<String>) {
    let tls = json!({"spec": {"security": {"peerTLS": {"mode": "Disabled"}}}});
    bench.change("life", tls).await;
    eventually("no certificates", async || {
        !bench
            .names("life")
            .await
            .iter()
            .any(|name| name.contains("peer-tls") || name.contains("peer-ca"))
    })
    .await;
    bench.wait_for_condition("life", "PeersUnauthenticated", "PeerTLSDisabled").await;
    let tls = json!({"spec": {"security": {"peerTLS": {"mode": "Managed"}}}});
    bench.change("life", tls).await;
    eventually("everything again", async || bench.names("life").await == *names).await;
}

async fn gone(bench: &Bench) {
    bench.pipelines("life").delete("shop", &DeleteParams::default()).await.unwrap();
    eventually("nothing", async || bench.names("life").await.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.names("life").await, BTreeSet::new());
}

/// Rights that this scenario has no use for, with the reason.
const UNUSED: &[(&str, &str)] = &[
    ("monitoring.coreos.com", "no such kinds here"),
    ("horizontalpodautoscalers", "opt-in"),
    ("create", "an apply that creates needs it, and is written down as a patch"),
    ("delete", "only of what is no longer wanted: Secrets and a NetworkPolicy here"),
    ("tracepipelines", "get: for the status of one that cannot be read"),
];

/// Nothing was forbidden; what is granted is used, or listed.
fn audited(requests: &[AuditEvent]) {
    let forbidden: Vec<_> = requests.iter().filter(|event| event.code == 403).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    let mut used: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for event in requests {
        let key = (event.group.clone(), event.resource.clone());
        used.entry(key).or_default().insert(event.verb.clone());
    }
    let mut unused = Vec::new();
    for rule in TABLE.iter().filter(|rule| rule.place != Place::Granted) {
        let key = (rule.group.to_owned(), rule.resource.to_owned());
        let verbs = used.get(&key).cloned().unwrap_or_default();
        for verb in rule.verbs.iter().filter(|verb| !verbs.contains(**verb)) {
            let words = [rule.group, rule.resource, *verb];
            if !UNUSED.iter().any(|(word, _)| words.contains(word)) {
                unused.push(words.join(" "));
            }
        }
    }
    assert!(unused.is_empty(), "granted and not used: {unused:#?}");
}

#[tokio::test]
async fn a_role_in_one_namespace_is_enough() {
    let Some(bench) = Bench::start().await else { return };
    for namespace in ["mine", "theirs"] {
        bench.namespace(namespace).await;
        bench.apply(&pipeline(namespace)).await;
    }
    bench.account("ringtail-operator", Some("mine")).await;
    let mut audit = bench.cluster.audit();
    let operator = bench.operator("ringtail-operator", &["--watch-namespace=mine"]).await;
    bench.wait_for_condition("mine", "Accepted", "Valid").await;
    let requests = bench.settle(&mut audit, &operator).await;
    let forbidden: Vec<_> = requests.iter().filter(|event| event.code == 403).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    assert!(!bench.names("mine").await.is_empty());
    assert_eq!(bench.names("theirs").await, BTreeSet::new());
}

#[tokio::test]
async fn a_leader_that_stood_still_past_its_lease_steps_down() {
    let Some(bench) = Bench::start().await else { return };
    bench.namespace("frozen").await;
    for account in ["operator-a", "operator-b"] {
        bench.account(account, None).await;
    }
    let mut first = bench.operator("operator-a", &[]).await;
    bench.apply(&pipeline("frozen")).await;
    bench.wait_for_condition("frozen", "Accepted", "Valid").await;
    let second = bench.operator("operator-b", &[]).await;
    let mut audit = bench.cluster.audit();
    // In the middle of something to do.
    bench.change("frozen", json!({"spec": {"gateway": {"replicas": 4}}})).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    first.signal(rustix::process::Signal::STOP);
    bench.change("frozen", json!({"spec": {"gateway": {"replicas": 6}}})).await;
    eventually("the second operator's work", async || {
        let deployment = bench.child(Kind::Deployment, "frozen", "shop-gateway").await.unwrap();
        deployment["spec"]["replicas"] == 6
    })
    .await;
    bench.settle(&mut audit, &second).await;
    let mut late = bench.cluster.audit();
    late.skip().unwrap();
    first.signal(rustix::process::Signal::CONT);
    let status = first.ended().await;
    assert!(!status.success(), "{status}\n{}", first.log());
    let late: Vec<_> = first.requests(&mut late).into_iter().filter(is_write).collect();
    assert!(late.len() <= 1, "more than what was in flight: {late:#?}");
    let deployment = bench.child(Kind::Deployment, "frozen", "shop-gateway").await.unwrap();
    assert_eq!(deployment["spec"]["replicas"], 6);
}

#[tokio::test]
async fn a_signal_ends_it_well_and_the_next_one_leads_at_once() {
    let Some(bench) = Bench::start().await else { return };
    for account in ["operator-a", "operator-b"] {
        bench.account(account, None).await;
    }
    bench.namespace("turn").await;
    bench.apply(&pipeline("turn")).await;
    let mut first = bench.operator("operator-a", &[]).await;
    bench.wait_for_condition("turn", "Accepted", "Valid").await;
    first.signal(rustix::process::Signal::TERM);
    assert!(first.ended().await.success(), "{}", first.log());
    let lease = [
        "get",
        "lease",
        "ringtail-operator",
        "--namespace",
        SYSTEM,
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    assert_eq!(bench.cluster.kubectl(lease).await.unwrap(), "");
    let _second = bench.operator("operator-b", &[]).await;
    eventually("the second leads", async || {
        bench.cluster.kubectl(lease).await.unwrap() == "operator-b"
    })
    .await;
}

/// The API server is stopped for longer than a lease lasts, and killed again and again. The operator ends,
/// is started as a kubelet would start it, and comes to the same end without writing what is written
/// already.
#[tokio::test]
async fn an_api_server_that_comes_and_goes_is_outlived() {
    let Some(bench) = Bench::start().await else { return };
    bench.account("ringtail-operator", None).await;
    bench.namespace("outage").await;
    bench.apply(&pipeline("outage")).await;
    let mut operator = bench.operator("ringtail-operator", &[]).await;
    bench.wait_for_condition("outage", "Accepted", "Valid").await;
    let mut audit = bench.cluster.audit();
    bench.settle(&mut audit, &operator).await;
    let resident = operator.resident_kib();

    bench.cluster.api_server().freeze().unwrap();
    let status = operator.ended().await;
    assert!(!status.success(), "{status}");
    // As a kubelet would. It waits for the API server instead of ending again.
    let config = operator.config.clone();
    let operator = bench.operator_with("ringtail-operator", config, &[]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.cluster.api_server().thaw().unwrap();
    bench.cluster.wait_until_ready(SOON).await.unwrap();
    bench.wait_for_holder("ringtail-operator").await;
    let since = bench.settle(&mut audit, &operator).await;
    let writes: Vec<_> = since.iter().filter(|event| is_write(event) && event.code < 400).collect();
    assert!(writes.len() <= 2, "nothing has changed but what gateways say: {writes:#?}");

    for _ in 0..3 {
        bench.cluster.api_server().kill().unwrap();
        bench.cluster.api_server().restart().unwrap();
        bench.cluster.wait_until_ready(SOON).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let services = bench.children(Kind::Service, "outage");
    services.delete("shop-agent", &DeleteParams::default()).await.unwrap();
    eventually("the Service", async || matches!(services.get_opt("shop-agent").await, Ok(Some(_))))
        .await;
    let now = operator.resident_kib();
    assert!(now < resident + 20 * 1_024, "{resident} KiB have become {now} KiB");
}

// === Killed after every write ===

/// Lets so many writes through and refuses the rest, as when the process is gone.
#[derive(Clone)]
struct Guillotine<S> {
    inner: S,
    left: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
}

impl<S: Service<Request<Body>, Error = BoxError>> Service<Request<Body>> for Guillotine<S> {
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<Ready<Result<S::Response, BoxError>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let counts = *request.method() != "GET" && !path.ends_with("/events");
        let one_less = |left: usize| left.checked_sub(1);
        if counts && self.left.fetch_update(Relaxed, Relaxed, one_less).is_err() {
            return Either::Left(future::ready(Err("killed".into())));
        }
        self.written.fetch_add(usize::from(counts), Relaxed);
        Either::Right(self.inner.call(request))
    }
}

/// An operator for one namespace in this process, with so many writes.
struct Doomed {
    task: JoinHandle<()>,
    left: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
}

impl Drop for Doomed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doomed {
    async fn start(bench: &Bench, namespace: &str, writes: usize) -> Self {
        let file = Kubeconfig::read_from(bench.cluster.kubeconfig()).unwrap();
        let config =
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        let metrics = Metrics::default();
        let (leadership, follow) = watch::channel(Leadership::Unknown);
        let gate = Gate { leadership: follow, writes: metrics.writes.clone() };
        let (left, written) = (Arc::new(AtomicUsize::new(writes)), Arc::new(AtomicUsize::new(0)));
        let (l, w) = (Arc::clone(&left), Arc::clone(&written));
        let guillotine = layer_fn(move |inner| Guillotine {
            inner,
            left: Arc::clone(&l),
            written: Arc::clone(&w),
        });
        let stack = ClientBuilder::try_from(config.clone()).unwrap().with_layer(&guillotine);
        let gated = stack.with_layer(&gate).build();
        let lease = ClientBuilder::try_from(config).unwrap().build();
        let cli = Cli::parse_from([
            "ringtail-operator",
            "--data-plane-image=ringtail:test",
            "--admin=127.0.0.1:0",
            "--identity=doomed",
            &format!("--leader-election-namespace={SYSTEM}"),
            &format!("--leader-election-name={namespace}"),
            &format!("--watch-namespace={namespace}"),
        ]);
        let operator = runtime::Operator::new(cli, Clients { gated, lease }, leadership, metrics);
        let task = tokio::spawn(async move {
            let ended = operator.run(std::future::pending()).await;
            panic!("the operator ended: {ended:?}");
        });
        Self { task, left, written }
    }

    /// Until it has no write left, or has written nothing for a while.
    async fn settle(&self) -> usize {
        let mut last = (tokio::time::Instant::now(), 0);
        while last.0.elapsed() < QUIET && self.left.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let written = self.written.load(Relaxed);
            if written != last.1 {
                last = (tokio::time::Instant::now(), written);
            }
        }
        last.1
    }
}

/// Longer than an operator takes to start and to do something on a machine with much to do.
const QUIET: Duration = Duration::from_secs(10);
/// Runs at a time: eight operators cost less than the API server that they talk to.
const DOOMED_MAX: usize = 8;
const ALL: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_any_write_of_any_change_a_restart_comes_to_the_same_end() {
    let Some(bench) = Bench::start().await else { return };
    // How it should end, and how many writes that takes.
    let (created, after_create) = whole(&bench, Change::Create).await;
    let (changed, after_change) = whole(&bench, Change::Edit).await;
    assert!(created > 15 && changed > 3, "{created} and {changed} writes");
    let nothing = BTreeMap::new();
    let mut runs = Vec::new();
    for k in 1..created {
        runs.push((Change::Create, k, &after_create));
        runs.push((Change::Delete, k, &nothing));
    }
    runs.extend((1..changed).map(|k| (Change::Edit, k, &after_change)));
    let runs = runs.into_iter().map(|(change, k, wanted)| cut_short(&bench, change, k, wanted));
    futures::stream::iter(runs).buffer_unordered(DOOMED_MAX).collect::<()>().await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Create,
    Edit,
    Delete,
}

/// A change that nothing disturbs: how many writes it takes, and what is there then.
async fn whole(bench: &Bench, change: Change) -> (usize, BTreeMap<String, Value>) {
    let namespace = format!("{change:?}-whole").to_lowercase();
    prepare(bench, &namespace, change).await;
    let written = Doomed::start(bench, &namespace, ALL).await.settle().await;
    (written, bench.intent(&namespace).await)
}

/// A change in the middle of which the operator is killed; the next one has to bring it to `wanted`.
async fn cut_short(bench: &Bench, change: Change, k: usize, wanted: &BTreeMap<String, Value>) {
    let namespace = format!("{change:?}-{k}").to_lowercase();
    prepare(bench, &namespace, change).await;
    Doomed::start(bench, &namespace, k).await.settle().await;
    if change == Change::Delete {
        bench.pipelines(&namespace).delete("shop", &DeleteParams::default()).await.unwrap();
    }
    let _next = Doomed::start(bench, &namespace, ALL).await;
    eventually(&format!("{namespace} as it should be"), async || {
        bench.intent(&namespace).await == *wanted
    })
    .await;
    // Nothing comes after it, such as a child of an owner that is gone.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.intent(&namespace).await, *wanted, "{namespace}");
}

async fn prepare(bench: &Bench, namespace: &str, change: Change) {
    bench.namespace(namespace).await;
    bench.apply(&pipeline(namespace)).await;
    if change == Change::Edit {
        Doomed::start(bench, namespace, ALL).await.settle().await;
        let gateway = json!({"replicas": 4, "resources": {"requests": {"cpu": "1"}}});
        let security = json!({"peerTLS": {"mode": "Disabled"}});
        bench.change(namespace, json!({"spec": {"gateway": gateway, "security": security}})).await;
    }
}

impl Bench {
    /// What was asked for, of every child: without what differs from one life to the next.
    async fn intent(&self, namespace: &str) -> BTreeMap<String, Value> {
        let mut intents = BTreeMap::new();
        for name in self.names(namespace).await {
            let (kind, child) = name.split_once('/').unwrap();
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
            let Some(object) = self.child(kind, namespace, child).await else { continue };
            let intent = match kind {
                Kind::Secret => {
                    json!(object["data"].as_object().unwrap().keys().collect::<Vec<_>>())
                }
                Kind::ConfigMap => json!(object["data"].as_object().unwrap().len()),
                Kind::Deployment => json!([
                    object["spec"]["replicas"],
                    object["spec"]["template"]["spec"]["containers"],
                ]),
                Kind::DaemonSet => object["spec"]["template"]["spec"]["containers"].clone(),
                Kind::Service => object["spec"]["ports"].clone(),
                _ => object["metadata"]["labels"].clone(),
            };
            intents.insert(name, intent);
        }
        intents
    }
}
