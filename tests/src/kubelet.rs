//! What a kubelet does for the pods of a pipeline, as far as a machine without containers can: their
//! containers are processes, started with the arguments, files and ServiceAccount of the pod.
//!
//! Controllers and scheduler are real, and so is the way to the API server. Not real are addresses: a pod's
//! address is a loopback one, where it shows its statistics, and since no EndpointSlice may hold such an
//! address, the slices are written here, with an address of this machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use ringtail_operator::kind::Kind;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::bench::{Bench, eventually};
use crate::process::Process;
use crate::wire::Wire;

/// Between two looks at pods and the Secrets that they mount. A kubelet takes a minute for the latter.
const PASS: Duration = Duration::from_millis(500);
/// Below it every file of a pod is.
const ROOT: &str = "/etc/ringtail";

/// The kubelet of all nodes, for one namespace.
#[derive(Debug)]
pub struct Kubelet {
    site: Arc<Site>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Site {
    bench: Arc<Bench>,
    namespace: String,
    /// Where kept spans go, instead of the endpoint of exporter `tempo`.
    backend: String,
    /// An address of this machine that other machines could reach.
    address: IpAddr,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    /// Its process.
    pub process: Process,
    /// Its way to the API server.
    pub wire: Wire,
    mounts: Vec<Mount>,
    folder: TempDir,
    slices: Vec<String>,
}

/// A Secret or ConfigMap in a pod.
#[derive(Debug)]
struct Mount {
    /// Relative to `ROOT`.
    path: PathBuf,
    source: (Kind, String),
    files: Mutex<Files>,
}

type Files = BTreeMap<String, Vec<u8>>;
/// What the Secrets and ConfigMaps of the namespace hold.
type Sources = BTreeMap<(Kind, String), Files>;

/// An address of this machine that other machines could reach; the only kind that a slice may hold. None when
/// it has no network at all.
pub fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent; the kernel chooses the address from which it would be.
    socket.connect("203.0.113.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// Registers nodes that stay Ready: start the controllers with `--node-monitor-grace-period=24h`.
pub async fn register_nodes(bench: &Bench, count: usize) {
    for number in 1..=count {
        let name = format!("n{number}");
        let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
        let metadata = json!({"name": name, "labels": labels});
        bench.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata})).await;
        let room = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
        let status = json!({"capacity": room, "allocatable": room, "conditions": [ready]});
        let patch = json!({"status": status}).to_string();
        let words = ["patch", "node", &name, "--subresource=status", "--type=merge", "-p", &patch];
        bench.cluster.kubectl(words).await.expect("the node is ready");
        let words = format!("taint node {name} node.kubernetes.io/not-ready:NoSchedule-");
        // The controllers may have been faster.
        let _ = bench.try_kubectl(&words).await;
    }
}

// === impl Kubelet ===

impl Kubelet {
    /// Runs the pods of a namespace until it is dropped.
    pub fn start(bench: &Arc<Bench>, namespace: &str, backend: &str) -> Self {
        let site = Arc::new(Site {
            bench: Arc::clone(bench),
            namespace: namespace.to_owned(),
            backend: backend.to_owned(),
            address: address().expect("an address"),
            pods: Mutex::default(),
        });
        let of_task = Arc::clone(&site);
        let task = tokio::spawn(async move {
            let mut failing = false;
            loop {
                // The API server may be away: that is told once.
                let outcome = of_task.pass().await;
                if let (Err(error), false) = (&outcome, failing) {
                    eprintln!("kubelet: {error}");
                }
                failing = outcome.is_err();
                tokio::time::sleep(PASS).await;
            }
        });
        Self { site, task }
    }

    /// The pods of a tier by name.
    pub fn pods(&self, tier: &str) -> Vec<Arc<Pod>> {
        let prefix = format!("shop-{tier}-");
        let pods = self.site.pods.lock().unwrap();
        let of_tier = pods.iter().filter(|(name, _)| name.starts_with(&prefix));
        of_tier.map(|(_, pod)| Arc::clone(pod)).collect()
    }

    /// All pods.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.site.pods.lock().unwrap().values().cloned().collect()
    }

    /// Waits until so many pods run and all have the same ring of so many gateways; returns its digest.
    pub async fn await_ring(&self, pods: usize, members: usize) -> String {
        let mut digest = String::new();
        eventually(&format!("{pods} pods with a ring of {members}"), async || {
            let rings: Vec<_> = self.all().iter().map(|pod| pod.process.stats().ring).collect();
            digest = rings.first().map(|ring| ring.digest.clone()).unwrap_or_default();
            let agree = |ring: &ringtail::stats::RingStats| {
                ring.members.len() == members && ring.digest == digest
            };
            rings.len() == pods && rings.iter().all(agree)
        })
        .await;
        digest
    }

    /// Ends it; its pods go with the return value.
    pub async fn stop(self) -> Vec<Pod> {
        self.task.abort();
        let mut pods = std::mem::take(&mut *self.site.pods.lock().unwrap());
        let mut ended = Vec::new();
        while let Some((_, pod)) = pods.pop_first() {
            ended.push(Arc::into_inner(pod).expect("nobody else has it"));
        }
        ended
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Site ===

impl Site {
    async fn pass(&self) -> kube::Result<()> {
        let sources = self.sources().await?;
        let params = ListParams::default().labels("app.kubernetes.io/managed-by=ringtail-operator");
        for pod in self.api("", "v1", "Pod", "pods").list(&params).await? {
            let name = pod.name_any();
            let known = self.pods.lock().unwrap().get(&name).cloned();
            match known {
                Some(running) if pod.metadata.deletion_timestamp.is_some() => {
                    drop(running);
                    self.end(&name).await?;
                }
                Some(running) => running.refresh(&sources),
                None if pod.data["spec"]["nodeName"].is_string()
                    && pod.metadata.deletion_timestamp.is_none() =>
                {
                    let pod = serde_json::to_value(&pod).unwrap();
                    self.run(&name, &pod, &sources).await?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn api(&self, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        Api::namespaced_with(self.bench.client.clone(), &self.namespace, &resource)
    }

    async fn sources(&self) -> kube::Result<Sources> {
        let mut sources = Sources::new();
        for kind in [Kind::Secret, Kind::ConfigMap] {
            let objects = self.bench.children(kind, &self.namespace);
            for object in objects.list(&ListParams::default()).await? {
                let fields = object.data["data"].as_object().cloned().unwrap_or_default();
                let decode = |value: &Value| {
                    let text = value.as_str().unwrap_or_default();
                    match kind {
                        Kind::Secret => STANDARD.decode(text).unwrap(),
                        _ => text.as_bytes().to_vec(),
                    }
                };
                let files = fields.iter().map(|(key, value)| (key.clone(), decode(value)));
                sources.insert((kind, object.name_any()), files.collect());
            }
        }
        Ok(sources)
    }

    fn slices(&self) -> Api<DynamicObject> {
        self.api("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
    }

    async fn run(&self, name: &str, pod: &Value, sources: &Sources) -> kube::Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let mounts = mounts(&pod["spec"]);
        mounts.iter().for_each(|mount| mount.refresh(sources, folder.path()));
        let account = pod["spec"]["serviceAccountName"].as_str().expect("an account");
        let cluster = &self.bench.cluster;
        let config = cluster.kubeconfig_for_service_account(&self.namespace, account).await;
        let wire = Wire::to(self.bench.server()).await;
        let config = wire.kubeconfig(&config.expect("a token"), cluster.server(), folder.path());
        let arguments = self.arguments(name, pod, folder.path(), &config);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = tokio::task::block_in_place(|| Process::start(&words));
        let slices = self.list(name, pod, &process).await?;
        let status = status(pod, &process);
        let pods = self.api("", "v1", "Pod", "pods");
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        let pod = Pod { process, wire, mounts, folder, slices };
        self.pods.lock().unwrap().insert(name.to_owned(), Arc::new(pod));
        Ok(())
    }

    // The pod's own arguments; added is only what a network namespace and the files of a ServiceAccount would
    // give.
    fn arguments(&self, name: &str, pod: &Value, folder: &Path, config: &Path) -> Vec<String> {
        let words = pod["spec"]["containers"][0]["args"].as_array().expect("arguments");
        let folder = folder.to_str().unwrap();
        let mut arguments: Vec<String> = words
            .iter()
            .map(|word| word.as_str().unwrap().replace("$(POD_NAME)", name).replace(ROOT, folder))
            .collect();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("--namespace", self.namespace.clone());
        add("--kubeconfig", config.to_str().unwrap().to_owned());
        add("--memory-limit", "256Mi".to_owned());
        for port in ["--otlp-grpc", "--otlp-http"] {
            add(port, format!("{}:0", self.address));
        }
        if words.iter().any(|word| word == "gateway") {
            add("--admin", format!("{}:8888", loopback()));
            add("--export", format!("tempo={}", self.backend));
            add("--threads", "1".to_owned());
            if words.iter().any(|word| word == "--peer-tls") {
                add("--peer-listen", format!("{}:0", self.address));
            }
        }
        arguments
    }

    // As the controller of EndpointSlices does it, in both Services by which the ring is found.
    async fn list(&self, name: &str, pod: &Value, process: &Process) -> kube::Result<Vec<String>> {
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "gateway" {
            return Ok(Vec::new());
        }
        let listening = &process.listening;
        let mut ports = vec![("otlp-grpc", listening.otlp_grpc.port())];
        ports.extend(listening.peer.map(|peer| ("peer", peer.port())));
        let ports: Vec<Value> =
            ports.iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
        let mut slices = Vec::new();
        for service in ["shop-gateway-headless", "shop-gateway-peers"] {
            let slice = format!("{service}-{name}");
            let labels = json!({
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "kubelet.tests.ringtail.dev",
            });
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": slice, "labels": labels},
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [{
                    "addresses": [self.address.to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {"kind": "Pod", "name": name, "namespace": self.namespace},
                }],
            });
            let params = PatchParams::apply("kubelet").force();
            self.slices().patch(&slice, &params, &Patch::Apply(&object)).await?;
            slices.push(slice);
        }
        Ok(slices)
    }

    // SIGTERM, and when it has ended the API server forgets it.
    async fn end(&self, name: &str) -> kube::Result<()> {
        let Some(pod) = self.pods.lock().unwrap().remove(name) else { return Ok(()) };
        for slice in &pod.slices {
            // It may be gone already.
            let _ = self.slices().delete(slice, &DeleteParams::default()).await;
        }
        if let Some(pod) = Arc::into_inner(pod) {
            tokio::task::block_in_place(|| pod.process.stop());
        }
        let at_once = DeleteParams::default().grace_period(0);
        match self.api("", "v1", "Pod", "pods").delete(name, &at_once).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// Every address of 127/8 is this machine; no two pods, and hardly two test runs, have the same.
fn loopback() -> String {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let id = std::process::id();
    format!("127.{}.{}.{}", 1 + (id >> 8) % 250, id % 250, GIVEN.fetch_add(1, Relaxed))
}

fn mounts(spec: &Value) -> Vec<Mount> {
    let volumes = spec["volumes"].as_array().expect("volumes");
    let mounted = spec["containers"][0]["volumeMounts"].as_array().expect("mounts").iter();
    let ours = mounted.filter_map(|mount| {
        let path = Path::new(mount["mountPath"].as_str()?).strip_prefix(ROOT).ok()?;
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"])?;
        let (kind, name) = match volume["secret"]["secretName"].as_str() {
            Some(name) => (Kind::Secret, name),
            None => (Kind::ConfigMap, volume["configMap"]["name"].as_str()?),
        };
        let source = (kind, name.to_owned());
        Some(Mount { path: path.to_owned(), source, files: Mutex::default() })
    });
    ours.collect()
}

fn status(pod: &Value, process: &Process) -> Value {
    let now = &pod["metadata"]["creationTimestamp"];
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|type_| json!({"type": type_, "status": "True", "lastTransitionTime": now}));
    let mut status = json!({
        "phase": "Running",
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": [{
            "name": "ringtail", "image": "ringtail", "imageID": "", "ready": true, "started": true,
            "restartCount": 0, "state": {"running": {"startedAt": now}},
        }],
    });
    let ip = process.listening.admin.ip().to_string();
    status["podIP"] = ip.clone().into();
    status["podIPs"] = json!([{"ip": ip}]);
    assert_eq!(process.admin("/readyz"), "ok\n");
    json!({"status": status})
}

// === impl Pod ===

impl Pod {
    fn refresh(&self, sources: &Sources) {
        self.mounts.iter().for_each(|mount| mount.refresh(sources, self.folder.path()));
    }

    /// Where a file of the pod is, by its path there.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(Path::new(path).strip_prefix(ROOT).expect("a file of ours"))
    }
}

// === impl Mount ===

impl Mount {
    // All files at once by a link, as a kubelet does it. Running pods keep what they have when the source is
    // gone.
    fn refresh(&self, sources: &Sources, folder: &Path) {
        let mut known = self.files.lock().unwrap();
        let Some(files) = sources.get(&self.source).filter(|files| **files != *known) else {
            return;
        };
        let fresh = tempfile::Builder::new().prefix("..data").tempdir_in(folder).unwrap().keep();
        for (name, bytes) in files {
            std::fs::write(fresh.join(name), bytes).unwrap();
        }
        let link = folder.join("..link");
        std::os::unix::fs::symlink(&fresh, &link).unwrap();
        std::fs::rename(&link, folder.join(&self.path)).unwrap();
        known.clone_from(files);
    }
}
