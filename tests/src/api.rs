//! An API server that knows EndpointSlices and ConfigMaps, lists and watches them, and can misbehave in every
//! way that a real one does: go away, cut watches, forget old versions, refuse.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::stream::unfold;
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The namespace of everything here.
pub const NAMESPACE: &str = "observability";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running API server.
#[derive(Debug)]
pub struct Api {
    /// Where it listens.
    pub address: SocketAddr,
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<u64>>,
    cut: Arc<watch::Sender<u64>>,
    here: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct World {
    version: u64,
    /// By kind and name.
    objects: BTreeMap<(Kind, String), Value>,
    history: Vec<(u64, Kind, Value)>,
    /// Versions below are forgotten.
    oldest: u64,
    /// What is answered instead of everything.
    refusal: Option<u16>,
    requests: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Slice,
    ConfigMap,
}

/// How a gateway stands in its slice: serving, terminating.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Passes its readiness probe.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
}

/// A gateway as usual.
pub const SERVING: Standing = Standing { serving: true, terminating: false };
/// A gateway that has just begun.
pub const STARTING: Standing = Standing { serving: false, terminating: false };
/// A gateway that is being deleted.
pub const TERMINATING: Standing = Standing { serving: true, terminating: true };

// === impl Kind ===

impl Kind {
    fn of_path(path: &str) -> Option<Self> {
        let resource = path.split(&format!("/namespaces/{NAMESPACE}/")).nth(1)?;
        match resource {
            "endpointslices" => Some(Self::Slice),
            "configmaps" => Some(Self::ConfigMap),
            _ => None,
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Slice => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::ConfigMap => ("v1", "ConfigMap"),
        }
    }
}

// === impl Api ===

impl Api {
    /// Starts on a free port, in a thread of its own.
    pub fn start() -> Self {
        let (here, mut wanted) = watch::channel(true);
        let (tell, told) = std::sync::mpsc::channel();
        let world = Arc::new(Mutex::new(World { version: 1, ..World::default() }));
        let (changed, cut) = (Arc::new(watch::channel(1).0), Arc::new(watch::channel(0).0));
        let desk = Desk { world: world.clone(), changed: changed.clone(), cut: cut.clone() };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut at: SocketAddr = "127.0.0.1:0".parse().unwrap();
                while wanted.wait_for(|here| *here).await.is_ok() {
                    let listener = listen(at);
                    at = listener.local_addr().unwrap();
                    let _ = tell.send(at);
                    tokio::select! {
                        () = serve(listener, desk.clone()) => {}
                        away = wanted.wait_for(|here| !*here) => if away.is_err() { return },
                    }
                }
            });
        });
        let address = told.recv().expect("it listens");
        Self { address, world, changed, cut, here }
    }

    /// Writes a kubeconfig that leads here.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let path = directory.join("kubeconfig");
        let server = format!("http://{}", self.address);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{
                "name": "test",
                "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE},
            }],
        });
        std::fs::write(&path, config.to_string()).expect("the kubeconfig is written");
        path
    }

    /// Lists a pod behind a Service, in a slice of its own since its port is its own.
    pub fn put_endpoint(
        &self,
        service: &str,
        pod: &str,
        (port, address): (&str, SocketAddr),
        standing: Standing,
    ) {
        let Standing { serving, terminating } = standing;
        let name = format!("{service}-{pod}");
        let object = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": port, "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{
                "addresses": [address.ip().to_string()],
                "conditions": {
                    "ready": serving && !terminating, "serving": serving, "terminating": terminating,
                },
                "targetRef": {"kind": "Pod", "name": pod, "namespace": NAMESPACE},
            }],
        });
        self.put(Kind::Slice, &name, object);
    }

    /// Takes a pod out of a Service.
    pub fn remove_endpoint(&self, service: &str, pod: &str) {
        let name = format!("{service}-{pod}");
        let mut world = self.world();
        if let Some(object) = world.objects.remove(&(Kind::Slice, name)) {
            world.record(Kind::Slice, "DELETED", object);
        }
        self.changed.send_replace(world.version);
    }

    /// Writes the manifest of a pipeline into its ConfigMap.
    pub fn put_manifest(&self, pipeline: &str, text: &str) {
        let name = format!("{pipeline}-pipeline");
        let object = json!({"metadata": {"name": name}, "data": {"pipeline.yaml": text}});
        self.put(Kind::ConfigMap, &name, object);
    }

    fn put(&self, kind: Kind, name: &str, object: Value) {
        let mut world = self.world();
        let key = (kind, name.to_owned());
        let how = if world.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let object = world.record(kind, how, object);
        world.objects.insert(key, object);
        self.changed.send_replace(world.version);
    }

    /// Ends every watch, as servers do after some minutes.
    pub fn cut_watches(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Forgets the past, so that a watch from there gets 410.
    pub fn compact(&self) {
        let mut world = self.world();
        world.version += 1;
        world.oldest = world.version;
        world.history.clear();
    }

    /// Answers every request with this status, or properly again.
    pub fn refuse_with(&self, status: Option<u16>) {
        self.world().refusal = status;
    }

    /// Closes its port and every connection.
    pub fn go_away(&self) {
        self.here.send_replace(false);
    }

    /// Opens the port again.
    pub fn come_back(&self) {
        self.here.send_replace(true);
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.world().requests
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

// === impl World ===

impl World {
    /// Gives an object the next version and remembers what happened.
    fn record(&mut self, kind: Kind, how: &str, mut object: Value) -> Value {
        self.version += 1;
        let (api_version, name) = kind.names();
        object["apiVersion"] = api_version.into();
        object["kind"] = name.into();
        object["metadata"]["namespace"] = NAMESPACE.into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let event = json!({"type": how, "object": object});
        self.history.push((self.version, kind, event));
        object
    }

    fn list(&self, kind: Kind, wanted: &Selector) -> Value {
        let (api_version, name) = kind.names();
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((of, _), object)| *of == kind && wanted.takes(object))
            .map(|(_, object)| object)
            .collect();
        json!({
            "apiVersion": api_version, "kind": format!("{name}List"),
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items,
        })
    }
}

// === requests ===

/// `labelSelector` or `fieldSelector` with one requirement.
#[derive(Clone, Debug, Default)]
struct Selector {
    service: Option<String>,
    name: Option<String>,
}

impl Selector {
    fn takes(&self, object: &Value) -> bool {
        let meta = &object["metadata"];
        let service = &meta["labels"]["kubernetes.io/service-name"];
        self.service.as_ref().is_none_or(|wanted| service == wanted.as_str())
            && self.name.as_ref().is_none_or(|wanted| meta["name"] == wanted.as_str())
    }
}

#[derive(Clone, Debug)]
struct Desk {
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<u64>>,
    cut: Arc<watch::Sender<u64>>,
}

/// What a watch stands at.
struct Watch {
    desk: Desk,
    kind: Kind,
    wanted: Selector,
    from: u64,
    changed: watch::Receiver<u64>,
    cut: watch::Receiver<u64>,
}

fn listen(at: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(at).expect("the port is free");
    socket.listen(64).unwrap()
}

async fn serve(listener: TcpListener, desk: Desk) {
    // Dropped with this future, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let desk = desk.clone();
        connections.spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(desk.answer(&request)))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Desk {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let query: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace("%2F", "/").replace("%3D", "=")))
            .collect();
        let value = |key: &str, prefix: &str| {
            query.get(key).and_then(|text| text.strip_prefix(prefix)).map(str::to_owned)
        };
        let wanted = Selector {
            service: value("labelSelector", "kubernetes.io/service-name="),
            name: value("fieldSelector", "metadata.name="),
        };
        let mut world = self.world.lock().unwrap();
        world.requests += 1;
        if let Some(code) = world.refusal {
            return whole(code, &status(code));
        }
        let Some(kind) = Kind::of_path(request.uri().path()) else {
            return whole(404, &status(404));
        };
        if query.get("watch").is_none_or(|watch| watch != "true") {
            return whole(200, &world.list(kind, &wanted));
        }
        let from = query.get("resourceVersion").and_then(|version| version.parse().ok());
        let watch = Watch {
            desk: self.clone(),
            kind,
            wanted,
            from: from.expect("a version to watch from"),
            changed: self.changed.subscribe(),
            cut: self.cut.subscribe(),
        };
        let events = unfold(watch, |mut watch| async move {
            let event = watch.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))), watch))
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(events)))
    }
}

impl Watch {
    /// The next event, as soon as there is one; `None` when the watch is cut.
    async fn next(&mut self) -> Option<Value> {
        loop {
            {
                let world = self.desk.world.lock().unwrap();
                if self.from < world.oldest {
                    self.from = u64::MAX;
                    return Some(json!({"type": "ERROR", "object": status(410)}));
                }
                let next = world.history.iter().find(|(version, kind, event)| {
                    *version > self.from
                        && *kind == self.kind
                        && self.wanted.takes(&event["object"])
                });
                if let Some((version, _, event)) = next {
                    self.from = *version;
                    return Some(event.clone());
                }
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                _ = self.cut.changed() => return None,
            }
        }
    }
}

fn status(code: u16) -> Value {
    let reason = match code {
        410 => "Expired",
        429 => "TooManyRequests",
        403 => "Forbidden",
        _ => "InternalError",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": "the test says so", "metadata": {},
    })
}

fn whole(code: u16, body: &Value) -> Response<Body> {
    let body = BodyExt::boxed_unsync(Full::new(Bytes::from(body.to_string())));
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(body).unwrap()
}
