//! A control plane with the chart installed, and operators that run against it as processes, with the chart's
//! own arguments, ServiceAccount and rights.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use ringtail_cluster::{Audit, AuditEvent, Cluster, Options};
use ringtail_operator::kind::Kind;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::process::operator_binary;
use crate::wire::Wire;

/// The release's namespace.
pub const SYSTEM: &str = "ringtail-system";
/// What the chart calls Deployment, ServiceAccount and Lease of the operator.
pub const OPERATOR: &str = "ringtail-operator";
/// How long anything may take that a test waits for. Generous: it only turns a hang into a failure.
pub const SOON: Duration = Duration::from_secs(150);

/// Kinds of the Prometheus operator.
const MONITORING: [(&str, &str); 2] =
    [("podmonitors", "PodMonitor"), ("prometheusrules", "PrometheusRule")];

/// A control plane with the chart installed.
pub struct Bench {
    /// The control plane.
    pub cluster: Cluster,
    /// With all rights.
    pub client: Client,
}

/// A running operator; it is killed when it is dropped.
#[derive(Debug)]
pub struct Operator {
    start: Command,
    child: Child,
    log: PathBuf,
    /// The way to the API server that it takes.
    pub wire: Wire,
    // Removed with it.
    _folder: TempDir,
}

// === impl Bench ===

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Bench {
    /// Starts a control plane, adds the kinds of the Prometheus operator, and installs the chart.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn start(options: Options) -> Self {
        let cluster = Cluster::start(options).await.expect("a cluster");
        let client = cluster.client().await.unwrap();
        let bench = Self { cluster, client };
        for (plural, kind) in MONITORING {
            bench.apply(&definition(plural, kind)).await;
        }
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ringtail");
        let install = ["install", "ringtail", chart, "-n", SYSTEM, "--create-namespace"];
        bench.cluster.helm(install).await.expect("the chart is installed");
        bench.kubectl("wait --for=condition=Established crd --all --timeout=60s").await;
        bench
    }

    /// What kubectl says to these words, of which none has a blank.
    pub async fn kubectl(&self, words: &str) -> String {
        self.try_kubectl(words).await.unwrap_or_else(|error| panic!("kubectl {words}: {error}"))
    }

    /// The same where a refusal is an answer.
    pub async fn try_kubectl(&self, words: &str) -> Result<String, String> {
        self.cluster.kubectl(words.split(' ')).await.map_err(|error| error.to_string())
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &Value) {
        self.try_apply(manifest).await.unwrap_or_else(|error| panic!("{error}: {manifest:#}"));
    }

    /// The same where a refusal is an answer.
    pub async fn try_apply(&self, manifest: &Value) -> Result<String, String> {
        let told = self.cluster.kubectl_with(&["apply", "-f", "-"], &manifest.to_string()).await;
        told.map_err(|error| error.to_string())
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await;
    }

    /// Pipelines of a namespace.
    pub fn pipelines(&self, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("ringtail.dev", "v1alpha1", "TracePipeline");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "tracepipelines");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Children of a kind.
    pub fn children(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// A child as it is now.
    pub async fn child(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let found = self.children(kind, namespace).get_opt(name).await.unwrap();
        found.map(|found| serde_json::to_value(found).unwrap())
    }

    /// Pipeline `shop` as it is now.
    pub async fn shop(&self, namespace: &str) -> Value {
        serde_json::to_value(self.pipelines(namespace).get("shop").await.unwrap()).unwrap()
    }

    /// Changes pipeline `shop`.
    pub async fn change(&self, namespace: &str, patch: &Value) {
        let params = PatchParams::default();
        self.pipelines(namespace).patch("shop", &params, &Patch::Merge(patch)).await.unwrap();
    }

    /// `Kind/name` of everything of the pipelines of a namespace.
    pub async fn names(&self, namespace: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for kind in Kind::ALL {
            let params =
                ListParams::default().labels("app.kubernetes.io/managed-by=ringtail-operator");
            let found = self.children(kind, namespace).list(&params).await.unwrap();
            names.extend(found.iter().map(|child| format!("{kind}/{}", child.name_any())));
        }
        names
    }

    /// A condition of pipeline `shop`; null when it is not there.
    pub async fn condition(&self, namespace: &str, type_: &str) -> Value {
        condition(&self.shop(namespace).await, type_)
    }

    /// Waits for the reason of a condition.
    ///
    /// # Panics
    /// With the whole status, when that takes too long.
    pub async fn wait_for_reason(&self, namespace: &str, type_: &str, reason: &str) -> Value {
        let begun = Instant::now();
        loop {
            let shop = self.shop(namespace).await;
            let condition = condition(&shop, type_);
            if condition["reason"] == reason {
                return condition;
            }
            let status = &shop["status"];
            assert!(begun.elapsed() < SOON, "{namespace}: {type_} never is {reason}: {status:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Starts an operator as the chart's Deployment does, with more flags.
    pub async fn operator(&self, flags: &[&str]) -> Operator {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let log = self.cluster.logs().join(format!("operator-{number}.log"));
        let folder = tempfile::tempdir().unwrap();
        let wire = Wire::to(self.server()).await;
        let config = self.cluster.kubeconfig_for_service_account(SYSTEM, OPERATOR).await.unwrap();
        let config = wire.kubeconfig(&config, self.cluster.server(), folder.path());
        let mut start = Command::new(operator_binary());
        start
            .args(self.arguments().await)
            .args(flags)
            .env("KUBECONFIG", config)
            .env("POD_NAME", format!("operator-{number}"))
            .env("RINGTAIL_LOG", "info,kube=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        let child = start.spawn().unwrap();
        Operator { start, child, log, wire, _folder: folder }
    }

    /// The address of the API server.
    pub fn server(&self) -> SocketAddr {
        let server = self.cluster.server();
        server.strip_prefix("https://").unwrap().parse().expect("an address")
    }

    // Only the port is another one: several operators share this machine.
    async fn arguments(&self) -> Vec<String> {
        let deployment = self.child(Kind::Deployment, SYSTEM, OPERATOR).await.expect("it is there");
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments = arguments.as_array().expect("arguments").iter();
        let arguments = arguments.map(|argument| argument.as_str().unwrap().to_owned());
        let arguments = arguments.filter(|argument| !argument.starts_with("--admin="));
        arguments.chain(["--admin=127.0.0.1:0".to_owned()]).collect()
    }

    /// What the operator asked of the API server since the last look, the Lease aside.
    pub fn requests(&self, audit: &mut Audit) -> Vec<AuditEvent> {
        let user = format!("system:serviceaccount:{SYSTEM}:{OPERATOR}");
        let events = audit.events().unwrap().into_iter();
        events.filter(|event| event.user == user && event.resource != "leases").collect()
    }
}

/// A condition of a pipeline; null when it is not there.
pub fn condition(pipeline: &Value, type_: &str) -> Value {
    let conditions = pipeline["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

/// The most requests within one second, by the API server's clock.
pub fn most_in_a_second<'a>(events: impl IntoIterator<Item = &'a AuditEvent>) -> usize {
    let mut seconds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events {
        // 2026-01-02T03:04:05.678901Z
        *seconds.entry(event.time.get(..19).expect("a time")).or_default() += 1;
    }
    seconds.values().copied().max().unwrap_or_default()
}

/// Waits until it holds.
///
/// # Panics
/// When that takes too long.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "{what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A kind of the Prometheus operator that takes everything.
fn definition(plural: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": {"plural": plural, "kind": kind},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

// === impl Operator ===

impl Operator {
    /// Ends it with SIGTERM.
    ///
    /// # Panics
    /// With its log, when it does not end well.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
        eventually("the operator's end", async || self.has_ended()).await;
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// Starts it again after it has ended, as a kubelet does with a container.
    pub fn restart(&mut self) {
        assert!(self.has_ended());
        self.child = self.start.spawn().unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Resident bytes now.
    pub fn resident_bytes(&self) -> u64 {
        crate::process::resident_bytes(self.child.id())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- operator\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
