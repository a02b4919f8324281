//! As much of an API server as agents and gateways watch: the EndpointSlices of their Service. Each process
//! asks under a path of its own and gets its own view.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::unfold;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::directory::{Change, Directory, Entry, Standing};

/// The namespace of everything here.
const NAMESPACE: &str = "churn";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Where a kubeconfig leads a process.
pub(super) fn kubeconfig(server: std::net::SocketAddr, process: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "churn",
        "clusters": [{"name": "churn", "cluster": {"server": format!("http://{server}/{process}")}}],
        "users": [{"name": "churn", "user": {}}],
        "contexts": [{
            "name": "churn",
            "context": {"cluster": "churn", "user": "churn", "namespace": NAMESPACE},
        }],
    });
    config.to_string()
}

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener, directory: Arc<Directory>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let directory = Arc::clone(&directory);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(answer(&request, &directory)))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            // A process that ends breaks its connections.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A watch and how far it has come.
struct Watch {
    directory: Arc<Directory>,
    process: String,
    service: Option<String>,
    version: usize,
    changes: tokio::sync::watch::Receiver<u64>,
}

fn answer(request: &Request<Incoming>, directory: &Arc<Directory>) -> Response<Body> {
    let path = request.uri().path();
    let process = path.split('/').nth(1).unwrap_or_default();
    let query = request.uri().query().unwrap_or_default();
    let value =
        |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    // Anything else, such as the manifest's ConfigMap, does not exist here.
    let selector = value("labelSelector").filter(|_| path.ends_with("/endpointslices"));
    let service = selector.map(|s| s.replace("%2F", "/").replace("%3D", "="));
    let service = service.and_then(|s| Some(s.split_once('=')?.1.to_owned()));
    if value("watch") != Some("true") {
        return whole(&list(directory, process, service.as_deref()));
    }
    let version = value("resourceVersion").and_then(|version| version.parse::<usize>().ok());
    let watch = Watch {
        directory: Arc::clone(directory),
        process: process.to_owned(),
        service,
        version: version.unwrap_or(1).saturating_sub(1),
        changes: directory.changes(),
    };
    let events = unfold(watch, |mut watch| async move {
        let event = watch.next().await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))), watch))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(events)))
}

fn list(directory: &Directory, process: &str, service: Option<&str>) -> Value {
    let (seen, version) = directory.seen(process);
    let items: Vec<Value> = match service {
        Some(service) => {
            seen.iter().map(|(name, entry)| slice(service, name, *entry, version)).collect()
        }
        None => Vec::new(),
    };
    let (kind, api) = match service {
        Some(_) => ("EndpointSliceList", "discovery.k8s.io/v1"),
        None => ("ConfigMapList", "v1"),
    };
    // No version is 0: that means "any" to an API server.
    let meta = json!({"resourceVersion": (version + 1).to_string()});
    json!({"apiVersion": api, "kind": kind, "metadata": meta, "items": items})
}

/// A slice for a gateway: each has a port of its own.
fn slice(service: &str, gateway: &str, entry: Entry, version: usize) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{gateway}"), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
            "resourceVersion": (version + 1).to_string(),
        },
        "addressType": "IPv4",
        "ports": [{"name": "otlp-grpc", "port": entry.address.port(), "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [entry.address.ip().to_string()],
            "conditions": {
                "ready": entry.standing == Standing::Ready,
                "serving": entry.standing != Standing::NotReady,
                "terminating": entry.standing == Standing::Terminating,
            },
            "targetRef": {"kind": "Pod", "name": gateway, "namespace": NAMESPACE},
        }],
    })
}

fn whole(body: &Value) -> Response<Body> {
    let mut response =
        Response::new(BodyExt::boxed_unsync(Full::new(Bytes::from(body.to_string()))));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

impl Watch {
    /// The next event, as soon as there is one.
    async fn next(&mut self) -> Value {
        loop {
            if let Some(service) = &self.service
                && let Some(change) = self.directory.since(&self.process, self.version).first()
            {
                self.version += 1;
                return event(service, change, self.version);
            }
            // An error would mean that the directory is gone, and this watch with it.
            let _ = self.changes.changed().await;
        }
    }
}

fn event(service: &str, change: &Change, version: usize) -> Value {
    let (how, entry) = match (change.before, change.entry) {
        (None, Some(entry)) => ("ADDED", Some(entry)),
        (_, Some(entry)) => ("MODIFIED", Some(entry)),
        (before, None) => ("DELETED", before),
    };
    let object = entry.map(|entry| slice(service, &change.gateway, entry, version));
    json!({"type": how, "object": object})
}
