//! An API server in memory: just enough of lists, watches, server-side apply and garbage collection for the
//! operator's own tests. What it does not know of Kubernetes, the tests against a real one do.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::BoxError;

mod merge; // server-side apply

/// What a request is answered with, instead of being carried out.
pub(crate) type Fault = Box<dyn FnMut(&str, &str) -> Option<u16> + Send>;

/// The server. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Store>>, Changed);

#[derive(Clone)]
struct Changed(watch::Sender<u64>);

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Object>,
    version: u64,
    uids: u64,
    log: VecDeque<(u64, Key, &'static str, Value)>,
    requests: Vec<(String, String)>,
    fault: Option<Fault>,
}

/// Kind in the plural, namespace, name.
type Key = (String, String, String);

#[derive(Clone, Default)]
struct Object {
    value: Value,
    applied: BTreeMap<String, Value>,
}

struct Call {
    method: Method,
    plural: String,
    namespace: String,
    name: String,
    subresource: String,
    query: BTreeMap<String, String>,
    metadata_only: bool,
}

impl Default for Changed {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

// === impl Api: what tests do ===

impl Api {
    /// Stores an object as somebody else.
    pub(crate) fn put(&self, plural: &str, namespace: &str, name: &str, mut value: Value) {
        value["metadata"]["namespace"] = namespace.into();
        value["metadata"]["name"] = name.into();
        self.change(|store| store.update(key(plural, namespace, name), value, "kubectl"));
    }

    /// Changes an object as somebody else.
    pub(crate) fn edit(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) {
        let mut value = self.get(plural, namespace, name).expect("an object to edit");
        edit(&mut value);
        self.change(|store| store.update(key(plural, namespace, name), value, "kubectl"));
    }

    /// Writes a status as a controller of Kubernetes.
    pub(crate) fn set_status(&self, plural: &str, namespace: &str, name: &str, status: Value) {
        let mut value = self.get(plural, namespace, name).expect("an object with a status");
        value["status"] = status;
        self.change(|store| store.store(key(plural, namespace, name), value));
    }

    /// Deletes an object, and what it owns.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|store| store.delete(&key(plural, namespace, name)));
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let store = self.0.lock().unwrap();
        store.objects.get(&key(plural, namespace, name)).map(|object| object.value.clone())
    }

    /// `plural/name` of everything in a namespace.
    pub(crate) fn names(&self, namespace: &str) -> Vec<String> {
        let store = self.0.lock().unwrap();
        let here =
            store.objects.keys().filter(|(plural, ns, _)| ns == namespace && plural != "events");
        here.map(|(plural, _, name)| format!("{plural}/{name}")).collect()
    }

    /// Method and path of every write so far that was carried out, those to Leases and Events apart.
    pub(crate) fn writes(&self) -> Vec<String> {
        let store = self.0.lock().unwrap();
        let requests = store.requests.iter().filter(|(method, path)| {
            method != "GET" && !path.contains("/leases") && !path.contains("/events")
        });
        requests.map(|(method, path)| format!("{method} {path}")).collect()
    }

    /// Paths of every read so far.
    pub(crate) fn reads(&self) -> Vec<String> {
        let store = self.0.lock().unwrap();
        let reads = store.requests.iter().filter(|(method, _)| method == "GET");
        reads.map(|(_, path)| path.clone()).collect()
    }

    /// From now on every request passes by `fault` first: method and path in, status code out.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.0.lock().unwrap().fault = fault;
    }

    /// Comes back when an object is as `wanted` says.
    pub(crate) async fn wait_for(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) {
        let mut changes = self.1.0.subscribe();
        let wait = async {
            while !wanted(self.get(plural, namespace, name).as_ref()) {
                changes.changed().await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(3_600);
        if tokio::time::timeout(limit, wait).await.is_err() {
            panic!("{plural}/{name} after an hour: {:#?}", self.get(plural, namespace, name));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Store)) {
        let mut store = self.0.lock().unwrap();
        change(&mut store);
        let version = store.version;
        drop(store);
        self.1.0.send_replace(version);
    }
}

// === impl Api: what clients do ===

impl Api {
    /// The server as a service.
    pub(crate) async fn serve(
        self,
        request: Request<Body>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let call = Call::parse(&parts);
        let body = body.collect().await?.to_bytes();
        let fault = {
            let mut store = self.0.lock().unwrap();
            let fault = store.fault.as_mut().and_then(|fault| fault(parts.method.as_str(), &path));
            if fault.is_none() {
                store.requests.push((parts.method.to_string(), path));
            }
            fault
        };
        // A server takes its time, in which virtual clocks go on and other tasks run.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        if let Some(code) = fault {
            return Ok(failed(code, "a fault"));
        }
        let Some(call) = call else { return Ok(failed(404, "no such path")) };
        if call.query.get("watch").is_some_and(|watch| watch == "true") {
            return Ok(self.watch(call));
        }
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let mut answer = failed(500, "no answer");
        self.change(|store| answer = store.carry_out(&call, body));
        Ok(answer)
    }

    fn watch(self, call: Call) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let from = call.query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let changes = self.1.0.subscribe();
        let state = (self, call, from, changes);
        let events = stream::unfold(state, |(api, call, mut from, mut changes)| async move {
            loop {
                let found: Vec<_> = {
                    let store = api.0.lock().unwrap();
                    let newer = store.log.iter().filter(|(version, ..)| *version > from);
                    newer.cloned().collect()
                };
                let mut lines = String::new();
                for (version, key, kind, object) in found {
                    from = version;
                    // What leaves the selector is deleted, for whoever watches with it.
                    let kind = match call.selects(&key, &object) {
                        true => kind,
                        false if api.selected_before(&call, &key, version) => "DELETED",
                        false => continue,
                    };
                    let event = json!({"type": kind, "object": call.shaped(&object)});
                    lines.push_str(&format!("{event}\n"));
                }
                if !lines.is_empty() {
                    let frame: Result<_, BoxError> = Ok(Frame::data(Bytes::from(lines)));
                    return Some((frame, (api, call, from, changes)));
                }
                changes.changed().await.ok()?;
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(events.boxed())))
    }
}

impl Api {
    fn selected_before(&self, call: &Call, key: &Key, version: u64) -> bool {
        let store = self.0.lock().unwrap();
        let before = store.log.iter().rev().find(|(v, k, ..)| *v < version && k == key);
        before.is_some_and(|(.., object)| call.selects(key, object))
    }
}

// === impl Call ===

impl Call {
    // /api/v1/namespaces/ns/pods/name/status, /apis/group/version/…
    fn parse(parts: &http::request::Parts) -> Option<Self> {
        let mut words: VecDeque<_> =
            parts.uri.path().split('/').skip(1).map(str::to_owned).collect();
        match words.pop_front()?.as_str() {
            "api" => drop(words.pop_front()?),
            "apis" => drop((words.pop_front()?, words.pop_front()?)),
            _ => return None,
        }
        let mut namespace = String::new();
        if words.front()? == "namespaces" && words.len() > 2 {
            words.pop_front();
            namespace = words.pop_front()?;
        }
        let query = parts.uri.query().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let decode = |text: &str| text.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let accept =
            parts.headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok());
        Some(Self {
            method: parts.method.clone(),
            plural: words.pop_front()?,
            namespace,
            name: words.pop_front().unwrap_or_default(),
            subresource: words.pop_front().unwrap_or_default(),
            query: pairs.map(|(key, value)| (key.to_owned(), decode(value))).collect(),
            metadata_only: accept.is_some_and(|accept| accept.contains("PartialObjectMetadata")),
        })
    }

    fn key(&self) -> Key {
        key(&self.plural, &self.namespace, &self.name)
    }

    fn selects(&self, key: &Key, object: &Value) -> bool {
        let here = self.namespace.is_empty() || self.namespace == key.1;
        let selector = self.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        let mut pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
        let labels = &object["metadata"]["labels"];
        key.0 == self.plural && here && pairs.all(|(key, value)| labels[key] == value)
    }

    fn shaped(&self, object: &Value) -> Value {
        if !self.metadata_only {
            return object.clone();
        }
        json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": object["metadata"],
        })
    }
}

// === impl Store ===

impl Store {
    fn carry_out(&mut self, call: &Call, body: Value) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let key = call.key();
        let known = self.objects.get(&key).map(|object| object.value.clone());
        let manager =
            call.query.get("fieldManager").cloned().unwrap_or_else(|| "unknown".to_owned());
        match (call.method.as_str(), known) {
            ("GET", _) if call.name.is_empty() => self.list(call),
            ("GET", Some(object)) => answered(200, &object),
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = self::key(&call.plural, &call.namespace, &name);
                if self.objects.contains_key(&key) {
                    return failed(409, "AlreadyExists");
                }
                self.update(key.clone(), body, &manager);
                answered(201, &self.objects[&key].value)
            }
            ("PUT", Some(object)) => {
                let version = &body["metadata"]["resourceVersion"];
                if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                    return failed(409, "Conflict");
                }
                self.update(key.clone(), body, &manager);
                answered(200, &self.objects[&key].value)
            }
            ("PATCH", known) => self.apply(call, key, known, body, &manager),
            ("DELETE", Some(object)) => {
                let uid = &body["preconditions"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return failed(409, "Conflict");
                }
                self.delete(&key);
                answered(200, &object)
            }
            _ => failed(404, "NotFound"),
        }
    }

    fn list(&self, call: &Call) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let objects = self.objects.iter().filter(|(key, object)| call.selects(key, &object.value));
        let items: Vec<_> = objects.map(|(_, object)| call.shaped(&object.value)).collect();
        answered(
            200,
            &json!({
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": self.version.to_string()},
                "items": items,
            }),
        )
    }

    fn apply(
        &mut self,
        call: &Call,
        key: Key,
        known: Option<Value>,
        mut body: Value,
        manager: &str,
    ) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let uid = body["metadata"].as_object_mut().and_then(|meta| meta.remove("uid"));
        if let Some(uid) = uid.filter(|uid| !uid.is_null())
            && known.as_ref().is_none_or(|known| known["metadata"]["uid"] != uid)
        {
            return failed(409, "Conflict");
        }
        if call.subresource == "status" {
            let Some(known) = known else { return failed(404, "NotFound") };
            body = json!({"status": body["status"]});
            return self.merge(key, known, body, &format!("{manager}/status"));
        }
        self.merge(key, known.unwrap_or_else(|| json!({})), body, manager)
    }

    fn merge(
        &mut self,
        key: Key,
        known: Value,
        body: Value,
        manager: &str,
    ) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let before = self.objects.get(&key).and_then(|object| object.applied.get(manager)).cloned();
        let mut value = known.clone();
        merge::remove_gone(&mut value, before.as_ref().unwrap_or(&Value::Null), &body);
        merge::set(&mut value, &body);
        if value != known {
            if value["spec"] != known["spec"] {
                bump(&mut value, "generation");
            }
            if !manager.ends_with("/status") {
                managed(&mut value, manager, "Apply");
            }
            self.store(key.clone(), value);
        }
        let object = self.objects.get_mut(&key).unwrap();
        object.applied.insert(manager.to_owned(), body);
        answered(200, &object.value.clone())
    }

    // A write of a whole object.
    fn update(&mut self, key: Key, mut value: Value, manager: &str) {
        let known = self.objects.get(&key).map(|object| object.value.clone()).unwrap_or_default();
        if value["spec"] != known["spec"] {
            bump(&mut value, "generation");
        }
        managed(&mut value, manager, "Update");
        self.store(key, value);
    }

    fn store(&mut self, key: Key, mut value: Value) {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        value["metadata"]["namespace"] = key.1.clone().into();
        if value["metadata"]["uid"].is_null() {
            self.uids += 1;
            value["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        }
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.log.push_back((self.version, key.clone(), kind, value.clone()));
        self.objects.entry(key).or_default().value = value;
    }

    fn delete(&mut self, key: &Key) {
        let Some(object) = self.objects.remove(key) else { return };
        self.version += 1;
        let mut value = object.value;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push_back((self.version, key.clone(), "DELETED", value.clone()));
        let owned = self.objects.iter().filter(|(_, child)| {
            let owners = child.value["metadata"]["ownerReferences"].as_array();
            owners.into_iter().flatten().any(|owner| owner["uid"] == value["metadata"]["uid"])
        });
        for child in owned.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.delete(&child);
        }
    }
}

fn key(plural: &str, namespace: &str, name: &str) -> Key {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

fn bump(value: &mut Value, field: &str) {
    let next = value["metadata"][field].as_i64().unwrap_or_default() + 1;
    value["metadata"][field] = next.into();
}

// The entry of a manager, which says that something of it changed.
fn managed(value: &mut Value, manager: &str, operation: &str) {
    let mut entries = value["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let times = entries.iter().filter(|entry| entry["manager"] == manager).count();
    let serial = entries.iter().filter_map(|entry| entry["fieldsV1"]["serial"].as_u64()).max();
    entries.retain(|entry| entry["manager"] != manager);
    entries.push(json!({
        "manager": manager,
        "operation": operation,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"serial": serial.unwrap_or_default() + 1, "times": times},
    }));
    value["metadata"]["managedFields"] = entries.into();
}

fn answered(code: u16, value: &Value) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    Response::builder().status(code).body(body.boxed_unsync()).unwrap()
}

fn failed(code: u16, reason: &str) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    answered(code, &status)
}
